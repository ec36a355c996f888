"""PUT of a static large object (`?multipart-manifest=put`): every segment is looked at, and what was found is stored.

All that is wrong is told at once (400). With `heartbeat=on` the reply, 202, begins at once and tells in its body how it ended.
"""

import asyncio
import mimetypes
from collections.abc import Sequence
from hashlib import md5
from typing import Any

from cumulet.services.object_store import conditional
from cumulet.services.object_store.layers import slo_manifest
from cumulet.services.object_store.layers.reports import Report, reported, said, status_line, wanted_kind
from cumulet.services.object_store.layers.slo_manifest import MAX_SEGMENTS, MAX_SIZE, Wish
from cumulet.services.object_store.layers.symlink import OVERRIDE_ETAG
from cumulet.services.object_store.message import (
    Handler,
    Refusal,
    Request,
    Response,
    ask,
    encoded,
    refuse,
    stream,
)
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.proxy.limits import OWN_TYPE
from cumulet.services.object_store.values import is_true, unquoted

SLO_ETAG, SLO_SIZE = "X-Object-Sysmeta-Slo-Etag", "X-Object-Sysmeta-Slo-Size"
AT_ONCE = 16
"""Segments that are looked at at the same time."""

Problem = tuple[str, str]


async def put(app: Handler, layer: Handler, request: Request) -> Response:
    """`app` stores the manifest; `layer`, this feature itself, looks at segments, which may be large objects too."""
    if request.headers.get("X-Copy-From"):
        raise Refusal(refuse(405, "Multipart Manifest PUTs cannot be COPY requests"))
    wishes = slo_manifest.parse(await _read(request), request)
    if sum(wish.data is None for wish in wishes) > MAX_SEGMENTS:
        raise Refusal(refuse(413, f"Number of object-backed segments must be <= {MAX_SEGMENTS}"))
    kind = wanted_kind(request)
    if is_true(request.query.get("heartbeat")):
        work = _in_time(app, layer, request, wishes, kind)
        return await reported(work, kind, 202, at_once=True)
    response, problems = await _store(app, layer, request, wishes)
    if problems:
        return Response(400, Report(errors=problems).encoded(kind, "upload"), {"Content-Type": kind or "text/plain"})
    return response


async def _in_time(app: Handler, layer: Handler, request: Request, wishes: Sequence[Wish], kind: str | None) -> bytes:
    """The report of a PUT that is made while the client is kept waiting."""
    report = Report()
    try:
        response, report.errors = await _store(app, layer, request, wishes)
    except Refusal as refusal:
        response = refusal.response
    report.end(response.status, said(response))
    if response.ok:
        report.values["Etag"] = response.headers["ETag"]
        report.values["Last Modified"] = response.headers.get("Last-Modified", "")
    return report.encoded(kind, "upload")


async def _read(request: Request) -> bytes:
    """The manifest as it is sent."""
    length = request.length
    if length is None and request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise Refusal(refuse(411))
    too_large = refuse(413, f"Manifest File > {MAX_SIZE} bytes")
    if length is not None and length > MAX_SIZE:
        raise Refusal(too_large)
    pieces, size = [], 0
    if request.body is not None:
        async for piece in request.body:
            pieces.append(piece)
            size += len(piece)
            if size > MAX_SIZE:
                raise Refusal(too_large)
    return b"".join(pieces)


async def _store(
    app: Handler, layer: Handler, request: Request, wishes: Sequence[Wish]
) -> tuple[Response, list[Problem]]:
    found, total, problems = await _look(layer, request, wishes)
    hook = request.memo.pop("slo_manifest_hook", None)
    if hook is not None:  # of a layer further out, which may say more against it, or change it
        problems += hook(found)
    if problems:
        return refuse(400), problems
    etag = slo_manifest.etag_of(found)
    wanted = unquoted(request.headers.get("Etag", ""))
    if wanted and wanted != etag:
        raise Refusal(refuse(422))
    response = await app(_as_manifest(request, slo_manifest.stored(found), etag, total))
    if response.ok:
        response.headers["ETag"] = f'"{etag}"'
    return response, []


def _as_manifest(request: Request, data: bytes, etag: str, total: int) -> Request:
    """The PUT that stores a manifest."""
    headers = request.headers
    headers.popall("Transfer-Encoding", None)
    request.body = stream(data)
    hash = md5(data, usedforsecurity=False).hexdigest()
    told, semicolon, rest = headers.get(OVERRIDE_ETAG, "").partition(";")
    kind = headers.get("Content-Type") or mimetypes.guess_type(request.object)[0] or "application/octet-stream"
    headers.update(
        {
            "Content-Length": str(len(data)),
            "Content-Type": f"{kind};swift_bytes={total}",
            OWN_TYPE: "true",
            "Etag": hash,
            "X-Static-Large-Object": "True",
            SLO_ETAG: etag,
            SLO_SIZE: str(total),
            OVERRIDE_ETAG: f"{told or hash}{semicolon}{rest}; slo_etag={etag}",
        }
    )
    return request


async def _look(
    layer: Handler, request: Request, wishes: Sequence[Wish]
) -> tuple[list[dict[str, Any]], int, list[Problem]]:
    """What is stored for each segment, the bytes of all, and what is wrong. An object is asked for once."""
    places = {wish.names: wish for wish in wishes if wish.data is None}
    turn = asyncio.Semaphore(AT_ONCE)

    async def head(names: tuple[str, str]) -> Response:
        async with turn:
            sub = request.sub("HEAD", source="slo", container=names[0], object=names[1])
            return await ask(layer, sub)

    heads = dict(zip(places, await asyncio.gather(*map(head, places)), strict=True))
    rows: list[dict[str, Any]] = []
    total, problems = 0, list[Problem]()
    for index, wish in enumerate(wishes):
        if wish.data is not None:
            rows.append(slo_manifest.data_row(wish.data))
            total += len(wish.data)
            continue
        row, length, against = _row(wish, heads[wish.names], is_last=index == len(wishes) - 1)
        rows.append(row)
        total += length
        problems += [(encoded(wish.path), text) for text in against]
    return rows, total, problems


def _row(wish: Wish, head: Response, *, is_last: bool) -> tuple[dict[str, Any], int, list[str]]:
    """The stored row of a segment, the bytes that it adds, what is wrong with it."""
    if not head.ok:
        return {}, 0, [status_line(head.status)]
    size = length = int(head.headers.get("Content-Length", "0"))
    etag = unquoted(head.headers.get("ETag", ""))
    problems: list[str] = []
    kept = ""
    if wish.range:
        spans = conditional.spans(f"bytes={wish.range}", size)
        if not spans:
            problems.append("Unsatisfiable Range")
        elif spans != [(0, size)]:
            first, end = spans[0]
            kept, length = f"{first}-{end - 1}", end - first
    if length < 1 and not is_last:
        problems.append("Too small; each segment must be at least 1 byte.")
    if wish.size is not None and wish.size != size:
        problems.append("Size Mismatch")
    if wish.etag is not None and wish.etag != etag:
        problems.append("Etag Mismatch")
    modified = conditional.parse_date(head.headers.get("Last-Modified")) or 0
    row = {
        "name": "/" + wish.path.lstrip("/"),
        "bytes": size,
        "hash": etag,
        "content_type": head.headers.get("Content-Type", ""),
        "last_modified": Timestamp.parse(float(modified)).iso,
    }
    if kept:
        row["range"] = kept
    if is_true(head.headers.get("X-Static-Large-Object")):
        row["sub_slo"] = True
    return row, length, problems
