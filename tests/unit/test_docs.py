"""Pages of the documentation that are made from code. `python -m tests.unit.test_docs` writes them anew."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cumulet import ports, program
from cumulet.config import SETTINGS
from cumulet.listeners import DEFAULT_EPHEMERAL
from cumulet.portmap.explain import collisions
from cumulet.portmap.facts import OWN, UPSTREAM, Facts, facts
from cumulet.portmap.graph import build, svg
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
    known = facts()
    lines = [
        "# Ports",
        "",
        "Every port that Cumulet listens on, or will; `--port-offset N` adds N to all. `cumulet ports` prints the same. Its",
        "commands do more: `explain` says what a port is, `check` looks whether it is as it should be, `verify` proves",
        "connections between hosts, `graph` draws them; `cumulet firewall` makes rules of them. All work for any OpenStack.",
        "",
        "| port | protocol | service | what upstream calls it | purpose | used by | served by this version |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(ports.PORTS, key=lambda row: row.number):
        served = "yes" if row.served else row.sometimes or "not yet"
        (fact,) = [f for f in known.table("current", OWN) if (f.port, f.component) == (row.label, row.component)]
        users = _few(known.users(fact))
        cells = (row.label, row.protocol, row.service_type, row.component, row.purpose, users, served)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_then_and_now(known), *_collisions(known)]) + "\n"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _then_and_now(known: Facts) -> list[str]:
    """The table that is copied most, and what became of each row."""
    lines = [
        "", "## The published table, then and now", "",
        "The table that most copies go back to is of the Kilo release (2015). What upstream says of each row today, and where",
        "deployment tools put it:", "", "| port | component | today | elsewhere |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in known.table("kilo", UPSTREAM):
        name = "keystone" if row.component == "keystone (admin)" else row.component
        now = [r for r in known.table("current", UPSTREAM) if r.component == name]
        today = ", ".join(dict.fromkeys(r.port if r.state == "listed" else f"{r.port} ({r.state})" for r in now))
        tools = [r for r in known.ports if r.component == name and r.dialect not in (OWN, UPSTREAM)]
        elsewhere = ", ".join(f"{r.port} ({r.dialect})" for r in tools)
        lines.append(f"| {row.port} | {row.component} | {today or 'gone'} | {elsewhere} |")
    return lines


def _collisions(known: Facts) -> list[str]:
    lines = ["", "## What collides", "", "| port | component | with |", "| --- | --- | --- |"]
    for row in known.table("current", OWN):
        found = collisions(known, row, DEFAULT_EPHEMERAL)
        if found:
            lines.append(f"| {row.port} | {row.component} | {'; '.join(found)} |")
    return lines


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
    "docs/ports.svg": lambda: svg(build(facts())),
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
