"""How long the `linux` dataplane takes for what networking asks of it (as root, in a namespace of its own).

usage: python -m bench.dataplane
"""

import asyncio
import ctypes
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable
from pathlib import Path

from msgspec.structs import replace

from cumulet.services.network.drivers import FloatingIp, Subnet
from cumulet.services.network.drivers.linux import LinuxDataplane, namespace
from tests.drivers.dataplane_site import external_network, make_network, make_port, make_router, new_id

ROUNDS = 5


async def main(directory: Path) -> None:
    prefix = f"b{uuid.uuid4().hex[:6]}"
    driver = LinuxDataplane(directory, prefix, f"x{prefix}")
    times: dict[str, list[float]] = {}

    async def measure(what: str, work: Awaitable[object]) -> None:
        start = time.perf_counter()
        await work
        times.setdefault(what, []).append((time.perf_counter() - start) * 1000)

    try:
        await measure("start", driver.start())
        external = external_network()
        await measure("external network", driver.ensure_network(external))
        for number in range(ROUNDS):
            network = make_network(make_port("10.0.0.5"))
            port = network.ports[0]
            await measure("new network", driver.ensure_network(network))
            await measure("the same network again", driver.ensure_network(network))
            await measure("a port added", driver.ensure_network(replace(network, ports=(port, make_port("10.0.0.6")))))
            await measure("a port removed", driver.ensure_network(network))
            start = time.perf_counter()
            tap = await driver.open_tap(network.id, port.id, port.mac)
            times.setdefault("tap", []).append((time.perf_counter() - start) * 1000)
            os.close(tap)
            router = make_router(network, external, f"172.24.4.{10 + number}")
            await measure("new router", driver.ensure_router(router))
            fip = FloatingIp(new_id(), f"172.24.4.{50 + number}", "10.0.0.5")
            await measure("a floating IP added", driver.ensure_router(replace(router, floating_ips=(fip,))))
            await measure("router removed", driver.remove_router(router.id))
            await measure("network removed", driver.remove_network(network.id))
        many = tuple(make_port(f"10.0.{1 + number // 200}.{1 + number % 200}") for number in range(1000))
        big = replace(make_network(*many), subnets=(Subnet("s", "10.0.0.0/16", "10.0.0.1", "10.0.0.2"),))
        await measure("new network of 1,000 ports", driver.ensure_network(big))
        more = replace(big, ports=(*many, make_port("10.0.9.9")))
        await measure("a port added to 1,000", driver.ensure_network(more))
        networks = [make_network(make_port("10.0.0.5")) for _ in range(20)]
        await measure("20 networks at once", asyncio.gather(*map(driver.ensure_network, networks)))
        await measure("observe 21 networks", driver.observe())
    finally:
        await measure("remove all", driver.remove_all())
    for what, found in times.items():
        sys.stdout.write(f"{what:28} {sorted(found)[len(found) // 2]:7.1f} ms\n")


if __name__ == "__main__":
    if ctypes.CDLL(None, use_errno=True).unshare(namespace.CLONE_NEWNET) != 0:
        raise SystemExit("this needs root")
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(Path(temporary)))
