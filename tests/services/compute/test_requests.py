"""What requests may say, who may make them, and how replies change with the version."""

import base64
from typing import Any

import pytest

from cumulet.services.compute.drivers import HypervisorError
from cumulet.services.network.interface import NewPort
from tests.services.compute.conftest import Compute
from tests.services.compute.fakes import IMAGE, NETWORK, OTHER_NETWORK, QUEUED_IMAGE

MISSING = "99999999-9999-4999-8999-999999999999"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHkaEDNJRJKsLaWFDgUVmnTZSWOFK+JGlLSmJ8jGlRXI someone@somewhere"


def body(**more: Any) -> dict[str, Any]:
    server = {"name": "vm", "imageRef": IMAGE, "flavorRef": "42", "networks": [{"uuid": NETWORK}], **more}
    return {"server": {name: value for name, value in server.items() if value is not ...}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ...}, "name"),
        ({"name": ""}, "name"),
        ({"name": " padded "}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"imageRef": MISSING}, f"Image {MISSING} could not be found."),
        ({"imageRef": QUEUED_IMAGE}, "is not active"),
        ({"imageRef": ...}, "Invalid imageRef"),
        ({"flavorRef": "none-such"}, "Flavor none-such could not be found."),
        ({"flavorRef": ...}, "flavorRef"),
        ({"networks": [{"uuid": MISSING}]}, f"Network {MISSING} could not be found."),
        ({"networks": [{"port": MISSING}]}, f"Port {MISSING} could not be found."),
        ({"networks": [{}]}, "network uuid or port"),
        ({"networks": "some"}, "networks"),
        ({"networks": [{"uuid": NETWORK, "color": "red"}]}, "color"),
        ({"key_name": "nobody"}, "Invalid key_name provided."),
        ({"user_data": "not base64!"}, "base64"),
        ({"user_data": "A" * 65536}, "user_data"),
        ({"security_groups": [{"name": "none-such"}]}, "none-such"),
        ({"availability_zone": "mars"}, "The requested availability zone is not available"),
        ({"metadata": {"": "x"}}, "metadata"),
        ({"metadata": {"x": "y" * 256}}, "metadata"),
        ({"min_count": 3, "max_count": 2}, "min_count must be <= max_count"),
        ({"min_count": 0}, "min_count"),
        ({"tags": ["a/b"]}, "tags"),
        ({"accessIPv4": "1.1.1.1.1.1"}, "accessIPv4"),
        ({"accessIPv6": "notvalid"}, "accessIPv6"),
        ({"surprise": 1}, "surprise"),
        (
            {"block_device_mapping_v2": [{"source_type": "volume", "destination_type": "volume"}]},
            "Block Device Mapping",
        ),
    ],
)
async def test_bad_servers_are_refused_with_a_reason(compute: Compute, changes: dict[str, Any], says: str) -> None:
    reply = await compute("POST", "/servers", body(**changes))
    assert reply.status == 400, reply.data
    assert says in reply.json()["badRequest"]["message"]
    assert (await compute("GET", "/servers")).json()["servers"] == []


async def test_access_addresses_are_kept_in_their_shortest_form(compute: Compute) -> None:
    sent = body(accessIPv4="1.1.1.1", accessIPv6="0000:0000:0000:0000:0000:babe:220.12.22.2")
    server = (await compute("POST", "/servers", sent)).json()["server"]["id"]
    shown = (await compute("GET", f"/servers/{server}")).json()["server"]
    assert (shown["accessIPv4"], shown["accessIPv6"]) == ("1.1.1.1", "::babe:dc0c:1602")
    changed = await compute("PUT", f"/servers/{server}", {"server": {"accessIPv6": "2001:0db8:0:0::0001"}})
    assert changed.json()["server"]["accessIPv6"] == "2001:db8::1"
    assert (await compute("PUT", f"/servers/{server}", {"server": {"accessIPv4": "::1"}})).status == 400


async def test_networks_not_asked_for(compute: Compute) -> None:
    assert (await compute("POST", "/servers", body(networks=...), version="2.1")).status == 202
    none = (await compute("POST", "/servers", body(networks="none"))).json()["server"]["id"]
    compute.network.add_network(OTHER_NETWORK, "second")
    several = await compute("POST", "/servers", body(networks="auto"))
    assert (
        several.status == 409 and "Multiple possible networks found" in several.json()["conflictingRequest"]["message"]
    )
    await compute.idle()
    assert (await compute.show(none))["addresses"] == {}


async def test_a_port_of_the_callers(compute: Compute) -> None:
    port = await compute.network.ensure_port(NewPort("port-1", "project-demo", NETWORK, "", ""))
    server = await compute.boot(networks=[{"port": port.id}])
    assert compute.network.ports[port.id].device_id == server["id"]
    assert (await compute("POST", "/servers", body(networks=[{"port": port.id}]))).status == 409
    await compute("DELETE", f"/servers/{server['id']}")
    await compute.idle()
    assert compute.network.ports[port.id].device_id == ""


async def test_many_at_once(compute: Compute) -> None:
    reply = await compute("POST", "/servers", body(min_count=2, max_count=3, return_reservation_id=True))
    assert set(reply.json()) == {"reservation_id"}
    names = [s["name"] for s in (await compute("GET", "/servers?sort_key=display_name&sort_dir=asc")).json()["servers"]]
    assert names == ["vm-1", "vm-2", "vm-3"]


async def test_quota_in_upstreams_words(compute: Compute) -> None:
    quotas = {"quota_set": {"instances": 1, "ram": 300}}
    assert (await compute("PUT", "/os-quota-sets/project-demo", quotas, token="member")).status == 403
    assert (await compute("PUT", "/os-quota-sets/project-demo", quotas, token="admin")).status == 200
    await compute.boot()
    reply = await compute("POST", "/servers", body())
    assert reply.status == 403
    assert reply.json()["forbidden"]["message"] == (
        "Quota exceeded for instances: Requested 1, but already used 1 of 1 instances"
    )
    absolute = (await compute("GET", "/limits")).json()["limits"]["absolute"]
    assert (absolute["totalInstancesUsed"], absolute["maxTotalInstances"], absolute["totalRAMUsed"]) == (1, 1, 128)
    assert (await compute("DELETE", "/os-quota-sets/project-demo", token="admin")).status == 202
    assert (await compute("GET", "/os-quota-sets/project-demo")).json()["quota_set"]["instances"] == 10
    assert (await compute("GET", "/os-quota-sets/project-demo", token="other")).status == 403


async def test_key_pairs_reach_the_guest(compute: Compute) -> None:
    reply = await compute("POST", "/os-keypairs", {"keypair": {"name": "mine", "public_key": KEY}})
    assert reply.status == 201 and reply.json()["keypair"]["type"] == "ssh"
    assert (await compute("POST", "/os-keypairs", {"keypair": {"name": "mine", "public_key": KEY}})).status == 409
    assert (await compute("POST", "/os-keypairs", {"keypair": {"name": "x", "public_key": "nonsense"}})).status == 400
    assert (await compute("POST", "/os-keypairs", {"keypair": {"name": "x"}})).status == 400
    old = await compute("POST", "/os-keypairs", {"keypair": {"name": "old"}}, version="2.1")
    assert old.status == 200 and old.json()["keypair"]["private_key"].startswith("-----BEGIN RSA PRIVATE KEY")
    listed = (await compute("GET", "/os-keypairs")).json()["keypairs"]
    assert [k["keypair"]["name"] for k in listed] == ["mine", "old"]
    assert (await compute("GET", "/os-keypairs", token="other")).json()["keypairs"] == []
    user_data = base64.b64encode(b"#!/bin/sh\n").decode()
    server = await compute.boot(key_name="mine", config_drive=True, user_data=user_data, metadata={"role": "web"})
    drive = compute.hypervisor.machines[server["id"]].spec.config_drive
    assert drive is not None and drive["openstack/latest/user_data"] == b"#!/bin/sh\n"
    import msgspec

    meta = msgspec.json.decode(drive["openstack/latest/meta_data.json"])
    assert (
        meta["uuid"] == server["id"] and meta["public_keys"]["mine"].strip() == KEY and meta["meta"] == {"role": "web"}
    )
    assert (await compute("DELETE", "/os-keypairs/mine")).status == 204
    assert (await compute("GET", "/os-keypairs/mine")).status == 404


@pytest.mark.parametrize(
    ("version", "there", "absent"),
    [
        (
            "2.1",
            {"id", "status", "OS-EXT-STS:vm_state", "OS-EXT-AZ:availability_zone"},
            {"locked", "tags", "description"},
        ),
        ("2.9", {"locked"}, {"description", "tags", "host_status"}),
        ("2.26", {"description", "tags", "locked"}, {"trusted_image_certificates", "server_groups"}),
        ("2.71", {"trusted_image_certificates", "server_groups"}, {"locked_reason", "pinned_availability_zone"}),
        ("2.96", {"locked_reason", "pinned_availability_zone", "OS-EXT-SRV-ATTR:hostname"}, set()),
    ],
)
async def test_views_by_version(compute: Compute, version: str, there: set[str], absent: set[str]) -> None:
    server_id = (await compute.boot())["id"]
    shown = await compute.show(server_id, version=version)
    assert there <= set(shown) and not absent & set(shown)
    assert ("original_name" in shown["flavor"]) is (version not in ("2.1", "2.9", "2.26"))
    assert "OS-EXT-SRV-ATTR:host" not in shown and "host_status" not in shown
    admin = await compute.show(server_id, version=version, token="admin")
    assert admin["OS-EXT-SRV-ATTR:host"] == "test-host"
    assert ("host_status" in admin) is (version not in ("2.1", "2.9"))
    assert shown["created"].endswith("Z") and "." in shown["OS-SRV-USG:launched_at"]


async def test_replies_to_changes_and_lists_say_what_they_did_at_that_version(compute: Compute) -> None:
    path = f"/servers/{(await compute.boot())['id']}"
    change = {"server": {"name": "other"}}
    old = (await compute("PUT", path, change, version="2.74")).json()["server"]
    assert {"id", "name", "status", "locked", "OS-DCF:diskConfig"} <= set(old)
    assert not {name for name in old if name.startswith(("OS-EXT", "OS-SRV", "os-ext"))}
    assert not {"key_name", "config_drive", "security_groups", "host_status"} & set(old)
    assert [set(address) for addresses in old["addresses"].values() for address in addresses] == [{"addr", "version"}]
    new = (await compute("PUT", path, change, version="2.75")).json()["server"]
    assert {"key_name", "OS-EXT-STS:vm_state", "server_groups"} <= set(new)
    (listed,) = (await compute("GET", "/servers/detail", version="2.96")).json()["servers"]
    assert "server_groups" not in listed and "pinned_availability_zone" in listed


async def test_host_names_with_a_domain(compute: Compute) -> None:
    name = "x" * 52 + "-guest.example.com"
    server = body(hostname=name)
    assert (await compute("POST", "/servers", server, version="2.93")).status == 400
    assert (await compute("POST", "/servers", body(hostname="a..b"), version="2.94")).status == 400
    made = (await compute("POST", "/servers", server, version="2.94")).json()["server"]
    path = f"/servers/{made['id']}"
    assert (await compute("GET", path, version="2.94")).json()["server"]["OS-EXT-SRV-ATTR:hostname"] == name
    changed = await compute("PUT", path, {"server": {"hostname": "b.example.org"}}, version="2.94")
    assert changed.json()["server"]["OS-EXT-SRV-ATTR:hostname"] == "b.example.org"


async def test_an_owner_is_asked_for_among_all_projects_only(compute: Compute) -> None:
    server = await compute.boot()
    for query, found in (("tenant_id=project-demo", []), ("all_tenants=1&tenant_id=project-demo", [server["id"]])):
        listed = (await compute("GET", f"/servers?{query}", token="admin")).json()["servers"]
        assert [row["id"] for row in listed] == found
    others = await compute("GET", "/servers?all_tenants=1&tenant_id=project-other", token="admin")
    assert others.json()["servers"] == []


async def test_hosts_tell_since_when_they_are_up(compute: Compute) -> None:
    old = (await compute("GET", "/os-hypervisors/1/uptime", token="admin", version="2.1")).json()["hypervisor"]
    (new,) = (await compute("GET", "/os-hypervisors/detail", token="admin", version="2.88")).json()["hypervisors"]
    for shown in (old, new):
        assert " up " in shown["uptime"] and "load average: " in shown["uptime"]


async def test_hosts_of_old(compute: Compute) -> None:
    server = await compute.boot()

    async def ask(path: str, method: str = "GET", sent: Any = None, token: str = "admin") -> Any:
        return await compute(method, f"/os-hosts{path}", sent, version="2.42", token=token)

    rows = (await ask("")).json()["hosts"]
    assert {row["service"] for row in rows} == {"compute", "conductor", "scheduler"}
    assert [row["service"] for row in (await ask("?zone=nova")).json()["hosts"]] == ["compute"]
    assert (await ask("?zone=mars")).json() == {"hosts": []}
    shown = [row["resource"] for row in (await ask("/test-host")).json()["host"]]
    assert [row["project"] for row in shown] == ["(total)", "(used_now)", "(used_max)", "project-demo"]
    assert shown[1]["memory_mb"] == shown[3]["memory_mb"] == server["flavor"]["ram"]
    for method, path, sent, status in (
        ("GET", "/mars", None, 404), ("GET", "/mars/startup", None, 404), ("GET", "/test-host/reboot", None, 501),
        ("PUT", "/mars", {"status": "enable"}, 404), ("PUT", "/test-host", {"status": "enable"}, 501),
        ("PUT", "/test-host", {"status": "maybe"}, 400), ("PUT", "/test-host", {}, 400),
    ):  # fmt: skip
        assert (await ask(path, method, sent)).status == status, path
        assert (await ask(path, method, sent, token="member")).status == 403
    assert (await compute("GET", "/os-hosts", token="admin", version="2.43")).status == 404


async def test_small_answers(compute: Compute) -> None:
    path = f"/servers/{(await compute.boot())['id']}/os-server-password"
    assert (await compute("GET", path)).json() == {"password": ""}
    assert (await compute("DELETE", path)).status == 204
    assert [(await compute(method, path, token="other")).status for method in ("GET", "DELETE")] == [404, 404]
    assert (await compute("DELETE", path, token="reader")).status == 403
    assert (await compute("GET", "/os-migrations", token="admin")).json() == {"migrations": []}
    assert "Hosts" in {row["name"] for row in (await compute("GET", "/extensions")).json()["extensions"]}
    assert (await compute("GET", "/extensions/os-hosts")).json()["extension"]["alias"] == "os-hosts"
    assert (await compute("GET", "/extensions/os-teleport")).status == 404


async def test_services_that_do_not_exist(compute: Compute) -> None:
    (known,) = (await compute("GET", "/os-services?binary=nova-compute", token="admin")).json()["services"]
    change = {"status": "disabled"}
    assert (await compute("PUT", f"/os-services/{MISSING}", change, token="admin")).status == 404
    assert (await compute("DELETE", f"/os-services/{MISSING}", token="admin")).status == 404
    assert (await compute("PUT", f"/os-services/{known['id']}", change, token="admin")).status == 501


async def test_an_empty_id_is_no_list(compute: Compute) -> None:
    for method in ("GET", "DELETE"):
        assert (await compute(method, "/servers/")).status == 404
    assert (await compute("GET", "/")).status == 200


async def test_version_documents(compute: Compute) -> None:
    root = await compute.client("GET", "/", token="nobody")
    assert root.status == 200 and [v["id"] for v in root.json()["versions"]] == ["v2.0", "v2.1"]
    for path in ("/v2.1", "/v2.1/"):
        shown = (await compute.client("GET", path, token="nobody")).json()["version"]
        assert (shown["version"], shown["min_version"], shown["status"]) == ("2.96", "2.1", "CURRENT")
    old = (await compute.client("GET", "/v2/", token="nobody")).json()["version"]
    assert (old["version"], old["status"]) == ("", "SUPPORTED")
    assert len((await compute.client("GET", "/v2/flavors")).json()["flavors"]) == 6
    both = await compute.client("GET", "/v2.1/flavors", X_OpenStack_Nova_API_Version="2.42")
    assert both.headers["OpenStack-API-Version"] == "compute 2.42" and "X-Compute-Request-Id" in both.headers
    assert (await compute("GET", "/flavors", version="2.97")).status == 406


EVERYBODY = ("admin", "manager", "member", "reader", "other", "nobody")


@pytest.mark.parametrize(
    ("method", "path", "sent", "statuses"),
    [
        ("GET", "/servers/{id}", None, (200, 200, 200, 200, 404, 401)),
        ("PUT", "/servers/{id}", {"server": {"name": "new"}}, (200, 200, 200, 403, 404, 401)),
        ("GET", "/servers/{id}/metadata", None, (200, 200, 200, 200, 404, 401)),
        ("POST", "/servers/{id}/metadata", {"metadata": {"a": "b"}}, (200, 200, 200, 403, 404, 401)),
        ("PUT", "/servers/{id}/tags", {"tags": ["a"]}, (200, 200, 200, 403, 404, 401)),
        ("GET", "/servers/{id}/os-interface", None, (200, 200, 200, 200, 404, 401)),
        ("GET", "/servers/{id}/os-instance-actions", None, (200, 200, 200, 200, 404, 401)),
        ("POST", "/servers/{id}/action", {"os-getConsoleOutput": {"length": 2}}, (200, 200, 200, 403, 404, 401)),
        ("POST", "/servers/{id}/action", {"os-resetState": {"state": "active"}}, (202, 403, 403, 403, 403, 401)),
        ("GET", "/servers/{id}/diagnostics", None, (200, 403, 403, 403, 403, 401)),
        ("POST", "/servers", {"server": {"name": "vm", "imageRef": IMAGE, "flavorRef": "42", "networks": "none"}},
         (202, 202, 202, 403, 202, 401)),
        ("GET", "/flavors", None, (200, 200, 200, 200, 200, 401)),
        ("POST", "/flavors", {"flavor": {"name": "f", "ram": 1, "vcpus": 1, "disk": 0}}, (200, 403, 403, 403, 403, 401)),
        ("GET", "/os-hypervisors", None, (200, 403, 403, 403, 403, 401)),
        ("GET", "/os-services", None, (200, 403, 403, 403, 403, 401)),
        ("GET", "/os-availability-zone", None, (200, 200, 200, 200, 200, 401)),
        ("GET", "/os-availability-zone/detail", None, (200, 403, 403, 403, 403, 401)),
        ("POST", "/os-server-groups", {"server_group": {"name": "g", "policy": "affinity"}},
         (200, 200, 200, 403, 200, 401)),
        ("POST", "/servers/{id}/remote-consoles", {"remote_console": {"protocol": "vnc", "type": "novnc"}},
         (200, 200, 200, 403, 404, 401)),
        ("DELETE", "/servers/{id}", None, (204, 204, 204, 403, 404, 401)),
    ],
)  # fmt: skip
async def test_who_may(compute: Compute, method: str, path: str, sent: Any, statuses: tuple[int, ...]) -> None:
    for token, status in zip(EVERYBODY, statuses, strict=True):
        server_id = (await compute.boot())["id"] if "{id}" in path else ""
        reply = await compute(method, path.format(id=server_id), sent, token=token)
        assert reply.status == status, (token, reply.data)
        await compute.idle()
        if server_id and method != "DELETE":
            await compute("DELETE", f"/servers/{server_id}")
            await compute.idle()
        if path == "/flavors" and reply.status == 200 and method == "POST":
            await compute("DELETE", f"/flavors/{reply.json()['flavor']['id']}", token="admin")


async def test_locked_servers(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    assert (await compute.act(server_id, "lock", {"locked_reason": "mine"})).status == 202
    shown = await compute.show(server_id)
    assert shown["locked"] is True and shown["locked_reason"] == "mine"
    for reply in (await compute.act(server_id, "os-stop"), await compute("DELETE", f"/servers/{server_id}")):
        assert reply.status == 409 and "is locked" in reply.json()["conflictingRequest"]["message"]
    assert (await compute.act(server_id, "unlock")).status == 202
    assert (await compute.act(server_id, "lock", token="admin")).status == 202
    assert (await compute.act(server_id, "unlock")).status == 403
    assert (await compute.act(server_id, "os-stop", token="admin")).status == 202


async def test_cards_and_groups(compute: Compute) -> None:
    compute.network.add_network(OTHER_NETWORK, "second")
    server_id = (await compute.boot())["id"]
    attach = {"interfaceAttachment": {"net_id": OTHER_NETWORK}}
    reply = await compute("POST", f"/servers/{server_id}/os-interface", attach)
    assert reply.status == 200, reply.data
    card = reply.json()["interfaceAttachment"]
    await compute.idle()
    assert set((await compute.show(server_id))["addresses"]) == {"private", "second"}
    shown = (await compute("GET", f"/servers/{server_id}/os-interface")).json()["interfaceAttachments"]
    assert [one["port_state"] for one in shown] == ["ACTIVE", "ACTIVE"]
    assert [one.port_id for one in compute.hypervisor.machines[server_id].spec.nics] == [
        one["port_id"] for one in shown
    ]
    assert (await compute("DELETE", f"/servers/{server_id}/os-interface/{card['port_id']}")).status == 202
    await compute.idle()
    assert (await compute("DELETE", f"/servers/{server_id}/os-interface/{card['port_id']}")).status == 404
    assert set((await compute.show(server_id))["addresses"]) == {"private"} and len(compute.network.ports) == 1
    assert len(compute.hypervisor.machines[server_id].spec.nics) == 1
    assert (await compute.act(server_id, "addSecurityGroup", {"name": "web"})).status == 202
    assert (await compute.show(server_id))["security_groups"] == [{"name": "default"}, {"name": "web"}]
    assert (await compute.act(server_id, "removeSecurityGroup", {"name": "default"})).status == 202
    assert (await compute.act(server_id, "removeSecurityGroup", {"name": "default"})).status == 409
    listed = (await compute("GET", f"/servers/{server_id}/os-security-groups")).json()["security_groups"]
    assert [g["name"] for g in listed] == ["web"]


async def test_cards_of_a_server_that_is_off(compute: Compute) -> None:
    compute.network.add_network(OTHER_NETWORK, "second")
    server_id = (await compute.boot())["id"]
    await compute.act(server_id, "os-stop")
    await compute.idle()
    path, attach = f"/servers/{server_id}/os-interface", {"interfaceAttachment": {"net_id": OTHER_NETWORK}}
    first, second = [(await compute("POST", path, attach)).json()["interfaceAttachment"]["port_id"] for _ in range(2)]
    await compute("DELETE", f"{path}/{first}")
    await compute.act(server_id, "os-start")
    await compute.idle()
    assert [nic.port_id for nic in compute.hypervisor.machines[server_id].spec.nics][1:] == [second]


async def test_a_card_that_cannot_be_had_is_taken_back(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    compute.network.add_network(OTHER_NETWORK, "second")
    server_id = (await compute.boot())["id"]

    async def refuse(server_id: str, nic: object) -> None:
        raise HypervisorError("no free slot")

    monkeypatch.setattr(compute.hypervisor, "attach_nic", refuse)
    path, attach = f"/servers/{server_id}/os-interface", {"interfaceAttachment": {"net_id": OTHER_NETWORK}}
    assert (await compute("POST", path, attach)).status == 200
    await compute.idle()
    assert len((await compute("GET", path)).json()["interfaceAttachments"]) == len(compute.network.ports) == 1
    shown = await compute.show(server_id)
    assert shown["status"] == "ACTIVE" and set(shown["addresses"]) == {"private"}
    action = (await compute("GET", f"/servers/{server_id}/os-instance-actions")).json()["instanceActions"][0]
    assert (action["action"], action["message"]) == ("attach_interface", "Error")


async def test_a_card_that_the_guest_keeps_stays(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    server_id = (await compute.boot())["id"]
    (port_id,) = compute.network.ports
    compute.hypervisor.fail = lambda: HypervisorError("the guest did not let go")
    assert (await compute("DELETE", f"/servers/{server_id}/os-interface/{port_id}")).status == 202
    await compute.idle()
    shown = await compute.show(server_id)
    assert shown["status"] == "ACTIVE" and shown["addresses"] and list(compute.network.ports) == [port_id]


async def test_the_card_of_a_deleted_port_goes(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    (port_id,) = compute.network.ports
    await compute.network.delete_port(port_id)
    await compute.runtime.addresses.hear("port.deleted", {"device_id": server_id, "port_id": port_id})
    await compute.idle()
    assert compute.hypervisor.machines[server_id].spec.nics == ()
    assert (await compute.show(server_id))["addresses"] == {}


async def test_metadata_and_tags(compute: Compute) -> None:
    path = f"/servers/{(await compute.boot())['id']}"
    assert (await compute("POST", path + "/metadata", {"metadata": {"a": "1", "b": "2"}})).json() == {
        "metadata": {"a": "1", "b": "2"}
    }
    assert (await compute("PUT", path + "/metadata/a", {"meta": {"a": "3"}})).json() == {"meta": {"a": "3"}}
    assert (await compute("PUT", path + "/metadata/a", {"meta": {"b": "3"}})).status == 400
    assert (await compute("DELETE", path + "/metadata/b")).status == 204
    assert (await compute("DELETE", path + "/metadata/b")).status == 404
    assert (await compute("PUT", path + "/metadata", {"metadata": {"c": "4"}})).json() == {"metadata": {"c": "4"}}
    too_many = {"metadata": {f"k{n}": "v" for n in range(129)}}
    assert (await compute("POST", path + "/metadata", too_many)).status == 403
    assert (await compute("PUT", path + "/tags/red")).status == 201
    assert (await compute("PUT", path + "/tags/red")).status == 204
    assert (await compute("GET", path + "/tags/red")).status == 204
    assert (await compute("GET", path + "/tags/blue")).status == 404
    assert (await compute("PUT", path + "/tags", {"tags": ["x"] * 51})).status == 400
    assert (await compute("DELETE", path + "/tags")).status == 204
    assert (await compute("GET", path + "/tags")).json() == {"tags": []}
    assert (await compute("GET", path + "/tags", version="2.25")).status == 404


async def test_flavors(compute: Compute) -> None:
    listed = (await compute("GET", "/flavors/detail")).json()["flavors"]
    assert {f["name"] for f in listed} == {"m1.nano", "m1.micro", "m1.tiny", "m1.small", "m1.medium", "m1.large"}
    assert [f["id"] for f in (await compute("GET", "/flavors?minRam=4096&minDisk=50")).json()["flavors"]] == ["4"]
    new = {"flavor": {"name": "own", "ram": 64, "vcpus": 1, "disk": 0, "os-flavor-access:is_public": False}}
    made = (await compute("POST", "/flavors", new, token="admin")).json()["flavor"]
    path = f"/flavors/{made['id']}"
    assert made["swap"] == 0 and made["os-flavor-access:is_public"] is False and made["extra_specs"] == {}
    assert (await compute("POST", "/flavors", new, token="admin")).status == 409
    assert (await compute("GET", path)).status == 404
    grant = {"addTenantAccess": {"tenant": "project-demo"}}
    assert (await compute("POST", path + "/action", grant)).status == 403
    assert (await compute("POST", path + "/action", grant, token="admin")).status == 200
    assert (await compute("GET", path, version="2.1")).json()["flavor"]["swap"] == ""
    for word, public in (("True", True), ("no", False), ("1", True)):
        worded = {"flavor": {**new["flavor"], "name": f"own-{word}", "os-flavor-access:is_public": word}}
        reply = await compute("POST", "/flavors", worded, token="admin")
        assert reply.json()["flavor"]["os-flavor-access:is_public"] is public
    specs = {"extra_specs": {"hw:cpu_policy": "shared"}}
    assert (await compute("POST", path + "/os-extra_specs", specs, token="admin")).json() == specs
    assert (await compute("GET", path + "/os-extra_specs/hw:cpu_policy")).json() == {"hw:cpu_policy": "shared"}
    assert (await compute("DELETE", path + "/os-extra_specs/hw:cpu_policy", token="admin")).status == 200
    assert (await compute("DELETE", path, token="admin")).status == 202


async def test_not_served_says_so(compute: Compute) -> None:
    server_id = (await compute.boot())["id"]
    reply = await compute.act(server_id, "shelve")
    assert reply.status == 501 and "not served" in reply.json()["notImplemented"]["message"]
    assert (await compute.act(server_id, "dance")).status == 400
    assert (await compute("GET", "/os-cells")).status == 410
    assert (await compute("GET", "/os-floating-ips")).status == 404
