"""What layers do inside the cloud on a client's behalf: find out whether he may write, carry an object from one place to
another, have objects deleted later.
"""

from collections.abc import Iterable
from typing import Any

from cumulet.api.http import Query, encode_json
from cumulet.services.object_store.layers.copy import MAX_SIZE
from cumulet.services.object_store.layers.slo_put import SLO_SIZE
from cumulet.services.object_store.layers.symlink import EMPTY_MD5
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    ask,
    chunks,
    close,
    drain,
    refuse,
    stream,
)
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.proxy.info import container_info
from cumulet.services.object_store.proxy.limits import OWN_TYPE
from cumulet.services.object_store.storage import expiring
from cumulet.services.object_store.values import timestamp

ASYNC_DELETED = "application/async-deleted"
"""The content type of an entry of the expirer's queue of an object that is to go whatever its X-Delete-At says."""
ROWS_AT_ONCE = 10_000
STAYS_BEHIND = frozenset(
    {
        "accept-ranges",
        "connection",
        "content-location",
        "content-range",
        "date",
        "last-modified",
        "transfer-encoding",
        "x-openstack-request-id",
        "x-timestamp",
        "x-trans-id",
    }
)
"""Headers of a reply that say nothing of the object."""


async def may_write(app: Handler, request: Request, container: str = "") -> None:
    """Refusal unless who asks may write to a container (that of the request by default)."""
    if request.authorize is None:
        return
    info = await container_info(app, request, container)
    request.acl = info.headers.get("X-Container-Write")
    refusal = await request.authorize(request)
    request.acl = None
    if refusal is not None:
        raise Refusal(refusal)


async def fetch(app: Handler, request: Request, source: str, container: str, object: str) -> Response:
    """An object as it lies there, be it a manifest or a link, whoever asks: who may write need not be allowed to read."""
    sub = request.sub(
        "GET",
        source=source,
        trusted=True,
        container=container,
        object=object,
        headers=Headers({"X-Newest": "true", "X-Backend-Allow-Reserved-Names": "true"}),
        query=Query("symlink=get"),
    )
    response = await ask(app, sub)
    length = response.headers.get("Content-Length")
    if response.ok and (length is None or int(length) > MAX_SIZE):
        await close(response)
        raise Refusal(refuse(413))
    return response


async def carry(app: Handler, request: Request, source: str, container: str, object: str, found: Response) -> Response:
    """Put what `fetch` found to another place, as it is."""
    headers = Headers(
        (name, value)
        for name, value in found.headers.items()
        if name.lower() not in STAYS_BEHIND and not name.lower().startswith(("x-backend-", "access-control-"))
    )
    headers["X-Backend-Allow-Reserved-Names"] = "true"
    if size := headers.get(SLO_SIZE):
        headers["Content-Type"] = f"{headers['Content-Type']}; swift_bytes={size}"
        headers[OWN_TYPE] = "true"
    sub = request.sub(
        "PUT", source=source, trusted=True, container=container, object=object, headers=headers, body=chunks(found)
    )
    try:
        response = await ask(app, sub)
        await close(response)
    finally:
        await close(found)
    return response


async def delete_later(app: Handler, service: Any, request: Request, container: str, objects: Iterable[str]) -> None:
    """Have the expirer delete objects: entries in its queue, many in a request."""
    at = timestamp(request)
    queue = expiring.queue_container(service.salt, int(at.seconds), request.account, request.container, request.object)
    rows = [_entry(at, request.account, container, object) for object in objects]
    for first in range(0, len(rows), ROWS_AT_ONCE):
        body = encode_json(rows[first : first + ROWS_AT_ONCE])
        sub = request.sub(
            "UPDATE",
            source="slo",
            trusted=True,
            account=expiring.ACCOUNT,
            container=queue,
            object="",
            body=stream(body),
            headers=Headers(
                {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(body)),
                    "X-Timestamp": at.internal,
                    "X-Backend-Storage-Policy-Index": "0",
                }
            ),
        )
        response = await ask(app, sub)
        await drain(response)
        if not response.ok:
            raise Refusal(refuse(503, "The segments cannot be put into the queue of the expirer now. Try again later."))


def _entry(at: Timestamp, account: str, container: str, object: str) -> dict[str, Any]:
    return {
        "name": expiring.entry_of_delete(at, account, container, object),
        "deleted": 0,
        "created_at": at.internal,
        "etag": EMPTY_MD5,
        "size": 0,
        "storage_policy_index": 0,
        "content_type": ASYNC_DELETED,
    }
