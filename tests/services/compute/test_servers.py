"""Servers over HTTP: made, shown, listed, stopped, started, deleted."""

from tests.services.compute.conftest import Compute
from tests.services.compute.fakes import IMAGE, NETWORK


async def test_a_server_from_request_to_its_end(compute: Compute) -> None:
    body = {"server": {"name": "vm", "imageRef": IMAGE, "flavorRef": "42", "networks": [{"uuid": NETWORK}]}}
    reply = await compute("POST", "/servers", body)
    assert reply.status == 202, reply.data
    made = reply.json()["server"]
    assert set(made) == {"id", "links", "OS-DCF:diskConfig", "security_groups", "adminPass"}
    server_id = made["id"]
    await compute.idle()
    shown = await compute.show(server_id)
    assert shown["status"] == "ACTIVE" and shown["OS-EXT-STS:power_state"] == 1
    (address,) = shown["addresses"]["private"]
    assert address["OS-EXT-IPS:type"] == "fixed" and address["version"] == 4
    assert shown["security_groups"] == [{"name": "default"}]
    assert compute.placement.claims[server_id] == {"VCPU": 1, "MEMORY_MB": 128, "DISK_GB": 1}
    assert compute.network.realised == [NETWORK]
    (port,) = compute.network.ports.values()
    assert port.device_id == server_id and port.status == "ACTIVE"
    machine = compute.hypervisor.machines[server_id]
    assert machine.spec.nics[0].mac == port.mac_address and machine.spec.memory_mb == 128

    assert (await compute.act(server_id, "os-stop")).status == 202
    await compute.idle()
    assert (await compute.show(server_id))["status"] == "SHUTOFF"
    again = await compute.act(server_id, "os-stop")
    assert again.status == 409
    assert again.json()["conflictingRequest"]["message"] == (
        f"Cannot 'stop' instance {server_id} while it is in vm_state stopped"
    )
    assert (await compute.act(server_id, "os-start")).status == 202
    await compute.idle()
    assert (await compute.show(server_id))["status"] == "ACTIVE"
    assert (await compute.act(server_id, "reboot", {"type": "HARD"})).status == 202
    await compute.idle()
    assert compute.hypervisor.calls[-1] == "reboot hard"

    assert (await compute("DELETE", f"/servers/{server_id}")).status == 204
    await compute.idle()
    assert (await compute("GET", f"/servers/{server_id}")).status == 404
    assert not compute.hypervisor.machines and not compute.network.ports and not compute.placement.claims
    actions = (await compute("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"]
    assert [a["action"] for a in actions] == ["delete", "reboot", "start", "stop", "create"]
    gone = (await compute("GET", "/servers/detail?deleted=true&all_tenants=1", token="admin")).json()["servers"]
    assert [(s["id"], s["status"]) for s in gone] == [(server_id, "DELETED")]


async def test_lists(compute: Compute) -> None:
    first = await compute.boot("alpha", tags=["red"])
    second = await compute.boot("beta", metadata={"a": "b"})
    brief = (await compute("GET", "/servers")).json()["servers"]
    assert [s["name"] for s in brief] == ["beta", "alpha"] and set(brief[0]) == {"id", "name", "links"}
    (detailed,) = (await compute("GET", "/servers/detail?name=^alp")).json()["servers"]
    shown = await compute.show(first["id"])
    assert shown.pop("server_groups") == [] and detailed == shown
    address = second["addresses"]["private"][0]["addr"]
    for query, names in {
        "status=ACTIVE": ["beta", "alpha"],
        "status=error": [],
        "flavor=42": ["beta", "alpha"],
        f"image={IMAGE}": ["beta", "alpha"],
        f"ip={address}": ["beta"],
        "tags=red": ["alpha"],
        "not-tags=red": ["beta"],
        "sort_key=display_name&sort_dir=asc": ["alpha", "beta"],
        "changes-since=2020-01-01T00:00:00Z": ["beta", "alpha"],
        "changes-since=2999-01-01T00:00:00Z": [],
    }.items():
        reply = await compute("GET", f"/servers?{query}")
        assert reply.status == 200, (query, reply.data)
        assert [s["name"] for s in reply.json()["servers"]] == names, query
    page = (await compute("GET", "/servers?limit=1")).json()
    assert [s["name"] for s in page["servers"]] == ["beta"]
    href = page["servers_links"][0]["href"]
    rest = (await compute("GET", href[href.index("/servers") :])).json()
    assert [s["name"] for s in rest["servers"]] == ["alpha"]
    assert (await compute("GET", "/servers", token="other")).json()["servers"] == []
    assert (await compute("GET", "/servers?all_tenants=1", token="other")).status == 403
    assert len((await compute("GET", "/servers?all_tenants=1", token="admin")).json()["servers"]) == 2
