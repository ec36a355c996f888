"""Rows by declaration: read, insert, change and remove stored objects. Called from inside a unit of work.

A stored class has a `table` and is built from its columns by name. Statements are made once per class and kept.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, delete, func, select
from sqlalchemy import insert as sql_insert
from sqlalchemy import update as sql_update

from cumulet.core.db.changes import CREATED, DELETED, UPDATED, note
from cumulet.core.errors import NotFound


class Stored(Protocol):
    """What the functions below ask of a class."""

    table: ClassVar[Table]
    kind: ClassVar[str]  # its name in messages


R = TypeVar("R", bound=Stored)


@cache
def _by_key(table: Table) -> Select[Any]:
    (key,) = table.primary_key.columns
    return select(table).where(key == bindparam("key"))


@cache
def _all(table: Table) -> Select[Any]:
    return select(table)


@cache
def _insert(table: Table) -> Any:
    return sql_insert(table)


@cache
def _update(table: Table, names: frozenset[str]) -> Any:
    (key,) = table.primary_key.columns
    return sql_update(table).where(key == bindparam("_key")).values({n: bindparam(n) for n in names})


@cache
def _delete(table: Table) -> Any:
    (key,) = table.primary_key.columns
    return delete(table).where(key == bindparam("key"))


def _names(cls: Any) -> list[str]:
    return [column.name for column in cls.table.columns]


@cache
def _loader(cls: Any) -> Callable[[Any], Any]:
    """A function from a row to its object, generated from the table's column names."""
    code = f"lambda row: cls({', '.join(f'{name}=row[{n}]' for n, name in enumerate(_names(cls)))})"
    return eval(code, {"cls": cls})  # type: ignore[no-any-return]  # noqa: S307 - made of declared names only


@cache
def _storer(cls: Any) -> Callable[[Any], dict[str, Any]]:
    """A function from an object to its columns, generated likewise."""
    code = f"lambda it: {{{', '.join(f'{name!r}: it.{name}' for name in _names(cls))}}}"
    return eval(code, {})  # type: ignore[no-any-return]  # noqa: S307 - made of declared names only


def load(cls: type[R], row: Any) -> R:
    """The object of a row that was selected with the columns of its table, all and in order."""
    return _loader(cls)(row)  # type: ignore[no-any-return]


def load_all(cls: type[R], rows: Iterable[Any]) -> list[R]:
    """The objects of many such rows: where several attributes are asked of each, objects answer sooner than rows."""
    return list(map(_loader(cls), rows))


def values(obj: Any) -> dict[str, Any]:
    """The columns of a stored object."""
    cls: Any = type(obj)
    return _storer(cls)(obj)


def get(tx: Connection, cls: type[R], key: Any, *scope: ColumnElement[bool]) -> R:
    """The object with this key; NotFound where there is none, or none inside `scope`."""
    statement = _by_key(cls.table)
    row = tx.execute(statement.where(*scope) if scope else statement, {"key": key}).first()
    if row is None:
        raise NotFound(cls.kind, key)
    return load(cls, row)


def first(tx: Connection, cls: type[R], *where: ColumnElement[bool]) -> R | None:
    """The first object for which `where` holds, or None."""
    row = tx.execute(_all(cls.table).where(*where).limit(1)).first()
    return None if row is None else load(cls, row)


def find(tx: Connection, cls: type[R], *where: ColumnElement[bool], order: Sequence[Any] = ()) -> list[R]:
    """All objects for which `where` holds."""
    statement = _all(cls.table).where(*where)
    return load_all(cls, tx.execute(statement.order_by(*order) if order else statement).all())


def count(tx: Connection, cls: type[Any], *where: ColumnElement[bool]) -> int:
    return int(tx.execute(select(func.count()).select_from(cls.table).where(*where)).scalar_one())


@cache
def _key_name(table: Table) -> str:
    """The name of the one column of the primary key; "" where there are more."""
    names = [column.name for column in table.primary_key.columns]
    return names[0] if len(names) == 1 else ""


def _note_new(tx: Connection, obj: Any) -> None:
    name = _key_name(type(obj).table)
    if name:
        note(tx, type(obj).kind, CREATED, getattr(obj, name))


def insert(tx: Connection, obj: Any) -> None:
    tx.execute(_insert(type(obj).table), values(obj))
    _note_new(tx, obj)


def insert_many(tx: Connection, objects: Sequence[Any]) -> None:
    if objects:
        tx.execute(_insert(type(objects[0]).table), [values(o) for o in objects])
        for obj in objects:
            _note_new(tx, obj)


def update(tx: Connection, cls: type[Any], key: Any, /, **changes: Any) -> int:
    """Change columns of the row with this key; returns how many rows there were (0 or 1)."""
    if not changes:
        return 1
    count = int(tx.execute(_update(cls.table, frozenset(changes)), {**changes, "_key": key}).rowcount)
    if count:
        note(tx, cls.kind, UPDATED, key)
    return count


def update_where(tx: Connection, cls: type[Any], where: Sequence[ColumnElement[bool]], /, **changes: Any) -> int:
    """Change columns of every row for which all of `where` holds (a compare-and-swap); returns how many there were."""
    return int(tx.execute(sql_update(cls.table).where(*where).values(changes)).rowcount)


def remove(tx: Connection, cls: type[Any], key: Any) -> int:
    count = int(tx.execute(_delete(cls.table), {"key": key}).rowcount)
    if count:
        note(tx, cls.kind, DELETED, key)
    return count


def remove_where(tx: Connection, cls: type[Any], *where: ColumnElement[bool]) -> int:
    return int(tx.execute(delete(cls.table).where(*where)).rowcount)
