"""The command line. Each command is a module of this package, imported only when it is run or explained."""

import click

import cumulet as package
from cumulet.cli.lazy import LazyGroup

COMMANDS = {
    "up": "Start the cloud in the foreground.",
    "status": "Say what runs, what does not, and why.",
    "demo": "Boot a server on a network of its own and log in to it.",
    "clouds-yaml": "Print the credentials for OpenStack clients.",
    "ports": "Show who listens where; check it, prove it, draw it.",
    "firewall": "Make firewall rules for a host, and apply them.",
    "policy": "List the rules of policy, and check a file of them.",
    "keys": "List and rotate the keys of tokens and credentials.",
    "ring": "Say which devices of object storage hold what.",
    "object-node": "Run only the storage of object storage on this host.",
    "openapi": "Print the OpenAPI document of a service.",
    "reset": "Remove the cloud: servers, networks, all data.",
}
"""Every command with the first line of its help; `cumulet --help` needs nothing else, so it loads no command."""


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    package="cumulet.cli",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
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
