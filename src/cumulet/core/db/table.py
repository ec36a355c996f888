"""Tables from declarations: the SQLAlchemy column of each declared type."""

import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from sqlalchemy import BigInteger, Boolean, Dialect, Float, MetaData, String, Table, TypeDecorator
from sqlalchemy import Column as SqlColumn
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.mysql import DOUBLE, LONGTEXT
from sqlalchemy.types import TypeEngine

from cumulet.core.types import Column

metadata = MetaData()
"""Every table of the cloud."""

_encode = msgspec.json.Encoder().encode
LONG_TEXT = SqlText().with_variant(LONGTEXT(), "mysql", "mariadb")


class Json(TypeDecorator[Any]):
    """A value kept as JSON text, decoded to `type`."""

    impl = SqlText
    cache_ok = True

    def __init__(self, type: Any = Any, nullable: bool = True) -> None:
        super().__init__()
        self.type = type
        self.nullable = nullable

    def __repr__(self) -> str:
        return "Json()"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(LONG_TEXT)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        return lambda value: None if value is None else _encode(value).decode()

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        decode = msgspec.json.Decoder(self.type).decode
        if not self.nullable:
            return decode
        return lambda value: None if value is None else decode(value)


def split(annotation: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """(the bare type, its `Annotated` extras, whether None is a value of it)."""
    extras: tuple[Any, ...] = ()
    nullable = False
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            extras += tuple(more)
        elif get_origin(annotation) in (Union, types.UnionType):
            arms = [a for a in get_args(annotation) if a is not type(None)]
            nullable = nullable or len(arms) < len(get_args(annotation))
            if len(arms) != 1:
                return Any, extras, nullable
            annotation = arms[0]
        else:
            return annotation, extras, nullable


def column(name: str, annotation: Any, *, primary_key: bool = False, index: bool = False) -> SqlColumn[Any]:
    """The column that keeps values of `annotation`."""
    bare, extras, nullable = split(annotation)
    kept = next((e for e in extras if isinstance(e, Column)), None)
    kind: TypeEngine[Any]
    if bare is bool:
        kind = Boolean()
    elif bare is int:
        kind = BigInteger()
    elif bare is float:
        kind = Float().with_variant(DOUBLE(asdecimal=False), "mysql", "mariadb")
    elif bare is str:
        length = kept.length if kept else _longest(extras)
        kind = String(length) if length else LONG_TEXT
    elif get_origin(bare) is Literal:
        kind = String(64)
    else:
        kind = Json(bare, nullable)
    return SqlColumn(name, kind, primary_key=primary_key, nullable=nullable and not primary_key, index=index)


def _longest(extras: tuple[Any, ...]) -> int:
    return next((e.max_length for e in extras if isinstance(e, msgspec.Meta) and e.max_length), 0)


def define(name: str, fields: dict[str, Any], *, primary_key: tuple[str, ...], index: frozenset[str]) -> Table:
    """The table `name` with a column for each field."""
    columns = [column(n, t, primary_key=n in primary_key, index=n in index) for n, t in fields.items()]
    return Table(name, metadata, *columns)
