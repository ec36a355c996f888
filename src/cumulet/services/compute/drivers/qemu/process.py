"""QEMU processes as the host sees them: started detached, recognised by their arguments, held by pidfd.

No record decides which process belongs to which server: the path of the server's pid file among the arguments of a
process does. So nothing is lost if the program dies between starting a machine and writing anything down, and
a process id that the kernel gave to somebody else is never taken for a server.

A process that was begun by a program killed at that very moment has no arguments of its own yet. While it is in between, it
holds a lock (flock(2)) on the file `starting`, which the kernel lets go of at exec(2); `running` waits for that.
"""

import contextlib
import fcntl
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import HypervisorError
from .command import PROGRAM

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
PACKAGE = "qemu-system-x86"
EXEC_PAUSE = 0.001
EXEC_LOOKS = 200
"""How often, and after how many seconds each time, a process that is inside exec(2) is looked at: a busy machine may leave it
there for a while."""


def spawn(program: str, arguments: list[str], log: Path, descriptors: Sequence[int], servers: Path) -> int:
    """Start `program` in a session of its own, with its output in `log` and only `descriptors` open. Returns the pid."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *(
            (os.POSIX_SPAWN_DUP2, number, number) for number in descriptors
        ),  # to itself: open beyond exec, in the child only
    ]
    every_signal = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
    with _starting(servers, fcntl.LOCK_SH):
        return os.posix_spawn(
            program, arguments, ENVIRONMENT, file_actions=actions, setsid=True, setsigmask=(), setsigdef=every_signal
        )


@contextlib.contextmanager
def _starting(servers: Path, kind: int) -> Iterator[None]:
    """Hold the lock of those that are about to become machines, which a child shares until it is one."""
    handle = os.open(servers.parent / "starting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)


def listening_socket(path: Path) -> socket.socket:
    """A unix socket to hand to a process: one may connect to it before that process is ready, and fails if it dies."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise HypervisorError(f"cannot listen on {path}: {error}") from error
    return listener


def running(servers: Path) -> dict[str, int]:
    """Every QEMU process whose pid file lies in a folder of `servers`: server id -> pid. Those just begun are waited for."""
    with _starting(servers, fcntl.LOCK_EX):
        pass
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (folder := _folder_of(int(name))) is not None and folder.parent == servers:
            found[folder.name] = int(name)
    return found


def belongs(pid: int, folder: Path) -> bool:
    """Whether process `pid` is the machine of the server whose files are in `folder`."""
    return _folder_of(pid) == folder


def _arguments(pid: int) -> bytes:
    """What a process was started with. Inside exec(2) it has a program already and no arguments yet: those are waited for. One
    without either (the kernel's own, or one that has ended) has none."""
    for _ in range(EXEC_LOOKS):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if told := file.read():
                return told
        os.readlink(f"/proc/{pid}/exe")  # fails where there is no program
        time.sleep(EXEC_PAUSE)
    return b""


def _folder_of(pid: int) -> Path | None:
    try:
        arguments = _arguments(pid).split(b"\0")
        if os.path.basename(arguments[0]) != PROGRAM.encode():
            return None
        return Path(os.fsdecode(arguments[arguments.index(b"-pidfile") + 1])).parent
    except (OSError, ValueError, IndexError):  # ended meanwhile, or no machine
        return None


def kill(pidfd: int) -> None:
    """Pull the plug of exactly the process that `pidfd` holds."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def reap(pidfd: int) -> int | None:
    """The exit status of an ended child of ours, negative for a signal; None if somebody else is its parent."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def last_line(log: Path) -> str:
    """The last thing a process said, for an error's text."""
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[-4096:].decode(errors="replace").strip().splitlines()
        if lines:
            return lines[-1]
    return "it said nothing"
