"""The manifest of a static large object: what clients send (`?multipart-manifest=put`), what is stored, and the segments that
bytes of it lie in.

Sent: [{"path": "/container/object", "etag": ..., "size_bytes": ..., "range": "0-99"}, {"data": base64}, ...]; all but the
path may be left out or null. Stored: the same with the words of listings (name, hash, bytes) and what was found.
Reference: https://docs.openstack.org/swift/latest/middleware.html#static-large-objects
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5
from typing import Any

import msgspec

from cumulet.services.object_store import conditional
from cumulet.services.object_store.message import Refusal, Request, refuse
from cumulet.services.object_store.values import is_true, parameters

MAX_SEGMENTS = 10_000
"""As many as an upload of S3 in parts may have."""
MAX_SIZE = 8 << 20
"""Bytes of a manifest."""
KEYS = frozenset({"path", "range", "etag", "size_bytes"})
HIDDEN = frozenset({"content_type", "last_modified", "sub_slo", "name", "bytes", "hash"})
"""What is stored and has another name, or none, in what clients send."""


@dataclass(slots=True)
class Wish:
    """A segment as a client asks for it: an object (`path`, as sent) or `data`."""

    path: str = ""
    etag: str | None = None
    size: int | None = None
    range: str = ""
    data: bytes | None = None

    @property
    def names(self) -> tuple[str, str]:
        """Container and object."""
        container, _, object = self.path.lstrip("/").partition("/")
        return container, object


@dataclass(slots=True)
class Part:
    """A segment as it is stored. `length` are the bytes that it adds to the whole, which begin at `start` in its object."""

    length: int
    container: str = ""
    object: str = ""
    hash: str = ""
    size: int = 0
    start: int = 0
    range: str = ""
    is_slo: bool = False
    data: bytes | None = None


def parse(body: bytes, request: Request) -> list[Wish]:
    """The manifest that a client sends; Refusal (400) with a line for each thing that is wrong with it."""
    try:
        rows = msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise Refusal(refuse(400, "Manifest must be valid JSON.\n")) from None
    if not isinstance(rows, list):
        raise Refusal(refuse(400, "Manifest must be a list.\n"))
    errors: list[str] = []
    wishes: list[Wish] = []
    for index, row in enumerate(rows):
        try:
            wishes.append(_wish(row, request, is_last=index == len(rows) - 1))
        except ValueError as error:
            errors.append(f"Index {index}: {error}\n")
    if rows and all(isinstance(row, dict) and "data" in row for row in rows):
        errors.append("Inline data segments require at least one object-backed segment.\n")
    if errors:
        raise Refusal(refuse(400, "".join(errors)))
    return wishes


def _wish(row: Any, request: Request, *, is_last: bool) -> Wish:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    kind = next((key for key in ("data", "path") if key in row), None)
    if kind is None:
        raise ValueError("expected keys to include one of 'data' or 'path'")
    extra = sorted(set(row) - (KEYS if kind == "path" else {"data"}))
    if extra:
        raise ValueError("extraneous keys " + ", ".join(msgspec.json.encode(key).decode() for key in extra))
    return _data(row["data"]) if kind == "data" else _object(row, request, is_last=is_last)


def _data(value: Any) -> Wish:
    try:
        text = value.strip().rstrip("=")  # as many of them as are wanted
        data = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, AttributeError, ValueError):
        raise ValueError("data must be valid base64") from None
    if not data:
        raise ValueError("too small; each segment must be at least 1 byte.")
    return Wish(data=data)


def _object(row: dict[str, Any], request: Request, *, is_last: bool) -> Wish:
    path, etag, size = row["path"], row.get("etag"), row.get("size_bytes")
    if not isinstance(path, str):
        raise ValueError('"path" must be a string')
    if etag is not None and not isinstance(etag, str):
        raise ValueError('"etag" must be a string or null (if provided)')
    if "/" not in path.strip("/"):
        raise ValueError("path does not refer to an object. Path must be of the form /container/object.")
    if size is not None:
        try:
            size = int(size)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("invalid size_bytes") from None
        if size < 1 and not is_last:
            raise ValueError("too small; each segment must be at least 1 byte.")
    wish = Wish(path, etag, size)
    if wish.names == (request.container, request.object):
        raise ValueError("manifest must not include itself as a segment")
    if row.get("range"):
        wish.range = _checked_range(row["range"], size)
    return wish


def _checked_range(value: Any, size: int | None) -> str:
    spec = f"bytes={value}"
    if "," in spec and conditional.spans(spec, 1 << 62) is not None:
        raise ValueError("multiple ranges (only one allowed)")
    if conditional.spans(spec, 1 << 62) is None:
        raise ValueError("invalid range")
    if size is not None and not conditional.spans(spec, size):
        raise ValueError("unsatisfiable range")
    return str(value)


def stored(found: Sequence[dict[str, Any]]) -> bytes:
    """A manifest as it is stored."""
    return msgspec.json.encode(found)


def etag_of(found: Sequence[dict[str, Any]]) -> str:
    """The ETag of a large object: the MD5 of those of its segments; a range counts with it."""
    hash = md5(usedforsecurity=False)
    for row in found:
        if "data" in row:
            hash.update(md5(b64decode(row["data"]), usedforsecurity=False).hexdigest().encode())
        elif row.get("range"):
            hash.update(f"{row['hash']}:{row['range']};".encode())
        else:
            hash.update(row["hash"].encode())
    return hash.hexdigest()


def data_row(data: bytes) -> dict[str, Any]:
    return {"data": b64encode(data).decode()}


def load(body: bytes) -> list[dict[str, Any]]:
    """A stored manifest; Refusal (500) where it is none, which only damage explains."""
    try:
        rows: list[dict[str, Any]] = msgspec.json.decode(body, type=list[dict[str, Any]])
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise Refusal(refuse(500, "Unable to load SLO manifest")) from None
    return rows


def parts(rows: Sequence[dict[str, Any]]) -> list[Part]:
    """The segments of a stored manifest."""
    return [_part(row) for row in rows]


def _part(row: dict[str, Any]) -> Part:
    if "data" in row:
        data = b64decode(row["data"])
        return Part(len(data), data=data)
    size, is_slo = int(row["bytes"]), is_true(str(row.get("sub_slo", "")))
    if is_slo and (told := parameters(row.get("content_type", ""))[1].get("swift_bytes", "")).isdigit():
        size = int(told)
    container, _, object = row["name"].lstrip("/").partition("/")
    part = Part(size, container, object, row["hash"], size, is_slo=is_slo)
    if row.get("range"):
        first, _, last = row["range"].partition("-")
        part.range, part.start, part.length = row["range"], int(first), int(last) - int(first) + 1
    return part


def as_sent(rows: Sequence[dict[str, Any]]) -> bytes:
    """A stored manifest in the words that clients send (`?multipart-manifest=get&format=raw`)."""
    sent = []
    for row in rows:
        if "data" in row:
            sent.append(row)
            continue
        kept = {key: value for key, value in row.items() if key not in HIDDEN}
        sent.append({**kept, "path": row.get("name"), "size_bytes": row.get("bytes"), "etag": row.get("hash")})
    return msgspec.json.encode(sent, order="sorted")
