"""The dataplane matches the database: the exact specs, after failures and after a crash, and nothing beyond."""

import asyncio
from typing import Any

import msgspec

from cumulet.api.server import Server
from cumulet.core.operations import Operations
from cumulet.services.network import drivers
from cumulet.services.network.realise import NET
from cumulet.services.network.runtime import NetworkRuntime
from tests.services.network.conftest import Net, RecordingDataplane


async def topology(net: Net) -> tuple[Any, Any, Any, Any, str]:
    """(network, subnet, port, router, external network's ID) with a floating IP on the port, in force."""
    public = await net.public()
    network = await net.make("network")
    subnet = await net.make("subnet", network_id=network["id"], cidr="10.0.0.0/24", dns_nameservers=["1.1.1.1"])
    pairs = [{"ip_address": "10.0.0.77"}]
    port = await net.make("port", network_id=network["id"], allowed_address_pairs=pairs)
    router = await net.make("router", external_gateway_info={"network_id": public})
    await net("PUT", f"routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    await net.make("floatingip", floating_network_id=public, port_id=port["id"])
    await net.settle()
    return network, subnet, port, router, public


async def test_the_spec_of_a_network(net: Net) -> None:
    network, subnet, port, _, public = await topology(net)
    (group,) = await net.list("security_group")
    both = [(direction, ip) for ip in ("IPv4", "IPv6") for direction in ("ingress", "egress")]
    inside = {"IPv4": ("10.0.0.2", "10.0.0.77"), "IPv6": ()}
    rules = [
        drivers.Rule(d, ip, remote=inside[ip] if d == "ingress" else (), remote_given=d == "ingress") for d, ip in both
    ]
    spec = net.dataplane.networks[network["id"]]
    assert sorted(spec.security_groups[0].rules, key=str) == sorted(rules, key=str)
    assert msgspec.structs.replace(spec, security_groups=()) == drivers.Network(
        id=network["id"],
        subnets=(drivers.Subnet(subnet["id"], "10.0.0.0/24", "10.0.0.1", "10.0.0.3", ("1.1.1.1",)),),
        ports=(
            drivers.Port(
                port["id"],
                port["mac_address"],
                (drivers.FixedIp(subnet["id"], "10.0.0.2"),),
                (group["id"],),
                (("10.0.0.77", port["mac_address"]),),
            ),
        ),
    )
    outside = net.dataplane.networks[public]
    assert outside.external and outside.subnets[0].gateway_ip == "203.0.113.1" and outside.ports == ()
    assert outside.subnets[0].dhcp_address is None


async def test_the_spec_of_a_router(net: Net) -> None:
    network, subnet, _, router, public = await topology(net)
    (floating,) = await net.list("floatingip")
    (leg,) = await net.list("port", "device_owner=network:router_interface")
    (out,) = await net.list("port", "device_owner=network:router_gateway", token="admin")
    assert net.dataplane.routers == {
        router["id"]: drivers.Router(
            id=router["id"],
            interfaces=(drivers.RouterInterface(leg["id"], network["id"], leg["mac_address"], ("10.0.0.1/24",)),),
            gateway=drivers.RouterInterface(out["id"], public, out["mac_address"], ("203.0.113.2/24",)),
            gateway_nexthops=("203.0.113.1",),
            floating_ips=(drivers.FloatingIp(floating["id"], "203.0.113.3", "10.0.0.2"),),
        )
    }
    assert leg["status"] == (await net.show("port", leg["id"]))["status"] == "ACTIVE"
    (dhcp,) = await net.list("port", "device_owner=network:dhcp")
    assert dhcp["status"] == "ACTIVE" and dhcp["network_id"] == network["id"] and subnet["id"]


async def test_what_is_deleted_leaves_the_host(net: Net) -> None:
    network, subnet, port, router, public = await topology(net)
    (floating,) = await net.list("floatingip")
    for method, path, body in (
        ("DELETE", f"floatingips/{floating['id']}", None),
        ("PUT", f"routers/{router['id']}/remove_router_interface", {"subnet_id": subnet["id"]}),
        ("DELETE", f"routers/{router['id']}", None),
        ("DELETE", f"ports/{port['id']}", None),
        ("DELETE", f"networks/{network['id']}", None),
    ):
        reply = await net(method, path, body)
        assert reply.status in (200, 204), reply.data
    await net.settle()
    assert net.dataplane.routers == {} and set(net.dataplane.networks) == {public}


async def test_members_of_a_group_reach_into_other_networks(net: Net) -> None:
    group = await net.make("security_group", name="db")
    web = await net.make("security_group", name="web")
    values = {"security_group_id": group["id"], "direction": "ingress", "remote_group_id": web["id"]}
    await net.make("security_group_rule", **values)
    one, _ = await net.network("10.0.0.0/24")
    two, _ = await net.network("10.1.0.0/24")
    await net.make("port", network_id=one["id"], security_groups=[group["id"]])
    await net.settle()

    def remote() -> tuple[str, ...]:
        (found,) = net.dataplane.networks[one["id"]].security_groups
        return next(r.remote for r in found.rules if r.direction == "ingress")

    assert remote() == ()
    port = await net.make("port", network_id=two["id"], security_groups=[web["id"]])
    await net.settle()
    assert remote() == (port["fixed_ips"][0]["ip_address"],)
    await net("DELETE", f"ports/{port['id']}")
    await net.settle()
    assert remote() == ()


async def test_a_failing_host_is_tried_again(net: Net) -> None:
    net.dataplane.failures = 1
    network, _ = await net.network()
    await net.make("port", network_id=network["id"])
    await net.settle()
    assert net.dataplane.calls.count(f"network {network['id']}") >= 2
    assert network["id"] in net.dataplane.networks
    assert (await net.show("network", network["id"]))["status"] == "ACTIVE"


async def test_a_leg_has_its_networks_mtu(net: Net) -> None:
    network, subnet = await net.network()
    router = await net.make("router")
    await net("PUT", f"routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    await net.settle()
    await net("PUT", f"networks/{network['id']}", {"network": {"mtu": 1400}})
    await net.settle()
    assert net.dataplane.routers[router["id"]].interfaces[0].mtu == net.dataplane.networks[network["id"]].mtu == 1400


async def test_a_host_that_gives_up_says_so_and_recovers(net: Net) -> None:
    network, _ = await net.network()
    port = await net.make("port", network_id=network["id"])
    await net.settle()
    await net.kernel.db.run(lambda tx: tx.exec_driver_sql("UPDATE network_networks SET status = 'ERROR'"))
    await net("PUT", f"ports/{port['id']}", {"port": {"name": "again"}})
    await net.settle()
    assert (await net.show("network", network["id"]))["status"] == "ACTIVE"


async def test_many_changes_are_made_at_once(net: Net) -> None:
    await net.kernel.operations.stop()
    network, _ = await net.network()
    for _ in range(20):
        await net.make("port", network_id=network["id"])
    queued = await net.kernel.db.read(
        lambda tx: tx.exec_driver_sql(f"SELECT count(*) FROM core_operation WHERE kind = '{NET}'").scalar()
    )
    assert queued == 1


async def test_a_new_life_of_the_program_makes_all_again_and_removes_the_rest(net: Net) -> None:
    await net.kernel.operations.stop()
    public = await net.public()
    network, subnet = await net.network()
    router = await net.make("router", external_gateway_info={"network_id": public})
    await net("PUT", f"routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    assert net.dataplane.networks == {}  # the program died before anything was made

    after = RecordingDataplane()
    await after.ensure_network(drivers.Network("stray"))
    await after.ensure_router(drivers.Router("stray"))
    kernel = msgspec.structs.replace(net.kernel, operations=Operations(net.kernel.db, "test-host"))
    runtime = NetworkRuntime(kernel, after, Server())
    await runtime.start()
    await kernel.operations.start()
    await kernel.operations.idle()
    await kernel.operations.stop()
    assert set(after.networks) == {public, network["id"]} and set(after.routers) == {router["id"]}


async def test_waiting_for_a_network(net: Net) -> None:
    network, _ = await net.network()
    port = await net.make("port", network_id=network["id"])
    await net.runtime.realise([network["id"]])
    assert [p.id for p in net.dataplane.networks[network["id"]].ports] == [port["id"]]


async def test_operations_on_one_network_do_not_overlap(net: Net) -> None:
    on, _ = await net.network()
    await net.make("port", network_id=on["id"])
    inside, most = 0, 0
    original = net.dataplane.ensure_network

    async def slow(network: drivers.Network) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(5):
            await asyncio.sleep(0)
        await original(network)
        inside -= 1

    net.dataplane.ensure_network = slow  # type: ignore[method-assign]
    await asyncio.gather(*(net.runtime.realise([on["id"]]) for _ in range(5)))
    assert most == 1


async def test_what_other_hands_changed_on_the_host_is_mended(net: Net) -> None:
    network, _, _, router, public = await topology(net)
    wanted = {**net.dataplane.networks}, {**net.dataplane.routers}
    del net.dataplane.networks[network["id"]], net.dataplane.routers[router["id"]]
    net.dataplane.networks["stranger"] = net.dataplane.networks[public]
    await net.runtime.realiser.compare()
    await net.settle()
    assert (net.dataplane.networks, net.dataplane.routers) == wanted
    net.dataplane.calls.clear()
    net.dataplane.failures = 1  # something is amiss that a look does not show
    await net.runtime.realiser.compare()
    await net.settle()
    failed = net.dataplane.calls[0]
    assert net.dataplane.calls.count(failed) == 2, "what could not be made is tried again"
    assert (await net.show("network", network["id"]))["status"] == "ACTIVE"


async def test_what_failed_for_good_is_tried_again(net: Net) -> None:
    network, *_ = await topology(net)
    await net.kernel.db.run(lambda tx: tx.exec_driver_sql("UPDATE network_networks SET status='ERROR'"))
    await net.runtime.realiser.compare()
    await net.settle()
    assert (await net.show("network", network["id"]))["status"] == "ACTIVE"
