"""The help teaches: each command explains itself with an example, and explaining costs no heavy import."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from cumulet.cli import COMMANDS, cumulet
from cumulet.config import SETTINGS

HEAVY = ("aiohttp", "sqlalchemy", "cryptography", "uvloop", "asyncio")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_explains_itself_with_an_example(name: str) -> None:
    result = CliRunner().invoke(cumulet, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert COMMANDS[name] in result.output
    example = result.output.partition("Example")[2].splitlines()[1:]
    assert sum(f"cumulet {name}" in line for line in example[:3]) >= 2 or name in ("demo", "status", "clouds-yaml")
    assert f"cumulet {name}" in "\n".join(example)


def test_the_overview_names_every_command_with_its_first_line() -> None:
    result = CliRunner().invoke(cumulet, ["--help"])
    for name, line in COMMANDS.items():
        assert f"  {name} " in result.output
        assert line in result.output


def test_every_setting_is_a_flag_of_up() -> None:
    result = CliRunner().invoke(cumulet, ["up", "--help"], terminal_width=200)
    for row in SETTINGS:
        assert row.flag in result.output
        assert row.description in result.output


@pytest.mark.parametrize(("arguments", "also"), [(["--help"], ("msgspec",)), (["up", "--help"], ())])
def test_help_imports_nothing_heavy(arguments: list[str], also: tuple[str, ...]) -> None:
    script = (
        "import sys; from cumulet.__main__ import main\ntry: main()\nexcept SystemExit: print('LOADED', *sys.modules)\n"
    )
    command = [sys.executable, "-c", script, *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    loaded = output.partition("LOADED")[2].split()
    assert loaded
    unwanted = [*HEAVY, *also] if arguments == ["--help"] else [name for name in HEAVY if name != "asyncio"]
    assert not set(unwanted) & set(loaded)


def test_a_wrong_setting_is_a_usage_error_and_no_traceback() -> None:
    result = CliRunner().invoke(cumulet, ["up", "--port-offset", "x"])
    assert result.exit_code == 2
    assert "--port-offset: expected a whole number" in result.output
    assert "Traceback" not in result.output
