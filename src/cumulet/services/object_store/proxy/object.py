"""Objects: GET|HEAD|PUT|POST|DELETE /v1/{account}/{container}/{object}; PUT is in upload.py.

Reference: https://docs.openstack.org/api-ref/object-store/#objects
"""

from typing import TYPE_CHECKING

from cumulet.services.object_store.message import Headers, Request, Response, refuse
from cumulet.services.object_store.proxy import limits
from cumulet.services.object_store.proxy.backends import quorum
from cumulet.services.object_store.proxy.headers import all_of, tell
from cumulet.services.object_store.proxy.info import Info
from cumulet.services.object_store.proxy.upload import upload
from cumulet.services.object_store.proxy.where import Place, place
from cumulet.services.object_store.storage import expiring
from cumulet.services.object_store.values import is_true

if TYPE_CHECKING:
    from cumulet.services.object_store.proxy.core import Core

CLEANERS = 2
"""So many nodes take an object's old entry out of the queue of those that expire: one would do, and two can fail."""


async def show(core: "Core", request: Request, refusal: Response | None) -> Response:
    """GET, HEAD"""
    info = await core.container_info(request)
    if refusal is not None and (refused := await allowed(request, refusal, info, "X-Container-Read")) is not None:
        return refused
    found = place(core, request, info)
    if isinstance(found, Response):
        return found
    asked = core.backend("object", request, found.partition, all_of(request), query=request.query)
    asked.headers["X-Backend-Storage-Policy-Index"] = str(found.policy)
    _open_expired(core, request, asked.headers)
    response = await core.backends.read(found.ring, asked, newest=is_true(request.headers.get("X-Newest")))
    headers = response.headers
    if (etag := headers.get("Etag")) is not None and '"' in etag:
        headers["Etag"] = etag.replace('"', "")
    if "swift_bytes=" in headers.get("Content-Type", ""):
        headers["Content-Type"] = _plain_type(headers["Content-Type"])
    if response.ok or response.status in (304, 416):
        headers["Accept-Ranges"] = "bytes"
    return response


async def put(core: "Core", request: Request, refusal: Response | None) -> Response:
    """PUT"""
    unwanted = request.headers.get("If-None-Match")
    if unwanted is not None and "*" not in unwanted:
        return refuse(400, "If-None-Match only supports *")
    info = await core.container_info(request)
    if (refused := await allowed(request, refusal, info, "X-Container-Write")) is not None:
        return refused
    found = place(core, request, info)
    if isinstance(found, Response):
        return found
    return await upload(core, request, found)


async def update(core: "Core", request: Request, refusal: Response | None) -> Response:
    """POST"""
    info = await core.container_info(request)
    if (refused := await allowed(request, refusal, info, "X-Container-Write")) is not None:
        return refused
    found = place(core, request, info)
    if isinstance(found, Response):
        return found
    wrong = limits.check_metadata(request, "object") or limits.check_delete_at(request)
    wrong = wrong or limits.check_type(request)
    if wrong is not None:
        return wrong
    copies = headers_for(core, request, found)
    for copy in copies:
        _open_expired(core, request, copy)
    requests = [core.backend("object", request, found.partition, copy) for copy in copies]
    return await core.backends.write(found.ring, requests, handoffs_for=404)


async def delete(core: "Core", request: Request, refusal: Response | None) -> Response:
    """DELETE"""
    info = await core.container_info(request)
    if (refused := await allowed(request, refusal, info, "X-Container-Write")) is not None:
        return refused
    found = place(core, request, info)
    if isinstance(found, Response):
        return found
    copies = headers_for(core, request, found)
    requests = [core.backend("object", request, found.partition, copy) for copy in copies]
    return await core.backends.write(found.ring, requests, unless={404: 204})


METHODS = {"GET": show, "HEAD": show, "PUT": put, "POST": update, "DELETE": delete}


async def allowed(request: Request, refusal: Response | None, info: Info, acl: str) -> Response | None:
    """The refusal, unless the container's ACL lets whoever asks in."""
    if refusal is None or request.authorize is None:
        return None
    request.acl = info.headers.get(acl)
    return await request.authorize(request)


def headers_for(core: "Core", request: Request, found: Place) -> list[Headers]:
    """The headers of a write for each of the nodes: each tells some of the container's copies."""
    base = all_of(request)
    base["X-Backend-Storage-Policy-Index"] = str(found.policy)
    copies = [Headers(base) for _ in found.ring.devices(found.partition)]
    containers = core.service.rings.container
    part = core.partition(containers, request.account, request.container)
    devices = containers.devices(part)
    updates = quorum(len(devices)) + len(copies) - quorum(len(copies))
    tell(copies, "X-Container", part, devices, updates)
    if (at := request.headers.get("X-Delete-At")) and request.method in ("PUT", "POST"):
        queue = expiring.queue_container(core.service.salt, int(at), request.account, request.container, request.object)
        part = core.partition(containers, expiring.ACCOUNT, queue)
        for copy in copies:
            copy["X-Delete-At-Container"] = queue
        tell(copies[::-1], "X-Delete-At", part, containers.devices(part), updates)
    for position, copy in enumerate(copies):
        copy["X-Backend-Clean-Expiring-Object-Queue"] = "t" if position < CLEANERS else "f"
    return copies


def _open_expired(core: "Core", request: Request, headers: Headers) -> None:
    if core.settings.object_open_expired and is_true(request.headers.get("X-Open-Expired")):
        headers["X-Backend-Open-Expired"] = "true"


def _plain_type(told: str) -> str:
    """A content type without the size of a large object, which the program notes in it for listings."""
    first, *parameters = told.split(";")
    return ";".join([first, *(each for each in parameters if not each.strip().startswith("swift_bytes="))])
