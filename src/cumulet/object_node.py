"""A host that only stores: the storage servers of object storage without any other service. `cumulet object-node` runs it."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

from msgspec import Struct

from cumulet import ports, preflight, status
from cumulet.api.server import Server, bind, is_taken
from cumulet.config import Settings, SettingsError
from cumulet.logs import configure_logging
from cumulet.services.object_store.host import KINDS
from cumulet.services.object_store.inside import Inside
from cumulet.services.object_store.node import Kind
from cumulet.services.object_store.ring.data import RingError

log = logging.getLogger("cumulet.object_node")


class Told(Struct, frozen=True):
    """What such a host has of a kernel."""

    settings: Settings


async def run(settings: Settings, announce: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    os.umask(0o077)  # whatever this process and its children write is their owner's alone
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    configure_logging(settings)
    try:
        async with AsyncExitStack() as began:
            await _start(settings, began)
            for kind in KINDS:
                row = ports.port(kind, settings.port_offset)
                announce(f"  {kind:<10} {ports.root_url(settings.object_bind, row)}")
            announce(f"ready in {status.seconds_since_start():.2f} s")
            await stopped.wait()
            announce("stopping")
    except (RingError, SettingsError, OSError) as error:
        announce(f"cannot start: {error}")
        return 1
    return 0


async def _start(settings: Settings, began: AsyncExitStack) -> None:
    """Listen, bring everything up, answer; what began is let go in the reverse order."""
    sockets: dict[Kind, socket.socket] = {}
    for kind in KINDS:
        row = ports.port(kind, settings.port_offset)
        try:
            sockets[kind] = bind(settings.object_bind, row.number)
        except OSError as error:
            if is_taken(error):
                raise OSError(preflight.explain_port_taken(settings.object_bind, row)) from error
            raise OSError(
                f"cannot listen on {settings.object_bind} port {row.number}: {error.strerror}; give one of this host's "
                "addresses with --object-bind"
            ) from error
        began.callback(sockets[kind].close)
    inside = Inside(Told(settings))
    began.push_async_callback(inside.stop)
    await inside.start()
    host, cluster = inside.host, inside.cluster
    server = Server()
    began.push_async_callback(server.stop)
    for kind, sock in sockets.items():
        await server.listen(host.faces[kind].answer, sock)
    if not any(cluster.is_here("object", device) for ring in cluster.files.values() for device in ring.every()):
        log.warning("no ring of objects names %s: this node holds nothing yet", settings.object_bind)
