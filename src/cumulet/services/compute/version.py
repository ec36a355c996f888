"""The version documents, for anybody.

GET / · GET /v2.1
"""

from typing import Any

from cumulet.api.http import Endpoint, Response
from cumulet.api.version import Microversions, text
from cumulet.services.compute.context import Ctx, base_url

MICROVERSIONS = Microversions("compute", (2, 1), (2, 96), "X-OpenStack-Nova-API-Version")


def _version(ctx: Ctx, *, full: bool) -> dict[str, Any]:
    links = [{"rel": "self", "href": f"{base_url(ctx)}/v2.1/"}]
    document: dict[str, Any] = {
        "id": "v2.1",
        "status": "CURRENT",
        "version": text(MICROVERSIONS.high),
        "min_version": text(MICROVERSIONS.low),
        "updated": "2013-07-23T11:33:21Z",
        "links": links,
    }
    if full:
        links.append({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"})
        document["media-types"] = [
            {"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}
        ]
    return document


async def list_versions(ctx: Ctx) -> Any:
    """List the versions of the API."""
    return {"versions": [_version(ctx, full=False)]}


async def show_version(ctx: Ctx) -> Any:
    """Show the one version of the API."""
    return {"version": _version(ctx, full=True)}


async def show_named(ctx: Ctx, id: str) -> Any:
    """Show a version by its name, as some clients of old do."""
    if id != "v2.1":
        return Response(404, {"itemNotFound": {"code": 404, "message": f"Version {id} could not be found."}})
    return await show_version(ctx)


endpoints = [
    Endpoint("GET", "/", list_versions, auth=False),
    Endpoint("GET", "/v2.1", show_version, auth=False),
    Endpoint("GET", "/v2.1/versions/{id}", show_named, auth=False),
]
