"""Objects in a container with X-Versions-Enabled. What is uploaded goes to the hidden container, and a static link to it takes
the object's place; DELETE leaves a mark there and takes the link away. `?version-id=` reads, deletes, or (PUT) brings back one
version; `null` is what lies in the container itself, from a time without versions.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from msgspec.structs import replace

from cumulet.api.http import Query
from cumulet.services.object_store import conditional
from cumulet.services.object_store.layers import versions_names as names
from cumulet.services.object_store.layers.slo_put import SLO_ETAG, SLO_SIZE
from cumulet.services.object_store.layers.symlink import (
    EXTENDS_LOOP,
    MAY_BE_RESERVED,
    SYSMETA,
    TARGET,
    TARGET_ACCOUNT,
    TARGET_BYTES,
    TARGET_ETAG,
)
from cumulet.services.object_store.layers.versions_names import DELETE_MARKER, IS_VERSION_LINK, NULL, VERSION_ID
from cumulet.services.object_store.layers.within import carry, fetch, may_write
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    ask,
    close,
    empty,
    encoded,
    parts_of,
    refuse,
)
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.proxy.info import container_info
from cumulet.services.object_store.proxy.limits import OWN_TYPE
from cumulet.services.object_store.proxy.upload import settle_type
from cumulet.services.object_store.values import is_true, parameters, queried, reserved, timestamp

NOT_OF_LINKS = (
    "ETag",
    "X-If-Delete-At",
    TARGET_ACCOUNT,
    "X-Object-Manifest",
    "X-Static-Large-Object",
    "Transfer-Encoding",
    SLO_ETAG,
    SLO_SIZE,
    OWN_TYPE,
)
EXPIRES = frozenset({"x-delete-at", "x-delete-after"})
GONE = "The versions container does not exist. You may want to re-enable object versioning."


@dataclass(slots=True)
class VersionedObject:
    """An object in a container whose versions lie in `hidden` ("": nowhere, there never were any), and a request about it."""

    app: Handler
    request: Request
    hidden: str
    enabled: bool
    sent: int = field(default=0)

    async def answer(self) -> Response:
        request = self.request
        if version := request.query.get("version-id"):
            return await self._one_version(version)
        if not self.hidden:
            return await self.app(request)
        if request.method in ("PUT", "DELETE"):
            if not self.enabled:
                return await self.app(request)
            return await (self._put() if request.method == "PUT" else self._delete())
        if request.method == "POST":
            return await self._post()
        return self._named(await self.app(request))

    async def _put(self) -> Response:
        request = self.request
        await self._keep_current()
        version = names.version_of(timestamp(request))
        name = names.name_of(request.object, version)
        if TARGET not in request.headers:
            settle_type(request)  # from this name: that of the version tells nothing
        headers = Headers(item for item in request.headers.items() if item[0].lower() not in EXPIRES)
        headers["X-Backend-Allow-Reserved-Names"] = "true"
        stored = await ask(
            self.app,
            request.sub(
                "PUT",
                source="versions",
                trusted=True,
                container=self.hidden,
                object=name,
                headers=headers,
                body=self._counted(request.body),
                trailer=request.trailer,
            ),
        )
        await self._expect(stored)
        size = headers.get(SLO_SIZE) or str(self.sent)
        kind = parameters(headers["Content-Type"])[0]  # which that of a link may have been found for
        return await self._link(name, stored.headers["ETag"], size, kind)

    async def _counted(self, body: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
        async for piece in body or empty():
            self.sent += len(piece)
            yield piece

    async def _link(self, name: str, etag: str, size: str, kind: str) -> Response:
        """Have a link to a version take the object's place. It is made a moment later than the version."""
        request = self.request
        headers = request.headers.copy()
        at = timestamp(request)
        for unwanted in NOT_OF_LINKS:
            headers.popall(unwanted, None)
        headers.update(
            {
                "X-Timestamp": Timestamp(at.ticks, at.offset + 1).internal,
                "Content-Length": "0",
                "Content-Type": kind,
                TARGET: encoded(f"{self.hidden}/{name}"),
                SYSMETA[TARGET_ETAG]: etag,
                SYSMETA[TARGET_BYTES]: size,
                IS_VERSION_LINK: "true",
                EXTENDS_LOOP: "true",
                MAY_BE_RESERVED: "true",
                "X-Backend-Allow-Reserved-Names": "true",
            }
        )
        query = queried(request.query, version_id=None)
        link = replace(request, method="PUT", headers=headers, body=None, trailer=None, query=query, source="versions")
        response = await self.app(link)
        response.headers["ETag"] = etag
        response.headers[VERSION_ID] = names.parse(name)[1] or NULL
        return response

    async def _delete(self) -> Response:
        request = self.request
        await self._keep_current()
        at = timestamp(request)
        version = names.version_of(at)
        headers = Headers(
            {
                "Content-Type": DELETE_MARKER,
                OWN_TYPE: "true",
                "Content-Length": "0",
                "X-Backend-Allow-Reserved-Names": "true",
                "X-Timestamp": at.internal,
            }
        )
        marked = await ask(
            self.app,
            request.sub(
                "PUT",
                source="versions",
                trusted=True,
                container=self.hidden,
                object=names.name_of(request.object, version),
                headers=headers,
            ),
        )
        await self._expect(marked)
        response = await ask(self.app, request)
        if response.ok or response.status == 404:
            response.headers[VERSION_ID] = version
            response.headers["X-Backend-Content-Type"] = DELETE_MARKER
        return response

    async def _post(self) -> Response:
        """Metadata are those of the current version."""
        request = self.request
        headers = Headers(item for item in request.headers.items() if item[0].lower() not in EXPIRES)
        headers["X-Backend-Allow-Reserved-Names"] = "true"
        response = await self.app(request)
        if response.status != 307 or not is_true(response.headers.get(IS_VERSION_LINK)):
            return response
        _, account, container, object = parts_of(unquote(response.headers["Location"]))
        if (account, container) != (request.account, self.hidden):
            return response
        return await ask(
            self.app,
            request.sub("POST", source="versions", trusted=True, container=container, object=object, headers=headers),
        )

    def _named(self, response: Response) -> Response:
        """The reply to a read, with the version that it is of."""
        request, headers = self.request, response.headers
        headers[VERSION_ID] = NULL
        version, account, container, object = parts_of(unquote(headers.get("Content-Location", "")))
        if (account, container) == (request.account, self.hidden):
            found = names.parse(object)[1]
            if found is not None:
                headers[VERSION_ID] = found
                place = encoded(f"/{version}/{account}/{request.container}/{request.object}")
                headers["Content-Location"] = f"{place}?version-id={found}"
        container, _, object = unquote(headers.get(TARGET, "")).partition("/")
        if container == self.hidden:
            found = names.parse(object)[1]
            if found is not None:
                headers[VERSION_ID] = found
                headers[TARGET] = f"{encoded(f'{request.container}/{request.object}')}?version-id={found}"
        return response

    async def _one_version(self, version: str) -> Response:
        request = self.request
        if request.method == "POST":
            raise Refusal(refuse(400, "POST to a specific version is not allowed"))
        if not self.hidden and version != NULL:
            raise Refusal(refuse(400, "version-aware operations require that the container is versioned"))
        names.check(version)
        if request.method == "OPTIONS":
            return await self.app(request)
        if request.method == "DELETE":
            return await self._delete_version(version)
        if request.method == "PUT":
            return await self._bring_back(version)
        return await (self._read_null() if version == NULL else self._read_version(version))

    def _at(self, version: str, **changes: object) -> Request:
        """The same request of a version, where it lies. Who makes it needs to own the account: nobody else may enter there."""
        headers = self.request.headers.copy()
        headers["X-Backend-Allow-Reserved-Names"] = "true"
        name = names.name_of(self.request.object, version)
        return replace(self.request, container=self.hidden, object=name, headers=headers, **changes)

    async def _read_version(self, version: str) -> Response:
        response = await self.app(self._at(version))
        headers = response.headers
        if headers.get("X-Backend-Content-Type", headers.get("Content-Type")) == DELETE_MARKER:
            await close(response)
            reply = refuse(404)
            reply.headers.update({VERSION_ID: version, "Content-Type": DELETE_MARKER})
            raise Refusal(reply)
        if response.ok:
            headers[VERSION_ID] = version
        return response

    async def _read_null(self) -> Response:
        response = await self.app(self.request)
        if response.ok:
            place = unquote(response.headers.get("Content-Location", ""))
            if reserved("versions", "") in place:  # the current one has a version of its own
                await close(response)
                raise Refusal(refuse(404))
            response.headers[VERSION_ID] = NULL
        return response

    async def _delete_version(self, version: str) -> Response:
        request = self.request
        if version == NULL:
            return await self.app(request)
        await may_write(self.app, request, self.hidden)  # before the link is gone, not only after
        linked = await self._linked()
        current = NULL
        if linked == names.name_of(request.object, version):
            plain = replace(request, query=Query(""), headers=request.headers.copy())
            await self._expect(await ask(self.app, plain))
        elif linked is not None:
            current = names.parse(linked)[1] or NULL
        response = await self.app(self._at(version))
        response.headers[VERSION_ID] = version
        response.headers["X-Object-Current-Version-Id"] = current
        return response

    async def _linked(self) -> str | None:
        """The name of the version that the object stands for now."""
        headers = Headers({"X-Newest": "true"})
        query = Query("symlink=get")
        sub = self.request.sub("HEAD", source="versions", trusted=True, headers=headers, query=query)
        head = await ask(self.app, sub)
        if head.status == 404:
            return None
        await self._expect(head)
        container, _, name = unquote(head.headers.get(TARGET, "")).partition("/")
        return name if is_true(head.headers.get(IS_VERSION_LINK)) and container == self.hidden else None

    async def _bring_back(self, version: str) -> Response:
        """PUT of a version: it is the current one from now on."""
        request = self.request
        names.check(version, null=False)
        if request.length is None and request.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise Refusal(refuse(411))
        async for piece in request.body or empty():
            if piece:
                raise Refusal(refuse(400, "PUT version-id requests require a zero byte body"))
        name = names.name_of(request.object, version)
        headers = Headers({"X-Backend-Allow-Reserved-Names": "true"})
        sub = request.sub(
            "HEAD",
            source="versions",
            trusted=True,
            container=self.hidden,
            object=name,
            headers=headers,
            query=Query("symlink=get"),
        )
        head = await ask(self.app, sub)
        if head.status == 404:
            info = await container_info(self.app, request, self.hidden)
            raise Refusal(refuse(404, "The specified version does not exist") if info.ok else refuse(500, GONE))
        await self._expect(head)
        told = head.headers
        size: str = told.get(SLO_SIZE) or told["Content-Length"]
        return await self._link(name, told["ETag"], size, parameters(told["Content-Type"])[0])

    async def _keep_current(self) -> None:
        """Make a version of what lies in the container itself, from a time without versions."""
        request = self.request
        await may_write(self.app, request)
        found = await fetch(self.app, request, "versions", request.container, request.object)
        if found.status == 404:
            await close(found)
            return
        if request.headers.get("If-None-Match", "").strip() == "*" and found.ok and request.method == "PUT":
            await close(found)
            raise Refusal(refuse(412))
        await self._expect(found, release=False)
        if is_true(found.headers.get(IS_VERSION_LINK)):
            await close(found)
            return
        told = found.headers.get("X-Backend-Timestamp") or found.headers.get("X-Timestamp")
        if told is None:
            told = str(conditional.parse_date(found.headers.get("Last-Modified")) or 0)
        version = names.version_of(Timestamp.parse(told))
        name = names.name_of(request.object, version)
        await self._expect(await carry(self.app, request, "versions", self.hidden, name, found), missing=GONE)

    async def _expect(self, response: Response, *, missing: str = "", release: bool = True) -> None:
        """That a step succeeded."""
        if response.ok:
            if release:
                await close(response)
            return
        if response.status == 404:
            raise Refusal(refuse(500, missing) if missing else refuse(412))
        raise Refusal(response if response.status < 500 else refuse(503))
