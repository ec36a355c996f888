"""Whole clouds for tests: inside this process with simulated drivers, or as the real program in a process of its own."""

import asyncio
import contextlib
import ctypes
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import openstack
import openstack.connection
import requests

from cumulet import lock, ports, preflight
from cumulet.config import Settings
from cumulet.program import Program

SOURCE = Path(__file__).parents[1]
CLONE_NEWNET = 0x40000000
CLIENTS = "to outgoing connections"
"""Of what is said where a client has a port."""
MINUTE = 65.0
"""Seconds for which Linux keeps a port that a client has had, and a little more."""


def free_offset() -> int:
    """A port offset at which every port of the program is free. All but 35357 are below those that Linux gives to clients."""
    for _ in range(100):
        offset = random.randrange(10000, 23000)
        with contextlib.ExitStack() as stack:
            try:
                for row in ports.served(offset):
                    stack.enter_context(contextlib.closing(_bound(row.number)))
            except OSError:
                continue
            return offset
    raise RuntimeError("no free range of ports was found")


def free_port() -> int:
    """A port below those that Linux gives to clients, so that none of them takes it before the server that it is for."""
    for _ in range(1000):
        with contextlib.suppress(OSError), contextlib.closing(_bound(number := random.randrange(10000, 32000))):
            return number
    raise RuntimeError("no free port was found")


def _bound(number: int) -> socket.socket:
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", number))
    except OSError:
        sock.close()
        raise
    return sock


class Cloud:
    """What tests ask of a running cloud, however it runs."""

    def __init__(self, data: Path, offset: int) -> None:
        self.data = data
        self.offset = offset
        self._tokens: dict[str, str] = {}

    def url(self, name: str) -> str:
        """The root URL of a port of the registry."""
        return ports.root_url("127.0.0.1", ports.port(name, self.offset))

    def connect(self, name: str = "cumulet", **more: Any) -> openstack.connection.Connection:
        """An SDK connection as the cloud `name` of clouds.yaml."""
        config = openstack.config.OpenStackConfig(config_files=[str(self.data / "clouds.yaml")])
        return openstack.connection.Connection(config=config.get_one(name, **more))

    def login(self, user: str, password: str, project: str) -> str:
        """A token of a user of the default domain."""
        domain = {"id": "default"}
        identity: Any = {
            "methods": ["password"],
            "password": {"user": {"name": user, "password": password, "domain": domain}},
        }
        body: Any = {"auth": {"identity": identity, "scope": {"project": {"name": project, "domain": domain}}}}
        reply = requests.post(f"{self.url('identity')}/v3/auth/tokens", json=body, timeout=30)
        assert reply.status_code == 201, reply.text
        return reply.headers["X-Subject-Token"]

    def token(self, name: str = "cumulet") -> str:
        """A token of the cloud `name` of clouds.yaml."""
        if name not in self._tokens:
            self._tokens[name] = self.connect(name).auth_token or ""
        return self._tokens[name]

    def request(
        self, method: str, service: str, path: str, body: Any = None, *, token: str | None = "", **more: Any
    ) -> requests.Response:
        """One HTTP call. `token` is the admin's by default; None sends none."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["X-Auth-Token"] = token or self.token()
        data = more.pop("data", None if body is None else msgspec.json.encode(body))
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        return requests.request(method, self.url(service) + path, data=data, headers=headers, timeout=60, **more)


class InProcessCloud(Cloud):
    """The whole program with simulated drivers, on a thread of this process."""

    def __init__(self, data: Path, **settings: Any) -> None:
        super().__init__(data, free_offset())
        self.settings = Settings(
            data=data, port_offset=self.offset, hypervisor="simulated", network="simulated", **settings
        )
        self.loop = asyncio.new_event_loop()
        self.program = Program(self.settings, preflight.Plan("simulated", "simulated"))
        self._thread = threading.Thread(target=self.loop.run_forever, name="cloud", daemon=True)

    def call(self, coroutine: Any) -> Any:
        """Run a coroutine on the cloud's own event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(120)

    def start(self) -> None:
        self._thread.start()
        self.call(self.program.start())

    def stop(self) -> None:
        self.call(self.program.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()

    def settle(self) -> None:
        """Wait until every operation has ended."""
        self.call(self.program.kernel.operations.idle())


class ProcessCloud(Cloud):
    """`cumulet up` as a process of its own; with `namespace`, inside a network namespace on the default ports.

    It is entered without a mount namespace of its own (which `ip netns exec` makes): what is made under /run/netns must stay
    in sight of the next start.
    """

    def __init__(
        self, data: Path, *arguments: str, namespace: str = "", environment: dict[str, str] | None = None
    ) -> None:
        super().__init__(data, 0 if namespace else free_offset())
        self.namespace = namespace
        self.arguments = arguments
        self.environment = {**os.environ, "PYTHONPATH": str(SOURCE / "src"), **(environment or {})}
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs where the cloud runs."""
        return [*(["nsenter", f"--net=/run/netns/{self.namespace}"] if self.namespace else []), *arguments]

    def start(self, timeout: float = 120.0) -> float:
        """Start and wait for `ready in X s`; returns X. A port that a client has just had is waited for."""
        said, until = len(self.log()), time.monotonic() + MINUTE
        heard = self.launch()
        while True:
            line = heard.get(timeout=timeout)
            if line is None:
                if CLIENTS not in self.log()[said:] or time.monotonic() > until:
                    raise AssertionError("the program ended: " + "".join(self.lines) + self.log()[-4000:])
                time.sleep(1)
                said, heard = len(self.log()), self.launch()
            elif line.startswith("ready in "):
                return float(line.split()[2])

    def launch(self) -> "queue.SimpleQueue[str | None]":
        """Begin to start; returns the lines that the program will print, None being the end of them."""
        up = ["up", "--data", str(self.data), "--port-offset", str(self.offset), *self.arguments]
        with open(self.data.parent / f"{self.data.name}.log", "a") as log:
            self.process = subprocess.Popen(
                self.command(sys.executable, "-m", "cumulet", *up),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment,
            )
        heard: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, args=(self.process, heard), daemon=True)
        self._listener.start()
        return heard

    def _listen(self, process: "subprocess.Popen[str]", heard: "queue.SimpleQueue[str | None]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line)
                heard.put(line)
        heard.put(None)

    def log(self) -> str:
        """What it wrote to standard error, and its log file."""
        files = (self.data.parent / f"{self.data.name}.log", self.data / "cumulet.log")
        return "".join(file.read_text() for file in files if file.exists())

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, no warning."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(120)
            if self._listener is not None:
                self._listener.join(60)
        self._tokens.clear()

    def run(self, *arguments: str, timeout: float = 300, check: bool = True) -> str:
        """Run a command where the cloud runs, with its credentials; returns what it printed."""
        environment = {**self.environment, "OS_CLIENT_CONFIG_FILE": str(self.data / "clouds.yaml")}
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def destroy(self) -> None:
        """End it and remove every trace of it from the host."""
        self.stop()
        if lock.holder(self.data) is None:
            self.run(sys.executable, "-m", "cumulet", "reset", "--yes", "--data", str(self.data), check=False)
        shutil.rmtree(self.data, ignore_errors=True)


@contextlib.contextmanager
def network_namespace(name: str) -> Iterator[str]:
    """A network namespace with loopback up."""
    run_all([["ip", "netns", "add", name], ["ip", "-n", name, "link", "set", "lo", "up"]])
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Have this thread, and what it starts, live in a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as away:
        if libc.setns(away.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter network namespace {namespace}")
        try:
            yield
        finally:
            libc.setns(home.fileno(), CLONE_NEWNET)


def run_all(commands: Sequence[Sequence[str]]) -> None:
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
