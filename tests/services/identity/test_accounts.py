"""Domains, projects, users, groups and roles: what is made, shown, changed and removed."""

from typing import Any

import pytest

from tests.services.identity.conftest import Identity


async def test_a_domain_lives_and_ends_with_all_that_is_in_it(identity: Identity) -> None:
    domain = await identity.made("domains", name="realm", description="of tests")
    assert domain["enabled"] is True and domain["options"] == {} and domain["tags"] == []
    assert domain["links"]["self"].endswith(f"/v3/domains/{domain['id']}")
    top = await identity.made("projects", name="top", domain_id=domain["id"])
    below = await identity.made("projects", name="below", parent_id=top["id"])
    assert (top["parent_id"], below["domain_id"]) == (domain["id"], domain["id"])
    user = await identity.person("ann", "member", f"projects/{below['id']}", domain["id"])
    group = await identity.made("groups", name="crew", domain_id=domain["id"])
    role = await identity.made("roles", name="local", domain_id=domain["id"])
    path = f"/v3/domains/{domain['id']}"
    refused = await identity.call("DELETE", path)
    assert refused.status == 403 and "please disable it first." in refused.json()["error"]["message"]
    await identity.call("PATCH", path, {"domain": {"enabled": False}})
    assert (await identity.call("DELETE", path)).status == 204
    gone = [
        ("domains", domain),
        ("projects", top),
        ("projects", below),
        ("users", user),
        ("groups", group),
        ("roles", role),
    ]
    for collection, item in gone:
        reply = await identity.call("GET", f"/v3/{collection}/{item['id']}")
        assert reply.status == 404
        assert reply.json()["error"]["message"] == f"Could not find {collection[:-1]}: {item['id']}."


async def test_free_attributes_are_kept_and_added_to(identity: Identity) -> None:
    user = await identity.made("users", name="ann", email="ann@test", description="a user", password="secret")
    assert (user["email"], user["description"]) == ("ann@test", "a user")
    assert "password" not in user and "password_hash" not in user and "extra" not in user
    reply = await identity.call("PATCH", f"/v3/users/{user['id']}", {"user": {"email": "new@test", "shoe": 42}})
    changed = reply.json()["user"]
    assert (changed["email"], changed["description"], changed["shoe"]) == ("new@test", "a user", 42)
    shown = (await identity.call("GET", f"/v3/users/{user['id']}")).json()["user"]
    assert shown == changed
    assert (await identity.login("ann")).status == 201


async def test_the_fields_of_a_user_that_only_the_program_writes(identity: Identity) -> None:
    user = await identity.made("users", name="ann", password_hash="$argon2$mine", id="mine", extra={"a": 1})
    assert user["id"] != "mine" and "extra" not in user and "a" not in user
    assert (await identity.login("ann")).status == 401  # there is no password


@pytest.mark.parametrize(
    ("collection", "values"),
    [
        ("users", {"name": "demo"}), ("projects", {"name": "demo"}), ("domains", {"name": "Default"}),
        ("roles", {"name": "member"}), ("groups", {"name": "crew"}),
    ],
)  # fmt: skip
async def test_names_are_unique(identity: Identity, collection: str, values: Any) -> None:
    key = collection[:-1]
    if key == "group":
        await identity.made(collection, **values)
    reply = await identity.call("POST", f"/v3/{collection}", {key: values})
    assert reply.status == 409 and reply.json()["error"]["title"] == "Conflict"
    other = await identity.made(collection, name="other")
    assert (await identity.call("PATCH", f"/v3/{collection}/{other['id']}", {key: values})).status == 409
    if key != "domain":
        realm = await identity.made("domains", name="realm")
        await identity.made(collection, domain_id=realm["id"], **values)


@pytest.mark.parametrize("collection", ["users", "projects", "groups"])
async def test_the_domain_comes_from_the_token_and_stays(identity: Identity, collection: str) -> None:
    key = collection[:-1]
    realm = await identity.made("domains", name="realm")
    assert (await identity.made(collection, name="here"))["domain_id"] == "default"
    await identity.grant("admin", f"domains/{realm['id']}", f"users/{identity.accounts.admin_user_id}")
    token = await identity.token("admin", scope={"domain": {"id": realm["id"]}})
    reply = await identity.call("POST", f"/v3/{collection}", {key: {"name": "there"}}, token=token)
    item = reply.json()[key]
    assert reply.status == 201 and item["domain_id"] == realm["id"]
    system = await identity.token("admin", scope={"system": {"all": True}})
    reply = await identity.call("POST", f"/v3/{collection}", {key: {"name": "anywhere"}}, token=system)
    assert reply.status == 201 and reply.json()[key]["domain_id"] == "default"
    path = f"/v3/{collection}/{item['id']}"
    assert (await identity.call("PATCH", path, {key: {"domain_id": "default"}})).status == 400
    assert (await identity.call("PATCH", path, {key: {"domain_id": realm["id"]}})).status == 200
    nowhere = await identity.call("POST", f"/v3/{collection}", {key: {"name": "x", "domain_id": "none"}})
    assert nowhere.status == (400 if key == "project" else 404)


@pytest.mark.parametrize("name", ["", " ", 7, None, "x" * 256])
@pytest.mark.parametrize("key", ["user", "project", "domain", "group", "role"])
async def test_bad_names_are_400(identity: Identity, key: str, name: Any) -> None:
    assert (await identity.call("POST", f"/v3/{key}s", {key: {"name": name}})).status == 400


async def test_lists_filter_sort_and_page(identity: Identity) -> None:
    made = [await identity.made("users", name=f"user-{n}", enabled=n != 1) for n in range(3)]
    reply = await identity.call("GET", "/v3/users?name__startswith=user-&sort_key=name&sort_dir=desc")
    assert [u["name"] for u in reply.json()["users"]] == ["user-2", "user-1", "user-0"]
    assert reply.json()["links"]["next"] is None and reply.json()["links"]["self"].endswith("sort_dir=desc")
    reply = await identity.call("GET", "/v3/users?name__icontains=USER-&enabled=false")
    assert [u["id"] for u in reply.json()["users"]] == [made[1]["id"]]
    page = (await identity.call("GET", "/v3/users?limit=2&sort_key=name")).json()
    assert [u["name"] for u in page["users"]] == ["admin", "demo"]
    assert page["truncated"] is True and page["links"]["previous"] is None
    path = page["links"]["next"].removeprefix(identity.http.url)
    page = (await identity.call("GET", path)).json()
    assert [u["name"] for u in page["users"]] == ["user-0", "user-1"] and page["truncated"] is True
    page = (await identity.call("GET", page["links"]["next"].removeprefix(identity.http.url))).json()
    assert [u["name"] for u in page["users"]] == ["user-2"]
    assert page["links"]["next"] is None and "truncated" not in page
    page = (await identity.call("GET", "/v3/users?limit=5")).json()
    assert len(page["users"]) == 5 and page["links"]["next"] is None and "truncated" not in page
    enabled = (await identity.call("GET", "/v3/users?enabled")).json()["users"]
    assert {u["name"] for u in enabled} == {"admin", "demo", "user-0", "user-2"}
    assert (await identity.call("GET", "/v3/users?enabled=perhaps")).status == 400
    assert (await identity.call("GET", "/v3/users?limit=many")).status == 400
    assert (await identity.call("GET", "/v3/users?marker=none")).status == 400


async def test_projects_form_trees(identity: Identity) -> None:
    top = await identity.made("projects", name="l1")
    chain = [top]
    for level in range(2, 6):
        chain.append(await identity.made("projects", name=f"l{level}", parent_id=chain[-1]["id"]))
    too_deep = {"project": {"name": "l6", "parent_id": chain[-1]["id"]}}
    assert (await identity.call("POST", "/v3/projects", too_deep)).status == 403
    assert (await identity.call("DELETE", f"/v3/projects/{top['id']}")).status == 403
    path = f"/v3/projects/{chain[2]['id']}"
    shown = (await identity.call("GET", f"{path}?parents_as_list&subtree_as_ids")).json()["project"]
    assert shown["parents"] == []  # the lists hold what the caller has a role on
    assert shown["subtree"] == {chain[3]["id"]: {chain[4]["id"]: None}}
    await identity.grant(
        "admin",
        "OS-INHERIT/domains/default",
        f"users/{identity.accounts.admin_user_id}",
        "PUT",
        "/inherited_to_projects",
    )
    shown = (await identity.call("GET", f"{path}?parents_as_list")).json()["project"]
    assert [p["project"]["name"] for p in shown["parents"]] == ["l2", "l1"]
    shown = (await identity.call("GET", f"{path}?parents_as_ids&subtree_as_list")).json()["project"]
    assert shown["parents"] == {chain[1]["id"]: {top["id"]: {"default": None}}}
    assert [p["project"]["name"] for p in shown["subtree"]] == ["l4", "l5"]
    for both in ("parents_as_list&parents_as_ids", "subtree_as_list&subtree_as_ids"):
        assert (await identity.call("GET", f"{path}?{both}")).status == 400
    assert (await identity.call("GET", f"{path}?parents_as_list&parents_as_ids=0")).status == 200
    assert (await identity.call("PATCH", path, {"project": {"parent_id": top["id"]}})).status == 403
    assert (await identity.call("POST", "/v3/projects", {"project": {"name": "x", "parent_id": "none"}})).status == 400


async def test_a_project_that_is_a_domain(identity: Identity) -> None:
    project = await identity.made("projects", name="realm", is_domain=True, domain_id=None)
    assert project["domain_id"] is None and project["parent_id"] is None and project["is_domain"] is True
    assert (await identity.call("GET", f"/v3/domains/{project['id']}")).json()["domain"]["name"] == "realm"
    listed = (await identity.call("GET", "/v3/projects?is_domain=true")).json()["projects"]
    assert {p["name"] for p in listed} == {"Default", "realm"}
    listed = (await identity.call("GET", "/v3/projects")).json()["projects"]
    assert {p["name"] for p in listed} == {"admin", "demo", "service"}
    assert (await identity.call("DELETE", f"/v3/projects/{project['id']}")).status == 403


async def test_project_tags(identity: Identity) -> None:
    project = await identity.made("projects", name="work", tags=["one"])
    path = f"/v3/projects/{project['id']}/tags"
    assert (await identity.call("PUT", f"{path}/two")).status == 201
    assert (await identity.call("GET", path)).json()["tags"] == ["one", "two"]
    assert (await identity.call("HEAD", f"{path}/two")).status == 204
    assert (await identity.call("GET", f"{path}/three")).status == 404
    found = (await identity.call("GET", "/v3/projects?tags=one,two")).json()["projects"]
    assert [p["id"] for p in found] == [project["id"]]
    assert (await identity.call("GET", "/v3/projects?tags=one,three")).json()["projects"] == []
    assert (await identity.call("PUT", path, {"tags": ["x"]})).json()["tags"] == ["x"]
    assert (await identity.call("PUT", path, {"tags": ["a,b"]})).status == 400
    assert (await identity.call("DELETE", f"{path}/x")).status == 204
    assert (await identity.call("DELETE", f"{path}/x")).status == 404
    assert (await identity.call("DELETE", path)).status == 204


async def test_a_removed_project_is_nobodys_default(identity: Identity) -> None:
    project = await identity.made("projects", name="work")
    user = await identity.made("users", name="ann", password="secret", default_project_id=project["id"])
    await identity.grant("member", f"projects/{project['id']}", f"users/{user['id']}")
    token = await identity.token("ann")
    assert (await identity.call("DELETE", f"/v3/projects/{project['id']}")).status == 204
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    assert (await identity.call("GET", f"/v3/users/{user['id']}")).json()["user"]["default_project_id"] is None


async def test_groups_hold_users_and_their_roles(identity: Identity) -> None:
    group = await identity.made("groups", name="crew")
    user = await identity.made("users", name="ann", password="secret")
    member = f"/v3/groups/{group['id']}/users/{user['id']}"
    await identity.grant("member", f"projects/{identity.accounts.demo_project_id}", f"groups/{group['id']}")
    assert (await identity.login("ann", scope="demo")).status == 401
    assert (await identity.call("HEAD", member)).status == 404
    assert (await identity.call("PUT", member)).status == 204
    assert (await identity.call("PUT", member)).status == 204
    assert (await identity.call("HEAD", member)).status == 204
    token = await identity.token("ann", scope="demo")
    listed = await identity.call("GET", f"/v3/groups/{group['id']}/users")
    assert [u["id"] for u in listed.json()["users"]] == [user["id"]]
    own = await identity.call("GET", f"/v3/users/{user['id']}/groups", token=token)
    assert [g["id"] for g in own.json()["groups"]] == [group["id"]]
    projects = await identity.call("GET", f"/v3/users/{user['id']}/projects", token=token)
    assert [p["name"] for p in projects.json()["projects"]] == ["demo"]
    assert (await identity.call("DELETE", member)).status == 204
    assert (await identity.call("DELETE", member)).status == 404
    assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 401
    assert (await identity.call("PUT", f"/v3/groups/none/users/{user['id']}")).status == 404
    assert (await identity.call("PUT", f"/v3/groups/{group['id']}/users/none")).status == 404


async def test_implied_roles(identity: Identity) -> None:
    listed = (await identity.call("GET", "/v3/role_inferences")).json()["role_inferences"]
    assert {r["prior_role"]["name"]: [i["name"] for i in r["implies"]] for r in listed} == {
        "admin": ["manager"], "manager": ["member"], "member": ["reader"],
    }  # fmt: skip
    chief, helper = await identity.made("roles", name="chief"), await identity.made("roles", name="helper")
    path = f"/v3/roles/{chief['id']}/implies"
    assert (await identity.call("PUT", f"{path}/{helper['id']}")).status == 201
    assert (await identity.call("HEAD", f"{path}/{helper['id']}")).status == 204
    shown = (await identity.call("GET", path)).json()["role_inference"]
    assert [r["name"] for r in shown["implies"]] == ["helper"]
    await identity.person("ann", "chief", f"projects/{identity.accounts.demo_project_id}")
    token = await identity.token("ann", scope="demo")
    assert (await identity.runtime.authenticate(token)).roles == {"chief", "helper"}
    assert (await identity.call("DELETE", f"{path}/{helper['id']}")).status == 204
    assert (await identity.runtime.authenticate(token)).roles == {"chief"}
    assert (await identity.call("DELETE", f"{path}/{helper['id']}")).status == 404
    assert (await identity.call("PUT", f"{path}/{chief['id']}")).status == 400
    assert (await identity.call("PUT", f"{path}/{await identity.role('admin')}")).status == 403
    assert (await identity.call("PUT", f"{path}/none")).status == 404


async def test_roles_of_a_domain_count_for_what_they_imply_only(identity: Identity) -> None:
    realm = await identity.made("domains", name="realm")
    project = await identity.made("projects", name="work", domain_id=realm["id"])
    local = await identity.made("roles", name="local", domain_id=realm["id"])
    user = await identity.made("users", name="ann", password="secret", domain_id=realm["id"])
    grant = f"/v3/projects/{project['id']}/users/{user['id']}/roles/{local['id']}"
    elsewhere = f"/v3/projects/{identity.accounts.demo_project_id}/users/{user['id']}/roles/{local['id']}"
    assert (await identity.call("PUT", elsewhere)).status == 403
    assert (await identity.call("PUT", grant)).status == 204
    assert (await identity.login("ann", domain=realm["id"], scope="work")).status == 401
    await identity.call("PUT", f"/v3/roles/{local['id']}/implies/{await identity.role('reader')}")
    reply = await identity.login("ann", domain=realm["id"], scope="work")
    assert [r["name"] for r in reply.json()["token"]["roles"]] == ["reader"]
    assert local["id"] not in [r["id"] for r in (await identity.call("GET", "/v3/roles")).json()["roles"]]
    listed = (await identity.call("GET", f"/v3/roles?domain_id={realm['id']}")).json()["roles"]
    assert [r["name"] for r in listed] == ["local"]
