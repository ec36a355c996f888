"""A node of accounts and containers without the rest of the program: its servers, its devices in a directory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import msgspec

from cumulet.api.http import Query
from cumulet.config import Settings
from cumulet.services.object_store.message import Headers, Response, drain, refuse, stream
from cumulet.services.object_store.names import HashSalt, Timestamp, partition
from cumulet.services.object_store.node import BackendRequest, Device, Kind, Rings
from cumulet.services.object_store.policies import Policies, Policy
from cumulet.services.object_store.remote import RemoteNodes
from cumulet.services.object_store.storage.catalogue import Catalogue
from cumulet.services.object_store.storage.devices import Devices

POWER = 4


class SmallRing:
    """Every partition on every device."""

    def __init__(self, devices: tuple[Device, ...]) -> None:
        self.every = devices

    power = POWER

    @property
    def replicas(self) -> int:
        return len(self.every)

    def devices(self, partition: int) -> tuple[Device, ...]:
        return self.every

    def handoffs(self, partition: int) -> list[Device]:
        return []


class Network:
    """`Nodes`: how the members of a cluster reach each other."""

    def __init__(self, members: Mapping[str, "Node"]) -> None:
        self.members = dict(members)
        self.ports: dict[tuple[str, Kind], int] = {}
        """Where they are reached over HTTP; as functions otherwise."""
        self.remote = RemoteNodes()

    async def call(self, device: Device, request: BackendRequest) -> Response:
        if port := self.ports.get((device.name, request.kind)):
            return await self.remote.call(replace(device, port=port), request)
        node = self.members[device.name]
        if node.down:
            return refuse(503, "down")
        node.calls.append(request)
        return await node.serve(request)


class Node:
    """One node, which is a cluster by itself or one of several that know each other (`join`)."""

    def __init__(self, directory: Path, name: str = "d1", port: int = 6001, **sizes: int) -> None:
        self.devices = directory / name
        (self.devices / name).mkdir(parents=True, exist_ok=True)
        self.device = Device(port - 6001, name, "127.0.0.1", port)
        self.salt = HashSalt(b"", b"salt")
        self.policies = Policies([Policy(0, "gold", default=True), Policy(1, "silver")])
        self.down = False
        self.calls: list[BackendRequest] = []
        self.nodes = Network({})
        self.join({name: self})
        settings = Settings(data=directory)
        self.catalogue = Catalogue(self, self.nodes, Devices(self.devices), settings)
        if sizes:
            self.catalogue.databases.resize(**sizes)
        self._clock = Timestamp.now().ticks

    def join(self, members: Mapping[str, "Node"]) -> None:
        """Be a node of a cluster."""
        self.nodes.members = dict(members)
        ring = SmallRing(tuple(node.device for node in members.values()))
        self.rings = Rings(ring, ring, {})

    async def serve(self, request: BackendRequest) -> Response:
        server = self.catalogue.accounts if request.kind == "account" else self.catalogue.containers
        return await server.handle(request)

    def is_here(self, kind: Kind, device: Device) -> bool:
        return device == self.device

    async def replicate(self) -> None:
        await self.catalogue.replicator.run()

    def now(self) -> str:
        """A time later than all before."""
        self._clock += 1
        return Timestamp(self._clock).internal

    async def __call__(
        self, method: str, path: str, query: str = "", body: bytes | None = None, **headers: str
    ) -> Response:
        """A call by path (account/container/object); `X_Timestamp=` and so on are headers."""
        return await self.ask("container" if "/" in path else "account", method, path, query, body, headers)

    async def report(self, path: str, **headers: str) -> Response:
        """What a container server tells an account server."""
        return await self.ask("account", "PUT", path, "", None, headers)

    async def ask(
        self, kind: Kind, method: str, path: str, query: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Response:
        account, container, obj = ([*path.split("/", 2), "", ""])[:3]
        told = Headers({name.replace("_", "-"): value for name, value in headers.items()})
        if method not in ("GET", "HEAD"):
            told.setdefault("X-Timestamp", self.now())
        part = partition(self.salt.digest(account, container if kind == "container" else ""), POWER)
        data = None if body is None else stream(body)
        return await self.serve(
            BackendRequest(kind, method, self.device.name, part, account, container, obj, told, Query(query), data)
        )

    async def put_object(self, path: str, size: int = 1, **headers: str) -> Response:
        told = {"X_Size": str(size), "X_Content_Type": "text/plain", "X_Etag": "e" * 32} | headers
        return await self("PUT", path, "", None, **told)

    async def rows(self, path: str, query: str = "", **headers: str) -> Any:
        """A listing."""
        reply = await self("GET", path, query, None, **headers)
        assert reply.status == 200, reply
        return msgspec.json.decode(await drain(reply))

    async def names(self, path: str, query: str = "", **headers: str) -> list[str]:
        return [row.get("name") or row["subdir"] for row in await self.rows(path, query, **headers)]

    async def close(self) -> None:
        await self.catalogue.stop()
        await self.nodes.remote.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
