"""Flavors: the sizes that servers come in.

GET, POST /flavors · GET /flavors/detail · GET, PUT, DELETE /flavors/{id}
GET, POST /flavors/{id}/os-extra_specs · GET, PUT, DELETE .../{key} · GET /flavors/{id}/os-flavor-access
POST /flavors/{id}/action: addTenantAccess, removeTenantAccess
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import ColumnElement, Connection, or_, select

from cumulet.api.crud import granted, list_page
from cumulet.api.http import Endpoint, Response
from cumulet.api.policy import ADMIN, ANYBODY
from cumulet.api.query import FALSE, TRUE, Listing
from cumulet.api.resource import SORT, Resource, computed, edit, hidden, once, read, sent
from cumulet.core import db
from cumulet.core.errors import Conflict, Invalid, NotFound
from cumulet.core.types import Column, Id, new_id
from cumulet.services.compute.context import Ctx, base_url
from cumulet.services.compute.server.resource import links

PREFIX = "os_compute_api:os-flavor-"
CREATE, UPDATE, DELETE = PREFIX + "manage:create", PREFIX + "manage:update", PREFIX + "manage:delete"
ACCESS, ADD_ACCESS, REMOVE_ACCESS = (
    "os_compute_api:os-flavor-access",
    PREFIX + "access:add_tenant_access",
    PREFIX + "access:remove_tenant_access",
)
SPECS = {verb: f"{PREFIX}extra-specs:{verb}" for verb in ("index", "show", "create", "update", "delete")}
READ = "os_compute_api:flavors"
RULES = {
    READ: ANYBODY,
    **dict.fromkeys((CREATE, UPDATE, DELETE, ACCESS, ADD_ACCESS, REMOVE_ACCESS), ADMIN),
    SPECS["index"]: ANYBODY,
    SPECS["show"]: ANYBODY,
    **{SPECS[verb]: ADMIN for verb in ("create", "update", "delete")},
}

BIG = 2147483647
FlavorName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A\S(.*\S)?\Z"), Column(255)]
FlavorId = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[a-zA-Z0-9. _-]*\Z"), Column(255)]
Digits = Annotated[str, Meta(max_length=10, pattern=r"\A[0-9]+\Z")]
AtLeastOne = Annotated[int, Meta(ge=1, le=BIG)] | Digits
AtLeastZero = Annotated[int, Meta(ge=0, le=BIG)] | Digits
Key = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[a-zA-Z0-9_:. -]+\Z")]
Value = Annotated[str, Meta(max_length=255)]
Truth = (
    bool
    | Literal["True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes"]
    | Literal["False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no"]
)
"""A boolean, also in the words that upstream takes for one."""
SpecValue = Value | int | float


class Flavor(Resource, table="compute_flavor", path="/v2.1/flavors"):
    """A size of server: processors, memory, disk."""

    name: FlavorName = once("Its name.", use=SORT)
    asked_id: FlavorId | int | None = sent("Its id; made up where it is `auto` or missing.", None, wire="id")
    id: Id = read("Its id.", use=SORT)
    ram: int = read("Memory in MiB.", use=SORT)
    disk: int = read("The root disk in GiB.", use=SORT)
    vcpus: int = read("Virtual processors.", use=SORT)
    swap: int = hidden("Swap in MiB.", 0)
    swap_text: Any = computed("Swap in MiB.", lambda row: row.swap or "", wire="swap", until=(2, 74))
    swap_number: Any = computed("Swap in MiB.", lambda row: row.swap, wire="swap", since=(2, 75))
    ephemeral: int = read("A second disk in GiB.", 0, wire="OS-FLV-EXT-DATA:ephemeral")
    disabled: bool = read("Never true.", False, wire="OS-FLV-DISABLED:disabled")
    rxtx_factor: float = read("Of no effect.", 1.0)
    is_public: bool = read("Whether every project may use it.", True, wire="os-flavor-access:is_public")
    description: Annotated[str, Meta(max_length=65535), Column(0)] | None = edit("What it is for.", None, since=(2, 55))
    extra_specs: dict[str, str] = read("What hosts must offer.", {}, since=(2, 61), show=SPECS["index"])
    links: Any = computed("Its own URLs.", lambda row: links(row.base_url, "flavors", row.id))
    base_url: str = hidden("The root of the API as the caller reached it.", "", stored=False)

    new_ram: AtLeastOne = sent("Memory in MiB.", wire="ram")
    new_vcpus: AtLeastOne = sent("Virtual processors.", wire="vcpus")
    new_disk: AtLeastZero = sent("The root disk in GiB.", wire="disk")
    new_swap: AtLeastZero = sent("Swap in MiB.", 0, wire="swap")
    new_ephemeral: AtLeastZero = sent("A second disk in GiB.", 0, wire="OS-FLV-EXT-DATA:ephemeral")
    new_factor: float | Digits = sent("Of no effect.", 1.0, wire="rxtx_factor")
    new_public: Truth = sent("Whether every project may use it.", True, wire="os-flavor-access:is_public")


class FlavorAccess(Resource, table="compute_flavor_access", primary_key=("flavor_id", "project_id")):
    """A project that may use a flavor that is not public."""

    flavor_id: Id = hidden("The flavor.")
    project_id: Id = hidden("The project.")


DEFAULTS = (
    ("42", "m1.nano", 1, 128, 1),
    ("84", "m1.micro", 1, 192, 1),
    ("1", "m1.tiny", 1, 512, 1),
    ("2", "m1.small", 1, 2048, 20),
    ("3", "m1.medium", 2, 4096, 40),
    ("4", "m1.large", 4, 8192, 80),
)
"""The flavors of a new cloud: id, name, processors, MiB, GiB."""


def ensure_defaults(tx: Connection) -> None:
    """Make the default flavors that are missing."""
    there = set(tx.execute(select(Flavor.table.c.id)).scalars())
    for flavor_id, name, vcpus, ram, disk in DEFAULTS:
        if flavor_id not in there:
            db.insert(tx, Flavor.new(id=flavor_id, name=name, vcpus=vcpus, ram=ram, disk=disk))


def visible(ctx: Ctx) -> Sequence[ColumnElement[bool]]:
    """Flavors that the caller may use."""
    if ctx.caller.is_admin:
        return ()
    granted_ones = select(FlavorAccess.table.c.flavor_id).where(
        FlavorAccess.table.c.project_id == ctx.caller.project_id
    )
    return (or_(Flavor.table.c.is_public, Flavor.table.c.id.in_(granted_ones)),)


def get_flavor(tx: Connection, ctx: Ctx, id: str) -> Flavor:
    """The flavor, if the caller may use it; NotFound else."""
    try:
        return db.get(tx, Flavor, id, *visible(ctx))
    except NotFound:
        raise NotFound(message=f"Flavor {id} could not be found.") from None


def _prepare(ctx: Ctx) -> Callable[[Connection, list[Flavor]], list[Flavor]]:
    base = base_url(ctx)

    def enrich(tx: Connection, flavors: list[Flavor]) -> list[Flavor]:
        for flavor in flavors:
            flavor.base_url = base
        return flavors

    return enrich


def _number(name: str) -> Callable[[list[str]], int]:
    def convert(given: list[str]) -> int:
        text = given[-1]
        if not text.lstrip("-").isdecimal() or len(text) > 10:
            raise Invalid(f"Invalid {name} filter [{text}]")
        return int(text)

    return convert


LISTING = Listing(
    sort=(("id", "asc"),),
    filters={
        "minRam": lambda given: Flavor.table.c.ram >= _number("minRam")(given),
        "minDisk": lambda given: Flavor.table.c.disk >= _number("minDisk")(given),
    },
    ignore=frozenset({"is_public"}),
    sort_names={"flavorid": "id", "memory_mb": "ram", "root_gb": "disk"},
)


def _public(ctx: Ctx) -> list[ColumnElement[bool]]:
    """Admins may ask for public flavors, for the others, or (`none`) for all."""
    asked = (ctx.request.query.get("is_public") or "").lower()
    if not ctx.caller.is_admin or asked in ("", "none"):
        only_public: ColumnElement[bool] = Flavor.table.c.is_public
        return [only_public] if ctx.caller.is_admin and asked == "" else []
    if asked in TRUE:
        return [Flavor.table.c.is_public]
    if asked in FALSE:
        return [~Flavor.table.c.is_public]
    raise Invalid(f"Invalid is_public filter [{asked}]")


async def list_flavors(ctx: Ctx) -> Any:
    """List flavors: ids, names and links."""

    def brief(row: Any) -> dict[str, Any]:
        shown = {"id": row.id, "name": row.name, "links": links(row.base_url, "flavors", row.id)}
        if ctx.version >= (2, 55):
            shown["description"] = row.description
        return shown

    return await list_page(ctx, Flavor, visible, listing=LISTING, enrich=_prepare(ctx), view=brief, extra=_public(ctx))


async def list_details(ctx: Ctx) -> Any:
    """List flavors with all that they say."""
    return await list_page(ctx, Flavor, visible, listing=LISTING, enrich=_prepare(ctx), extra=_public(ctx))


def _view(ctx: Ctx, flavor: Flavor) -> Any:
    flavor.base_url = base_url(ctx)
    return {"flavor": Flavor.view(ctx.version, granted(ctx, Flavor))(flavor)}


async def show_flavor(ctx: Ctx, id: str) -> Any:
    """Show one flavor."""
    return _view(ctx, await ctx.service.kernel.db.read_inline(get_flavor, ctx, id))


def _truth(value: bool | str) -> bool:
    return value if isinstance(value, bool) else value.lower() in ("true", "1", "on", "yes")


async def create_flavor(ctx: Ctx, body: Any) -> Any:
    """Make a flavor."""
    asked = body.asked_id
    flavor_id = new_id() if asked in (None, "auto", "") else str(asked)
    flavor = Flavor.new(
        id=flavor_id, name=body.name, ram=_within(body.new_ram, 1), vcpus=_within(body.new_vcpus, 1),
        disk=_within(body.new_disk), swap=_within(body.new_swap), ephemeral=_within(body.new_ephemeral),
        rxtx_factor=float(body.new_factor), is_public=_truth(body.new_public), description=body.given().get("description"),
    )  # fmt: skip

    def unit(tx: Connection) -> None:
        if db.first(tx, Flavor, Flavor.table.c.name == flavor.name):
            raise Conflict(f"Flavor with name {flavor.name} already exists.")
        if db.first(tx, Flavor, Flavor.table.c.id == flavor_id):
            raise Conflict(f"Flavor with ID {flavor_id} already exists.")
        db.insert(tx, flavor)

    await ctx.service.kernel.db.run(unit)
    return _view(ctx, flavor)


def _within(value: int | str, least: int = 0) -> int:
    number = int(value)
    if not least <= number <= BIG:
        raise Invalid(f"Invalid input: {number} is not between {least} and {BIG}.")
    return number


async def update_flavor(ctx: Ctx, id: str, body: Any) -> Any:
    """Change a flavor's description."""
    if "description" not in body.given():
        raise Invalid("Invalid input for field/attribute flavor. 'description' is a required property")

    def unit(tx: Connection) -> Flavor:
        get_flavor(tx, ctx, id)
        db.update(tx, Flavor, id, **body.given())
        return get_flavor(tx, ctx, id)

    return _view(ctx, await ctx.service.kernel.db.run(unit))


async def delete_flavor(ctx: Ctx, id: str) -> Any:
    """Delete a flavor; servers keep their copy of it."""

    def unit(tx: Connection) -> None:
        get_flavor(tx, ctx, id)
        db.remove_where(tx, FlavorAccess, FlavorAccess.table.c.flavor_id == id)
        db.remove(tx, Flavor, id)

    await ctx.service.kernel.db.run(unit)
    return Response(202)


class SpecsBody(Struct, forbid_unknown_fields=True):
    extra_specs: dict[Key, SpecValue]


async def list_specs(ctx: Ctx, id: str) -> Any:
    """List a flavor's extra specs."""
    return {"extra_specs": (await ctx.service.kernel.db.read_inline(get_flavor, ctx, id)).extra_specs}


async def _change_specs(ctx: Ctx, id: str, change: Callable[[dict[str, str]], None]) -> dict[str, str]:
    def unit(tx: Connection) -> dict[str, str]:
        specs = dict(get_flavor(tx, ctx, id).extra_specs)
        change(specs)
        db.update(tx, Flavor, id, extra_specs=specs)
        return specs

    return await ctx.service.kernel.db.run(unit)


async def create_specs(ctx: Ctx, id: str, body: SpecsBody) -> Any:
    """Add extra specs to a flavor."""
    new = {key: str(value) for key, value in body.extra_specs.items()}
    await _change_specs(ctx, id, lambda specs: specs.update(new))
    return {"extra_specs": new}


async def show_spec(ctx: Ctx, id: str, key: str) -> Any:
    """Show one extra spec."""
    flavor = await ctx.service.kernel.db.read_inline(get_flavor, ctx, id)
    if key not in flavor.extra_specs:
        raise NotFound(message=f"Flavor {id} has no extra specs with key {key}.")
    return {key: flavor.extra_specs[key]}


async def update_spec(ctx: Ctx, id: str, key: str, body: dict[str, Any]) -> Any:
    """Set one extra spec."""
    if list(body) != [key]:
        raise Invalid("Request body and URI mismatch")
    new = {k: str(v) for k, v in msgspec.convert(body, dict[Key, SpecValue]).items()}
    await _change_specs(ctx, id, lambda specs: specs.update(new))
    return new


async def delete_spec(ctx: Ctx, id: str, key: str) -> Any:
    """Remove one extra spec."""

    def remove(specs: dict[str, str]) -> None:
        if specs.pop(key, None) is None:
            raise NotFound(message=f"Flavor {id} has no extra specs with key {key}.")

    await _change_specs(ctx, id, remove)
    return Response(200)


class Tenant(Struct, forbid_unknown_fields=True):
    tenant: Annotated[str, Meta(min_length=1, max_length=255)]


def _access(tx: Connection, id: str) -> Any:
    rows = db.find(tx, FlavorAccess, FlavorAccess.table.c.flavor_id == id)
    return {"flavor_access": [{"flavor_id": row.flavor_id, "tenant_id": row.project_id} for row in rows]}


async def list_access(ctx: Ctx, id: str) -> Any:
    """List the projects that may use a flavor that is not public."""

    def look(tx: Connection) -> Any:
        if get_flavor(tx, ctx, id).is_public:
            raise NotFound(message="Access list not available for public flavors.")
        return _access(tx, id)

    return await ctx.service.kernel.db.read(look)


async def add_access(ctx: Ctx, id: str, body: Tenant) -> Any:
    """Let a project use a flavor."""

    def unit(tx: Connection) -> Any:
        if get_flavor(tx, ctx, id).is_public and ctx.version >= (2, 7):
            raise Conflict("Can not add access to a public flavor.")
        try:
            _row(tx, id, body.tenant)
        except NotFound:
            db.insert(tx, FlavorAccess(flavor_id=id, project_id=body.tenant))
            return _access(tx, id)
        raise Conflict(f"Flavor access already exists for flavor {id} and project {body.tenant} combination.")

    return await ctx.service.kernel.db.run(unit)


def _row(tx: Connection, id: str, project: str) -> FlavorAccess:
    columns = FlavorAccess.table.c
    row = db.first(tx, FlavorAccess, columns.flavor_id == id, columns.project_id == project)
    if row is None:
        raise NotFound(message=f"Flavor access not found for {id} / {project} combination.")
    return row


async def remove_access(ctx: Ctx, id: str, body: Tenant) -> Any:
    """Stop letting a project use a flavor."""

    def unit(tx: Connection) -> Any:
        get_flavor(tx, ctx, id)
        _row(tx, id, body.tenant)
        columns = FlavorAccess.table.c
        db.remove_where(tx, FlavorAccess, columns.flavor_id == id, columns.project_id == body.tenant)
        return _access(tx, id)

    return await ctx.service.kernel.db.run(unit)


ONE = "/v2.1/flavors/{id}"
endpoints = [
    Endpoint("GET", "/v2.1/flavors", list_flavors, READ, resource=Flavor),
    Endpoint("GET", "/v2.1/flavors/detail", list_details, READ, resource=Flavor),
    Endpoint("POST", "/v2.1/flavors", create_flavor, CREATE, Flavor, resource=Flavor),
    Endpoint("GET", ONE, show_flavor, READ, resource=Flavor),
    Endpoint("PUT", ONE, update_flavor, UPDATE, Flavor, "update", since=(2, 55), resource=Flavor),
    Endpoint("DELETE", ONE, delete_flavor, DELETE, resource=Flavor),
    Endpoint("GET", ONE + "/os-extra_specs", list_specs, SPECS["index"]),
    Endpoint("POST", ONE + "/os-extra_specs", create_specs, SPECS["create"], SpecsBody),
    Endpoint("GET", ONE + "/os-extra_specs/{key}", show_spec, SPECS["show"]),
    Endpoint("PUT", ONE + "/os-extra_specs/{key}", update_spec, SPECS["update"], dict[str, Any]),
    Endpoint("DELETE", ONE + "/os-extra_specs/{key}", delete_spec, SPECS["delete"]),
    Endpoint("GET", ONE + "/os-flavor-access", list_access, ACCESS),
    Endpoint("POST", ONE + "/action", add_access, ADD_ACCESS, Tenant, action="addTenantAccess"),
    Endpoint("POST", ONE + "/action", remove_access, REMOVE_ACCESS, Tenant, action="removeTenantAccess"),
]
