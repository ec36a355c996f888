"""The command line. Each command is a module of this package, imported only when it is run or explained."""

from importlib import import_module

import click

import cumulet as package

COMMANDS = {
    "up": "Start the cloud in the foreground.",
    "status": "Say what runs, what does not, and why.",
    "demo": "Boot a server on a network of its own and log in to it.",
    "clouds-yaml": "Print the credentials for OpenStack clients.",
    "ports": "List the ports Cumulet listens on, or will.",
    "policy": "List the rules of policy, and check a file of them.",
    "keys": "List and rotate the keys of tokens and credentials.",
    "openapi": "Print the OpenAPI document of a service.",
    "reset": "Remove the cloud: servers, networks, all data.",
}
"""Every command with the first line of its help; `cumulet --help` needs nothing else, so it loads no command."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"cumulet.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package.__version__, message="%(prog)s %(version)s")
def cumulet() -> None:
    """The whole of OpenStack as one program.

    \b
    Example: start a cloud, and in a second terminal boot a server on it:
      cumulet up
      cumulet demo

    \b
    Use it with the official clients:
      eval "$(cumulet clouds-yaml --export)"
      openstack server list

    Every setting is a flag of `cumulet up`, a CUMULET_* variable and a key of the TOML file alike.
    """
