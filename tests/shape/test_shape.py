"""The shape of the source, held by tests: where things may live, what may import what, how long things may grow."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from cumulet import program
from cumulet.api.http import Endpoint
from cumulet.api.resource import ResourceMeta
from cumulet.api.service import Service

PACKAGE = Path(program.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
SERVICES = {service.folder: service for service in program.SERVICES if not service.within}

MAX_FILE = 600
MAX_FUNCTION = 60
LONG_FILES: dict[str, str] = {}
"""Files over the limit, with the reason."""
LONG_FUNCTIONS: dict[str, str] = {
    "api/crud.py:crud": "makes five small endpoint functions, one after the other",
}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def name(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def imports(file: Path) -> Iterator[str]:
    """The modules of this package that a file imports, as dotted names without the package's own."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "cumulet":
            yield node.module.removeprefix("cumulet").lstrip(".")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("cumulet.") for a in node.names if a.name.startswith("cumulet"))


def is_migration(file: Path) -> bool:
    return "migrations" in file.parts


@pytest.mark.parametrize("file", [f for f in FILES if not is_migration(f)], ids=name)
def test_files_and_functions_stay_small(file: Path) -> None:
    lines = len(file.read_text().splitlines())
    assert lines <= MAX_FILE or name(file) in LONG_FILES, f"{lines} lines"
    for node in ast.walk(tree(file)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION or f"{name(file)}:{node.name}" in LONG_FUNCTIONS, (
                f"{node.name}: {length} lines"
            )


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_module_says_what_it_is(file: Path) -> None:
    assert ast.get_docstring(tree(file)), "a module begins with a sentence"


def test_core_knows_neither_http_nor_services() -> None:
    for file in (PACKAGE / "core").rglob("*.py"):
        assert not [m for m in imports(file) if m.split(".")[0] in ("api", "services", "program")], name(file)


def test_api_knows_no_service() -> None:
    for file in (PACKAGE / "api").rglob("*.py"):
        assert not [m for m in imports(file) if m.split(".")[0] in ("services", "program")], name(file)


@pytest.mark.parametrize("folder", sorted(SERVICES))
def test_services_meet_only_through_interfaces_they_declare(folder: str) -> None:
    used = set()
    for file in (PACKAGE / "services" / folder).rglob("*.py"):
        for module in imports(file):
            parts = module.split(".")
            if parts[0] == "services" and len(parts) > 1 and parts[1] != folder:
                assert parts[2:] == ["interface"], f"{name(file)} imports {module}"
                used.add(parts[1].replace("_", "-"))
            assert parts[0] != "program", name(file)
    assert used == set(SERVICES[folder].needs)


def test_needs_have_no_cycle() -> None:
    needs = {service.type: set(service.needs) for service in program.SERVICES}
    while needs:
        free = [service for service, wanted in needs.items() if not wanted & set(needs)]
        assert free, f"a cycle among {sorted(needs)}"
        for service in free:
            del needs[service]


@pytest.mark.parametrize("folder", sorted(SERVICES))
def test_service_folders_have_the_same_files(folder: str) -> None:
    has_tables = any(isinstance(r, ResourceMeta) for e in SERVICES[folder].endpoints for r in (e.resource, e.body))
    for file in ("__init__.py", "declaration.py", "interface.py", "runtime.py", *["migrations"] * has_tables):
        assert (PACKAGE / "services" / folder / file).exists(), file


def endpoints() -> list[tuple[Service, Endpoint]]:
    return [(service, endpoint) for service in program.SERVICES for endpoint in service.endpoints]


def test_endpoints_are_documented_and_guarded() -> None:
    rules = {rule for service in program.SERVICES for rule in service.rules}
    for service, endpoint in endpoints():
        where = f"{service.type}: {endpoint.method} {endpoint.path} {endpoint.action}"
        assert endpoint.doc, f"{where} has no docstring"
        assert not endpoint.policy or endpoint.policy in rules, f"{where}: no rule {endpoint.policy}"


def test_no_endpoint_is_declared_twice() -> None:
    seen: dict[tuple[str, str, str, str], list[Endpoint]] = {}
    for service, endpoint in endpoints():
        path = "/".join("{}" if s.startswith("{") else s for s in endpoint.path.split("/"))
        same = seen.setdefault((service.type, endpoint.method, path, endpoint.action), [])
        for other in same:
            assert endpoint.until < other.since or other.until < endpoint.since, f"{endpoint.method} {endpoint.path}"
        same.append(endpoint)


def resources() -> list[ResourceMeta]:
    found = {id(r): r for _, e in endpoints() for r in (e.resource, e.body) if isinstance(r, ResourceMeta)}
    return list(found.values())


def test_resources_and_fields_are_described() -> None:
    rules = {rule for service in program.SERVICES for rule in service.rules}
    for resource in resources():
        assert resource.__doc__, resource.__name__
        for field in resource.fields:
            assert field.doc.endswith("."), f"{resource.__name__}.{field.name}: a sentence"
            for rule in {field.show, *(field.set.format(verb=v) for v in ("create", "update"))} - {""}:
                assert rule in rules or not set(field.modes) & {"create", "update"}, f"{field.name}: no rule {rule}"


def test_migrations_give_the_declared_schema() -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import create_engine

    from cumulet.core.db.migrate import is_current, upgrade
    from cumulet.core.db.table import metadata

    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        upgrade(connection)
        assert is_current(connection)
        ours = MigrationContext.configure(
            connection, opts={"include_object": lambda _o, n, k, _r, _c: k != "table" or not n.startswith("test_")}
        )
        assert compare_metadata(ours, metadata) == []


def test_migrations_of_each_owner_are_one_line() -> None:
    """Two branches that each add the next number meet in a merge without a conflict: one of them has to be renumbered."""
    for folder in PACKAGE.rglob("migrations"):
        before = None
        for file in sorted(folder.glob("*_[0-9]*.py")):
            revision = "_".join(file.stem.split("_")[: file.stem.split("_").index(number(file.stem)) + 1])
            text = file.read_text()
            assert f'revision = "{revision}"' in text, name(file)
            assert f"down_revision = {before}" in text, f"{name(file)} does not follow {before}"
            before = f'"{revision}"'


def number(stem: str) -> str:
    """The first word of a file's name that is a number."""
    return next(word for word in stem.split("_") if word.isdigit())


def test_port_numbers_live_in_the_registry_only() -> None:
    from cumulet.ports import PORTS

    numbers = {row.number for row in PORTS if row.number > 1024}
    for file in FILES:
        if name(file) == "ports.py" or is_migration(file):
            continue
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Constant) and type(node.value) is int:
                assert node.value not in numbers, f"{name(file)}:{node.lineno} writes {node.value}"


def test_every_driver_is_in_the_suite_of_its_kind() -> None:
    suites = {"compute": "test_hypervisor.py", "network": "test_dataplane.py", "image": "test_image_store.py"}
    for folder, suite in suites.items():
        text = (PACKAGE.parents[1] / "tests" / "drivers" / suite).read_text()
        drivers = {f.stem for f in (PACKAGE / "services" / folder / "drivers").iterdir() if f.name != "__init__.py"}
        for driver in drivers - {"__pycache__", "kvm"}:
            assert driver in text, f"{suite} does not run {driver}"
