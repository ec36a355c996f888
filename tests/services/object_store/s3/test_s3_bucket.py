"""Buckets and what is in them, with boto3."""

import base64
import hashlib
import secrets
from typing import Any

import pytest
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.handlers import validate_bucket_name

from tests.services.object_store.s3.conftest import S3Cloud


def code(refused: pytest.ExceptionInfo[ClientError]) -> str:
    return str(refused.value.response["Error"]["Code"])


def keys(found: dict[str, Any]) -> list[str]:
    return [one["Key"] for one in found.get("Contents", [])]


def test_a_bucket_is_a_container(s3: S3Cloud, client: Any, bucket: str) -> None:
    cloud: Any = s3.cloud.connect("cumulet-demo")
    assert bucket in [one.name for one in cloud.object_store.containers()]
    assert bucket in [one["Name"] for one in client.list_buckets()["Buckets"]]
    client.put_object(Bucket=bucket, Key="by/s3", Body=b"data")
    assert cloud.object_store.download_object("by/s3", container=bucket) == b"data"
    cloud.object_store.upload_object(bucket, "by/swift", data=b"more")
    assert client.get_object(Bucket=bucket, Key="by/swift")["Body"].read() == b"more"
    assert client.list_buckets()["Owner"]["ID"] == "demo:demo"
    assert client.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    assert client.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


def test_making_and_removing_buckets(client: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as refused:
        client.create_bucket(Bucket=bucket)
    assert code(refused) == "BucketAlreadyOwnedByYou"
    client.put_object(Bucket=bucket, Key="key")
    with pytest.raises(ClientError) as refused:
        client.delete_bucket(Bucket=bucket)
    assert code(refused) == "BucketNotEmpty"
    client.delete_object(Bucket=bucket, Key="key")
    client.delete_bucket(Bucket=bucket)
    for call in (client.list_objects, client.delete_bucket, client.get_bucket_versioning, client.get_bucket_acl):
        with pytest.raises(ClientError) as refused:
            call(Bucket=bucket)
        assert code(refused) == "NoSuchBucket"
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="key")
    assert code(refused) == "NoSuchBucket"


@pytest.mark.parametrize("name", ["ab", "Capital", "under_score", "a..b", "192.168.0.1", "dash-.dot", "x" * 64])
def test_names_that_buckets_may_not_have(s3: S3Cloud, name: str) -> None:
    client = s3.client()
    client.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    with pytest.raises(ClientError) as refused:
        client.create_bucket(Bucket=name)
    assert code(refused) == "InvalidBucketName"


def test_where_a_bucket_is_made(client: Any) -> None:
    name = f"bucket-{secrets.token_hex(6)}"
    with pytest.raises(ClientError) as refused:
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "mars"})
    assert code(refused) == "InvalidLocationConstraint"
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-east-1"})


def test_listings(client: Any, bucket: str) -> None:
    names = ["a", "b/1", "b/2", "c d+e", "ä/ü&<>", "z\x0b"]
    for name in names:
        client.put_object(Bucket=bucket, Key=name, Body=name.encode())
    for call in (client.list_objects, client.list_objects_v2):
        assert sorted(keys(call(Bucket=bucket))) == sorted(names)
        assert keys(call(Bucket=bucket, Prefix="b/")) == ["b/1", "b/2"]
        found = call(Bucket=bucket, Delimiter="/")
        assert sorted(one["Prefix"] for one in found["CommonPrefixes"]) == ["b/", "ä/"]
        assert sorted(keys(found)) == ["a", "c d+e", "z\x0b"]
        assert found["Delimiter"] == "/"
    pages = list(client.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}))
    assert [len(page["Contents"]) for page in pages] == [2, 2, 2]
    assert sorted(key for page in pages for key in keys(page)) == sorted(names)
    pages = list(client.get_paginator("list_objects").paginate(Bucket=bucket, PaginationConfig={"PageSize": 4}))
    assert sorted(key for page in pages for key in keys(page)) == sorted(names)
    found = client.list_objects_v2(Bucket=bucket, StartAfter="b/1", MaxKeys=1, FetchOwner=True)
    assert keys(found) == ["b/2"]
    assert found["Contents"][0]["Owner"]["ID"] == "demo:demo"
    assert (found["KeyCount"], found["IsTruncated"]) == (1, True)
    assert client.list_objects_v2(Bucket=bucket, MaxKeys=0).get("Contents") is None


@pytest.mark.parametrize(
    "more",
    [
        {"MaxKeys": -1},
        {"MaxKeys": 2**40},
        {"EncodingType": "base64"},
        {"ContinuationToken": "no base64!"},
    ],
)
def test_listings_that_cannot_be(client: Any, bucket: str, more: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as refused:
        client.list_objects_v2(Bucket=bucket, **more)
    assert code(refused) == "InvalidArgument"


def test_deleting_many(client: Any, bucket: str) -> None:
    for number in range(20):
        client.put_object(Bucket=bucket, Key=f"key {number} & more")
    wanted = [{"Key": f"key {number} & more"} for number in range(0, 22, 2)]
    found = client.delete_objects(Bucket=bucket, Delete={"Objects": wanted})
    assert {one["Key"] for one in found["Deleted"]} == {one["Key"] for one in wanted}
    assert len(keys(client.list_objects(Bucket=bucket))) == 10
    rest = [{"Key": key} for key in keys(client.list_objects(Bucket=bucket))]
    assert "Deleted" not in client.delete_objects(Bucket=bucket, Delete={"Objects": rest, "Quiet": True})
    assert keys(client.list_objects(Bucket=bucket)) == []


ENTITIES = "".join(f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(20))
BOMB = f"<!DOCTYPE x [<!ENTITY a 'ha'>{ENTITIES}]>"


@pytest.mark.parametrize(
    "body",
    [
        "no XML",
        "<Delete>",
        "<Other/>",
        "<Delete/>",
        "<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
        "<Delete><Object><Key><b>a</b></Key></Object></Delete>",
        f"{BOMB}<Delete><Object><Key>&u;</Key></Object></Delete>",
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&e;</Key></Object></Delete>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><Delete><Object><Key>a</Key></Object></Delete>',
        "<Delete>" + "<Object><Key>a</Key></Object>" * 1001 + "</Delete>",
        "<a>" * 100_000,
    ],
)
def test_documents_that_are_not_taken(s3: S3Cloud, bucket: str, body: str) -> None:
    reply = posted(s3, bucket, body)
    assert reply.status_code == 400
    assert "<Code>MalformedXML</Code>" in reply.text
    assert "root:" not in reply.text


def posted(s3: S3Cloud, bucket: str, body: str) -> requests.Response:
    """A POST of a document to /bucket?delete, signed."""
    digest = base64.b64encode(hashlib.md5(body.encode()).digest()).decode()
    asked = AWSRequest("POST", f"{s3.endpoint}/{bucket}?delete", data=body.encode(), headers={"Content-MD5": digest})
    S3SigV4Auth(Credentials(s3.key()["access"], s3.key()["secret"]), "s3", "us-east-1").add_auth(asked)
    return requests.post(asked.url, data=body.encode(), headers=dict(asked.headers), timeout=30)


def test_what_is_not_there_is_refused(client: Any, bucket: str) -> None:
    for call in (
        client.get_bucket_policy,
        client.get_bucket_website,
        client.get_bucket_replication,
        client.get_bucket_notification_configuration,
    ):
        with pytest.raises(ClientError) as refused:
            call(Bucket=bucket)
        assert code(refused) == "NotImplemented"
    assert client.get_bucket_tagging(Bucket=bucket)["TagSet"] == []
    assert "LoggingEnabled" not in client.get_bucket_logging(Bucket=bucket)
    with pytest.raises(ClientError) as refused:
        client.get_object_lock_configuration(Bucket=bucket)
    assert code(refused) == "ObjectLockConfigurationNotFoundError"
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="cold", StorageClass="GLACIER")
    assert code(refused) == "InvalidStorageClass"


# ---- who may do what ----------------------------------------------------------------------------------------------------


def test_roles_say_who_may_do_what(s3: S3Cloud, client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"data")
    reader = s3.client(s3.user("reader", "reader"))
    assert reader.get_object(Bucket=bucket, Key="key")["Body"].read() == b"data"
    assert keys(reader.list_objects(Bucket=bucket)) == ["key"]
    for call in (reader.put_object, reader.delete_object):
        with pytest.raises(ClientError) as refused:
            call(Bucket=bucket, Key="key")
        assert code(refused) == "AccessDenied"
    with pytest.raises(ClientError) as refused:
        reader.create_bucket(Bucket=f"{bucket}-other")
    assert code(refused) == "AccessDenied"
    member = s3.client(s3.user("member", "member"))
    member.put_object(Bucket=bucket, Key="other")
    assert keys(client.list_objects(Bucket=bucket)) == ["key", "other"]
    stranger = s3.client(s3.user("stranger", "member", project="admin"))
    with pytest.raises(ClientError) as refused:
        stranger.get_object(Bucket=bucket, Key="key")  # his project has no such bucket
    assert code(refused) == "NoSuchBucket"


def test_keys_that_are_not_good(s3: S3Cloud, client: Any, bucket: str) -> None:
    key = s3.key()
    for wrong in ({**key, "secret": "wrong"}, {"access": "0" * 32, "secret": key["secret"]}):
        with pytest.raises(ClientError) as refused:
            s3.client(wrong).list_buckets()
        assert code(refused) == "SignatureDoesNotMatch"
    gone = s3.user("gone", "member")
    gone_client = s3.client(gone)
    assert gone_client.list_objects(Bucket=bucket)
    admin: Any = s3.cloud.connect()
    admin.identity.delete(f"/users/{gone['user_id']}/credentials/OS-EC2/{gone['access']}")
    with pytest.raises(ClientError) as refused:
        gone_client.list_objects(Bucket=bucket)
    assert code(refused) == "SignatureDoesNotMatch"
    disabled = s3.user("disabled", "member")
    assert s3.client(disabled).list_objects(Bucket=bucket)
    admin.identity.update_user(disabled["user_id"], is_enabled=False)
    with pytest.raises(ClientError) as refused:
        s3.client(disabled).list_objects(Bucket=bucket)
    assert code(refused) == "SignatureDoesNotMatch"


def test_swifts_acls_are_shown_and_set(s3: S3Cloud, client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"for all")
    account = f"AUTH_{s3.key()['tenant_id']}"
    url = f"{s3.endpoint}/v1/{account}/{bucket}/key"
    assert requests.get(url, timeout=30).status_code == 401
    client.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert requests.get(url, timeout=30).content == b"for all"
    grants = client.get_bucket_acl(Bucket=bucket)["Grants"]
    assert [one["Permission"] for one in grants] == ["FULL_CONTROL", "READ"]
    assert grants[1]["Grantee"]["URI"].endswith("AllUsers")
    client.put_bucket_acl(Bucket=bucket, ACL="private")
    assert requests.get(url, timeout=30).status_code == 401
    owner = {"ID": "demo:demo"}
    group = {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"}
    policy = {"Owner": owner, "Grants": [{"Grantee": group, "Permission": "READ"}]}
    client.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)
    assert requests.get(url, timeout=30).content == b"for all"
    for acl, wanted in (("authenticated-read", "NotImplemented"), ("nonsense", "InvalidArgument")):
        with pytest.raises(ClientError) as refused:
            client.put_bucket_acl(Bucket=bucket, ACL=acl)
        assert code(refused) == wanted
    with pytest.raises(ClientError) as refused:
        client.put_object_acl(Bucket=bucket, Key="key", ACL="private")
    assert code(refused) == "NotImplemented"
