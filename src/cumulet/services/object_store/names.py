"""What everything in object storage is named by: timestamps, and the hash that says where a name's data lies.

As swift has both, so that its tools understand them.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from hashlib import md5

from msgspec import Struct


class Timestamp(Struct, frozen=True, order=True, gc=False):
    """When something was said, in units of 10 microseconds since 1970; `offset` orders what the program does with it later.
    The later one wins. As text: 1402443112.12345 or, with an offset, 1402443112.12345_0000000000000001."""

    ticks: int
    offset: int = 0

    @classmethod
    def now(cls) -> "Timestamp":
        return cls(time.time_ns() // 10_000)

    @classmethod
    def parse(cls, text: str | float) -> "Timestamp":
        """From `normal`, `internal` or a number of seconds; ValueError else."""
        if not isinstance(text, str):
            return cls(round(text * 100_000))
        if len(text) == 16 and text[10] == "." and (digits := text[:10] + text[11:]).isdigit():
            return cls(int(digits))  # nearly all of them are written so
        main, _, tail = text.partition("_")
        whole, _, part = main.partition(".")
        ticks = int(whole) * 100_000 + (int(part[:5].ljust(5, "0")) if part else 0)
        if ticks < 0 or not (whole + part).isdigit():
            raise ValueError(f"no timestamp: {text}")
        return cls(ticks, int(tail, 16) if tail else 0)

    @property
    def normal(self) -> str:
        """What clients see: 1402443112.12345."""
        return f"{self.ticks // 100_000:010d}.{self.ticks % 100_000:05d}"

    @property
    def internal(self) -> str:
        """What nodes say to each other and files are named by."""
        normal = f"{self.ticks // 100_000:010d}.{self.ticks % 100_000:05d}"
        return f"{normal}_{self.offset:016x}" if self.offset else normal

    @property
    def seconds(self) -> float:
        return self.ticks / 100_000

    @property
    def ceil(self) -> int:
        """Whole seconds, rounded up: what Last-Modified says."""
        return -(-self.ticks // 100_000)

    @property
    def iso(self) -> str:
        """2014-06-10T22:47:32.054580, as listings have it."""
        whole, part = divmod(self.ticks, 100_000)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{part * 10:06d}"


@dataclass(frozen=True, slots=True)
class HashSalt:
    """What is put around every path before it is hashed, so that nobody outside can aim at one partition. It is made once for
    a cluster and never changed: with another one nothing is found again."""

    prefix: bytes = b""
    suffix: bytes = b""

    def digest(self, account: str, container: str = "", object: str = "") -> bytes:
        """MD5 of a path (RFC 1321, as swift uses it: to spread, not to protect)."""
        if object and container:
            path = f"/{account}/{container}/{object}"
        else:
            path = "/" + "/".join(part for part in (account, container, object) if part)
        return _digest(self.prefix, path, self.suffix)

    def name(self, account: str, container: str = "", object: str = "") -> str:
        """The digest in hexadecimal: the name of the directory that holds a path's files."""
        return self.digest(account, container, object).hex()


@lru_cache(maxsize=1024)
def _digest(prefix: bytes, path: str, suffix: bytes) -> bytes:
    """The proxy and each node ask for the same one in the course of a request, and most requests for few containers."""
    return md5(prefix + path.encode() + suffix, usedforsecurity=False).digest()


def partition(digest: bytes, power: int) -> int:
    """Which of 2**power partitions a digest falls into."""
    return int.from_bytes(digest[:4], "big") >> (32 - power)
