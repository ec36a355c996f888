"""New disks for old servers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.compute.drivers import HypervisorError
from tests.services.compute.conftest import Behind, Compute, running
from tests.services.compute.fakes import OTHER_IMAGE, QUEUED_IMAGE, FakeMachine

OTHER: dict[str, Any] = {"imageRef": OTHER_IMAGE}


async def test_a_server_is_rebuilt(compute: Compute) -> None:
    before = await compute.boot()
    ports = dict(compute.network.ports)
    reply = await compute.act(
        before["id"],
        "rebuild",
        {**OTHER, "name": "new", "metadata": {"a": "b"}, "adminPass": "secret", "hostname": "h"},
    )
    assert reply.status == 202 and reply.headers["Location"].endswith(f"/v2.1/servers/{before['id']}")
    shown = reply.json()["server"]
    assert (shown["status"], shown["name"], shown["adminPass"]) == ("REBUILD", "new", "secret")
    await compute.idle()
    after = await compute.show(before["id"])
    assert (after["status"], after["image"]["id"], after["metadata"]) == ("ACTIVE", OTHER_IMAGE, {"a": "b"})
    assert after["addresses"] == before["addresses"] and compute.network.ports.keys() == ports.keys()
    assert compute.hypervisor.disks == {before["id"]: OTHER_IMAGE}
    assert len(compute.placement.claims) == 1


async def test_one_that_is_off_stays_off(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    await compute.act(server_id, "os-stop")
    await compute.idle()
    assert (await compute.act(server_id, "rebuild", OTHER)).status == 202
    await compute.idle()
    assert (await compute.show(server_id))["status"] == "SHUTOFF"
    await compute.act(server_id, "os-start")
    await compute.idle()
    assert compute.hypervisor.disks == {server_id: OTHER_IMAGE}


async def test_what_is_refused(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    wrong: list[dict[str, Any]] = [
        {}, {"imageRef": "no such image"}, {"imageRef": QUEUED_IMAGE}, {**OTHER, "unknown": 1}, {**OTHER, "name": ""},
        {**OTHER, "accessIPv4": "here"}, {**OTHER, "user_data": "?"}, {**OTHER, "key_name": "no such key"},
        {**OTHER, "personality": []}, {**OTHER, "trusted_image_certificates": ["x"]},
    ]  # fmt: skip
    for body in wrong:
        assert (await compute.act(server_id, "rebuild", body)).status == 400, body
    for name, value, version in (("key_name", None, "2.53"), ("hostname", "h", "2.89"), ("description", "d", "2.18")):
        assert (await compute.act(server_id, "rebuild", {**OTHER, name: value}, version=version)).status == 400
    for token, status in (("reader", 403), ("other", 404), ("nobody", 401)):
        assert (await compute.act(server_id, "rebuild", OTHER, token=token)).status == status
    await compute.act(server_id, "lock")
    assert (await compute.act(server_id, "rebuild", OTHER)).status == 409
    await compute.act(server_id, "unlock")
    await compute.act(server_id, "pause")
    await compute.idle()
    assert (await compute.act(server_id, "rebuild", OTHER)).status == 409
    assert compute.hypervisor.disks != {server_id: OTHER_IMAGE}


async def test_a_failed_rebuild_is_a_fault_and_can_be_tried_again(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    server_id = (await compute.boot())["id"]
    compute.hypervisor.fail = lambda: HypervisorError("the disk is full")
    await compute.act(server_id, "rebuild", OTHER)
    await compute.idle()
    shown = await compute.show(server_id)
    assert (shown["status"], shown["fault"]["message"]) == ("ERROR", "the disk is full")
    compute.hypervisor.fail = None
    await compute.act(server_id, "rebuild", OTHER)
    await compute.idle()
    assert (await compute.show(server_id))["status"] == "ACTIVE"


async def test_what_a_killed_process_left_is_finished(tmp_path: Path, behind: Behind) -> None:
    async with running(tmp_path, behind) as compute:
        server_id = (await compute.boot())["id"]
        behind.hypervisor.gate = asyncio.Event()
        behind.hypervisor.entered.clear()
        assert (await compute.act(server_id, "rebuild", OTHER)).status == 202
        await behind.hypervisor.entered.wait()
    machine = behind.hypervisor.machines[server_id]
    behind.hypervisor.machines[server_id] = FakeMachine(machine.spec, "shutdown")
    behind.hypervisor.gate = None
    async with running(tmp_path, behind) as compute:
        await compute.idle()
        assert (await compute.show(server_id))["status"] == "ACTIVE"
        assert behind.hypervisor.disks == {server_id: OTHER_IMAGE}
