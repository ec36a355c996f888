"""Networking alone, on a dataplane that records, with what its tests do again and again."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.api.server import Server
from cumulet.core.kernel import Kernel
from cumulet.services.network.declaration import SERVICE
from cumulet.services.network.drivers import DataplaneError, Network, Router
from cumulet.services.network.drivers.simulated import SimulatedDataplane
from cumulet.services.network.runtime import NetworkRuntime
from tests.harness import Client, Reply, kernel, serve

PUBLIC = "203.0.113.0/24"


class RecordingDataplane(SimulatedDataplane):
    """A simulated dataplane whose state and calls a test can look at, and which can be told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.failures = 0

    @property
    def networks(self) -> dict[str, Network]:
        return self._networks

    @property
    def routers(self) -> dict[str, Router]:
        return self._routers

    async def ensure_network(self, network: Network) -> None:
        self.calls.append(f"network {network.id}")
        if self.failures:
            self.failures -= 1
            raise DataplaneError("told to fail")
        await super().ensure_network(network)

    async def ensure_router(self, router: Router) -> None:
        self.calls.append(f"router {router.id}")
        await super().ensure_router(router)


class Net:
    """A client of networking, with short words for its calls."""

    def __init__(self, client: Client, runtime: NetworkRuntime, dataplane: RecordingDataplane, parts: Kernel) -> None:
        self.client, self.runtime, self.dataplane, self.kernel = client, runtime, dataplane, parts

    async def __call__(self, method: str, path: str, body: Any = None, *, token: str = "member") -> Reply:
        return await self.client(method, f"/v2.0/{path}", body, token=token)

    async def make(self, kind: str, *, token: str = "member", **values: Any) -> Any:
        """Create one and return it; `kind` is its singular."""
        reply = await self("POST", collection(kind), {kind: values}, token=token)
        assert reply.status == 201, reply.data
        return reply.json()[kind]

    async def show(self, kind: str, id: str, *, token: str = "member") -> Any:
        reply = await self("GET", f"{collection(kind)}/{id}", token=token)
        assert reply.status == 200, reply.data
        return reply.json()[kind]

    async def list(self, kind: str, query: str = "", *, token: str = "member") -> list[Any]:
        reply = await self("GET", f"{collection(kind)}?{query}", token=token)
        assert reply.status == 200, reply.data
        (found,) = (v for k, v in reply.json().items() if not k.endswith("_links"))
        return list(found)

    async def refused(self, status: int, code: str, method: str, path: str, body: Any = None, **more: Any) -> str:
        """Assert that a call is refused with this status and error type; returns its message."""
        reply = await self(method, path, body, **more)
        assert reply.status == status, (reply.status, reply.data)
        error = reply.json()["NeutronError"]
        assert code in ("", error["type"]), error
        return str(error["message"])

    async def network(self, cidr: str = "10.0.0.0/24", **values: Any) -> tuple[Any, Any]:
        """A network with a subnet."""
        made = await self.make("network", name="net")
        return made, await self.make("subnet", network_id=made["id"], cidr=cidr, ip_version=4, **values)

    async def public(self) -> str:
        """The ID of the external network."""
        await self.runtime.ensure_public("project-admin", PUBLIC)
        return str((await self.list("network", "router:external=true"))[0]["id"])

    async def settle(self) -> None:
        """Wait until the dataplane has been told everything."""
        await self.kernel.operations.idle()


def collection(kind: str) -> str:
    names = {"security_group": "security-groups", "security_group_rule": "security-group-rules"}
    names["address_scope"] = "address-scopes"
    return names.get(kind, kind + "s")


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Net]:
    async with kernel(tmp_path) as parts:
        server, dataplane = Server(), RecordingDataplane()
        runtime = NetworkRuntime(parts, dataplane, server)
        await runtime.start()
        await parts.operations.start()
        async with serve(SERVICE, runtime) as client:
            yield Net(client, runtime, dataplane, parts)
        await runtime.stop()
