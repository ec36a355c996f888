"""Options of projects, domains and roles; what is immutable stays as it is."""

from typing import Any

import pytest

from tests.services.identity.conftest import Identity

KINDS = ("project", "domain", "role")


async def changed(identity: Identity, kind: str, id: str, **values: Any) -> Any:
    return await identity.call("PATCH", f"/v3/{kind}s/{id}", {kind: values})


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_immutable_can_only_be_made_mutable(identity: Identity, kind: str) -> None:
    item = await identity.made(f"{kind}s", name="thing", options={"immutable": True})
    assert item["options"] == {"immutable": True}
    values: dict[str, Any]
    for values in (
        {"name": "other"}, {"description": "other"}, {"colour": "red"}, {"options": {}}, {"options": {"immutable": True}},
        {"options": {"immutable": False}, "name": "other"}, {"options": {"immutable": False}, "colour": "red"},
    ):  # fmt: skip
        reply = await changed(identity, kind, item["id"], **values)
        assert reply.status == 403 and "immutable" in reply.json()["error"]["message"], values
    assert (await identity.call("DELETE", f"/v3/{kind}s/{item['id']}")).status == 403
    shown = (await identity.call("GET", f"/v3/{kind}s/{item['id']}")).json()[kind]
    assert shown == item
    reply = await changed(identity, kind, item["id"], options={"immutable": False})
    assert reply.status == 200 and reply.json()[kind]["options"] == {"immutable": False}
    assert (await changed(identity, kind, item["id"], name="other")).json()[kind]["name"] == "other"
    assert (await changed(identity, kind, item["id"], options={"immutable": True})).status == 200
    reply = await changed(identity, kind, item["id"], options={"immutable": None})
    assert reply.status == 200 and reply.json()[kind]["options"] == {}
    if kind == "domain":
        assert (await changed(identity, kind, item["id"], enabled=False)).status == 200
    assert (await identity.call("DELETE", f"/v3/{kind}s/{item['id']}")).status == 204


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"colour": "red"}, {"immutable": "yes"}, {"immutable": 7}, [], "immutable"])
async def test_options_are_the_known_ones(identity: Identity, kind: str, options: Any) -> None:
    assert (await identity.call("POST", f"/v3/{kind}s", {kind: {"name": "x", "options": options}})).status == 400
    item = await identity.made(f"{kind}s", name="thing")
    assert (await changed(identity, kind, item["id"], options=options)).status == 400


async def test_an_immutable_project_keeps_its_tags(identity: Identity) -> None:
    project = await identity.made("projects", name="work", tags=["one"], options={"immutable": True})
    path = f"/v3/projects/{project['id']}/tags"
    assert (await identity.call("PUT", f"{path}/two")).status == 403
    assert (await identity.call("PUT", path, {"tags": ["two"]})).status == 403
    assert (await identity.call("DELETE", f"{path}/one")).status == 403
    assert (await identity.call("DELETE", path)).status == 403
    assert (await identity.call("GET", path)).json()["tags"] == ["one"]
    assert (await identity.call("HEAD", f"{path}/one")).status == 204


async def test_a_domain_with_an_immutable_project_stays_whole(identity: Identity) -> None:
    realm = await identity.made("domains", name="realm")
    user = await identity.made("users", name="ann", domain_id=realm["id"])
    project = await identity.made("projects", name="work", domain_id=realm["id"], options={"immutable": True})
    assert (await changed(identity, "domain", realm["id"], enabled=False)).status == 200
    assert (await identity.call("DELETE", f"/v3/domains/{realm['id']}")).status == 403
    for path in (f"domains/{realm['id']}", f"users/{user['id']}", f"projects/{project['id']}"):
        assert (await identity.call("GET", f"/v3/{path}")).status == 200
    assert (await changed(identity, "project", project["id"], options={"immutable": None})).status == 200
    assert (await identity.call("DELETE", f"/v3/domains/{realm['id']}")).status == 204
