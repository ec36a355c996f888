"""The projects an image is shared with: GET|POST /v2/images/{image_id}/members,
GET|PUT|DELETE /v2/images/{image_id}/members/{member_id}, PUT|DELETE /v2/images/{image_id}/tags/{tag}."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct
from sqlalchemy import Connection, Row, select

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import now
from cumulet.services.image.image import Image, find, look_up, members, target
from cumulet.services.image.search import save_labels

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

_OWNER = "role:admin or (role:member and project_id:%(project_id)s)"
_EITHER = "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s))"

RULES = {
    "add_member": _OWNER,
    "delete_member": _OWNER,
    "get_member": _EITHER,
    "get_members": _EITHER,
    "modify_member": "role:admin or (role:member and project_id:%(member_id)s)",
}


class NewMember(Struct):
    member: Annotated[str, Meta(min_length=1, max_length=255)]


class MemberStatus(Struct):
    status: Literal["pending", "accepted", "rejected"]


def view(row: Row[Any]) -> dict[str, Any]:
    """A membership as it is sent."""
    return {
        "image_id": row.image_id,
        "member_id": row.member_id,
        "status": row.status,
        "created_at": f"{row.created_at[:19]}Z",
        "updated_at": f"{row.updated_at[:19]}Z",
        "schema": "/v2/schemas/member",
    }


def _shared(tx: Connection, ctx: Ctx, image_id: str) -> Image:
    image = find(tx, ctx.caller, image_id)
    if image.visibility != "shared":
        raise Forbidden("Only shared images have members.")
    return image


def _member(tx: Connection, image: Image, member_id: str) -> Row[Any]:
    where = (members.c.image_id == image.id, members.c.member_id == member_id)
    row = tx.execute(select(members).where(*where)).first()
    if row is None:
        raise NotFound(message=f"{member_id} not found in the member list of the image {image.id}.")
    return row


async def list_members(ctx: Ctx, image_id: str) -> Any:
    """List the projects an image is shared with; a member sees himself alone."""

    def look(tx: Connection) -> list[Any]:
        image = _shared(tx, ctx, image_id)
        rows = tx.execute(select(members).where(members.c.image_id == image.id).order_by(members.c.created_at))
        return [view(row) for row in rows if ctx.allows("get_member", target(image, row.member_id))]

    return {"members": await ctx.service.kernel.db.read(look), "schema": "/v2/schemas/members"}


async def show_member(ctx: Ctx, image_id: str, member_id: str) -> Any:
    """Show one membership."""

    def look(tx: Connection) -> Any:
        image = find(tx, ctx.caller, image_id)
        if image.visibility != "shared" or not ctx.allows("get_member", target(image, member_id)):
            raise NotFound(message=f"{member_id} not found in the member list of the image {image_id}.")
        return view(_member(tx, image, member_id))

    return await ctx.service.kernel.db.read(look)


async def add_member(ctx: Ctx, image_id: str, body: NewMember) -> Any:
    """Share an image with a project, which then has to accept it."""

    def add(tx: Connection) -> Any:
        image = _shared(tx, ctx, image_id)
        ctx.require("add_member", target(image))
        where = (members.c.image_id == image.id, members.c.member_id == body.member)
        if tx.execute(select(members).where(*where)).first():
            raise Conflict(f"Member {body.member} is duplicated for image {image_id}")
        row = {"image_id": image.id, "member_id": body.member, "status": "pending"}
        tx.execute(members.insert().values(**row, created_at=now(), updated_at=now()))
        return view(_member(tx, image, body.member))

    return await ctx.service.kernel.db.run(add)


async def update_member(ctx: Ctx, image_id: str, member_id: str, body: MemberStatus) -> Any:
    """Accept or reject an image that is shared with the caller's project."""

    def change(tx: Connection) -> Any:
        image = _shared(tx, ctx, image_id)
        _member(tx, image, member_id)
        ctx.require("modify_member", target(image, member_id))
        where = (members.c.image_id == image.id, members.c.member_id == member_id)
        tx.execute(members.update().where(*where).values(status=body.status, updated_at=now()))
        return view(_member(tx, image, member_id))

    return await ctx.service.kernel.db.run(change)


async def remove_member(ctx: Ctx, image_id: str, member_id: str) -> Response:
    """Stop sharing an image with a project."""

    def remove(tx: Connection) -> None:
        image = _shared(tx, ctx, image_id)
        ctx.require("delete_member", target(image))
        _member(tx, image, member_id)
        tx.execute(members.delete().where(members.c.image_id == image.id, members.c.member_id == member_id))

    await ctx.service.kernel.db.run(remove)
    return Response(204)


async def add_tag(ctx: Ctx, image_id: str, tag: str) -> Response:
    """Put a tag on an image."""
    if len(tag) > 255:
        raise Invalid("A tag has at most 255 characters.")
    image = await look_up(ctx, image_id, "modify_image")
    await ctx.service.kernel.db.run(_set_tag, image.id, tag, True)
    return Response(204)


async def remove_tag(ctx: Ctx, image_id: str, tag: str) -> Response:
    """Take a tag off an image."""
    image = await look_up(ctx, image_id, "modify_image")
    await ctx.service.kernel.db.run(_set_tag, image.id, tag, False)
    return Response(204)


def _set_tag(tx: Connection, image_id: str, tag: str, wanted: bool) -> None:
    image = db.get(tx, Image, image_id)
    if tag not in image.tags and not wanted:
        raise NotFound(message=f"Image {image_id} has no tag {tag}.")
    tags = [t for t in image.tags if t != tag] + ([tag] if wanted else [])
    db.update(tx, Image, image_id, tags=tags, updated_at=now())
    save_labels(tx, image_id, tags, image.properties)


_MEMBERS = "/v2/images/{image_id}/members"
endpoints = [
    Endpoint("GET", _MEMBERS, list_members, "get_members"),
    Endpoint("POST", _MEMBERS, add_member, "add_member", NewMember),
    Endpoint("GET", _MEMBERS + "/{member_id}", show_member, "get_member"),
    Endpoint("PUT", _MEMBERS + "/{member_id}", update_member, "", MemberStatus),
    Endpoint("DELETE", _MEMBERS + "/{member_id}", remove_member, "delete_member", status=204),
    Endpoint("PUT", "/v2/images/{image_id}/tags/{tag}", add_tag, "modify_image", status=204),
    Endpoint("DELETE", "/v2/images/{image_id}/tags/{tag}", remove_tag, "modify_image", status=204),
]
