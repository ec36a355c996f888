"""Many objects in one request: `PUT /v1/account[/container[/prefix]]?extract-archive=tar` (tar.gz, tar.bz2), and
`?bulk-delete` (bulk_delete.py).

The archive is read as it arrives and each of its files becomes a PUT of its own, with the rights of who sends it. Containers
are made where there are none. Extended attributes user.meta.* become metadata, user.mime_type the Content-Type. The reply is
always 200; its body tells how many objects there are now, and what failed.
Reference: https://docs.openstack.org/swift/latest/middleware.html (Extract Archive)
"""

from collections.abc import AsyncIterator, Awaitable
from typing import Any
from urllib.parse import quote

from cumulet.services.object_store.layers.bulk_delete import MAX_DELETES, MAX_FAILURES, MAX_PATH, bulk_delete
from cumulet.services.object_store.layers.copy import MAX_SIZE
from cumulet.services.object_store.layers.reports import Report, reported, status_line, wanted_kind
from cumulet.services.object_store.layers.tar import KINDS, Member, Reader, TarError, members, unpacked
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    ask,
    close,
    empty,
    refuse,
)
from cumulet.services.object_store.proxy.info import forget

MAX_CONTAINERS = 10_000
ATTRIBUTES = ("SCHILY.xattr.user.", "LIBARCHIVE.xattr.user.")


class Bulk:
    """The layer."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.app = app
        service.told["bulk_upload"] = {
            "max_containers_per_extraction": MAX_CONTAINERS,
            "max_failed_extractions": MAX_FAILURES,
        }
        service.told["bulk_delete"] = {"max_deletes_per_request": MAX_DELETES, "max_failed_deletes": MAX_FAILURES}

    def __call__(self, request: Request) -> Awaitable[Response]:
        if request.query.raw:
            if request.method == "PUT" and (format := request.query.get("extract-archive")) is not None:
                return self._extract(request, format.lower().strip("."))
            if request.method in ("POST", "DELETE") and "bulk-delete" in request.query:
                return bulk_delete(self.app, request)
        return self.app(request)

    async def _extract(self, request: Request, format: str) -> Response:
        if format not in KINDS:
            raise Refusal(refuse(400, "Unsupported archive format"))
        kind = wanted_kind(request, default=None)

        async def work() -> bytes:
            extraction = Extraction(self.app, request)
            try:
                if kind is None:
                    raise Refusal(refuse(406))
                if request.length is None and request.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    raise Refusal(refuse(411))
                await extraction.run(unpacked(request.body or empty(), format))
            except Refusal as refusal:
                extraction.report.refused(refusal)
            except TarError as error:
                extraction.report.end(400, f"Invalid Tar File: {error}")
            return extraction.report.encoded(kind, "extract")

        return await reported(work(), kind)


class Extraction:
    """An archive being unpacked, and what came of it."""

    def __init__(self, app: Handler, request: Request) -> None:
        self.app = app
        self.request = request
        self.report = Report({"Number Files Created": 0})
        self.report.end(201)
        self.base = "/".join(filter(None, (request.container, request.object))).rstrip("/")
        self.containers: dict[str, int] = {}
        self.made = 0
        self.gateway_failed = False

    async def run(self, archive: AsyncIterator[bytes]) -> None:
        async for member in members(Reader(archive)):
            if len(self.report.errors) >= MAX_FAILURES:
                break
            if member.is_file:
                await self._file(member)
        if self.report.errors:
            self.report.end(502 if self.gateway_failed else 400)
        elif not self.report.values["Number Files Created"]:
            self.report.end(400, "Invalid Tar File: No Valid Files")

    async def _file(self, member: Member) -> None:
        path = member.name.removeprefix("./").lstrip("/")
        if self.base:
            path = f"{self.base}/{path}"
        container, slash, object = path.partition("/")
        if not slash:
            return  # it would lie beside containers
        if not _is_text(path) or member.is_sparse or member.size > MAX_SIZE or not object:
            status = 413 if member.size > MAX_SIZE else 400 if member.is_sparse else 412
            self._failed(path, status)
            return
        missing = self.containers.get(container)
        if missing is None:
            missing = self.containers[container] = await self._container(container)
        headers, trouble = _headers(self.request, member), list[TarError]()

        async def body() -> AsyncIterator[bytes]:
            try:
                async for piece in member.data():
                    yield piece
            except TarError as error:
                trouble.append(error)
                raise Refusal(refuse(400, f"Invalid Tar File: {error}")) from None

        sub = self.request.sub("PUT", source="bulk", container=container, object=object, headers=headers, body=body())
        response = await ask(self.app, sub)
        await close(response)
        if trouble:
            raise trouble[0]
        if response.ok:
            self.report.values["Number Files Created"] += 1
            return
        if missing:
            version, account = self.request.version, self.request.account
            self.report.errors.append((_quoted(f"/{version}/{account}/{container}"), status_line(missing)))
        self._failed(path, response.status)
        if response.status == 401:
            raise Refusal(response)

    async def _container(self, container: str) -> int:
        """Make sure that there is a container. 0: it is there; else the status that says why it could not be made, which need
        not mean that nothing can be put into it."""
        head = await ask(self.app, self.request.sub("HEAD", source="bulk", container=container, object=""))
        await close(head)
        if head.ok:
            return 0
        response = head
        if head.status == 404:
            response = await ask(self.app, self.request.sub("PUT", source="bulk", container=container, object=""))
            await close(response)
            forget(self.request, self.request.account, container)
            if response.ok:
                self.made += 1
                if self.made > MAX_CONTAINERS:
                    raise Refusal(refuse(400, f"More than {MAX_CONTAINERS} containers to create from tar."))
                return 0
        if response.status == 401:
            raise Refusal(response)
        return response.status

    def _failed(self, path: str, status: int) -> None:
        self.gateway_failed = self.gateway_failed or status >= 500
        self.report.errors.append((_quoted(path), status_line(status)))


def _headers(request: Request, member: Member) -> Headers:
    """The headers of the PUT of a file: what was sent for all of them, and its own attributes."""
    headers = Headers({"Content-Length": str(member.size)})
    for name, value in request.headers.items():
        if name.lower().startswith("x-object-meta-") or name.lower() in ("x-delete-at", "x-delete-after"):
            headers[name] = value
    for key, value in member.attributes.items():
        for prefix in ATTRIBUTES:
            if key == f"{prefix}mime_type":
                headers["Content-Type"] = value
            elif key.startswith(f"{prefix}meta."):
                headers[f"X-Object-Meta-{key.removeprefix(prefix).removeprefix('meta.')}"] = value
    return headers


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in path


def _quoted(path: str) -> str:
    return quote(path[:MAX_PATH].encode(errors="surrogateescape"), safe="/~")
