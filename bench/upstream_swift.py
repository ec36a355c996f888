"""Upstream's swift as an installation of one machine, for `bench.beside_swift` to measure.

Account, container, object and proxy servers with their default workers, the pipeline that swift's sample has for keystone,
memcached for what they remember, one device and one copy of everything, no daemons. Who holds a token is asked of the identity
service that it is started with. All of it lies in one directory; the programs are those of a virtual environment.
"""

import ctypes
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests
from msgspec import Struct

VERSION = "2.38.3"
PACKAGES = (f"swift=={VERSION}", "keystonemiddleware")
STORAGE = ("account", "container", "object")
SERVERS = (*STORAGE, "proxy")
DEVICE = "d1"
POWER = 10
"""2**10 partitions, as many as Cumulet's own first start makes."""
PIPELINE = (
    "catch_errors gatekeeper healthcheck proxy-logging cache listing_formats container_sync bulk tempurl ratelimit authtoken "
    "keystoneauth copy container-quotas account-quotas slo dlo versioned_writes symlink proxy-logging proxy-server"
)
PR_SET_PDEATHSIG = 1
START = 60.0
"""Seconds within which a server answers."""


class Missing(Exception):
    """Something that has to be installed, or set up, first."""


class Login(Struct):
    """With what swift asks an identity service who holds a token."""

    url: str
    username: str
    password: str
    project: str


def prepare(home: Path) -> Path:
    """A virtual environment with swift, made unless it is there; the directory of its programs. Missing if it cannot be."""
    if not (home / "bin/python").exists():
        sys.stderr.write(f"making a virtual environment with {', '.join(PACKAGES)} in {home}\n")
        venv.create(home, with_pip=True)
    told = "import importlib.metadata as m, keystonemiddleware, swift.proxy.server; print(m.version('swift'))"
    if _run([home / "bin/python", "-c", told]).stdout.strip() != VERSION:
        done = _run([home / "bin/python", "-m", "pip", "install", "-q", *PACKAGES])
        if done.returncode:
            raise Missing(f"pip cannot install {' '.join(PACKAGES)} into {home}:\n{done.stderr[-2000:]}")
        done = _run([home / "bin/python", "-c", told])
        if done.stdout.strip() != VERSION:
            raise Missing(
                f"swift {VERSION} does not start in {home}: {done.stderr[-2000:]}\n"
                "Where liberasurecode is missing: apt-get install liberasurecode1. Where the directory is broken: remove it."
            )
    if shutil.which("memcached") is None:
        raise Missing("memcached is missing, which swift keeps tokens in: apt-get install memcached")
    return home / "bin"


def check(directory: Path) -> None:
    """Missing if swift cannot keep objects there: their metadata is in extended attributes."""
    file = directory / "attributes"
    file.touch()
    try:
        os.setxattr(file, "user.swift.metadata", b"x" * 2048)
    except OSError as error:
        raise Missing(f"the file system of {directory} takes no extended attributes ({error}): name another") from error
    finally:
        file.unlink()


class Swift:
    """An installation in a directory of its own, and its processes."""

    def __init__(self, programs: Path, directory: Path, identity: Login) -> None:
        self.programs = programs
        self.directory = directory
        self.identity = identity
        self.devices = directory / "devices"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OS_"))}
        self.ports = dict(zip((*SERVERS, "memcached"), _free_ports(len(SERVERS) + 1), strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def url(self, project: str) -> str:
        return f"http://127.0.0.1:{self.ports['proxy']}/v1/AUTH_{project}"

    @property
    def pids(self) -> list[int]:
        """All its processes: each server is one that watches and its workers."""
        return [pid for process in self.processes.values() for pid in _tree(process.pid)]

    @contextmanager
    def running(self) -> Iterator["Swift"]:
        self._configure()
        try:
            self._start("memcached", "memcached", *self._memcached())
            for name in SERVERS:
                self._start(name, self.programs / f"swift-{name}-server", self.directory / f"{name}.conf", "--verbose")
            for name in SERVERS:
                self._answers(name)
            yield self
        finally:
            self._stop()

    def _memcached(self) -> list[str]:
        """As Debian has it, but for the port. Root has to name himself."""
        return ["-u", _user(), "-l", "127.0.0.1", "-p", str(self.ports["memcached"]), "-U", "0", "-m", "64"]

    def _start(self, name: str, *command: str | Path) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,  # a server that ends signals its whole group
                preexec_fn=_end_with_parent,
            )

    def _answers(self, name: str) -> None:
        """Wait until a server does."""
        until = time.monotonic() + START
        while time.monotonic() < until and self.processes[name].poll() is None:
            try:
                if requests.get(f"http://127.0.0.1:{self.ports[name]}/healthcheck", timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.05)
        raise Missing(f"swift's {name} server does not answer:\n{self.log(name)[-4000:]}")

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def errors(self) -> list[str]:
        """What its servers complained of, but for keystonemiddleware, which does not know the options of its neighbours."""
        lines = [line for name in SERVERS for line in self.log(name).splitlines()]
        return [line for line in lines if line and not re.search(r'The option "\w+" is not known', line)]

    def _stop(self) -> None:
        """End them in order, and by force what does not end."""
        trees = {name: _tree(process.pid) for name, process in self.processes.items()}
        for process in self.processes.values():
            process.terminate()
        for name, process in self.processes.items():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                for pid in trees[name]:
                    os.kill(pid, signal.SIGKILL)
                process.wait(10)

    def _configure(self) -> None:
        for directory in (self.devices / DEVICE, self.directory / "recon"):
            directory.mkdir(parents=True)
        policy = "[storage-policy:0]\nname = Policy-0\ndefault = yes\n"
        salt = f"[swift-hash]\nswift_hash_path_suffix = {secrets.token_hex(16)}\n"
        self._write("swift.conf", salt + policy)
        for name in STORAGE:
            self._write(f"{name}.conf", self._server(name) + self._storage(name))
            device = f"r1z1-127.0.0.1:{self.ports[name]}/{DEVICE}"
            for step in (["create", str(POWER), "1", "1"], ["add", device, "100"], ["rebalance"]):
                builder = [self.programs / "swift-ring-builder", self.directory / f"{name}.builder"]
                done = _run([*builder, *step], env=self.environment)
                if done.returncode:
                    raise Missing(f"swift-ring-builder {' '.join(step)}: {done.stdout}{done.stderr}")
        self._write("proxy.conf", self._server("proxy") + self._proxy())

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def _server(self, name: str) -> str:
        """What all servers are told. Errors go to a file, and no request is logged: Cumulet logs none either."""
        return (
            f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {self.ports[name]}\nuser = {_user()}\n"
            f"swift_dir = {self.directory}\ndevices = {self.devices}\nmount_check = false\nlog_level = ERROR\n"
        )

    def _storage(self, name: str) -> str:
        return (
            f"[pipeline:main]\npipeline = healthcheck recon backend_ratelimit {name}-server\n"
            f"[app:{name}-server]\nuse = egg:swift#{name}\n"
            "[filter:healthcheck]\nuse = egg:swift#healthcheck\n"
            f"[filter:recon]\nuse = egg:swift#recon\nrecon_cache_path = {self.directory}/recon\n"
            "[filter:backend_ratelimit]\nuse = egg:swift#backend_ratelimit\n"
        )

    def _proxy(self) -> str:
        text = f"[pipeline:main]\npipeline = {PIPELINE}\n"
        text += "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        for name in dict.fromkeys(PIPELINE.split()[:-1]):
            entry = {"cache": "memcache"}.get(name, name.replace("-", "_"))
            told = f"use = egg:swift#{entry}\n" if name != "authtoken" else self._authtoken()
            if name == "cache":
                told += f"memcache_servers = 127.0.0.1:{self.ports['memcached']}\n"
            text += f"[filter:{name}]\n{told}"
        return text

    def _authtoken(self) -> str:
        who = self.identity
        return (
            "paste.filter_factory = keystonemiddleware.auth_token:filter_factory\n"
            f"www_authenticate_uri = {who.url}\nauth_url = {who.url}\nauth_plugin = password\n"
            f"project_domain_id = default\nuser_domain_id = default\nproject_name = {who.project}\n"
            f"username = {who.username}\npassword = {who.password}\n"
            "delay_auth_decision = True\ncache = swift.cache\ninclude_service_catalog = False\n"
        )


def _run(command: list[str | Path], **more: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload,no-any-return]


def _end_with_parent() -> None:
    """Have the kernel end this process with the one that started it, even if that is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(sock.getsockname()[1]) for sock in socks]


def _tree(pid: int) -> list[int]:
    """A process and those that it started; nothing if it is gone."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in _tree(int(child)))]
