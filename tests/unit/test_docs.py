"""Pages of the documentation that are made from code. `python -m tests.unit.test_docs` writes them anew."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cumulet import ports
from cumulet.config import SETTINGS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "One name everywhere: `port_offset` in the TOML file (`cumulet up --config FILE`, or `CUMULET_CONFIG`),",
        "`CUMULET_PORT_OFFSET` in the environment, `--port-offset` on the command line. A flag wins over the environment,",
        "the environment over the file, the file over the default. An unknown name is an error.",
        "",
        "| setting | default | meaning |",
        "| --- | --- | --- |",
    ]
    for row in SETTINGS:
        choices = f" One of {', '.join(f'`{choice}`' for choice in row.choices)}." if row.choices else ""
        lines.append(f"| `{row.name}` | {row.default} | {row.description}{choices} |")
    return "\n".join(lines) + "\n"


def ports_page() -> str:
    lines = [
        "# Ports",
        "",
        "Every port that Cumulet listens on, or will; `--port-offset N` adds N to all. `cumulet ports` prints the same.",
        "",
        "| port | protocol | service | what upstream calls it | purpose | served by this version |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(ports.PORTS, key=lambda row: row.number):
        served = "yes" if row.served else "not yet"
        cells = (row.label, row.protocol, row.service_type, row.component, row.purpose, served)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {"settings.md": settings_page, "ports.md": ports_page}


@pytest.mark.parametrize("name", list(PAGES))
def test_the_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run `python -m tests.unit.test_docs`"


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
