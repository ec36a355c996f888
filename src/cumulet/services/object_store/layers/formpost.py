"""Form POST: a browser uploads files straight into a container, with a form that the container's owner has signed.

POST /v1/account/container[/prefix] as multipart/form-data. The fields come before the files: `redirect`, `max_file_size`,
`max_file_count`, `expires`, `signature`, and optionally `x_delete_at`, `x_delete_after`, `content-type`, `content-encoding`.
Reference: https://docs.openstack.org/swift/latest/api/form_post_middleware.html
"""

import time
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING
from urllib.parse import quote

from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    drain,
    empty,
    phrase,
    refuse,
)
from cumulet.services.object_store.multipart_form import Form, FormError, Part, boundary_of
from cumulet.services.object_store.proxy.limits import VERSIONS
from cumulet.services.object_store.signatures import allowed_digests, digest_of, keys_for, same, sign, told_of
from cumulet.services.object_store.words import requested_path, unauthorized

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

LONGEST_VALUE = 4096
"""Bytes of a field that count; what is more is cut off."""


class FormPost:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        self.app = app
        self.digests = allowed_digests(service.kernel.settings.object_digests)
        service.told["formpost"] = told_of(self.digests)

    def __call__(self, request: Request) -> Awaitable[Response]:
        if request.method != "POST" or request.version not in VERSIONS:
            return self.app(request)
        kind = request.headers.get("Content-Type", "").lower()
        return self._form(request) if kind.startswith("multipart/") else self.app(request)

    async def _form(self, request: Request) -> Response:
        try:
            boundary = boundary_of(request.headers["Content-Type"])
            if boundary is None:
                return await self.app(request)
            return await self._take(request, Form(request.body or empty(), boundary))
        except FormError as error:
            return refuse(400, f"FormPost: {error}")

    async def _take(self, request: Request, form: Form) -> Response:
        """Every file of the form is put, until one is refused."""
        fields: dict[str, str] = {}
        count, last, message = 0, None, ""
        keys = [key for key, _ in await keys_for(self.app, request)] if request.container else []
        async for part in form.parts():
            if not part.options.get("filename"):
                if name := part.options.get("name"):
                    fields[name.lower()] = await part.text(LONGEST_VALUE)
                continue
            count += 1
            if count > _number(fields, "max_file_count", "max_file_count not an integer"):
                last, message = Response(400), "max file count exceeded"
                break
            last = await self._put(request, fields, part, keys)
            if not last.ok:
                break
        if last is None:
            last, message = Response(400), "no files to process"
        return await _reply(last, message, fields.get("redirect", ""))

    async def _put(self, request: Request, fields: dict[str, str], part: Part, keys: list[str]) -> Response:
        """One file, under the prefix that the form was sent to."""
        if not keys:
            raise _no_leave(request, "Invalid Signature")
        most = _number(fields, "max_file_size", "max_file_size not an integer")
        headers = _headers(fields, part)
        if (reason := self._unsigned(request, fields, keys)) is not None:
            raise _no_leave(request, reason)
        put = request.sub(
            "PUT",
            source="formpost",
            trusted=True,
            object=request.object + part.options["filename"],
            headers=headers,
            body=_at_most(part.data(), most),
        )
        put.raw_path = quote(put.path)
        try:
            return await self.app(put)
        except Refusal as refusal:
            return refusal.response

    def _unsigned(self, request: Request, fields: dict[str, str], keys: list[str]) -> str | None:
        """Why a form does not count; None where it does."""
        if _number(fields, "expires", "expired not an integer") < time.time():
            return "Form Expired"
        try:
            digest, signature = digest_of(fields.get("signature", ""))
        except ValueError:
            return "Invalid Signature"
        numbers = (fields.get(name) or "0" for name in ("max_file_size", "max_file_count", "expires"))
        told = (requested_path(request), fields.get("redirect", ""), *numbers)
        good = digest in self.digests and any(same(signature, sign(key, digest, *told)) for key in keys)
        return None if good else "Invalid Signature"


def _number(fields: dict[str, str], name: str, reason: str) -> int:
    try:
        return int(fields.get(name) or 0)
    except ValueError:
        raise FormError(reason) from None


def _headers(fields: dict[str, str], part: Part) -> Headers:
    headers = Headers({"Transfer-Encoding": "chunked"})
    if "x_delete_at" in fields:
        number = _number(fields, "x_delete_at", "x_delete_at not an integer: Unix timestamp required.")
        headers["X-Delete-At"] = str(number)
    if "x_delete_after" in fields:
        number = _number(fields, "x_delete_after", "x_delete_after not an integer: Number of seconds required.")
        headers["X-Delete-After"] = str(number)
    kind, encoding = (fields.get(name, part.headers.get(name)) for name in ("content-type", "content-encoding"))
    if kind is not None:
        headers["Content-Type"] = kind or "application/octet-stream"
    if encoding:
        headers["Content-Encoding"] = encoding
    return headers


async def _at_most(data: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """A file's data, which must end before the form does."""
    size = 0
    try:
        async for piece in data:
            size += len(piece)
            if size > most:
                raise Refusal(refuse(400, "FormPost: max_file_size exceeded"))
            yield piece
    except FormError as error:
        raise Refusal(refuse(400, f"FormPost: {error}")) from None


def _no_leave(request: Request, reason: str) -> Refusal:
    return Refusal(unauthorized(request, f"FormPost: {reason}"))


async def _reply(last: Response, message: str, redirect: str) -> Response:
    """What became of the form: to whoever sent it, or to the page that the form says."""
    headers = Headers(
        (name, value) for name, value in last.headers.items() if name.lower().startswith("access-control")
    )
    if redirect:
        redirect += f"{'&' if '?' in redirect else '?'}status={last.status}&message={quote(message)}"
        headers["Location"] = redirect
        headers["Content-Type"] = "text/html; charset=UTF-8"
        link = quote(redirect, safe=":/?#[]@!$&()*+,;=%~")
        text = f'<html><body><p><a href="{link}">Go on...</a></p></body></html>'
        return Response(303, text.encode(), headers)
    headers["Content-Type"] = "text/plain"
    body = b"" if last.ok else await drain(last)
    if not body:
        body = f"{last.status} {phrase(last.status)}".encode()
        if message:
            body += f"\r\nFormPost: {message.title()}".encode()
    return Response(last.status, body, headers)
