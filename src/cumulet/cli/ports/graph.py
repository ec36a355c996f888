"""`cumulet ports graph`."""

from pathlib import Path

import click

from cumulet.portmap.facts import DIALECTS, ERAS, OWN, ROLES, facts
from cumulet.portmap.graph import FORMS, build, services


@click.command("graph")
@click.option("--format", "form", type=click.Choice(list(FORMS)), default="svg", help="How to draw it.  [default: svg]")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False, writable=True), metavar="FILE",
              help="Write it there instead of printing it.")  # fmt: skip
@click.option("--dialect", type=click.Choice(DIALECTS), default=OWN,
              help="Of which cloud: this program's, upstream's, or a deployment tool's.  [default: cumulet]")  # fmt: skip
@click.option("--era", type=click.Choice(ERAS), default="current", help="Of which time.  [default: current]")
@click.option("--service", default="", metavar="TYPE", help="Only what this service opens and is reached by.")
@click.option("--role", type=click.Choice(ROLES), help="Only what the hosts of this role are reached by.")
@click.option("--deploy", is_flag=True, help="With the connections that are only opened while a cloud is deployed.")
def command(
    form: str, output: Path | None, dialect: str, era: str, service: str, role: str | None, deploy: bool
) -> None:
    """Draw the components and who connects to whom.

    The colour of a line is the network that it travels. In a browser, a line says what it is for.

    \b
    Example: this program; one service of upstream's; for Graphviz:
      cumulet ports graph -o ports.svg
      cumulet ports graph --dialect upstream --service compute -o compute.svg
      cumulet ports graph --dialect upstream --role storage --format dot | dot -Tpdf -o storage.pdf
    """
    known = facts()
    if service and service not in services(known):
        raise click.UsageError(f"no service {service!r} is known; these are: {', '.join(services(known))}")
    graph = build(known, era=era, dialect=dialect, service=service, role=role or "", deploy=deploy)
    if not graph.nodes:
        raise click.ClickException("nothing connects there; another --dialect or --era has more")
    text = FORMS[form](graph)
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    click.echo(f"{output}: {len(graph.nodes)} components, {len(graph.edges)} connections")
