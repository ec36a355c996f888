"""The projects an image is shared with: GET|POST /v2/images/{image_id}/members,
GET|PUT|DELETE /v2/images/{image_id}/members/{member_id}."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct
from sqlalchemy import Connection, Row, func, select

from cumulet.api.http import Endpoint, Response
from cumulet.core.context import Context
from cumulet.core.errors import Conflict, Forbidden, NotFound, TooLarge
from cumulet.core.types import now
from cumulet.services.image import quota
from cumulet.services.image.image import Image, find, members, require, target
from cumulet.services.image.rules import ADMIN, MEMBER, OWNER, in_project

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

_EITHER = f"{ADMIN} or (role:reader and ({OWNER} or project_id:%(member_id)s))"

RULES = in_project(
    {
        "add_member": MEMBER,
        "delete_member": MEMBER,
        "get_member": _EITHER,
        "get_members": _EITHER,
        "modify_member": f"{ADMIN} or (role:member and project_id:%(member_id)s)",
    }
)


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
    require(ctx, image, "get_image")
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
        require(ctx, image, "add_member")
        where = (members.c.image_id == image.id, members.c.member_id == body.member)
        if tx.execute(select(members).where(*where)).first():
            raise Conflict(f"Member {body.member} is duplicated for image {image_id}")
        there = tx.execute(select(func.count()).select_from(members).where(members.c.image_id == image.id)).scalar_one()
        if there >= quota.MEMBERS:
            raise TooLarge(
                f"The limit has been exceeded on the number of allowed image members for image {image_id}. "
                f"Attempted: {there + 1}, Maximum: {quota.MEMBERS}"
            )
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
        require(ctx, image, "delete_member")
        _member(tx, image, member_id)
        tx.execute(members.delete().where(members.c.image_id == image.id, members.c.member_id == member_id))

    await ctx.service.kernel.db.run(remove)
    return Response(204)


_MEMBERS = "/v2/images/{image_id}/members"
endpoints = [
    Endpoint("GET", _MEMBERS, list_members),
    Endpoint("POST", _MEMBERS, add_member, body=NewMember),
    Endpoint("GET", _MEMBERS + "/{member_id}", show_member),
    Endpoint("PUT", _MEMBERS + "/{member_id}", update_member, body=MemberStatus),
    Endpoint("DELETE", _MEMBERS + "/{member_id}", remove_member, status=204),
]
