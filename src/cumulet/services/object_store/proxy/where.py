"""Where an object lies: its storage policy is its container's, which says which ring."""

from typing import TYPE_CHECKING

from msgspec import Struct

from cumulet.services.object_store.message import Request, Response, refuse
from cumulet.services.object_store.node import Ring
from cumulet.services.object_store.proxy.info import Info

if TYPE_CHECKING:
    from cumulet.services.object_store.proxy.core import Core

POLICY = "X-Backend-Storage-Policy-Index"


class Place(Struct, frozen=True):
    """A partition of a policy's ring."""

    ring: Ring
    partition: int
    policy: int


def place(core: "Core", request: Request, info: Info) -> Place | Response:
    """Where the object of a request lies; the refusal where its container is not there."""
    if not info.ok:
        return refuse(503 if info.status >= 500 else 404)
    policy = int(request.headers.get(POLICY) or info.headers.get(POLICY) or 0)
    ring = core.service.rings.objects.get(policy)
    if ring is None:
        return refuse(503, "Unknown Storage Policy")
    return Place(ring, core.partition(ring, request.account, request.container, request.object), policy)
