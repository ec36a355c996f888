"""The whole path through the real thing, with unmodified clients: command line, SDK, SSH, a browser."""

import subprocess
import time
from pathlib import Path
from typing import Any

import openstack.connection
import pytest

from tests.cloud import ProcessCloud
from tests.e2e.guests import BOOT, Guest, answers_ssh, make_key, wait_for
from tests.e2e.guests import openstack as cli
from tests.e2e.pictures import light_share

pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.guest, pytest.mark.clients, pytest.mark.timeout(900)]


ELSEWHERE = "10.10.0.77"


class Tenant:
    """What the tests share: a server of the demo user's behind a floating IP, made with the command line."""

    def __init__(self, cloud: ProcessCloud, key: Path) -> None:
        self.cloud = cloud
        self.key = key
        self.sdk: openstack.connection.Connection = cloud.connect("cumulet-demo")
        cli(cloud, "keypair", "create", "--public-key", f"{key}.pub", "mykey")
        cli(cloud, "network", "create", "private")
        cli(cloud, "subnet", "create", "--network", "private", "--subnet-range", "10.10.0.0/24", "private-subnet")
        cli(cloud, "router", "create", "router1")
        cloud.run(*self._words("router", "set", "--external-gateway", "public", "router1"))
        cloud.run(*self._words("router", "add", "subnet", "router1", "private-subnet"))
        cli(cloud, "security", "group", "rule", "create", "--proto", "icmp", "default")
        started = time.monotonic()
        self.server_id = cli(
            cloud, "server", "create", "--image", "cumulet-guest", "--flavor", "m1.nano", "--key-name", "mykey",
            "--network", "private", "--wait", "web1",
        )["id"]  # fmt: skip
        self.build_seconds = time.monotonic() - started
        self.address: str = cli(cloud, "floating", "ip", "create", "public")["floating_ip_address"]
        cloud.run(*self._words("server", "add", "floating", "ip", "web1", self.address))
        self.guest = Guest(self.address, key)

    def _words(self, *arguments: str) -> list[str]:
        from tests.e2e.guests import OPENSTACK

        return [OPENSTACK, "--os-cloud", "cumulet-demo", *arguments]

    def allow_ssh(self) -> str:
        rule = self.sdk.network.create_security_group_rule(
            security_group_id=self.default_group(), direction="ingress", ethertype="IPv4", protocol="tcp",
            port_range_min=22, port_range_max=22,
        )  # fmt: skip
        return str(rule.id)

    def default_group(self) -> str:
        (group,) = self.sdk.network.security_groups(name="default", project_id=self.sdk.current_project_id)
        return str(group.id)


@pytest.fixture(scope="module")
def tenant(real_cloud: ProcessCloud, tmp_path_factory: pytest.TempPathFactory) -> Tenant:
    return Tenant(real_cloud, make_key(tmp_path_factory.mktemp("keys") / "id_ed25519"))


def status(tenant: Tenant) -> str:
    return str(tenant.sdk.compute.get_server(tenant.server_id).status)


def test_command_line_boots_a_server_that_ssh_reaches(tenant: Tenant) -> None:
    assert not answers_ssh(tenant.address), "SSH was let in without a rule"
    tenant.allow_ssh()
    tenant.guest.wait()
    wait_for("its name", lambda: tenant.guest.run("hostname") == "web1")  # it gets it once SSH answers
    assert (
        subprocess.run(["ping", "-c", "1", "-W", "60", tenant.address], check=False, capture_output=True).returncode
        == 0
    )
    (row,) = [r for r in cli(tenant.cloud, "server", "list") if r["ID"] == tenant.server_id]
    assert row["Status"] == "ACTIVE"
    assert tenant.address in str(row["Networks"])


def test_the_guest_knows_itself_by_its_metadata(tenant: Tenant) -> None:
    url = "http://169.254.169.254/openstack/latest/meta_data.json"
    assert tenant.server_id in tenant.guest.run(f"wget -q -O - {url}")
    assert "web1" in tenant.guest.run("wget -q -O - http://169.254.169.254/latest/meta-data/hostname")


def test_console_log_shows_the_boot(tenant: Tenant) -> None:
    assert "Linux version" in tenant.cloud.run(*tenant._words("console", "log", "show", "web1"))
    wait_for(
        "a login prompt", lambda: "login:" in tenant.sdk.compute.get_server_console_output(tenant.server_id)["output"]
    )


def test_a_removed_rule_stops_ssh_and_a_new_one_lets_it_in(tenant: Tenant) -> None:
    command = tenant.guest.command("while echo alive; do sleep 1; done")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as held:
        try:
            assert held.stdout is not None
            assert held.stdout.readline() == "alive\n"
            remove_ssh_rules(tenant)
            wait_for("SSH to be shut out", lambda: not answers_ssh(tenant.address, 2))
            wait_for("the established session to be cut as well", lambda: silent_for(held, 4), 20)
        finally:
            held.kill()
    tenant.allow_ssh()
    wait_for("SSH to be let in", lambda: tenant.guest.try_run("true") is not None)


def remove_ssh_rules(tenant: Tenant) -> None:
    rules = tenant.sdk.network.security_group_rules(security_group_id=tenant.default_group(), protocol="tcp")
    for rule in list(rules):
        tenant.sdk.network.delete_security_group_rule(rule.id)


def silent_for(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """Whether a process that prints every second prints nothing for a while."""
    import select

    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    quiet_since = time.monotonic()
    while time.monotonic() < deadline:
        ready, _, _ = select.select([process.stdout], [], [], 0.5)
        if ready and process.stdout.readline():
            quiet_since = time.monotonic()
    return time.monotonic() - quiet_since > seconds / 2


@pytest.mark.parametrize("kind", ["SOFT", "HARD"])
def test_reboot(tenant: Tenant, kind: str) -> None:
    before = tenant.guest.run("cat /proc/sys/kernel/random/boot_id")
    tenant.sdk.compute.reboot_server(tenant.server_id, kind)
    wait_for("ACTIVE", lambda: status(tenant) == "ACTIVE")
    wait_for(
        "another boot", lambda: tenant.guest.try_run("cat /proc/sys/kernel/random/boot_id") not in (None, f"{before}\n")
    )


def test_stop_and_start(tenant: Tenant) -> None:
    tenant.guest.run("echo kept > note; sync")
    tenant.sdk.compute.stop_server(tenant.server_id)
    wait_for("SHUTOFF", lambda: status(tenant) == "SHUTOFF")
    assert not answers_ssh(tenant.address)
    tenant.sdk.compute.start_server(tenant.server_id)
    wait_for("ACTIVE", lambda: status(tenant) == "ACTIVE")
    tenant.guest.wait()
    assert tenant.guest.run("cat note") == "kept"


def test_a_guest_that_powers_off_is_seen(tenant: Tenant) -> None:
    tenant.guest.try_run("sudo poweroff")
    wait_for("SHUTOFF", lambda: status(tenant) == "SHUTOFF")
    tenant.sdk.compute.start_server(tenant.server_id)
    wait_for("ACTIVE", lambda: status(tenant) == "ACTIVE")
    tenant.guest.wait()


def test_two_tenants_with_the_same_addresses_do_not_meet(tenant: Tenant) -> None:
    other: Any = tenant.cloud.connect("cumulet")  # the admin project is another tenant
    network = other.network.create_network(name="private")
    other.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.10.0.0/24")
    mine = tenant.sdk.compute.get_server(tenant.server_id).addresses["private"][0]["addr"]
    # One card has the very address of the demo user's server, one an address that nobody has on the other network.
    wanted = [{"uuid": network.id, "fixed_ip": address} for address in (mine, ELSEWHERE)]
    image, flavor = other.image.find_image("cumulet-guest"), other.compute.find_flavor("m1.nano")
    twin = other.compute.create_server(name="twin", image_id=image.id, flavor_id=flavor.id, networks=wanted)
    other.compute.wait_for_server(twin, wait=BOOT)
    wait_for("the twin to boot", lambda: "login:" in other.compute.get_server_console_output(twin.id)["output"])
    assert tenant.guest.run("hostname") == "web1", "the twin answers in the other's place"
    tenant.guest.run("ping -c 1 -W 60 10.10.0.1")
    assert tenant.guest.run(f"ping -c 2 -W 2 {ELSEWHERE} && echo found || echo nobody").endswith("nobody")
    known = tenant.guest.run("cat /proc/net/arp")
    gateway = next(tenant.sdk.network.ports(device_owner="network:router_interface", fixed_ips="ip_address=10.10.0.1"))
    assert gateway.mac_address in known, "the table of addresses shows nobody"
    assert not [port.mac_address for port in other.network.ports(device_id=twin.id) if port.mac_address in known]
    other.compute.delete_server(twin.id)
    other.compute.wait_for_delete(twin, wait=BOOT)


def test_the_screen_is_seen_in_a_browser(tenant: Tenant, tmp_path: Path) -> None:
    console: Any = tenant.sdk.compute.create_console(tenant.server_id, console_type="novnc")
    picture = Path("artifacts/novnc.png").absolute()
    picture.parent.mkdir(exist_ok=True)
    picture.unlink(missing_ok=True)
    browser = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1024,768",
        f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", f"--screenshot={picture}", console["url"],
    ]  # fmt: skip

    def taken() -> bool:
        """The browser's clock is virtual: on a busy machine it may run out before the screen has come."""
        try:
            subprocess.run(browser, check=True, capture_output=True, timeout=120)
        except subprocess.TimeoutExpired:
            return False
        return shows_text(picture)

    wait_for("a picture of the console that is not blank", taken, 360)


TITLE = 40
"""Rows of the console's page that are its title, whatever the screen below shows."""


def shows_text(picture: Path) -> bool:
    """Whether the guest's screen has light text, as a console has: a few pixels in a hundred."""
    return picture.exists() and light_share(picture, below=TITLE) > 0.005


def test_servers_outlive_the_program(tenant: Tenant) -> None:
    boot = tenant.guest.run("cat /proc/sys/kernel/random/boot_id")
    for end in (tenant.cloud.kill, tenant.cloud.stop):
        end()
        assert tenant.guest.run("cat /proc/sys/kernel/random/boot_id") == boot, "the guest went with the program"
        tenant.cloud.start()
        tenant.sdk = tenant.cloud.connect("cumulet-demo")
        assert status(tenant) == "ACTIVE"
        assert tenant.guest.run("cat /proc/sys/kernel/random/boot_id") == boot
    tenant.sdk.compute.reboot_server(tenant.server_id, "HARD")
    wait_for(
        "another boot",
        lambda: tenant.guest.try_run("cat /proc/sys/kernel/random/boot_id") not in (None, f"{boot}\n"),
    )


def test_delete_leaves_nothing_behind(tenant: Tenant) -> None:
    tenant.sdk.compute.delete_server(tenant.server_id)
    wait_for("the server to go", lambda: not exists(tenant))
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert tenant.server_id not in listing
    assert not list(tenant.cloud.data.rglob(f"*{tenant.server_id}*"))


def exists(tenant: Tenant) -> bool:
    return tenant.sdk.compute.find_server(tenant.server_id) is not None
