"""Policies that other services may keep here: GET|POST /v3/policies, GET|PATCH|DELETE /v3/policies/{id}."""

from typing import Any

from sqlalchemy import Connection

from cumulet.api.resource import FILTER, FIND, Resource, edit, hidden, read
from cumulet.core import db
from cumulet.core.errors import Invalid
from cumulet.core.types import Id, new_hex_id
from cumulet.services.identity.calls import Ctx, calls, change, guard
from cumulet.services.identity.cascade import forget_policy
from cumulet.services.identity.fields import Label
from cumulet.services.identity.rules import system_rules


class Policy(Resource, table="identity_policy", path="/v3/policies", plural="policies", extra="extra"):
    """A document of some type, stored for others."""

    id: Id = read("The ID of the policy.", use=FIND)
    type: Label = edit("The media type of the blob.", use=FILTER)
    blob: Any = edit("The document.")
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


RULES = system_rules("policy", plural="policies")


def _check_blob(body: Any) -> None:
    if not isinstance(body.given().get("blob", ""), str):
        raise Invalid("The blob of a policy is text; a document of another kind must be written as text first.")


async def create_policy(ctx: Ctx, body: Any) -> Policy:
    policy: Policy = Policy.new(body, id=new_hex_id())
    guard(ctx, "create", Policy, policy)
    _check_blob(body)
    await ctx.service.write(db.insert, policy)
    return policy


async def update_policy(ctx: Ctx, policy: Policy, body: Any) -> Any:
    _check_blob(body)
    return await ctx.service.write(change, Policy, policy.id, body)


async def delete_policy(ctx: Ctx, policy: Policy) -> None:
    def remove(tx: Connection) -> None:
        forget_policy(tx, policy.id)
        db.remove(tx, Policy, policy.id)

    await ctx.service.write(remove)


endpoints = calls(Policy, create=create_policy, update=update_policy, delete=delete_policy)
