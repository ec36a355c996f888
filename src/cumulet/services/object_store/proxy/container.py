"""Containers: GET|HEAD|PUT|POST|DELETE /v1/{account}/{container}.

Reference: https://docs.openstack.org/api-ref/object-store/#containers
"""

import asyncio
from typing import TYPE_CHECKING

from cumulet.api.http import Query
from cumulet.services.object_store.message import Headers, Request, Response, empty, refuse, stream
from cumulet.services.object_store.proxy import limits
from cumulet.services.object_store.proxy.account import create_account, hide, is_made
from cumulet.services.object_store.proxy.acl import AclError, clean_acl
from cumulet.services.object_store.proxy.backends import best, quorum
from cumulet.services.object_store.proxy.headers import all_of, kept, tell
from cumulet.services.object_store.proxy.info import account_info, forget
from cumulet.services.object_store.values import is_true

if TYPE_CHECKING:
    from cumulet.services.object_store.proxy.core import Core

KEPT = ("x-container-read", "x-container-write", "x-container-sync-key", "x-container-sync-to", "x-versions-location")
REMOVED = (
    "x-remove-container-read",
    "x-remove-container-write",
    "x-remove-versions-location",
    "x-remove-container-sync-key",
    "x-remove-container-sync-to",
)
ASKED = ("marker", "end_marker", "prefix", "delimiter", "path", "format", "reverse")


async def show(core: "Core", request: Request, refusal: Response | None) -> Response:
    """GET, HEAD"""
    if (wrong := _check_query(request)) is not None:
        return wrong
    account = await account_info(core, request)
    if not account.ok:
        return refuse(404)
    ring = core.service.rings.container
    part = core.partition(ring, request.account, request.container)
    query = Query(request.query.replaced(format="json")) if request.method == "GET" else request.query
    asked = core.backend("container", request, part, all_of(request), query=query)
    response = await core.backends.read(ring, asked, newest=is_true(request.headers.get("X-Newest")))
    core.name_policy(response)
    if refusal is not None and request.authorize is not None:
        request.acl = response.headers.get("X-Container-Read")
        refused = await request.authorize(request)
        if refused is not None:
            return refused
    if not request.owner and request.authorize is not None:
        hide(response)
    return response


async def make(core: "Core", request: Request, refusal: Response | None) -> Response:
    """PUT"""
    wrong = _clean_acls(request) or limits.check_metadata(request, "container")
    if wrong is None:
        wrong = limits.check_length(request.container, "container")
    if wrong is not None:
        return wrong
    told: dict[str, str] = {"X-Backend-Storage-Policy-Default": str(core.service.policies.default.index)}
    if wanted := request.headers.get("X-Storage-Policy"):
        policy = core.service.policies.named(wanted)
        if policy is None:
            return refuse(400, f"Invalid X-Storage-Policy '{wanted}'")
        if policy.deprecated:
            return refuse(400, f"Storage Policy '{policy.name}' is deprecated")
        told = {"X-Backend-Storage-Policy-Index": str(policy.index)}
    if not is_made(await account_info(core, request)) and not await create_account(core, request):
        return refuse(503, "The account cannot be made now. Try again later.")
    return await _write(core, request, told)


async def update(core: "Core", request: Request, refusal: Response | None) -> Response:
    """POST"""
    wrong = _clean_acls(request) or limits.check_metadata(request, "container")
    if wrong is not None:
        return wrong
    if not is_made(await account_info(core, request)):
        return refuse(404)
    return await _write(core, request, {})


async def delete(core: "Core", request: Request, refusal: Response | None) -> Response:
    """DELETE"""
    if not is_made(await account_info(core, request)):
        return refuse(404)
    response = await _write(core, request, {})
    return refuse(404) if response.status == 202 else response


async def merge(core: "Core", request: Request, refusal: Response | None) -> Response:
    """UPDATE: rows of many objects at once, which only the program itself sends"""
    ring = core.service.rings.container
    part = core.partition(ring, request.account, request.container)
    data = b"".join([piece async for piece in request.body or empty()])
    devices = ring.devices(part)
    answers = await asyncio.gather(
        *(
            core.backends.call(device, core.backend("container", request, part, all_of(request), body=stream(data)))
            for device in devices
        )
    )
    return best(answers, quorum(len(devices)))


METHODS = {"GET": show, "HEAD": show, "PUT": make, "POST": update, "DELETE": delete}


async def _write(core: "Core", request: Request, told: dict[str, str]) -> Response:
    """Have all copies of a container changed; they tell the account."""
    if not request.owner and request.authorize is not None:
        for name in KEPT[:4]:
            request.headers.popall(name, None)
        for key in ("X-Container-Meta-Temp-Url-Key", "X-Container-Meta-Temp-Url-Key-2"):
            request.headers.popall(key, None)
    ring, accounts = core.service.rings.container, core.service.rings.account
    part = core.partition(ring, request.account, request.container)
    headers = kept(request, "container", KEPT, REMOVED)
    headers.update(told)
    copies = [Headers(headers) for _ in ring.devices(part)]
    if request.method != "POST":
        above = core.partition(accounts, request.account)
        tell(copies, "X-Account", above, accounts.devices(above))
    forget(request, request.account, request.container)
    response = await core.backends.write(ring, [core.backend("container", request, part, copy) for copy in copies])
    forget(request, request.account, request.container)
    if request.method != "POST":
        forget(request, request.account)
    return response


def _clean_acls(request: Request) -> Response | None:
    for name, write in (("X-Container-Read", False), ("X-Container-Write", True)):
        if name in request.headers:
            try:
                request.headers[name] = clean_acl(request.headers[name], write=write)
            except AclError as error:
                return refuse(400, str(error))
    return None


def _check_query(request: Request) -> Response | None:
    query = request.query
    if not query.raw:
        return None
    for name in ASKED:
        if "\ufffd" in (query.get(name) or ""):
            return refuse(400, f'"{name}" parameter not valid UTF-8')
    limit = query.get("limit")
    if limit and limit.isdigit() and int(limit) > limits.MOST_LISTED:
        return refuse(412, f"Maximum limit is {limits.MOST_LISTED}")
    return None
