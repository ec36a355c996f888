"""What changes a real server while it lives: network cards, images of its disk, a new disk, another size."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import ProcessCloud
from tests.e2e.guests import BOOT, Guest, make_key, wait_for

pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.guest, pytest.mark.clients, pytest.mark.timeout(900)]


class Site:
    """A project's network with SSH let in, behind the external network, and what is made there."""

    def __init__(self, sdk: Any, admin: Any, key: Path) -> None:
        self.sdk = sdk
        self.admin = admin
        self.key = key
        network = self.sdk.network
        self.group = network.create_security_group(name="changes").id
        for protocol, port in (("tcp", 22), ("icmp", None)):
            network.create_security_group_rule(
                security_group_id=self.group, direction="ingress", ethertype="IPv4", protocol=protocol,
                port_range_min=port, port_range_max=port,
            )  # fmt: skip
        self.public = network.find_network("public").id
        self.front, front_subnet = self.network("front", "10.20.0.0/24")
        self.back, _ = self.network("back", "10.21.0.0/24", gateway_ip=None)  # or replies to SSH would go out there
        self.router = network.create_router(name="changes", external_gateway_info={"network_id": self.public})
        network.add_interface_to_router(self.router, subnet_id=front_subnet)
        self.sdk.compute.create_keypair(name="changes", public_key=key.with_suffix(".pub").read_text())
        self.image = self.sdk.image.find_image("cumulet-guest").id

    def network(self, name: str, cidr: str, **more: Any) -> tuple[str, str]:
        network = self.sdk.network.create_network(name=name)
        subnet = self.sdk.network.create_subnet(network_id=network.id, ip_version=4, cidr=cidr, **more)
        return network.id, subnet.id

    def boot(self, name: str, image: str = "") -> tuple[str, Guest]:
        """(id of a server that runs, a login on it)."""
        compute, network = self.sdk.compute, self.sdk.network
        server = compute.create_server(
            name=name, image_id=image or self.image, flavor_id=compute.find_flavor("m1.nano").id, key_name="changes",
            networks=[{"uuid": self.front}], security_groups=[{"name": "changes"}],
        )  # fmt: skip
        compute.wait_for_server(server, wait=BOOT)
        port = next(network.ports(device_id=server.id))
        address = network.create_ip(floating_network_id=self.public, port_id=port.id).floating_ip_address
        guest = Guest(address, self.key)
        guest.wait()
        return server.id, guest

    def status(self, server_id: str) -> str:
        return str(self.sdk.compute.get_server(server_id).status)

    def wait_status(self, server_id: str, status: str) -> None:
        wait_for(status, lambda: self.status(server_id) == status)


@pytest.fixture(scope="module")
def site(real_cloud: ProcessCloud, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(
        real_cloud.connect("cumulet-demo"),
        real_cloud.connect("cumulet"),
        make_key(tmp_path_factory.mktemp("keys") / "id_ed25519"),
    )


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[tuple[str, Guest]]:
    made = site.boot("changing")
    yield made
    site.sdk.compute.delete_server(made[0])
    wait_for("the server to go", lambda: site.sdk.compute.find_server(made[0]) is None)


def cards(guest: Guest) -> list[str]:
    return re.findall(r"^\d+: (eth\d+)", guest.try_run("ip -o link") or "", re.MULTILINE)


def test_a_running_server_gets_and_loses_a_card(site: Site, server: tuple[str, Guest]) -> None:
    server_id, guest = server
    wait_for("its only card", lambda: cards(guest) == ["eth0"])
    port = site.sdk.compute.create_server_interface(server_id, net_id=site.back)
    address = port.fixed_ips[0]["ip_address"]
    wait_for("DHCP on the new card", lambda: f"inet {address}/24" in (guest.try_run("ip -4 addr show eth1") or ""))
    wait_for("port ACTIVE", lambda: site.sdk.network.get_port(port.port_id).status == "ACTIVE")
    assert address in str(site.sdk.compute.get_server(server_id).addresses)
    dhcp = next(site.sdk.network.ports(network_id=site.back, device_owner="network:dhcp")).fixed_ips[0]["ip_address"]
    guest.run(f"sudo ping -c 1 -W 60 {dhcp}")
    site.sdk.compute.reboot_server(server_id, "HARD")
    site.wait_status(server_id, "ACTIVE")
    wait_for("the card after a hard reboot", lambda: f"inet {address}/24" in (guest.try_run("ip -4 addr") or ""))
    site.sdk.compute.delete_server_interface(port.port_id, server=server_id)
    wait_for("the card to go", lambda: cards(guest) == ["eth0"])
    wait_for("the port to go", lambda: site.sdk.network.find_port(port.port_id) is None)
    assert "back" not in site.sdk.compute.get_server(server_id).addresses


def test_a_port_that_is_deleted_takes_its_card_along(site: Site, server: tuple[str, Guest]) -> None:
    server_id, guest = server
    port = site.sdk.network.create_port(network_id=site.back)
    site.sdk.compute.create_server_interface(server_id, port_id=port.id)
    wait_for("the card", lambda: cards(guest) == ["eth0", "eth1"])
    site.sdk.network.delete_port(port.id)
    wait_for("the card to go", lambda: cards(guest) == ["eth0"])
    assert [one.network_id for one in site.sdk.network.ports(device_id=server_id)] == [site.front]


def test_an_image_of_a_running_server_boots_another(site: Site, server: tuple[str, Guest]) -> None:
    server_id, guest = server
    guest.run("echo carried over > note; sync")
    image = site.sdk.compute.create_server_image(server_id, "photo")
    wait_for("the image", lambda: site.sdk.image.get_image(image.id).status == "active")
    site.wait_status(server_id, "ACTIVE")
    guest.run("echo changed since > note; sync")
    copy_id, copy = site.boot("copy", image.id)
    assert copy.run("cat note") == "carried over"
    wait_for("its name", lambda: copy.run("hostname") == "copy")  # it gets it once SSH answers
    assert guest.run("cat note") == "changed since"
    site.sdk.compute.delete_server(copy_id)


def test_a_stopped_server_is_rebuilt_from_an_image_of_itself(site: Site, server: tuple[str, Guest]) -> None:
    server_id, guest = server
    guest.run("echo first > note; sync")
    site.sdk.compute.stop_server(server_id)
    site.wait_status(server_id, "SHUTOFF")
    image = site.sdk.compute.create_server_image(server_id, "stopped")
    wait_for("the image", lambda: site.sdk.image.get_image(image.id).status == "active")
    site.wait_status(server_id, "SHUTOFF")
    site.sdk.compute.start_server(server_id)
    site.wait_status(server_id, "ACTIVE")
    guest.wait()
    guest.run("echo second > note; sync")
    site.sdk.compute.rebuild_server(server_id, image.id)
    site.wait_status(server_id, "ACTIVE")
    guest.wait()
    assert guest.run("cat note") == "first"


def size(guest: Guest) -> tuple[int, int]:
    """(MiB of memory, GiB of disk) as the guest sees them, roughly."""
    memory = re.search(r"MemTotal: +(\d+)", guest.run("cat /proc/meminfo"))
    assert memory is not None
    return int(memory[1]) // 1024, int(guest.run("cat /sys/block/vda/size")) >> 21


def test_a_server_is_resized_and_reverted_and_resized_for_good(site: Site, server: tuple[str, Guest]) -> None:
    server_id, guest = server
    admin = site.admin.compute
    flavor = admin.create_flavor(name="grown", ram=256, vcpus=1, disk=2)
    guest.run("echo kept > note; sync")
    memory, disk = size(guest)
    assert memory < 128 and disk == 1
    for reverted in (True, False):
        site.sdk.compute.resize_server(server_id, flavor.id)
        site.wait_status(server_id, "VERIFY_RESIZE")
        guest.wait()
        memory, disk = size(guest)
        assert 128 < memory < 256 and disk == 2 and guest.run("cat note") == "kept"
        if reverted:
            site.sdk.compute.revert_server_resize(server_id)
            site.wait_status(server_id, "ACTIVE")
            guest.wait()
            memory, disk = size(guest)
            assert memory < 128 and disk == 1 and guest.run("cat note") == "kept"
    site.sdk.compute.confirm_server_resize(server_id)
    site.wait_status(server_id, "ACTIVE")
    assert site.sdk.compute.get_server(server_id).flavor["ram"] == 256
