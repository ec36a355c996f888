"""Further addresses on a server's cards, as compute's API had it before 2.44: passed on to networking.

POST /servers/{id}/action: addFixedIp, removeFixedIp
"""

from typing import Annotated, Any
from urllib.parse import urlencode

from msgspec import Meta, Struct

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER
from cumulet.core.errors import Invalid
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.passing_on import ask
from cumulet.services.compute.server.resource import Server
from cumulet.services.compute.server.state import check_lock, get_server

ADD, REMOVE = "os_compute_api:os-multinic:add", "os_compute_api:os-multinic:remove"
RULES = {ADD: ADMIN_OR_OWNER_MEMBER, REMOVE: ADMIN_OR_OWNER_MEMBER}
LAST = (2, 43)


class Add(Struct, forbid_unknown_fields=True, rename="camel"):
    network_id: Annotated[str, Meta(min_length=1, max_length=255)] | int


class Remove(Struct, forbid_unknown_fields=True):
    address: Annotated[str, Meta(min_length=2, max_length=64)]


async def _ports(ctx: Ctx, id: str, **more: str) -> list[dict[str, Any]]:
    server: Server = await ctx.service.kernel.db.read_inline(get_server, ctx, id)
    check_lock(ctx, server)
    query = urlencode({"device_id": id, **more})
    ports: list[dict[str, Any]] = (await ask(ctx, "network", "GET", "/v2.0/ports", query=query))["ports"]
    return ports


async def _set(ctx: Ctx, id: str, port: dict[str, Any], fixed_ips: list[dict[str, Any]]) -> Response:
    await ask(ctx, "network", "PUT", f"/v2.0/ports/{port['id']}", {"port": {"fixed_ips": fixed_ips}})
    await ctx.service.addresses.refresh([id])
    return Response(202)


async def add_fixed_ip(ctx: Ctx, id: str, body: Add) -> Response:
    """Give the server's card on a network one more address."""
    network = str(body.network_id)
    ports = await _ports(ctx, id, network_id=network)
    query = urlencode({"network_id": network})
    subnets = (await ask(ctx, "network", "GET", "/v2.0/subnets", query=query))["subnets"]
    if not ports or not subnets:
        raise Invalid(f"Network {network} is not a network of instance {id}.")
    return await _set(ctx, id, ports[0], [*ports[0]["fixed_ips"], {"subnet_id": subnets[0]["id"]}])


async def remove_fixed_ip(ctx: Ctx, id: str, body: Remove) -> Response:
    """Take an address from a server."""
    for port in await _ports(ctx, id):
        left = [fixed for fixed in port["fixed_ips"] if fixed["ip_address"] != body.address]
        if len(left) < len(port["fixed_ips"]):
            return await _set(ctx, id, port, left)
    raise Invalid(f"Fixed IP {body.address} not found on instance {id}.")


ACTION = "/v2.1/servers/{id}/action"
endpoints = [
    Endpoint("POST", ACTION, add_fixed_ip, ADD, Add, action="addFixedIp", until=LAST),
    Endpoint("POST", ACTION, remove_fixed_ip, REMOVE, Remove, action="removeFixedIp", until=LAST),
]
