"""How each service says no: status, envelope, and the exception that an unmodified SDK makes of it."""

from collections.abc import Callable
from typing import Any

import pytest
from openstack import exceptions

from tests.authz.scene import Scene

SERVICES = {
    "identity": ("/v3/users", "/v3/users/{}"),
    "image": ("/v2/images", "/v2/images/{}"),
    "placement": ("/resource_providers", "/resource_providers/{}"),
    "network": ("/v2.0/networks", "/v2.0/networks/{}"),
    "compute": ("/v2.1/servers", "/v2.1/servers/{}"),
}


@pytest.fixture(scope="module")
def reader(scene: Scene) -> Any:
    return person(scene, "reader")


@pytest.fixture(scope="module")
def stranger(scene: Scene) -> Any:
    return person(scene, "stranger")


def person(scene: Scene, name: str) -> Any:
    project = "elsewhere" if name == "stranger" else "demo"
    auth = {"username": f"scene-{name}", "password": "secret", "project_name": project}
    return scene.cloud.connect(
        "cumulet-demo", auth={**scene.cloud.connect("cumulet-demo").config.config["auth"], **auth}
    )


def envelope(service: str, body: Any) -> tuple[Any, str]:
    """The code and the message of an error, from where the family puts them."""
    if service == "identity":
        return body["error"]["code"], body["error"]["message"]
    if service == "image":
        return int(body["code"].split()[0]), body["message"]
    if service == "placement":
        return body["errors"][0]["status"], body["errors"][0]["detail"]
    if service == "network":
        return body["NeutronError"]["type"], body["NeutronError"]["message"]
    (fault,) = body.values()
    return fault["code"], fault["message"]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "token", [None, "gAAAAA-not-a-token", "é", "a" * 5000], ids=["none", "wrong", "accent", "long"]
)
def test_nobody_is_told_where_to_log_in(scene: Scene, service: str, token: str | None) -> None:
    sent = token.encode() if token is not None else None
    headers = {} if sent is None else {"X-Auth-Token": sent}
    reply = scene.cloud.request("GET", service, SERVICES[service][0], token=None, headers=headers)
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"].startswith("Keystone uri=")
    code, message = envelope(service, reply.json())
    assert code in (401, "HTTPUnauthorized") and "authentication" in message


def test_a_wrong_password(scene: Scene) -> None:
    config = scene.cloud.connect("cumulet-demo").config.config["auth"]
    with pytest.raises(exceptions.SDKException, match="HTTP 401"):
        scene.cloud.connect("cumulet-demo", auth={**config, "password": "wrong"}).authorize()


def test_a_missing_role_is_forbidden(scene: Scene, reader: Any) -> None:
    refused: list[Callable[[], Any]] = [
        lambda: reader.identity.create_project(name="x"),
        lambda: reader.image.create_image(name="x", disk_format="raw", container_format="bare"),
        lambda: reader.network.create_network(name="x"),
        lambda: reader.network.delete_network(scene["network"], ignore_missing=False),
        lambda: reader.compute.delete_server(scene["server"], ignore_missing=False),
        lambda: list(reader.placement.resource_providers()),
    ]
    for call in refused:
        with pytest.raises(exceptions.ForbiddenException) as error:
            call()
        assert error.value.status_code == 403


def test_what_is_anothers_is_not_found(scene: Scene, stranger: Any) -> None:
    hidden: list[Callable[[], Any]] = [
        lambda: stranger.image.get_image(scene["image"]),
        lambda: stranger.network.get_network(scene["network"]),
        lambda: stranger.network.delete_port(scene["port"], ignore_missing=False),
        lambda: stranger.compute.get_server(scene["server"]),
        lambda: stranger.compute.stop_server(scene["server"]),
    ]
    for call in hidden:
        with pytest.raises(exceptions.NotFoundException):
            call()


def test_quotas_are_worded_as_upstream_does(scene: Scene) -> None:
    member = person(scene, "member")
    admin = scene.cloud.connect()
    none = {"instances": 0, "force": True}  # some are there already
    assert admin.compute.put(f"/os-quota-sets/{scene.demo}", json={"quota_set": none}).ok
    assert admin.network.put(f"/quotas/{scene.demo}", json={"quota": {"network": 0}}).ok
    home = scene["home"]
    with pytest.raises(exceptions.ForbiddenException, match="Quota exceeded for instances"):
        member.compute.create_server(name="x", flavor_id=scene.flavor, image_id=scene.image, networks=[{"uuid": home}])
    reply = member.network.post("/networks", json={"network": {"name": "x"}})
    assert (reply.status_code, reply.json()["NeutronError"]["type"]) == (409, "OverQuota")
    with pytest.raises(exceptions.ConflictException, match="Quota exceeded"):
        member.network.create_network(name="x")
