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
from cumulet.services.image.image import Image, locations, look_up, own_location

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"
OCTETS = "application/octet-stream"
RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")


async def upload(ctx: Ctx, image_id: str) -> Response:
    """Upload the data of an image."""
    media_type = (ctx.request.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if media_type != OCTETS:
        raise UnsupportedMedia(f"Content type {media_type} is not supported; {OCTETS} is.")
    if not (ctx.request.headers.get("X-Openstack-Image-Size") or "0").isdigit():
        raise Invalid("Invalid or missing image size in request headers.")
    image = await look_up(ctx, image_id, "upload_image")
    await ctx.service.take(image, ctx.request.chunks(), await ctx.service.limits(image.owner))
    return Response(204)


async def download(ctx: Ctx, image_id: str) -> Response:
    """Download the data of an image, or a range of it."""
    image = await look_up(ctx, image_id, "download_image")
    if image.status == "deactivated" and not ctx.caller.is_admin:
        raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    if image.status not in ("active", "deactivated") or image.size is None:
        return Response(204)
    if outside := outside_of(ctx, image):
        headers = {"Content-Type": OCTETS, "Content-Length": str(await ctx.service.web.size(outside))}
        return Response(200, ctx.service.web.chunks(outside), headers)
    offset, length = _range(ctx.request.headers.get("Range"), image.size)
    headers = {"Content-Type": OCTETS, "Content-MD5": image.checksum or "", "Content-Length": str(length)}
    partial = "Range" in ctx.request.headers
    if partial:
        headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{image.size}"
    return Response(206 if partial else 200, File(ctx.service.store.path(image.id), offset, length), headers)


def outside_of(ctx: Ctx, image: Image) -> str:
    """The place outside that an image's data is read from; none where the cloud's own store has it."""
    found = [place.url for place in locations(ctx, image)]
    return "" if own_location(ctx, image).url in found else next(filter(ctx.service.web.reads, found), "")


def _range(header: str | None, size: int) -> tuple[int, int]:
    """(offset, length) of the bytes asked for: RFC 9110, section 14.1.2, one range only."""
    if header is None:
        return 0, size
    match = RANGE.match(header.strip())
    if match is None or not (match[1] or match[2]):
        raise RangeNotSatisfiable(f"Invalid range: {header}", headers={"Content-Range": f"bytes */{size}"})
    if not match[1]:
        start, end = max(size - int(match[2]), 0), size - 1
    else:
        start, end = int(match[1]), min(int(match[2]), size - 1) if match[2] else size - 1
    if start >= size or start > end:
        raise RangeNotSatisfiable(f"Invalid range: {header}", headers={"Content-Range": f"bytes */{size}"})
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
