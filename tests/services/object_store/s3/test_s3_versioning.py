"""Versions of objects, with boto3."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from cumulet.services.object_store.s3.errors import S3Error
from tests.services.object_store.s3.conftest import S3Cloud
from tests.services.object_store.s3.test_s3_bucket import code, keys


@pytest.fixture
def versioned(client: Any, bucket: str) -> str:
    assert "Status" not in client.get_bucket_versioning(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    return bucket


def put(client: Any, bucket: str, data: bytes, key: str = "key") -> str:
    return str(client.put_object(Bucket=bucket, Key=key, Body=data)["VersionId"])


def test_versions_are_kept_and_deleted(client: Any, versioned: str) -> None:
    one, two = put(client, versioned, b"one"), put(client, versioned, b"two")
    assert client.get_object(Bucket=versioned, Key="key")["Body"].read() == b"two"
    assert client.get_object(Bucket=versioned, Key="key", VersionId=one)["Body"].read() == b"one"
    marker = client.delete_object(Bucket=versioned, Key="key")
    assert marker["DeleteMarker"]
    with pytest.raises(ClientError) as refused:
        client.get_object(Bucket=versioned, Key="key")
    assert code(refused) == "NoSuchKey"
    found = client.list_object_versions(Bucket=versioned)
    assert [(each["VersionId"], each["IsLatest"]) for each in found["Versions"]] == [(two, False), (one, False)]
    assert [each["VersionId"] for each in found["DeleteMarkers"]] == [marker["VersionId"]]
    client.delete_object(Bucket=versioned, Key="key", VersionId=marker["VersionId"])
    assert client.get_object(Bucket=versioned, Key="key")["Body"].read() == b"two"  # it is the latest again
    client.delete_object(Bucket=versioned, Key="key", VersionId=two)
    assert client.get_object(Bucket=versioned, Key="key")["Body"].read() == b"one"
    with pytest.raises(ClientError) as refused:
        client.get_object(Bucket=versioned, Key="key", VersionId=two)
    assert code(refused) in ("NoSuchVersion", "NoSuchKey")


def test_a_delete_that_was_cut_off_is_made_again(client: Any, versioned: str) -> None:
    one, two = put(client, versioned, b"one"), put(client, versioned, b"two")

    async def never(*_: Any) -> None:
        raise S3Error("InternalError")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cumulet.services.object_store.s3.object._restore", never)
        with pytest.raises(ClientError):
            client.delete_object(Bucket=versioned, Key="key", VersionId=two)
    client.delete_object(Bucket=versioned, Key="key", VersionId=two)
    assert client.get_object(Bucket=versioned, Key="key")["VersionId"] == one
    client.delete_object(Bucket=versioned, Key="key")
    client.delete_object(Bucket=versioned, Key="key", VersionId=two)  # the last that was said is that it is gone
    with pytest.raises(ClientError) as refused:
        client.get_object(Bucket=versioned, Key="key")
    assert code(refused) == "NoSuchKey"


def test_pages_of_versions(client: Any, versioned: str) -> None:
    made = [put(client, versioned, b"x", key) for key in ("a", "b", "a", "b", "c")]
    pages = client.get_paginator("list_object_versions").paginate(Bucket=versioned, PaginationConfig={"PageSize": 2})
    found = [(each["Key"], each["VersionId"]) for page in pages for each in page.get("Versions", [])]
    assert found == [("a", made[2]), ("a", made[0]), ("b", made[3]), ("b", made[1]), ("c", made[4])]
    with pytest.raises(ClientError) as refused:
        client.list_object_versions(Bucket=versioned, VersionIdMarker=made[0])
    assert code(refused) == "InvalidArgument"


def test_a_bucket_that_keeps_no_more_versions(client: Any, versioned: str) -> None:
    one = put(client, versioned, b"one")
    client.put_bucket_versioning(Bucket=versioned, VersioningConfiguration={"Status": "Suspended"})
    assert client.get_bucket_versioning(Bucket=versioned)["Status"] == "Suspended"
    for data in (b"two", b"three"):
        client.put_object(Bucket=versioned, Key="key", Body=data)
    found = client.list_object_versions(Bucket=versioned)["Versions"]
    assert [each["VersionId"] for each in found] == ["null", one]
    assert client.get_object(Bucket=versioned, Key="key", VersionId="null")["Body"].read() == b"three"
    for wrong in ("Enabling", ""):
        with pytest.raises(ClientError) as refused:
            client.put_bucket_versioning(Bucket=versioned, VersioningConfiguration={"Status": wrong})
        assert code(refused) == "MalformedXML"


def test_an_old_version_is_copied(client: Any, versioned: str) -> None:
    one = put(client, versioned, b"one")
    put(client, versioned, b"two")
    source = {"Bucket": versioned, "Key": "key", "VersionId": one}
    copied = client.copy_object(Bucket=versioned, Key="key", CopySource=source)
    assert copied["CopySourceVersionId"] == one
    assert client.get_object(Bucket=versioned, Key="key")["Body"].read() == b"one"


def test_many_versions_are_deleted_at_once(client: Any, versioned: str) -> None:
    for data in (b"1", b"2", b"3"):
        put(client, versioned, data)
    with pytest.raises(ClientError) as refused:
        client.delete_bucket(Bucket=versioned)
    assert code(refused) == "BucketNotEmpty"
    client.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "key"}]})
    assert keys(client.list_objects(Bucket=versioned)) == []
    found = client.list_object_versions(Bucket=versioned)
    wanted = [
        {"Key": each["Key"], "VersionId": each["VersionId"]} for each in found["Versions"] + found["DeleteMarkers"]
    ]
    assert len(wanted) == 4
    told = client.delete_objects(Bucket=versioned, Delete={"Objects": wanted})
    assert {each["VersionId"] for each in told["Deleted"]} == {each["VersionId"] for each in wanted}
    assert "Versions" not in client.list_object_versions(Bucket=versioned)
    client.delete_bucket(Bucket=versioned)


def test_an_upload_in_parts_is_a_version(client: Any, versioned: str, s3: S3Cloud) -> None:
    one = put(client, versioned, b"one")
    upload = client.create_multipart_upload(Bucket=versioned, Key="key")["UploadId"]
    names = {"Bucket": versioned, "Key": "key", "UploadId": upload}
    etag = client.upload_part(**names, PartNumber=1, Body=b"parts")["ETag"]
    done = client.complete_multipart_upload(**names, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    put(client, versioned, b"three")
    assert client.get_object(Bucket=versioned, Key="key", VersionId=done["VersionId"])["Body"].read() == b"parts"
    client.delete_object(Bucket=versioned, Key="key", VersionId=done["VersionId"])
    found = client.list_object_versions(Bucket=versioned)["Versions"]
    assert (len(found), found[1]["VersionId"]) == (2, one)
    s3.expire()
    cloud: Any = s3.cloud.connect("cumulet-demo")
    assert list(cloud.object_store.objects(f"{versioned}+segments")) == []
