"""Rows as people and programs want them: a table for the terminal, JSON, CSV, Markdown."""

import csv
import io
import json
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence

import click

Row = Sequence[str]


def table(header: Row, rows: Sequence[Row], width: int | None = None) -> str:
    """Columns under their names. A last column that does not fit the terminal is wrapped below itself."""
    width = width or shutil.get_terminal_size((120, 24)).columns
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in zip(header, *rows, strict=True)]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = max(20, width - before)
    lines = []
    for row in [header, *rows]:
        start = "  ".join(
            cell + " " * (size - len(click.unstyle(cell))) for cell, size in zip(row[:-1], widths[:-1], strict=True)
        )
        parts = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
        lines.append(f"{start}  {parts[0]}".rstrip())
        lines += [" " * (before) + part for part in parts[1:]]
    return "".join(line + "\n" for line in lines)


def markdown(header: Row, rows: Sequence[Row]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(header: Row, rows: Sequence[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def as_json(header: Row, rows: Sequence[Row]) -> str:
    return json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=2) + "\n"


FORMS: Mapping[str, Callable[[Row, Sequence[Row]], str]] = {
    "table": table, "json": as_json, "csv": as_csv, "markdown": markdown,
}  # fmt: skip
