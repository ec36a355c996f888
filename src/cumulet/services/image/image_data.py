"""The data of images: PUT|GET /v2/images/{image_id}/file.

An upload is `queued` -> `saving` -> `active`; one that fails for whatever reason is `queued` again and leaves no file.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import Connection

from cumulet.api.http import Endpoint, File, Response
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.errors import Conflict, Forbidden, Gone, Invalid, RangeNotSatisfiable, UnsupportedMedia
from cumulet.core.types import now
from cumulet.services.image import quota
from cumulet.services.image.image import Image, look_up, require
from cumulet.services.image.stores import Held

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"
OCTETS = "application/octet-stream"
RANGE = re.compile(r"^bytes=(\d*)-(\d*)$", re.ASCII)
CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(?:\d+|\*)$", re.ASCII)


def announced(ctx: Ctx) -> int | None:
    """How many bytes a request says that it brings, if it does. UnsupportedMedia or Invalid for one that brings no data."""
    headers = ctx.request.headers
    media_type = (headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if media_type != OCTETS:
        raise UnsupportedMedia(f"Content type {media_type} is not supported; {OCTETS} is.")
    size = headers.get("X-Openstack-Image-Size") or headers.get("Content-Length")
    if size is not None and not (size.isascii() and size.isdigit()):
        raise Invalid("Invalid or missing image size in request headers.")
    return None if size is None else int(size)


async def upload(ctx: Ctx, image_id: str) -> Response:
    """Upload the data of an image."""
    size = announced(ctx)
    image = await look_up(ctx, image_id, "upload_image")
    name = ctx.request.headers.get("X-Image-Meta-Store", ctx.service.stores.default.name)
    try:
        ctx.service.stores.writable(name)
    except Conflict as error:
        raise Invalid(error.message) from None
    limits = await ctx.service.limits(image.owner)
    await ctx.service.take(image, ctx.request.chunks(), limits, store=name, expected=size)
    return Response(204)


async def download(ctx: Ctx, image_id: str) -> Response:
    """Download the data of an image, or a range of it."""
    image = await look_up(ctx, image_id, "download_image")
    if image.status == "deactivated" and not ctx.caller.is_admin:
        raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    held = _chosen(ctx, image)
    if held is None or image.size is None:
        return Response(204)
    headers = {"Content-Type": OCTETS}
    if image.checksum:
        headers["Content-MD5"] = image.checksum
    file = held.file or await ctx.service.cache.hit(image.id)
    size = image.size if file else await held.store.size(held.url)
    part = _part(ctx.request.headers, size)
    offset, length = part or (0, size)
    if part is not None:
        headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{size}"
    headers["Content-Length"] = str(length)
    body: Any = File(file, offset, length) if file else held.store.chunks(held.url, offset, length)
    if file is None and part is None:
        body = ctx.service.cache.filled(image, body)
    return Response(206 if part is not None else 200, body, headers)


def _chosen(ctx: Ctx, image: Image) -> Held | None:
    """Where the data is read from: a store of this cloud, if one has it; of several, the one that `prefer` names first."""
    wanted = [name.strip() for name in (ctx.request.query.get("prefer") or "").split(",") if name.strip()]
    if wanted:
        require(ctx, image, "download_from_store")
    stores = ctx.service.stores
    for name in wanted:
        if name not in stores.all:
            raise Invalid(f"Store '{name}' is not configured.")
    if image.status not in ("active", "deactivated"):
        return None
    rank = {name: number for number, name in enumerate((*wanted, *stores.own))}
    readable = [held for held in stores.holding(image) if held.own or ctx.service.web.reads(held.url)]
    return min(readable, key=lambda held: rank.get(held.store.name, len(rank)), default=None)


def _part(headers: Mapping[str, str], size: int) -> tuple[int, int] | None:
    """(offset, length) of the bytes asked for (RFC 9110, section 14.1.2, one range only), if a part is. As upstream does,
    `Content-Range` is taken from clients that send it for `Range`."""
    text = headers.get("Range")
    old = None if text is not None else headers.get("Content-Range")
    if text is None and old is None:
        return None
    refused = RangeNotSatisfiable(f"Invalid range: {text or old}", headers={"Content-Range": f"bytes */{size}"})
    if text is not None and "," in text:
        raise Invalid("Requests with multiple ranges are not supported here; send one request for each range.")
    match = RANGE.match(text.strip()) if text is not None else CONTENT_RANGE.match((old or "").strip())
    if match is None or not (match[1] or match[2]):
        raise refused
    if not match[1]:
        start, end = max(size - int(match[2]), 0), size - 1
    else:
        start, end = int(match[1]), min(int(match[2]), size - 1) if match[2] else size - 1
    if start >= size or start > end:
        raise refused
    return start, end - start + 1


def begin(tx: Connection, image_id: str, limits: Mapping[str, int]) -> None:
    """`queued` to `saving`, for one upload only. QuotaExceeded if the owner has no room for data, or too much under way."""
    image = db.get(tx, Image, image_id)
    missing = [name for name in ("disk_format", "container_format") if getattr(image, name) is None]
    if missing and image.status == "queued":
        raise Invalid(f"Properties {', '.join(missing)} must be set prior to saving data.")
    if image.status == "queued":
        quota.check(tx, Image.table, limits, image.owner or "", **{quota.SIZE: 0, quota.UPLOADING: 1})
    where = [Image.table.c.id == image_id, Image.table.c.status == "queued"]
    if not db.update_where(tx, Image, where, status="saving", updated_at=now()):
        raise Conflict(f"Image status transition from {image.status} to saving is not allowed")


def give_up(tx: Connection, image_id: str) -> None:
    """`saving` to `queued`."""
    where = [Image.table.c.id == image_id, Image.table.c.status == "saving"]
    db.update_where(tx, Image, where, status="queued", updated_at=now())


def has_data(tx: Connection, image_id: str) -> bool:
    """Whether an image has been finished."""
    image = db.first(tx, Image, Image.table.c.id == image_id)
    return image is not None and image.status in ("active", "deactivated")


def finish(tx: Connection, /, image_id: str, **found: Any) -> None:
    """`saving` to `active`, with what is now known of the data; Gone if the image was deleted meanwhile."""
    where = [Image.table.c.id == image_id, Image.table.c.status == "saving"]
    if not db.update_where(tx, Image, where, status="active", updated_at=now(), **found):
        raise Gone(
            f"Image {image_id} could not be found after upload. The image may have been deleted during the upload, "
            "cleaning up the chunks uploaded."
        )


endpoints = [
    Endpoint("PUT", "/v2/images/{image_id}/file", upload, status=204),
    Endpoint("GET", "/v2/images/{image_id}/file", download),
]
