"""Where requests come in and replies go out."""

from typing import Any

from cumulet.api.http import Request as HttpRequest
from cumulet.api.http import Response as HttpResponse
from cumulet.services.object_store.message import Headers, Refusal, Request


class Front:
    """Answers HTTP requests; `service.proxy` answers what is made of them."""

    def __init__(self, service: Any) -> None:
        self.service = service

    async def __call__(self, http: HttpRequest) -> HttpResponse:
        version, account, container, object = (*http.path.lstrip("/").split("/", 3), "", "", "")[:4]
        request = Request(
            http.method, account, container, object, Headers(http.headers), http.query, http.chunks(), version=version
        )
        try:
            response: HttpResponse = await self.service.proxy(request)
        except Refusal as refusal:
            return refusal.response
        return response
