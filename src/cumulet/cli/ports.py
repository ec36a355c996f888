"""`cumulet ports`."""

import csv
import io
import json
from collections.abc import Callable

import click

from cumulet import ports
from cumulet.cli.options import with_settings
from cumulet.config import Settings

Row = tuple[str, ...]
HEADER: Row = ("service", "name", "component", "port", "protocol", "endpoint", "served", "purpose")


@click.command("ports")
@with_settings("port_offset")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv", "markdown"]), default="table",
              help="How to print them.  [default: table]")  # fmt: skip
def command(settings: Settings, form: str) -> None:
    """Show who listens where and who must reach whom; check and prove it.

    `served` tells whether this version has the service behind a port.

    \b
    Example: as a table; as CSV, for a cloud that runs with an offset:
      cumulet ports
      cumulet ports --format csv --port-offset 10000
    """
    rows = [_row(ports.with_offset(row, settings.port_offset)) for row in ports.PORTS]
    click.echo(_FORMATS[form](rows), nl=False)


def _row(row: ports.Port) -> Row:
    served = "yes" if row.served else "no"
    return row.service_type, row.name, row.component, row.label, row.protocol, row.endpoint, served, row.purpose


def _table(rows: list[Row]) -> str:
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [HEADER, *rows])
    return "".join(line.rstrip() + "\n" for line in lines)


def _markdown(rows: list[Row]) -> str:
    lines = [HEADER, tuple("---" for _ in HEADER), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    return text.getvalue()


def _json(rows: list[Row]) -> str:
    return json.dumps([dict(zip(HEADER, row, strict=True)) for row in rows], indent=2) + "\n"


_FORMATS: dict[str, Callable[[list[Row]], str]] = {"table": _table, "json": _json, "csv": _csv, "markdown": _markdown}
