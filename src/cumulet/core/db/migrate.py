"""Bring the schema up to date, with Alembic.

Each owner of tables (the core, each service) has a folder `migrations/` with numbered revisions and is a branch of its
own, so that a service comes and goes as one folder. Revision ids are `<owner>_<number>`, the file's name up to its title:
`network_0001_start.py`. Forward only. Write a new one with `python -m cumulet.core.db.migrate OWNER TITLE`.
"""

import importlib
import re
import sys
from pathlib import Path

from sqlalchemy import Connection, inspect, text

PACKAGE = Path(__file__).parents[2]
REVISION = re.compile(r"^([a-z_]+?)_(\d{4})_\w+\.py$")


def folders() -> list[Path]:
    """Every folder of revisions."""
    return [PACKAGE / "core/db/migrations", *sorted(PACKAGE.glob("services/*/migrations"))]


def heads() -> frozenset[str]:
    """The newest revision of each owner, told from the file names (importing Alembic costs a third of a second)."""
    newest: dict[str, str] = {}
    for folder in folders():
        for file in sorted(folder.glob("*.py")):
            if match := REVISION.match(file.name):
                newest[match[1]] = f"{match[1]}_{match[2]}"
    return frozenset(newest.values())


def is_current(connection: Connection) -> bool:
    """Whether the database has exactly the schema of this program."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    return frozenset(connection.execute(text("SELECT version_num FROM alembic_version")).scalars()) == heads()


class SchemaError(Exception):
    """The database has a schema that this version of the program does not know."""


def upgrade(connection: Connection) -> None:
    """Run every revision the database has not seen, in the caller's transaction. Raises SchemaError."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    script = _scripts()
    _refuse_newer(connection, {revision.revision for revision in script.walk_revisions()})
    context = MigrationContext.configure(
        connection, opts={"fn": lambda rev, _context: script._upgrade_revs("heads", rev)}
    )
    with Operations.context(context):
        context.run_migrations()


def _refuse_newer(connection: Connection, known: set[str]) -> None:
    if inspect(connection).has_table("alembic_version"):
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars()
        if unknown := sorted(set(found) - known):
            names = ", ".join(unknown)
            raise SchemaError(
                f"the database was last used by a newer version ({names} is not known here); run that one"
            )


def _scripts() -> "ScriptDirectory":  # type: ignore[name-defined]  # noqa: F821 - imported below, Alembic is slow to load
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(folders()[0]), version_locations=[str(f) for f in folders()])


def write_revision(owner: str, title: str) -> Path:
    """Write the revision that takes the owner's newest schema to what its declarations say now.

    An owner's tables are those whose name begins with `<owner>_`.
    """
    from alembic.autogenerate import produce_migrations, render_python_code
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import create_engine

    from cumulet.core.db.table import metadata

    for module in (
        ("cumulet.core.operations", "cumulet.core.quota", "cumulet.core.flag")
        if owner == "core"
        else (f"cumulet.services.{owner}.declaration",)
    ):
        importlib.import_module(module)  # which declares the tables

    folder = next(f for f in folders() if f.parent.name == owner or (owner == "core" and "core" in f.parts))
    numbers = [int(m[2]) for f in folder.glob("*.py") if (m := REVISION.match(f.name))]
    number = max(numbers, default=0) + 1
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        upgrade(connection)
        options = {
            "include_object": lambda _o, name, kind, _r, _c: kind != "table" or name.startswith(f"{owner}_"),
            "user_module_prefix": "types.",
        }
        code = render_python_code(
            produce_migrations(MigrationContext.configure(connection, opts=options), metadata).upgrade_ops,  # type: ignore[arg-type]
            user_module_prefix="types.",
        )
    down = f'"{owner}_{number - 1:04}"' if number > 1 else "None"
    labels = f'("{owner}",)' if number == 1 else "None"
    target = folder / f"{owner}_{number:04}_{title}.py"
    variants = "from sqlalchemy.dialects import mysql\n" if "mysql." in code else ""
    target.write_text(
        f'"""{title.replace("_", " ").capitalize()}."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n{variants}\n'
        f"from cumulet.core.db import table as types\n\n"
        f'revision = "{owner}_{number:04}"\ndown_revision = {down}\nbranch_labels = {labels}\ndepends_on = None\n\n\n'
        f"def upgrade() -> None:\n    {code}\n"
    )
    return target


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(
            "usage: python -m cumulet.core.db.migrate OWNER TITLE   (OWNER: core, or a folder of services/)"
        )
    sys.stdout.write(f"{write_revision(sys.argv[1], sys.argv[2])}\n")
