"""POST /servers: check what is asked, and write it down with the operation that builds it (`build.py`).

All that is looked up elsewhere (image, networks, ports, groups) is looked up before the one transaction that counts the
quota and writes the servers, their ports' ids and their operations.
"""

import base64
import binascii
import re
import secrets
from typing import Any

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_MEMBER
from cumulet.core import db, quota
from cumulet.core.errors import Conflict, Forbidden, Invalid, NotFound
from cumulet.core.types import new_id, now
from cumulet.services.compute.context import Ctx, base_url
from cumulet.services.compute.flavor import Flavor, get_flavor
from cumulet.services.compute.keypair import Keypair, find_keypair
from cumulet.services.compute.quota import DEFAULTS, check_servers
from cumulet.services.compute.server.instance_action import record
from cumulet.services.compute.server.resource import (
    FlavorCopy,
    GroupName,
    NetworkRequest,
    Server,
    ServerPort,
    access_addresses,
    links,
)
from cumulet.services.compute.server.state import queue
from cumulet.services.compute.server_group import ServerGroup
from cumulet.services.image.interface import ImageInfo

CREATE = "os_compute_api:servers:create"
FORCED_HOST = "os_compute_api:servers:create:forced_host"
DESTINATION = "compute:servers:create:requested_destination"
RULES = {CREATE: ADMIN_OR_OWNER_MEMBER, FORCED_HOST: ADMIN, DESTINATION: ADMIN}

ZONE = "nova"
PASSWORD_LENGTH = 12


class Envelope(Struct):
    """The request: the server, and hints beside it under either of two names."""

    server: Raw
    hints: dict[str, Any] = msgspec.field(name="os:scheduler_hints", default_factory=dict)
    old_hints: dict[str, Any] = msgspec.field(name="OS-SCH-HNT:scheduler_hints", default_factory=dict)


class Wish(Struct, kw_only=True):
    """A request that was looked through: what each of the servers shall be."""

    body: Any
    image: ImageInfo
    ports: list[tuple[NetworkRequest, str, bool]]  # (request, network id, whether the port is made by compute)
    groups: list[str] | None
    group_names: list[str]
    count: int
    node: str | None
    zone: str | None
    server_group: str | None
    password: str


async def create_server(ctx: Ctx) -> Any:
    """Make one or more servers."""
    body, hints = await _read(ctx)
    names = [body.name]
    wish = await _look_up(ctx, body, hints)
    if wish.count > 1:
        names = [f"{body.name}-{number}" for number in range(1, wish.count + 1)]
    reservation = f"r-{secrets.token_hex(4)}"

    def unit(tx: Connection) -> list[Server]:
        flavor = wanted_flavor(tx, ctx, body.asked_flavor)
        check_flavor(flavor, wish.image)
        pair = wanted_keypair(tx, ctx, body.key_name)
        project = ctx.caller.project_id or ""
        check_servers(tx, project, wish.count, flavor.vcpus * wish.count, flavor.ram * wish.count)
        check_metadata(tx, project, body.asked_metadata)
        _check_ports(tx, wish)
        group = _server_group(tx, ctx, wish.server_group)
        made = []
        for index, name in enumerate(names):
            server = _server(ctx, wish, flavor, pair, name, index, reservation, group)
            db.insert(tx, server)
            db.insert_many(tx, _ports(server, wish))
            record(tx, server.id, "create", ctx.request_id, ctx.caller.user_id, project)
            queue(tx, ctx.service.kernel.operations, server, "server.create", ctx.request_id)
            made.append(server)
        return made

    servers = await ctx.service.kernel.db.run(unit)
    return _reply(ctx, wish, servers[0], reservation)


async def _read(ctx: Ctx) -> tuple[Any, dict[str, Any]]:
    """The checked body and the scheduler hints."""
    try:
        envelope = msgspec.json.decode(await ctx.request.read(), type=Envelope)
    except msgspec.DecodeError as error:
        raise Invalid(f"Invalid input: {error}") from None
    body = Server.decode("create", b'{"server":' + bytes(envelope.server) + b"}", ctx.version)
    return body, {**envelope.old_hints, **envelope.hints}


def _reply(ctx: Ctx, wish: Wish, server: Server, reservation: str) -> Response:
    if str(wish.body.return_reservation).lower() in ("true", "1"):
        return Response(202, {"reservation_id": reservation})
    base = base_url(ctx)
    reply = {
        "id": server.id,
        "links": links(base, "servers", server.id),
        "OS-DCF:diskConfig": server.disk_config,
        "security_groups": server.groups,
        "adminPass": wish.password,
    }
    return Response(202, {"server": reply}, {"Location": f"{base}/v2.1/servers/{server.id}"})


# ---- what is looked up before the transaction ---------------------------------------------------------------------------


async def _look_up(ctx: Ctx, body: Any, hints: dict[str, Any]) -> Wish:
    given = body.given()
    count = _count(given)
    image = await _image(ctx, body)
    groups, group_names = await _groups(ctx, given)
    ports = await _networks(ctx, given)
    if count > 1 and any(not own or request.fixed_ip for request, _, own in ports):
        raise Invalid("Unable to launch multiple instances with a single configured port ID or fixed address.")
    node, zone = _destination(ctx, body)
    check_user_data(body.asked_user_data)
    if given.get("personality"):
        raise Invalid("Personality files are not served here; user_data and metadata are.")
    group = hints.get("group")
    if group is not None and not isinstance(group, str):
        raise Invalid(f"Invalid input for scheduler hint group: {group}")
    return Wish(
        body=body, image=image, ports=ports, groups=groups, group_names=group_names, count=count, node=node, zone=zone,
        server_group=group, password=given.get("admin_password") or make_password(),
    )  # fmt: skip


def make_password() -> str:
    """A password for a server whose owner has named none."""
    return secrets.token_urlsafe(9)[:PASSWORD_LENGTH]


def _count(given: dict[str, Any]) -> int:
    least = int(given.get("min_count", 1))
    most = int(given.get("max_count", least))
    if least < 1 or most < 1:
        raise Invalid("min_count and max_count must be at least 1")
    if least > most:
        raise Invalid("min_count must be <= max_count")
    return most


async def _image(ctx: Ctx, body: Any) -> ImageInfo:
    """The image to boot from, told by `imageRef` or by an image that is mapped to a local disk."""
    mapped = None
    for device in body.block_devices:
        if device.source_type != "image" or device.destination_type != "local":
            raise Invalid("Block Device Mapping is Invalid: volumes, snapshots and blank disks are not served here; only "
                          "an image on a local disk is.")  # fmt: skip
        mapped = device.uuid
    if body.old_block_devices:
        raise Invalid("Block Device Mapping is Invalid: volumes are not served here.")
    ref = body.asked_image or mapped
    if not ref:
        raise Invalid("Invalid imageRef provided: a server boots from an image here.")
    return await find_image(ctx, ref)


async def find_image(ctx: Ctx, ref: str) -> ImageInfo:
    """The image that a reference names; Invalid if servers cannot boot from it."""
    image_id = ref.rstrip("/").rpartition("/")[2]
    try:
        image = await ctx.service.images.show(ctx.caller, image_id)
    except NotFound:
        raise Invalid(f"Image {image_id} could not be found.") from None
    if image.status != "active":
        raise Invalid(f"Image {image_id} is not active.")
    if image.disk_format not in ("qcow2", "raw"):
        raise Invalid(f"Image {image_id} is unacceptable: servers boot from qcow2 and raw, not {image.disk_format}.")
    return image


async def _groups(ctx: Ctx, given: dict[str, Any]) -> tuple[list[str] | None, list[str]]:
    """(ids of the security groups asked for or None for the default, their names)."""
    names = list(dict.fromkeys(group.name for group in given.get("asked_groups", ())))
    if not names or names == ["default"]:
        return None, ["default"]
    try:
        ids = await ctx.service.network.security_group_ids(ctx.caller, ctx.caller.project_id or "", names)
    except NotFound as error:
        raise Invalid(error.message) from None
    return ids, names


async def _networks(ctx: Ctx, given: dict[str, Any]) -> list[tuple[NetworkRequest, str, bool]]:
    asked = given.get("asked_networks")
    if isinstance(asked, str) and ctx.version < (2, 37):
        raise Invalid(f"Invalid input for field/attribute networks. Value: {asked}. It is not of type 'array'")
    if asked == "none":
        return []
    if asked is None or asked == "auto" or asked == []:
        return await _only_network(ctx, asked == "auto")
    found = []
    for request in asked:
        if request.tag is not None and not ctx.version >= (2, 42) and ctx.version != (2, 32):
            raise Invalid("Additional properties are not allowed ('tag' was unexpected)")
        found.append(await find_network(ctx, request))
    taken = [request.port for request, _, _ in found if request.port]
    if len(taken) != len(set(taken)):
        raise Invalid("Duplicate port ids are not allowed.")
    return found


async def _only_network(ctx: Ctx, must: bool) -> list[tuple[NetworkRequest, str, bool]]:
    """The one network that the project can use; none is no card, more than one cannot be chosen from."""
    usable = await ctx.service.network.usable_networks(ctx.caller)
    if len(usable) > 1:
        raise Conflict("Multiple possible networks found, use a Network ID to be more specific.")
    if not usable:
        if must:
            raise Invalid("Unable to automatically allocate a network: the project has none with a subnet.")
        return []
    return [(NetworkRequest(uuid=usable[0].id), usable[0].id, True)]


async def find_network(ctx: Ctx, request: NetworkRequest) -> tuple[NetworkRequest, str, bool]:
    """(the request, its network, whether the port is compute's to make); what cannot be used is refused."""
    network = ctx.service.network
    if request.port:
        if request.fixed_ip:
            raise Invalid(f"Specified Fixed IP '{request.fixed_ip}' cannot be used with port '{request.port}': the two "
                          "cannot be specified together.")  # fmt: skip
        try:
            port = await network.port(ctx.caller, request.port)
        except NotFound:
            raise Invalid(f"Port {request.port} could not be found.") from None
        if port.device_id:
            raise Conflict(f"Port {request.port} is still in use.")
        if not port.fixed_ips:
            raise Invalid(f"Port {request.port} requires a FixedIP in order to be used.")
        return request, port.network_id, False
    if not request.uuid:
        raise Invalid("Bad networks format: network uuid or port is required")
    try:
        found = await network.network(ctx.caller, request.uuid)
    except NotFound:
        raise Invalid(f"Network {request.uuid} could not be found.") from None
    if found.external and not ctx.caller.is_admin:
        raise Forbidden(f"It is not allowed to create an interface on external network {request.uuid}")
    if not found.has_subnets:
        raise Invalid(f"Network {request.uuid} requires a subnet in order to boot instances on.")
    return request, found.id, True


def _destination(ctx: Ctx, body: Any) -> tuple[str | None, str | None]:
    """(the host an admin asked for, the zone that was asked for)."""
    zone, _, node = (body.asked_zone or "").partition(":")
    node = node.strip(":")
    if node:
        ctx.require(FORCED_HOST)
    if zone not in ("", ZONE):
        raise Invalid("The requested availability zone is not available")
    given = body.given()
    wanted = given.get("asked_host") or given.get("asked_hypervisor")
    if wanted:
        ctx.require(DESTINATION)
        if wanted != ctx.service.hostname:
            raise Invalid(f"Compute host {wanted} could not be found.")
    return wanted or node or None, zone or None


def check_user_data(text: str | None) -> None:
    """Refuse what is no base64."""
    try:
        base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("User data needs to be valid base64.") from None


# ---- what is checked and written in the transaction ---------------------------------------------------------------------


def wanted_flavor(tx: Connection, ctx: Ctx, ref: str) -> Flavor:
    """The flavor that a reference names."""
    try:
        return get_flavor(tx, ctx, ref.rstrip("/").rpartition("/")[2])
    except NotFound as error:
        raise Invalid(error.message) from None


def check_flavor(flavor: Flavor | FlavorCopy, image: ImageInfo) -> None:
    """Refuse a flavor that the image does not fit in."""
    if image.min_ram > flavor.ram:
        raise Invalid("Flavor's memory is too small for requested image.")
    if flavor.disk and image.min_disk > flavor.disk:
        raise Invalid("Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is "
                      f"{flavor.disk << 30} bytes, minimum size is {image.min_disk << 30} bytes.")  # fmt: skip
    if flavor.disk and (image.virtual_size or 0) > flavor.disk << 30:
        raise Invalid(f"Flavor's disk is too small for requested image. Flavor disk is {flavor.disk << 30} bytes, image is "
                      f"{image.virtual_size} bytes.")  # fmt: skip


def wanted_keypair(tx: Connection, ctx: Ctx, name: str | None) -> Keypair | None:
    """The caller's key pair with this name, if one was named."""
    if name is None:
        return None
    try:
        return find_keypair(tx, ctx.caller.user_id, name)
    except NotFound:
        raise Invalid("Invalid key_name provided.") from None


def check_metadata(tx: Connection, project: str, metadata: dict[str, str]) -> None:
    """Refuse more keys and values than the quota allows."""
    if not metadata:
        return
    limit = quota.limits(tx, "compute", project, DEFAULTS)["metadata_items"]
    if limit != quota.UNLIMITED and len(metadata) > limit:
        raise Forbidden("Maximum number of metadata items exceeds the quota")


def _check_ports(tx: Connection, wish: Wish) -> None:
    for request, _, own in wish.ports:
        if not own and db.first(tx, ServerPort, ServerPort.table.c.port_id == request.port):
            raise Conflict(f"Port {request.port} is still in use.")


def _server_group(tx: Connection, ctx: Ctx, id: str | None) -> str | None:
    if id is None:
        return None
    columns = ServerGroup.table.c
    group = db.first(tx, ServerGroup, columns.id == id, columns.project_id == ctx.caller.project_id)
    if group is None:
        raise Invalid(f"Instance group {id} could not be found.")
    members = db.count(tx, Server, Server.table.c.group_id == id, Server.table.c.deleted_at.is_(None))
    if members >= DEFAULTS["server_group_members"]:
        raise Forbidden("Quota exceeded, too many servers in group")
    return id


def _server(
    ctx: Ctx,
    wish: Wish,
    flavor: Flavor,
    pair: Keypair | None,
    name: str,
    index: int,
    reservation: str,
    group: str | None,
) -> Server:
    body, server_id, moment = wish.body, new_id(), now()
    drive = str(body.asked_drive or "").lower() in ("true", "1", "t", "yes", "on", "y")
    groups = [GroupName(name) for name in wish.group_names] if wish.ports else []
    return Server.new(
        body, id=server_id, name=name, project_id=ctx.caller.project_id, user_id=ctx.caller.user_id, created_at=moment,
        updated_at=moment, metadata=body.asked_metadata, task_state="scheduling", config_drive="True" if drive else "",
        key_name=pair.name if pair else None, public_key=pair.public_key if pair else None,
        instance_name=f"instance-{server_id[:8]}", reservation_id=reservation, launch_index=index,
        hostname=_asked_name(body.given()) or host_name(name, server_id), user_data=body.asked_user_data or None,
        description=body.given().get("description"), tags=list(dict.fromkeys(body.given().get("asked_tags", ()))),
        image_id=wish.image.id, image_format=wish.image.disk_format, flavor=copy_flavor(flavor), flavor_id=flavor.id,
        vcpus=flavor.vcpus, memory_mb=flavor.ram, disk_gb=flavor.disk, groups=groups,
        asked_node=wish.node, pinned_zone=wish.zone, group_id=group, **access_addresses(body.given()),
    )  # fmt: skip


def copy_flavor(flavor: Flavor) -> FlavorCopy:
    """What a server keeps of its flavor."""
    return FlavorCopy(
        flavor.id, flavor.name, flavor.vcpus, flavor.ram, flavor.disk, flavor.ephemeral, flavor.swap, flavor.extra_specs
    )


def _ports(server: Server, wish: Wish) -> list[ServerPort]:
    return [
        ServerPort(
            port_id=request.port or new_id(), server_id=server.id, position=position, network_id=network_id, own=own,
            fixed_ip=request.fixed_ip, groups=wish.groups, tag=request.tag,
        )
        for position, (request, network_id, own) in enumerate(wish.ports)
    ]  # fmt: skip


def _asked_name(given: dict[str, Any]) -> str | None:
    return given.get("new_hostname") or given.get("new_fqdn")


def host_name(name: str, id: str) -> str:
    """A host name made of a server's name (RFC 1123), of its id where nothing is left of the name."""
    plain = re.sub(r"[^a-z0-9.-]", "", re.sub(r"[ _.]", "-", name.lower())).strip("-")
    return plain[:63].strip("-") or f"server-{id}"


endpoints = [Endpoint("POST", "/v2.1/servers", create_server, CREATE, resource=Server, status=202)]
