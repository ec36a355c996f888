"""Importing data (upstream: interoperable image import): PUT /v2/images/{image_id}/stage, POST /v2/images/{image_id}/import,
GET /v2/info/import.

`queued` -> `uploading` while data is staged -> `importing` until `importing.py` has put it in the stores -> `active`; `queued`
again if that fails.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.errors import CloudError, Conflict, Gone, Invalid, NotFound
from cumulet.core.types import is_uuid, new_id, now
from cumulet.services.image import quota
from cumulet.services.image.fetch import Refused
from cumulet.services.image.image import Image, Staged, checked_properties, find, look_up
from cumulet.services.image.image_data import announced
from cumulet.services.image.importing import COPY, DIRECT, DOWNLOAD, FAILED, KIND, LOCK, WAITING, WEB, Order
from cumulet.services.image.intake import Received
from cumulet.services.image.rules import ADMIN, in_project
from cumulet.services.image.search import save_labels
from cumulet.services.image.task import IMPORT, OLD_IMPORT, ImportInput, Task, add_task

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

RULES = in_project({"copy_image": ADMIN})
STATES = {DIRECT: "uploading", WEB: "queued", DOWNLOAD: "queued", COPY: "active"}
"""By method: the status that an image must have."""


class Method(Struct):
    """Where the data comes from."""

    name: str
    uri: str = ""
    glance_image_id: str = ""
    glance_region: str = ""
    glance_service_interface: str = "public"


class Wanted(Struct):
    """An import as it is asked for."""

    method: Method
    stores: list[str] | None = None
    all_stores: bool = False
    all_stores_must_succeed: bool = True


async def show_import(ctx: Ctx) -> Any:
    """The ways of importing images."""
    methods = list(ctx.service.methods)
    return {"import-methods": {"description": "Import methods available.", "type": "array", "value": methods}}


# ---- staging ---------------------------------------------------------------------------------------------------------------


async def stage(ctx: Ctx, image_id: str) -> Response:
    """Upload data that is to be imported."""
    if DIRECT not in ctx.service.methods:
        raise NotFound(message=f"'{DIRECT}' method is not available at this site.")
    size = announced(ctx)
    image = await look_up(ctx, image_id, "modify_image")
    run, imports = ctx.service.kernel.db.run, ctx.service.imports
    await run(_begin, image.id, await ctx.service.limits(image.owner), size or 0)
    try:
        received = await imports.stage(image.id, ctx.request.chunks(), size)
        await run(_staged, image.id, received)
    except BaseException:
        await imports.clear(image.id)
        await run(_give_up, image.id)
        raise
    return Response(204)


def _begin(tx: Connection, image_id: str, limits: Mapping[str, int], size: int) -> None:
    image = db.get(tx, Image, image_id)
    where = [Image.table.c.id == image_id, Image.table.c.status == "queued"]
    if image.status == "queued":
        more = {quota.STAGED: size >> 20, quota.UPLOADING: 1}
        quota.check(tx, Image.table, limits, image.owner or "", **more)
    if not db.update_where(tx, Image, where, status="uploading", staged=None, updated_at=now()):
        raise Conflict(f"Image status transition from {image.status} to uploading is not allowed")


def _staged(tx: Connection, image_id: str, received: Received) -> None:
    where = [Image.table.c.id == image_id, Image.table.c.status == "uploading"]
    known = Staged(received.size, received.digests)
    if not db.update_where(tx, Image, where, size=received.size, staged=known, updated_at=now()):
        raise Gone(f"Image {image_id} could not be found after upload. It may have been deleted meanwhile.")


def _give_up(tx: Connection, image_id: str) -> None:
    where = [Image.table.c.id == image_id, Image.table.c.status == "uploading"]
    db.update_where(tx, Image, where, status="queued", size=None, staged=None, updated_at=now())


# ---- importing -------------------------------------------------------------------------------------------------------------


async def import_image(ctx: Ctx, image_id: str, body: Wanted) -> Response:
    """Import an image's data, or copy it to further stores; a task tells what becomes of it."""
    runtime, method = ctx.service, body.method
    if method.name not in runtime.methods:
        raise Invalid(f"Unknown import method name '{method.name}'.")
    image = await look_up(ctx, image_id, "copy_image" if method.name == COPY else "modify_image")
    stores = _stores(ctx, body)
    check_state(image, method)
    if method.name == WEB:
        await _check_uri(ctx, method.uri)
    order = Order("", method.name, stores, body.all_stores_must_succeed, uri=method.uri, inject=not ctx.caller.is_admin)
    if method.name == DOWNLOAD:
        await _find_source(ctx, method, order)
    limits, sent = await runtime.limits(image.owner), await ctx.request.json()

    def begin(tx: Connection) -> None:
        image = find(tx, ctx.caller, image_id)
        check_state(image, method)
        order.stores = _missing(ctx, image, body, stores)
        if order.stores:
            _check_limits(tx, image, method.name, limits)
            asked = {"image_id": image.id, "import_req": sent, "backend": order.stores}
            queue(tx, ctx, image, order, add_task(tx, ctx, IMPORT, image.id, asked))

    await runtime.kernel.db.run(begin)
    return Response(202)


def _stores(ctx: Ctx, body: Wanted) -> list[str]:
    """The stores that the data is to be put in."""
    stores, header = ctx.service.stores, ctx.request.headers.get("X-Image-Meta-Store")
    if body.all_stores:
        if body.stores is not None or header is not None:
            raise Invalid("All_stores parameter can't be used with x-image-meta-store header or stores parameter")
        return list(stores.own)
    if body.stores is not None and header is not None:
        raise Invalid("Stores parameter and x-image-meta-store header can't be both specified")
    if not body.all_stores_must_succeed and not stores.several:
        raise Invalid("All_stores_must_succeed can only be set where there are several stores.")
    names = body.stores or [header or stores.default.name]
    return [stores.writable(name).name for name in dict.fromkeys(names)]


def check_state(image: Image, method: Method) -> None:
    """Refuse an import that the image is not ready for."""
    name = method.name
    if name != COPY and image.status == "active":
        raise Conflict("Image with status active cannot be target for import")
    if image.status != STATES[name] or (name == DIRECT and image.staged is None):
        raise Conflict(
            {
                COPY: "Only images with status active can be targeted for copying",
                DIRECT: "Image needs to be staged before 'glance-direct' method can be used",
            }.get(name, f"Image needs to be in 'queued' state to use '{name}' method")
        )
    for attribute in ("container_format", "disk_format"):
        if getattr(image, attribute) is None:
            raise Conflict(f"'{attribute}' needs to be set before import")
    if LOCK in image.properties:
        raise Conflict("Image has active task")


def _missing(ctx: Ctx, image: Image, body: Wanted, stores: list[str]) -> list[str]:
    """Those of the stores that the image's data is not in."""
    if body.method.name != COPY:
        return stores
    there = {held.store.name for held in ctx.service.stores.holding(image)}
    for name in () if body.all_stores else stores:
        if name in there:
            raise Invalid(f"Image is already present at store '{name}'")
    return [name for name in stores if name not in there]


async def _check_uri(ctx: Ctx, uri: str) -> None:
    try:
        await ctx.service.fetcher.check(uri)
    except Refused as error:
        raise Invalid(f"URI for web-download does not pass filtering: {uri} ({error})") from None


async def _find_source(ctx: Ctx, method: Method, order: Order) -> None:
    """Where the image to download is: here, which the caller must be allowed to read, or at another region's service."""
    for name in ("glance_region", "glance_image_id"):
        if not getattr(method, name):
            raise Invalid(f"'{name}' needs to be set for glance-download import method")
    if not is_uuid(method.glance_image_id):
        raise Invalid(f"Remote image id does not look like a UUID: {method.glance_image_id}")
    order.source = method.glance_image_id
    region, interface = method.glance_region, method.glance_service_interface
    endpoint = await ctx.service.endpoint(region, interface)
    if endpoint is None:
        order.refusal = f"The catalogue has no {interface} endpoint of an image service in the region {region}."
    elif region != ctx.service.kernel.settings.region:
        order.endpoint = endpoint
    else:
        try:
            await look_up(ctx, order.source, "download_image")
        except CloudError as error:
            order.refusal = error.message or "The caller may not download the source image."


def _check_limits(tx: Connection, image: Image, method: str, limits: Mapping[str, int]) -> None:
    size = (image.size or 0) >> 20
    more = {quota.SIZE: size} if method == DIRECT else {quota.STAGED: size, quota.UPLOADING: 1, quota.SIZE: 0}
    quota.check(tx, Image.table, limits, image.owner or "", **more)


def queue(tx: Connection, ctx: Ctx, image: Image, order: Order, task_id: str) -> None:
    """Add the operation of an import, and mark its image."""
    order.task_id = task_id
    if order.endpoint:
        ctx.service.imports.tokens[task_id] = ctx.caller.token
    failed = [name for name in image.properties.get(FAILED, "").split(",") if name and name not in order.stores]
    properties = {**image.properties, LOCK: task_id, WAITING: ",".join(order.stores), FAILED: ",".join(failed)}
    status = image.status if order.method == COPY else "importing"
    db.update(tx, Image, image.id, status=status, properties=properties, updated_at=now())
    ctx.service.kernel.operations.add(
        tx, KIND, image.id, msgspec.to_builtins(order), project_id=ctx.caller.project_id, user_id=ctx.caller.user_id,
        request_id=ctx.request_id,
    )  # fmt: skip


async def import_new(ctx: Ctx, wanted: ImportInput) -> Task:
    """Register an image and import its data from a URL (`POST /v2/tasks`); it goes again if that fails."""
    await _check_uri(ctx, wanted.import_from)
    given = {"disk_format": "qcow2", "container_format": "bare", **wanted.image_properties}
    body = Image.decode("create", msgspec.json.encode(given))
    moment = now()
    image = Image.new(
        body, id=new_id(), owner=body.given().get("owner", ctx.caller.project_id), status="queued",
        properties=checked_properties(body.properties), created_at=moment, updated_at=moment,
    )  # fmt: skip
    order = Order("", WEB, [ctx.service.stores.default.name], uri=wanted.import_from, registered=True)
    limits = await ctx.service.limits(image.owner)

    def begin(tx: Connection) -> Task:
        quota.check(tx, Image.table, limits, image.owner or "", **{quota.COUNT: 1})
        db.insert(tx, image)
        save_labels(tx, image.id, image.tags, image.properties)
        task_id = add_task(tx, ctx, OLD_IMPORT, image.id, msgspec.to_builtins(wanted))
        queue(tx, ctx, image, order, task_id)
        return db.get(tx, Task, task_id)

    return await ctx.service.kernel.db.run(begin)


endpoints = [
    Endpoint("GET", "/v2/info/import", show_import),
    Endpoint("PUT", "/v2/images/{image_id}/stage", stage, status=204),
    Endpoint("POST", "/v2/images/{image_id}/import", import_image, "", Wanted, status=202),
]
