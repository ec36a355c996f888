"""Pages of the documentation that are made from code. `python -m tests.unit.test_docs` writes them anew."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cumulet import ports, program
from cumulet.config import SETTINGS
from tests.unit.coverage_page import ABSENT, NOT_YET, coverage_page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BEGIN, END = "<!-- ports: made by `make docs` -->", "<!-- /ports -->"


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


def readme() -> str:
    """README.md with its table of ports as the registry has it."""
    before, _, rest = (ROOT / "README.md").read_text().partition(BEGIN)
    lines = ["| port | what | upstream's name |", "| --- | --- | --- |"]
    for row in sorted(ports.served(), key=lambda row: row.number):
        lines.append(f"| {row.label} | {row.purpose} | {row.component} |")
    return "\n".join([before + BEGIN, *lines, END + rest.partition(END)[2]])


PAGES: dict[str, Callable[[], str]] = {
    "docs/settings.md": settings_page,
    "docs/ports.md": ports_page,
    "docs/coverage.md": coverage_page,
    "README.md": readme,
}


@pytest.mark.parametrize("name", list(PAGES))
def test_the_page_is_what_the_code_says(name: str) -> None:
    assert (ROOT / name).read_text() == PAGES[name](), "run `make docs`"


def test_each_service_says_what_it_lacks() -> None:
    assert {*NOT_YET, *ABSENT} == {service.type for service in program.SERVICES}


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/guest-image.md"])
def test_files_that_are_named_exist(name: str) -> None:
    for path in re.findall(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|sh|md))`", (ROOT / name).read_text()):
        places = (ROOT / path, ROOT / "src" / "cumulet" / path)
        assert any(place.exists() for place in places), path


if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / name).write_text(page())
