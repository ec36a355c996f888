"""A real cloud for the end-to-end tests: QEMU, namespaces, nftables, in a network namespace of its own."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import SOURCE, ProcessCloud, inside, network_namespace

GUEST = Path(os.environ.get("CUMULET_GUEST_IMAGE", SOURCE / "guest.qcow2"))
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "dnsmasq", "nft", "ip", "conntrack", "ssh")


def why_not() -> str:
    """Why the real thing cannot run here, or nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    missing = [p for p in PROGRAMS if shutil.which(p) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    return "" if GUEST.exists() else "needs the guest image: make guest-image"


@pytest.fixture(scope="session")
def real_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCloud]:
    if reason := why_not():
        pytest.skip(reason)
    with network_namespace(f"cutest-{uuid.uuid4().hex[:6]}") as name, inside(name):
        options = ("--hypervisor", "qemu", "--network", "linux", "--guest-image", str(GUEST))
        cloud = ProcessCloud(tmp_path_factory.mktemp("real") / "data", *options, namespace=name)
        try:
            cloud.start()
            yield cloud
        finally:
            cloud.destroy()
