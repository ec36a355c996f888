"""Access rules, which application credentials are bound to: GET /v3/users/{user_id}/access_rules, GET|DELETE of one."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, Connection, UniqueConstraint, select

from cumulet.api.crud import list_page
from cumulet.api.http import Endpoint, Response
from cumulet.api.query import Listing
from cumulet.api.resource import FILTER, Resource, hidden, once, read
from cumulet.core import db
from cumulet.core.errors import Forbidden, Invalid, NotFound
from cumulet.core.types import Id, new_hex_id
from cumulet.services.identity.calls import Ctx, refuse_delegated, target
from cumulet.services.identity.claims import APPLICATION_CREDENTIAL
from cumulet.services.identity.rules import SYSTEM_READER, undomained
from cumulet.services.identity.tables import application_credential_rule
from cumulet.services.identity.user import User

ServiceType = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9-]+$")]
Method = Literal["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"]
PathPattern = Annotated[str, Meta(max_length=225, pattern=r"^/")]
"""Segments may be `*` or `{name}`, for any one segment, or `**`, for any number of them."""


class AccessRule(Resource, table="identity_access_rule", path="/v3/users/{user_id}/access_rules"):
    """One kind of request, to one service. A user has each rule once, however many credentials are bound to it."""

    id: Id = read("The ID of the rule.")
    service: ServiceType = once("The service's type.", use=FILTER)
    path: PathPattern = once("A pattern of the path.", use=FILTER)
    method: Method = once("The HTTP method.", use=FILTER)
    user_id: Id = hidden("Whose it is.")


UniqueConstraint(
    *(AccessRule.table.c[n] for n in ("user_id", "service", "path", "method")), name="identity_access_rule_once"
)

_OWNER = "user_id:%(target.user.id)s"
RULES = {
    "identity:get_access_rule": undomained(f"({SYSTEM_READER}) or {_OWNER}"),
    "identity:list_access_rules": undomained(f"({SYSTEM_READER}) or {_OWNER}"),
    "identity:delete_access_rule": undomained(f"(role:admin and system_scope:all) or {_OWNER}"),
}

NOT_LENT = "Cannot manage application credentials with a token issued via delegation."


class RuleRef(Struct, frozen=True, forbid_unknown_fields=True):
    """An access rule as a body names it: one of the user's by its id, or what it says."""

    id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    service: ServiceType | None = None
    path: PathPattern | None = None
    method: Method | None = None


def ensure_rules(tx: Connection, user_id: str, wanted: Sequence[RuleRef]) -> set[str]:
    """The ids of the user's rules that a body names; those that he has not are made. Invalid of one that says too little."""
    mine = db.find(tx, AccessRule, AccessRule.table.c.user_id == user_id) if wanted else []
    by_id = {rule.id for rule in mine}
    said = {(rule.service, rule.path, rule.method): rule.id for rule in mine}
    found: set[str] = set()
    made = []
    for rule in wanted:
        if rule.id is not None and rule.id in by_id:
            found.add(rule.id)
            continue
        if rule.service is None or rule.path is None or rule.method is None:
            raise Invalid("An access rule is named by the ID of one that the user has, or by service, path and method.")
        key = (rule.service, rule.path, rule.method)
        if key not in said:
            said[key] = new_hex_id()
            made.append(
                AccessRule(id=said[key], user_id=user_id, service=rule.service, path=rule.path, method=rule.method)
            )
        found.add(said[key])
    db.insert_many(tx, made)
    return found


def link(ctx: Ctx, user_id: str, collection: str, id: str) -> dict[str, str]:
    """The link of something that stands below a user."""
    return {"self": f"{ctx.request.base_url}/v3/users/{user_id}/{collection}/{id}"}


def _shown(ctx: Ctx, rule: AccessRule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "service": rule.service,
        "path": rule.path,
        "method": rule.method,
        "links": link(ctx, rule.user_id, "access_rules", rule.id),
    }


async def _check(ctx: Ctx, user_id: str, rule: str) -> None:
    user = await ctx.service.kernel.db.read_inline(db.first, User, User.table.c.id == user_id)
    ctx.require(rule, target(user))
    refuse_delegated(ctx, NOT_LENT, but=APPLICATION_CREDENTIAL)


def _mine(user_id: str, id: str) -> tuple[ColumnElement[bool], ...]:
    c = AccessRule.table.c
    return c.id == id, c.user_id == user_id


async def list_access_rules(ctx: Ctx, user_id: str) -> Any:
    """List a user's access rules."""
    await _check(ctx, user_id, "identity:list_access_rules")
    where = AccessRule.table.c.user_id == user_id
    listing = Listing(sort=(("id", "asc"),))
    return await list_page(ctx, AccessRule, lambda _: (where,), listing=listing, view=lambda rule: _shown(ctx, rule))


async def show_access_rule(ctx: Ctx, user_id: str, id: str) -> Any:
    """Show an access rule."""
    await _check(ctx, user_id, "identity:get_access_rule")
    rule = await ctx.service.kernel.db.read_inline(db.first, AccessRule, *_mine(user_id, id))
    if rule is None:
        raise NotFound("access_rule", id)
    return {"access_rule": _shown(ctx, rule)}


async def delete_access_rule(ctx: Ctx, user_id: str, id: str) -> Response:
    """Delete an access rule that no application credential is bound to."""
    await _check(ctx, user_id, "identity:delete_access_rule")

    def remove(tx: Connection) -> None:
        if db.first(tx, AccessRule, *_mine(user_id, id)) is None:
            raise NotFound("access_rule", id)
        uses = select(application_credential_rule).where(application_credential_rule.c.access_rule_id == id)
        if tx.execute(uses.limit(1)).first() is not None:
            raise Forbidden("May not delete access rule in use")
        db.remove(tx, AccessRule, id)

    await ctx.service.write(remove)
    return Response(204)


endpoints = [
    Endpoint("GET", "/v3/users/{user_id}/access_rules", list_access_rules, resource=AccessRule),
    Endpoint("GET", "/v3/users/{user_id}/access_rules/{id}", show_access_rule, resource=AccessRule),
    Endpoint("DELETE", "/v3/users/{user_id}/access_rules/{id}", delete_access_rule, resource=AccessRule),
]
