"""Pages of other sites: rules of a bucket, what a browser asks before, and what it is told with a reply."""

from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from tests.services.object_store.s3.conftest import S3Cloud
from tests.services.object_store.s3.test_s3_bucket import code

SITE = "https://app.example.org"
RULES = [
    {
        "AllowedOrigins": ["https://*.example.org"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["x-amz-*", "content-type"],
        "ExposeHeaders": ["ETag", "x-amz-version-id"],
        "MaxAgeSeconds": 300,
        "ID": "app",
    },
    {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]},
]


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"s3_cors_origins": "https://console.example.org"}


def test_rules_are_kept(client: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as refused:
        client.get_bucket_cors(Bucket=bucket)
    assert code(refused) == "NoSuchCORSConfiguration"
    client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    assert client.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES
    client.delete_bucket_cors(Bucket=bucket)
    with pytest.raises(ClientError) as refused:
        client.get_bucket_cors(Bucket=bucket)
    assert code(refused) == "NoSuchCORSConfiguration"


@pytest.mark.parametrize(
    "rule",
    [
        {"AllowedOrigins": ["*"], "AllowedMethods": ["PATCH"]},
        {"AllowedOrigins": ["https://*.*"], "AllowedMethods": ["GET"]},
        {"AllowedOrigins": ["https://" + "x" * 9000], "AllowedMethods": ["GET"]},
    ],
)
def test_rules_that_cannot_be(client: Any, bucket: str, rule: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as refused:
        client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    assert code(refused) == "InvalidRequest"


def asked(url: str, origin: str, method: str = "PUT", headers: str = "") -> requests.Response:
    told = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return requests.options(url, headers=told, timeout=30)


def test_what_a_browser_asks_before_it_uses_a_signed_url(client: Any, bucket: str) -> None:
    client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    url = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "key"})
    reply = asked(url, SITE, headers="X-Amz-Meta-A, Content-Type")
    assert reply.status_code == 200
    assert reply.headers["Access-Control-Allow-Origin"] == SITE
    assert reply.headers["Access-Control-Allow-Headers"] == "x-amz-meta-a, content-type"
    assert reply.headers["Access-Control-Max-Age"] == "300"
    for refused in (asked(url, "https://example.com"), asked(url, SITE, "DELETE"), asked(url, SITE, headers="x-other")):
        assert (refused.status_code, "Access-Control-Allow-Origin" in refused.headers) == (403, False)
    reply = requests.put(url, data=b"data", headers={"Origin": SITE}, timeout=30)
    assert reply.headers["Access-Control-Allow-Origin"] == SITE
    assert reply.headers["Access-Control-Expose-Headers"] == "ETag, x-amz-version-id"
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"})
    reply = requests.get(url, headers={"Origin": "https://elsewhere.example.com"}, timeout=30)
    assert (reply.content, reply.headers["Access-Control-Allow-Origin"]) == (b"data", "*")
    assert "Access-Control-Allow-Origin" not in requests.get(url, timeout=30).headers


def test_what_a_browser_asks_before_it_signs(s3: S3Cloud, client: Any, bucket: str) -> None:
    assert client
    url = f"{s3.endpoint}/{bucket}/key"
    reply = asked(url, "https://console.example.org", headers="authorization, x-amz-date")
    assert (reply.status_code, reply.headers["Access-Control-Allow-Origin"]) == (200, "https://console.example.org")
    assert reply.headers["Access-Control-Allow-Headers"] == "authorization, x-amz-date"
    assert asked(url, "https://other.example.org", headers="authorization").status_code == 401
