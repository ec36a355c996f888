"""Temporary URLs, forms, quotas, expiry and encryption through the clients that people use: openstacksdk and swiftclient."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import swiftclient.client
import swiftclient.utils

from tests.cloud import InProcessCloud

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessCloud]:
    cloud = InProcessCloud(
        tmp_path_factory.mktemp("edges") / "data", object_encryption=True, object_reseller_admin_roles="admin"
    )
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def demo(cloud: InProcessCloud) -> Any:
    """The SDK as a member of demo, who has a container with an object."""
    demo = cloud.connect("cumulet-demo")
    demo.object_store.set_account_temp_url_key("a key")
    demo.object_store.create_container("c")
    demo.object_store.upload_object("c", "o", data=b"data")
    return demo


def root(demo: Any) -> str:
    return str(demo.object_store.get_endpoint()).split("/v1/")[0]


def path(demo: Any, name: str) -> str:
    return "/v1/" + str(demo.object_store.get_endpoint()).split("/v1/")[1] + "/" + name


@pytest.mark.parametrize("more", [{}, {"iso8601": True}, {"ip_range": "127.0.0.0/8"}, {"prefix": True}])
def test_temporary_urls_of_the_sdk(demo: Any, more: dict[str, Any]) -> None:
    url = demo.object_store.generate_temp_url(path(demo, "c/o"), 600, "GET", **more)
    assert requests.get(root(demo) + url, timeout=30).content == b"data"
    assert requests.put(root(demo) + url, data=b"x", timeout=30).status_code == 401


def test_metadata_are_named_by_any_printable_characters(demo: Any) -> None:
    account = swiftclient.client.Connection(
        session=demo.session, auth_version="3", os_options={"endpoint_type": "public"}
    )
    names = {f"a{sign}b": sign for sign in "!\"#$%&'()*+,-./;<=>?@[\\]^`{|}~"}
    for kind, post, show in (
        ("account", account.post_account, account.head_account),
        ("container", lambda headers: account.post_container("c", headers), lambda: account.head_container("c")),
        ("object", lambda headers: account.post_object("c", "o", headers), lambda: account.head_object("c", "o")),
    ):
        told = {f"x-{kind}-meta-{name}": value for name, value in names.items()}
        post(headers=told)
        assert told.items() <= show().items()


@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_temporary_urls_of_swiftclient(demo: Any, digest: str) -> None:
    url = swiftclient.utils.generate_temp_url(path(demo, "c/o"), 600, "a key", "PUT", digest=digest)
    assert requests.put(root(demo) + url, data=b"data", timeout=30).status_code == 201
    assert demo.object_store.download_object("o", container="c") == b"data"


def test_forms_of_the_sdk(demo: Any) -> None:
    expires, signature = demo.object_store.generate_form_signature("c", "up/", "", 100, 1, 600)
    fields = {"redirect": "", "max_file_size": 100, "max_file_count": 1, "expires": expires, "signature": signature}
    files = {"file": ("a b.txt", b"uploaded", "text/plain")}
    reply = requests.post(root(demo) + path(demo, "c/up/"), data=fields, files=files, timeout=30)
    assert reply.status_code == 201, reply.text
    assert demo.object_store.download_object("up/a b.txt", container="c") == b"uploaded"


def test_quotas_by_swiftclient(cloud: InProcessCloud, demo: Any) -> None:
    url, token = demo.object_store.get_endpoint(), demo.auth_token
    swiftclient.client.post_account(url, cloud.token(), {"X-Account-Quota-Bytes": "1000"})
    assert swiftclient.client.head_account(url, token)["x-account-quota-bytes"] == "1000"
    with pytest.raises(swiftclient.client.ClientException) as refused:
        swiftclient.client.put_object(url, token, "c", "large", b"x" * 1001)
    assert refused.value.http_status == 413
    with pytest.raises(swiftclient.client.ClientException) as refused:
        swiftclient.client.post_account(url, token, {"X-Account-Quota-Bytes": "9999"})
    assert refused.value.http_status == 403
    swiftclient.client.post_account(url, cloud.token(), {"X-Account-Quota-Bytes": ""})
    swiftclient.client.put_object(url, token, "c", "large", b"x" * 1001)


def test_objects_that_go(cloud: InProcessCloud, demo: Any) -> None:
    url, token = demo.object_store.get_endpoint(), demo.auth_token
    swiftclient.client.put_object(url, token, "c", "short", b"x", headers={"X-Delete-After": "1"})
    deadline = time.monotonic() + 60
    while requests.head(f"{url}/c/short", headers={"X-Auth-Token": token}, timeout=30).status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    cloud.call(cloud.program.object_store.expirer.run())
    assert "short" not in [row["name"] for row in swiftclient.client.get_container(url, token, "c")[1]]


def test_a_site(demo: Any) -> None:
    demo.object_store.set_container_metadata("c", read_ACL=".r:*,.rlistings")
    url, token = demo.object_store.get_endpoint(), demo.auth_token
    swiftclient.client.post_container(url, token, "c", {"X-Container-Meta-Web-Listings": "true"})
    page = requests.get(f"{url}/c/", timeout=30)
    assert '<a href="./o">o</a>' in page.text
