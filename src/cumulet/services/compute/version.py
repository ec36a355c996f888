"""The version documents, for anybody.

GET / · GET /v2 · GET /v2.1
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cumulet.api.http import Endpoint
from cumulet.api.version import Microversions, text
from cumulet.core.errors import NotFound
from cumulet.services.compute.context import Ctx, base_url

MICROVERSIONS = Microversions("compute", (2, 1), (2, 96), "X-OpenStack-Nova-API-Version")


NEWEST, OLDEST = text(MICROVERSIONS.high), text(MICROVERSIONS.low)
VERSIONS = {
    "v2.0": ("v2", "SUPPORTED", "", "", "2011-01-21T11:33:21Z", "2"),
    "v2.1": ("v2.1", "CURRENT", NEWEST, OLDEST, "2013-07-23T11:33:21Z", "2.1"),
}
"""Version: path, status, newest and oldest microversion, date, and its number in media types."""


def _version(ctx: Ctx, name: str, *, full: bool) -> dict[str, Any]:
    path, status, newest, oldest, updated, media = VERSIONS[name]
    links = [{"rel": "self", "href": f"{base_url(ctx)}/{path}/"}]
    document: dict[str, Any] = {
        "id": name,
        "status": status,
        "version": newest,
        "min_version": oldest,
        "updated": updated,
        "links": links,
    }
    if full:
        links.append({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"})
        kind = f"application/vnd.openstack.compute+json;version={media}"
        document["media-types"] = [{"base": "application/json", "type": kind}]
    return document


async def list_versions(ctx: Ctx) -> Any:
    """List the versions of the API."""
    return {"versions": [_version(ctx, name, full=False) for name in VERSIONS]}


async def show_version(ctx: Ctx) -> Any:
    """Show version 2.1 of the API."""
    return {"version": _version(ctx, "v2.1", full=True)}


async def show_old_version(ctx: Ctx) -> Any:
    """Show version 2.0 of the API: 2.1 without microversions, under a path of its own."""
    return {"version": _version(ctx, "v2.0", full=True)}


async def show_named(ctx: Ctx, id: str) -> Any:
    """Show a version by its name, as some clients of old do."""
    if id not in VERSIONS:
        raise NotFound(message=f"Version {id} could not be found.")
    return {"version": _version(ctx, id, full=True)}


def also_old(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The same calls, and those of them that version 2.0 has under its path, too."""
    first = MICROVERSIONS.low
    old = [
        replace(endpoint, path="/v2/" + endpoint.path.removeprefix("/v2.1/"))
        for endpoint in endpoints
        if endpoint.path.startswith("/v2.1/") and endpoint.since <= first <= endpoint.until
    ]
    return [*endpoints, *old]


endpoints = [
    Endpoint("GET", "/", list_versions, auth=False),
    Endpoint("GET", "/v2", show_old_version, auth=False),
    Endpoint("GET", "/v2.1", show_version, auth=False),
    Endpoint("GET", "/v2.1/versions/{id}", show_named, auth=False),
]
