"""Security groups: named sets of rules that filter the traffic of ports.

GET, POST /v2.0/security-groups · GET, PUT, DELETE /v2.0/security-groups/{id}
"""

from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Index, String, Table, bindparam, select

from cumulet.api.crud import list_page, own_project
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.api.resource import FIND, computed, edit, hidden
from cumulet.core import db
from cumulet.core.db import metadata
from cumulet.core.errors import Conflict
from cumulet.core.types import Str255
from cumulet.services.network.security_group_rule import SecurityGroupRule, default_rules, rule_view
from cumulet.services.network.standard import (
    Ctx,
    Standard,
    calls,
    change,
    changeable,
    charge,
    listing,
    owner,
    stamps,
)


class SecurityGroup(
    Standard,
    table="network_security_groups",
    path="/v2.0/security-groups",
    key="security_group",
    plural="security_groups",
    lax=True,
):
    """A named set of rules."""

    name: Str255 = edit("A name, which need not be unique.", "", FIND)
    rules: list[Any] = hidden("Its rules, when it is shown.", [])
    security_group_rules: list[Any] = computed("Its rules.", lambda row: row.rules)


GROUPS = SecurityGroup.table
COLUMNS = tuple(GROUPS.c.keys())

defaults = Table(
    "network_default_groups",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("security_group_id", String(64), nullable=False),
)
"""Each project's default group."""

members = Table(
    "network_port_groups",
    metadata,
    Column("port_id", String(64), primary_key=True),
    Column("security_group_id", String(64), primary_key=True),
    Column("network_id", String(64), nullable=False),
    Index("network_port_groups_group", "security_group_id", "network_id"),
)
"""Which ports are in which groups."""

RULES = {
    "get_security_group": ADMIN_OR_OWNER_READER,
    "create_security_group": ADMIN_OR_OWNER_MEMBER,
    "update_security_group": ADMIN_OR_OWNER_MEMBER,
    "delete_security_group": ADMIN_OR_OWNER_MEMBER,
}

visible = own_project(SecurityGroup)

_default = select(defaults.c.security_group_id).where(defaults.c.project_id == bindparam("project"))


def default_group(tx: Connection, project_id: str) -> str:
    """The ID of the project's default group, which is made when it is first asked for."""
    found = tx.execute(_default, {"project": project_id}).scalar()
    if found is not None:
        return str(found)
    group = SecurityGroup.new(name="default", **{**stamps(project_id), "description": "Default security group"})
    tx.execute(defaults.insert(), {"project_id": project_id, "security_group_id": group.id})
    db.insert(tx, group)
    db.insert_many(tx, default_rules(group.id, project_id, own=True))
    return group.id


def with_rules(tx: Connection, rows: list[Any]) -> list[SecurityGroup]:
    """The groups of these rows, with their rules."""
    groups = {row.id: SecurityGroup(**{c: getattr(row, c) for c in COLUMNS}) for row in rows}
    found: dict[str, list[Any]] = {one: [] for one in groups}
    rules = SecurityGroupRule.table
    for rule in tx.execute(select(rules).where(rules.c.security_group_id.in_(groups)).order_by(rules.c.created_at)):
        found[rule.security_group_id].append(rule_view(rule))
    return [msgspec.structs.replace(group, rules=found[group.id]) for group in groups.values()]


def add_group(tx: Connection, ctx: Ctx, body: Any) -> SecurityGroup:
    project_id = owner(ctx, body)
    default_group(tx, project_id)
    if body.name == "default":
        raise Conflict("Default security group already exists.", code="SecurityGroupDefaultAlreadyExists")
    charge(tx, "security_group", SecurityGroup, project_id)
    group = SecurityGroup.new(body, **stamps(project_id))
    db.insert(tx, group)
    made = default_rules(group.id, project_id, own=False)
    charge(tx, "security_group_rule", SecurityGroupRule, project_id, len(made))
    db.insert_many(tx, made)
    return msgspec.structs.replace(group, rules=[rule_view(rule) for rule in made])


def _change(tx: Connection, ctx: Ctx, id: str, body: Any) -> SecurityGroup:
    group = changeable(tx, ctx, SecurityGroup, id, visible, "update_security_group")
    given = body.given()
    if _is_default(tx, group) and given.get("name", group.name) != group.name:
        raise Conflict("Updating default security group not allowed.", code="SecurityGroupCannotUpdateDefault")
    if given.get("name") == "default" != group.name:
        raise Conflict("Default security group already exists.", code="SecurityGroupDefaultAlreadyExists")
    return with_rules(tx, [change(tx, group, **given)])[0]


def _is_default(tx: Connection, group: SecurityGroup) -> bool:
    return tx.execute(_default, {"project": group.project_id}).scalar() == group.id


def _remove(tx: Connection, ctx: Ctx, id: str) -> None:
    group = changeable(tx, ctx, SecurityGroup, id, visible, "delete_security_group")
    if tx.execute(select(members.c.port_id).where(members.c.security_group_id == id).limit(1)).first() is not None:
        raise Conflict(f"Security Group {id} in use.", code="SecurityGroupInUse")
    if _is_default(tx, group):
        if not ctx.caller.is_admin:
            raise Conflict(
                "Insufficient rights for removing default security group.", code="SecurityGroupCannotRemoveDefault"
            )
        tx.execute(defaults.delete().where(defaults.c.security_group_id == id))
    rules = SecurityGroupRule.table
    affected = list(
        tx.execute(select(rules.c.security_group_id).where(rules.c.remote_group_id == id).distinct()).scalars()
    )
    ctx.service.realiser.touch_groups(tx, [g for g in affected if g != id])
    db.remove_where(tx, SecurityGroupRule, (rules.c.security_group_id == id) | (rules.c.remote_group_id == id))
    db.remove(tx, SecurityGroup, id)


_listing = listing(SecurityGroup)


async def list_groups(ctx: Ctx) -> Any:
    """List security groups; the caller's project has its default group from then on."""
    project = ctx.caller.project_id
    if project:
        known = await ctx.service.kernel.db.read_inline(lambda tx: tx.execute(_default, {"project": project}).scalar())
        if known is None:
            await ctx.service.write(default_group, project)
    return await list_page(ctx, SecurityGroup, visible, listing=_listing, enrich=with_rules)


_calls = calls(SecurityGroup, visible, add_group, _change, _remove, listed=_listing, enrich=with_rules)
endpoints = [
    replace(call, handler=list_groups) if call.path == _calls[0].path and call.method == "GET" else call
    for call in _calls
]
