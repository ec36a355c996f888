"""Version documents: GET / (300) and GET /v3, for anybody; as JSON Home documents for who prefers `application/json-home`."""

from collections.abc import Sequence
from typing import Any

from cumulet.api.http import Endpoint, Request, Response, encode_json
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.json_home import home

MEDIA_TYPE = {"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}
JSON, JSON_HOME = "application/json", "application/json-home"


def _version(ctx: Ctx) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{ctx.request.base_url}/v3/"}],
        "media-types": [MEDIA_TYPE],
    }


def prefers_home(request: Request) -> bool:
    """Whether the request would rather have a JSON Home document than plain JSON (RFC 9110, section 12.5.1)."""
    accepted = request.headers.get("Accept") or ""
    return _quality(accepted, JSON_HOME) > _quality(accepted, JSON)


def _quality(accepted: str, wanted: str) -> float:
    """How much a media type is wanted: by itself, else with those of its kind, else with all."""
    weights: dict[str, float] = {}
    for part in accepted.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weights[name] = float(weight)
        except ValueError:
            weights[name] = 0
    return next((weights[name] for name in (wanted, "application/*", "*/*") if name in weights), 0)


def documents(calls: Sequence[Endpoint]) -> list[Endpoint]:
    """The endpoints that describe the API of which `calls` are the others."""
    paths = [call.path for call in calls]
    below_root, below_v3 = encode_json(home(paths, "/v3")), encode_json(home(paths, ""))

    async def list_versions(ctx: Ctx) -> Response:
        """List the versions of the API."""
        if prefers_home(ctx.request):
            return Response(200, below_root, {"Content-Type": JSON_HOME, "Vary": "Accept"})
        values = {"versions": {"values": [_version(ctx)]}}
        return Response.json(values, 300, Location=f"{ctx.request.base_url}/v3/", Vary="Accept")

    async def show_version(ctx: Ctx) -> Response:
        """Show version 3 of the API."""
        if prefers_home(ctx.request):
            return Response(200, below_v3, {"Content-Type": JSON_HOME, "Vary": "Accept"})
        return Response.json({"version": _version(ctx)}, Vary="Accept")

    return [
        Endpoint("GET", "/", list_versions, auth=False),
        Endpoint("GET", "/v3", show_version, auth=False),
    ]
