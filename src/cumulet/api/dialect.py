"""How each API family words errors and pages: one row per family, at the end of the file.

Errors know no HTTP (`core/errors.py`); `STATUS` is the one table that turns them into statuses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from cumulet.api.http import Request, Response, encode_json
from cumulet.core import errors as e

STATUS: dict[type[e.CloudError], int] = {
    e.Invalid: 400,
    e.Unauthorized: 401,
    e.Forbidden: 403,
    e.NotFound: 404,
    e.MethodNotAllowed: 405,
    e.NotAcceptable: 406,
    e.Conflict: 409,
    e.QuotaExceeded: 409,
    e.Gone: 410,
    e.PreconditionFailed: 412,
    e.TooLarge: 413,
    e.UnsupportedMedia: 415,
    e.RangeNotSatisfiable: 416,
    e.NotImplementedHere: 501,
    e.Unavailable: 503,
}

Page = Callable[[Request, str, Sequence[Any], str | None, str | None], dict[str, Any]]
"""(request, plural, items, marker of the next page, marker of the previous one) -> the whole reply."""


@dataclass(frozen=True)
class Dialect:
    """A family's way of saying things. `fault(status, error, request_id, request)` is an error's body."""

    fault: Callable[[int, e.CloudError, str, Request], Any]
    page: Page
    statuses: Mapping[type[e.CloudError], int] = field(default_factory=dict)
    forbidden: str = "You are not authorized to perform the requested action: {rule}."
    unauthorized: str = "The request you have made requires authentication."
    fields_parameter: bool = False  # ?fields=id&fields=name
    self_links: bool = False  # every object (shown as a mapping) carries {"links": {"self": its URL}}
    limit: int | None = None  # items of a page where the caller asks for none
    max_limit: int | None = None
    peeks: bool = False  # looks one item further, so that a page tells of a next one only where there is one
    marker_status: int = 400  # of a marker that is not there
    trailing_slash: bool = True  # "/things/" is the collection; where not, it is a thing without an id, and a 404

    def status(self, error: e.CloudError) -> int:
        for cls in type(error).__mro__:
            if cls in self.statuses:
                return self.statuses[cls]
            if cls in STATUS:
                return STATUS[cls]
        return 500

    def error(self, error: e.CloudError, request_id: str, request: Request) -> Response:
        """The reply that tells of an error."""
        if not error.message:
            if isinstance(error, e.Forbidden):
                error.message = self.forbidden.format(rule=error.rule)
            elif isinstance(error, e.Unauthorized):
                error.message = self.unauthorized
        status = self.status(error)
        body = self.fault(status, error, request_id, request)
        headers = {"Content-Type": "application/json", **(error.headers or {})}
        if status == 401:
            headers.setdefault("WWW-Authenticate", f'Keystone uri="{request.base_url}"')
        return Response(status, encode_json(body), headers)


def phrase(status: int) -> str:
    return HTTPStatus(status).phrase


# ---- identity (keystone) ------------------------------------------------------------------------------------------------


def _identity_fault(status: int, error: e.CloudError, request_id: str, request: Request) -> Any:
    message = error.message
    if isinstance(error, e.NotFound) and error.kind:
        message = f"Could not find {error.kind.replace('_', ' ')}: {error.id}."
    return {"error": {"code": status, "message": message, "title": phrase(status)}}


def _identity_page(
    request: Request, plural: str, items: Sequence[Any], after: str | None, before: str | None
) -> dict[str, Any]:
    links: dict[str, str | None] = {"self": request.url, "previous": None, "next": None}
    if after is None:
        return {plural: items, "links": links}
    links["next"] = f"{request.base_url}{request.path}?{request.query.replaced(marker=after)}"
    return {plural: items, "links": links, "truncated": True}


# ---- compute (nova) -----------------------------------------------------------------------------------------------------

COMPUTE_FAULTS = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def _compute_fault(status: int, error: e.CloudError, request_id: str, request: Request) -> Any:
    return {error.code or COMPUTE_FAULTS.get(status, "computeFault"): {"code": status, "message": error.message}}


def _compute_page(
    request: Request, plural: str, items: Sequence[Any], after: str | None, before: str | None
) -> dict[str, Any]:
    reply: dict[str, Any] = {plural: items}
    if after:
        href = f"{request.base_url}{request.path}?{request.query.replaced(marker=after)}"
        reply[f"{plural}_links"] = [{"rel": "next", "href": href}]
    return reply


# ---- network (neutron) --------------------------------------------------------------------------------------------------


def _network_fault(status: int, error: e.CloudError, request_id: str, request: Request) -> Any:
    return {"NeutronError": {"type": error.code or _network_type(error), "message": error.message, "detail": ""}}


def _network_type(error: e.CloudError) -> str:
    if isinstance(error, e.NotFound) and error.kind:
        return "".join(word.title() for word in error.kind.split("_")) + "NotFound"
    if isinstance(error, e.QuotaExceeded):
        return "OverQuota"
    names: dict[type[e.CloudError], str] = {
        e.Invalid: "InvalidInput",
        e.Forbidden: "PolicyNotAuthorized",
        e.Unauthorized: "HTTPUnauthorized",
        e.NotFound: "HTTPNotFound",
        e.Conflict: "Conflict",
        e.PreconditionFailed: "RevisionNumberConstraintFailed",
    }
    return names.get(type(error), type(error).__name__)


def _network_page(
    request: Request, plural: str, items: Sequence[Any], after: str | None, before: str | None
) -> dict[str, Any]:
    reply: dict[str, Any] = {plural: items}
    links = []
    base = f"{request.base_url}{request.path}?"
    if after:
        links.append({"rel": "next", "href": base + request.query.replaced(marker=after, page_reverse=None)})
    if before:
        links.append({"rel": "previous", "href": base + request.query.replaced(marker=before, page_reverse="True")})
    if links:
        reply[f"{plural}_links"] = links
    return reply


# ---- image (glance) -----------------------------------------------------------------------------------------------------


def _image_fault(status: int, error: e.CloudError, request_id: str, request: Request) -> Any:
    return {"message": error.message, "code": f"{status} {phrase(status)}", "title": phrase(status)}


def _image_page(
    request: Request, plural: str, items: Sequence[Any], after: str | None, before: str | None
) -> dict[str, Any]:
    def link(marker: str | None) -> str:
        rest = request.query.replaced(marker=marker)
        return request.path + (f"?{rest}" if rest else "")

    reply = {plural: items, "schema": f"/v2/schemas/{plural}", "first": link(None)}
    if after:
        reply["next"] = link(after)
    return reply


# ---- placement ----------------------------------------------------------------------------------------------------------


def _placement_fault(status: int, error: e.CloudError, request_id: str, request: Request) -> Any:
    fault = {
        "status": status,
        "title": phrase(status),
        "detail": error.message,
        "code": error.code or "placement.undefined_code",
        "request_id": request_id,
    }
    return {"errors": [fault]}


def _plain_page(
    request: Request, plural: str, items: Sequence[Any], after: str | None, before: str | None
) -> dict[str, Any]:
    return {plural: items}


# ---- the rows -----------------------------------------------------------------------------------------------------------

IDENTITY = Dialect(
    _identity_fault,
    _identity_page,
    statuses={e.QuotaExceeded: 403},
    self_links=True,
    max_limit=1000,
    peeks=True,
)
COMPUTE = Dialect(
    _compute_fault,
    _compute_page,
    statuses={e.QuotaExceeded: 403},
    forbidden="Policy doesn't allow {rule} to be performed.",
    max_limit=1000,
    limit=1000,
    trailing_slash=False,
)
NETWORK = Dialect(
    _network_fault,
    _network_page,
    forbidden="({rule}) is disallowed by policy",
    fields_parameter=True,
    marker_status=404,
)
IMAGE = Dialect(
    _image_fault,
    _image_page,
    statuses={e.QuotaExceeded: 413},
    limit=25,
    max_limit=1000,
    forbidden="You are not authorized to complete {rule} action.",
    trailing_slash=False,
)
IMAGE_REGISTRY = replace(IMAGE, page=_plain_page)
PLACEMENT = Dialect(_placement_fault, _plain_page, forbidden="Policy does not allow {rule} to be performed.")
OBJECT_STORE = Dialect(_image_fault, _plain_page)
"""Of what the pipeline itself refuses; object storage words its own replies."""
