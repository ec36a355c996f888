"""What moving image data costs: a large image up and down, and a list of many, of any cloud, beside what the disk and the
loopback of this machine do in the same run.

usage: python -m bench.images [--mib N] [--images N] [--directory DIR]          a cloud of its own, with simulated drivers
       OS_AUTH_URL=... OS_USERNAME=... OS_PASSWORD=... OS_PROJECT_NAME=... \\
           python -m bench.images --server-pids PID[,PID]                       a cloud that runs already, upstream's for one

`cp + hashing` is what a person would do instead: copy the file, make it durable, and read it for its MD5 and its SHA-512.
Data is random, so nothing that compresses helps. The client costs as little as it can: `sendfile` up, `recv_into` down. Put
--directory on the disk that the cloud's data is on, or the comparison means nothing.
"""

import argparse
import hashlib
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests
from msgspec import Struct

from bench.measure import resident_mib
from tests.cloud import ProcessCloud

PIECE = 1 << 20


class Figure(Struct):
    """What one thing took."""

    what: str
    seconds: float
    mib_per_second: float
    of: str = ""  # the share of what it is compared with


class Site(Struct):
    """The cloud that is measured, as its clients see it."""

    url: str
    token: str
    pids: list[int]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"X-Auth-Token": self.token}
        reply = requests.request(method, self.url + path, json=body, headers=headers, timeout=120)
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def connect(self, head: str) -> socket.socket:
        """A connection on which a request was begun."""
        parts = urlsplit(self.url)
        sock = socket.create_connection((parts.hostname, parts.port))
        sock.sendall(
            f"{head.format(prefix=parts.path)} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {self.token}\r\n"
            "Connection: close\r\n".encode()
        )
        return sock


def log_in(environ: dict[str, str], service: str = "image") -> tuple[str, str]:
    """(URL of a service, token)."""
    domain = {"name": environ.get("OS_USER_DOMAIN_NAME", "Default")}
    user = {"name": environ["OS_USERNAME"], "password": environ["OS_PASSWORD"], "domain": domain}
    project = {"name": environ["OS_PROJECT_NAME"], "domain": {"name": environ.get("OS_PROJECT_DOMAIN_NAME", "Default")}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": project}}}
    url = environ["OS_AUTH_URL"].rstrip("/").removesuffix("/v3")
    reply = requests.post(f"{url}/v3/auth/tokens", json=body, timeout=60)
    reply.raise_for_status()
    catalog = reply.json()["token"]["catalog"]
    endpoints = next(one["endpoints"] for one in catalog if one["type"] == service)
    found = next(one["url"] for one in endpoints if one["interface"] == "public")
    return found.rstrip("/").removesuffix("/v2"), reply.headers["X-Subject-Token"]


@contextmanager
def site(pids: str, service: str = "image") -> Iterator[Site]:
    """The cloud that the environment names, or one made for this."""
    if "OS_AUTH_URL" in os.environ:
        url, token = log_in(dict(os.environ), service)
        yield Site(url, token, [int(pid) for pid in pids.split(",") if pid])
        return
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as directory:
        cloud = ProcessCloud(Path(directory) / "data", "--hypervisor", "simulated", "--network", "simulated")
        cloud.start()
        try:
            assert cloud.process is not None
            url = cloud.url(service)
            if service == "object-store":
                url += f"/v1/AUTH_{cloud.connect().current_project_id}"
            yield Site(url, cloud.token(), [cloud.process.pid])
        finally:
            cloud.destroy()


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def copy(source: Path, target: Path) -> None:
    """What `cp` and `sync` do, without sharing blocks."""
    with source.open("rb") as reader, target.open("wb") as writer:
        while piece := reader.read(PIECE):
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())


def digest(path: Path, name: str) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, name)


def swallow(sock: socket.socket, wanted: int) -> None:
    """Read `wanted` bytes from a socket."""
    buffer = bytearray(PIECE)
    left = wanted
    while left > 0:
        got = sock.recv_into(buffer, min(PIECE, left))
        assert got, f"the connection ended {left} bytes early"
        left -= got


def loopback(file: Path) -> None:
    """Send a file over the loopback, as fast as the kernel does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, file.open("rb") as reader:
                connection.sendfile(reader)

        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection(server.getsockname()) as sock:
            swallow(sock, file.stat().st_size)
        thread.join()


def upload(cloud: Site, image: str, file: Path) -> None:
    with cloud.connect(f"PUT {{prefix}}/v2/images/{image}/file") as sock, file.open("rb") as reader:
        head = f"Content-Type: application/octet-stream\r\nContent-Length: {file.stat().st_size}\r\n\r\n"
        sock.sendall(head.encode())
        sock.sendfile(reader)
        status = sock.recv(64)
        assert status.startswith(b"HTTP/1.1 204"), status


def download(cloud: Site, path: str, size: int) -> None:
    """Get so many bytes at a path."""
    with cloud.connect(f"GET {{prefix}}{path}") as sock:
        sock.sendall(b"\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        assert head.startswith(b"HTTP/1.1 200"), head
        swallow(sock, size - len(head.partition(b"\r\n\r\n")[2]))


def make(cloud: Site, name: str) -> str:
    body = {"name": name, "disk_format": "raw", "container_format": "bare"}
    return str(cloud.call("POST", "/v2/images", body)["id"])


def best(rounds: int, *works: Callable[[], object]) -> list[float]:
    """The shortest time of each piece of work, done in turn: what else the machine does meanwhile is the same for all."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for number, work in enumerate(works):
            times[number].append(timed(work))
    return [min(found) for found in times]


def move(cloud: Site, directory: Path, mib: int, rounds: int) -> list[Figure]:
    """A large image up and down, beside the same data on the disk and on the loopback."""
    file, other = directory / "data", directory / "copy"
    with file.open("wb") as writer:
        for _ in range(mib):
            writer.write(os.urandom(PIECE))
    images: list[str] = []

    def up() -> None:
        images.append(make(cloud, "bench"))
        upload(cloud, images[-1], file)
        for image in images[:-1]:
            cloud.call("DELETE", f"/v2/images/{image}")
        del images[:-1]

    def by_hand() -> None:
        copy(file, other)
        digest(other, "md5")
        digest(other, "sha512")
        other.unlink()

    def only_copy() -> None:
        copy(file, other)
        other.unlink()

    def memory() -> float:
        return max((resident_mib(pid) for pid in cloud.pids), default=0)

    before = memory()
    hand, alone, sent = best(rounds, by_hand, only_copy, up)
    after = memory() - before
    size = file.stat().st_size
    wire, got = best(rounds, lambda: loopback(file), lambda: download(cloud, f"/v2/images/{images[0]}/file", size))
    end = memory() - before
    cloud.call("DELETE", f"/v2/images/{images[0]}")

    def line(what: str, seconds: float, of: str = "") -> Figure:
        return Figure(what, round(seconds, 3), round(mib / seconds, 1), of)

    return [
        line("cp", alone), line("cp + hashing", hand), line("upload", sent, f"{hand / sent:.0%} of cp + hashing"),
        line("loopback", wire), line("download", got, f"{wire / got:.0%} of loopback"),
        Figure(f"memory: {before:.0f} MiB, +{after:.0f} after uploads, +{end:.0f} at the end", 0, 0),
    ]  # fmt: skip


def lists(cloud: Site, count: int) -> list[Figure]:
    """A list of many images."""
    made = [make(cloud, f"bench-{number}") for number in range(count)]
    found = cloud.call("GET", f"/v2/images?limit={count}")["images"]
    assert len(found) == count, f"{len(found)} of {count} are listed"
    seconds = min(timed(lambda: cloud.call("GET", f"/v2/images?limit={count}")) for _ in range(5))
    for image in made:
        cloud.call("DELETE", f"/v2/images/{image}")
    return [Figure(f"list of {count} images", round(seconds, 4), 0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--server-pids", default="")
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(dir=asked.directory))
    try:
        with site(asked.server_pids) as cloud:
            figures = move(cloud, directory, asked.mib, asked.rounds) + (
                lists(cloud, asked.images) if asked.images else []
            )
    finally:
        shutil.rmtree(directory)
    for figure in figures:
        sys.stdout.write(
            f"{figure.what:<40} {figure.seconds:>9.3f} s {figure.mib_per_second:>9.1f} MiB/s  {figure.of}\n"
        )
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")


if __name__ == "__main__":
    main()
