"""Updates of containers that could not be delivered when they were due, kept as files until the updater brings them.

`<device>/async_pending[-N]/<suffix>/<hash>-<timestamp>`: JSON of who is to be told what. A later update of the same object
replaces an earlier one that is still there.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import msgspec

from cumulet.services.object_store.storage.object_file import Writer


class Update(msgspec.Struct, frozen=True):
    """One update: `method` of the row of an object in a container. `sent` are the containers' devices that have it already."""

    method: str
    account: str
    container: str
    object: str
    headers: dict[str, str]
    container_path: str = ""
    sent: list[str] = []

    @property
    def target(self) -> tuple[str, str]:
        """The account and the container that are to be told: a part of the object's own where that is divided."""
        if self.container_path.count("/") == 1:
            account, container = self.container_path.split("/")
            return account, container
        return self.account, self.container

    def but(self, **changes: Any) -> "Update":
        return msgspec.structs.replace(self, **changes)


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Update).decode


def save(directory: str, temporary: str, digest: str, timestamp: str, update: Update) -> None:
    """Keep an update for good. NoSpace where the device is full."""
    writer = Writer(temporary)
    try:
        writer.write([encode(update)])
        writer.commit(f"{directory}/{digest[-3:]}", f"{digest}-{timestamp}")
    finally:
        writer.close()


def rewrite(path: str, temporary: str, update: Update) -> None:
    """Replace a kept update in one step, unless it has been taken away meanwhile."""
    if os.path.exists(path):
        new = f"{temporary}/{os.path.basename(path)}.new"
        with open(new, "wb") as file:
            file.write(encode(update))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)


def forget(path: str) -> None:
    """An update need not be kept any more."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def waiting(directory: str) -> Iterator[tuple[str, Update | None]]:
    """The updates of a device, the newest of each object only (older ones are removed); None for a file that is none."""
    for suffix in _listed(directory):
        last = ""
        for name in sorted(_listed(f"{directory}/{suffix}"), reverse=True):
            path = f"{directory}/{suffix}/{name}"
            digest = name.partition("-")[0]
            if digest == last:
                forget(path)
                continue
            last = digest
            try:
                with open(path, "rb") as file:
                    yield path, decode(file.read())
            except FileNotFoundError:
                continue
            except msgspec.MsgspecError:
                yield path, None


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
