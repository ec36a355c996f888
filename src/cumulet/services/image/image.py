"""Images: GET|POST /v2/images, GET|DELETE /v2/images/{image_id}, POST /v2/images/{image_id}/actions/{de,re}activate.

Custom properties are flat attributes beside the declared ones. An image whose row exists belongs to its owner; who else sees
it is its visibility: `public` and `community` everybody, `shared` its members.
"""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, and_, exists, or_

from cumulet.api.crud import granted, list_page, viewer
from cumulet.api.http import Endpoint, Response
from cumulet.api.query import Listing
from cumulet.api.resource import AUTO, SORT, Resource, computed, edit, hidden, once, read
from cumulet.core import db
from cumulet.core.context import Caller, Context
from cumulet.core.db.table import define
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from cumulet.core.types import Column, Id, Str64, Str255, Time, new_id, now
from cumulet.services.image import quota
from cumulet.services.image.patch import READ_ONLY, check_name
from cumulet.services.image.place import Location
from cumulet.services.image.property_protection import Operation
from cumulet.services.image.rules import ADMIN, MEMBER, OWNER, READER, in_project
from cumulet.services.image.search import conditions, labels, save_labels

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

ContainerFormat = Literal["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"]
DiskFormat = Literal["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"]
Visibility = Literal["community", "public", "private", "shared"]
ImageId = Annotated[str, Meta(pattern="^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"), Column(64)]
Amount = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Staged(Struct, frozen=True):
    """Data that waits to be imported, with its hexadecimal digests by algorithm."""

    size: int
    digests: dict[str, str]


def _href(tail: str = "") -> Any:
    return lambda image: f"/v2/images/{image.id}{tail}"


class Image(Resource, table="image_image", path="/v2/images", key="", plural="images", extra="properties"):
    """A disk image and what is known of it."""

    id: ImageId = once("An identifier for the image.", AUTO, SORT)
    name: Str255 | None = edit("A name, which need not be unique.", None, SORT)
    status: Str64 = read("queued, saving, uploading, importing, active or deactivated.", use=SORT)
    visibility: Visibility = edit("Who may see and use it.", "shared")
    protected: bool = edit("Whether it may not be deleted.", False)
    os_hidden: bool = edit("Whether lists leave it out unless asked.", False)
    owner: Str255 | None = edit("The project it belongs to.", AUTO, index=True)
    container_format: ContainerFormat | None = edit("The container around the disk: `bare` is none.", None, SORT)
    disk_format: DiskFormat | None = edit("The format of the disk.", None, SORT)
    min_disk: Amount = edit("GiB of disk a server needs to boot it.", 0)
    min_ram: Amount = edit("MiB of memory a server needs to boot it.", 0)
    size: int | None = read("Bytes of data.", use=SORT)
    virtual_size: int | None = read("Bytes of the disk that a server sees.")
    checksum: Str64 | None = read("MD5 of the data.")
    os_hash_algo: Str64 | None = read("The algorithm of os_hash_value.")
    os_hash_value: Str255 | None = read("The digest of the data.")
    tags: list[Str255] = edit("Words to find it by.", [])
    created_at: Time = read("When it was registered.", use=SORT)
    updated_at: Time = read("When it last changed.", use=SORT)
    self_url: str = computed("Its own URL.", _href(), wire="self")
    file: str = computed("The URL of its data.", _href("/file"))
    schema: str = computed("The URL of its schema.", lambda image: "/v2/schemas/image")
    places: list[Location] | None = hidden(
        "Where the data lies (`store:NAME` or a URL); data of which this is not told is in the store `file`.", None
    )
    staged: Staged | None = hidden("What is known of data that waits to be imported.", None)
    properties: dict[str, str] = hidden("The custom properties, each shown as an attribute.", {})


members = define(
    "image_member",
    {"image_id": Id, "member_id": Str255, "status": Str64, "created_at": Time, "updated_at": Time},
    primary_key=("image_id", "member_id"),
    index=frozenset({"member_id"}),
)
"""The projects that an image is shared with."""

_SEEN = " or ".join(f"'{visibility}':%(visibility)s" for visibility in ("community", "public", "shared"))
_ANYONE = f"({OWNER} or project_id:%(member_id)s or {_SEEN})"

RULES = in_project(
    {
        "add_image": f"{ADMIN} or (role:member and {OWNER} and project_id:%(owner)s)",
        "delete_image": MEMBER,
        "get_image": f"{ADMIN} or (role:reader and {_ANYONE})",
        "get_images": READER,
        "modify_image": MEMBER,
        "publicize_image": ADMIN,
        "communitize_image": MEMBER,
        "download_image": f"{ADMIN} or (role:member and {_ANYONE})",
        "download_from_store": f"{ADMIN} or (role:member and {_ANYONE})",
        "upload_image": MEMBER,
        "deactivate": MEMBER,
        "reactivate": MEMBER,
    }
)

LISTING = Listing(sort=(("created_at", "desc"),))


def shared_with(project_id: str | None, *status: str) -> ColumnElement[bool]:
    """Images shared with a project (whose answer is one of `status`, or any)."""
    c = members.c
    where = [c.image_id == Image.table.c.id, c.member_id == project_id, *([c.status.in_(status)] if status else [])]
    return and_(Image.table.c.visibility == "shared", exists().where(*where))


def visible(caller: Caller) -> list[ColumnElement[bool]]:
    """The images that a caller may see."""
    if caller.is_admin:
        return []
    c = Image.table.c
    own = c.owner == (caller.project_id or "")
    return [or_(own, c.visibility.in_(("public", "community")), shared_with(caller.project_id))]


def target(image: Image, member_id: str | None = None) -> dict[str, Any]:
    """What policy rules look at."""
    return {
        **image.properties,
        "project_id": image.owner,
        "owner": image.owner,
        "visibility": image.visibility,
        "member_id": member_id,
    }


def not_found(image_id: str) -> NotFound:
    """What is said of an image that is not there, or not for who asks."""
    return NotFound(message=f"No image found with ID {image_id}")


def require(ctx: Ctx, image: Image, rule: str) -> None:
    """Refuse what policy refuses: NotFound where the caller may not even see the image, Forbidden else."""
    caller = ctx.caller
    member = caller.project_id if image.visibility == "shared" and caller.project_id != image.owner else None
    where = target(image, member)
    if not ctx.allows(rule, where):
        if rule == "get_image" or not ctx.allows("get_image", where):
            raise not_found(image.id)
        raise Forbidden(rule=rule)


def find(tx: Connection, caller: Caller, image_id: str) -> Image:
    """The image, if the caller may see it; NotFound else."""
    try:
        return db.get(tx, Image, image_id, *visible(caller))
    except NotFound:
        raise not_found(image_id) from None


async def look_up(ctx: Ctx, image_id: str, rule: str = "") -> Image:
    """The image as the caller sees it, after asking `rule` about it."""
    image: Image = await ctx.service.kernel.db.read_inline(find, ctx.caller, image_id)
    if rule:
        require(ctx, image, rule)
    return image


def may(ctx: Ctx, operation: Operation, name: str) -> bool:
    """Whether the operator's property protections let the caller do this with a custom property."""
    return ctx.service.protections.allows(ctx.policy, ctx.caller, operation, name)


def views(ctx: Ctx) -> Callable[[Image], Any]:
    """A function from an image to its reply, without the properties that the caller may not read, with the stores that hold
    its data; with the places of its data, if the operator lets them be seen."""
    plain: Callable[[Image], Any] = viewer(ctx, Image, granted(ctx, Image))
    stores, located = ctx.service.stores, ctx.service.kernel.settings.image_locations
    protected = ctx.service.protections.sections
    if not protected and not located and not stores.several:
        return plain

    def view(image: Image) -> Any:
        seen = plain(replace(image, properties=readable(ctx, image.properties)) if protected else image)
        if stores.several and (names := stores.names(image)):
            seen["stores"] = names
        if located:
            found = locations(ctx, image) if ctx.allows("get_image_location", target(image)) else []
            seen["locations"] = found
            if found:
                seen["direct_url"] = found[0].url
        return seen

    return view


def locations(ctx: Ctx, image: Image) -> list[Location]:
    """All places where an image's data lies."""
    return ctx.service.stores.locations(image)


def readable(ctx: Ctx, properties: Mapping[str, str]) -> dict[str, str]:
    """The custom properties that the caller may read."""
    return {name: value for name, value in properties.items() if may(ctx, "read", name)}


async def list_images(ctx: Ctx) -> Any:
    """List images that the caller may see, newest first."""
    query = ctx.request.query
    extra = conditions(query, Image.table, lambda name: may(ctx, "read", name))
    c = Image.table.c
    scope: list[ColumnElement[bool]] = []
    status = query.get("member_status", "accepted")
    if status not in ("pending", "accepted", "rejected", "all"):
        raise Invalid(f"Invalid status: {status}")
    own = c.owner == (ctx.caller.project_id or "")
    if not ctx.caller.is_admin:
        shared = shared_with(ctx.caller.project_id, *(() if status == "all" else (status,)))
        scope.append(or_(own, c.visibility.in_(("public", "community")), shared))
    if "visibility" not in query:
        scope.append(or_(own, c.visibility != "community"))
    return await list_page(ctx, Image, lambda _ctx: scope, listing=LISTING, extra=extra, view=views(ctx))


async def show_image(ctx: Ctx, image_id: str) -> Any:
    """Show an image."""
    return views(ctx)(await look_up(ctx, image_id, "get_image"))


async def create_image(ctx: Ctx, body: Any) -> Response:
    """Register an image; its data is uploaded afterwards."""
    for name in msgspec.json.decode(await ctx.request.read(), type=dict[str, msgspec.Raw]):
        if name != "id" and name in READ_ONLY:
            raise Forbidden(f"Attribute '{name}' is read-only.")
        if name == "locations":
            raise Forbidden("Attribute 'locations' is reserved: it is set once there is an image.")
        check_name(name)
    owner = body.given().get("owner", ctx.caller.project_id)
    moment = now()
    image = Image.new(
        body, id=str(body.given().get("id") or new_id()).lower(), owner=owner, status="queued",
        tags=distinct(body.tags), properties=checked_properties(body.properties), created_at=moment, updated_at=moment,
    )  # fmt: skip
    _may_add(ctx, image)
    limits = await ctx.service.limits(owner)

    def add(tx: Connection) -> None:
        if db.first(tx, Image, Image.table.c.id == image.id):
            raise Conflict(f"Image ID {image.id} already exists!")
        quota.check(tx, Image.table, limits, owner or "", **{quota.COUNT: 1})
        db.insert(tx, image)
        save_labels(tx, image.id, image.tags, image.properties)

    await ctx.service.kernel.db.run(add)
    headers = {"Location": f"/v2/images/{image.id}", **ctx.service.told_to_importers()}
    return Response(201, views(ctx)(image), headers)


def _may_add(ctx: Ctx, image: Image) -> None:
    where = target(image)
    if not ctx.allows("add_image", where):
        if image.owner != ctx.caller.project_id:
            raise Forbidden(f"You are not permitted to create images owned by '{image.owner}'.")
        raise Forbidden(rule="add_image")
    check_visibility(ctx, image, image.visibility)
    for name in image.properties:
        if not may(ctx, "create", name):
            raise Forbidden(f"Attribute '{name}' is reserved.")
    check_amounts(image.tags, image.properties)


async def delete_image(ctx: Ctx, image_id: str) -> Response:
    """Delete an image and its data."""

    def remove(tx: Connection) -> Image:
        image = find(tx, ctx.caller, image_id)
        require(ctx, image, "delete_image")
        if image.protected:
            raise Forbidden(f"Image {image_id} is protected and cannot be deleted.")
        remove_row(tx, image.id)
        ctx.service.end_import(tx, image, ctx.request_id)
        return image

    await ctx.service.remove_data(await ctx.service.kernel.db.run(remove))
    return Response(204)


def remove_row(tx: Connection, image_id: str) -> None:
    """Remove all that is stored of an image."""
    tx.execute(members.delete().where(members.c.image_id == image_id))
    tx.execute(labels.delete().where(labels.c.image_id == image_id))
    db.remove(tx, Image, image_id)


async def deactivate(ctx: Ctx, image_id: str) -> Response:
    """Keep an image's data from being downloaded, but by admins."""
    return await _switch(ctx, image_id, "deactivate", "active", "deactivated")


async def reactivate(ctx: Ctx, image_id: str) -> Response:
    """Let an image's data be downloaded again."""
    return await _switch(ctx, image_id, "reactivate", "deactivated", "active")


async def _switch(ctx: Ctx, image_id: str, rule: str, old: str, new: str) -> Response:
    def change(tx: Connection) -> None:
        image = find(tx, ctx.caller, image_id)
        require(ctx, image, rule)
        if image.status not in (old, new):
            raise Forbidden(f"Not allowed to {rule} image in status '{image.status}'")
        if image.status == old:
            db.update(tx, Image, image.id, status=new, updated_at=now())

    await ctx.service.kernel.db.run(change)
    return Response(204)


def check_visibility(ctx: Ctx, image: Image, wanted: Any) -> None:
    """Refuse who may not give an image the visibility he wants it to have."""
    if wanted == "public":
        ctx.require("publicize_image", target(image))
    elif wanted == "community":
        ctx.require("communitize_image", target(image))


def check_amounts(tags: Collection[str], properties: Collection[str]) -> None:
    """Refuse an image that would have too many tags or custom properties."""
    for what, there, most in (("tags", tags, quota.TAGS), ("properties", properties, quota.PROPERTIES)):
        if len(there) > most:
            raise TooLarge(
                f"The limit has been exceeded on the number of allowed image {what}. Attempted: {len(there)}, Maximum: {most}"
            )


def checked_properties(properties: Mapping[str, Any]) -> dict[str, str]:
    """Custom properties, each of which must be a text under a name that is not too long."""
    for name, value in properties.items():
        if len(name) > 255:
            raise Invalid("Custom property should not be greater than 255 characters.")
        if not isinstance(value, str):
            raise Invalid(
                f"Provided object does not match schema 'image': the value of '{name}' is not of type 'string'"
            )
    return dict(properties)


def distinct(tags: list[str]) -> list[str]:
    """The tags, each once."""
    return list(dict.fromkeys(tags))


endpoints = [
    Endpoint("GET", "/v2/images", list_images, "get_images", resource=Image),
    Endpoint("POST", "/v2/images", create_image, "", Image, status=201, resource=Image),
    Endpoint("GET", "/v2/images/{image_id}", show_image, resource=Image),
    Endpoint("DELETE", "/v2/images/{image_id}", delete_image, status=204, resource=Image),
    Endpoint("POST", "/v2/images/{image_id}/actions/deactivate", deactivate, status=204),
    Endpoint("POST", "/v2/images/{image_id}/actions/reactivate", reactivate, status=204),
]
