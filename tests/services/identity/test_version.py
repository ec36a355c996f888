"""JSON Home documents, and what every path answers to."""

from typing import Any

import pytest

from tests.services.identity.conftest import Identity

BASE = "https://docs.openstack.org/api/openstack-identity/3"


async def home(identity: Identity, path: str, accept: str = "application/json-home") -> Any:
    reply = await identity.http("GET", path, token="nobody", Accept=accept)
    assert reply.status == 200 and reply.headers["Content-Type"] == "application/json-home"
    return reply.json()["resources"]


async def test_a_json_home_document_tells_what_is_where(identity: Identity) -> None:
    resources = await home(identity, "/v3")
    assert resources[f"{BASE}/rel/users"] == {"href": "/users"}
    assert resources[f"{BASE}/rel/implied_role"] == {
        "href-template": "/roles/{prior_role_id}/implies/{implied_role_id}",
        "href-vars": {"prior_role_id": f"{BASE}/param/role_id", "implied_role_id": f"{BASE}/param/role_id"},
    }
    inherited = resources[f"{BASE}/ext/OS-INHERIT/1.0/rel/domain_user_roles_inherited_to_projects"]
    assert inherited["href-template"] == "/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/inherited_to_projects"
    assert resources[f"{BASE}/rel/project_tags"]["href-vars"]["value"] == f"{BASE}/param/tag_value"
    below = await home(identity, "/")
    assert below.keys() == resources.keys()
    assert below[f"{BASE}/rel/users"] == {"href": "/v3/users"}
    assert below[f"{BASE}/rel/role"]["href-template"] == "/v3/roles/{role_id}"


async def test_what_a_json_home_document_names_is_served(identity: Identity) -> None:
    for resource in (await home(identity, "/")).values():
        path = resource.get("href") or resource["href-template"]
        assert (await identity.http("OPTIONS", path, token="nobody")).status == 405, path


@pytest.mark.parametrize(
    ("accept", "is_home"),
    [
        ("application/json-home", True),
        ("application/json", False),
        ("*/*", False),
        ("text/html", False),
        ("application/json;q=0.5, application/json-home", True),
        ("application/json, application/json-home;q=0.8", False),
        ("application/json-home;q=0.8, */*;q=0.1", True),
        ("application/json-home;q=much", False),
    ],
)
async def test_the_document_is_what_the_client_accepts(identity: Identity, accept: str, is_home: bool) -> None:
    reply = await identity.http("GET", "/v3", token="nobody", Accept=accept)
    assert reply.status == 200
    assert reply.headers["Content-Type"] == ("application/json-home" if is_home else "application/json")
    root = await identity.http("GET", "/", token="nobody", Accept=accept)
    assert root.status == (200 if is_home else 300)


async def test_head_is_get_without_a_body_and_slashes_do_not_matter(identity: Identity) -> None:
    for path in ("/v3", "/v3/users", "/v3/projects", "/v3/role_assignments", "/v3/role_inferences", "/v3/auth/catalog"):
        for form in (path, f"{path}/"):
            reply = await identity.call("HEAD", form)
            assert reply.status == 200 and reply.data == b"", form
            assert (await identity.call("GET", form)).status == 200
    nothing = await identity.call("GET", "/v3/nothing")
    assert nothing.status == 404
    assert nothing.json()["error"]["code"] == 404 and nothing.json()["error"]["title"] == "Not Found"
