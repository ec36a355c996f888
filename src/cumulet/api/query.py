"""Lists: filters, sorting, pages and chosen fields, from a query string to one SELECT."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Select, String, Table, and_, func, or_, select

from cumulet.api.dialect import Dialect
from cumulet.api.http import Query
from cumulet.api.resource import Field, ResourceMeta, Use, Version
from cumulet.core.db.store import load_all
from cumulet.core.db.table import split
from cumulet.core.errors import Invalid, NotFound

PAGING = frozenset({"limit", "marker", "page_reverse", "sort_key", "sort_dir", "sort", "fields"})

Filter = Callable[[list[str]], ColumnElement[bool]]
"""A filter of a resource's own: from the values given to a condition."""
MAX_LIMIT = 2**31 - 1
"""More than any list holds, and still a number to every database."""
LOWEST = -(2**63)
"""Below every number that is stored: what NULL counts as between pages."""
TRUE = frozenset({"true", "1", "t", "yes", "y", "on"})
FALSE = frozenset({"false", "0", "f", "no", "n", "off"})


class Listing(Struct, frozen=True):
    """How a resource is listed, beyond its declaration. `sort` is the default order, as (field, "asc" | "desc")."""

    sort: tuple[tuple[str, str], ...] = ()
    filters: Mapping[str, Filter] = {}
    ignore: frozenset[str] = frozenset()  # query parameters with another meaning, read elsewhere
    sort_names: Mapping[str, str] = {}  # other names of sort keys, to the fields' names in JSON
    refuse_unknown: bool = False
    where: tuple[ColumnElement[bool], ...] = ()  # what tells the objects apart in their table, whoever asks


class Plan(Struct):
    """A list that is ready to run."""

    cls: Any
    statement: Select[Any]
    order: list[tuple[Any, bool]]  # (column, descending)
    limit: int | None
    marker: str | None
    reverse: bool
    marker_missing: int


def plan(
    cls: ResourceMeta,
    query: Query,
    version: Version,
    granted: frozenset[str],
    scope: Sequence[ColumnElement[bool]],
    dialect: Dialect,
    listing: Listing,
) -> Plan:
    """Everything about a list that can be known before the database is asked; Invalid where the query makes no sense."""
    conditions = [*scope, *filters(cls, query, version, granted, listing)]
    reverse = (query.get("page_reverse") or "").lower() in TRUE
    order = _order(cls, query, listing, reverse)
    key = next(iter(cls.table.primary_key.columns))
    if all(column is not key for column, _ in order):
        order.append((key, bool(order) and order[-1][1]))
    statement = _ordered(cls.table, tuple(order), listing.where)
    if conditions:
        statement = statement.where(*conditions)
    return Plan(
        cls, statement, order, _limit(query, dialect), query.get("marker") or None, reverse, dialect.marker_status
    )


@lru_cache(1000)
def _ordered(table: Table, order: tuple[tuple[Any, bool], ...], where: tuple[ColumnElement[bool], ...]) -> Select[Any]:
    """All these rows in this order: made once, so that SQLAlchemy does not look for its SQL anew each time either."""
    columns = (column.desc() if descending else column.asc() for column, descending in order)
    return select(table).where(*where).order_by(*columns)


def fetch(tx: Connection, plan: Plan) -> list[Any]:
    """The objects of one page, in the order asked for. Runs inside a unit of work."""
    statement = plan.statement
    if plan.marker is not None:
        statement = statement.where(_after(tx, plan))
    if plan.limit is not None:
        statement = statement.limit(plan.limit)
    found: list[Any] = load_all(plan.cls, tx.execute(statement).all())
    if plan.reverse:
        found.reverse()
    return found


def filters(
    cls: ResourceMeta, query: Query, version: Version, granted: frozenset[str], listing: Listing
) -> list[ColumnElement[bool]]:
    """The conditions that a query string asks for. What the caller may not see he may not filter by either."""
    known = _searchable(cls, version, granted)
    conditions = []
    unknown = []
    for name, given in query.grouped().items():
        if name in PAGING or name in listing.ignore:
            continue
        if name in listing.filters:
            conditions.append(listing.filters[name](given))
        elif name in known:
            field = known[name]
            column = cls.table.c[field.name]
            found = [_value(name, text, field.type) for text in given]
            conditions.append(column == found[0] if len(found) == 1 else column.in_(found))
        else:
            unknown.append(name)
    if unknown and listing.refuse_unknown:
        raise Invalid(f"{unknown} is invalid attribute for filtering")
    return conditions


@cache
def _searchable(cls: ResourceMeta, version: Version, granted: frozenset[str]) -> dict[str, Field]:
    return {f.wire: f for f in cls.at("show", version, granted) if Use.FILTER in f.use and f.stored}


@cache
def _sortable(cls: ResourceMeta) -> dict[str, Field]:
    return {f.wire: f for f in cls.fields if Use.SORT in f.use and f.stored}


def _value(name: str, text: str, annotation: Any) -> Any:
    bare, _, _ = split(annotation)
    if bare is bool:
        if text.lower() in TRUE:
            return True
        if text.lower() in FALSE:
            return False
        raise Invalid(f"Invalid input for {name}: '{text}' is not a boolean; true or false would be.")
    if bare in (int, float):
        try:
            number = msgspec.convert(text, bare, strict=False)
        except msgspec.ValidationError:
            raise Invalid(f"Invalid input for {name}: '{text}' is not a number.") from None
        if not abs(number) < 2**63:
            raise Invalid(f"Invalid input for {name}: '{text}' is no number that anything here has.")
        return number
    return text


def _limit(query: Query, dialect: Dialect) -> int | None:
    given = query.get("limit")
    if given is None:
        return dialect.limit
    try:
        limit = int(given)
    except ValueError:
        raise Invalid(f"limit must be an integer, not '{given}'") from None
    if limit < 0:
        raise Invalid(f"limit must be zero or more, not {limit}")
    if limit == 0:
        return dialect.limit if dialect.max_limit is None else 0
    return min(limit, dialect.max_limit or MAX_LIMIT)


def _order(cls: ResourceMeta, query: Query, listing: Listing, reverse: bool) -> list[tuple[Any, bool]]:
    """[(column, descending)] from `sort=a:asc,b` or `sort_key=a&sort_dir=desc`, or the resource's own order."""
    pairs: list[tuple[str, str]] = []
    if sort := query.get("sort"):
        pairs = [(key, direction or "desc") for key, _, direction in (part.partition(":") for part in sort.split(","))]
    elif keys := query.all("sort_key"):
        default = listing.sort[0][1] if listing.sort else "asc"
        given = query.all("sort_dir")
        if len(given) == 1:
            given = given * len(keys)
        pairs = list(zip(keys, given + [default] * (len(keys) - len(given)), strict=False))
    sortable = _sortable(cls)
    order = []
    for asked, direction in pairs:
        key = listing.sort_names.get(asked, asked)
        if key not in sortable:
            raise Invalid(f"'{key}' is not a valid sort key; these are: {', '.join(sorted(sortable))}")
        if direction.lower() not in ("asc", "desc"):
            raise Invalid(f"Unknown sort direction '{direction}', must be 'desc' or 'asc'")
        order.append((cls.table.c[sortable[key].name], direction.lower() == "desc"))
    if not order:
        order = [(cls.table.c[name], direction == "desc") for name, direction in listing.sort]
    return [(column, descending != reverse) for column, descending in order]


def _after(tx: Connection, plan: Plan) -> ColumnElement[bool]:
    """The condition for rows behind the marker in the plan's order: (a, b, id) > (a', b', id'), written out."""
    table = plan.cls.table
    key = next(iter(table.primary_key.columns))
    row = tx.execute(select(*[column for column, _ in plan.order]).where(key == plan.marker)).first()
    if row is None:
        message = f"Marker {plan.marker} could not be found"
        if plan.marker_missing == 404:
            raise NotFound(message=message)
        raise Invalid(message)
    arms: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for (column, descending), value in zip(plan.order, row, strict=True):
        if column.nullable:  # NULL sorts below everything
            lowest = "" if isinstance(column.type, String) else LOWEST
            column, value = func.coalesce(column, lowest), lowest if value is None else value
        arms.append(and_(*equal, column < value if descending else column > value))
        equal.append(column == value)
    return or_(*arms)


def chosen(items: Sequence[Any], query: Query) -> Sequence[Any]:
    """The items cut down to the attributes of `?fields=a&fields=b`."""
    wanted = {name for value in query.all("fields") for name in value.split(",")}
    if not wanted:
        return items
    plain = msgspec.to_builtins(items)
    return [{k: v for k, v in item.items() if k in wanted} for item in plain]
