"""The HTTP faces of a host's storage servers: objects on port 6000, containers on 6001, accounts on 6002.

Nodes trust each other, as swift's do: whoever reaches these ports may read and write everything. So they listen at the
setting `object_bind` only, which is loopback unless it is set to an address of the cluster's own network.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from urllib.parse import unquote_to_bytes

from cumulet.api.http import Request as HttpRequest
from cumulet.api.http import Response as HttpResponse
from cumulet.core.errors import Invalid
from cumulet.services.object_store.message import Headers, Refusal, Response, refuse
from cumulet.services.object_store.mime import BOUNDARY, FOOTER, Parted
from cumulet.services.object_store.names_in_ascii import packed, unpacked
from cumulet.services.object_store.node import BackendRequest, Kind, StorageServer
from cumulet.services.object_store.recon import PREFIX, Recon

log = logging.getLogger("cumulet.object_store")

WITH_BODY = frozenset(("PUT", "POST", "REPLICATE", "UPDATE", "SSYNC"))


class StorageFace:
    """Answers the HTTP requests that are for one storage server."""

    def __init__(self, kind: Kind, servers: Mapping[Kind, StorageServer], recon: Recon) -> None:
        self.kind = kind
        self.recon = recon
        self._servers = servers

    async def answer(self, http: HttpRequest) -> HttpResponse:
        """Answer one request; never raises but for cancellation."""
        if http.raw_path == "/healthcheck":
            return Response(200, b"OK", {"Content-Type": "text/plain"})
        if http.raw_path.startswith(PREFIX):
            return await self.recon.answer(http.method, http.raw_path)
        try:
            response = await self._servers[self.kind].handle(self._request(http))
            response.headers = packed(response.headers)
            return response
        except Refusal as refusal:
            return refusal.response
        except Exception:
            log.exception("%s %s failed", http.method, http.raw_path)
            return refuse(500)

    def _request(self, http: HttpRequest) -> BackendRequest:
        parts = http.raw_path.lstrip("/").split("/", 4)
        try:
            device, partition, account, container, object = [
                unquote_to_bytes(part).decode() for part in [*parts, "", "", "", ""][:5]
            ]
            number = int(partition)
            if number < 0 or not device:
                raise ValueError
        except ValueError:
            raise Refusal(refuse(400, f"Invalid path: {http.raw_path}")) from None
        headers = unpacked(Headers(http.headers))
        made = BackendRequest(
            self.kind, http.method, device, number, account, container, object, headers=headers, query=http.query
        )
        if http.method in WITH_BODY:
            made.body = _body(http)
            if headers.get(FOOTER, "").lower() in ("yes", "true", "1") and (mark := headers.get(BOUNDARY)):
                parted = Parted(made.body, mark)
                made.body, made.trailer = parted.body(), parted.trailer
                headers.pop("Transfer-Encoding", None)
                if length := headers.pop("X-Backend-Obj-Content-Length", None):
                    headers["Content-Length"] = length
        return made


async def _body(http: HttpRequest) -> AsyncIterator[bytes]:
    """What the peer sends; 499 where it breaks off."""
    try:
        async for piece in http.chunks():
            yield piece
    except Invalid as error:
        raise Refusal(refuse(499, error.message)) from None
