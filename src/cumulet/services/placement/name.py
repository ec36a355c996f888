"""Resource classes and traits: names, standard ones and one's own.

GET, POST /resource_classes · GET, PUT, DELETE /resource_classes/{name} · GET /traits · GET, PUT, DELETE /traits/{name}
"""

from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import Meta, Struct
from sqlalchemy import Connection, select

from cumulet.api.http import Endpoint, Response
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.services.placement import tables as t
from cumulet.services.placement.context import Ctx, rules

RULES = {
    **rules("resource_classes", "list", "create", "show", "update", "delete"),
    **rules("traits", "list", "show", "update", "delete"),
}
STANDARD_CLASSES = (
    "VCPU", "MEMORY_MB", "DISK_GB", "PCI_DEVICE", "SRIOV_NET_VF", "NUMA_SOCKET", "NUMA_CORE", "NUMA_THREAD",
    "NUMA_MEMORY_MB", "IPV4_ADDRESS", "VGPU", "VGPU_DISPLAY_HEAD", "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC", "PCPU", "MEM_ENCRYPTION_CONTEXT", "FPGA", "PGPU", "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC", "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
)  # fmt: skip
STANDARD_TRAITS = (
    "COMPUTE_NODE", "COMPUTE_NET_ATTACH_INTERFACE", "COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_RAW",
    "COMPUTE_GRAPHICS_MODEL_VGA", "COMPUTE_NET_VIF_MODEL_VIRTIO", "COMPUTE_STORAGE_BUS_VIRTIO", "HW_CPU_X86_VMX",
    "STORAGE_DISK_SSD", "STORAGE_DISK_HDD",
)  # fmt: skip
STANDARD = {"resource_class": STANDARD_CLASSES, "trait": STANDARD_TRAITS}
Custom = Annotated[str, Meta(pattern="^CUSTOM_[A-Z0-9_]+$", max_length=255)]


class NewClass(Struct, forbid_unknown_fields=True):
    name: Custom


def known(tx: Connection, kind: str) -> list[str]:
    """Every name of a kind, the standard ones first."""
    custom = tx.execute(select(t.names.c.name).where(t.names.c.kind == kind).order_by(t.names.c.name)).scalars()
    return [*STANDARD[kind], *custom]


def check_classes(tx: Connection, wanted: Iterable[str]) -> None:
    """Raise Invalid for resource classes that nobody declared."""
    unknown = set(wanted) - set(STANDARD_CLASSES)
    if unknown and (unknown := unknown - set(known(tx, "resource_class"))):
        raise Invalid(f"No such resource class {', '.join(sorted(unknown))}")


def _add(tx: Connection, kind: str, name: str) -> bool:
    """Keep a name; False if it was there."""
    if name in known(tx, kind):
        return False
    tx.execute(t.names.insert().values(kind=kind, name=name))
    return True


def _custom(name: str) -> None:
    if not (
        name.startswith("CUSTOM_") and len(name) <= 255 and name.replace("_", "").isalnum() and name == name.upper()
    ):
        raise Invalid(f"{name} is not a name of one's own: CUSTOM_ and capitals, digits and underscores are expected")


def _class_view(name: str) -> dict[str, Any]:
    return {"name": name, "links": [{"rel": "self", "href": f"/resource_classes/{name}"}]}


async def list_classes(ctx: Ctx) -> Any:
    """List resource classes."""
    names = await ctx.service.kernel.db.read_inline(known, "resource_class")
    return {"resource_classes": [_class_view(name) for name in names]}


async def create_class(ctx: Ctx, body: NewClass) -> Any:
    """Add a resource class."""
    if not await ctx.service.kernel.db.run(_add, "resource_class", body.name):
        raise Conflict(f"Conflicting resource class already exists: {body.name}")
    return Response(201, b"", {"Location": f"{ctx.request.base_url}/resource_classes/{body.name}"})


async def show_class(ctx: Ctx, name: str) -> Any:
    """Show one resource class."""
    if name not in await ctx.service.kernel.db.read_inline(known, "resource_class"):
        raise NotFound(message=f"No such resource class {name}")
    return _class_view(name)


async def put_class(ctx: Ctx, name: str) -> Any:
    """Make sure that a resource class exists."""
    _custom(name)
    made = await ctx.service.kernel.db.run(_add, "resource_class", name)
    return Response(201 if made else 204, b"", {"Location": f"{ctx.request.base_url}/resource_classes/{name}"})


async def delete_class(ctx: Ctx, name: str) -> None:
    """Remove a resource class of one's own that no inventory has."""
    if name in STANDARD_CLASSES:
        raise Invalid(f"Cannot delete standard resource class {name}")

    def remove(tx: Connection) -> None:
        if tx.execute(select(t.inventories.c.total).where(t.inventories.c.resource_class == name)).first():
            raise Conflict(f"Unable to delete resource class {name}: Resource class is in use in inventory.")
        if not tx.execute(t.names.delete().where(t.names.c.kind == "resource_class", t.names.c.name == name)).rowcount:
            raise NotFound(message=f"No such resource class {name}")

    await ctx.service.kernel.db.run(remove)


async def list_traits(ctx: Ctx) -> Any:
    """List traits; ?name=startswith:X or in:A,B chooses among them."""
    names = await ctx.service.kernel.db.read_inline(known, "trait")
    wanted = ctx.request.query.get("name") or ""
    if wanted.startswith("startswith:"):
        names = [n for n in names if n.startswith(wanted.removeprefix("startswith:"))]
    elif wanted.startswith("in:"):
        names = [n for n in names if n in wanted.removeprefix("in:").split(",")]
    elif wanted:
        raise Invalid(f"Invalid query string parameters: name={wanted}; startswith: or in: is expected")
    return {"traits": names}


async def show_trait(ctx: Ctx, name: str) -> Any:
    """Tell whether a trait exists."""
    if name not in await ctx.service.kernel.db.read_inline(known, "trait"):
        raise NotFound(message=f"No such trait {name}")
    return Response(204)


async def put_trait(ctx: Ctx, name: str) -> Any:
    """Make sure that a trait exists."""
    _custom(name)
    made = await ctx.service.kernel.db.run(_add, "trait", name)
    return Response(201 if made else 204, b"", {"Location": f"{ctx.request.base_url}/traits/{name}"})


async def delete_trait(ctx: Ctx, name: str) -> None:
    """Remove a trait of one's own that no provider has."""
    if name in STANDARD_TRAITS:
        raise Invalid(f"Cannot delete standard trait {name}")

    def remove(tx: Connection) -> None:
        if any(name in traits for traits in tx.execute(select(t.providers.c.traits)).scalars()):
            raise Conflict(f"The trait {name} is in use by a resource provider.")
        if not tx.execute(t.names.delete().where(t.names.c.kind == "trait", t.names.c.name == name)).rowcount:
            raise NotFound(message=f"No such trait {name}")

    await ctx.service.kernel.db.run(remove)


CLASSES, TRAITS = "placement:resource_classes:", "placement:traits:"
endpoints = [
    Endpoint("GET", "/resource_classes", list_classes, CLASSES + "list", since=(1, 2)),
    Endpoint("POST", "/resource_classes", create_class, CLASSES + "create", NewClass, status=201, since=(1, 2)),
    Endpoint("GET", "/resource_classes/{name}", show_class, CLASSES + "show", since=(1, 2)),
    Endpoint("PUT", "/resource_classes/{name}", put_class, CLASSES + "update", since=(1, 7)),
    Endpoint("DELETE", "/resource_classes/{name}", delete_class, CLASSES + "delete", status=204, since=(1, 2)),
    Endpoint("GET", "/traits", list_traits, TRAITS + "list", since=(1, 6)),
    Endpoint("GET", "/traits/{name}", show_trait, TRAITS + "show", since=(1, 6)),
    Endpoint("PUT", "/traits/{name}", put_trait, TRAITS + "update", since=(1, 6)),
    Endpoint("DELETE", "/traits/{name}", delete_trait, TRAITS + "delete", status=204, since=(1, 6)),
]
