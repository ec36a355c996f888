"""Storage nodes as the proxy (and other nodes) see them. The server is in this process or elsewhere: nobody else knows.

swift's backend protocol: METHOD /device/partition/account[/container[/object]] on ports 6000 (object), 6001 (container), 6002
(account), ordered by X-Timestamp; headers that begin with X-Backend- are between nodes only.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

from msgspec import Struct, field

from cumulet.api.http import Query
from cumulet.services.object_store.message import Headers, Response, Trailer

Kind = Literal["account", "container", "object"]


class BackendRequest(Struct, eq=False):
    """One call of a storage server. For REPLICATE and the like `account` is what follows the partition."""

    kind: Kind
    method: str
    device: str
    partition: int
    account: str = ""
    container: str = ""
    object: str = ""
    headers: Headers = field(default_factory=Headers)
    query: Query = field(default_factory=lambda: Query(""))
    body: AsyncIterator[bytes] | None = None
    trailer: Trailer | None = None  # of a PUT of an object: more metadata, asked when the body is read
    told_again: bool = False  # after a power cut, by this same host: so it may be answered before it is on the disk

    @property
    def policy(self) -> int:
        """Which storage policy it is about."""
        return int(self.headers.get("X-Backend-Storage-Policy-Index") or 0)


class StorageServer(Protocol):
    """What answers for one kind on a node (`storage/object_server.py`, `storage/container_server.py`,
    `storage/account_server.py`). It never raises for what a caller may send: a refusal is a reply, 507 a device that is not
    there or full."""

    async def handle(self, request: BackendRequest) -> Response: ...


@dataclass(frozen=True, slots=True)
class Device:
    """A device of a ring: where one copy lies. `address` and `port` are its node's for this kind, `replication_address` and
    `replication_port` those that nodes speak to each other by where that is another network."""

    id: int
    name: str
    address: str
    port: int
    region: int = 1
    zone: int = 1
    weight: float = 100.0
    replication_address: str = ""
    replication_port: int = 0


class Nodes(Protocol):
    """All nodes of the cluster. `call` reaches the server in this process where the device is here, else over HTTP; a node
    that does not answer is a reply of 503, one that is too slow a 504 - never an exception. Only a body may break off: whoever
    reads it gets a ConnectionError."""

    async def call(self, device: Device, request: BackendRequest) -> Response: ...


class Ring(Protocol):
    """Which devices hold a partition (`ring/`)."""

    @property
    def power(self) -> int: ...

    @property
    def replicas(self) -> int: ...

    def devices(self, partition: int) -> tuple[Device, ...]:
        """The primaries, one for each replica, in order."""
        ...

    def handoffs(self, partition: int) -> "list[Device]":
        """All other devices, the best stand-in first."""
        ...


@dataclass(frozen=True, slots=True)
class Rings:
    """The rings of a cluster: one of accounts, one of containers, one of objects for each storage policy."""

    account: Ring
    container: Ring
    objects: dict[int, Ring]
