"""What a device of object storage really holds, and whether its parts agree: objects, listings, counts, and nothing left over.

Read from the files themselves, so that nothing the program remembers, or hides, makes it look better than it is.
"""

import contextlib
import os
import sqlite3
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from cumulet.services.object_store.storage import object_file
from cumulet.services.object_store.storage.container_server import is_deleted
from cumulet.services.object_store.storage.database import Info, Stat
from cumulet.services.object_store.storage.object_file import ZERO, Absent
from cumulet.services.object_store.storage.object_updates import overridden

QUEUE = ".expiring_objects"
SOON = 60.0
"""Seconds that the program has for what it does by itself: far more than it takes, but disks may stand still for a while."""
LATE = 3.0
"""Seconds that the expirer may be late."""

_info = msgspec.json.Decoder(Info).decode
Name = tuple[str, str, str]


@dataclass(frozen=True)
class Told:
    """An object as its file has it, or as its row in a listing has it."""

    at: str
    size: int
    etag: str


@dataclass
class Container:
    """A container's database: what it says of itself, and its rows."""

    info: Info
    rows: dict[str, Told] = field(default_factory=dict)


def problems(data: Path) -> list[str]:
    """What does not agree, in words; nothing once a store has settled."""
    device = data / "object-store/devices/d1"
    try:
        objects, containers = read_objects(device), read_containers(device)
        accounts = {info.account: (info, rows) for info, rows in read_accounts(device)}
    except (sqlite3.Error, FileNotFoundError) as error:  # it changed while it was looked at
        return [f"not settled: {error}"]
    found = [f"left over: {path.relative_to(device)}" for path in left_over(device)]
    found += _unlike(objects, containers)
    for (account, name), container in containers.items():
        found += _queue(name, container) if account == QUEUE else []
        found += _counted(container)
    for account, (info, rows) in accounts.items():
        there = {
            name: (one.info.own.objects, one.info.own.bytes)
            for (owner, name), one in containers.items()
            if owner == account and not is_deleted(one.info)
        }
        if there != rows:
            found.append(f"{account} lists {_difference(rows, there)}")
        counts = Stat(len(rows), sum(count for count, _ in rows.values()), sum(size for _, size in rows.values()))
        if counts != info.total:
            found.append(f"{account} counts {info.total}, lists {counts}")
    return found


def settled(data: Path, seconds: float = SOON) -> None:
    """Wait until all parts of a store agree."""
    until = time.monotonic() + seconds
    while found := problems(data):
        assert time.monotonic() < until, "\n".join(found[:20])
        time.sleep(0.1)


def left_over(device: Path) -> list[Path]:
    """Files of what is going on, where nothing is going on."""
    found = [*device.glob("tmp*/*"), *device.glob("async_pending*/*/*"), *device.glob("intents.*")]
    return [*found, *device.glob("quarantined/**/*.data"), *device.glob("quarantined/**/*.db")]


def _unlike(objects: dict[Name, Told], containers: dict[tuple[str, str], Container]) -> list[str]:
    """Objects and rows that are not about each other."""
    found = []
    listed: dict[tuple[str, str], dict[str, Told]] = defaultdict(dict)
    for (account, name), container in containers.items():
        if account != QUEUE and not is_deleted(container.info):
            listed[account, name] = container.rows
    for (account, name, object), told in objects.items():
        row = listed[account, name].get(object)
        if row != told:
            found.append(f"{account}/{name}/{object!r} is {told}, its row {row}")
    for (account, name), rows in listed.items():
        gone = [object for object in rows if (account, name, object) not in objects]
        found += [f"{account}/{name}/{object!r} is listed and is not there" for object in gone]
    return found


def _queue(name: str, container: Container) -> list[str]:
    due = time.time() - LATE
    late = [entry for entry in container.rows if float(entry.partition("-")[0]) < due]
    return [f"{entry!r} is still in the queue {name}" for entry in late]


def _counted(container: Container) -> list[str]:
    told = container.info.own
    counts = Stat(0, len(container.rows), sum(row.size for row in container.rows.values()))
    return [] if told == counts else [f"{container.info.account}/{container.info.container} counts {told}, is {counts}"]


def _difference(one: dict[str, tuple[int, int]], other: dict[str, tuple[int, int]]) -> str:
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return ", ".join(f"{name!r} with {one.get(name)}, which has {other.get(name)}" for name in names)


def read_objects(device: Path) -> dict[Name, Told]:
    """Every object that can be read."""
    found = {}
    for directory in device.glob("objects*/*/*/*"):
        try:
            one = object_file.read(str(directory), now=ZERO, expired=True)
        except Absent:
            continue
        _, account, container, object = one.data_metadata["name"].split("/", 3)
        told = overridden({"X-Etag": one.metadata["ETag"]}, one.metadata)
        found[account, container, object] = Told(one.data_timestamp.internal, one.length, told["X-Etag"])
    return found


def read_containers(device: Path) -> dict[tuple[str, str], Container]:
    found = {}
    for path in device.glob("containers/*/*/*/*.db"):
        with _opened(path) as conn:
            info = _info(conn.execute("SELECT data FROM info").fetchone()[0])
            query = "SELECT name, data_at, size, json_extract(listed, '$.hash') FROM object WHERE deleted = 0"
            rows = {name: Told(at, size, etag) for name, at, size, etag in conn.execute(query)}
            found[info.account, info.container] = Container(info, rows)
    return found


def read_accounts(device: Path) -> list[tuple[Info, dict[str, tuple[int, int]]]]:
    """What accounts say of themselves, and how many objects and bytes there are in each of their containers."""
    found = []
    for path in device.glob("accounts/*/*/*/*.db"):
        with _opened(path) as conn:
            info = _info(conn.execute("SELECT data FROM info").fetchone()[0])
            rows = conn.execute("SELECT name, objects, bytes FROM container WHERE deleted = 0")
            found.append((info, {name: (objects, size) for name, objects, size in rows}))
    return found


def _opened(path: Path) -> "contextlib.closing[sqlite3.Connection]":
    return contextlib.closing(sqlite3.connect(f"file:{os.fspath(path)}?mode=ro", uri=True, timeout=60))
