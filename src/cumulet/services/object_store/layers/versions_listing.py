"""Listings of containers with versions. One of a container shows what links stand for; with `?versions` all versions of all
objects (`version_id`, `is_latest`), in pages by `marker` and `version_marker`. One of an account counts the bytes of versions.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from cumulet.api.http import Query, encode_json
from cumulet.services.object_store.layers import versions_names as names
from cumulet.services.object_store.layers.listing_formats import LISTING_AS_IT_IS
from cumulet.services.object_store.layers.versions_names import DELETE_MARKER, NULL
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    ask,
    close,
    drain,
    encoded,
    parts_of,
    refuse,
)
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.values import (
    RESERVED,
    best_match,
    is_true,
    joined,
    parameters,
    parts_of_reserved,
    reserved,
)

Row = dict[str, Any]
MOST_LISTED = 10_000
DIGITS = frozenset("0123456789." + RESERVED)
"""Signs of version ids: no listing can be divided at them."""


async def container(app: Handler, request: Request, response: Response, hidden: str) -> Response:
    """The listing of a container, of which `response` is what lies in the container itself."""
    body = response.body = await drain(response)
    versions = "versions" in request.query
    if not versions and b'"symlink_bytes"' not in body:
        return response
    rows: list[Row] = msgspec.json.decode(body) if body else []
    for row in rows:
        _describe(row, hidden, request, versions)
    if versions:
        if _accepts_no_json(request):
            raise Refusal(refuse(406))
        rows = await _all_versions(app, request, rows, hidden)
        response.headers[LISTING_AS_IT_IS] = "true"
    return _with(response, rows)


def _with(response: Response, rows: list[Row]) -> Response:
    response.body = encode_json(rows)
    response.headers["Content-Length"] = str(len(response.body))
    response.headers["Content-Type"] = "application/json; charset=utf-8"
    if response.status == 204:
        response.status = 200
    return response


def _accepts_no_json(request: Request) -> bool:
    try:
        return best_match(request.headers.get("Accept"), ("application/json",)) is None
    except ValueError:
        return False


def _describe(row: Row, hidden: str, request: Request, versions: bool) -> None:
    """Show a link to a version as what it stands for."""
    if not ("symlink_path" in row and "symlink_etag" in row and "symlink_bytes" in row):
        return
    _, account, container, object = parts_of(unquote(row["symlink_path"]))
    if container != hidden:
        return
    row["bytes"] = int(row.pop("symlink_bytes"))
    row["version_symlink"] = True
    row["hash"] = joined(row.pop("symlink_etag"), parameters(row["hash"])[1])
    name, version = names.parse(object)
    if version is not None and not versions:
        path = encoded(f"/v1/{account}/{request.container}/{name}")
        row["symlink_path"] = f"{path}?version-id={version}"


async def _all_versions(app: Handler, request: Request, rows: list[Row], hidden: str) -> list[Row]:
    query = request.query
    asked = _asked(query)
    current, plain, subdirs = _sorted_out(rows)
    latest = {row["name"] for row in plain} | {_linked(path)[0] for path in current}
    found = await _hidden_rows(app, request, hidden, asked)
    listed: list[Row] = []
    for row in found:
        if "name" not in row:
            subdirs.add(parts_of_reserved(row["subdir"])[0])
            continue
        path = f"/v1/{request.account}/{hidden}/{row['name']}"
        name, version = names.parse(row["name"])
        if version is None:
            continue
        is_latest = path in current
        if is_latest:
            del current[path]
        elif row["content_type"] == DELETE_MARKER and name not in latest:
            is_latest = True
            latest.add(name)
        listed.append({**row, "name": name, "version_id": version, "is_latest": is_latest})
    everything = [*plain, *listed, *({"subdir": subdir} for subdir in subdirs), *_broken(current)]
    return _cut(everything, is_true(query.get("reverse")), _limit(query))


def _sorted_out(rows: Iterable[Row]) -> tuple[dict[str, Row], list[Row], set[str]]:
    """What lies in the container itself: links to current versions by where they lead, objects without a version, subdirs."""
    current: dict[str, Row] = {}
    plain: list[Row] = []
    subdirs: set[str] = set()
    for row in rows:
        if "name" not in row:
            subdirs.add(row["subdir"])
        elif row.get("version_symlink"):
            current[unquote(row["symlink_path"])] = row
        else:
            plain.append({**row, "version_id": NULL, "is_latest": True})
    return current, plain, subdirs


def _linked(path: str) -> tuple[str, str | None]:
    """The object and the version that a link's target is."""
    return names.parse(parts_of(path)[3])


def _broken(current: dict[str, Row]) -> list[Row]:
    """Links whose version is not on this page of the hidden container, or not there at all."""
    found: list[Row] = []
    for path, row in current.items():
        name, version = _linked(path)
        if version is not None:
            kept = {key: row[key] for key in ("content_type", "bytes", "hash", "last_modified")}
            found.append({"name": name, "is_latest": True, "version_id": version, **kept})
    return found


def _asked(query: Query) -> dict[str, str]:
    """The query of a listing in the names of the hidden container."""
    asked = {
        name: value
        for name in ("prefix", "marker", "limit", "delimiter", "reverse")
        if (value := query.get(name)) is not None
    }
    marker, version = query.get("marker"), query.get("version_marker")
    if version is not None and marker is None:
        raise Refusal(refuse(400, "version_marker param requires marker"))
    try:
        if marker is not None:
            if version is None:
                asked["marker"] = names.prefix_of(marker) + ":"  # just past all versions
            elif version == NULL:
                asked["marker"] = names.prefix_of(marker)  # just before all of them
            else:
                asked["marker"] = names.name_of(marker, Timestamp.parse(version).internal)
        if "prefix" in asked:
            asked["prefix"] = reserved(asked["prefix"])
    except ValueError:
        raise Refusal(refuse(400, "invalid version_marker param")) from None
    if DIGITS & set(asked.get("delimiter", "")):
        raise Refusal(refuse(400, "invalid delimiter param"))
    return asked


async def _hidden_rows(app: Handler, request: Request, hidden: str, asked: dict[str, str]) -> list[Row]:
    query = "&".join(f"{name}={quote(value)}" for name, value in (("format", "json"), *asked.items()))
    sub = request.sub(
        "GET",
        source="versions",
        trusted=True,
        container=hidden,
        object="",
        query=Query(query),
        headers=Headers({"X-Backend-Allow-Reserved-Names": "true"}),
    )
    response = await ask(app, sub)
    if response.status == 404:
        await close(response)
        return []
    if not response.ok:
        raise Refusal(response)
    body = await drain(response)
    rows: list[Row] = msgspec.json.decode(body) if body else []
    return rows


def _limit(query: Query) -> int:
    told = query.get("limit", "") or ""
    return int(told) if told.isdigit() else MOST_LISTED


def _cut(rows: list[Row], reverse: bool, limit: int) -> list[Row]:
    """A page, by name; the versions of one name stay in their order, the last one first."""
    return sorted(rows, key=lambda row: str(row.get("subdir") or row["name"]), reverse=reverse)[:limit]


async def account(app: Handler, request: Request) -> Response:
    """The listing of an account: hidden containers are added to those that they belong to; one without such a container is
    shown in its place, so that somebody can clean it up."""
    response = await app(request)
    if not response.ok:
        return response
    response.body = await drain(response)
    query = _with_hidden_names(request.query)
    sub = request.sub(
        "GET",
        source="versions",
        trusted=True,
        query=query,
        headers=Headers({"X-Backend-Allow-Reserved-Names": "true"}),
    )
    listed = await ask(app, sub)
    body = await drain(listed)
    found: list[Row] = msgspec.json.decode(body) if listed.ok and body else []
    hidden = {names.container_of(row["name"]): row for row in found if "name" in row}
    if not hidden:
        return response
    rows: list[Row] = msgspec.json.decode(response.body) if response.body else []
    for row in rows:
        if "name" in row and (versions := hidden.pop(row["name"], None)) is not None:
            row["bytes"] += versions["bytes"]
    rows += [{**row, "name": name, "count": 0} for name, row in hidden.items()]
    return _with(response, _cut(rows, is_true(request.query.get("reverse")), _limit(request.query)))


def _with_hidden_names(query: Query) -> Query:
    """The query of an account's listing in the names of hidden containers."""
    changes = {"prefix": names.hidden_container(_free(query.get("prefix") or "")), "format": "json"}
    for name in ("marker", "end_marker"):
        if told := query.get(name):
            changes[name] = names.hidden_container(_free(told))
    return Query(query.replaced(**changes))


def _free(name: str) -> str:
    """A name without the signs that no name of a user has."""
    return name.replace(RESERVED, "")
