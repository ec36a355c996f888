"""What goes wrong: failed builds, deletes in the middle, killed processes, servers that stop by themselves."""

import asyncio
from pathlib import Path

import pytest

from cumulet.core.errors import QuotaExceeded
from cumulet.services.compute.drivers import HypervisorError, RootDisk, ServerSpec
from tests.services.compute.conftest import Behind, Compute, running
from tests.services.compute.fakes import IMAGE, NETWORK, OTHER_NETWORK, FakeMachine

BODY = {"server": {"name": "vm", "imageRef": IMAGE, "flavorRef": "42", "networks": [{"uuid": NETWORK}]}}


async def ask(compute: Compute, **more: object) -> str:
    reply = await compute("POST", "/servers", {"server": {**BODY["server"], **more}})
    assert reply.status == 202, reply.data
    return str(reply.json()["server"]["id"])


async def test_no_room_is_a_fault(compute: Compute) -> None:
    flavor = {"flavor": {"name": "huge", "ram": 49000, "vcpus": 18, "disk": 5000, "id": "huge"}}
    assert (await compute("POST", "/flavors", flavor, token="admin")).status == 200
    server_id = await ask(compute, flavorRef="huge")
    await compute.idle()
    shown = await compute.show(server_id)
    assert shown["status"] == "ERROR" and shown["OS-EXT-STS:task_state"] is None
    assert shown["fault"]["code"] == 500 and "details" not in shown["fault"]
    assert shown["fault"]["message"] == "No valid host was found. There are not enough hosts available."
    assert "details" in (await compute.show(server_id, token="admin"))["fault"]
    (action,) = (await compute("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"]
    assert action["message"] == "Error"
    assert (await compute("DELETE", f"/servers/{server_id}")).status == 204
    await compute.idle()
    assert (await compute("GET", f"/servers/{server_id}")).status == 404


async def test_a_failed_build_gives_back_what_it_took(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    compute.hypervisor.fail = lambda: HypervisorError("the disk is full")
    server_id = await ask(compute)
    await compute.idle()
    shown = await compute.show(server_id)
    assert shown["status"] == "ERROR" and shown["fault"]["message"] == "the disk is full"
    assert not compute.placement.claims and not compute.network.ports and not compute.hypervisor.machines
    assert compute.hypervisor.calls.count("ensure_server") == 3
    assert (await compute.act(server_id, "os-start")).status == 409


async def test_a_port_that_cannot_be_had_is_a_fault(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(new: object) -> None:
        raise QuotaExceeded("port", limit=1, used=1)

    monkeypatch.setattr(compute.network, "ensure_port", refuse)
    server_id = await ask(compute)
    await compute.idle()
    assert "Quota exceeded for port" in (await compute.show(server_id))["fault"]["message"]


async def test_delete_during_the_build(compute: Compute) -> None:
    compute.hypervisor.gate = asyncio.Event()
    server_id = await ask(compute)
    await compute.hypervisor.entered.wait()
    shown = await compute.show(server_id)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("BUILD", "spawning")
    assert (await compute.act(server_id, "os-stop")).status == 409
    assert (await compute("DELETE", f"/servers/{server_id}")).status == 204
    await compute.idle()
    assert (await compute("GET", f"/servers/{server_id}")).status == 404
    assert not compute.placement.claims and not compute.network.ports and not compute.hypervisor.machines


@pytest.mark.parametrize(
    ("action", "value", "before", "after"),
    [
        ("create", None, None, "ACTIVE"),
        ("os-stop", None, None, "SHUTOFF"),
        ("os-start", None, "os-stop", "ACTIVE"),
        ("reboot", {"type": "SOFT"}, None, "ACTIVE"),
        ("reboot", {"type": "HARD"}, "os-stop", "ACTIVE"),
        ("pause", None, None, "PAUSED"),
        ("unpause", None, "pause", "ACTIVE"),
        ("delete", None, None, None),
    ],
)
async def test_what_a_killed_process_left_is_finished(
    tmp_path: Path, behind: Behind, action: str, value: object, before: str | None, after: str | None
) -> None:
    async with running(tmp_path, behind) as compute:
        if action == "create":
            behind.hypervisor.gate = asyncio.Event()
            server_id = await ask(compute)
            await behind.hypervisor.entered.wait()
        else:
            server_id = (await compute.boot())["id"]
            if before is not None:
                assert (await compute.act(server_id, before)).status == 202
                await compute.idle()
            behind.hypervisor.gate = asyncio.Event()
            behind.hypervisor.entered.clear()
            if action == "delete":
                await compute.kernel.operations.stop()  # nothing of it is carried out in this life
                assert (await compute("DELETE", f"/servers/{server_id}")).status == 204
            else:
                assert (await compute.act(server_id, action, value)).status == 202
                await behind.hypervisor.entered.wait()
    behind.hypervisor.gate = None
    async with running(tmp_path, behind) as compute:
        await compute.idle()
        if after is None:
            assert (await compute("GET", f"/servers/{server_id}")).status == 404
            assert not behind.hypervisor.machines and not behind.network.ports and not behind.placement.claims
        else:
            shown = await compute.show(server_id)
            assert shown["status"] == after and shown["OS-EXT-STS:task_state"] is None
            assert len(behind.network.ports) == 1 and len(behind.placement.claims) == 1
            assert [p.device_id for p in behind.network.ports.values()] == [server_id]


@pytest.mark.parametrize("attach", [True, False])
async def test_a_change_of_cards_that_a_killed_process_left_is_finished(
    tmp_path: Path, behind: Behind, attach: bool
) -> None:
    behind.network.add_network(OTHER_NETWORK, "second")
    async with running(tmp_path, behind) as compute:
        server_id = (await compute.boot())["id"]
        path = f"/servers/{server_id}/os-interface"
        (port_id,) = behind.network.ports
        behind.hypervisor.gate = asyncio.Event()
        behind.hypervisor.entered.clear()
        if attach:
            assert (await compute("POST", path, {"interfaceAttachment": {"net_id": OTHER_NETWORK}})).status == 200
        else:
            assert (await compute("DELETE", f"{path}/{port_id}")).status == 202
        await behind.hypervisor.entered.wait()
    behind.hypervisor.gate = None
    async with running(tmp_path, behind) as compute:
        await compute.idle()
        nics = behind.hypervisor.machines[server_id].spec.nics
        assert len(nics) == len(behind.network.ports) == (2 if attach else 0)
        assert set((await compute.show(server_id))["addresses"]) == ({"private", "second"} if attach else set())
        assert len((await compute("GET", path)).json()["interfaceAttachments"]) == len(nics)


async def test_a_guest_that_shuts_down_is_shutoff(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    machine = compute.hypervisor.machines[server_id]
    compute.hypervisor.machines[server_id] = FakeMachine(machine.spec, "shutdown")
    assert compute.hypervisor.listener is not None
    await compute.hypervisor.listener(server_id, "shutdown")
    shown = await compute.show(server_id)
    assert shown["status"] == "SHUTOFF" and shown["OS-EXT-STS:power_state"] == 4


async def test_the_start_mends_what_changed_meanwhile(tmp_path: Path, behind: Behind) -> None:
    async with running(tmp_path, behind) as compute:
        gone, kept, woken = [(await compute.boot(name))["id"] for name in ("gone", "kept", "woken")]
        await compute.act(woken, "os-stop")
        await compute.idle()
    machines = behind.hypervisor.machines
    del machines[gone]
    machines[woken] = FakeMachine(machines[woken].spec, "running")
    stray = ServerSpec("stray", "stray", 1, 64, RootDisk("/x", "raw", "x"))
    machines["stray"] = FakeMachine(stray, "running")
    async with running(tmp_path, behind) as compute:
        await compute.idle()
        assert [(await compute.show(s))["status"] for s in (gone, kept, woken)] == ["SHUTOFF", "ACTIVE", "SHUTOFF"]
        assert set(machines) == {kept, woken} and machines[woken].power == "shutdown"


async def test_addresses_follow_the_events_of_networking(compute: Compute) -> None:
    from msgspec.structs import replace

    server_id = (await compute.boot())["id"]
    (port,) = compute.network.ports.values()
    fixed = replace(port.fixed_ips[0], floating_ips=("172.24.4.9",))
    compute.network.ports[port.id] = replace(port, fixed_ips=(fixed,))
    await compute.runtime.addresses.hear("port.addresses", {"device_ids": [server_id]})
    addresses = (await compute.show(server_id))["addresses"]["private"]
    assert [(a["addr"], a["OS-EXT-IPS:type"]) for a in addresses] == [
        (port.fixed_ips[0].ip_address, "fixed"),
        ("172.24.4.9", "floating"),
    ]
    plain = (await compute("GET", f"/servers/{server_id}/ips/private")).json()["private"]
    assert [a["addr"] for a in plain] == [a["addr"] for a in addresses]
    del compute.network.ports[port.id]
    await compute.runtime.addresses.hear("port.deleted", {"device_id": server_id, "port_id": port.id})
    assert (await compute.show(server_id))["addresses"] == {}
