"""/recon/... on the port that clients use, where an operator wants it there (`recon.py` says what it tells)."""

from typing import TYPE_CHECKING

from cumulet.services.object_store.message import Handler, Request, Response
from cumulet.services.object_store.recon import PREFIX

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime


def recon(service: "ObjectStoreRuntime", app: Handler) -> Handler:
    if not service.kernel.settings.object_recon:
        return app

    async def layer(request: Request) -> Response:
        if not request.raw_path.startswith(PREFIX):
            return await app(request)
        return await service.host.recon.answer(request.method, request.raw_path)

    return layer
