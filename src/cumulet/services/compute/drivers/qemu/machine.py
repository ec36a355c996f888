"""One running virtual machine: its process, held by a pidfd, and its QMP connection."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError, Runstate

from .. import HypervisorError, Power, ServerState
from . import process

CONNECT_SECONDS = 20.0
COMMAND_SECONDS = 20.0
BUTTON_SECONDS = 5.0
"""How often the power button is pressed again: a guest that was not up yet has missed it."""
QUIT_SECONDS = 5.0
PAUSED_STATES = {"paused", "io-error", "suspended", "internal-error", "guest-panicked", "watchdog"}


class Refused(HypervisorError):
    """QEMU answered a command with an error. `kind` is the error's class, such as `DeviceNotFound`."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class Machine:
    """Made by `of_child` or `of_found`; lives until its process ends (`ended`) or `release` lets go of it."""

    def __init__(
        self, server_id: str, pid: int, pidfd: int, qmp_socket: Path, on_end: Callable[["Machine"], None]
    ) -> None:
        self.id = server_id
        self.pid = pid
        self.power: Power = "running"
        self.ended = asyncio.Event()
        self.asked = False
        """Set while the end of the process is wanted by us, so that nobody is told of it."""
        self._pidfd = pidfd
        self._socket = qmp_socket
        self._on_end = on_end
        self._shut_down = False
        self._client: QMPClient | None = None
        self._connection: socket.socket | None = None
        self._events: asyncio.Task[None] | None = None
        asyncio.get_running_loop().add_reader(pidfd, self._process_ended)

    @classmethod
    def of_child(cls, server_id: str, pid: int, qmp_socket: Path, on_end: Callable[["Machine"], None]) -> "Machine":
        """Hold a process just started; its id cannot have changed hands, as nobody but us could reap it."""
        return cls(server_id, pid, os.pidfd_open(pid), qmp_socket, on_end)

    @classmethod
    def of_found(
        cls, server_id: str, pid: int, folder: Path, qmp_socket: Path, on_end: Callable[["Machine"], None]
    ) -> "Machine | None":
        """Hold a process found running; None if it has ended meanwhile or is not this server's."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        if not process.belongs(pid, folder):  # asked after pidfd_open, so the id cannot change hands any more
            os.close(pidfd)
            return None
        return cls(server_id, pid, pidfd, qmp_socket, on_end)

    @property
    def state(self) -> ServerState:
        return ServerState(self.id, self.power, None if self.ended.is_set() else self.pid)

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.runstate == Runstate.RUNNING

    async def connect(self) -> None:
        """Open the QMP connection and learn the power state. Fails with HypervisorError if QEMU ends or does not answer."""
        await self._disconnect()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client = QMPClient(self.id)
        try:
            connection.setblocking(False)
            connection.connect(str(self._socket))  # a unix socket: succeeds or fails at once
            await asyncio.wait_for(client.connect(connection), CONNECT_SECONDS)
        except (OSError, ConnectError, TimeoutError) as error:
            connection.close()
            reason = "no answer on its QMP socket" if isinstance(error, TimeoutError) else str(error)
            raise HypervisorError(f"QEMU of server {self.id} cannot be reached: {reason}") from error
        except asyncio.CancelledError:
            connection.close()  # QEMU speaks to one at a time: the next one must not wait for us
            raise
        self._client, self._connection = client, connection
        self._events = asyncio.create_task(self._follow_events(client), name=f"qmp-events-{self.id}")
        status = await self.execute("query-status")
        self._set_status(status["status"])

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """Run one QMP command, over a new connection if the old one broke."""
        if not self.connected:
            await self.connect()
        assert self._client is not None
        try:
            return await asyncio.wait_for(self._client.execute(command, arguments), COMMAND_SECONDS)
        except ExecuteError as error:
            raise Refused(f"QEMU refused {command}: {error}", error.error_class) from error
        except (ExecInterruptedError, QMPError) as error:
            raise HypervisorError(f"QEMU of server {self.id} ended during {command}") from error
        except TimeoutError as error:
            raise HypervisorError(
                f"QEMU of server {self.id} did not answer {command} in {COMMAND_SECONDS:g} s"
            ) from error

    async def send_descriptor(self, name: str, descriptor: int) -> None:
        """Give QEMU a copy of an open descriptor, which commands find under `name`.

        It goes beside a blank, which JSON ignores, on the connection's own socket: event loops other than asyncio's hide
        that socket, so `QMPClient.send_fd_scm` cannot be used.
        """
        if not self.connected:
            await self.connect()
        assert self._connection is not None
        try:
            socket.send_fds(self._connection, [b" "], [descriptor])
        except OSError as error:
            raise HypervisorError(f"QEMU of server {self.id} did not take a descriptor: {error}") from error
        await self.execute("getfd", {"fdname": name})

    async def devices(self) -> set[str]:
        """Ids of the devices that were given one."""
        return {item["name"] for item in await self.execute("qom-list", {"path": "/machine/peripheral"})}

    @contextlib.contextmanager
    def hear(self, event: str) -> Iterator[Callable[[float], Awaitable[None]]]:
        """Gives a function that waits for the next such event, or for so many seconds."""
        if self._client is None:
            raise HypervisorError(f"there is no connection to QEMU of server {self.id}")
        with self._client.listener((event,)) as events:

            async def wait(seconds: float) -> None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(events.get(), seconds)

            yield wait

    async def shut_down(self, grace: float) -> None:
        """Press the power button until the guest is off; after `grace` seconds pull the plug."""
        self.asked = True
        deadline = asyncio.get_running_loop().time() + grace
        while self.power == "running" and not self.ended.is_set():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            with contextlib.suppress(HypervisorError):  # it ended meanwhile, or QEMU itself hangs: then the plug
                await self.execute("system_powerdown")
            await self._wait_ended(min(BUTTON_SECONDS, left))
        await self.quit()

    async def quit(self) -> None:
        """End the process: QEMU is told to write out its disks, and killed if it does not end."""
        self.asked = True
        if not self.ended.is_set():
            with contextlib.suppress(HypervisorError):
                await self.execute("quit")
                await self._wait_ended(QUIT_SECONDS)
        await self.kill()

    async def kill(self) -> None:
        """Pull the plug; returns when the process is gone."""
        self.asked = True
        if not self.ended.is_set():
            process.kill(self._pidfd)
            await self.ended.wait()
        await self._disconnect()

    async def release(self) -> None:
        """Let go; the machine runs on."""
        if not self.ended.is_set():
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self.ended.set()
        await self._disconnect()

    async def _wait_ended(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)

    def _process_ended(self) -> None:
        """The pidfd became readable: decide what the end was, and tell."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        status = process.reap(self._pidfd)
        os.close(self._pidfd)
        self.power = "shutdown" if self.asked or self._shut_down or status == 0 else "crashed"
        self.ended.set()
        self._on_end(self)

    async def _follow_events(self, client: QMPClient) -> None:
        with client.listener(("SHUTDOWN", "STOP", "RESUME")) as events:
            async for event in events:
                match event["event"]:
                    case "SHUTDOWN":
                        self._shut_down = True
                    case "STOP":
                        self.power = "paused"
                    case "RESUME":
                        self.power = "running"

    def _set_status(self, status: str) -> None:
        if not self.ended.is_set():
            self.power = "paused" if status in PAUSED_STATES else "running"

    async def _disconnect(self) -> None:
        client, events = self._client, self._events
        self._client = self._connection = self._events = None
        if events is not None:
            events.cancel()
            await asyncio.gather(events, return_exceptions=True)
        if client is not None:
            with contextlib.suppress(QMPError, OSError, EOFError):  # the connection broke: that is what is wanted
                await client.disconnect()
