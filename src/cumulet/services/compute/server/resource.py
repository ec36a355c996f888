"""The declaration of a server, of its ports, and how it is shown.

What a client reads of a server comes from this one row: flavor, addresses, security groups and tags are kept with it, so
that showing one takes one SELECT. Addresses are brought up to date by networking's events (`addresses.py`).
"""

from collections.abc import Callable
from hashlib import sha224
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from sqlalchemy import Connection, Index

from cumulet.api.policy import ADMIN
from cumulet.api.resource import AUTO, FILTER, FIND, SORT, Resource, computed, constant, edit, hidden, once, read, sent
from cumulet.core.errors import Invalid
from cumulet.core.types import Column, Id, Str255, Text, Time
from cumulet.services.compute.context import Ctx, base_url

EXTENDED = "os_compute_api:os-extended-server-attributes"
HOST_STATUS = "os_compute_api:servers:show:host_status"
RULES = {EXTENDED: ADMIN, HOST_STATUS: ADMIN}

ServerName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A\S(.*\S)?\Z"), Column(255)]
Description = Annotated[str, Meta(max_length=255, pattern=r"\A[^\x00-\x08\x0b-\x1f]*\Z"), Column(255)]
Hostname = Annotated[str, Meta(max_length=255, pattern=r"\A[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?\Z"), Column(255)]
HostAndDomain = Annotated[
    str,
    Meta(
        max_length=255,
        pattern=r"\A[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*\Z",
    ),
    Column(255),
]
Tag = Annotated[str, Meta(min_length=1, max_length=60, pattern=r"\A[^,/]*\Z")]
Key255 = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[a-zA-Z0-9-_:. ]{1,255}\Z")]
Value255 = Annotated[str, Meta(max_length=255)]
Ref = Annotated[str, Meta(max_length=255)]
Digits = Annotated[str, Meta(min_length=1, max_length=9, pattern=r"\A[0-9]+\Z")]
Positive = Annotated[int, Meta(ge=1, le=2147483647)] | Digits
PreciseTime = Annotated[str, Column(26)]
"""A moment that is sent just as it is stored: with microseconds, without a zone."""

POWER = {"nostate": 0, "running": 1, "paused": 3, "shutdown": 4, "crashed": 6, "suspended": 7}
"""Upstream's numbers of power states."""


class Link(Struct, frozen=True):
    rel: str
    href: str


class Address(Struct, frozen=True):
    """One address of a server. `type` is fixed or floating."""

    version: int
    addr: str
    type: str = field(name="OS-EXT-IPS:type")
    mac: str = field(name="OS-EXT-IPS-MAC:mac_addr")


class FlavorCopy(Struct, frozen=True):
    """The flavor as it was when the server was made."""

    id: str
    name: str
    vcpus: int
    ram: int
    disk: int
    ephemeral: int = 0
    swap: int = 0
    extra_specs: dict[str, str] = {}


class Fault(Struct):
    """Why a server is in ERROR. `details` are for admins."""

    code: int
    created: str
    message: str
    details: str | UnsetType = UNSET


class NetworkRequest(Struct, forbid_unknown_fields=True):
    """One network card that the caller asks for: a network (and maybe an address on it), or a port of his."""

    uuid: Annotated[str, Meta(max_length=64)] | None = None
    port: Annotated[str, Meta(max_length=64)] | None = None
    fixed_ip: Annotated[str, Meta(max_length=64)] | None = None
    tag: Tag | None = None


class GroupName(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=255)]


class BlockDevice(Struct, forbid_unknown_fields=True):
    """A disk that the caller asks for. Only the image to boot from, on a local disk, is served so far."""

    boot_index: int | str | None = None
    uuid: str | None = None
    source_type: str = ""
    destination_type: str = ""
    delete_on_termination: bool | str = True
    volume_size: int | str | None = None
    device_name: str | None = None
    device_type: str | None = None
    disk_bus: str | None = None
    guest_format: str | None = None
    no_device: bool | str | None = None
    snapshot_id: str | None = None
    tag: str | None = None
    volume_type: str | None = None


STATUS = {
    "active": "ACTIVE",
    "building": "BUILD",
    "stopped": "SHUTOFF",
    "paused": "PAUSED",
    "resized": "VERIFY_RESIZE",
    "error": "ERROR",
    "deleted": "DELETED",
}
TASK_STATUS = {
    "rebooting": "REBOOT", "reboot_started": "REBOOT", "rebooting_hard": "HARD_REBOOT",
    "rebuilding": "REBUILD", "rebuild_spawning": "REBUILD",
    "resize_prep": "RESIZE", "resize_migrating": "RESIZE", "resize_finish": "RESIZE",
    "resize_reverting": "REVERT_RESIZE",
}  # fmt: skip
PROGRESS = {"active": 100, "building": 0}
EVERY_STATUS = frozenset({*STATUS.values(), *TASK_STATUS.values()})


def status(row: Any) -> str:
    """What the API calls the state of a server."""
    return TASK_STATUS.get(row.task_state or "") or STATUS[row.vm_state]


def links(base: str, collection: str, id: str) -> list[Link]:
    return [Link("self", f"{base}/v2.1/{collection}/{id}"), Link("bookmark", f"{base}/{collection}/{id}")]


def access_addresses(given: dict[str, Any]) -> dict[str, str]:
    """The access addresses among the fields that were sent, in their shortest form; Invalid if one is no address."""
    forms: dict[str, Callable[[str], IPv4Address | IPv6Address]] = {
        "access_ipv4": IPv4Address,
        "access_ipv6": IPv6Address,
    }
    found = {}
    for name, form in forms.items():
        if text := given.get(name):
            try:
                found[name] = str(form(text))
            except ValueError:
                raise Invalid(f"Invalid input for {name.replace('_ip', 'IP')}: '{text}' is no such address") from None
    return found


def _links(row: Any) -> Any:
    return [
        Link("self", f"{row.base_url}/v2.1/servers/{row.id}"),
        Link("bookmark", f"{row.base_url}/servers/{row.id}"),
    ]


def _image(row: Any) -> Any:
    if not row.image_id:
        return ""
    return {"id": row.image_id, "links": [Link("bookmark", f"{row.base_url}/images/{row.image_id}")]}


def _flavor_link(row: Any) -> Any:
    return {"id": row.flavor.id, "links": [Link("bookmark", f"{row.base_url}/flavors/{row.flavor.id}")]}


def _flavor(row: Any) -> Any:
    copy = row.flavor
    return {
        "vcpus": copy.vcpus,
        "ram": copy.ram,
        "disk": copy.disk,
        "ephemeral": copy.ephemeral,
        "swap": copy.swap,
        "original_name": copy.name,
        "extra_specs": copy.extra_specs,
    }


def _host_id(row: Any) -> str:
    return sha224(f"{row.project_id}{row.host}".encode()).hexdigest() if row.host else ""


def _progress(row: Any) -> Any:
    return PROGRESS.get(row.vm_state, UNSET)


def _fault(row: Any) -> Any:
    return row.fault if row.fault is not None and row.vm_state in ("error", "deleted") else UNSET


def _groups(row: Any) -> Any:
    return row.groups or UNSET


class Server(Resource, table="compute_server", path="/v2.1/servers"):
    """A virtual machine."""

    id: Id = read("The id of the server.", use=SORT)
    name: ServerName = edit("Its name, which need not be unique.", use=SORT)
    status: str = computed("Its state, in one word.", status)
    project_id: Str255 = read("The project that owns it.", wire="tenant_id", use=FIND, index=True)
    user_id: Str255 = read("Who made it.", use=FIND)
    metadata: dict[str, str] = read("Keys and values of the owner's.", {})
    host_id: str = computed("A token that is equal for servers of the project on one host.", _host_id, wire="hostId")
    image: Any = computed("The image it was made from.", _image)
    flavor_link: Any = computed("Its flavor, by reference.", _flavor_link, wire="flavor", until=(2, 46))
    flavor_shown: Any = computed(
        "Its flavor, as it was when the server was made.", _flavor, wire="flavor", since=(2, 47)
    )
    created_at: Time = read("When it was asked for.", wire="created", use=SORT)
    updated_at: Time = read("When it last changed.", wire="updated", use=SORT, index=True)
    addresses: dict[str, list[Address]] = read("Its addresses by network name.", {})
    access_ipv4: Str255 = edit("An IPv4 address to reach it by.", "", FILTER, wire="accessIPv4")
    access_ipv6: Str255 = edit("An IPv6 address to reach it by.", "", FILTER, wire="accessIPv6")
    links: Any = computed("Its own URLs.", _links)
    disk_config: Literal["AUTO", "MANUAL"] = edit(
        "Whether the disk's partition is grown by the cloud.", "MANUAL", FILTER, wire="OS-DCF:diskConfig"
    )
    progress: Any = computed("Per cent of the build that is done.", _progress)
    availability_zone: Str255 = read("Its availability zone.", "nova", wire="OS-EXT-AZ:availability_zone", use=SORT)
    config_drive: Str255 = read("`True` if it has a config drive.", "", use=FIND)
    key_name: Str255 | None = once("The key pair put into it.", None, FIND)
    launched_at: PreciseTime | None = read("When it first ran.", wire="OS-SRV-USG:launched_at", use=FIND)
    terminated_at: PreciseTime | None = read("When it was deleted.", wire="OS-SRV-USG:terminated_at", use=FIND)
    security_groups: Any = computed("Names of the groups on its ports.", _groups)
    fault: Fault | None = hidden("Why it is in ERROR.", None)
    fault_shown: Any = computed("Why it is in ERROR.", _fault, wire="fault")
    task_state: Str255 | None = read("What is being done to it.", wire="OS-EXT-STS:task_state", use=FIND)
    vm_state: Str255 = read("The state it settled in.", "building", FIND, wire="OS-EXT-STS:vm_state")
    power_state: int = read("The machine's power state.", 0, FIND, wire="OS-EXT-STS:power_state")
    volumes: Any = constant("Volumes that are attached.", [], wire="os-extended-volumes:volumes_attached")
    host: Str255 | None = read("The host it is on.", None, FIND, wire="OS-EXT-SRV-ATTR:host", show=EXTENDED)
    node: Str255 | None = read("The node.", None, FIND, wire="OS-EXT-SRV-ATTR:hypervisor_hostname", show=EXTENDED)
    instance_name: Str255 = read("Its name on the host.", wire="OS-EXT-SRV-ATTR:instance_name", show=EXTENDED)
    reservation_id: Str255 = read(
        "The request it was made in.", wire="OS-EXT-SRV-ATTR:reservation_id", show=EXTENDED, since=(2, 3)
    )
    launch_index: int = read(
        "Its number in that request.", 0, wire="OS-EXT-SRV-ATTR:launch_index", show=EXTENDED, since=(2, 3)
    )
    hostname_admin: Any = computed(
        "Its host name.", lambda row: row.hostname, wire="OS-EXT-SRV-ATTR:hostname", show=EXTENDED, since=(2, 3),
        until=(2, 89),
    )  # fmt: skip
    hostname: Hostname = read("Its host name.", wire="OS-EXT-SRV-ATTR:hostname", since=(2, 90))
    new_hostname: Hostname = edit("Its host name.", AUTO, wire="hostname", since=(2, 90), until=(2, 93), stored=False)
    new_fqdn: HostAndDomain = edit(
        "Its host name, with its domain if it is in one.", AUTO, wire="hostname", since=(2, 94), stored=False
    )
    kernel_id: str = constant("Always empty.", "", wire="OS-EXT-SRV-ATTR:kernel_id", show=EXTENDED, since=(2, 3))
    ramdisk_id: str = constant("Always empty.", "", wire="OS-EXT-SRV-ATTR:ramdisk_id", show=EXTENDED, since=(2, 3))
    root_device: str = constant(
        "Its boot disk.", "/dev/vda", wire="OS-EXT-SRV-ATTR:root_device_name", show=EXTENDED, since=(2, 3)
    )
    user_data: Text | None = read(
        "What it was given to run at boot, in base64.",
        None,
        wire="OS-EXT-SRV-ATTR:user_data",
        show=EXTENDED,
        since=(2, 3),
    )
    locked: bool = read("Whether its owner may not change it.", False, FILTER, since=(2, 9))
    locked_reason: Str255 | None = read("Why it is locked.", None, since=(2, 73))
    host_status: str = computed(
        "State of the service on its host.", lambda row: "UP" if row.host else "", show=HOST_STATUS, since=(2, 16)
    )
    description: Description | None = edit("What it is for.", None, FIND, since=(2, 19))
    tags: list[str] = read("Its tags.", [], since=(2, 26))
    trusted_certificates: Any = constant(
        "Certificates that its image was checked by.", None, wire="trusted_image_certificates",
        since=(2, 63),
    )  # fmt: skip
    server_groups: Any = computed(
        "The groups it is in.", lambda row: [row.group_id] if row.group_id else [], since=(2, 71)
    )
    pinned_zone: Str255 | None = read(
        "The zone it was asked into.", None, wire="pinned_availability_zone", since=(2, 96)
    )

    image_id: Str255 = hidden("The image it was made from.", "", SORT, index=True)
    image_format: Str255 = hidden("The format of the image's file.", "qcow2")
    image_properties: dict[str, str] = hidden("Properties of the image that were taken over.", {})
    flavor: FlavorCopy = hidden("Its flavor, as it was when the server was made.")
    flavor_id: Str255 = hidden("The flavor's id.", use=SORT, index=True)
    vcpus: int = hidden("Virtual CPUs, for quotas.", use=SORT)
    memory_mb: int = hidden("Memory in MiB, for quotas.", use=SORT)
    disk_gb: int = hidden("Disk in GiB.")
    groups: list[GroupName] = hidden("Names of the security groups on its ports.", [])
    public_key: Text | None = hidden("The key put into it.", None)
    key_type: Str255 = hidden("The type of that key.", "ssh")
    group_id: Str255 | None = hidden("The server group it is in.", None)
    locked_by: Str255 | None = hidden("`owner` or `admin`.", None)
    asked_node: Str255 | None = hidden("The host an admin asked for.", None)
    image_in_making: Id | None = hidden("The image that is being made of its disk.", None)
    old_flavor: FlavorCopy | None = hidden("The flavor it had before it was resized, until that is confirmed.", None)
    deleted_at: Time | None = hidden("When it was deleted; such rows are kept for lists of changes.", None, index=True)
    base_url: str = hidden("The root of the API as the caller reached it.", "", stored=False)

    asked_image: Ref | None = sent("The image to boot from.", None, wire="imageRef")
    asked_flavor: Annotated[str, Meta(min_length=1, max_length=255)] = sent("The flavor.", wire="flavorRef")
    asked_networks: list[NetworkRequest] | Literal["auto", "none"] = sent(
        "Networks and ports to be on.", AUTO, wire="networks"
    )
    asked_groups: list[GroupName] = sent("Security groups of ports that are made.", AUTO, wire="security_groups")
    asked_metadata: dict[Key255, Value255] = sent("Keys and values.", {}, wire="metadata")
    asked_zone: Annotated[str, Meta(min_length=1, max_length=255)] | None = sent(
        "The availability zone.", None, wire="availability_zone"
    )
    asked_drive: bool | str | None = sent("Whether to give it a config drive.", None, wire="config_drive")
    asked_user_data: Annotated[str, Meta(max_length=65535)] | None = sent(
        "What to run at boot, in base64.", None, wire="user_data"
    )
    asked_tags: list[Tag] = sent("Tags.", [], wire="tags", since=(2, 52))
    asked_host: Str255 | None = sent("The host, for admins.", None, wire="host", since=(2, 74))
    asked_hypervisor: Str255 | None = sent("The host, for admins.", None, wire="hypervisor_hostname", since=(2, 74))
    admin_password: Annotated[str, Meta(min_length=1, max_length=255)] = sent("A password.", AUTO, wire="adminPass")
    min_count: Positive = sent("How many servers at least.", AUTO)
    max_count: Positive = sent("How many servers at most.", AUTO)
    return_reservation: bool | str = sent("Answer with the reservation.", False, wire="return_reservation_id")
    block_devices: list[BlockDevice] = sent("Disks.", [], wire="block_device_mapping_v2")
    old_block_devices: list[Any] = sent("Disks, in an older form.", [], wire="block_device_mapping")
    personality: list[Any] = sent("Files to put in.", [], until=(2, 56))


Index("compute_server_order", Server.table.c.project_id, Server.table.c.created_at, Server.table.c.id)
Server.kind = "Instance"  # its name in messages, as upstream words them


class ServerPort(Resource, table="compute_server_port", primary_key=("port_id",)):
    """A network card of a server. Rows are written with the server, so that a build can be repeated."""

    port_id: Id = hidden("The port.")
    server_id: Id = hidden("The server.", index=True)
    position: int = hidden("The order of the cards.", 0)
    network_id: Str255 = hidden("The port's network.")
    own: bool = hidden("Whether compute made the port, and deletes it with the server.", True)
    fixed_ip: Str255 | None = hidden("The address that was asked for.", None)
    groups: list[str] | None = hidden("Security groups for a port that is made.", None)
    tag: Str255 | None = hidden("The device tag.", None)


class ServerAddress(Resource, table="compute_server_address", primary_key=("network_id", "address")):
    """Who has an address on a network: how a guest that asks for its metadata is recognised."""

    network_id: Id = hidden("The network.")
    address: Str255 = hidden("The fixed address.")
    server_id: Id = hidden("The server.", index=True)


def prepare(ctx: Ctx) -> Callable[[Connection, list[Server]], list[Server]]:
    """A function that makes servers fit to be shown to this caller."""
    base, admin = base_url(ctx), ctx.caller.is_admin

    def enrich(tx: Connection, servers: list[Server]) -> list[Server]:
        for server in servers:
            fit(server, base, admin)
        return servers

    return enrich


def fit(server: Server, base: str, admin: bool) -> None:
    """Make a server fit to be shown: with URLs as the caller knows them, without what only admins may know of a fault."""
    server.base_url = base
    if server.fault is not None and not admin and server.fault.code == 500:
        server.fault.details = UNSET
