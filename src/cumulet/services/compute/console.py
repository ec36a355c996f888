"""Consoles: what the guest wrote, and its screen in a browser.

POST /servers/{id}/remote-consoles · POST /servers/{id}/action: os-getVNCConsole, os-getConsoleOutput

The screen's URL holds a random token that is good for ten minutes; the database keeps its hash only. `Screens` answers on
the port of that URL: the pages of noVNC, and the websocket between them and the machine's screen (RFC 6143).
"""

import asyncio
import hashlib
import mimetypes
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from msgspec import Struct
from sqlalchemy import Connection, select

from cumulet.api.http import Endpoint, File, Request, Response, Upgrade, WebSocket
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER
from cumulet.api.resource import Resource, hidden
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid
from cumulet.core.types import Id, Str64, Time, later, now
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.drivers import HypervisorError
from cumulet.services.compute.server.resource import Server
from cumulet.services.compute.server.state import ALIVE, get_server

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

REMOTE = "os_compute_api:os-remote-consoles"
OUTPUT = "os_compute_api:os-console-output"
RULES = {REMOTE: ADMIN_OR_OWNER_MEMBER, OUTPUT: ADMIN_OR_OWNER_MEMBER}

PAGES = Path("/usr/share/novnc")
NAME = re.compile(r"[A-Za-z0-9_./-]{1,200}")
LIFETIME = 600
"""Seconds in which a token opens a console."""
PIECE = 64 << 10
NO_PAGES = (
    "<!doctype html><title>No console</title><p>The pages of noVNC are not installed on this host. "
    "Install the package <code>novnc</code> and load this page again.</p>"
)


class ConsoleToken(Resource, table="compute_console_token", primary_key=("token_hash",)):
    """The right to see a server's screen."""

    token_hash: Str64 = hidden("SHA-256 of the token.")
    server_id: Id = hidden("The server.")
    expires_at: Time = hidden("When it ends.")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# ---- the calls ----------------------------------------------------------------------------------------------------------


class RemoteConsole(Struct, forbid_unknown_fields=True):
    protocol: Literal["vnc", "spice", "rdp", "serial", "mks"]
    type: Literal["novnc", "xvpvnc", "spice-html5", "rdp-html5", "serial", "webmks"]


class RemoteConsoleBody(Struct, forbid_unknown_fields=True):
    remote_console: RemoteConsole


class OldConsole(Struct, forbid_unknown_fields=True):
    type: Literal["novnc", "xvpvnc"]


class Output(Struct, forbid_unknown_fields=True):
    length: int | str | None = None


async def _url(ctx: Ctx, id: str, kind: str) -> str:
    if kind != "novnc":
        raise Invalid(f"Unavailable console type {kind}.")
    token = secrets.token_urlsafe(32)

    def unit(tx: Connection) -> None:
        server = get_server(tx, ctx, id)
        if server.vm_state not in ("active", "paused", "resized"):
            raise Conflict(f"Instance {id} is not ready")
        db.remove_where(tx, ConsoleToken, ConsoleToken.table.c.expires_at < now())
        db.insert(tx, ConsoleToken(token_hash=_hash(token), server_id=id, expires_at=later(LIFETIME)))

    await ctx.service.kernel.db.run(unit)
    return f"{ctx.service.console_url}/vnc_lite.html?path={quote(f'?token={token}', safe='')}&scale=true"


async def create_console(ctx: Ctx, id: str, body: RemoteConsoleBody) -> Any:
    """Make a URL that shows a server's screen."""
    wanted = body.remote_console
    if ctx.version < (2, 8) and wanted.protocol == "mks":
        raise Invalid("Invalid input for field/attribute protocol. Value: mks.")
    url = await _url(ctx, id, wanted.type if wanted.protocol == "vnc" else wanted.protocol)
    return {"remote_console": {"protocol": wanted.protocol, "type": wanted.type, "url": url}}


async def get_vnc_console(ctx: Ctx, id: str, body: OldConsole) -> Any:
    """Make a URL that shows a server's screen."""
    return {"console": {"type": body.type, "url": await _url(ctx, id, body.type)}}


async def get_output(ctx: Ctx, id: str, body: Output | None) -> Any:
    """Show what the guest wrote to its first serial port."""
    lines = _lines(None if body is None else body.length)
    server = await ctx.service.kernel.db.read_inline(get_server, ctx, id)
    if server.host is None or server.vm_state == "building":
        raise Conflict(f"Instance {id} is not ready")
    try:
        output = await ctx.service.hypervisor.console_log(id, lines)
    except HypervisorError:
        raise Conflict(f"Instance {id} is not ready") from None
    # Clients count the line feeds of a number of lines that they asked for.
    return {"output": output if lines is None else output.removesuffix("\n")}


def _lines(given: int | str | None) -> int | None:
    """How many lines are asked for; None for all."""
    if given is None or given == -1 or given == "-1":
        return None
    try:
        lines = int(given)
    except ValueError:
        raise Invalid(f"Invalid input for field/attribute length. Value: {given}.") from None
    if isinstance(given, bool) or not 0 <= lines <= 1 << 31:
        raise Invalid(f"Invalid input for field/attribute length. Value: {given}.")
    return lines


# ---- the pages and the screen -------------------------------------------------------------------------------------------


class Screens:
    """Answers on the port of the consoles' URLs."""

    def __init__(self, compute: "ComputeRuntime", pages: Path = PAGES) -> None:
        self.compute = compute
        self.pages = pages

    async def answer(self, request: Request) -> Response:
        """A page of noVNC, or the websocket to a screen."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._connect(request)
        if request.method not in ("GET", "HEAD"):
            return _text(405, "Method not allowed.")
        return await asyncio.to_thread(self._page, request.path)

    def _page(self, path: str) -> Response:
        """A file below the pages' directory, links out of it excluded."""
        name = path.lstrip("/") or "vnc_lite.html"
        if not self.pages.is_dir():
            return Response(503, NO_PAGES.encode(), {"Content-Type": "text/html; charset=utf-8"})
        if not NAME.fullmatch(name) or ".." in name.split("/"):
            return _text(404, "There is no such page.")
        root = self.pages.resolve()
        file = (root / name).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            return _text(404, "There is no such page.")
        kind = "text/javascript" if file.suffix == ".js" else mimetypes.guess_type(file.name)[0]
        headers = {"Content-Type": kind or "application/octet-stream", "X-Content-Type-Options": "nosniff"}
        return Response(200, File(file, 0, file.stat().st_size), headers)

    async def _connect(self, request: Request) -> Response:
        if not same_origin(request):
            return _text(403, "Origin header does not match this host.")
        server = await self.compute.kernel.db.read_inline(_holder, _hash(request.query.get("token") or ""))
        if server is None:
            return Response(403, b"", {"Connection": "close"})  # whoever sees it speaks RFB, and expects silence
        try:
            socket = await self.compute.hypervisor.vnc_address(server)
            reader, writer = await asyncio.open_unix_connection(socket)
        except (HypervisorError, OSError):
            return _text(404, "The server's screen cannot be reached: it may have been shut off.")

        async def serve(websocket: WebSocket) -> None:
            await _pump(websocket, reader, writer)

        return Response(101, Upgrade(serve))


async def _pump(websocket: WebSocket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until either side ends."""

    async def outward() -> None:
        while data := await reader.read(PIECE):
            await websocket.send(data)

    async def inward() -> None:
        while (data := await websocket.receive()) is not None:
            writer.write(data)
            await writer.drain()

    tasks = {asyncio.ensure_future(outward()), asyncio.ensure_future(inward())}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()


def same_origin(request: Request) -> bool:
    """Whether a websocket was opened by one of our own pages: another site's page would act with the visitor's rights.
    Clients that are no browsers send no Origin."""
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    host = urlsplit(f"//{request.headers.get('Host', '')}")
    try:
        asked = urlsplit(origin)
        return asked.scheme in ("http", "https") and asked.hostname == host.hostname and asked.hostname is not None
    except ValueError:
        return False


def _holder(tx: Connection, token_hash: str) -> str | None:
    """The server that a token is for, if both still live."""
    columns = ConsoleToken.table.c
    found: str | None = tx.execute(
        select(columns.server_id)
        .join(Server.table, Server.table.c.id == columns.server_id)
        .where(columns.token_hash == token_hash, columns.expires_at > now(), ALIVE)
    ).scalar()
    return found


def _text(status: int, text: str) -> Response:
    return Response(status, f"{text}\n".encode(), {"Content-Type": "text/plain; charset=utf-8"})


ACTION = "/v2.1/servers/{id}/action"
endpoints = [
    Endpoint("POST", "/v2.1/servers/{id}/remote-consoles", create_console, REMOTE, RemoteConsoleBody, since=(2, 6)),
    Endpoint("POST", ACTION, get_vnc_console, REMOTE, OldConsole, action="os-getVNCConsole", until=(2, 5)),
    Endpoint("POST", ACTION, get_output, OUTPUT, Output | None, action="os-getConsoleOutput"),
]
