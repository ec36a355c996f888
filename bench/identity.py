"""What identity costs: the same load for any cloud, and the CPU that its servers spend on it.

usage: python -m bench.identity                               a cloud of its own, with simulated drivers
       python -m bench.identity --source OTHER/src            and one from another checkout, for comparison, in turn
       OS_AUTH_URL=... OS_USERNAME=... OS_PASSWORD=... OS_PROJECT_NAME=... \\
           python -m bench.identity --server-pids PID[,PID]   a cloud that runs already, upstream's for one

Closed loop: each of the clients has a connection of its own and sends its next request when it has had its reply. The
endpoint comes from the catalogue. Prints a table, and the same as JSON. CPU per request, children included, is the figure
that other work on the machine disturbs least; what the call costs without HTTP is measured in this process.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop
from msgspec import Struct

import cumulet
from cumulet.api.app import App
from cumulet.api.http import Request, Response
from cumulet.api.policy import Policy
from cumulet.services.identity.declaration import SERVICE
from cumulet.services.identity.password import Passwords
from cumulet.services.identity.runtime import IdentityRuntime
from tests.cloud import ProcessCloud
from tests.harness import kernel
from tests.services.identity.conftest import CHEAP, PASSWORDS, wanted

TICK = os.sysconf("SC_CLK_TCK")
HERE = Path(cumulet.__file__).parents[1]


class Figures(Struct):
    """What one operation took. CPU is of the server's processes, for each request; None where they are not known."""

    cloud: str
    operation: str
    requests: int
    errors: int
    per_second: float
    p50_ms: float
    p95_ms: float
    cpu_ms: float | None
    reply_bytes: int
    load: float  # the machine's load average, of which the measurement itself is a part


class Reply(Struct):
    status: int
    headers: dict[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """One connection that asks one thing at a time, and is opened again where the server closes it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._reply: asyncio.Future[Reply] | None = None

    async def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Reply:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", "Accept: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await loop.create_connection(lambda: self, self.host, self.port)
        assert self._transport is not None
        self._received.clear()
        self._reply = loop.create_future()
        self._transport.write("\r\n".join((*lines, "\r\n")).encode() + body)
        reply = await self._reply
        if reply.headers.get("connection", "").lower() == "close":
            self.close()
        return reply

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._reply is None or self._reply.done():
            return
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(self._received) - end - 4 >= int(headers.get("content-length", 0)):
            self._reply.set_result(Reply(int(first.split()[1]), headers, bytes(self._received[end + 4 :])))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error or ConnectionResetError("the server closed the connection"))


class Target:
    """A cloud to measure, as its environment names it: a token, and the identity service's URL from its catalogue."""

    def __init__(self, name: str, environment: dict[str, str], pids: Sequence[int], clients: int) -> None:
        self.name = name
        self.pids = pids
        self.clients = clients
        domain = {"id": environment.get("OS_USER_DOMAIN_ID", "default")}
        user = {
            "name": environment["OS_USERNAME"],
            "password": environment["OS_PASSWORD"],
            "domain": {"id": environment.get("OS_USER_DOMAIN_ID", "default")},
        }
        project = {"name": environment["OS_PROJECT_NAME"], "domain": domain}
        identity = {"methods": ["password"], "password": {"user": user}}
        self.login = msgspec.json.encode({"auth": {"identity": identity, "scope": {"project": project}}})
        self.url = environment["OS_AUTH_URL"].rstrip("/").removesuffix("/v3")
        self.token = ""

    async def enter(self) -> None:
        reply = await Connection(self.url).ask("POST", self.path("/auth/tokens"), {}, self.login)
        if reply.status != 201:
            raise SystemExit(f"{self.name}: no token: {reply.status} {reply.body[:300]!r}")
        self.token = reply.headers["x-subject-token"]
        for service in msgspec.json.decode(reply.body)["token"]["catalog"]:
            for endpoint in service["endpoints"]:
                if service["type"] == "identity" and endpoint["interface"] == "public":
                    self.url = endpoint["url"].rstrip("/").removesuffix("/v3")

    def path(self, path: str) -> str:
        return f"{urlsplit(self.url).path}/v3{path}"

    async def have_users(self, count: int) -> None:
        """Have at least so many users."""
        connection, auth = Connection(self.url), {"X-Auth-Token": self.token}
        listed = await connection.ask("GET", self.path("/users"), auth)
        for _ in range(len(msgspec.json.decode(listed.body)["users"]), count):
            user = {"name": f"bench-{os.urandom(6).hex()}", "domain_id": "default", "password": "Bench-1-secret"}
            reply = await connection.ask("POST", self.path("/users"), auth, msgspec.json.encode({"user": user}))
            assert reply.status == 201, reply.body
        connection.close()

    async def measure(
        self, operation: str, count: int, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> Figures:
        times: list[float] = []
        errors, size = 0, 0
        left = iter(range(count))

        async def client(connection: Connection) -> None:
            nonlocal errors, size
            for _ in left:
                started = time.perf_counter()
                reply = await connection.ask(method, self.path(path), headers, body)
                times.append(time.perf_counter() - started)
                errors += reply.status >= 300
                size = len(reply.body)

        connections = [Connection(self.url) for _ in range(self.clients)]
        for connection in connections:  # warm up, and connect
            await connection.ask(method, self.path(path), headers, body)
        before, started = cpu_seconds(self.pids), time.perf_counter()
        await asyncio.gather(*map(client, connections))
        took, spent = time.perf_counter() - started, cpu_seconds(self.pids) - before
        for connection in connections:
            connection.close()
        times.sort()
        return Figures(
            cloud=self.name,
            operation=operation,
            requests=count,
            errors=errors,
            per_second=round(count / took, 1),
            p50_ms=round(times[count // 2] * 1000, 2),
            p95_ms=round(times[count * 95 // 100] * 1000, 2),
            cpu_ms=round(spent * 1000 / count, 3) if self.pids else None,
            reply_bytes=size,
            load=round(os.getloadavg()[0], 1),
        )

    async def run(self, operation: str, count: int) -> Figures:
        auth = {"X-Auth-Token": self.token}
        if operation == "issue a token":
            return await self.measure(operation, count, "POST", "/auth/tokens", {}, self.login)
        if operation == "validate a token":
            return await self.measure(operation, count, "GET", "/auth/tokens", {**auth, "X-Subject-Token": self.token})
        return await self.measure(operation, count, "GET", "/users", auth)


OPERATIONS = {"issue a token": 200, "validate a token": 10_000, "list 100 users": 2_000}
"""With how many requests each, on a cloud of our own; `--scale` makes it fewer for a slower one."""


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU that processes and all their children have used, user and system."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir() if pids else ():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has just ended
                continue
            ticks[int(entry.name)] = int(fields[11]) + int(fields[12])
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    family, new = set(pids), list(pids)
    while new:
        new = [child for pid in new for child in children.get(pid, []) if child not in family]
        family.update(new)
    return sum(ticks.get(pid, 0) for pid in family) / TICK


async def measure_targets(targets: Sequence[Target], scale: float) -> list[Figures]:
    """Each operation on each cloud, the clouds in turn."""
    for target in targets:
        await target.enter()
        await target.have_users(100)
    return [
        await target.run(operation, max(8, int(count * scale)))
        for operation, count in OPERATIONS.items()
        for target in targets
    ]


class Sent:
    """A request's body that is here already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body


async def cpu_ms(count: int, act: Callable[[], Awaitable[Any]]) -> float:
    """Milliseconds of CPU of this process for each time."""
    await act()
    started = time.process_time()
    for _ in range(count):
        await act()
    return round((time.process_time() - started) * 1000 / count, 4)


async def measure_calls(directory: Path) -> dict[str, float]:
    """Milliseconds of CPU of what lies under the calls: a validation inside the program, a login without its hash, a hash."""
    async with kernel(directory) as parts:
        runtime, strong = IdentityRuntime(parts, hasher=CHEAP), Passwords()
        await runtime.ensure_bootstrap(wanted())
        await runtime.start()
        app = App(SERVICE, runtime, runtime.authenticate, Policy(SERVICE.rules))
        named = {"OS_AUTH_URL": "", "OS_USERNAME": "admin", "OS_PASSWORD": PASSWORDS["admin"]}
        body = Target("", {**named, "OS_PROJECT_NAME": "admin"}, [], 1).login
        length = {"Content-Length": str(len(body))}

        async def login() -> Response:
            return await app(Request("POST", "/v3/auth/tokens", "", length, Sent(body)))

        async def nothing() -> None:
            await runtime.write(lambda tx: None)

        token = (await login()).headers["X-Subject-Token"]

        async def cold() -> None:
            await nothing()
            await runtime.authenticate(token)

        stored, cheap = await strong.hash("secret"), await runtime.passwords.hash("secret")
        written = await cpu_ms(500, nothing)
        figures = {
            "who holds a token, from memory": await cpu_ms(50_000, lambda: runtime.authenticate(token)),
            "what a token means, from memory": await cpu_ms(50_000, lambda: runtime.session(token)),
            "who holds a token, after a change": round(await cpu_ms(500, cold) - written, 4),
            "log in, with a hash that costs nothing": await cpu_ms(1_000, login),
            "verify that hash": await cpu_ms(1_000, lambda: runtime.passwords.verify(cheap, "secret")),
            "verify a real one": await cpu_ms(20, lambda: strong.verify(stored, "secret")),
        }
        strong.stop()
        await runtime.stop()
    return figures


def show(figures: Sequence[Figures], calls: dict[str, float]) -> None:
    """The table, then the same as JSON."""
    lines = [
        f"{'cloud':<10} {'operation':<18} {'req/s':>9} {'p50 ms':>8} {'p95 ms':>8} {'CPU ms':>8} {'errors':>6} {'load':>5}"
    ]
    for f in figures:
        cpu = "" if f.cpu_ms is None else f"{f.cpu_ms:.3f}"
        lines.append(
            f"{f.cloud:<10} {f.operation:<18} {f.per_second:>9.1f} {f.p50_ms:>8.2f} {f.p95_ms:>8.2f} {cpu:>8} "
            f"{f.errors:>6} {f.load:>5.1f}"
        )
    lines += [f"{name:<40} {value:>9.4f} ms CPU, inside the program" for name, value in calls.items()]
    encoded = msgspec.json.encode({"figures": figures, "calls": calls}).decode()
    sys.stdout.write("\n".join((*lines, encoded, "")))


def own_clouds(directory: Path, sources: Sequence[Path], clients: int) -> tuple[list[ProcessCloud], list[Target]]:
    clouds, targets = [], []
    for number, source in enumerate(sources):
        data = directory / str(number)
        environment = {"PYTHONPATH": str(source)}
        cloud = ProcessCloud(data, "--hypervisor", "simulated", "--network", "simulated", environment=environment)
        cloud.start()
        clouds.append(cloud)
        assert cloud.process is not None
        secret = msgspec.json.decode((data / "secrets.json").read_bytes())["admin_password"]
        named = {"OS_AUTH_URL": f"{cloud.url('identity')}/v3", "OS_USERNAME": "admin", "OS_PASSWORD": secret}
        name = "this" if source == HERE else source.parent.name
        targets.append(Target(name, {**named, "OS_PROJECT_NAME": "admin"}, [cloud.process.pid], clients))
    return clouds, targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, action="append", default=[], help="the src of another checkout")
    parser.add_argument("--server-pids", default="", help="the processes of the cloud that OS_AUTH_URL names")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--scale", type=float, default=1.0, help="how many of the usual requests")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as name:
        directory = Path(name)
        if "OS_AUTH_URL" in os.environ:
            pids = [int(pid) for pid in options.server_pids.split(",") if pid]
            running = Target("named", dict(os.environ), pids, options.clients)
            show(uvloop.run(measure_targets([running], options.scale)), {})
            return
        clouds, targets = own_clouds(directory, [*options.source, HERE], options.clients)
        try:
            figures = uvloop.run(measure_targets(targets, options.scale))
        finally:
            for cloud in clouds:
                cloud.stop()
        (directory / "calls").mkdir()
        show(figures, uvloop.run(measure_calls(directory / "calls")))


if __name__ == "__main__":
    main()
