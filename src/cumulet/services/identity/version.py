"""Version documents: GET / (300) and GET /v3, for anybody."""

from typing import Any

from cumulet.api.http import Endpoint, Response
from cumulet.services.identity.calls import Ctx

MEDIA_TYPE = {"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}


def _version(ctx: Ctx) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{ctx.request.base_url}/v3/"}],
        "media-types": [MEDIA_TYPE],
    }


async def list_versions(ctx: Ctx) -> Response:
    """List the versions of the API."""
    return Response.json({"versions": {"values": [_version(ctx)]}}, 300, Location=f"{ctx.request.base_url}/v3/")


async def show_version(ctx: Ctx) -> Any:
    """Show version 3 of the API."""
    return {"version": _version(ctx)}


endpoints = [
    Endpoint("GET", "/", list_versions, auth=False),
    Endpoint("GET", "/v3", show_version, auth=False),
]
