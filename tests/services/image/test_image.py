"""Images over HTTP: their life, their attributes, who sees them, and how they are found."""

from typing import Any

import pytest

from cumulet.core.types import new_id
from tests.harness import Client, Reply

PATCH = "application/openstack-images-v2.1-json-patch"
OLD_PATCH = "application/openstack-images-v2.0-json-patch"


async def make(client: Client, token: str = "member", **body: Any) -> dict[str, Any]:
    reply = await client("POST", "/v2/images", {"name": "x", **body}, token=token)
    assert reply.status == 201, reply.data
    made: dict[str, Any] = reply.json()
    return made


async def patch(
    client: Client, image: dict[str, Any], *changes: Any, token: str = "member", kind: str = PATCH
) -> Reply:
    return await client("PATCH", image["self"], list(changes), token=token, Content_Type=kind)


async def names(client: Client, query: str = "", token: str = "member") -> list[str]:
    reply = await client("GET", f"/v2/images?{query}", token=token)
    assert reply.status == 200, reply.data
    return [image["name"] for image in reply.json()["images"]]


async def test_versions_are_told_to_anybody(client: Client) -> None:
    for path, status in (("/", 300), ("/versions", 200), ("/v2", 300)):
        reply = await client("GET", path, token="nobody")
        assert reply.status == status
        versions = reply.json()["versions"]
        assert [v["status"] for v in versions].count("CURRENT") == 1
        assert versions[0]["links"][0]["href"] == f"{client.url}/v2/"


async def test_schemas_imports_and_stores(client: Client) -> None:
    for name in ("image", "images", "member", "members"):
        schema = (await client("GET", f"/v2/schemas/{name}")).json()
        assert schema["name"] == name and schema["properties"]
    assert (await client("GET", "/v2/schemas/cat")).status == 404
    methods = (await client("GET", "/v2/info/import")).json()["import-methods"]["value"]
    assert methods == ["glance-direct", "web-download", "copy-image", "glance-download"]
    assert (await client("GET", "/v2/info/stores")).status == 404
    assert (await client("GET", "/v2/images/")).status == (await client("DELETE", "/v2/images/")).status == 404


async def test_life(client: Client) -> None:
    body = {
        "name": "x", "disk_format": "raw", "container_format": "bare", "min_ram": 64, "tags": ["a", "b", "a"],
        "os_type": "linux",
    }  # fmt: skip
    reply = await client("POST", "/v2/images", body)
    assert reply.status == 201, reply.data
    image = reply.json()
    assert reply.headers["Location"] == f"/v2/images/{image['id']}" == image["self"]
    assert image["status"] == "queued" and image["visibility"] == "shared" and image["owner"] == "project-demo"
    assert image["tags"] == ["a", "b"] and image["os_type"] == "linux" and image["size"] is None
    assert image["file"] == f"{image['self']}/file" and image["schema"] == "/v2/schemas/image"
    assert (await client("GET", image["self"])).json() == image
    changed = await patch(
        client, image,
        {"op": "replace", "path": "/name", "value": "y"}, {"op": "add", "path": "/arch", "value": "x86"},
        {"op": "remove", "path": "/os_type"}, {"op": "replace", "path": "/tags", "value": ["c"]},
    )  # fmt: skip
    assert changed.status == 200, changed.data
    new = changed.json()
    assert (new["name"], new["arch"], new["tags"]) == ("y", "x86", ["c"]) and "os_type" not in new
    assert (await client("PUT", f"{image['self']}/tags/d")).status == 204
    assert (await client("DELETE", f"{image['self']}/tags/c")).status == 204
    assert (await client("DELETE", f"{image['self']}/tags/c")).status == 404
    assert (await client("GET", image["self"])).json()["tags"] == ["d"]
    assert (await patch(client, image, {"op": "replace", "path": "/protected", "value": True})).status == 200
    assert (await client("DELETE", image["self"])).status == 403
    assert (await patch(client, image, {"op": "replace", "path": "/protected", "value": False})).status == 200
    assert (await client("DELETE", image["self"])).status == 204
    assert (await client("GET", image["self"])).status == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x" * 256}, 400), ({"visibility": "secret"}, 400), ({"disk_format": "zip"}, 400), ({"min_ram": -1}, 400),
        ({"min_disk": 2**70}, 400), ({"tags": "a"}, 400), ({"tags": ["x" * 256]}, 400), ({"id": "x"}, 400),
        ({"custom": 5}, 400),
        ({"c" * 256: "x"}, 400), ({"status": "active"}, 403), ({"size": 5}, 403), ({"file": "x"}, 403), ({"deleted": "x"}, 403),
        ({"os_glance_x": "x"}, 403), ({"visibility": "public"}, 403), ({"owner": "project-other"}, 403), ([], 400),
    ],
)  # fmt: skip
async def test_bad_bodies(client: Client, body: Any, status: int) -> None:
    reply = await client("POST", "/v2/images", body)
    assert reply.status == status, reply.data
    assert reply.json()["message"]


async def test_an_id_is_taken_once(client: Client) -> None:
    image = await make(client, id=new_id())
    assert (await client("POST", "/v2/images", {"id": image["id"]})).status == 409


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"op": "replace", "path": "/id", "value": "x"}, 403), ({"op": "replace", "path": "/checksum", "value": "x"}, 403),
        ({"op": "add", "path": "/locations/-", "value": {"url": "file:///etc/shadow"}}, 403),
        ({"op": "replace", "path": "/owner", "value": "project-other"}, 403), ({"op": "remove", "path": "/name"}, 403),
        ({"op": "remove", "path": "/nothing"}, 409), ({"op": "replace", "path": "/nothing", "value": "x"}, 409),
        ({"op": "move", "path": "/name"}, 400), ({"path": "/name"}, 400), ({"op": "add"}, 400), ({"op": "add",
        "path": "/a"}, 400),
        ({"op": "add", "path": "a", "value": "x"}, 400), ({"op": "add", "path": "/a/b", "value": "x"}, 400),
        ({"op": "add", "path": "/a~2", "value": "x"}, 400), ({"op": "add", "path": "/", "value": "x"}, 400), (5, 400),
        ({"op": "add", "path": 5, "value": "x"}, 400), ({"op": ["add"], "path": "/a", "value": "x"}, 400),
        ({"op": "replace", "path": "/min_ram", "value": "much"}, 400), ({"op": "add", "path": "/a", "value": {}}, 400),
        ({"op": "replace", "path": "/visibility", "value": "public"}, 403),
    ],
)  # fmt: skip
async def test_bad_patches(client: Client, change: Any, status: int) -> None:
    image = await make(client)
    reply = await patch(client, image, change)
    assert reply.status == status, reply.data
    assert (await client("GET", image["self"])).json() == image


async def test_patch_media_types(client: Client) -> None:
    image = await make(client, color="red")
    refused = await client("PATCH", image["self"], [])
    assert refused.status == 415 and PATCH in refused.headers["Accept-Patch"]
    assert (await patch(client, image, {"replace": "/name", "value": "z"}, kind=OLD_PATCH)).json()["name"] == "z"
    assert (await patch(client, image, {"add": "/color", "value": "z"}, kind=OLD_PATCH)).status == 409
    assert (await patch(client, image, {"add": "/a", "remove": "/b"}, kind=OLD_PATCH)).status == 400
    escaped = {"op": "add", "path": "/a~1b~0c", "value": "x"}
    new = (await patch(client, image, escaped)).json()
    assert new["a/b~c"] == "x" and new["color"] == "red", "what a patch does not name stays"


@pytest.mark.parametrize("name", ["stores", "os_glance_failed_import", "os_glance_importing_to_stores"])
async def test_what_is_only_told_cannot_be_changed(client: Client, name: str) -> None:
    """But asking to have it removed, as openstacksdk does of what it does not know, does no harm."""
    image = await make(client)
    for op in ("add", "replace"):
        assert (await patch(client, image, {"op": op, "path": f"/{name}", "value": "x"})).status == 403
    rename = {"op": "replace", "path": "/name", "value": "new"}
    reply = await patch(client, image, {"op": "remove", "path": f"/{name}"}, rename)
    assert reply.status == 200 and reply.json()["name"] == "new"
    assert (await patch(client, image, {"remove": f"/{name}"}, kind=OLD_PATCH)).status == 200
    assert (await patch(client, image, {"op": "remove", "path": "/os_glance_other"})).status == 403


async def test_lists_are_filtered(client: Client) -> None:
    await make(client, name="one", disk_format="raw", tags=["red", "big"], kind="a")
    await make(client, name="two, three", disk_format="qcow2", tags=["red"], kind="b", protected=True)
    await make(client, name="hidden", os_hidden=True)
    both = ["two, three", "one"]
    for query, wanted in {
        "": both, "name=one": ["one"], 'name=in:one,"two, three"': both, "disk_format=in:raw,vmdk": ["one"],
        "tag=red": both, "tag=red&tag=big": ["one"], "tag=,": [], "kind=b": ["two, three"], "kind=x": [],
        "protected=true": ["two, three"], "os_hidden=true": ["hidden"], "status=queued": both, "owner=project-other": [],
        "size_min=1": [], "created_at=gt:2020-01-01T00:00:00Z": both, "created_at=lt:2020-01-01T00:00:00Z": [],
        "visibility=private": [], "visibility=all": both, "sort_key=name&sort_dir=asc": ["one", "two, three"],
        "sort=name:asc": ["one", "two, three"], "limit=1": ["two, three"],
    }.items():  # fmt: skip
        assert await names(client, query) == wanted, query
    for query in (
        "visibility=x", "protected=x", "size_min=x", "size_max=99999999999999999999", "sort_key=owner", "sort_key=x",
        "sort_dir=x&sort_key=name", "sort=name&sort_key=name", "limit=x", "limit=-1", "member_status=x", "changes-since=1",
        'name=in:"a', "created_at=x", f"marker={new_id()}",
    ):  # fmt: skip
        assert (await client("GET", f"/v2/images?{query}")).status == 400, query


async def test_lists_are_compared_with(client: Client) -> None:
    for name, size in (("none", 0), ("small", 10), ("large", 1000)):
        image = await make(client, name=name, disk_format="raw", container_format="bare", min_ram=size, min_disk=1)
        if size:
            await client("PUT", image["file"], data=bytes([1] * size), Content_Type="application/octet-stream")
    await make(client, name="a:b", min_disk=2)
    everything = ["a:b", "large", "none", "small"]
    for query, wanted in {
        "size=gt:10": ["large"], "size=gte:10": ["large", "small"], "size=lt:1000": ["small"], "size=lte:10": ["small"],
        "size=10": ["small"], "size=eq:10": ["small"], "size=neq:10": ["a:b", "large", "none"], "size_min=10&size_max=10":
        ["small"], "min_ram_max=10": ["a:b", "none", "small"], "min_disk_min=2": ["a:b"], "min_ram=gte:1000": ["large"],
        "updated_at=gte:2020-01-01T00:00:00Z": everything, "created_at=neq:2020-01-01T00:00:00Z": everything,
        "created_at=2020-01-01T00:00:00Z": [], "created_at=eq:2020-01-01T00:00:00Z": [], "updated_at=lte:2020-01-01": [],
        "name=eq:small": ["small"], 'name=in:"a:b",small': ["a:b", "small"], "status=in:active,saving": ["large", "small"],
        "container_format=in:bare": ["large", "none", "small"], "name=2020-01-01T10:00:00": [],
        "sort_key=min_disk": None, "sort=size:desc,name:asc&limit=2": ["large", "small"],
        "sort_key=status&sort_dir=asc&sort_key=name&sort_dir=desc": everything,
    }.items():  # fmt: skip
        if wanted is None:
            assert (await client("GET", f"/v2/images?{query}")).status == 400, query
        else:
            assert sorted(await names(client, query)) == wanted, query
    assert await names(client, "sort_key=status&sort_dir=asc&sort_key=name&sort_dir=desc") == [
        "small",
        "large",
        "none",
        "a:b",
    ]
    assert await names(client, "sort=status:asc,name") == ["small", "large", "none", "a:b"]
    for query in ("name=a:b", "status=gt:active", "size=gt:x", "sort_dir=up", "size=gt:-1"):
        assert (await client("GET", f"/v2/images?{query}")).status == 400, query


async def test_what_a_patch_may_and_may_not(client: Client) -> None:
    image = await make(client, visibility="community")
    assert (await patch(client, image, token="reader")).status == 200, "nothing is changed"
    change = {"op": "replace", "path": "/name", "value": "y"}
    assert (await patch(client, image, change, token="reader")).status == 403
    assert (await patch(client, image, change, token="other")).status == 403
    private = await make(client, visibility="private")
    assert (await patch(client, private, change, token="other")).status == 404
    assert (await client("DELETE", private["self"], token="other")).status == 404
    assert (await client("POST", f"{private['self']}/actions/deactivate", token="reader")).status == 403
    public = await make(client, "admin", visibility="public", owner="project-demo")
    same = {"op": "replace", "path": "/visibility", "value": "public"}
    assert (await patch(client, public, same)).status == 403, "whoever says so has to be one who may"
    assert (await patch(client, public, change)).status == 200, "the owner may change the rest"
    assert (
        (await client("POST", "/v2/images", {"owner": "project-other"})).json()["message"].endswith("'project-other'.")
    )
    for pointer, status in (("/locations", 400), ("/locations/0/1", 400), ("/tags/-", 400)):
        reply = await patch(client, private, {"op": "add", "path": pointer, "value": "x"})
        assert reply.status == status, (pointer, reply.data)


async def test_lists_are_paged(client: Client) -> None:
    for number in range(5):
        image = await make(client, name=f"i{number}", disk_format="raw", container_format="bare")
        if number % 2:  # the others have no size
            await client("PUT", image["file"], data=bytes([1] * number), Content_Type="application/octet-stream")
    for sorting in ("sort_key=name&sort_dir=asc", "sort_key=size", "sort=size:asc", "sort=created_at:asc"):
        page, found = f"/v2/images?limit=2&{sorting}", []
        while page:
            reply = (await client("GET", page)).json()
            assert len(reply["images"]) <= 2
            found += [image["name"] for image in reply["images"]]
            page = reply.get("next", "")
        assert sorted(found) == [f"i{number}" for number in range(5)], sorting


async def test_who_may(client: Client) -> None:
    image = await make(client, visibility="private")
    changes = [{"op": "replace", "path": "/name", "value": "n"}]
    for token, show, change in (
        ("admin", 200, 200), ("manager", 200, 200), ("member", 200, 200), ("reader", 200, 403), ("other", 404, 404),
        ("nobody", 401, 401),
    ):  # fmt: skip
        assert (await client("GET", image["self"], token=token)).status == show, token
        assert (await patch(client, image, *changes, token=token)).status == change, token
        assert (await client("PUT", f"{image['self']}/tags/t", token=token)).status in (change, 204), token
    assert (await client("POST", "/v2/images", {}, token="reader")).status == 403
    assert (await client("POST", "/v2/images", {}, token="nobody")).status == 401
    for token, status in (("reader", 403), ("other", 404), ("nobody", 401), ("manager", 204)):
        assert (await client("DELETE", image["self"], token=token)).status == status, token


async def test_visibility(client: Client) -> None:
    await make(client, name="own", visibility="private")
    community = await make(client, name="community", visibility="community")
    public = await make(client, "admin", name="public", visibility="public")
    assert await names(client, token="other") == ["public"]
    assert await names(client, "visibility=community", token="other") == ["community"]
    assert await names(client) == ["public", "community", "own"]
    assert await names(client, token="admin") == ["public", "own"]
    assert (await client("GET", community["self"], token="other")).status == 200
    assert (await patch(client, public, {"op": "add", "path": "/a", "value": "x"})).status == 403
    assert (await client("DELETE", public["self"])).status == 403
    assert (await patch(client, community, {"op": "replace", "path": "/visibility", "value": "private"})).status == 200
    assert (await client("GET", community["self"], token="other")).status == 404


async def test_members(client: Client) -> None:
    image = await make(client, name="shared")
    path = f"{image['self']}/members"
    assert (await client("GET", image["self"], token="other")).status == 404
    assert (await client("POST", path, {"member": "project-other"}, token="reader")).status == 403
    made = await client("POST", path, {"member": "project-other"})
    assert made.status == 200 and made.json()["status"] == "pending"
    assert (await client("POST", path, {"member": "project-other"})).status == 409
    assert (await client("POST", path, {})).status == 400
    one = f"{path}/project-other"
    assert (await client("GET", image["self"], token="other")).status == 200
    assert await names(client, token="other") == []
    assert await names(client, "member_status=pending", token="other") == ["shared"]
    assert (await client("PUT", one, {"status": "accepted"})).status == 403
    assert (await client("PUT", one, {"status": "x"}, token="other")).status == 400
    assert (await client("PUT", one, {"status": "accepted"}, token="other")).json()["status"] == "accepted"
    assert await names(client, token="other") == ["shared"]
    assert [m["member_id"] for m in (await client("GET", path, token="other")).json()["members"]] == ["project-other"]
    assert (await client("GET", one, token="reader")).status == 200
    assert (await client("POST", path, {"member": "project-x"}, token="other")).status == 403
    assert (await client("DELETE", one, token="other")).status == 403
    assert (await client("DELETE", one)).status == 204
    assert (await client("DELETE", one)).status == 404
    assert await names(client, token="other") == []
    private = await make(client, visibility="private")
    assert (await client("POST", f"{private['self']}/members", {"member": "p"})).status == 403
