"""What compute asks of networking: ports for servers, and the events that follow."""

import asyncio
from typing import Any

import pytest

from cumulet.core.errors import Conflict, NotFound, QuotaExceeded
from cumulet.core.types import new_id
from cumulet.services.network.interface import NewPort
from tests.harness import CALLERS
from tests.services.network.conftest import Net

MEMBER, OTHER = CALLERS["member"], CALLERS["other"]


def wish(network_id: str, **values: Any) -> NewPort:
    fixed = {"id": new_id(), "project_id": "project-demo", "device_id": "server-1", "device_owner": "compute:nova"}
    return NewPort(**{**fixed, "network_id": network_id, "hostname": "web", "host": "host-1", **values})


class Heard:
    """The events of networking."""

    def __init__(self, net: Net) -> None:
        self.events: list[tuple[str, Any]] = []
        self.more = asyncio.Event()
        net.kernel.bus.subscribe("network", self._hear)

    async def _hear(self, event: str, payload: Any) -> None:
        self.events.append((event, payload))
        self.more.set()

    async def next(self) -> tuple[str, Any]:
        async with asyncio.timeout(60):
            while not self.events:
                self.more.clear()
                await self.more.wait()
        return self.events.pop(0)


async def test_a_servers_port(net: Net) -> None:
    network, subnet = await net.network(dns_nameservers=["1.1.1.1"])
    heard = Heard(net)
    new = wish(network["id"])
    made = await net.runtime.ensure_port(new)
    assert made == await net.runtime.ensure_port(new)
    assert (made.id, made.network_name, made.mtu, made.status, made.dhcp) == (new.id, "net", 1500, "DOWN", True)
    (fixed,) = made.fixed_ips
    assert (fixed.ip_address, fixed.cidr, fixed.gateway_ip, fixed.dns_nameservers, fixed.subnet_id) == (
        "10.0.0.2", "10.0.0.0/24", "10.0.0.1", ("1.1.1.1",), subnet["id"],
    )  # fmt: skip
    assert made.security_group_names == ("default",)
    assert await heard.next() == ("port.addresses", {"device_ids": ["server-1"]})
    seen = await net.show("port", new.id, token="admin")
    assert seen["binding:host_id"] == "host-1" and seen["binding:vif_type"] == "bridge"
    await net.settle()
    assert net.dataplane.networks[network["id"]].ports[0].hostname == "web"
    await net.runtime.set_port_status([new.id], "ACTIVE")
    assert (await net.show("port", new.id))["status"] == "ACTIVE"
    assert [p.id for p in (await net.runtime.ports_of(["server-1", "x"]))["server-1"]] == [new.id]
    await net.runtime.delete_port(new.id)
    await net.runtime.delete_port(new.id)
    assert await heard.next() == ("port.deleted", {"device_id": "server-1", "port_id": new.id})


async def test_ports_that_cannot_be(net: Net) -> None:
    network, _ = await net.network()
    with pytest.raises(NotFound):
        await net.runtime.ensure_port(wish(new_id()))
    await net.runtime.ensure_port(wish(network["id"], fixed_ip="10.0.0.9"))
    with pytest.raises(Conflict):
        await net.runtime.ensure_port(wish(network["id"], fixed_ip="10.0.0.9"))
    await net("PUT", "quotas/project-demo", {"quota": {"port": 1}}, token="admin")
    with pytest.raises(QuotaExceeded):
        await net.runtime.ensure_port(wish(network["id"]))


async def test_an_own_port_is_lent(net: Net) -> None:
    network, _ = await net.network()
    port = await net.make("port", network_id=network["id"])
    bound = await net.runtime.bind(port["id"], "server-1", "compute:nova", "host-1", "web")
    assert bound.device_id == "server-1"
    with pytest.raises(Conflict):
        await net.runtime.bind(port["id"], "server-2", "compute:nova", "host-1", "web")
    await net.runtime.unbind(port["id"], "server-2")
    assert (await net.show("port", port["id"]))["device_id"] == "server-1"
    await net.runtime.unbind(port["id"], "server-1")
    seen = await net.show("port", port["id"])
    assert (seen["device_id"], seen["device_owner"], seen["status"]) == ("", "", "DOWN")
    assert (await net.runtime.port(MEMBER, port["id"])).id == port["id"]
    with pytest.raises(NotFound):
        await net.runtime.port(OTHER, port["id"])


async def test_floating_addresses_are_told(net: Net) -> None:
    public = await net.public()
    network, subnet = await net.network()
    router = await net.make("router", external_gateway_info={"network_id": public})
    await net("PUT", f"routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    info = await net.runtime.ensure_port(wish(network["id"]))
    heard = Heard(net)
    floating = await net.make("floatingip", floating_network_id=public, port_id=info.id)
    assert (await heard.next())[1] == {"device_ids": ["server-1"]}
    (port,) = (await net.runtime.ports_of(["server-1"]))["server-1"]
    assert port.fixed_ips[0].floating_ips == (floating["floating_ip_address"],)
    await net("PUT", f"floatingips/{floating['id']}", {"floatingip": {"port_id": None}})
    assert (await heard.next())[1] == {"device_ids": ["server-1"]}


async def test_networks_for_servers(net: Net) -> None:
    await net.public()
    empty = await net.make("network", name="empty")
    shared = await net.make("network", token="admin", name="shared", shared=True)
    await net.make("subnet", token="admin", network_id=shared["id"], cidr="10.9.0.0/24")
    assert [n.id for n in await net.runtime.usable_networks(MEMBER)] == [shared["id"]]
    own, _ = await net.network()
    assert [n.id for n in await net.runtime.usable_networks(MEMBER)] == [own["id"]]
    assert (await net.runtime.network(MEMBER, empty["id"])).has_subnets is False
    assert (await net.runtime.network(OTHER, shared["id"])).shared is True
    with pytest.raises(NotFound):
        await net.runtime.network(OTHER, own["id"])


async def test_groups_by_name(net: Net) -> None:
    (default,) = await net.runtime.security_group_ids(MEMBER, "project-demo", ["default"])
    one = await net.make("security_group", name="web")
    assert await net.runtime.security_group_ids(MEMBER, "project-demo", ["web", default]) == [one["id"], default]
    await net.make("security_group", name="web")
    with pytest.raises(Conflict):
        await net.runtime.security_group_ids(MEMBER, "project-demo", ["web"])
    with pytest.raises(NotFound, match="db"):
        await net.runtime.security_group_ids(MEMBER, "project-demo", ["db"])
