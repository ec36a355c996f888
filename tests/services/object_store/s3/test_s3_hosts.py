"""Buckets that are named by the host, and names of buckets that are swift's."""

from typing import Any

import pytest
import requests
from botocore.auth import HmacV1Auth, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.services.object_store.s3.conftest import S3Cloud
from tests.services.object_store.s3.test_s3_bucket import keys


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"s3_domains": "s3.example.org", "s3_dns_names": False, "s3_location": "eu-north-9"}


def test_a_bucket_in_the_host(s3: S3Cloud) -> None:
    key = s3.key()
    credentials = Credentials(key["access"], key["secret"])

    def call(method: str, host: str, path: str, data: bytes = b"", version: int = 4) -> requests.Response:
        asked = AWSRequest(method, f"http://{host}{path}", data=data, headers={"Host": host})
        if version == 4:
            S3SigV4Auth(credentials, "s3", "eu-north-9").add_auth(asked)
        else:
            asked.auth_path = f"/{host.partition('.')[0]}{path}"
            HmacV1Auth(credentials, "s3", "eu-north-9").add_auth(asked)
        headers = {**asked.headers, "Host": host}
        return requests.request(method, s3.endpoint + path, data=data, headers=headers, timeout=30)

    host = f"photos.s3.example.org:{s3.endpoint.rpartition(':')[2]}"
    assert call("PUT", host, "/").status_code == 200
    assert call("PUT", host, "/dir/key", b"data").status_code == 200
    for version in (4, 2):
        assert call("GET", host, "/dir/key", version=version).content == b"data"
        assert b"<Key>dir/key</Key>" in call("GET", host, "/", version=version).content
    wrong = call("GET", host.replace("photos", "others"), "/dir/key")
    assert (wrong.status_code, b"NoSuchBucket" in wrong.content) == (404, True)
    client = s3.client(region="eu-north-9")
    assert keys(client.list_objects(Bucket="photos")) == ["dir/key"]
    assert client.get_bucket_location(Bucket="photos")["LocationConstraint"] == "eu-north-9"
    client.create_bucket(Bucket="Capital_Letters")
    assert "Capital_Letters" in [one["Name"] for one in client.list_buckets()["Buckets"]]
    with pytest.raises(client.exceptions.ClientError) as refused:
        s3.client(region="us-east-1").list_buckets()
    assert refused.value.response["Error"]["Code"] == "AuthorizationHeaderMalformed"
