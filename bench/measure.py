"""Measure what SPECIFICATION.md promises, on this machine, against a cloud of its own with simulated drivers.

usage: python -m bench.measure [NAME ...]      (no name: all)

Machines are noisy: compare figures of one run, or run both sides of a comparison in turn.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.cloud import ProcessCloud

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used, user and system."""
    return sum(_ticks(pid)[:2]) / TICK


def _ticks(pid: int) -> list[int]:
    """User and system of a process, and of those that it has started and that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return [int(field) for field in fields[11:15]]


def cpu_of(pids: Iterable[int]) -> float:
    """CPU that processes have used together with all that they have started, also what has ended meanwhile."""
    family: set[int] = set()
    new = set(pids)
    while new:
        family |= new
        new = {child for pid in new for child in _children(pid)} - family
    return sum(sum(_ticks(pid)) for pid in family) / TICK


def _children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


class Bench:
    """A cloud to measure, and one HTTP session."""

    def __init__(self, cloud: ProcessCloud, session: aiohttp.ClientSession) -> None:
        assert cloud.process is not None
        self.cloud = cloud
        self.session = session
        self.pid = cloud.process.pid
        self.image = self.network = ""

    async def call(self, method: str, service: str, path: str, body: Any = None) -> Any:
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"}
        async with self.session.request(method, self.cloud.url(service) + path, data=data, headers=headers) as reply:
            text = await reply.read()
            assert reply.status < 300, f"{method} {path}: {reply.status} {text[:300]!r}"
            return msgspec.json.decode(text) if text else None

    async def set_up(self) -> None:
        project = (await self.call("GET", "identity", "/v3/projects?name=admin"))["projects"][0]["id"]
        unlimited = {"instances": -1, "cores": -1, "ram": -1}
        await self.call("PUT", "compute", f"/v2.1/os-quota-sets/{project}", {"quota_set": unlimited})
        await self.call("PUT", "network", f"/v2.0/quotas/{project}", {"quota": {"port": -1, "network": -1}})
        await self.new_network()
        body = {"name": "bench", "disk_format": "raw", "container_format": "bare"}
        self.image = (await self.call("POST", "image", "/v2/images", body))["id"]
        url = f"{self.cloud.url('image')}/v2/images/{self.image}/file"
        async with self.session.put(
            url, data=b"\0" * 4096, headers={"Content-Type": "application/octet-stream"}
        ) as reply:
            assert reply.status == 204, await reply.text()

    async def new_network(self) -> None:
        self.network = (await self.call("POST", "network", "/v2.0/networks", {"network": {"name": "bench"}}))[
            "network"
        ]["id"]
        subnet = {"network_id": self.network, "ip_version": 4, "cidr": "10.0.0.0/12"}
        await self.call("POST", "network", "/v2.0/subnets", {"subnet": subnet})

    async def built(self) -> None:
        """Wait until no server is being built any more."""
        while (await self.call("GET", "compute", "/v2.1/servers?status=BUILD&limit=1"))["servers"]:
            await asyncio.sleep(0.02)

    async def create_server(self) -> str:
        body = {"name": "b", "flavorRef": "42", "imageRef": self.image, "networks": [{"uuid": self.network}]}
        made = await self.call("POST", "compute", "/v2.1/servers", {"server": body})
        return str(made["server"]["id"])

    async def repeat(self, count: int, clients: int, act: Callable[[], Awaitable[Any]]) -> tuple[float, float, float]:
        """(requests a second, median milliseconds, server CPU milliseconds a request)."""
        times: list[float] = []
        left = iter(range(count))

        async def client() -> None:
            for _ in left:
                started = time.perf_counter()
                await act()
                times.append(time.perf_counter() - started)

        before, started = cpu_seconds(self.pid), time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        took = time.perf_counter() - started
        return count / took, statistics.median(times) * 1000, (cpu_seconds(self.pid) - before) * 1000 / count


def line(what: str, figure: str) -> None:
    sys.stdout.write(f"{what:<44} {figure}\n")
    sys.stdout.flush()


async def measure_idle(bench: Bench) -> None:
    line("resident memory, idle", f"{resident_mib(bench.pid):.0f} MiB")
    before = cpu_seconds(bench.pid)
    await asyncio.sleep(20)
    line("idle CPU", f"{(cpu_seconds(bench.pid) - before) / 20 * 100:.2f} % of a core")


async def measure_calls(bench: Bench) -> None:
    server = await bench.create_server()
    port = {"port": {"network_id": bench.network}}
    calls: dict[str, tuple[int, Callable[[], Awaitable[Any]]]] = {
        "GET /v3/users": (2000, lambda: bench.call("GET", "identity", "/v3/users")),
        "GET /v2.1/servers/{id}": (2000, lambda: bench.call("GET", "compute", f"/v2.1/servers/{server}")),
        "GET /v2.0/networks": (2000, lambda: bench.call("GET", "network", "/v2.0/networks")),
        "POST /v2.0/ports": (1000, lambda: bench.call("POST", "network", "/v2.0/ports", port)),
        "GET /v2.0/ports (1,000)": (20, lambda: bench.call("GET", "network", "/v2.0/ports?limit=1000")),
    }
    for name, (count, act) in calls.items():
        rate, median, cpu = await bench.repeat(count, 8, act)
        line(name, f"{rate:8.0f} /s   p50 {median:7.2f} ms   {cpu:7.3f} ms CPU of the server")
    rate, median, _ = await bench.repeat(200, 1, calls["POST /v2.0/ports"][1])
    line("POST /v2.0/ports, one client", f"{rate:8.0f} /s   p50 {median:7.2f} ms")


async def measure_servers(bench: Bench) -> None:
    await bench.new_network()  # what other measurements left on theirs shall not count
    delays = []
    for _ in range(20):
        started = time.perf_counter()
        server = await bench.create_server()
        while (await bench.call("GET", "compute", f"/v2.1/servers/{server}"))["server"]["status"] != "ACTIVE":
            await asyncio.sleep(0.002)
        delays.append(time.perf_counter() - started)
    line("POST /v2.1/servers to ACTIVE, simulated", f"p50 {statistics.median(delays) * 1000:.1f} ms")
    started, before, count = time.perf_counter(), cpu_seconds(bench.pid), 500
    await bench.repeat(count, 16, bench.create_server)
    await bench.built()
    rate, cpu = count / (time.perf_counter() - started), (cpu_seconds(bench.pid) - before) * 1000 / count
    line(f"{count} servers, all ACTIVE", f"{rate:.0f} servers/s   {cpu:.2f} ms CPU of the server each")
    while True:
        listed = (await bench.call("GET", "compute", "/v2.1/servers/detail?limit=1000"))["servers"]
        if len(listed) >= 1000:
            break
        await bench.repeat(1000 - len(listed), 16, bench.create_server)
    await bench.built()
    _, median, cpu = await bench.repeat(10, 1, lambda: bench.call("GET", "compute", "/v2.1/servers/detail?limit=1000"))
    line("GET /v2.1/servers/detail (1,000)", f"p50 {median:.1f} ms   {cpu:.1f} ms CPU of the server")


def measure_start(directory: Path) -> None:
    """Several warm starts: the database is there, the byte code is compiled."""
    cloud = ProcessCloud(directory / "data", "--hypervisor", "simulated", "--network", "simulated")
    took = []
    for _ in range(6):
        took.append(cloud.start())
        cloud.stop()
    line(
        "`cumulet up` to every API answering, warm",
        f"median {statistics.median(took[1:]):.2f} s (first start {took[0]:.2f} s)",
    )


async def measure_running(directory: Path, names: list[str]) -> None:
    cloud = ProcessCloud(directory / "data", "--hypervisor", "simulated", "--network", "simulated")
    cloud.start()
    try:
        async with aiohttp.ClientSession(headers={"X-Auth-Token": cloud.token()}) as session:
            bench = Bench(cloud, session)
            await bench.set_up()
            for name in names:
                await MEASURES[name](bench)
    finally:
        cloud.stop()


MEASURES: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "idle": measure_idle,
    "calls": measure_calls,
    "servers": measure_servers,
}


def main() -> None:
    names = sys.argv[1:] or ["start", *MEASURES]
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as directory:
        if "start" in names:
            measure_start(Path(directory))
        running = [name for name in names if name in MEASURES]
        if running:
            asyncio.run(measure_running(Path(directory), running))


if __name__ == "__main__":
    main()
