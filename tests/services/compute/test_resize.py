"""Servers that get another size."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.compute.drivers import HypervisorError, ServerSpec, ServerState
from tests.services.compute.conftest import Behind, Compute, running
from tests.services.compute.fakes import FakeHypervisor

SMALL: dict[str, Any] = {"flavorRef": "2"}
"""m1.small: 1 VCPU, 2048 MB, 20 GB."""


def memory(hypervisor: FakeHypervisor) -> list[int]:
    return [machine.spec.memory_mb for machine in hypervisor.machines.values()]


async def resized(compute: Compute) -> str:
    server_id = str((await compute.boot())["id"])
    assert (await compute.act(server_id, "resize", SMALL)).status == 202
    assert (await compute.show(server_id))["status"] in ("RESIZE", "VERIFY_RESIZE")
    await compute.idle()
    shown = await compute.show(server_id)
    assert (shown["status"], shown["flavor"]["ram"], shown["OS-EXT-STS:vm_state"]) == ("VERIFY_RESIZE", 2048, "resized")
    assert memory(compute.hypervisor) == [2048] and "grow_disk" in compute.hypervisor.calls
    assert max(claim["MEMORY_MB"] for claim in compute.placement.claims.values()) == 2048
    assert len(compute.placement.claims) == 2
    return server_id


async def test_a_new_size_is_confirmed(compute: Compute) -> None:
    server_id = await resized(compute)
    assert (await compute.act(server_id, "os-stop")).status == 409
    assert (await compute.act(server_id, "confirmResize")).status == 204
    await compute.idle()
    shown = await compute.show(server_id)
    assert (shown["status"], shown["flavor"]["ram"]) == ("ACTIVE", 2048)
    assert [claim["MEMORY_MB"] for claim in compute.placement.claims.values()] == [2048]
    assert "drop_kept_disk" in compute.hypervisor.calls
    assert (await compute.act(server_id, "confirmResize")).status == 409


async def test_a_new_size_is_reverted(compute: Compute) -> None:
    server_id = await resized(compute)
    before = (await compute.act(server_id, "revertResize")).status
    assert before == 202
    await compute.idle()
    shown = await compute.show(server_id)
    assert shown["status"] == "ACTIVE" and shown["flavor"]["ram"] != 2048
    assert memory(compute.hypervisor) == [shown["flavor"]["ram"]] and "restore_disk" in compute.hypervisor.calls
    assert [claim["MEMORY_MB"] for claim in compute.placement.claims.values()] == [shown["flavor"]["ram"]]


async def test_one_that_is_off_stays_off(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    await compute.act(server_id, "os-stop")
    await compute.idle()
    await compute.act(server_id, "resize", SMALL)
    await compute.idle()
    assert (await compute.show(server_id))["status"] == "VERIFY_RESIZE"
    await compute.act(server_id, "confirmResize")
    await compute.idle()
    assert (await compute.show(server_id))["status"] == "SHUTOFF"


async def test_a_resized_server_is_deleted_whole(compute: Compute) -> None:
    server_id = await resized(compute)
    assert (await compute("DELETE", f"/servers/{server_id}")).status == 204
    await compute.idle()
    assert not compute.placement.claims and not compute.hypervisor.machines


async def test_what_is_refused(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    for body in ({}, {"flavorRef": None}, {"flavorRef": "42"}, {"flavorRef": "nothing"}, {**SMALL, "x": 1}):
        assert (await compute.act(server_id, "resize", body)).status == 400, body
    for action in ("confirmResize", "revertResize"):
        assert (await compute.act(server_id, action)).status == 409
    for token, status in (("reader", 403), ("other", 404), ("nobody", 401)):
        assert (await compute.act(server_id, "resize", SMALL, token=token)).status == status
    big = {"flavor": {"name": "big", "ram": 60000, "vcpus": 1, "disk": 1, "id": "big"}}
    assert (await compute("POST", "/flavors", big, token="admin")).status == 200
    assert (await compute.act(server_id, "resize", {"flavorRef": "big"})).status == 403  # the quota
    assert (await compute.show(server_id))["status"] == "ACTIVE"


async def test_without_room_nothing_happens(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    big = {"flavor": {"name": "big", "ram": 1024, "vcpus": 1, "disk": 5000, "id": "big"}}
    assert (await compute("POST", "/flavors", big, token="admin")).status == 200
    assert (await compute.act(server_id, "resize", {"flavorRef": "big"})).status == 202
    await compute.idle()
    shown = await compute.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    assert "ensure_stopped" not in compute.hypervisor.calls and len(compute.placement.claims) == 1


async def test_a_size_that_does_not_start_is_taken_back(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    server_id = (await compute.boot())["id"]
    old, ensure = memory(compute.hypervisor), compute.hypervisor.ensure_server

    async def refuse(spec: ServerSpec) -> ServerState:
        if spec.memory_mb == 2048:
            raise HypervisorError("no memory")
        return await ensure(spec)

    monkeypatch.setattr(compute.hypervisor, "ensure_server", refuse)
    await compute.act(server_id, "resize", SMALL)
    await compute.idle()
    shown = await compute.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    assert memory(compute.hypervisor) == old and len(compute.placement.claims) == 1


@pytest.mark.parametrize(
    ("action", "status"),
    [("resize", "VERIFY_RESIZE"), ("confirmResize", "ACTIVE"), ("revertResize", "ACTIVE")],
)
async def test_what_a_killed_process_left_is_finished(tmp_path: Path, behind: Behind, action: str, status: str) -> None:
    async with running(tmp_path, behind) as compute:
        server_id = (await compute.boot())["id"] if action == "resize" else await resized(compute)
        behind.hypervisor.gate = asyncio.Event()
        behind.hypervisor.entered.clear()
        assert (await compute.act(server_id, action, SMALL if action == "resize" else None)).status < 300
        await behind.hypervisor.entered.wait()
    behind.hypervisor.gate = None
    async with running(tmp_path, behind) as compute:
        await compute.idle()
        shown = await compute.show(server_id)
        assert (shown["status"], shown["OS-EXT-STS:task_state"]) == (status, None)
        assert memory(behind.hypervisor) == [shown["flavor"]["ram"]]
        assert len(behind.placement.claims) == (2 if action == "resize" else 1)
