"""Routers of the `linux` dataplane by real packets: address translation, floating IPs, routes, metadata."""

import asyncio
import socket
import subprocess
from pathlib import Path

from msgspec.structs import replace

from cumulet.services.network.drivers import FloatingIp, Route, RouterInterface, Subnet
from cumulet.services.network.drivers.linux import LinuxDataplane, namespace
from tests.drivers.dataplane_guest import ANSWERED_WITHIN, REFUSED_AFTER, ip, ping, talks, until
from tests.drivers.dataplane_site import (
    Site,
    connects,
    external_network,
    from_host,
    make_network,
    make_port,
    make_router,
    new_id,
    real,
)


@real
async def test_snat_out_and_floating_ip_both_ways(site: Site) -> None:
    external, network = external_network(), make_network(make_port("10.0.0.5"), make_port("10.0.0.6"))
    await site.driver.ensure_network(external)
    await site.driver.ensure_network(network)
    router = make_router(network, external, "172.24.4.10", FloatingIp(new_id(), "172.24.4.50", "10.0.0.5"))
    await site.driver.ensure_router(router)
    named, hidden = [await site.guest(network, index, "10.0.0.1") for index in range(2)]
    listener = await named.listen(22)
    outside = hidden.keep(socket.create_server(("172.24.4.1", 8000)))
    outside.settimeout(ANSWERED_WITHIN)
    for guest, source in ((hidden, "172.24.4.10"), (named, "172.24.4.50")):
        (await guest.connect("172.24.4.1", 8000)).close()
        accepted, origin = outside.accept()
        accepted.close()
        assert origin[0] == source
    assert await from_host(lambda: connects("172.24.4.50", 22))
    assert await from_host(lambda: ping("172.24.4.50"))
    assert await hidden.reaches("172.24.4.50", 22), "a floating IP is reached from behind the same router"
    assert await named.reaches("172.24.4.50", 22), "and from itself"
    where = ("172.24.4.50", 22)
    client = named.keep(await namespace.in_thread(lambda: socket.create_connection(where, ANSWERED_WITHIN)))
    far = next(far for far in iter(lambda: named.accept(listener), None) if far.getpeername() == client.getsockname())
    assert talks(client, far)
    await site.driver.ensure_router(replace(router, floating_ips=()))
    assert not talks(far, client, REFUSED_AFTER)
    assert not talks(client, far, REFUSED_AFTER), "a floating IP that goes takes its flows with it"
    assert not await from_host(lambda: connects("172.24.4.50", 22, REFUSED_AFTER))
    await site.driver.ensure_router(router)
    assert await from_host(lambda: connects("172.24.4.50", 22))


@real
async def test_a_floating_ip_moves_to_another_router_and_they_reach_each_other(site: Site) -> None:
    external = external_network()
    ours, theirs = make_network(make_port("10.0.0.5")), make_network(make_port("10.0.0.5"))
    for network in (external, ours, theirs):
        await site.driver.ensure_network(network)
    one = make_router(ours, external, "172.24.4.10", FloatingIp(new_id(), "172.24.4.50", "10.0.0.5"))
    two = make_router(theirs, external, "172.24.4.11", FloatingIp(new_id(), "172.24.4.51", "10.0.0.5"))
    await asyncio.gather(site.driver.ensure_router(one), site.driver.ensure_router(two))
    first, second = await site.guest(ours, 0, "10.0.0.1"), await site.guest(theirs, 0, "10.0.0.1")
    assert await first.pings("172.24.4.51")
    assert await second.pings("172.24.4.50")
    await first.listen(1001)
    await second.listen(1002)
    assert await from_host(lambda: connects("172.24.4.50", 1001))
    await site.driver.ensure_router(replace(one, floating_ips=()))
    more = (*two.floating_ips, FloatingIp(new_id(), "172.24.4.50", "10.0.0.5"))
    await site.driver.ensure_router(replace(two, floating_ips=more))
    assert await from_host(lambda: connects("172.24.4.50", 1002))


@real
async def test_legs_and_routes_follow_the_router(site: Site) -> None:
    external = external_network()
    left, right = make_network(make_port("10.0.0.5")), make_network(make_port("10.1.0.5"), net="10.1.0")
    for network in (external, left, right):
        await site.driver.ensure_network(network)
    single = make_router(left, external, "172.24.4.10")
    second_leg = RouterInterface(new_id(), right.id, "fa:16:3f:00:00:99", ("10.1.0.1/24",))
    double = replace(single, interfaces=(*single.interfaces, second_leg), routes=(Route("192.0.2.0/24", "10.1.0.5"),))
    await site.driver.ensure_router(double)
    one, two = await site.guest(left, 0, "10.0.0.1"), await site.guest(right, 0, "10.1.0.1")
    ip("-n", two.name, "addr", "add", "192.0.2.7/32", "dev", "lo")
    assert await one.pings("10.1.0.5")
    routes = ip("-n", f"{site.prefix}-r-{double.id}", "route")
    assert "192.0.2.0/24 via 10.1.0.5" in routes
    await site.driver.ensure_router(single)
    assert not await one.pings("10.1.0.5", REFUSED_AFTER)
    assert "192.0.2.0/24" not in ip("-n", f"{site.prefix}-r-{double.id}", "route")
    await site.driver.ensure_router(double)
    assert await one.pings("10.1.0.5")
    await site.driver.ensure_router(replace(double, admin_state_up=False))
    assert not await one.pings("10.1.0.5", REFUSED_AFTER)


@real
async def test_metadata_is_reached_and_sees_who_asks(site: Site) -> None:
    network = make_network(make_port("10.0.0.5"), make_port("10.0.0.6"))
    bare = replace(
        make_network(make_port("10.3.0.5"), net="10.3.0"), subnets=(Subnet("s", "10.3.0.0/24", "10.3.0.1", None),)
    )
    external = external_network()
    for one in (external, network, bare):
        await site.driver.ensure_network(one)
    await site.driver.ensure_router(make_router(network, external, "172.24.4.10"))
    await site.driver.ensure_router(make_router(bare, external, "172.24.4.11", gateway="10.3.0.1"))
    direct, routed, other = (
        await site.guest(network, 0),
        await site.guest(network, 1, "10.0.0.1"),
        await site.guest(bare, 0, "10.3.0.1"),
    )
    ip("-n", direct.name, "route", "add", "169.254.169.254", "via", "10.0.0.2")
    for on, guest, how in (
        (network, direct, "option 121"),
        (network, routed, "default route"),
        (bare, other, "no DHCP"),
    ):
        listener = await site.driver.metadata_socket(on.id)
        assert not listener.getblocking()
        listener.settimeout(ANSWERED_WITHIN)
        peer = await guest.connect("169.254.169.254", 80)
        accepted, source = listener.accept()
        assert source[0] == guest.address, how
        for each in (peer, accepted, listener):
            each.close()
    again = [await site.driver.metadata_socket(network.id) for _ in range(2)]
    for listener in again:
        listener.close()


@real
async def test_a_guest_makes_its_ipv6_address_and_finds_the_way_out(site: Site) -> None:
    subnet = Subnet("s", "fd00:1::/64", "fd00:1::1", "fd00:1::2", ipv6_mode="slaac")
    port = make_port("fd00:1::f816:3eff:fe00:5")
    network = replace(make_network(replace(port, mac="fa:16:3e:00:00:05")), subnets=(subnet,))
    external = external_network()
    for one in (external, network):
        await site.driver.ensure_network(one)
    router = make_router(network, external, "172.24.4.10")
    leg = replace(router.interfaces[0], addresses=("fd00:1::1/64",))
    await site.driver.ensure_router(replace(router, interfaces=(leg,)))
    guest = await site.guest(network, configure=False)

    async def ready() -> bool:
        state = ip("-n", guest.name, "-6", "addr") + ip("-n", guest.name, "-6", "route", "show", "default")
        return "fd00:1::f816:3eff:fe00:5" in state and "default via fe80:" in state

    await until("an address and a default route by advertisement", ready)
    routes = ip("-n", guest.name, "-6", "route", "show", "default")
    assert routes.count("via fe80:") == 1, "the router is the way out, and br0 is not"
    assert await guest.pings("fd00:1::1")


@real
async def test_the_world_sees_the_host_where_it_masquerades(site: Site, tmp_path: Path) -> None:
    """Nothing of the host is switched on: it forwards here because the test has it so."""
    external, network = external_network(), make_network(make_port("10.0.0.5"))
    hiding = LinuxDataplane(tmp_path / "dataplane", site.prefix, f"x{site.prefix}", masquerade=True)
    for one in (external, network):
        await hiding.ensure_network(one)
    await hiding.ensure_router(make_router(network, external, "172.24.4.10"))
    guest = await site.guest(network, 0, "10.0.0.1")
    world = f"{site.prefix}-g-world"
    ip("netns", "add", world)
    ip("link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", world)
    for words in ("link set up0 up", "addr add 198.51.100.1/24 dev up0"):
        ip(*words.split())
    for words in ("link set eth0 up", "addr add 198.51.100.2/24 dev eth0"):
        ip("-n", world, *words.split())
    try:
        assert not await guest.pings("198.51.100.2", REFUSED_AFTER), "the host does not forward"
        await namespace.in_thread(lambda: namespace.write_sysctl({"ipv4/ip_forward": "1"}))
        assert not await guest.pings("198.51.100.2", REFUSED_AFTER), "the world has no way back"
        await hiding.ensure_network(external)
        assert await guest.pings("198.51.100.2")
    finally:
        await namespace.in_thread(lambda: namespace.write_sysctl({"ipv4/ip_forward": "0"}))
        ip("link", "del", "up0")
        ip("netns", "del", world)
    await hiding.remove_all()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)  # noqa: ASYNC221
    assert tables.stdout == ""


@real
async def test_a_bridge_that_was_there_before_is_used_and_left(site: Site) -> None:
    bridge, external = f"x{site.prefix}", external_network()
    ip("link", "add", bridge, "type", "bridge")
    ip("addr", "add", "192.0.2.1/24", "dev", bridge)
    await site.driver.ensure_network(external)
    await site.driver.ensure_network(replace(external, subnets=()))
    assert "172.24.4.1" not in ip("addr", "show", bridge)
    await site.driver.ensure_network(external)
    assert "172.24.4.1/24" in ip("addr", "show", bridge)
    await site.driver.remove_all()
    left = ip("addr", "show", bridge)
    assert "192.0.2.1/24" in left
    assert "172.24.4.1" not in left
    ip("link", "del", bridge)
