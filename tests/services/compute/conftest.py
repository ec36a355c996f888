"""Compute, served alone, with small stand-ins for what it needs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cumulet.core.kernel import Kernel
from cumulet.services.compute.declaration import SERVICE
from cumulet.services.compute.runtime import ComputeRuntime
from tests.harness import Client, Reply, kernel, serve
from tests.services.compute.fakes import (
    IMAGE,
    NETWORK,
    FakeHypervisor,
    FakeImages,
    FakeNetworking,
    FakePlacement,
)


class Compute:
    """A compute service and all that stands behind it."""

    def __init__(self, parts: Kernel, client: Client, runtime: ComputeRuntime, behind: "Behind") -> None:
        self.kernel = parts
        self.client = client
        self.runtime = runtime
        self.hypervisor = behind.hypervisor
        self.network = behind.network
        self.placement = behind.placement
        self.images = behind.images

    async def __call__(
        self, method: str, path: str, body: Any = None, *, token: str = "member", version: str = "2.96", **more: Any
    ) -> Reply:
        headers = {"OpenStack_API_Version": f"compute {version}"} if version else {}
        return await self.client(method, f"/v2.1{path}", body, token=token, **headers, **more)

    async def idle(self) -> None:
        await self.kernel.operations.idle()

    async def boot(self, name: str = "vm", *, token: str = "member", version: str = "2.96", **more: Any) -> Any:
        """A server that has been built; returns how it is shown."""
        body = {"server": {"name": name, "imageRef": IMAGE, "flavorRef": "42", "networks": [{"uuid": NETWORK}], **more}}
        reply = await self("POST", "/servers", body, token=token, version=version)
        assert reply.status == 202, reply.data
        await self.idle()
        return await self.show(reply.json()["server"]["id"], token=token, version=version)

    async def show(self, id: str, **more: Any) -> Any:
        reply = await self("GET", f"/servers/{id}", **more)
        assert reply.status == 200, reply.data
        return reply.json()["server"]

    async def act(self, id: str, action: str, value: Any = None, **more: Any) -> Reply:
        return await self("POST", f"/servers/{id}/action", {action: value}, **more)


class Behind:
    """What outlives a run of the program."""

    def __init__(self) -> None:
        self.hypervisor = FakeHypervisor()
        self.images = FakeImages()
        self.network = FakeNetworking()
        self.placement = FakePlacement()
        self.network.add_network(NETWORK, "private")


@asynccontextmanager
async def running(directory: Path, behind: Behind) -> AsyncIterator[Compute]:
    """A run of the program on the state in `directory`."""
    async with kernel(directory, hostname="test-host") as parts:
        runtime = ComputeRuntime(
            parts, behind.hypervisor, images=behind.images, network=behind.network, placement=behind.placement,
            console_url="http://127.0.0.1:6080",
        )  # fmt: skip
        behind.hypervisor.directory = directory
        await runtime.start()
        await runtime.ensure_flavors()
        await parts.operations.start()
        async with serve(SERVICE, runtime) as client:
            yield Compute(parts, client, runtime, behind)
        await parts.operations.stop()
        await runtime.stop()


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
async def compute(tmp_path: Path, behind: Behind) -> AsyncIterator[Compute]:
    async with running(tmp_path, behind) as compute:
        yield compute
