"""What this object storage can do: GET /info. Who knows the administrator's key is told more.

Reference: https://docs.openstack.org/api-ref/object-store/#discoverability
"""

import hmac
import time
from typing import TYPE_CHECKING

from cumulet.api.http import encode_json
from cumulet.services.object_store.message import Request, Response, refuse

if TYPE_CHECKING:
    from cumulet.services.object_store.proxy.core import Core

HIDDEN = ("valid_api_versions", "auto_create_account_prefix")
"""Of the section `swift`: told to administrators only."""


def show_info(core: "Core", request: Request) -> Response:
    """GET, HEAD, OPTIONS"""
    if request.method == "OPTIONS":
        return Response(200, b"", {"Allow": "GET, HEAD, OPTIONS"})
    if request.method not in ("GET", "HEAD"):
        return refuse(405, Allow="GET, HEAD, OPTIONS")
    signature, expires = request.query.get("swiftinfo_sig", ""), request.query.get("swiftinfo_expires", "")
    as_admin = bool(signature or expires)
    if as_admin and (refusal := _check(core, request, signature or "", expires or "")) is not None:
        return refusal
    service = core.service
    told = {name: dict(section) for name, section in service.told.items()}
    if as_admin:
        told["admin"] = {**service.told_admin, "disallowed_sections": [f"swift.{name}" for name in HIDDEN]}
    else:
        for name in HIDDEN:
            told["swift"].pop(name, None)
    body = encode_json(told)
    headers = {"Content-Type": "application/json; charset=UTF-8", "Content-Length": str(len(body))}
    if (origin := request.headers.get("Origin")) is not None:
        headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "x-trans-id"}
    return Response(200, b"" if request.method == "HEAD" else body, headers)


def _check(core: "Core", request: Request, signature: str, expires: str) -> Response | None:
    key = core.settings.object_info_key
    if not key:
        return refuse(403)
    if not expires.isdigit() or int(expires) < time.time():
        return refuse(401)
    methods = ("GET",) if request.method == "GET" else ("GET", "HEAD")
    for method in methods:
        text = f"{method}\n{expires}\n/info".encode()
        if hmac.compare_digest(hmac.new(key.encode(), text, "sha1").hexdigest().encode(), signature.encode()):
            return None
    return refuse(401)
