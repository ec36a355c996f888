"""What a guest is told of itself: over 169.254.169.254, and on its config drive, from the same functions.

/openstack · /openstack/{version} · .../{password|meta_data.json|user_data|network_data.json|vendor_data.json|vendor_data2.json}
/ · /{ec2 version} · /{ec2 version}/meta-data[/...] · /{ec2 version}/user-data
"""

import base64
import secrets
import zlib
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, select

from cumulet.api.http import Request, Response
from cumulet.core.db.store import load
from cumulet.core.errors import Conflict, Invalid, TooLarge
from cumulet.services.compute.server.password import MAX_BYTES, read_password, set_password
from cumulet.services.compute.server.resource import Server, ServerAddress
from cumulet.services.compute.server.state import ALIVE, ports_of
from cumulet.services.network.interface import FixedIp, PortInfo

if TYPE_CHECKING:
    from cumulet.services.compute.runtime import ComputeRuntime

OPENSTACK_VERSIONS = (
    "2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27",
    "2020-10-14", "latest",
)  # fmt: skip
WITH_PASSWORD = OPENSTACK_VERSIONS[1:]
EC2_VERSIONS = (
    "1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01",
    "2009-04-04", "latest",
)  # fmt: skip

_encode = msgspec.json.encode


# ---- contents -----------------------------------------------------------------------------------------------------------


def meta_data(server: Server) -> dict[str, Any]:
    """The document meta_data.json."""
    data: dict[str, Any] = {
        "uuid": server.id,
        "name": server.name,
        "hostname": server.hostname,
        "launch_index": server.launch_index,
        "availability_zone": server.availability_zone,
        "project_id": server.project_id,
        "random_seed": base64.b64encode(secrets.token_bytes(512)).decode(),
        "devices": [],
        "dedicated_cpus": [],
    }
    if server.metadata:
        data["meta"] = server.metadata
    if server.public_key is not None:
        key = server.public_key if server.public_key.endswith("\n") else f"{server.public_key}\n"
        data["public_keys"] = {server.key_name: key}
        data["keys"] = [{"name": server.key_name, "type": server.key_type, "data": key}]
    return data


def network_data(infos: Sequence[PortInfo]) -> dict[str, Any]:
    """The document network_data.json: links, their addresses, name servers."""
    links: list[dict[str, Any]] = []
    networks: list[dict[str, Any]] = []
    servers: list[str] = []
    for info in infos:
        link = f"tap{info.id[:11]}"
        links.append(
            {"id": link, "vif_id": info.id, "type": "bridge", "mtu": info.mtu, "ethernet_mac_address": info.mac_address}
        )
        for fixed in info.fixed_ips:
            networks.append(_address(info, link, fixed, len(networks)))
            servers += [name for name in fixed.dns_nameservers if name not in servers]
    return {"links": links, "networks": networks, "services": [{"type": "dns", "address": name} for name in servers]}


def _address(info: PortInfo, link: str, fixed: FixedIp, number: int) -> dict[str, Any]:
    version = 6 if fixed.version == 6 else 4
    if info.dhcp:
        return {"id": f"network{number}", "type": f"ipv{version}_dhcp", "link": link, "network_id": info.network_id}
    subnet = ip_network(fixed.cidr)
    zero = "::" if version == 6 else "0.0.0.0"
    routes = [{"network": zero, "netmask": zero, "gateway": fixed.gateway_ip}] if fixed.gateway_ip else []
    return {
        "id": f"network{number}",
        "type": f"ipv{version}",
        "link": link,
        "ip_address": fixed.ip_address,
        "netmask": str(subnet.netmask),
        "routes": routes,
        "network_id": info.network_id,
        "services": [{"type": "dns", "address": name} for name in fixed.dns_nameservers],
    }


def user_data(server: Server) -> bytes | None:
    """What the server was given to run at boot."""
    return base64.b64decode(server.user_data) if server.user_data else None


def openstack_files(server: Server, infos: Sequence[PortInfo]) -> dict[str, bytes]:
    """The files under /openstack/latest."""
    files = {
        "meta_data.json": _encode(meta_data(server)),
        "network_data.json": _encode(network_data(infos)),
        "vendor_data.json": b"{}",
        "vendor_data2.json": b"{}",
    }
    data = user_data(server)
    if data is not None:
        files["user_data"] = data
    return files


def config_drive(server: Server, infos: Sequence[PortInfo]) -> Mapping[str, bytes]:
    """Every file of a config drive by its path."""
    files = openstack_files(server, infos)
    return {
        **{f"openstack/latest/{name}": data for name, data in files.items()},
        **{
            f"openstack/{version}/{name}": data for version in OPENSTACK_VERSIONS[-3:-1] for name, data in files.items()
        },
        "ec2/latest/meta-data.json": _encode(_ec2(server)),
        **({"ec2/latest/user-data": files["user_data"]} if "user_data" in files else {}),
    }


def _ec2(server: Server) -> dict[str, Any]:
    """The EC2 tree under meta-data: leaves are text, branches are mappings."""
    addresses = [a for listed in server.addresses.values() for a in listed if a.version == 4]
    fixed = next((a.addr for a in addresses if a.type == "fixed"), "")
    floating = next((a.addr for a in addresses if a.type == "floating"), "")
    number = f"{zlib.crc32(server.id.encode()):08x}"
    tree: dict[str, Any] = {
        "ami-id": f"ami-{zlib.crc32(server.image_id.encode()):08x}",
        "ami-launch-index": str(server.launch_index),
        "block-device-mapping": {"ami": "vda", "root": "/dev/vda"},
        "hostname": server.hostname,
        "instance-action": "none",
        "instance-id": f"i-{number}",
        "instance-type": server.flavor.name,
        "local-hostname": server.hostname,
        "local-ipv4": fixed,
        "placement": {"availability-zone": server.availability_zone},
        "public-hostname": server.hostname,
        "public-ipv4": floating,
        "reservation-id": server.reservation_id,
        "security-groups": "\n".join(group.name for group in server.groups),
    }
    if server.public_key is not None:
        tree["public-keys"] = {"0": {"_name": f"0={server.key_name}", "openssh-key": server.public_key}}
    return tree


# ---- answering ----------------------------------------------------------------------------------------------------------


class Metadata:
    """Answers guests."""

    def __init__(self, compute: "ComputeRuntime") -> None:
        self.compute = compute

    async def answer(self, network_id: str, request: Request) -> Response:
        """The document a guest asks for; 404 for what does not exist and for addresses nobody has."""
        parts = [part for part in request.path.split("/") if part]
        password = parts[:1] == ["openstack"] and parts[2:] == ["password"] and parts[1] in WITH_PASSWORD
        if request.method not in ("GET", "HEAD", *(("POST",) if password else ())):
            return _text(405, "405 Method Not Allowed")
        server = await self.compute.kernel.db.read_inline(_find, network_id, request.remote)
        if server is None:
            return _text(404, "404 Not Found")
        if password:
            return await self._password(server, request)
        if parts[:1] == ["openstack"]:
            return await self._openstack(server, parts[1:])
        return _ec2_answer(server, parts)

    async def _password(self, server: Server, request: Request) -> Response:
        """The guest's password: told to it, or taken from it, once."""
        if request.method != "POST":
            return _text(200, await self.compute.kernel.db.read_inline(read_password, server.id))
        try:
            text = (await request.read(MAX_BYTES)).decode()
            await self.compute.kernel.db.run(set_password, server.id, text)
        except (TooLarge, Invalid):
            return _text(400, "400 Bad Request")
        except Conflict:
            return _text(409, "409 Conflict")
        return _text(200, "")

    async def _openstack(self, server: Server, parts: list[str]) -> Response:
        if not parts:
            return _text(200, "\n".join(OPENSTACK_VERSIONS))
        if parts[0] not in OPENSTACK_VERSIONS or len(parts) > 2:
            return _text(404, "404 Not Found")
        infos: list[PortInfo] = []
        if parts[1:] in (["network_data.json"], []):
            ports = await self.compute.kernel.db.read(ports_of, server.id)
            infos = await self.compute.builder.port_infos(server.id, ports)
        files = openstack_files(server, infos)
        if len(parts) == 1:
            return _text(200, "\n".join([*files, *(["password"] if parts[0] in WITH_PASSWORD else [])]))
        data = files.get(parts[1])
        if data is None:
            return _text(404, "404 Not Found")
        kind = "application/json" if parts[1].endswith(".json") else "application/octet-stream"
        return Response(200, data, {"Content-Type": kind})


def _ec2_answer(server: Server, parts: list[str]) -> Response:
    if not parts:
        return _text(200, "\n".join(EC2_VERSIONS))
    if parts[0] not in EC2_VERSIONS:
        return _text(404, "404 Not Found")
    data = user_data(server)
    node: Any = {"meta-data": _ec2(server)}
    if data is not None:
        node["user-data"] = data
    for part in parts[1:]:
        if not isinstance(node, dict) or part not in node or part == "_name":
            return _text(404, "404 Not Found")
        node = node[part]
    if isinstance(node, bytes):
        return Response(200, node, {"Content-Type": "application/octet-stream"})
    return _text(200, _listing(node) if isinstance(node, dict) else node)


def _listing(node: dict[str, Any]) -> str:
    """The names under a branch: those of branches end in a slash, but for keys, which tell their own name."""
    names = []
    for name, value in node.items():
        if isinstance(value, dict):
            names.append(str(value.get("_name", f"{name}/")))
        elif name != "_name":
            names.append(name)
    return "\n".join(names)


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode(), {"Content-Type": "text/plain; charset=UTF-8"})


def _find(tx: Connection, network_id: str, address: str) -> Server | None:
    """The server with this address on this network."""
    columns = ServerAddress.table.c
    row = tx.execute(
        select(Server.table)
        .join(ServerAddress.table, columns.server_id == Server.table.c.id)
        .where(columns.network_id == network_id, columns.address == address, ALIVE)
    ).first()
    return None if row is None else load(Server, row)
