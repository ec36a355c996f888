"""Checksums of bodies that clients tell, in headers or in trailers, beside the MD5.

Reference: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable
from typing import Protocol

from cumulet.services.object_store.message import Headers
from cumulet.services.object_store.s3.errors import S3Error

PREFIX = "x-amz-checksum-"
_NO_VALUES = {"x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-checksum-mode"}
_MULTIPLE = "Expecting a single x-amz-checksum- header"


class Hash(Protocol):
    """What sums up a body."""

    @property
    def digest_size(self) -> int: ...

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc:
    """A cyclic redundancy check, in the same form as a hash."""

    def __init__(self, function: Callable[[bytes, int], int], size: int) -> None:
        self.digest_size = size
        self._function = function
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self.digest_size, "big")


def _crc32c() -> Hash:
    from awscrt import checksums  # imported with the first sum of its kind

    return Crc(checksums.crc32c, 4)


def _crc64nvme() -> Hash:
    from awscrt import checksums

    return Crc(checksums.crc64nvme, 8)


ALGORITHMS: dict[str, Callable[[], Hash]] = {
    "crc32": lambda: Crc(zlib.crc32, 4),
    "crc32c": _crc32c,
    "crc64nvme": _crc64nvme,
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": lambda: hashlib.sha256(),
}


class Checksum:
    """A checksum that a client announced. `value` is in base64, "" where it comes in a trailer."""

    def __init__(self, algorithm: str, value: str = "") -> None:
        self.algorithm = algorithm
        self.value = value
        self.sum = ALGORITHMS[algorithm]()

    @property
    def header(self) -> str:
        return PREFIX + self.algorithm

    def decoded(self, value: str) -> bytes | None:
        """The bytes that a value stands for; None where it is no value of this algorithm."""
        try:
            found = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return None
        same = base64.b64encode(found).decode() == value
        return found if same and len(found) == self.sum.digest_size else None

    def check(self, trailer: str = "") -> None:
        """Refuse (400) what does not sum up to what was told."""
        wanted = self.decoded(self.value or trailer)
        if wanted is None:
            raise S3Error("InvalidRequest", f"Value for {self.header} trailing header is invalid.")
        if wanted != self.sum.digest():
            raise S3Error(
                "BadDigest", f"The {self.algorithm.upper()} you specified did not match the calculated checksum."
            )


def announced(headers: Headers) -> Checksum | None:
    """The checksum that these headers tell or announce."""
    told = {name.lower(): value for name, value in headers.items() if name.lower().startswith(PREFIX)}
    told = {name: value for name, value in told.items() if name not in _NO_VALUES}
    if any(name.removeprefix(PREFIX) not in ALGORITHMS for name in told):
        raise S3Error("InvalidRequest", "The algorithm type you specified in x-amz-checksum- header is invalid.")
    trailers = [part.strip() for part in headers.get("x-amz-trailer", "").strip().rstrip(",").split(",")]
    trailers = [] if trailers == [""] else trailers
    if len(told) > 1:
        raise S3Error("InvalidRequest", f"{_MULTIPLE}. Multiple checksum Types are not allowed.")
    if any(not name.startswith(PREFIX) or name.removeprefix(PREFIX) not in ALGORITHMS for name in trailers):
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    if len(trailers) > 1:
        raise S3Error("InvalidRequest", f"{_MULTIPLE}. Multiple checksum Types are not allowed.")
    if told and trailers:
        raise S3Error("InvalidRequest", _MULTIPLE)
    found = None
    for name, value in told.items():
        found = Checksum(name.removeprefix(PREFIX), value)
        if found.decoded(value) is None:
            raise S3Error("InvalidRequest", f"Value for {name} header is invalid.")
    for name in trailers:
        found = Checksum(name.removeprefix(PREFIX))
    _check_named(headers.get("x-amz-sdk-checksum-algorithm", ""), found)
    return found


def _check_named(name: str, found: Checksum | None) -> None:
    if not name:
        return
    if found is None:
        raise S3Error(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
            "were found.",
        )
    if name.lower() != found.algorithm:
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
