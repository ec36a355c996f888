"""All account and container databases of a node: where they lie, and which of them are open.

<device>/accounts|containers/<partition>/<last three of the hash>/<hash>/<hash>.db, as swift has it.
"""

import asyncio
import resource
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Literal, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from cumulet.services.object_store.names import HashSalt
from cumulet.services.object_store.storage.account_rows import SCHEMA as ACCOUNT_SCHEMA
from cumulet.services.object_store.storage.container_rows import SCHEMA as CONTAINER_SCHEMA
from cumulet.services.object_store.storage.database import Database
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.disk_threads import DiskThreads

P = ParamSpec("P")
T = TypeVar("T")
Kind = Literal["accounts", "containers"]

ACCOUNTS: Final = "accounts"
CONTAINERS: Final = "containers"
SCHEMAS = {ACCOUNTS: ACCOUNT_SCHEMA, CONTAINERS: CONTAINER_SCHEMA}
THREADS = 8
OPEN = 512
"""Databases that are open at once, at most: of some six file descriptors and two small caches of pages each."""
DESCRIPTORS = 6
KNOWN = 16_384
"""Databases of which something is known in memory."""


class Databases:
    """The databases of a node's devices."""

    def __init__(self, devices: Devices, salt: HashSalt, *, opened: int = 0, known: int = KNOWN) -> None:
        self.devices = devices
        self.salt = salt
        self.closed = False
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_open = opened or max(32, min(OPEN, descriptors // 2 // DESCRIPTORS))
        self._most_known = known
        self._alive: WeakValueDictionary[str, Database] = WeakValueDictionary()
        self._known: OrderedDict[str, Database] = OrderedDict()
        self._opened: OrderedDict[str, Database] = OrderedDict()
        self._closing: set[asyncio.Future[bool]] = set()
        self._pool = DiskThreads(THREADS, "object-store-database")

    def path(self, kind: str, device: str, partition: int, name: str) -> str:
        """Of the database whose path hashes to `name`."""
        return f"{self.devices.root}/{device}/{kind}/{partition}/{name[-3:]}/{name}/{name}.db"

    def find(self, kind: str, device: str, partition: int, account: str, container: str = "") -> Database:
        """The database of an account or a container, whether there is one or not."""
        return self.at(kind, device, partition, self.salt.name(account, container))

    def at(self, kind: str, device: str, partition: int, name: str) -> Database:
        path = self.path(kind, device, partition, name)
        found = self._known.get(path)
        if found is None:
            found = self._alive.get(
                path
            )  # somebody may still have what was forgotten here: there is only one of each file
            if found is None:
                found = self._alive[path] = Database(path, SCHEMAS[kind], self._pool, self._used)
            self._known[path] = found
            if len(self._known) > self._most_known:
                self._forget()
        else:
            self._known.move_to_end(path)
        return found

    def names(self, kind: Kind, device: str, only: Callable[[int], bool] = lambda _: True) -> Iterator[tuple[int, str]]:
        """Partition and hash of every database on a device, in partitions that `only` takes: read from the disk, in a
        thread."""
        root = Path(self.devices.root, device, kind)
        for partition in _folders(root):
            if not partition.name.isdigit() or not only(int(partition.name)):
                continue
            for suffix in _folders(partition):
                for folder in _folders(suffix):
                    if (folder / f"{folder.name}.db").exists():
                        yield int(partition.name), folder.name

    def resize(self, *, opened: int, known: int) -> None:
        """How many are open at once, and of how many something is known."""
        self._most_open, self._most_known = opened, known

    @property
    def known(self) -> int:
        """Of how many something is known now."""
        return len(self._known)

    async def settled(self) -> None:
        """Return when all that is to be closed is closed."""
        await asyncio.gather(*self._closing)

    def close_all(self) -> None:
        """Close all databases that are in no use now; they are opened again when they are asked for."""
        for database in self._opened.values():
            database.shut()
        self._opened.clear()

    def stop(self) -> None:
        """Write what waits, and close everything."""
        self.closed = True
        self._pool.close()
        self.close_all()
        self._known.clear()

    def work(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        """Do what blocks in a thread of the databases."""
        return self._pool.run(partial(fn, *args, **kwargs))

    def _used(self, database: Database) -> None:
        """A database is about to be opened, if it is not open."""
        self._opened[database.name] = database
        self._opened.move_to_end(database.name)
        if len(self._opened) > self._most_open:
            self._close()

    def _closed(self, database: Database, closing: "asyncio.Future[bool]") -> None:
        self._closing.discard(closing)
        if not closing.cancelled() and not closing.result() and not self.closed:
            self._opened[database.name] = database  # somebody has begun to use it again

    def _forget(self) -> None:
        """Drop the ones that were asked for the longest time ago and are in no use."""
        for path in list(self._known)[: len(self._known) - self._most_known]:
            if self._known[path].idle and path not in self._opened:
                del self._known[path]

    def _close(self) -> None:
        for path in list(self._opened)[: len(self._opened) - self._most_open]:
            database = self._opened[path]
            if database.idle:
                del self._opened[path]
                closing = self._pool.run(database.shut)
                self._closing.add(closing)
                closing.add_done_callback(partial(self._closed, database))


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
