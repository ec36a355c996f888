"""The guest image, booted once: what a cloud asks of a guest, seen over ssh and on the serial console."""

import asyncio
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from msgspec.structs import replace

from cumulet.services.compute.drivers import HypervisorError, Nic, RootDisk, ServerSpec
from cumulet.services.compute.drivers.qemu import QemuHypervisor, command
from tests.cloud import free_port

IMAGE = Path(os.environ.get("CUMULET_GUEST_IMAGE", Path(__file__).parents[2] / "guest.qcow2"))
TOOLS = ("qemu-system-x86_64", "qemu-img", "genisoimage", "ssh", "ssh-keygen")
MISSING = [f"{tool} is not installed" for tool in TOOLS if not shutil.which(tool)]
if not IMAGE.exists():
    MISSING.append(f"there is no guest image at {IMAGE} (make guest-image, or CUMULET_GUEST_IMAGE)")
pytestmark = [
    pytest.mark.guest,
    pytest.mark.qemu,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING)),
    pytest.mark.asyncio(loop_scope="module"),
]
USER_DATA = b"#!/bin/sh\necho user data ran as $(id -un) > /home/cumulet/proof\n"

WAIT = "for i in $(seq 600); do {0} && break; sleep 0.1; done; {0}"
"""For the guest's shell: up to a minute until a condition holds."""
BOOT = 120.0
"""Seconds that a guest gets to boot on a busy machine under TCG."""


class Guest(NamedTuple):
    driver: QemuHypervisor
    spec: ServerSpec
    port: int
    key: Path
    seconds: float
    """From the call that starts the machine to the ssh banner, less what others had the processor meanwhile."""

    async def ssh(self, *words: str) -> str:
        """Run a command in the guest; its output. Fails with the ssh client's words."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=60")
        process = await asyncio.create_subprocess_exec(
            *("ssh", "-F", "none", "-i", str(self.key), "-p", str(self.port)),
            *(part for option in options for part in ("-o", option)),
            *("-o", "BatchMode=yes", "cumulet@127.0.0.1", *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 150)
        assert process.returncode == 0, err.decode()
        return out.decode().strip()


async def banner(port: int) -> None:
    """Wait until ssh answers: one connection at a time, each closed before the next."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < BOOT:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        try:
            if (await asyncio.wait_for(reader.read(4), max(1.0, passed / 4))).startswith(b"SSH"):
                return
        except (TimeoutError, OSError):  # the guest is not up: user-mode networking accepts for it all the same
            continue
        finally:
            writer.close()
        await asyncio.sleep(0.1)
    pytest.fail("no ssh banner within its time")


def kept_waiting(pid: int) -> float:
    """Seconds that a process has waited for a processor: of its threads, the one that waited longest."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return max((int(task.read_text().split()[1]) for task in tasks), default=0) / 1e9


@contextmanager
def forwarding(port: int) -> Iterator[None]:
    """Machines started within have `port` of the host forwarded to their ssh, which no server of a cloud has."""
    plain = command._nic
    forward = f"user,id=net-port,hostfwd=tcp:127.0.0.1:{port}-:22"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_nic", lambda *nic: ("-netdev", forward, *plain(*nic)[2:]))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(folder: Path) -> AsyncIterator[Guest]:
    """The image on a 1 GB disk, with a config drive, its port 22 forwarded by user-mode networking."""
    port = free_port()
    metadata = {"uuid": "i-1", "hostname": "probe.example", "public_keys": {"k": (folder / "key.pub").read_text()}}
    spec = ServerSpec(
        str(uuid.uuid4()),
        "probe",
        1,
        256,
        RootDisk(str(IMAGE), "qcow2", "guest", 1),
        nics=(Nic("port", "network", "fa:16:3e:00:00:07", 1442),),
        config_drive={
            "openstack/latest/meta_data.json": json.dumps(metadata).encode(),
            "openstack/latest/user_data": USER_DATA,
        },
    )
    driver = QemuHypervisor(folder / "compute", None)
    await driver.start()
    with forwarding(port):
        started = time.monotonic()
        state = await driver.ensure_server(spec)
    await banner(port)
    assert state.pid is not None
    seconds = time.monotonic() - started - kept_waiting(state.pid)
    yield Guest(driver, spec, port, folder / "key", seconds)
    await driver.remove_server(spec.id)
    await driver.stop()


async def until_console(guest: Guest, text: str) -> str:
    deadline = time.monotonic() + BOOT
    while True:
        log = await guest.driver.console_log(guest.spec.id)
        if text in log:
            return log
        assert time.monotonic() < deadline, f"the console never says {text!r}:\n{log[-2000:]}"
        await asyncio.sleep(0.1)


async def test_boots_fast_and_lets_the_key_in_at_once(guest: Guest) -> None:
    assert await guest.ssh("id", "-un") == "cumulet"
    assert guest.seconds < 30  # the aim is 8 s


async def test_instance_data(guest: Guest) -> None:
    await until_console(guest, "cloud-init-lite: done")
    assert await guest.ssh("hostname") == "probe"
    assert await guest.ssh("cat", "proof") == "user data ran as root"
    assert await guest.ssh("sudo", "id", "-u") == "0"
    drive = await guest.ssh("/sbin/blkid -L config-2 -o device")  # as its login user, which may not read it
    assert await guest.ssh(f"[ -b {drive} ] && echo there") == "there"


async def test_network_and_disk(guest: Guest) -> None:
    assert "mtu 1442" in await guest.ssh("ip", "link", "show", "eth0")
    assert "10.0.2.15/24" in await guest.ssh("ip", "-4", "addr", "show", "eth0")
    await guest.ssh("ping -c1 -w5 10.0.2.15")  # as its login user
    await guest.ssh(WAIT.format("[ $(df -m / | awk 'END { print $2 }') -gt 850 ]"))


async def test_console_shows_the_boot_and_a_login(guest: Guest) -> None:
    log = await until_console(guest, "probe login:")
    for text in ("Linux version", "Run /init as init process", "EXT4-fs", "cloud-init-lite: instance i-1"):
        assert text in log
    await guest.ssh(WAIT.format("ps | grep -q '[g]etty.*tty1'"))


async def test_passwords_do_not_open_ssh(guest: Guest) -> None:
    assert "-s" in (await guest.ssh("ps | grep '[d]ropbear -R'")).split()


async def test_cards_and_disks_can_be_plugged_in(guest: Guest, folder: Path) -> None:
    machine = guest.driver._machines[guest.spec.id]
    with (folder / "extra.raw").open("wb") as extra:
        extra.truncate(16 * 1024**2)
    file = {"driver": "file", "filename": str(folder / "extra.raw")}
    disk: dict[str, object] = {"driver": "raw", "node-name": "extra", "file": file}
    await machine.execute("blockdev-add", disk)
    await machine.execute("device_add", {"driver": "virtio-blk-pci", "drive": "extra", "id": "extra"})
    await machine.execute("netdev_add", {"type": "user", "id": "second", "net": "10.9.0.0/24"})
    await machine.execute("device_add", {"driver": "virtio-net-pci", "netdev": "second", "id": "second"})
    await guest.ssh(WAIT.format("[ -b /dev/vdc ]"))
    await guest.ssh("sudo mkfs.ext4 -q /dev/vdc && sudo mount /dev/vdc /mnt && df /mnt | grep -q vdc")
    await guest.ssh(WAIT.format("ip -4 addr show eth1 | grep -q 10.9.0.15"))


async def test_power_button_then_the_same_disk_again(guest: Guest) -> None:
    """Last, as it restarts the guest: it goes off by itself, and its user data do not run twice."""
    await guest.ssh("echo changed | sudo tee proof && sync")
    async with asyncio.timeout(BOOT):
        await guest.driver.ensure_stopped(guest.spec.id, grace=2 * BOOT)
    assert (await guest.driver.observe())[guest.spec.id].power == "shutdown"
    with pytest.raises(HypervisorError):
        await guest.driver.vnc_address(guest.spec.id)
    with forwarding(guest.port):
        await guest.driver.ensure_server(guest.spec)
    await banner(guest.port)
    assert await guest.ssh("cat", "proof") == "changed"


async def test_a_disk_that_becomes_another_instance(guest: Guest) -> None:
    """As a server made from a snapshot: new host keys, its own user data, and its password opens ssh."""
    old = await guest.ssh("sudo md5sum /etc/dropbear/dropbear_ed25519_host_key")
    shadow = await guest.ssh("sudo md5sum /etc/shadow")
    metadata = {
        "uuid": "i-2",
        "hostname": "other",
        "admin_pass": "it's $ecret",
        "public_keys": {"k": guest.key.with_suffix(".pub").read_text()},
    }
    drive = {"openstack/latest/meta_data.json": json.dumps(metadata).encode()}
    with forwarding(guest.port):
        await guest.driver.reboot(replace(guest.spec, config_drive=drive), hard=True)
    await banner(guest.port)
    await until_console(guest, "cloud-init-lite: instance i-2 host other")
    assert "-s" not in (await guest.ssh("ps | grep '[d]ropbear -R'")).split()  # passwords, from its first banner on
    assert await guest.ssh("sudo md5sum /etc/dropbear/dropbear_ed25519_host_key") != old
    assert await guest.ssh("sudo md5sum /etc/shadow") != shadow
    assert await guest.ssh("cat", "proof") == "changed"


async def test_ssh_that_was_started_too_early_starts_again_for_the_password(guest: Guest) -> None:
    """As where instance data come after ssh had to start without: the old server's port is free before the new one."""
    old = await guest.ssh("cat /run/dropbear.pid")
    await guest.ssh("sudo /etc/ssh.start password")
    await banner(guest.port)
    assert await guest.ssh("cat /run/dropbear.pid") != old
