"""What listings cost: containers of 10,000 and of 1,000,000 names, of any cloud.

usage: python -m bench.listings [--names N,N] [--clients N] [--requests N]    a cloud of its own
       OS_AUTH_URL=... OS_USERNAME=... OS_PASSWORD=... OS_PROJECT_NAME=... \\
           python -m bench.listings --server-pids PID[,PID] [--rings DIR]       a cloud that runs already

The names are made by empty PUTs, a thousand to a folder. With --rings, the directory of the cluster's rings and swift.conf, the
container servers are told of them instead (their UPDATE, which swift has too): a million names take a minute then, and no
object lies behind them. A cloud of its own is filled so. `CPU` is that of the processes named, for each request.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from bench.images import Site, site
from bench.measure import cpu_of
from bench.objects import Figure, Work, call, load, request, run
from cumulet.services.object_store import policies
from cumulet.services.object_store.names import Timestamp, partition
from cumulet.services.object_store.ring.ring import FileRing
from tests.cloud import ProcessCloud

IN_FOLDER = 1000
AT_ONCE = 2000
"""Names that a container server is told at once."""
OK = b"HTTP/1.1 20"
SHORT = ("100 names", "100 names, backwards", "one name")
"""What is asked for ten times as often, so that its CPU can be measured."""


def name(number: int) -> str:
    return f"folder-{number // IN_FOLDER:05d}/object-{number % IN_FOLDER:05d}.dat"


async def fill(cloud: Site, container: str, count: int, rings: Path) -> None:
    """Tell the container servers of so many objects."""
    told = policies.read(rings / policies.FILE)
    ring = FileRing(rings / "container.ring.gz")
    account = urlsplit(cloud.url).path.rpartition("/")[2]
    part = partition(told.salt.digest(account, container), ring.power)
    at = Timestamp.now()
    row = {
        "size": 0,
        "content_type": "application/octet-stream",
        "etag": "d41d8cd98f00b204e9800998ecf8427e",
        "deleted": 0,
    }
    policy = {"storage_policy_index": told.policies.default.index}
    async with aiohttp.ClientSession() as session:
        for first in range(0, count, AT_ONCE):
            rows = [
                {**row, **policy, "name": name(number), "created_at": Timestamp(at.ticks + number).internal}
                for number in range(first, min(count, first + AT_ONCE))
            ]
            for device in ring.devices(part):
                url = f"http://{device.address}:{device.port}/{device.name}/{part}/{account}/{quote(container)}"
                sent = {"X-Timestamp": at.internal, "X-Backend-Storage-Policy-Index": str(told.policies.default.index)}
                async with session.request("UPDATE", url, data=msgspec.json.encode(rows), headers=sent) as reply:
                    assert reply.status == 202, await reply.text()


def put(cloud: Site, container: str, count: int, clients: int) -> None:
    """Write so many empty objects."""
    requests = [request(cloud, "PUT", f"/{container}/{name(number)}", b"") for number in range(count)]
    asyncio.run(load(cloud, "fill", b"HTTP/1.1 201", requests, clients, 0))


def works(cloud: Site, container: str, count: int, requests: int) -> list[Work]:
    """Each kind of listing, so often."""
    middle = quote(name(count // 2))
    kinds = {
        "10,000 names, json": "format=json",
        "10,000 names, plain": "",
        "10,000 from the middle": f"format=json&marker={middle}",
        "100 names": f"format=json&limit=100&marker={middle}",
        "folders": "format=json&delimiter=/",
        "one folder": f"format=json&delimiter=/&prefix={middle.rpartition('/')[0]}/",
        "100 names, backwards": f"format=json&limit=100&reverse=true&marker={middle}",
        "one name": "limit=1",
    }
    return [
        Work(
            f"{count:,}: {what}",
            OK,
            [request(cloud, "GET", f"/{container}?{query}")] * (requests * 10 if what in SHORT else requests),
            0,
        )
        for what, query in kinds.items()
    ]


async def pages(cloud: Site, container: str, count: int) -> Figure:
    """All names, page by page, as clients read them: each page asked for when the one before has come."""
    times: list[float] = []
    seen, marker = 0, ""
    before = cpu_of(cloud.pids)
    async with aiohttp.ClientSession(headers={"X-Auth-Token": cloud.token}) as session:
        while True:
            begun = time.perf_counter()
            async with session.get(f"{cloud.url}/{container}", params={"format": "json", "marker": marker}) as reply:
                rows = msgspec.json.decode(await reply.read())
            times.append((time.perf_counter() - begun) * 1000)
            if not rows:
                break
            seen, marker = seen + len(rows), rows[-1]["name"]
    assert seen == count, f"{seen} names instead of {count}"
    cpu = (cpu_of(cloud.pids) - before) * 1000 / len(times)
    times.sort()
    rate = len(times) / sum(times) * 1000
    what = f"{count:,}: all, page by page"
    return Figure(
        what, len(times), round(rate, 1), round(times[len(times) // 2], 2), round(times[-1], 2), round(cpu, 3), 0
    )


@contextmanager
def cloud_and_rings(pids: str, rings: Path | None) -> Iterator[tuple[Site, Path | None]]:
    """The cloud that is measured: the one in the environment, or one of its own, whose rings are known."""
    if rings is not None or pids:
        with site(pids, "object-store") as cloud:
            yield cloud, rings
        return
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as directory:
        data = Path(directory) / "data"
        own = ProcessCloud(data, "--hypervisor", "simulated", "--network", "simulated")
        own.start()
        try:
            assert own.process is not None
            url = f"{own.url('object-store')}/v1/AUTH_{own.connect().current_project_id}"
            yield Site(url, own.token(), [own.process.pid]), data / "object-store" / "rings"
        finally:
            own.destroy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", default="10000,1000000")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rings", type=Path)
    parser.add_argument("--server-pids", default="")
    asked = parser.parse_args()
    figures = []
    with cloud_and_rings(asked.server_pids, asked.rings) as (cloud, rings):
        for count in (int(part) for part in asked.names.split(",")):
            container = f"names-{count}"
            call(cloud, "PUT", f"/{container}", OK)
            if rings is None:
                put(cloud, container, count, asked.clients)
            else:
                asyncio.run(fill(cloud, container, count, rings))
            figures += [run(cloud, work, asked.clients) for work in works(cloud, container, count, asked.requests)]
            figures.append(asyncio.run(pages(cloud, container, count)))
    for one in figures:
        sys.stdout.write(
            f"{one.what:<36} {one.per_second:>9.1f} /s  median {one.median_ms:>8.2f} ms  p99 {one.slowest_ms:>8.2f} ms  "
            f"CPU {one.cpu_ms:>8.3f} ms\n"
        )
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")


if __name__ == "__main__":
    main()
