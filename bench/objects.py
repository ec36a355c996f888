"""What object storage costs: small and large objects up and down, of any cloud, beside what the disk and the loopback of this
machine do in the same run.

usage: python -m bench.objects [--count N] [--clients N] [--mib N] [--directory DIR]    a cloud of its own
       OS_AUTH_URL=... OS_USERNAME=... OS_PASSWORD=... OS_PROJECT_NAME=... \\
           python -m bench.objects --server-pids PID[,PID]                              a cloud that runs already

Clients are plain sockets with keep-alive, which cost little beside what they measure. `CPU` is that of the processes named,
for each request. Put --directory on the disk that the cloud's data is on, or the comparison means nothing.
"""

import argparse
import asyncio
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from bench.images import PIECE, Site, best, copy, download, loopback, site
from bench.measure import cpu_of

SMALL = (4 << 10, 64 << 10)


class Figure(Struct):
    """What one load came to."""

    what: str
    requests: int
    per_second: float
    median_ms: float
    slowest_ms: float  # the 99th of a hundred
    cpu_ms: float
    mib_per_second: float
    of: str = ""


class Client(asyncio.Protocol):
    """One connection on which requests follow each other. A reply counts once its whole body is there."""

    def __init__(self, requests: Iterator[bytes], wanted: bytes, done: asyncio.Future[None]) -> None:
        self.requests = requests
        self.wanted = wanted
        self.done = done
        self.times: list[float] = []
        self.begun = 0.0
        self.left = -1
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        if self.left < 0:
            self.head += data
            head, mark, rest = self.head.partition(b"\r\n\r\n")
            if not mark:
                return
            if not head.startswith(self.wanted):
                self.done.set_exception(AssertionError(f"{head!r} {rest!r}"))
                self.transport.abort()
                return
            length = head.lower().partition(b"content-length:")[2]
            self.left = int(length.partition(b"\r\n")[0] or 0) - len(rest)
        else:
            self.left -= len(data)
        if self.left == 0:
            self.times.append(time.perf_counter() - self.begun)
            self.left, self.head = -1, b""
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("the server hung up"))

    def _next(self) -> None:
        request = next(self.requests, None)
        if request is None:
            self.done.set_result(None)
            self.transport.close()
            return
        self.begun = time.perf_counter()
        self.transport.write(request)


async def load(cloud: Site, what: str, wanted: bytes, requests: list[bytes], clients: int, size: int) -> Figure:
    """Make requests with so many clients at a time."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(cloud.url)
    waiting, ends = iter(requests), [loop.create_future() for _ in range(clients)]
    before, begun = cpu_of(cloud.pids), time.perf_counter()
    made = []
    for end in ends:
        _, client = await loop.create_connection(
            lambda end=end: Client(waiting, wanted, end), parts.hostname, parts.port
        )  # type: ignore[misc]
        made.append(client)
    await asyncio.gather(*ends)
    took = time.perf_counter() - begun
    cpu = (cpu_of(cloud.pids) - before) * 1000 / len(requests)
    times = sorted(t * 1000 for client in made for t in client.times)
    rate = len(requests) / took
    return Figure(
        what,
        len(requests),
        round(rate, 1),
        round(statistics.median(times), 2),
        round(times[int(len(times) * 0.99)], 2),
        round(cpu, 3),
        round(rate * size / PIECE, 1),
    )


def request(cloud: Site, method: str, path: str, body: bytes | None = None) -> bytes:
    told = f"{method} {urlsplit(cloud.url).path}{path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {cloud.token}\r\n"
    if body is not None:
        told += f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n"
    return told.encode() + b"\r\n" + (body or b"")


class Work(Struct):
    """Requests of one kind, and what a reply to them begins with."""

    what: str
    wanted: bytes
    requests: list[bytes]
    size: int


def small_works(cloud: Site, count: int, size: int, first: int = 0) -> list[Work]:
    """Objects of one small size: written, read twice, deleted. Their names are numbered from `first` on."""
    name = f"{size // 1024} KiB"
    paths = [f"/bench/{size}-{number}" for number in range(first, first + count)]
    data = [os.urandom(size) for _ in range(16)]
    puts = [request(cloud, "PUT", path, data[number % 16]) for number, path in enumerate(paths)]
    gets = [request(cloud, "GET", path) for path in paths * 2]
    deletes = [request(cloud, "DELETE", path) for path in paths]
    return [
        Work(f"PUT {name}", b"HTTP/1.1 201", puts, size),
        Work(f"GET {name}", b"HTTP/1.1 200", gets, size),
        Work(f"DELETE {name}", b"HTTP/1.1 204", deletes, 0),
    ]


def run(cloud: Site, work: Work, clients: int) -> Figure:
    return asyncio.run(load(cloud, work.what, work.wanted, work.requests, clients, work.size))


def small(cloud: Site, count: int, clients: int, size: int) -> list[Figure]:
    """Objects of one small size."""
    return [run(cloud, work, clients) for work in small_works(cloud, count, size)]


def make_file(file: Path, mib: int) -> None:
    """A file of random data."""
    with file.open("wb") as writer:
        for _ in range(mib):
            writer.write(os.urandom(PIECE))


def upload(cloud: Site, file: Path) -> None:
    with cloud.connect("PUT {prefix}/bench/large") as sock, file.open("rb") as reader:
        sock.sendall(f"Content-Length: {file.stat().st_size}\r\n\r\n".encode())
        sock.sendfile(reader)
        status = sock.recv(64)
        assert status.startswith(b"HTTP/1.1 201"), status


def copy_beside(file: Path) -> None:
    """Copy a file in its directory, durably, and remove the copy."""
    other = file.with_suffix(".copy")
    copy(file, other)
    other.unlink()


def copy_hashed(file: Path) -> None:
    """The same, and its MD5, which a thread makes meanwhile: nobody who has to tell it can be faster."""
    other, digest = file.with_suffix(".copy"), hashlib.md5(usedforsecurity=False)
    with file.open("rb") as reader, other.open("wb", buffering=0) as writer, ThreadPoolExecutor(1) as hashing:
        while piece := reader.read(PIECE):
            hashing.submit(digest.update, piece)
            writer.write(piece)
        os.fsync(writer.fileno())
    other.unlink()


def large(cloud: Site, directory: Path, mib: int, rounds: int) -> list[Figure]:
    """A large object up and down, beside the same data on the disk and on the loopback."""
    file = directory / "data"
    make_file(file, mib)

    def up() -> None:
        upload(cloud, file)

    def down() -> None:
        download(cloud, "/bench/large", mib * PIECE)

    disk, hashed, sent = best(rounds, lambda: copy_beside(file), lambda: copy_hashed(file), up)
    wire, got = best(rounds, lambda: loopback(file), down)
    cpu = [_cpu(cloud, up), _cpu(cloud, down)]

    def line(what: str, seconds: float, cpu: float = 0, of: str = "") -> Figure:
        rounded = round(seconds * 1000, 1)
        return Figure(
            f"{what} {mib} MiB", rounds, round(1 / seconds, 2), rounded, rounded, cpu, round(mib / seconds, 1), of
        )

    return [
        line("cp", disk), line("cp and MD5", hashed),
        line("PUT", sent, cpu[0], f"{disk / sent:.0%} of cp, {hashed / sent:.0%} of cp and MD5"),
        line("loopback", wire), line("GET", got, cpu[1], f"{wire / got:.0%} of loopback"),
    ]  # fmt: skip


def _cpu(cloud: Site, work: Callable[[], None]) -> float:
    """CPU milliseconds of the cloud for a piece of work."""
    before = cpu_of(cloud.pids)
    work()
    return round((cpu_of(cloud.pids) - before) * 1000, 1)


def call(cloud: Site, method: str, path: str, wanted: bytes) -> None:
    """One request."""
    asyncio.run(load(cloud, path, wanted, [request(cloud, method, path, b"" if method == "PUT" else None)], 1, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--server-pids", default="")
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(dir=asked.directory))
    try:
        with site(asked.server_pids, "object-store") as cloud:
            call(cloud, "PUT", "/bench", b"HTTP/1.1 20")
            figures = [figure for size in SMALL for figure in small(cloud, asked.count, asked.clients, size)]
            figures += large(cloud, directory, asked.mib, asked.rounds)
    finally:
        shutil.rmtree(directory)
    for one in figures:
        sys.stdout.write(
            f"{one.what:<18} {one.per_second:>9.1f} /s  median {one.median_ms:>7.2f} ms  p99 {one.slowest_ms:>7.2f} ms  "
            f"CPU {one.cpu_ms:>8.3f} ms {one.mib_per_second:>8.1f} MiB/s  {one.of}\n"
        )
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")


if __name__ == "__main__":
    main()
