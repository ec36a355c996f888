"""Static large objects: an object whose bytes are those of others, as its manifest lists them. PUT, GET, HEAD, and DELETE with
`?multipart-manifest=delete`, which deletes the segments as well (`&async=yes`: later, by the expirer).

In listings such an object has the size of the whole and, beside the ETag of its manifest, `slo_etag`.
Reference: https://docs.openstack.org/swift/latest/middleware.html#static-large-objects
"""

from collections.abc import Awaitable
from typing import Any

import msgspec

from cumulet.api.http import Query, encode_json
from cumulet.services.object_store.layers import slo_get, slo_manifest, slo_put
from cumulet.services.object_store.layers.bulk_delete import Deletes, Doomed
from cumulet.services.object_store.layers.reports import HEARTBEAT, reported, said, wanted_kind
from cumulet.services.object_store.layers.slo_manifest import MAX_SEGMENTS, MAX_SIZE
from cumulet.services.object_store.layers.within import delete_later, may_write
from cumulet.services.object_store.message import (
    Handler,
    Headers,
    Refusal,
    Request,
    Response,
    ask,
    close,
    drain,
    encoded,
    refuse,
)
from cumulet.services.object_store.values import is_true, joined, parameters

Row = dict[str, Any]


class StaticLargeObjects:
    """The layer."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.app = app
        self.service = service
        service.told["slo"] = {
            "max_manifest_segments": MAX_SEGMENTS,
            "max_manifest_size": MAX_SIZE,
            "yield_frequency": int(HEARTBEAT),
            "min_segment_size": 1,
            "allow_async_delete": True,
        }

    def __call__(self, request: Request) -> Awaitable[Response]:
        method = request.method
        if not request.object:
            return self._listing(request) if method == "GET" and request.container else self.app(request)
        if request.memo.get("slo_override"):  # what comes from another cloud is a manifest already
            return self.app(request)
        if method in ("GET", "HEAD"):
            return slo_get.read(self.app, request)
        manifest = request.query.get("multipart-manifest")
        if method == "PUT" and manifest == "put":
            return slo_put.put(self.app, self, request)
        if method == "DELETE" and manifest == "delete":
            return self._delete(request)
        if "X-Static-Large-Object" in request.headers:
            raise Refusal(
                refuse(
                    400,
                    "X-Static-Large-Object is a reserved header. To create a static large object add query param "
                    "multipart-manifest=put.",
                )
            )
        return self.app(request)

    async def _delete(self, request: Request) -> Response:
        if is_true(request.query.get("async")):
            await self._leave_to_expirer(request)
            return await self.app(request)
        kind = wanted_kind(request, default=None)

        async def work() -> bytes:
            deletes = Deletes(self.app, request, "slo")
            try:
                if kind is None:
                    raise Refusal(refuse(406))
                await self._delete_all(request, deletes)
                deletes.finish()
            except Refusal as refusal:
                deletes.refused(refusal)
            return deletes.report.encoded(kind, "delete")

        return await reported(work(), kind)

    async def _delete_all(self, request: Request, deletes: Deletes) -> None:
        """Delete the segments of an object and of those within it; then, if none of them is left, the manifests."""
        whole = Doomed(f"/{request.container}/{request.object}", request.query.get("version-id") or "")
        manifests = [whole]
        seen = 0
        while seen < len(manifests):
            manifest = manifests[seen]
            seen += 1
            try:
                rows = await self._rows(request, manifest)
            except Refusal as refusal:
                manifest.error = (refusal.response.status, said(refusal.response))
                continue
            named = [row for row in rows if "name" in row]
            manifests += [Doomed(row["name"]) for row in named if row.get("sub_slo")]
            if len(manifests) > MAX_SEGMENTS * 10:
                raise Refusal(refuse(400, "Too many buffered slo segments to delete."))
            await deletes.run(Doomed(row["name"]) for row in named if not row.get("sub_slo"))
        if not deletes.report.errors:
            await deletes.run(reversed(manifests))

    async def _leave_to_expirer(self, request: Request) -> None:
        """Have the segments deleted later. They must lie in one container and be no large objects themselves; who asks must
        be allowed to write to it."""
        version = request.query.get("version-id") or ""
        rows = await self._rows(request, Doomed(f"/{request.container}/{request.object}", version))
        names = [row["name"].lstrip("/").partition("/")[::2] for row in rows if "name" in row]
        containers = sorted({container for container, _ in names})
        if len(containers) > 1:
            listed = ", ".join(f'"{encoded(container)}"' for container in containers)
            raise Refusal(refuse(400, f"All segments must be in one container. Found segments in {listed}"))
        if any(row.get("sub_slo") for row in rows):
            raise Refusal(refuse(400, "No segments may be large objects."))
        for container in {request.container, *containers}:
            await may_write(self.app, request, container)
        if names:
            await delete_later(self.app, self.service, request, containers[0], [object for _, object in names])

    async def _rows(self, request: Request, manifest: Doomed) -> list[Row]:
        """The segments of a large object; Refusal where it is none."""
        container, _, object = manifest.name.lstrip("/").partition("/")
        query = "multipart-manifest=get" + (f"&version-id={manifest.version}" if manifest.version else "")
        headers = Headers(
            {"Range": "bytes=-1", "X-Backend-Ignore-Range-If-Metadata-Present": "X-Static-Large-Object"}
        )  # so that of anything else no more than a byte is read
        sub = request.sub("GET", source="slo", container=container, object=object, query=Query(query), headers=headers)
        response = await ask(self.app, sub)
        if response.ok and is_true(response.headers.get("X-Static-Large-Object")):
            return slo_manifest.load(await drain(response))
        await close(response)
        if response.ok or response.status == 416:
            raise Refusal(refuse(400, "Not an SLO manifest"))
        if response.status == 404:
            raise Refusal(refuse(404, "SLO manifest not found"))
        if response.status == 401:
            raise Refusal(refuse(401, "401 Unauthorized"))
        raise Refusal(refuse(500, "Unable to load SLO manifest or segment."))

    async def _listing(self, request: Request) -> Response:
        response = await self.app(request)
        if not response.ok:
            return response
        body = response.body = await drain(response)
        if b"slo_etag=" in body:
            rows: list[Row] = msgspec.json.decode(body)
            for row in rows:
                hash, told = parameters(row.get("hash", ""))
                if "slo_etag" in told:
                    row["slo_etag"] = f'"{told.pop("slo_etag")}"'
                    row["hash"] = joined(hash, told)
            response.body = encode_json(rows)
            response.headers["Content-Length"] = str(len(response.body))
        return response
