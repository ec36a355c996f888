"""Groups of commands whose modules are imported only when a command is run or explained."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """Commands by name with the first line of their help, each in a module of `package`; listing them loads none."""

    def __init__(self, *arguments: Any, table: Mapping[str, str], package: str, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.table, self.package = table, package

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        command = import_module(f"{self.package}.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.table.items()))
