"""What lists of images can be narrowed by: attributes, times, sizes, tags and any custom property.

Tags and properties are shown from the image's own row; `labels` holds them once more, one row each, to search by.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import eq, ge, gt, le, lt
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, exists, false, not_, or_

from cumulet.api.http import Query
from cumulet.api.query import PAGING
from cumulet.core.db.table import define
from cumulet.core.errors import Invalid
from cumulet.core.types import Id, Str64, Str255, Text, timestamp

labels = define(
    "image_label",
    {"image_id": Id, "kind": Str64, "name": Str255, "value": Text},
    primary_key=("image_id", "kind", "name"),
    index=frozenset({"name"}),
)
"""Every tag (kind `tag`) and custom property (kind `property`), to search by."""

SEVERAL = frozenset({"id", "name", "status", "container_format", "disk_format"})
"""Attributes that take `in:a,b`."""
PLAIN = frozenset({"owner", "checksum", "os_hash_value", "os_hash_algo"})
NUMBERS = frozenset({"min_disk", "min_ram", "size", "virtual_size"})
LARGEST = 2**63 - 1
OPERATORS = ("gt", "gte", "lt", "lte", "eq", "neq")


def save_labels(tx: Connection, image_id: str, tags: Sequence[str], properties: Mapping[str, str]) -> None:
    """Make the search index say what the image says."""
    tx.execute(labels.delete().where(labels.c.image_id == image_id))
    rows = [{"image_id": image_id, "kind": "tag", "name": tag, "value": ""} for tag in tags]
    rows += [{"image_id": image_id, "kind": "property", "name": n, "value": v} for n, v in properties.items()]
    if rows:
        tx.execute(labels.insert(), rows)


def conditions(query: Query, images: Table, readable: Callable[[str], bool]) -> list[ColumnElement[bool]]:
    """What the query string asks of an image; Invalid where it makes no sense. `readable` tells which custom properties the
    caller may read: by others he finds nothing."""
    _check_sorting(query)
    found: list[ColumnElement[bool]] = []
    if "os_hidden" not in query:
        found.append(images.c.os_hidden.is_(False))
    for name, value in query.pairs:
        if name in PAGING or name == "member_status":
            continue
        condition = _condition(name, value, images, readable)
        if condition is not None:
            found.append(condition)
    return found


def _condition(name: str, value: str, images: Table, readable: Callable[[str], bool]) -> ColumnElement[bool] | None:
    c = images.c
    if name == "tag":
        return _labelled(images, "tag", value.strip())
    if name in SEVERAL:
        return _one_of(c[name], value)
    if name in PLAIN:
        return c[name] == value
    if name in NUMBERS:
        operator, number = _split(value)
        return _compare(c[name], operator, _number(name, number))
    if name[-4:] in ("_min", "_max") and name[:-4] in NUMBERS:
        return _compare(c[name[:-4]], "gte" if name.endswith("_min") else "lte", _number(name, value))
    if name in ("protected", "os_hidden"):
        if value.lower() not in ("true", "false"):
            raise Invalid(f"Invalid value '{value}' for '{name}' filter. Valid values are 'true' or 'false'.")
        return c[name].is_(value.lower() == "true")
    if name in ("created_at", "updated_at"):
        return _moment(c[name], value)
    if name == "visibility":
        if value not in ("community", "public", "private", "shared", "all"):
            raise Invalid(f"Invalid visibility value: {value}")
        return None if value == "all" else c.visibility == value
    if name == "changes-since":
        raise Invalid('The "changes-since" filter is no longer available on v2.')
    return _labelled(images, "property", name, value) if readable(name) else false()


def _labelled(images: Table, kind: str, name: str, value: str | None = None) -> ColumnElement[bool]:
    where = [labels.c.image_id == images.c.id, labels.c.kind == kind, labels.c.name == name]
    if value is not None:
        where.append(labels.c.value == value)
    return exists().where(*where)


def _one_of(column: Any, value: str) -> ColumnElement[bool]:
    """`in:a,b`, `eq:a`, or the value itself; one with a colon in it has to be put in quotes after `in:`."""
    operator, colon, rest = value.partition(":")
    if not colon or _is_time(value):
        return column == value  # type: ignore[no-any-return]
    if operator == "in":
        return column.in_(_list(rest))  # type: ignore[no-any-return]
    if operator == "eq":
        return column == rest  # type: ignore[no-any-return]
    raise Invalid(f"Unable to filter by unknown operator '{operator}'. `in:` and `eq:` are known here.")


def _is_time(text: str) -> bool:
    """Whether the colons are those of a time, as upstream asks before it looks for an operator."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _split(text: str) -> tuple[str, str]:
    """`gt:5` as ("gt", "5"); without an operator, `eq`."""
    operator, _, rest = text.partition(":")
    return (operator, rest) if operator in OPERATORS else ("eq", text)


def _compare(column: Any, operator: str, value: Any) -> ColumnElement[bool]:
    """The comparison; what has no value is unequal to everything, and neither less nor more."""
    if operator == "neq":
        return or_(column != value, column.is_(None))
    comparison: ColumnElement[bool] = {"gt": gt, "gte": ge, "lt": lt, "lte": le, "eq": eq}[operator](column, value)
    return comparison


def _list(text: str) -> list[str]:
    """The values of `in:`, separated by commas; one in quotes may hold commas."""
    if text.count('"') % 2:
        raise Invalid(f"Invalid filter value {text}: there is no closing quotation mark.")
    return next(csv.reader([text], skipinitialspace=True), [])


def _number(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise Invalid(f"Invalid value '{text}' for '{name}' filter: it is not an integer.") from None
    if not 0 <= number <= LARGEST:
        raise Invalid(f"Invalid value '{text}' for '{name}' filter: it is out of range.")
    return number


def _moment(column: Any, text: str) -> ColumnElement[bool]:
    """`gt:2026-01-31T09:15:00Z` and the like; without an operator, `eq`. Moments are compared to the second."""
    operator, rest = _split(text)
    try:
        moment = datetime.fromisoformat(rest)
    except ValueError:
        raise Invalid(f"Invalid time: '{rest}' is not an ISO 8601 time.") from None
    second = timestamp(moment)[:19] if moment.tzinfo else moment.isoformat(timespec="seconds")
    first, last = f"{second}.000000", f"{second}.999999"
    same = and_(column >= first, column <= last)
    comparisons: dict[str, ColumnElement[bool]] = {
        "gt": column > last,
        "gte": column >= first,
        "lt": column < first,
        "lte": column <= last,
        "eq": same,
        "neq": not_(same),
    }
    return comparisons[operator]


def _check_sorting(query: Query) -> None:
    if "sort" in query and ("sort_key" in query or "sort_dir" in query):
        raise Invalid("Old and new sorting syntax cannot be combined")
    directions, keys = query.all("sort_dir"), query.all("sort_key")
    for direction in directions:
        if direction.strip() not in ("asc", "desc"):
            raise Invalid(f"Invalid sort direction: {direction}. It is asc or desc.")
    if len(directions) > 1 and len(directions) != len(keys):
        raise Invalid("Number of sort dirs does not match the number of sort keys")
