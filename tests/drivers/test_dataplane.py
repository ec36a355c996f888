"""The dataplane drivers: one contract for all, and for `linux` real packets.

Everything happens in a network namespace of the test run's own, which stands for the host.
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from msgspec import json
from msgspec.structs import replace

from cumulet.services.network.drivers import (
    Dataplane,
    DataplaneError,
    FloatingIp,
    Observed,
    Port,
    Route,
    Rule,
    SecurityGroup,
    Subnet,
)
from cumulet.services.network.drivers.linux import LinuxDataplane, namespace
from cumulet.services.network.drivers.linux.dhcp import running
from cumulet.services.network.drivers.linux.filter import tap_name
from cumulet.services.network.drivers.simulated import SimulatedDataplane
from tests.drivers.dataplane_guest import (
    ANSWERED_WITHIN,
    REFUSED_AFTER,
    REFUSED_TRIES,
    advertisement_frame,
    arp_frame,
    dhcp,
    dns,
    ip,
    patience,
    ping,
    seen,
    talks,
    udp_frame,
)
from tests.drivers.dataplane_site import (
    ANY_OUT,
    CLOSED,
    LINUX,
    OPEN,
    PING_IN,
    SSH_IN,
    Site,
    external_network,
    from_host,
    make_network,
    make_port,
    make_router,
    new_id,
    real,
)


@pytest.fixture(params=[pytest.param("linux", marks=LINUX), "simulated"])
def driver(request: pytest.FixtureRequest) -> Dataplane:
    if request.param == "linux":
        found: Dataplane = request.getfixturevalue("linux")
        return found
    return SimulatedDataplane()


# -- the contract, every driver ------------------------------------------------------------------------------------


async def test_networks_and_routers_are_ensured_observed_and_removed(driver: Dataplane) -> None:
    await driver.start()
    network, external = make_network(make_port("10.0.0.5")), external_network()
    router = make_router(network, external, "172.24.4.10")
    for _ in range(2):
        await driver.ensure_network(external)
        await driver.ensure_network(network)
        await driver.ensure_router(router)
    found = await driver.observe()
    assert found == Observed(frozenset({network.id, external.id}), frozenset({router.id}), frozenset())
    for _ in range(2):
        await driver.remove_router(router.id)
        await driver.remove_network(network.id)
        await driver.remove_network(external.id)
    found = await driver.observe()
    assert not found.networks | found.routers | found.taps
    await driver.stop()


async def test_a_router_needs_its_networks(driver: Dataplane) -> None:
    network, external = make_network(), external_network()
    with pytest.raises(DataplaneError, match=network.id):
        await driver.ensure_router(make_router(network, external, "172.24.4.10"))


async def test_what_is_not_there_is_removed_without_effect_and_not_opened(driver: Dataplane) -> None:
    await driver.remove_network(new_id())
    await driver.remove_router(new_id())
    with pytest.raises(DataplaneError):
        await driver.open_tap(new_id(), new_id(), "fa:16:3e:00:00:01")
    with pytest.raises(DataplaneError):
        await driver.metadata_socket(new_id())


async def test_remove_all_forgets_everything(driver: Dataplane) -> None:
    await driver.ensure_network(external_network())
    await driver.ensure_network(make_network(make_port("10.0.0.5")))
    await driver.remove_all()
    found = await driver.observe()
    assert not found.networks | found.routers


# -- real packets --------------------------------------------------------------------------------------------------


@real
async def test_dhcp_gives_known_ports_their_address_and_routes(site: Site) -> None:
    subnet = Subnet("s", "10.0.0.0/24", "10.0.0.1", "10.0.0.2", host_routes=(Route("10.9.0.0/16", "10.0.0.9"),))
    network = replace(
        make_network(make_port("10.0.0.5", hostname="web"), make_port("10.0.0.6", CLOSED)), subnets=(subnet,), mtu=1442
    )
    await site.driver.ensure_network(network)
    guest = await site.guest(network, configure=False)
    lease = await guest.call(lambda: dhcp(guest.port.mac))
    assert socket.inet_ntoa(lease["address"]) == "10.0.0.5"
    assert (lease[3], lease[6], lease[12]) == (socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2"), b"web")
    assert int.from_bytes(lease[26], "big") == 1442
    assert lease[121] == (
        bytes([32, 169, 254, 169, 254, 10, 0, 0, 2]) + bytes([16, 10, 9, 10, 0, 0, 9]) + bytes([0, 10, 0, 0, 1])
    )
    closed = await site.guest(network, 1, configure=False)
    assert socket.inet_ntoa((await closed.call(lambda: dhcp(closed.port.mac)))["address"]) == "10.0.0.6"


@real
async def test_a_new_port_is_served_at_once_and_a_moved_address_too(site: Site) -> None:
    network = make_network(make_port("10.0.0.5"))
    await site.driver.ensure_network(network)
    first = await site.guest(network, configure=False)
    await first.call(lambda: dhcp(first.port.mac))
    stranger = make_port("10.0.0.5")
    await site.driver.ensure_network(moved := replace(network, ports=(stranger,)))
    second = await site.guest(moved, configure=False)
    assert socket.inet_ntoa((await second.call(lambda: dhcp(stranger.mac)))["address"]) == "10.0.0.5"
    with pytest.raises(TimeoutError):
        await first.call(lambda: dhcp(first.port.mac, REFUSED_TRIES))
    await site.driver.ensure_network(grown := replace(network, ports=(stranger, make_port("10.0.0.7"))))
    third = await site.guest(grown, 1, configure=False)
    assert socket.inet_ntoa((await third.call(lambda: dhcp(third.port.mac)))["address"]) == "10.0.0.7"


@real
async def test_dns_answers_for_the_ports(site: Site) -> None:
    network = make_network(make_port("10.0.0.5", hostname="web"))
    await site.driver.ensure_network(network)
    guest = await site.guest(network)
    for name in ("host-10-0-0-5.openstacklocal", "web.openstacklocal", "web"):
        assert await guest.call(lambda name=name: dns("10.0.0.2", name)) == "10.0.0.5"  # type: ignore[misc]


@real
async def test_group_rules_decide_both_ways(site: Site) -> None:
    web = SecurityGroup(new_id(), (SSH_IN, PING_IN))
    network = make_network(
        make_port("10.0.0.5"), make_port("10.0.0.6", web), make_port("10.0.0.7", CLOSED), groups=(OPEN, CLOSED, web)
    )
    await site.driver.ensure_network(network)
    opened, guarded, closed = [await site.guest(network, index) for index in range(3)]
    await guarded.listen(22)
    await guarded.listen(80)
    await closed.listen(22)
    await opened.listen(22)
    assert await opened.pings("10.0.0.6")
    assert await opened.reaches("10.0.0.6", 22)
    assert not await opened.reaches("10.0.0.6", 80, REFUSED_AFTER)
    assert not await opened.pings("10.0.0.7", REFUSED_AFTER), "ingress is denied by default"
    assert not await opened.reaches("10.0.0.7", 22, REFUSED_AFTER)
    assert not await guarded.reaches("10.0.0.5", 22, REFUSED_AFTER), "no egress rule, no egress"
    assert not await guarded.pings("10.0.0.5", REFUSED_AFTER)
    assert await closed.reaches("10.0.0.5", 22)
    assert await closed.pings("10.0.0.5")


@real
async def test_a_remote_restricts_who_may_come(site: Site) -> None:
    some = SecurityGroup(
        new_id(), (*ANY_OUT, Rule("ingress", "IPv4", remote=("10.0.0.5", "10.0.0.64/26"), remote_given=True))
    )
    nobody = SecurityGroup(new_id(), (*ANY_OUT, Rule("ingress", "IPv4", remote_given=True)))
    ports = (
        make_port("10.0.0.5"),
        make_port("10.0.0.6"),
        make_port("10.0.0.70"),
        make_port("10.0.0.7", some),
        make_port("10.0.0.8", nobody),
    )
    network = make_network(*ports, groups=(OPEN, some, nobody))
    await site.driver.ensure_network(network)
    guests = [await site.guest(network, index) for index in range(5)]
    for guest, answered in zip(guests, (True, False, True), strict=False):
        assert await guest.pings("10.0.0.7", patience(answered)) is answered, guest.address
    assert not await guests[0].pings("10.0.0.8", REFUSED_AFTER)
    assert await guests[4].pings("10.0.0.5"), "replies to what it asked reach even whom nobody may ask"


@real
async def test_a_removed_rule_cuts_its_flow_and_adding_it_again_lets_in(site: Site) -> None:
    admin = SecurityGroup(
        new_id(), (*ANY_OUT, SSH_IN, Rule("ingress", "IPv4", "tcp", 80, 80), Rule("ingress", "IPv4", "udp", 53, 53))
    )
    network = make_network(make_port("10.0.0.5"), make_port("10.0.0.6", admin), groups=(OPEN, admin))
    await site.driver.ensure_network(network)
    client, server = await site.guest(network, 0), await site.guest(network, 1)
    pairs = []
    for number in (22, 80):
        listener = await server.listen(number)
        near = await client.connect("10.0.0.6", number)
        pairs.append((near, server.accept(listener)))
    assert all([talks(near, far) for near, far in pairs] + [talks(far, near) for near, far in pairs])
    less = replace(
        network,
        security_groups=(OPEN, SecurityGroup(admin.id, tuple(rule for rule in admin.rules if rule is not SSH_IN))),
    )
    await site.driver.ensure_network(less)
    (ssh_near, ssh_far), (web_near, web_far) = pairs
    assert not talks(ssh_far, ssh_near, REFUSED_AFTER), "the reply direction is cut"
    assert not talks(ssh_near, ssh_far, REFUSED_AFTER), (
        "the original direction is cut, and the guest's own packet did not open it again"
    )
    assert talks(web_near, web_far)
    assert talks(web_far, web_near), "flows that are still allowed go on"
    assert not await client.reaches("10.0.0.6", 22, REFUSED_AFTER)
    await site.driver.ensure_network(network)
    assert await client.reaches("10.0.0.6", 22)


@real
async def test_a_removed_rule_cuts_udp_and_forgets_it(site: Site) -> None:
    names = SecurityGroup(new_id(), (*ANY_OUT, Rule("ingress", "IPv4", "udp", 53, 53)))
    network = make_network(make_port("10.0.0.5"), make_port("10.0.0.6", names), groups=(OPEN, CLOSED, names))
    await site.driver.ensure_network(network)
    client, server = await site.guest(network, 0), await site.guest(network, 1)
    near, far = await client.listen(53, socket.SOCK_DGRAM), await server.listen(53, socket.SOCK_DGRAM)
    near.connect(("10.0.0.6", 53))
    far.connect(("10.0.0.5", 53))
    assert talks(near, far)
    assert talks(far, near)
    port = network.ports[1]
    shut = Port(port.id, port.mac, port.fixed_ips, (CLOSED.id,))
    await site.driver.ensure_network(replace(network, ports=(network.ports[0], shut)))
    assert not talks(near, far, REFUSED_AFTER)
    assert talks(far, near), "what the guest opens itself, between the same ports, is a flow of its own"
    assert talks(near, far), "and is answered"


@real
async def test_false_addresses_are_dropped(site: Site) -> None:
    network = make_network(make_port("10.0.0.5"), make_port("10.0.0.6"))
    await site.driver.ensure_network(network)
    liar, witness = await site.guest(network, 0), await site.guest(network, 1)
    own, other, target = liar.port.mac, "fa:16:3e:ba:dd:ad", witness.port.mac
    sniffer = await witness.sniffer()
    cases = {
        b"true-ip": (udp_frame(own, "10.0.0.5", "10.0.0.6", b"true-ip", target), True),
        b"false-ip": (udp_frame(own, "10.0.0.77", "10.0.0.6", b"false-ip", target), False),
        b"false-mac": (udp_frame(other, "10.0.0.5", "10.0.0.6", b"false-mac", target), False),
        b"tagged": (bytes(frame := bytearray(udp_frame(own, "10.0.0.5", "10.0.0.6", b"tagged", target)))[:12]
                    + b"\x81\x00\x00\x05" + bytes(frame[12:]), False),
    }  # fmt: skip
    for needle, (sent, arrives) in cases.items():
        await liar.send_frames(sent)
        assert seen(sniffer, needle, patience(arrives)) is arrives, needle
    for mac, sender_mac, sender, arrives in (
        (own, own, "10.0.0.5", True),
        (own, own, "10.0.0.1", False),
        (own, other, "10.0.0.5", False),
        (other, other, "10.0.0.5", False),
    ):
        await liar.send_frames(body := arp_frame(mac, sender_mac, sender, "10.0.0.6"))
        assert seen(sniffer, body[14:42], patience(arrives)) is arrives, (mac, sender_mac, sender)


@real
async def test_false_ipv6_neighbours_are_dropped(site: Site) -> None:
    pairs = (("fd00::40/122", ""), ("10.0.0.7", ""))
    network = make_network(make_port("fd00::5", allowed_address_pairs=pairs), make_port("fd00::6"))
    await site.driver.ensure_network(network)
    liar, witness = [await site.guest(network, index, configure=False) for index in range(2)]
    sniffer, mac = await witness.sniffer(), liar.port.mac
    for claimed, arrives in (("fd00::5", True), ("fd00::1", False), ("fd00::47", True), ("fd00::80", False)):
        frame = advertisement_frame(mac, "fd00::5", "ff02::1", claimed)
        await liar.send_frames(frame)
        assert seen(sniffer, frame[14:], patience(arrives)) is arrives, claimed


@real
async def test_allowed_address_pairs_and_unsecured_ports_may_use_more(site: Site) -> None:
    pair = make_port("10.0.0.5", allowed_address_pairs=(("10.0.0.64/28", "fa:16:3e:00:aa:aa"), ("10.0.0.0/29", "")))
    free = make_port("10.0.0.6", None, port_security=False)
    network = make_network(pair, free, make_port("10.0.0.7"))
    await site.driver.ensure_network(network)
    paired, unsecured, witness = [await site.guest(network, index) for index in range(3)]
    sniffer = await witness.sniffer()
    target = witness.port.mac
    for guest, mac, address, arrives in (
        (paired, "fa:16:3e:00:aa:aa", "10.0.0.70", True),
        (paired, pair.mac, "10.0.0.3", True),
        (paired, pair.mac, "10.0.0.70", False),
        (unsecured, "fa:16:3e:00:bb:bb", "192.0.2.1", True),
    ):
        needle = os.urandom(8)
        await guest.send_frames(udp_frame(mac, address, "10.0.0.7", needle, target))
        assert seen(sniffer, needle, patience(arrives)) is arrives, (mac, address)
    assert await witness.pings("10.0.0.6"), "an unsecured port lets in what no group allows"


@real
async def test_a_port_that_is_down_is_cut_off(site: Site) -> None:
    network = make_network(make_port("10.0.0.5"), make_port("10.0.0.6", admin_state_up=False))
    await site.driver.ensure_network(network)
    up, down = await site.guest(network, 0), await site.guest(network, 1)
    assert not await up.pings("10.0.0.6", REFUSED_AFTER)
    assert not await down.pings("10.0.0.5", REFUSED_AFTER)


@real
async def test_equal_networks_are_isolated(site: Site) -> None:
    ours, theirs = (
        make_network(make_port("10.0.0.5"), make_port("10.0.0.6")),
        make_network(make_port("10.0.0.5"), make_port("10.0.0.7")),
    )
    await asyncio.gather(site.driver.ensure_network(ours), site.driver.ensure_network(theirs))
    guests = [await site.guest(network, index) for network in (ours, theirs) for index in range(2)]
    assert await guests[0].pings("10.0.0.6")
    assert not await guests[0].pings("10.0.0.7", REFUSED_AFTER)
    assert await guests[2].pings("10.0.0.7")
    assert not await guests[2].pings("10.0.0.6", REFUSED_AFTER)


@real
async def test_ipv6_is_filtered_too(site: Site) -> None:
    ping6 = SecurityGroup(
        new_id(), (*ANY_OUT, Rule("ingress", "IPv6", "ipv6-icmp", remote=("fd00::5",), remote_given=True))
    )
    ports = (make_port("fd00::5"), make_port("fd00::6", ping6), make_port("fd00::7"))
    subnet = Subnet("s", "fd00::/64", None, "fd00::2", ipv6_mode="slaac")
    network = replace(make_network(*ports, groups=(OPEN, ping6)), subnets=(subnet,))
    await site.driver.ensure_network(network)
    allowed, guarded, other = [await site.guest(network, index, configure=False) for index in range(3)]
    for guest in (allowed, guarded, other):
        ip("-n", guest.name, "addr", "add", f"{guest.address}/64", "dev", "eth0", "nodad")
    assert await allowed.pings("fd00::6")
    assert not await other.pings("fd00::6", REFUSED_AFTER)
    assert await guarded.pings("fd00::7")


@real
async def test_a_restart_adopts_and_interrupts_nothing(site: Site, tmp_path: Path) -> None:
    external, network = external_network(), make_network(make_port("10.0.0.5"), make_port("10.0.0.6"))
    router = make_router(network, external, "172.24.4.10", FloatingIp(new_id(), "172.24.4.50", "10.0.0.5"))
    driver = site.driver
    await driver.ensure_network(external)
    await driver.ensure_network(network)
    await driver.ensure_router(router)
    server = await site.guest(network, 0, "10.0.0.1")
    listener = await server.listen(22)
    client = await namespace.in_thread(lambda: socket.create_connection(("172.24.4.50", 22), ANSWERED_WITHIN))
    far = server.accept(listener)
    serving = running(tmp_path / "dataplane" / "networks" / network.id)
    await driver.stop()
    (tmp_path / "dataplane" / "networks" / network.id / "pid").unlink()  # as if killed before it was written
    fresh = LinuxDataplane(tmp_path / "dataplane", site.prefix, f"x{site.prefix}")
    await fresh.start()
    found = await fresh.observe()
    assert found.networks == {network.id, external.id}
    assert found.routers == {router.id}
    assert talks(client, far)
    await fresh.ensure_network(external)
    await fresh.ensure_network(network)
    await fresh.ensure_router(router)
    assert talks(client, far)
    assert talks(far, client)
    assert running(tmp_path / "dataplane" / "networks" / network.id) == serving is not None
    client.close()


@real
async def test_what_was_destroyed_is_made_again(site: Site, tmp_path: Path) -> None:
    external, network = external_network(), make_network(make_port("10.0.0.5"))
    router = make_router(network, external, "172.24.4.10", FloatingIp(new_id(), "172.24.4.50", "10.0.0.5"))
    for one in (external, network):
        await site.driver.ensure_network(one)
    await site.driver.ensure_router(router)
    directory = tmp_path / "dataplane" / "networks" / network.id
    old = running(directory)
    assert old is not None
    os.kill(old, 9)
    ip("netns", "del", f"{site.prefix}-n-{network.id}")
    (namespace.DIRECTORY / f"{site.prefix}-n-{network.id}").touch()  # the making of it was cut short
    await site.driver.ensure_network(network)
    await site.driver.ensure_router(router)
    guest = await site.guest(network, 0, "10.0.0.1")
    assert await guest.pings("172.24.4.1")
    assert running(directory) not in (None, old)


# -- taps ----------------------------------------------------------------------------------------------------------


@real
async def test_a_tap_lives_as_long_as_it_is_held(site: Site) -> None:
    network = make_network(port := make_port("10.0.0.5"))
    await site.driver.ensure_network(network)
    descriptor = await site.driver.open_tap(network.id, port.id, port.mac)
    assert (await site.driver.observe()).taps == {port.id}
    assert "master br0" in ip("-n", f"{site.prefix}-n-{network.id}", "link", "show", tap_name(port.id))
    with pytest.raises(DataplaneError, match="held by another process"):
        await site.driver.open_tap(network.id, port.id, port.mac)
    await site.driver.ensure_network(external := external_network())
    with pytest.raises(DataplaneError, match="through a router"):
        await site.driver.open_tap(external.id, port.id, port.mac)
    with pytest.raises(DataplaneError, match="not ensured with it"):
        await site.driver.open_tap(network.id, new_id(), port.mac)
    os.close(descriptor)
    assert (await site.driver.observe()).taps == set()
    held = await site.driver.open_tap(network.id, port.id, port.mac)
    await site.driver.remove_network(network.id)
    os.close(held)


@real
async def test_cancelled_work_goes_on_to_its_end_and_drops_what_nobody_takes(site: Site) -> None:
    network = make_network(port := make_port("10.0.0.5"))
    await site.driver.ensure_network(network)
    task = asyncio.create_task(site.driver.open_tap(network.id, port.id, port.mac))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await site.driver.stop()
    assert (await site.driver.observe()).taps == set()
    assert threading.active_count() < 20


# -- crashes -------------------------------------------------------------------------------------------------------

CRASHING = """
import asyncio, sys
from pathlib import Path
from msgspec import json
from cumulet.services.network.drivers import Network, Router
from cumulet.services.network.drivers.linux import LinuxDataplane

async def main():
    directory, prefix = sys.argv[1:3]
    networks = [json.decode(text, type=Network) for text in sys.argv[4:]]
    router = json.decode(sys.argv[3], type=Router)
    driver = LinuxDataplane(Path(directory), prefix, "x" + prefix)
    await driver.start()
    print("ready", flush=True)
    while True:
        for network in networks:
            await driver.ensure_network(network)
        await driver.ensure_router(router)
        await driver.remove_router(router.id)
        for network in reversed(networks):
            await driver.remove_network(network.id)

asyncio.run(main())
"""


@real
async def test_killed_at_any_moment_it_recovers_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    external, network = external_network(), make_network(make_port("10.0.0.5"), make_port("10.0.0.6"))
    router = make_router(network, external, "172.24.4.10", FloatingIp(new_id(), "172.24.4.50", "10.0.0.5"))
    specs = [json.encode(spec).decode() for spec in (router, external, network)]
    arguments = [sys.executable, "-c", CRASHING, str(tmp_path / "dataplane"), site.prefix, *specs]
    for milliseconds in range(10, 250, 30):
        child = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
        await asyncio.sleep(milliseconds / 1000)  # the moment of the crash, not a wait for anything
        child.kill()
        await child.wait()
        survivor = LinuxDataplane(tmp_path / "dataplane", site.prefix, f"x{site.prefix}")
        await survivor.start()
        for one in (external, network):
            await survivor.ensure_network(one)
        await survivor.ensure_router(router)
        guest = await site.guest(network, 0, "10.0.0.1", configure=False)
        assert socket.inet_ntoa((await guest.call(lambda guest=guest: dhcp(guest.port.mac)))["address"]) == "10.0.0.5"  # type: ignore[misc]
        guest.configure("10.0.0.5", "10.0.0.1")
        assert await from_host(lambda: ping("172.24.4.50"))
        site.remove(guest)
        if milliseconds % 60 == 10:
            await survivor.remove_all()
