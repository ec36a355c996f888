"""Accounts: GET|HEAD|PUT|POST|DELETE /v1/{account}.

An account that was never written to is there all the same, empty: it is made when something is put into it.
Reference: https://docs.openstack.org/api-ref/object-store/#accounts
"""

from typing import TYPE_CHECKING

from cumulet.api.http import Query, http_date
from cumulet.services.object_store.message import Headers, Request, Response, refuse
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.proxy import limits
from cumulet.services.object_store.proxy.acl import format_account_acl, parse_account_acl
from cumulet.services.object_store.proxy.headers import all_of, kept
from cumulet.services.object_store.proxy.info import Info, account_info, forget
from cumulet.services.object_store.values import is_true

if TYPE_CHECKING:
    from cumulet.services.object_store.proxy.core import Core

OWNERS = (
    "x-container-read",
    "x-container-write",
    "x-container-sync-key",
    "x-container-sync-to",
    "x-account-meta-temp-url-key",
    "x-account-meta-temp-url-key-2",
    "x-container-meta-temp-url-key",
    "x-container-meta-temp-url-key-2",
    "x-account-access-control",
)
"""Headers that only who owns the account may see and set."""
ACL = "X-Account-Sysmeta-Core-Access-Control"


async def show(core: "Core", request: Request, refusal: Response | None) -> Response:
    """GET, HEAD"""
    if (wrong := limits.check_length(request.account, "account")) is not None:
        return wrong
    ring = core.service.rings.account
    part = core.partition(ring, request.account)
    query = Query(request.query.replaced(format="json"))
    asked = core.backend("account", request, part, all_of(request), query=query)
    response = await core.backends.read(ring, asked, newest=is_true(request.headers.get("X-Newest")))
    if response.status == 404:
        if response.headers.get("X-Account-Status", "").lower() == "deleted":
            response.status = 410
        else:
            response = _unwritten(request)
    if request.owner or request.authorize is None:
        _show_acl(response)
    else:
        hide(response)
    return response


async def make(core: "Core", request: Request, refusal: Response | None) -> Response:
    """PUT"""
    wrong = limits.check_metadata(request, "account") or limits.check_length(request.account, "account")
    return wrong or await _write(core, request)


async def update(core: "Core", request: Request, refusal: Response | None) -> Response:
    """POST"""
    wrong = limits.check_length(request.account, "account") or limits.check_metadata(request, "account")
    if wrong is not None:
        return wrong
    response = await _write(core, request)
    if response.status == 404:
        if not await create_account(core, request):
            return refuse(503)
        response = await _write(core, request)
    return response


async def delete(core: "Core", request: Request, refusal: Response | None) -> Response:
    """DELETE"""
    if request.query.raw:
        return refuse(400, "The query of a DELETE of an account is not understood, so nothing was deleted.")
    return await _write(core, request)


METHODS = {"GET": show, "HEAD": show, "PUT": make, "POST": update, "DELETE": delete}


async def known(core: "Core", request: Request) -> Info:
    """What is known of the account that a request is in."""
    return await account_info(core, request)


def is_made(info: Info) -> bool:
    """Whether there is really such an account already."""
    return info.ok and "X-Backend-Fake-Account-Listing" not in info.headers


async def create_account(core: "Core", request: Request) -> bool:
    """Make the account that a request is in, with what layers say of it."""
    ring = core.service.rings.account
    part = core.partition(ring, request.account)
    headers = Headers({"X-Timestamp": Timestamp.now().internal, "X-Trans-Id": request.transaction})
    headers.update(
        {name: value for name, value in request.headers.items() if name.lower().startswith("x-account-sysmeta-")}
    )
    asked = [core.backend("account", request, part, Headers(headers), "PUT") for _ in ring.devices(part)]
    response = await core.backends.write(ring, asked)
    forget(request, request.account)
    return response.ok


def hide(response: Response) -> None:
    """Take away what is its owner's alone."""
    for name in OWNERS:
        response.headers.popall(name, None)


def _unwritten(request: Request) -> Response:
    now = Timestamp.now()
    headers = {
        "X-Account-Container-Count": "0",
        "X-Account-Object-Count": "0",
        "X-Account-Bytes-Used": "0",
        "X-Timestamp": now.normal,
        "X-Put-Timestamp": now.normal,
        "X-Backend-Fake-Account-Listing": "yes",
        "Content-Type": "application/json; charset=utf-8",
        "Last-Modified": http_date(now.ceil),
    }
    if request.method == "HEAD":
        return Response(204, b"", headers)
    return Response(200, b"[]", headers)


async def _write(core: "Core", request: Request) -> Response:
    ring = core.service.rings.account
    part = core.partition(ring, request.account)
    headers = kept(request, "account")
    forget(request, request.account)
    asked = [core.backend("account", request, part, Headers(headers)) for _ in ring.devices(part)]
    response = await core.backends.write(ring, asked)
    forget(request, request.account)
    _show_acl(response)
    return response


def _show_acl(response: Response) -> None:
    told = parse_account_acl(response.headers.pop(ACL, None))
    if told:
        response.headers["X-Account-Access-Control"] = format_account_acl(told)
