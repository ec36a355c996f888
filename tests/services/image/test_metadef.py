"""Metadata definitions over HTTP: namespaces, their parts, who sees and who changes them."""

from typing import Any

import pytest

from tests.harness import Client, Reply

PATH = "/v2/metadefs/namespaces"


async def make(client: Client, name: str = "blue", **body: Any) -> dict[str, Any]:
    reply = await client("POST", PATH, {"namespace": name, **body}, token="admin")
    assert reply.status == 201, reply.data
    made: dict[str, Any] = reply.json()
    return made


async def ask(client: Client, method: str, path: str, body: Any = None, token: str = "admin", **headers: str) -> Reply:
    return await client(method, f"{PATH}{path}", body, token=token, **headers)


WHOLE: dict[str, Any] = {
    "display_name": "Blue",
    "description": "All that is blue.",
    "visibility": "public",
    "resource_type_associations": [{"name": "OS::Nova::Flavor", "prefix": "hw:"}, {"name": "OS::Glance::Image"}],
    "properties": {"shade": {"title": "Shade", "type": "string", "enum": ["light", "dark"], "default": "dark"}},
    "objects": [
        {"name": "sky", "required": ["hue"], "properties": {"hue": {"title": "Hue", "type": "integer", "minimum": 0}}}
    ],
    "tags": [{"name": "cold"}],
}


async def test_a_namespace_holds_what_it_was_made_with(client: Client) -> None:
    reply = await client("POST", PATH, {"namespace": "blue", **WHOLE}, token="admin")
    assert reply.status == 201, reply.data
    assert reply.headers["Location"] == f"{PATH}/blue"
    shown = (await ask(client, "GET", "/blue", token="reader")).json()
    assert shown["owner"] == "project-admin" and shown["protected"] is False
    assert shown["self"] == f"{PATH}/blue" and shown["schema"] == "/v2/schemas/metadefs/namespace"
    assert shown["properties"] == WHOLE["properties"] and shown["tags"] == WHOLE["tags"]
    (sky,) = shown["objects"]
    assert sky["required"] == ["hue"] and sky["self"] == f"{PATH}/blue/objects/sky" and "description" not in sky
    assert [a["name"] for a in shown["resource_type_associations"]] == ["OS::Glance::Image", "OS::Nova::Flavor"]
    prefixed = (await ask(client, "GET", "/blue?resource_type=OS::Nova::Flavor")).json()
    assert list(prefixed["properties"]) == ["hw:shade"] and prefixed["objects"][0]["required"] == ["hw:hue"]
    assert list(prefixed["objects"][0]["properties"]) == ["hw:hue"]
    found = await ask(client, "GET", "/blue/properties/hw:shade?resource_type=OS::Nova::Flavor")
    assert found.json()["name"] == "shade" and found.json()["default"] == "dark"
    for kind in ("OS::Glance::Image", "OS::Nova::Flavor", "None"):  # no prefix, another one, no association
        assert (await ask(client, "GET", f"/blue/properties/shade?resource_type={kind}")).status == 404


async def test_a_namespace_is_changed_and_renamed_with_its_parts(client: Client) -> None:
    await make(client, **WHOLE)
    changed = await ask(client, "PUT", "/blue", {"namespace": "azure", "description": "new", "visibility": "public"})
    assert changed.status == 200, changed.data
    assert changed.json()["description"] == "new" and "display_name" not in changed.json(), (
        "what is not said is not kept"
    )
    assert (await ask(client, "GET", "/blue")).status == 404
    shown = (await ask(client, "GET", "/azure")).json()
    assert shown["tags"] == WHOLE["tags"] and shown["objects"][0]["name"] == "sky"
    await make(client, "green")
    assert (await ask(client, "PUT", "/azure", {"namespace": "green"})).status == 409
    assert (await ask(client, "DELETE", "/azure")).status == 204
    assert (await ask(client, "GET", "/azure/tags")).status == 404
    assert (await ask(client, "DELETE", "/azure")).status == 404
    await make(client, "azure")
    assert (await ask(client, "GET", "/azure/tags")).json() == {"tags": []}, "nothing was left behind"


async def test_lists_of_namespaces(client: Client) -> None:
    for name in ("c", "a", "b"):
        await make(client, name, visibility="public" if name != "b" else "private", **(
            {"resource_type_associations": [{"name": "OS::Nova::Server"}]} if name == "a" else {}))  # fmt: skip

    async def names(query: str, token: str = "admin") -> list[str]:
        reply = await ask(client, "GET", f"?{query}", token=token)
        assert reply.status == 200, reply.data
        return [n["namespace"] for n in reply.json()["namespaces"]]

    assert await names("") == ["b", "a", "c"]
    assert await names("", "member") == ["a", "c"]
    assert await names("visibility=private") == ["b"]
    assert await names("visibility=private", "member") == []
    assert await names("resource_types=OS::Nova::Server,OS::None") == ["a"]
    assert await names("sort_key=namespace&sort_dir=asc") == ["a", "b", "c"]
    assert await names("sort_key=namespace&sort_dir=asc&marker=a&limit=1") == ["b"]
    first = (await ask(client, "GET", "?limit=2")).json()
    assert first["schema"] == "/v2/schemas/metadefs/namespaces" and first["first"] == f"{PATH}?limit=2"
    assert first["next"] == f"{PATH}?limit=2&marker=a"
    (a,) = (await ask(client, "GET", "?resource_types=OS::Nova::Server")).json()["namespaces"]
    assert [kind["name"] for kind in a["resource_type_associations"]] == ["OS::Nova::Server"]
    for query, status in {
        "visibility=shared": 400, "sort_dir=up": 400, "sort_key=nothing": 400, "limit=x": 400, "limit=-1": 400, "marker=z": 404,
    }.items():  # fmt: skip
        assert (await ask(client, "GET", f"?{query}")).status == status, query
    assert (await ask(client, "GET", "?marker=b", token="member")).status == 404


PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # what makes one, and what changes it
    "objects": ({"name": "sky", "description": "x"}, {"name": "sea", "description": "y"}),
    "properties": (
        {"name": "sky", "title": "Sky", "type": "string"},
        {"name": "sea", "title": "Sea", "type": "integer"},
    ),
}


@pytest.mark.parametrize("kind", PARTS)
async def test_parts(client: Client, kind: str) -> None:
    await make(client, visibility="public")
    body, other = PARTS[kind]
    made = await ask(client, "POST", f"/blue/{kind}", body)
    assert made.status == 201 and made.json()["name"] == "sky", made.data
    assert (await ask(client, "POST", f"/blue/{kind}", body)).status == 409
    assert (await ask(client, "GET", f"/blue/{kind}/sky", token="reader")).json() == made.json()
    listed = (await ask(client, "GET", f"/blue/{kind}")).json()[kind]
    assert "sky" in str(listed)
    assert (await ask(client, "POST", f"/blue/{kind}", other)).status == 201
    assert (await ask(client, "PUT", f"/blue/{kind}/sky", other)).status == 409, "the name is taken"
    assert (await ask(client, "DELETE", f"/blue/{kind}/sea")).status == 204
    changed = await ask(client, "PUT", f"/blue/{kind}/sky", other)
    assert changed.status == 200 and changed.json()["name"] == "sea", changed.data
    assert (await ask(client, "GET", f"/blue/{kind}/sky")).status == 404
    for method, path, sent in (("PUT", "none", other), ("DELETE", "none", None), ("GET", "none", None)):
        assert (await ask(client, method, f"/blue/{kind}/{path}", sent)).status == 404
    for wrong, status in (
        ({**body, "name": "x" * 81}, 400), ({**body, "name": ""}, 400), ({**body, "more": 1}, 400), ({}, 400), ([], 400),
        ({**body, "created_at": "x"}, 403),
    ):  # fmt: skip
        assert (await ask(client, "POST", f"/blue/{kind}", wrong)).status == status, wrong
    assert (await ask(client, "DELETE", f"/blue/{kind}")).status == 204
    assert not (await ask(client, "GET", f"/blue/{kind}")).json()[kind]


async def test_tags(client: Client) -> None:
    await make(client, visibility="public")
    made = await ask(client, "POST", "/blue/tags/one")
    assert made.status == 201 and made.json()["name"] == "one"
    assert (await ask(client, "POST", "/blue/tags/one")).status == 409
    assert (await ask(client, "POST", f"/blue/tags/{'x' * 81}")).status == 400

    async def names(query: str = "") -> list[str]:
        return [tag["name"] for tag in (await ask(client, "GET", f"/blue/tags?{query}")).json()["tags"]]

    two = {"tags": [{"name": "two"}, {"name": "three"}]}
    assert (await ask(client, "POST", "/blue/tags", two, X_Openstack_Append="True")).status == 201
    assert sorted(await names()) == ["one", "three", "two"]
    assert (await ask(client, "POST", "/blue/tags", two, X_Openstack_Append="True")).status == 409
    assert (await ask(client, "POST", "/blue/tags", two)).json() == two
    assert await names("sort_key=name&sort_dir=asc") == ["three", "two"]
    assert await names("sort_key=name&sort_dir=desc&limit=1") == ["two"]
    assert await names("sort_key=name&sort_dir=asc&marker=three") == ["two"]
    for query, status in {
        "sort_key=size": 400,
        "sort_dir=x": 400,
        "limit=0": 400,
        "limit=x": 400,
        "marker=x": 404,
    }.items():
        assert (await ask(client, "GET", f"/blue/tags?{query}")).status == status, query
    twice = {"tags": [{"name": "a"}, {"name": "a"}]}
    assert (await ask(client, "POST", "/blue/tags", twice)).status == 409
    assert (await ask(client, "POST", "/blue/tags", {"tags": [{}]})).status == 400
    assert (await ask(client, "PUT", "/blue/tags/two", {"name": "four"})).json()["name"] == "four"
    assert (await ask(client, "PUT", "/blue/tags/four", {"name": "three"})).status == 409
    assert (await ask(client, "DELETE", "/blue/tags/four")).status == 204
    assert (await ask(client, "DELETE", "/blue/tags")).status == 204
    assert await names() == []


async def test_resource_types(client: Client) -> None:
    await make(client, visibility="public")
    made = await ask(
        client, "POST", "/blue/resource_types", {"name": "OS::Cinder::Volume", "properties_target": "image"}
    )
    assert made.status == 201 and made.json()["properties_target"] == "image" and "prefix" not in made.json()
    assert (await ask(client, "POST", "/blue/resource_types", {"name": "OS::Cinder::Volume"})).status == 409
    assert (await ask(client, "POST", "/blue/resource_types", {"prefix": "x"})).status == 400
    assert (await ask(client, "POST", "/blue/resource_types", {"name": "x", "updated_at": "x"})).status == 403
    listed = (await ask(client, "GET", "/blue/resource_types", token="reader")).json()
    assert listed == {"resource_type_associations": [made.json()]}
    assert (await ask(client, "DELETE", "/blue/resource_types/OS::Cinder::Volume")).status == 204
    assert (await ask(client, "DELETE", "/blue/resource_types/OS::Cinder::Volume")).status == 404
    kinds = (await client("GET", "/v2/metadefs/resource_types", token="reader")).json()["resource_types"]
    assert [kind["name"] for kind in kinds] == ["OS::Cinder::Volume"], "a type stays known"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400), ({"namespace": ""}, 400), ({"namespace": "x" * 81}, 400), ({"namespace": 5}, 400), ([], 400),
        ({"namespace": "x", "visibility": "shared"}, 400), ({"namespace": "x", "description": "x" * 501}, 400),
        ({"namespace": "x", "self": "x"}, 403), ({"namespace": "x", "created_at": "x"}, 403), ({"namespace": "x", "z": 1}, 400),
        ({"namespace": "x", "properties": {"a": {"title": "A"}}}, 400),
        ({"namespace": "x", "properties": {"a": {"title": "A", "type": "cat"}}}, 400),
        ({"namespace": "x", "objects": [{"name": "a"}, {"name": "a"}]}, 409), ({"namespace": "x", "tags": [{}]}, 400),
        ({"namespace": "x", "tags": [{"name": "a"}, {"name": "a"}]}, 409),
    ],
)  # fmt: skip
async def test_bad_namespaces(client: Client, body: Any, status: int) -> None:
    reply = await client("POST", PATH, body, token="admin")
    assert reply.status == status, reply.data
    assert reply.json()["message"]
    assert (await ask(client, "GET", "")).json()["namespaces"] == []


async def test_what_is_protected_stays(client: Client) -> None:
    await make(client, protected=True, **WHOLE)
    for path in ("", "/objects", "/properties", "/tags", "/objects/sky", "/properties/shade", "/tags/cold",
                 "/resource_types/OS::Glance::Image"):  # fmt: skip
        assert (await ask(client, "DELETE", f"/blue{path}")).status == 403, path
    assert (await ask(client, "PUT", "/blue", {"namespace": "blue"})).json()["protected"] is False
    assert (await ask(client, "DELETE", "/blue")).status == 204


async def test_who_may(client: Client) -> None:
    await make(client, "open", **{**WHOLE, "visibility": "public"})
    await make(client, "own", owner="project-demo", tags=[{"name": "cold"}])
    await make(client, "closed", tags=[{"name": "cold"}])
    for token in ("manager", "member", "reader"):
        assert (await ask(client, "POST", "", {"namespace": "x"}, token)).status == 403
        for name, seen, changed in (("open", 200, 403), ("own", 200, 403), ("closed", 404, 404)):
            for path in ("", "/objects", "/properties", "/tags", "/resource_types", "/tags/cold"):
                assert (await ask(client, "GET", f"/{name}{path}", token=token)).status == seen, (token, name, path)
            for method, path, body in (
                ("PUT", "", {"namespace": name}), ("DELETE", "", None), ("POST", "/tags/x", None), ("DELETE", "/tags", None),
                ("POST", "/objects", {"name": "x"}), ("DELETE", "/objects", None), ("DELETE", "/tags/cold", None),
                ("POST", "/properties", {"name": "x", "title": "x", "type": "string"}), ("POST", "/tags", {"tags": []}),
                ("POST", "/resource_types", {"name": "x"}), ("PUT", "/tags/cold", {"name": "x"}),
            ):  # fmt: skip
                reply = await ask(client, method, f"/{name}{path}", body, token)
                assert reply.status == changed, (token, method, name, path, reply.data)
    assert (await ask(client, "GET", "/own", token="other")).status == 404
    for path in ("", "/open", "/open/tags"):
        assert (await ask(client, "GET", path, token="nobody")).status == 401
