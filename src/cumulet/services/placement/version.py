"""The version document, for anybody: GET /."""

from typing import Any

from cumulet.api.http import Endpoint
from cumulet.api.version import Microversions, text
from cumulet.services.placement.context import Ctx

MICROVERSIONS = Microversions("placement", (1, 0), (1, 39))


async def show_versions(ctx: Ctx) -> Any:
    """Show the range of versions."""
    version = {
        "id": "v1.0",
        "min_version": text(MICROVERSIONS.low),
        "max_version": text(MICROVERSIONS.high),
        "status": "CURRENT",
        "links": [{"rel": "self", "href": ""}],
    }
    return {"versions": [version]}


endpoints = [Endpoint("GET", "/", show_versions, auth=False)]
RULES: dict[str, str] = {}
