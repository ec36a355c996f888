"""The rsync daemon of a storage host on port 873, which takes files from other nodes: one module for each kind of storage.

It is a process of its own, the system's rsync with a configuration that the program writes: it runs where the rings name
other nodes, takes connections from their addresses only, and ends with the program.
Reference: rsyncd.conf(5)
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from cumulet import ports
from cumulet.config import Settings
from cumulet.files import write_atomic
from cumulet.services.object_store.cluster import Cluster

log = logging.getLogger("cumulet.object_store.rsync")

MODULES = ("account", "container", "object")
AT_ONCE = 25
"""Connections that one module takes at one time."""
GRACE = 5.0
DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class RsyncDaemon:
    """Runs while it is needed."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.cluster = cluster
        self.address = settings.object_bind
        self.port = ports.port("rsync", settings.port_offset).number
        self.directory = settings.data.absolute() / "object-store" / "rsync"
        self._process: asyncio.subprocess.Process | None = None
        self._told = ""
        self._complained = False

    async def follow(self) -> None:
        """Start it where there are other nodes and it does not run; give it their addresses. It reads its configuration anew
        for each connection."""
        if self.cluster.alone:
            return
        program = shutil.which("rsync")
        if program is None:
            if not self._complained:
                log.error("this node takes no copies of objects from others: the program rsync is not there")
            self._complained = True
            return
        text = self._configuration()
        file = self.directory / "rsyncd.conf"
        if text != self._told:
            await asyncio.to_thread(_write, file, text)
            self._told = text
        if self._process is None or self._process.returncode is not None:
            if self._process is not None:
                log.error("the rsync daemon ended with %s and is started again", self._process.returncode)
            self._process = await self._start(program, file)

    async def _start(self, program: str, file: Path) -> asyncio.subprocess.Process:
        where = (f"--address={self.address}", f"--port={self.port}", f"--config={file}")
        process = await asyncio.create_subprocess_exec(
            program,
            "--daemon",
            "--no-detach",
            *where,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            preexec_fn=_end_with(os.getpid()),
        )
        log.info("the rsync daemon listens on %s port %s (process %s)", self.address, self.port, process.pid)
        return process

    def _configuration(self) -> str:
        allowed = " ".join(sorted(self.cluster.addresses | {self.address}))
        lines = [
            f"log file = {self.directory / 'rsyncd.log'}",
            "use chroot = no",
            f"uid = {os.getuid()}",
            f"gid = {os.getgid()}",
            "reverse lookup = no",
            f"hosts allow = {allowed}",
            "",
        ]
        for module in MODULES:
            lines += [
                f"[{module}]",
                f"path = {self.cluster.devices}",
                "read only = no",
                "list = no",
                f"max connections = {AT_ONCE}",
                f"lock file = {self.directory / module}.lock",
                "",
            ]
        return "\n".join(lines)

    async def stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(GRACE):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(file, text)


def _end_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes rsync: ask the kernel to end it when the program is gone, however that ends."""
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(DIE_WITH_PARENT, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask
