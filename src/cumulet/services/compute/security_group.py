"""Security groups as compute's API had them before 2.36: passed on to networking, in other words.

GET, POST /os-security-groups · GET, PUT, DELETE /os-security-groups/{id}
POST /os-security-group-rules · DELETE /os-security-group-rules/{id}
"""

from typing import Annotated, Any
from urllib.parse import urlencode

from msgspec import Meta, Struct

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.core.errors import Conflict, Invalid
from cumulet.core.types import is_uuid
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.passing_on import ask

PREFIX = "os_compute_api:os-security-groups:"
GET, SHOW, CREATE, UPDATE, DELETE, ADD_RULE, REMOVE_RULE = (
    PREFIX + verb for verb in ("get", "show", "create", "update", "delete", "rule:create", "rule:delete")
)
RULES = {
    GET: ADMIN_OR_OWNER_READER, SHOW: ADMIN_OR_OWNER_READER,
    **dict.fromkeys((CREATE, UPDATE, DELETE, ADD_RULE, REMOVE_RULE), ADMIN_OR_OWNER_MEMBER),
}  # fmt: skip
LAST = (2, 35)

Text255 = Annotated[str, Meta(max_length=255)]


class Group(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=255)]
    description: Text255 | None = None


class GroupBody(Struct, forbid_unknown_fields=True):
    security_group: Group


class Rule(Struct, forbid_unknown_fields=True):
    parent_group_id: Text255
    ip_protocol: Text255 | None = None
    from_port: int | Text255 | None = None
    to_port: int | Text255 | None = None
    cidr: Text255 | None = None
    group_id: Text255 | None = None


class RuleBody(Struct, forbid_unknown_fields=True):
    security_group_rule: Rule


async def _ask(ctx: Ctx, method: str, path: str, body: Any = None, query: str = "") -> Any:
    """Ask networking. What conflicts there was a bad request here, as upstream has it."""
    try:
        return await ask(ctx, "network", method, path, body, query)
    except Conflict as error:
        raise Invalid(error.message) from None


def _checked(id: str) -> str:
    if not is_uuid(id):
        raise Invalid("Security group id should be uuid")
    return id


def _rule(rule: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """One of networking's rules in compute's words."""
    protocol, low, high = rule["protocol"], rule["port_range_min"], rule["port_range_max"]
    if protocol and low is None and high is None:
        low, high = (1, 65535) if protocol.upper() in ("TCP", "UDP") else (-1, -1)
    remote = rule["remote_group_id"]
    everybody = "0.0.0.0/0" if rule["ethertype"] == "IPv4" else "::/0"
    return {
        "id": rule["id"],
        "parent_group_id": rule["security_group_id"],
        "ip_protocol": protocol,
        "from_port": low,
        "to_port": high,
        "group": {"name": names.get(remote, remote), "tenant_id": rule["project_id"]} if remote else {},
        "ip_range": {} if remote else {"cidr": rule["remote_ip_prefix"] or everybody},
    }


def _group(group: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    rules = [_rule(rule, names) for rule in group["security_group_rules"] if rule["direction"] == "ingress"]
    return {
        "id": group["id"],
        "name": group["name"],
        "description": group["description"],
        "tenant_id": group["project_id"],
        "rules": rules,
    }


async def _names(ctx: Ctx) -> dict[str, str]:
    return {group["id"]: group["name"] for group in await _all(ctx)}


async def _all(ctx: Ctx) -> list[dict[str, Any]]:
    query = urlencode({"project_id": ctx.caller.project_id or ""})
    if ctx.caller.is_admin and ctx.request.query.get("all_tenants") in ("1", "True", "true"):
        query = ""
    groups: list[dict[str, Any]] = (await _ask(ctx, "GET", "/v2.0/security-groups", query=query))["security_groups"]
    return groups


async def list_groups(ctx: Ctx) -> Any:
    """List the project's security groups."""
    groups = await _all(ctx)
    names = {group["id"]: group["name"] for group in groups}
    return {"security_groups": [_group(group, names) for group in groups]}


async def show_group(ctx: Ctx, id: str) -> Any:
    """Show one security group."""
    group = (await _ask(ctx, "GET", f"/v2.0/security-groups/{_checked(id)}"))["security_group"]
    return {"security_group": _group(group, await _names(ctx))}


async def create_group(ctx: Ctx, body: GroupBody) -> Any:
    """Make a security group."""
    wanted = {"name": body.security_group.name, "description": body.security_group.description or ""}
    group = (await _ask(ctx, "POST", "/v2.0/security-groups", {"security_group": wanted}))["security_group"]
    return {"security_group": _group(group, {})}


async def update_group(ctx: Ctx, id: str, body: GroupBody) -> Any:
    """Change a security group's name and description."""
    wanted = {"name": body.security_group.name, "description": body.security_group.description or ""}
    path = f"/v2.0/security-groups/{_checked(id)}"
    group = (await _ask(ctx, "PUT", path, {"security_group": wanted}))["security_group"]
    return {"security_group": _group(group, await _names(ctx))}


async def delete_group(ctx: Ctx, id: str) -> Response:
    """Delete a security group."""
    await _ask(ctx, "DELETE", f"/v2.0/security-groups/{_checked(id)}")
    return Response(202)


def _port(value: int | str | None, name: str) -> int | None:
    try:
        number = None if value is None or value == "" else int(value)
    except ValueError:
        raise Invalid(f"Invalid input for {name}: '{value}' is not a number.") from None
    return None if number == -1 else number


async def create_rule(ctx: Ctx, body: RuleBody) -> Any:
    """Let traffic in."""
    given = body.security_group_rule
    wanted: dict[str, Any] = {
        "security_group_id": _checked(given.parent_group_id),
        "direction": "ingress",
        "ethertype": "IPv6" if given.cidr and ":" in given.cidr else "IPv4",
        "protocol": given.ip_protocol.lower() if given.ip_protocol else None,
        "port_range_min": _port(given.from_port, "from_port"),
        "port_range_max": _port(given.to_port, "to_port"),
    }
    if given.group_id:
        wanted["remote_group_id"] = _checked(given.group_id)
    else:
        wanted["remote_ip_prefix"] = given.cidr or "0.0.0.0/0"
    reply = await _ask(ctx, "POST", "/v2.0/security-group-rules", {"security_group_rule": wanted})
    names = await _names(ctx) if given.group_id else {}
    return {"security_group_rule": _rule(reply["security_group_rule"], names)}


async def delete_rule(ctx: Ctx, id: str) -> Response:
    """Take a rule away."""
    await _ask(ctx, "DELETE", f"/v2.0/security-group-rules/{_checked(id)}")
    return Response(202)


ALL, ONE = "/v2.1/os-security-groups", "/v2.1/os-security-groups/{id}"
endpoints = [
    Endpoint("GET", ALL, list_groups, GET, until=LAST),
    Endpoint("POST", ALL, create_group, CREATE, GroupBody, until=LAST),
    Endpoint("GET", ONE, show_group, SHOW, until=LAST),
    Endpoint("PUT", ONE, update_group, UPDATE, GroupBody, until=LAST),
    Endpoint("DELETE", ONE, delete_group, DELETE, until=LAST),
    Endpoint("POST", "/v2.1/os-security-group-rules", create_rule, ADD_RULE, RuleBody, until=LAST),
    Endpoint("DELETE", "/v2.1/os-security-group-rules/{id}", delete_rule, REMOVE_RULE, until=LAST),
]
