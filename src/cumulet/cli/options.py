"""Flags made from the table of settings, and `Settings` made from the flags."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import get_args

import click

from cumulet.config import SETTINGS, Setting, SettingsError, load


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `--config` and a flag for each named setting (all, if none is named), and pass it `Settings`."""
    rows = [row for row in SETTINGS if not names or row.name in names]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(config: Path | None, **arguments: object) -> None:
            flags = {row.name: arguments.pop(row.name) for row in rows}
            try:
                settings = load(flags, file=config)
            except SettingsError as error:
                raise click.UsageError(str(error)) from error
            command(settings, **arguments)

        decorated: Callable[..., None] = run
        for row in reversed(rows):
            decorated = _option(row)(decorated)
        file = click.Path(path_type=Path, dir_okay=False)
        return click.option("--config", metavar="FILE", type=file, help="Read settings from this TOML file.")(decorated)

    return decorate


def _option(row: Setting) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The flag of one setting. Its default is None, 'not given': only `config.load` knows the real ones."""
    default = f"  [default: {row.default}]" if row.default else ""
    help_text = row.description + default
    if row.is_flag:
        return click.option(f"{row.flag}/--no-{row.flag[2:]}", row.name, default=None, help=help_text)
    kind = click.Choice(row.choices) if row.choices else click.STRING
    return click.option(row.flag, row.name, type=kind, default=None, help=help_text, metavar=_metavar(row))


def _metavar(row: Setting) -> str | None:
    """What stands after the flag in the help; None leaves it to the choices."""
    if row.choices:
        return None
    named = {
        "data": "DIR",
        "guest_image": "FILE",
        "log_file": "FILE",
        "policy_file": "FILE",
        "audit_log": "FILE",
        "bind": "ADDR",
        "database": "URL",
        "public_cidr": "CIDR",
    }
    return named.get(row.name, "N" if get_args(row.type)[0] in (int, float) else "NAME")
