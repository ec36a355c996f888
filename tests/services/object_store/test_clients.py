"""Object storage with the clients that people have: python-swiftclient, and the SDK, with the accounts of a whole cloud."""

import hashlib
import io
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from swiftclient.client import Connection
from swiftclient.exceptions import ClientException
from swiftclient.service import SwiftService, SwiftUploadObject

from tests.cloud import Cloud

MIB = 1 << 20


@pytest.fixture
def swift(cloud: Cloud) -> Iterator[Connection]:
    made = Connection(session=cloud.connect("cumulet-demo").session, os_options={"region_name": "RegionOne"})
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    return f"box-{secrets.token_hex(4)}"


def test_swiftclient(swift: Connection, name: str) -> None:
    swift.put_container(name, headers={"X-Container-Meta-Colour": "red"})
    assert swift.head_container(name)["x-container-meta-colour"] == "red"
    data = secrets.token_bytes(3 * MIB)
    assert swift.put_object(name, "a/thing \u00fc", io.BytesIO(data)) == hashlib.md5(data).hexdigest()
    headers, body = swift.get_object(name, "a/thing \u00fc")
    assert (body, headers["content-length"]) == (data, str(len(data)))
    swift.post_object(name, "a/thing \u00fc", {"X-Object-Meta-Colour": "blue"})
    assert swift.head_object(name, "a/thing \u00fc")["x-object-meta-colour"] == "blue"
    listed = swift.get_container(name, delimiter="/")[1]
    assert listed == [{"subdir": "a/"}]
    assert name in [row["name"] for row in swift.get_account(full_listing=True)[1]]
    with pytest.raises(ClientException) as refused:
        swift.delete_container(name)
    assert refused.value.http_status == 409
    swift.delete_object(name, "a/thing \u00fc")
    swift.delete_container(name)
    assert "tempurl" in swift.get_capabilities()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of one client library that another one uses
def test_segments(cloud: Cloud, name: str, tmp_path: Any) -> None:
    """What `swift upload --segment-size` and `swift download` do."""
    auth = cloud.connect("cumulet-demo").config.get_auth_args()
    options = {
        "auth_version": "3", "os_auth_url": auth["auth_url"], "os_username": auth["username"],
        "os_password": auth["password"], "os_project_name": auth["project_name"], "os_user_domain_id": "default",
        "os_project_domain_id": "default", "segment_size": MIB, "use_slo": True,
    }  # fmt: skip
    data = secrets.token_bytes(5 * MIB + 17)
    with SwiftService(options=options) as service:
        (tmp_path / "big").write_bytes(data)
        wanted = [SwiftUploadObject(str(tmp_path / "big"), object_name="big")]
        for done in service.upload(name, wanted):
            assert done["success"], done
        for done in service.download(name, ["big"], options={"out_file": str(tmp_path / "again")}):
            assert done["success"], done
        assert (tmp_path / "again").read_bytes() == data
        for done in service.delete(name, ["big"]):
            assert done["success"], done
        for box in (f"{name}_segments", name):
            for done in service.delete(box):
                assert done["success"], done


def test_sdk(cloud: Cloud, name: str) -> None:
    connection = cloud.connect("cumulet-demo")
    store = connection.object_store
    store.create_container(name)
    store.upload_object(name, "thing", data=b"hello")
    assert store.download_object("thing", container=name) == b"hello"
    store.set_object_metadata("thing", container=name, colour="red")
    assert store.get_object_metadata("thing", container=name).metadata["colour"] == "red"
    assert [found.name for found in store.objects(name)] == ["thing"]
    assert name in [found.name for found in store.containers()]
    store.delete_object("thing", container=name)
    store.delete_container(name)
    assert store.get_info().swift["max_file_size"] == 5368709122


def test_a_project_made_later_has_an_account(cloud: Cloud, name: str) -> None:
    identity: Any = cloud.connect().identity
    project = identity.create_project(name=name)
    user = identity.create_user(name=name, password="secret", default_project=project.id)
    identity.assign_project_role_to_user(project, user, identity.find_role("member"))
    token = cloud.login(name, "secret", name)
    for method, path in (("PUT", "/box"), ("PUT", "/box/thing"), ("GET", "/box/thing"), ("GET", "")):
        data = b"x" if path.endswith("thing") else b""
        reply = cloud.request(method, "object-store", f"/v1/AUTH_{project.id}{path}", token=token, data=data)
        assert reply.status_code in (200, 201), (method, path, reply.text)
    shown = cloud.request("HEAD", "object-store", f"/v1/AUTH_{project.id}", token=token).headers
    assert (shown["X-Account-Container-Count"], shown["X-Account-Project-Domain-Id"]) == ("1", "default")
