"""`cumulet ports`: who listens where, who must reach whom, and proof of it."""

import click

from cumulet.cli.lazy import LazyGroup
from cumulet.cli.options import with_settings
from cumulet.cli.tables import FORMS
from cumulet.config import Settings
from cumulet.portmap.facts import DIALECTS, ERAS, OWN, Facts, PortFact, facts

COMMANDS = {
    "explain": "Say in plain words what a port is, who connects to it, and whether to expose it.",
    "check": "Look whether each port listens, answers as it should, and agrees with the catalogue.",
    "verify": "Prove between hosts that every connection of the cloud gets through, and show what stops one.",
    "graph": "Draw the components and who connects to whom.",
}
HEADER = ("service", "component", "port", "protocol", "endpoint", "state", "used by")
MANY = 4
"""Components that are named in a table before the rest is counted."""


@click.group(
    "ports", cls=LazyGroup, table=COMMANDS, package="cumulet.cli.ports", invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
@with_settings("port_offset")
@click.option(
    "--format", "form", type=click.Choice(list(FORMS)), default="table", help="How to print them.  [default: table]"
)
@click.option("--dialect", type=click.Choice(DIALECTS), default=OWN,
              help="Whose ports: this program's, upstream's, or those of a deployment tool.  [default: cumulet]")  # fmt: skip
@click.option("--era", type=click.Choice(ERAS), default="current",
              help="Of which time; `kilo` is the table that is copied most.  [default: current]")  # fmt: skip
@click.option("--service", default="", metavar="TYPE", help="Only this service (compute, image, ...).")
@click.pass_context
def command(ctx: click.Context, settings: Settings, form: str, dialect: str, era: str, service: str) -> None:
    """Show who listens where; check it, prove it, draw it.

    Without a command: the table of ports. `state` is `listed`, `planned` (this program does not listen there yet), `removed`
    (upstream has it no more) or `misprint` (a page of upstream says so, and is wrong).

    \b
    Example: this program's ports; upstream's, as CSV; what Kolla-Ansible does with placement:
      cumulet ports
      cumulet ports --dialect upstream --format csv
      cumulet ports --dialect kolla-ansible --service placement

    \b
    Example: what is behind a number, and whether this cloud is as it should be:
      cumulet ports explain 8774
      cumulet ports check
    """
    if ctx.invoked_subcommand is not None:
        return
    known = facts()
    if service and service not in known.services:
        raise click.UsageError(f"no service {service!r} is known; these are: {', '.join(known.services)}")
    rows = [_row(known, row, settings.port_offset, form) for row in known.table(era, dialect, service)]
    click.echo(FORMS[form](HEADER, rows), nl=False)


def _row(known: Facts, row: PortFact, offset: int, form: str) -> tuple[str, ...]:
    users = known.users(row)
    if form == "table" and len(users) > MANY:
        users = [*users[:MANY], f"and {len(users) - MANY} more"]
    first, last = (number + (offset if row.dialect == OWN else 0) for number in row.range)
    port = str(first) if first == last else f"{first}-{last}"
    return row.service, row.component, port, row.protocol, "+".join(row.endpoint), row.state, ", ".join(users)
