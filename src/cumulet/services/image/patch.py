"""The JSON patches of images, in both media types: v2.1 is RFC 6902 cut to `add`, `replace`, `remove` of whole attributes;
v2.0 an earlier draft of it, where the operation is the key that holds the path, and where `add` may not replace."""

import re
from typing import Any

import msgspec
from msgspec import Struct

from cumulet.core.errors import Forbidden, Invalid, UnsupportedMedia

OLD = "application/openstack-images-v2.0-json-patch"
NEW = "application/openstack-images-v2.1-json-patch"
MEDIA_TYPES = (OLD, NEW)
OPERATIONS = ("add", "remove", "replace")

READ_ONLY = frozenset(
    {"id", "status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at", "updated_at"}
    | {"self", "file", "schema", "direct_url", "stores"}
)
RESERVED = frozenset({"location", "deleted", "deleted_at"})
RESERVED_PREFIX = "os_glance_"
TOLD = frozenset({"stores", "os_glance_import_task", "os_glance_importing_to_stores", "os_glance_failed_import"})
"""What images show beside custom properties, and clients take for those. openstacksdk asks to have all removed that it was not
told to keep: of these that is without effect."""


class Change(Struct, frozen=True):
    """One operation on one attribute, or on one of its `locations`. `strict`: an `add` may not replace what is there."""

    op: str
    name: str
    value: Any
    strict: bool
    position: str = ""  # of a place among `locations`: a number, or "-" for the end


def read_changes(media_type: str, data: bytes) -> list[Change]:
    """The operations of a patch. UnsupportedMedia, Invalid, or Forbidden for attributes that nobody may change."""
    if media_type not in MEDIA_TYPES:
        allowed = ", ".join(MEDIA_TYPES)
        raise UnsupportedMedia(f"Image PATCH expects Content-Type one of: {allowed}", headers={"Accept-Patch": allowed})
    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise Invalid(f"The request body is not JSON: {error}") from None
    if not isinstance(body, list):
        raise Invalid("Request body must be a JSON array of operation objects.")
    return [change for raw in body if (change := _change(raw, media_type == OLD)) is not None]


def check_name(name: str) -> None:
    """Refuse attributes that the service keeps to itself."""
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise Forbidden(f"Attribute '{name}' is reserved.")


def _change(raw: Any, old: bool) -> Change | None:
    """None for one that is without effect."""
    if not isinstance(raw, dict):
        raise Invalid("Operations must be JSON objects.")
    op, pointer = _old_form(raw) if old else _new_form(raw)
    name, *rest = _parts(pointer, op)
    if op == "remove" and name in TOLD:
        return None
    if op != "remove" and "value" not in raw:
        raise Invalid(f'Operation "{op}" requires a member named "value".')
    if name in READ_ONLY:
        raise Forbidden(f"Attribute '{name}' is read-only.")
    check_name(name)
    return Change(op, name, raw.get("value"), old, *rest)


def _new_form(raw: dict[str, Any]) -> tuple[str, Any]:
    available = ", ".join(OPERATIONS)
    if "op" not in raw:
        raise Invalid(f"Unable to find `op` in JSON Schema change. It must be one of the following: {available}.")
    if raw["op"] not in OPERATIONS:
        raise Invalid(f"Invalid operation: `{raw['op']}`. It must be one of the following: {available}.")
    if "path" not in raw:
        raise Invalid("Unable to find 'path' in JSON Schema change")
    return raw["op"], raw["path"]


def _old_form(raw: dict[str, Any]) -> tuple[str, Any]:
    named = [op for op in OPERATIONS if op in raw]
    if len(named) != 1:
        raise Invalid('Operation objects must contain exactly one member named "add", "remove", or "replace".')
    return named[0], raw[named[0]]


def _parts(pointer: Any, op: str) -> list[str]:
    """What a JSON pointer names: an attribute, or a place among `locations`, which alone has parts."""
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise Invalid(f'Pointer `{pointer}` does not start with "/".')
    if re.search(r"~(?![01])", pointer):
        raise Invalid(f'Pointer `{pointer}` contains "~" not part of a recognized escape sequence.')
    parts = [part.replace("~1", "/").replace("~0", "~").strip() for part in pointer[1:].split("/")]
    depth = 2 if parts[0] == "locations" and op != "replace" else 1
    if not all(parts) or len(parts) != depth:
        raise Invalid(f"Invalid JSON pointer for this resource: '{pointer}'")
    return parts
