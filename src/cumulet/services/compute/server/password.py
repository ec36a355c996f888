"""The password that a guest has made up: kept as the guest sends it, which is encrypted with the key of its owner.

GET, DELETE /servers/{id}/os-server-password · for the guest: GET, POST 169.254.169.254/openstack/{version}/password
"""

from typing import Any

from sqlalchemy import Connection

from cumulet.api.http import Endpoint
from cumulet.api.policy import ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.api.resource import Resource, hidden
from cumulet.core import db
from cumulet.core.errors import Conflict
from cumulet.core.types import Id, Text
from cumulet.services.compute.context import Ctx
from cumulet.services.compute.server.state import get_server

SHOW, CLEAR = "os_compute_api:os-server-password:show", "os_compute_api:os-server-password:clear"
RULES = {SHOW: ADMIN_OR_OWNER_READER, CLEAR: ADMIN_OR_OWNER_MEMBER}

MAX_BYTES = 1020
"""What upstream keeps of a password."""


class ServerPassword(Resource, table="compute_server_password", primary_key=("server_id",)):
    """A guest's password. A row goes with its server."""

    server_id: Id = hidden("The server.")
    password: Text = hidden("What the guest has sent.")


def read_password(tx: Connection, server_id: str) -> str:
    """What the guest has sent; empty if nothing."""
    row = db.first(tx, ServerPassword, ServerPassword.table.c.server_id == server_id)
    return row.password if row else ""


def set_password(tx: Connection, server_id: str, password: str) -> None:
    """Keep what the guest sends; Conflict if there is one: only its owner may clear it."""
    if read_password(tx, server_id):
        raise Conflict("The password is set already.")
    forget_password(tx, server_id)
    db.insert(tx, ServerPassword(server_id=server_id, password=password))


def forget_password(tx: Connection, server_id: str) -> None:
    db.remove_where(tx, ServerPassword, ServerPassword.table.c.server_id == server_id)


async def show_password(ctx: Ctx, id: str) -> Any:
    """Show the password that the guest has made up and encrypted."""

    def look(tx: Connection) -> str:
        return read_password(tx, get_server(tx, ctx, id).id)

    return {"password": await ctx.service.kernel.db.read_inline(look)}


async def clear_password(ctx: Ctx, id: str) -> None:
    """Forget the password, so that the guest may send another."""

    def unit(tx: Connection) -> None:
        forget_password(tx, get_server(tx, ctx, id).id)

    await ctx.service.kernel.db.run(unit)


PATH = "/v2.1/servers/{id}/os-server-password"
endpoints = [
    Endpoint("GET", PATH, show_password, SHOW),
    Endpoint("DELETE", PATH, clear_password, CLEAR, status=204),
]
