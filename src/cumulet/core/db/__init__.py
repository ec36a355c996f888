"""The database: SQLAlchemy Core, synchronous units of work, SQLite or MySQL/MariaDB."""

from cumulet.core.db.changes import note, noted
from cumulet.core.db.engine import Database, after_commit
from cumulet.core.db.store import (
    count,
    find,
    first,
    get,
    insert,
    insert_many,
    remove,
    remove_where,
    update,
    update_where,
)
from cumulet.core.db.table import Json, metadata

__all__ = [
    "Database",
    "Json",
    "after_commit",
    "count",
    "find",
    "first",
    "get",
    "insert",
    "insert_many",
    "metadata",
    "note",
    "noted",
    "remove",
    "remove_where",
    "update",
    "update_where",
]
