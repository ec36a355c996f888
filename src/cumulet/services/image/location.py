"""The places where an image's data lies: GET|POST /v2/images/{image_id}/locations, and `locations` in PATCH of the image.

The first is the newer way: services, and owners where images may lie outside, name a URL; the data there is read and hashed
as an operation, and the image becomes active if it is what it was said to be. The second is older, needs the setting
`image_locations`, and believes what it is told.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from cumulet.api.http import Endpoint, Response
from cumulet.core import db
from cumulet.core.context import Caller, Context
from cumulet.core.errors import Conflict, Forbidden, Invalid, TooLarge
from cumulet.core.operations import Finish, Operation
from cumulet.core.types import now
from cumulet.services.image import quota
from cumulet.services.image.image import Image, find, locations, look_up, require
from cumulet.services.image.patch import Change
from cumulet.services.image.place import MOST, Location, digest
from cumulet.services.image.rules import ADMIN, MEMBER, OWNER, READER, SERVICE, in_project
from cumulet.services.image.task import LOCATION, add_task, fail, succeed

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

RULES = in_project(
    {
        "get_image_location": READER,
        "set_image_location": MEMBER,
        "delete_image_location": ADMIN,
        "add_image_location": f"{SERVICE} or (role:member and {OWNER} and project_id:%(owner)s)",
        "fetch_image_location": SERVICE,
    }
)

LOCATIONS = "locations"
LOCATE = "image.locate"
HASH = "sha512"


class Validation(Struct, forbid_unknown_fields=True):
    """What the data has to be."""

    os_hash_algo: Literal["sha1", "sha256", "sha512", "md5"] | None = None
    os_hash_value: str = ""


class NewLocation(Struct):
    """A place where a queued image's data lies."""

    url: str
    validation_data: Validation | None = None


async def list_locations(ctx: Ctx, image_id: str) -> Any:
    """List the places where an image's data lies, for services."""
    image = await ctx.service.kernel.db.read_inline(find, ctx.caller, image_id)
    require(ctx, image, "fetch_image_location")
    return locations(ctx, image)


async def add_location(ctx: Ctx, image_id: str, body: NewLocation) -> Response:
    """Say where a queued image's data lies; it becomes active once the data was read."""
    runtime = ctx.service
    limits = await runtime.limits((await look_up(ctx, image_id)).owner)

    def begin(tx: Connection) -> None:
        image = find(tx, ctx.caller, image_id)
        require(ctx, image, "add_image_location")
        if image.status != "queued":
            raise Conflict(f"It's not allowed to add locations if image status is {image.status}.")
        if not runtime.web.reads(body.url):
            if not (_is_service(ctx.caller) or runtime.kernel.settings.image_web):
                raise Forbidden("http store must be enabled to use location API by normal user.")
            raise Invalid(f"No store of this cloud reads {body.url}.")
        _check_told(body.validation_data)
        _check_formats(image)
        quota.check(tx, Image.table, limits, image.owner or "", **{quota.SIZE: 0, quota.UPLOADING: 1})
        # The place stays named if the data turns out to be something else, as it does upstream.
        db.update(tx, Image, image.id, status="importing", places=[Location(body.url, {})], updated_at=now())
        told = msgspec.to_builtins(body)
        asked = {"image_id": image.id, "loc_url": body.url, "validation_data": told["validation_data"] or {}}
        task_id = add_task(tx, ctx, LOCATION, image.id, asked)
        runtime.kernel.operations.add(
            tx, LOCATE, image.id, {**told, "task_id": task_id}, project_id=ctx.caller.project_id, user_id=ctx.caller.user_id,
            request_id=ctx.request_id,
        )  # fmt: skip

    await runtime.kernel.db.run(begin)
    return Response(202)


def _is_service(caller: Caller) -> bool:
    """Whether a service asks, for itself or on behalf of the caller."""
    return "service" in caller.roles or (caller.service is not None and "service" in caller.service.roles)


def _check_told(told: Validation | None) -> None:
    """Refuse a digest that cannot be one. Both of its parts are told, or none."""
    if told is None or not (told.os_hash_algo or told.os_hash_value):
        return
    if not (told.os_hash_algo and told.os_hash_value):
        raise Invalid("validation_data takes os_hash_algo and os_hash_value together.")
    algorithm, value = told.os_hash_algo, told.os_hash_value
    try:
        size = len(bytes.fromhex(value))
    except ValueError:
        raise Invalid(f"os_hash_value ({value}) is not a valid hexadecimal value") from None
    wanted = hashlib.new(algorithm, usedforsecurity=False).digest_size
    if size != wanted:
        raise Invalid(f"os_hash_value ({value}) is not the correct size for {algorithm} (should be {wanted} bytes)")


def _check_formats(image: Image) -> None:
    missing = [name for name in ("disk_format", "container_format") if getattr(image, name) is None]
    if missing:
        raise Invalid(f"Properties {', '.join(missing)} must be set prior to saving data.")


class Locator:
    """Reads the data at places that were named, and makes images active."""

    def __init__(self, runtime: "ImageRuntime") -> None:
        self.runtime = runtime
        runtime.kernel.operations.register(LOCATE, self.locate, on_failure=queue_again)

    async def locate(self, operation: Operation) -> Finish:
        """Read the data; it may be read again after a crash."""
        wanted = msgspec.convert(operation.args, NewLocation)
        told = wanted.validation_data or Validation()
        algorithm = told.os_hash_algo or HASH
        found = await digest(self.runtime.web.chunks(wanted.url), algorithm)
        if told.os_hash_value and found.value != told.os_hash_value.lower():
            raise Conflict(f"The data at {wanted.url} has the {algorithm} {found.value}, not {told.os_hash_value}.")

        def finish(tx: Connection) -> None:
            where = [Image.table.c.id == operation.resource_id, Image.table.c.status == "importing"]
            db.update_where(
                tx, Image, where, status="active", size=found.size, checksum=found.md5, os_hash_algo=algorithm,
                os_hash_value=found.value, updated_at=now(),
            )  # fmt: skip
            succeed(tx, operation.args.get("task_id", ""), operation.resource_id)

        return finish


def queue_again(tx: Connection, operation: Operation, error: BaseException) -> None:
    """The data could not be read, or is not what it should be: the image waits for other data."""
    where = [Image.table.c.id == operation.resource_id, Image.table.c.status == "importing"]
    db.update_where(tx, Image, where, status="queued", updated_at=now())
    fail(tx, operation.args.get("task_id", ""), str(error))


# ---- `locations` in a patch ------------------------------------------------------------------------------------------------


class Told(Struct, forbid_unknown_fields=True):
    """What a patch says that the data is."""

    os_hash_algo: str
    os_hash_value: str
    checksum: str | None = None


class Sent(Struct, forbid_unknown_fields=True):
    """A place as a patch names it."""

    url: str
    metadata: dict[str, Any]
    validation_data: Told | None = None


async def look_at(ctx: Ctx, image_id: str, changes: Sequence[Change]) -> dict[str, int]:
    """The sizes of the data at the places that a patch adds; Invalid where there is none. Only who may add places has the
    cloud look at them."""
    if not changes:
        return {}
    image = await ctx.service.kernel.db.read_inline(find, ctx.caller, image_id)
    sizes = {}
    for change in changes:
        _check_allowed(ctx, image, change)
        if change.op != "remove":
            for sent in _sent(change):
                there = any(sent.url == place.url for place in locations(ctx, image))
                if not there and sent.url not in sizes:
                    sizes[sent.url] = await ctx.service.web.size(sent.url)
    return sizes


def _sent(change: Change) -> list[Sent]:
    try:
        if change.op == "replace":
            return msgspec.convert(change.value, list[Sent])
        return [msgspec.convert(change.value, Sent)]
    except msgspec.ValidationError as error:
        raise Invalid(f"Provided object does not match schema 'image': locations: {error}") from None


def _check_allowed(ctx: Ctx, image: Image, change: Change) -> None:
    """Refuse a change that the operator, policy or the image's state do not allow."""
    if not ctx.service.kernel.settings.image_locations:
        verb = {"replace": "update"}.get(change.op, change.op)
        raise Forbidden(f"It's not allowed to {verb} locations if locations are invisible.")
    require(ctx, image, "delete_image_location" if change.op == "remove" else "set_image_location")
    if image.status != "active" and not (image.status == "queued" and change.op != "remove"):
        raise Conflict(f"It's not allowed to {change.op} locations if image status is {image.status}.")


def change_locations(ctx: Ctx, image: Image, change: Change, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The new values of the image's attributes after one change of its `locations`; a queued image becomes active."""
    _check_allowed(ctx, image, change)
    there = locations(ctx, image)
    if change.op == "remove":
        return {"places": ctx.service.stores.kept(image.id, _without(ctx, image, there, change.position))}
    sent = _sent(change)
    if change.op == "replace":
        if not sent:
            raise Forbidden("Cannot set locations to empty list.")
        if there and sorted(s.url for s in sent) != sorted(place.url for place in there):
            raise Invalid(
                "The image has locations already: only their metadata can be replaced, or further ones added."
            )
        new = [Location(s.url, s.metadata) for s in sent]
    else:
        new = list(there)
        new.insert(_position(change.position, len(there)), Location(sent[0].url, sent[0].metadata))
    if len({place.url for place in new}) < len(new):
        raise Invalid("The same location is named twice.")
    if len(new) > MOST:
        raise TooLarge(
            f"The limit has been exceeded on the number of allowed image locations. Attempted: {len(new)}, Maximum: {MOST}"
        )
    values: dict[str, Any] = {"places": ctx.service.stores.kept(image.id, new), **_told(image, sent)}
    if image.status == "queued":
        _check_formats(image)
        values |= {"status": "active", "size": sizes[new[0].url]}
    return values


def _position(text: str, end: int) -> int:
    if text == "-":
        return end
    if not (text.isascii() and text.isdigit()):
        raise Invalid("Invalid position for adding a location.")
    return min(int(text), end)


def _without(ctx: Ctx, image: Image, there: list[Location], position: str) -> list[Location]:
    """The places but for one."""
    if len(there) == 1:
        raise Forbidden("Cannot remove last location in the image.")
    if not (position.isascii() and position.isdigit() and int(position) < len(there)):
        raise Invalid("Invalid position for removing a location.")
    if ctx.service.stores.holding(image)[int(position)].own:
        raise Conflict("Data in a store of this cloud is removed with DELETE /v2/stores/{store}/{image}.")
    return there[: int(position)] + there[int(position) + 1 :]


def _told(image: Image, sent: Sequence[Sent]) -> dict[str, Any]:
    """What the places' `validation_data` say that is new; it may say again what is known, and nothing else."""
    told: dict[str, str] = {}
    for one in sent:
        for name, value in (msgspec.structs.asdict(one.validation_data) if one.validation_data else {}).items():
            if value is not None and told.setdefault(name, value) != value:
                raise Conflict(f"Conflicting values for {name}")
    new = {name: value for name, value in told.items() if value != getattr(image, name)}
    for name in new:
        if getattr(image, name):
            raise Conflict(f"{name} is already set with a different value")
    if not new:
        return {}
    if image.status != "queued":
        raise Conflict(f"New value(s) for {', '.join(new)} may only be provided when image status is 'queued'")
    if new.get("os_hash_algo") != HASH:
        raise Conflict(f"os_hash_algo must be {HASH}, not {new.get('os_hash_algo')}")
    for name, size in (("checksum", 16), ("os_hash_value", 64)):
        if name in new and not _is_hex(new[name], size):
            raise Conflict(f"{name} ({new[name]}) has to be {size} bytes in hexadecimal digits")
    return new


def _is_hex(text: str, size: int) -> bool:
    try:
        return len(bytes.fromhex(text)) == size
    except ValueError:
        return False


_ALL = "/v2/images/{image_id}/locations"
endpoints = [
    Endpoint("GET", _ALL, list_locations),
    Endpoint("POST", _ALL, add_location, body=NewLocation, status=202),
]
