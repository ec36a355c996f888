"""`cumulet policy`."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cumulet.cli.options import with_settings
from cumulet.config import Settings

if TYPE_CHECKING:
    from cumulet.api.policy_file import PolicyFile
    from cumulet.api.service import Service

WIDTH = 110


@click.group("policy", invoke_without_command=True)
@with_settings("data", "policy_file")
@click.option("--overridden", is_flag=True, help="List only the rules that the policy file overrides.")
@click.pass_context
def command(context: click.Context, settings: Settings, overridden: bool) -> None:
    """List the rules of policy, and check a file of them.

    Every rule has a default, upstream's own. A file of YAML or JSON overrides single ones: policy.yaml in the data
    directory, or the one that the setting `policy_file` names. It is read when the program starts.

    \b
    Example: list all rules; write a file to begin with; check it; have it used:
      cumulet policy
      cumulet policy sample > policy.yaml
      cumulet policy check policy.yaml
      cumulet up --policy-file policy.yaml

    \b
    Where two services have a rule of the same name, a name alone overrides it in both. To override it in one of them, put
    it under the service:
      "admin_or_owner": "role:admin or project_id:%(project_id)s"
      network:
        "admin_or_owner": "role:network_admin or project_id:%(project_id)s"
    """
    if context.invoked_subcommand is None:
        path = settings.find_policy_file()
        for line in _listed(_read(path) if path else None, overridden):
            click.echo(line)


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def check(file: Path) -> None:
    """Say whether FILE can be used, or what is wrong in which line.

    \b
    Example: check a file before the next start takes it up:
      cumulet policy check /var/lib/cumulet/policy.yaml
    """
    read = _read(file)
    overridden = list(_listed(read, overridden=True))
    for line in overridden:
        click.echo(line)
    count = sum(1 for line in overridden if line and not line.startswith(" "))
    click.echo(f"{file} can be used; it overrides {count} rule{'' if count == 1 else 's'}")


@command.command("sample")
def sample() -> None:
    """Print a policy file with every rule and its default, all commented out.

    \b
    Example: write it, and take the `#` off the rules to change:
      cumulet policy sample > policy.yaml
    """
    from cumulet.program import SERVICES

    click.echo("# Rules that override the defaults. `cumulet policy check FILE` checks them.")
    for service in SERVICES:
        click.echo(f"\n# ---- {service.type} ({service.upstream}) ----")
        calls = _calls(service)
        for name, text in service.rules.items():
            click.echo()
            if others := [s.type for s in SERVICES if s is not service and name in s.rules]:
                click.echo(
                    f"# {', '.join(others)} has a rule of this name too: put it under `{service.type}:` for this one alone."
                )
            for call in calls.get(name, ()):
                click.echo(f"# {call}")
            click.echo(f'#"{name}": "{text}"')


def _read(path: Path) -> "PolicyFile":
    """The file, compared with the rules that there are."""
    from cumulet.api.policy_file import PolicyFileError, policies, read
    from cumulet.program import SERVICES

    try:
        file = read(path)
        policies(SERVICES, file)
    except PolicyFileError as error:
        raise click.ClickException(str(error)) from error
    return file


def _listed(file: "PolicyFile | None", overridden: bool) -> Iterator[str]:
    """Each rule: its service and name, its default, and what is in force instead."""
    from cumulet.api.policy_file import NONE, policies
    from cumulet.program import SERVICES

    compiled = policies(SERVICES, file or NONE)
    for service in SERVICES:
        for name, text in compiled[service.type].texts.items():
            default = service.rules.get(name)
            if default == text and overridden:
                continue
            yield f"{service.type}: {name}"
            yield from _paragraph("default", default or "none, the rule is the file's own")
            if default != text:
                yield from _paragraph("override", text)


def _paragraph(title: str, text: str) -> list[str]:
    return textwrap.wrap(
        text or "(empty: everybody)",
        WIDTH,
        initial_indent=f"  {title:9}",
        subsequent_indent=" " * 11,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _calls(service: "Service") -> dict[str, list[str]]:
    """What each rule lets a caller do, where a call says by which rule it is guarded."""
    found: dict[str, list[str]] = {}
    for endpoint in service.endpoints:
        action = f" {{{endpoint.action}}}" if endpoint.action else ""
        line = f"{endpoint.method} {endpoint.path}{action}: {endpoint.doc.splitlines()[0] if endpoint.doc else ''}"
        if endpoint.policy and line not in found.setdefault(endpoint.policy, []):
            found[endpoint.policy].append(line)
    return found
