"""The disk process: makes the changes that it is sent, in threads, until whoever started it is gone.

usage: python -m cumulet.services.object_store.storage.disk_worker DESCRIPTOR    (started by `disk_process.py`)

It keeps nothing in memory, and nothing open while it has nothing to do. Its life is that of the socket: signals that a terminal
or a service manager sends to all processes alike are not for it, as the program goes on working while it stops.
"""

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import traceback

from cumulet.services.object_store.storage import object_file
from cumulet.services.object_store.storage.disk_messages import (
    LARGEST,
    Asked,
    Failed,
    Ready,
    Refusal,
    Reply,
    Torn,
    decode_asked,
    encode,
)
from cumulet.services.object_store.storage.object_changes import Refused, make

THREADS = 8
TEXT = 8 << 10
"""Characters of a traceback that are told."""


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # else it interrupts the event loop more often than it need to
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    sock = socket.socket(fileno=int(sys.argv[1]))
    for _ in range(THREADS):
        threading.Thread(target=_work, args=(sock,)).start()
    _say(sock, Reply(0, Ready()))


def _work(sock: socket.socket) -> None:
    """Make one change after the other. All threads end as soon as one sees that nobody is there to be told."""
    room = memoryview(bytearray(LARGEST))
    while True:
        try:
            size = sock.recv_into(room)
        except ConnectionError:  # closed before our replies were read
            size = 0
        if size == 0:
            os._exit(0)
        _say(sock, answer(decode_asked(room[:size])))


def answer(asked: Asked) -> Reply:
    """Make a change; whatever goes wrong is a reply."""
    try:
        return Reply(asked.number, make(asked.change))
    except Refused as refused:
        return Reply(asked.number, Refusal(refused.status, refused.last, refused.text))
    except object_file.Torn:
        return Reply(asked.number, Torn())
    except object_file.NoSpace:
        return Reply(asked.number, Failed(errno.ENOSPC, "there is no room"))
    except OSError as error:
        return Reply(asked.number, Failed(error.errno or errno.EIO, error.strerror or str(error)))
    except Exception:  # noqa: BLE001 - a fault, which whoever asked raises
        return Reply(asked.number, Failed(0, traceback.format_exc()[-TEXT:]))


def _say(sock: socket.socket, reply: Reply) -> None:
    try:
        sock.send(encode(reply))
    except OSError:
        os._exit(0)


if __name__ == "__main__":
    main()
