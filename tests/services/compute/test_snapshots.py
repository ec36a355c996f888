"""Images that are made of servers."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.compute.drivers import HypervisorError
from tests.services.compute.conftest import Behind, Compute, running
from tests.services.compute.fakes import IMAGE

WANTED: dict[str, Any] = {"name": "mine", "metadata": {"purpose": "test"}}


async def test_an_image_is_made(compute: Compute, tmp_path: Path) -> None:
    server_id = (await compute.boot())["id"]
    reply = await compute.act(server_id, "createImage", WANTED)
    assert reply.status == 202
    image_id = reply.json()["image_id"]
    assert compute.images.images[image_id].status in ("queued", "active")
    await compute.idle()
    image = compute.images.images[image_id]
    assert (image.status, image.disk_format, image.owner, image.visibility) == (
        "active",
        "qcow2",
        "project-demo",
        "private",
    )
    assert image.properties["purpose"] == "test" and image.properties["instance_uuid"] == server_id
    assert image.properties["base_image_ref"] == IMAGE and image.properties["image_type"] == "snapshot"
    shown = await compute.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    assert [name for name in os.listdir(tmp_path) if name.endswith(".snapshot")] == []
    action = (await compute("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"][0]
    assert (action["action"], action["message"]) == ("createImage", None)


async def test_before_2_45_the_image_is_told_by_its_url(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    reply = await compute.act(server_id, "createImage", WANTED, version="2.44")
    assert reply.status == 202 and not reply.data
    await compute.idle()
    assert compute.images.images[reply.headers["Location"].rpartition("/images/")[2]].status == "active"


async def test_what_is_refused(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    for wrong in ({}, {"name": ""}, {"name": "a" * 256}, {"name": "a", "metadata": {"": "b"}}, {"name": "a", "x": 1}):
        assert (await compute.act(server_id, "createImage", wrong)).status == 400, wrong
    many = {"name": "a", "metadata": {f"k{n}": "v" for n in range(129)}}
    assert (await compute.act(server_id, "createImage", many)).status == 403
    for token, status in (("reader", 403), ("other", 404), ("nobody", 401)):
        assert (await compute.act(server_id, "createImage", WANTED, token=token)).status == status
    compute.hypervisor.gate = asyncio.Event()
    assert (await compute.act(server_id, "createImage", WANTED)).status == 202
    for action, value in (("createImage", WANTED), ("os-stop", None)):
        reply = await compute.act(server_id, action, value)
        assert reply.status == 409 and "image_" in reply.json()["conflictingRequest"]["message"]
    compute.hypervisor.gate.set()
    await compute.idle()
    assert len(compute.images.images) == 4


async def test_a_failed_image_goes(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    server_id = (await compute.boot())["id"]
    compute.hypervisor.fail = lambda: HypervisorError("no space left")
    image_id = (await compute.act(server_id, "createImage", WANTED)).json()["image_id"]
    await compute.idle()
    assert image_id not in compute.images.images
    shown = await compute.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    action = (await compute("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"][0]
    assert (action["action"], action["message"]) == ("createImage", "Error")


async def test_a_delete_in_the_middle_takes_the_image_along(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    compute.hypervisor.gate = asyncio.Event()
    compute.hypervisor.entered.clear()
    image_id = (await compute.act(server_id, "createImage", WANTED)).json()["image_id"]
    await compute.hypervisor.entered.wait()
    assert (await compute("DELETE", f"/servers/{server_id}")).status == 204
    await compute.idle()
    assert image_id not in compute.images.images and not compute.hypervisor.machines


async def test_what_a_killed_process_left_is_finished(tmp_path: Path, behind: Behind) -> None:
    async with running(tmp_path, behind) as compute:
        server_id = (await compute.boot())["id"]
        behind.hypervisor.gate = asyncio.Event()
        behind.hypervisor.entered.clear()
        image_id = (await compute.act(server_id, "createImage", WANTED)).json()["image_id"]
        await behind.hypervisor.entered.wait()
    behind.hypervisor.gate = None
    async with running(tmp_path, behind) as compute:
        await compute.idle()
        assert behind.images.images[image_id].status == "active"
        assert (await compute.show(server_id))["OS-EXT-STS:task_state"] is None
