"""Uploads in parts and their ends, with boto3: by its single calls, and as its own transfers do it."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from cumulet.services.object_store.s3 import complete
from cumulet.services.object_store.s3.errors import S3Error
from tests.services.object_store.s3.conftest import S3Cloud
from tests.services.object_store.s3.test_s3_bucket import code, keys

MIB = 2**20
FIRST, LAST = os.urandom(5 * MIB), os.urandom(1000)


def begun(client: Any, bucket: str, key: str = "dir/key", **more: Any) -> dict[str, str]:
    """A new upload, as the arguments that name it."""
    upload = client.create_multipart_upload(Bucket=bucket, Key=key, **more)["UploadId"]
    return {"Bucket": bucket, "Key": key, "UploadId": upload}


def part(client: Any, upload: dict[str, str], number: int, data: bytes) -> dict[str, Any]:
    return {"PartNumber": number, "ETag": client.upload_part(**upload, PartNumber=number, Body=data)["ETag"]}


def completed(client: Any, upload: dict[str, str], *parts: dict[str, Any]) -> Any:
    return client.complete_multipart_upload(**upload, MultipartUpload={"Parts": list(parts)})


def test_an_upload_in_parts(client: Any, bucket: str) -> None:
    upload = begun(client, bucket, Metadata={"a": "1"}, ContentType="text/x-parts", CacheControl="no-store")
    parts = [part(client, upload, 1, FIRST), part(client, upload, 3, LAST)]
    listed = client.list_parts(**upload)
    assert [(one["PartNumber"], one["Size"]) for one in listed["Parts"]] == [(1, len(FIRST)), (3, len(LAST))]
    assert [one["ETag"] for one in listed["Parts"]] == [one["ETag"] for one in parts]
    assert [one["UploadId"] for one in client.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload["UploadId"]]
    assert keys(client.list_objects(Bucket=bucket)) == []
    digest = hashlib.md5(hashlib.md5(FIRST).digest() + hashlib.md5(LAST).digest()).hexdigest()
    for _ in range(2):  # a client that missed the reply asks again
        assert completed(client, upload, *parts)["ETag"] == f'"{digest}-2"'
    found = client.get_object(Bucket=bucket, Key="dir/key")
    assert hashlib.sha256(found["Body"].read()).digest() == hashlib.sha256(FIRST + LAST).digest()
    assert (found["ETag"], found["Metadata"], found["ContentType"]) == (f'"{digest}-2"', {"a": "1"}, "text/x-parts")
    assert found["CacheControl"] == "no-store"
    (listed,) = client.list_objects_v2(Bucket=bucket)["Contents"]
    assert (listed["ETag"], listed["Size"]) == (f'"{digest}-2"', len(FIRST) + len(LAST))
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    assert client.get_object(Bucket=bucket, Key="dir/key", Range="bytes=5242878-5242881")["Body"].read() == (
        FIRST[-2:] + LAST[:2]
    )
    second = client.get_object(Bucket=bucket, Key="dir/key", PartNumber=2)
    assert (second["Body"].read(), second["PartsCount"]) == (LAST, 2)
    assert client.get_object(Bucket=bucket, Key="dir/key", IfMatch=f'"{digest}-2"')["ETag"] == f'"{digest}-2"'
    with pytest.raises(ClientError) as refused:
        client.get_object(Bucket=bucket, Key="dir/key", IfNoneMatch=f'"{digest}-2"')
    assert code(refused) == "304"
    with pytest.raises(ClientError) as refused:
        client.abort_multipart_upload(**upload)
    assert code(refused) == "NoSuchUpload"


def test_the_parts_go_with_the_object(s3: S3Cloud, client: Any, bucket: str) -> None:
    upload = begun(client, bucket)
    completed(client, upload, part(client, upload, 1, LAST))
    cloud: Any = s3.cloud.connect("cumulet-demo")
    assert [one.name for one in cloud.object_store.objects(f"{bucket}+segments")] == [f"dir/key/{upload['UploadId']}/1"]
    client.delete_object(Bucket=bucket, Key="dir/key")
    assert keys(client.list_objects(Bucket=bucket)) == []
    s3.expire()
    assert list(cloud.object_store.objects(f"{bucket}+segments")) == []
    client.delete_bucket(Bucket=bucket)
    assert not [one for one in cloud.object_store.containers() if one.name.startswith(bucket)]


def test_an_upload_that_is_given_up(s3: S3Cloud, client: Any, bucket: str) -> None:
    upload = begun(client, bucket)
    part(client, upload, 1, LAST)
    client.abort_multipart_upload(**upload)
    for call in (client.list_parts, client.abort_multipart_upload):
        with pytest.raises(ClientError) as refused:
            call(**upload)
        assert code(refused) == "NoSuchUpload"
    with pytest.raises(ClientError) as refused:
        part(client, upload, 2, LAST)
    assert code(refused) == "NoSuchUpload"
    cloud: Any = s3.cloud.connect("cumulet-demo")
    assert list(cloud.object_store.objects(f"{bucket}+segments")) == []
    begun(client, bucket)
    client.delete_bucket(Bucket=bucket)  # what goes on in it goes with it


@contextlib.contextmanager
def cut_off() -> Iterator[None]:
    """Uploads are not completed to the end: their objects are made, what stands for them stays."""

    async def forget(*_: Any) -> None:
        raise S3Error("InternalError")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(complete, "forget", forget)
        with pytest.raises(ClientError):
            yield


@pytest.mark.parametrize("versions", [False, True])
def test_an_upload_that_was_cut_off_after_its_object_was_made(client: Any, bucket: str, versions: bool) -> None:
    if versions:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    upload = begun(client, bucket)
    parts = [part(client, upload, 1, FIRST), part(client, upload, 2, LAST)]
    for _ in range(2):
        with cut_off():
            completed(client, upload, *parts)
    assert len(client.list_object_versions(Bucket=bucket)["Versions"]) == 1
    newer = client.put_object(Bucket=bucket, Key="dir/key", Body=b"newer") if versions else {}
    with pytest.raises(ClientError) as refused:
        client.abort_multipart_upload(**upload)
    assert code(refused) == "NoSuchUpload"
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    if versions:
        client.delete_object(Bucket=bucket, Key="dir/key", VersionId=newer["VersionId"])
    assert client.get_object(Bucket=bucket, Key="dir/key")["Body"].read() == FIRST + LAST


def test_an_upload_that_was_cut_off_is_completed_again(client: Any, bucket: str) -> None:
    upload = begun(client, bucket)
    parts = [part(client, upload, 1, FIRST), part(client, upload, 2, LAST)]
    with cut_off():
        completed(client, upload, *parts)
    completed(client, upload, *parts)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    assert client.get_object(Bucket=bucket, Key="dir/key")["Body"].read() == FIRST + LAST


def test_an_abort_that_was_cut_off_is_made_again(s3: S3Cloud, client: Any, bucket: str) -> None:
    upload = begun(client, bucket)
    for number in (1, 2, 3):
        part(client, upload, number, LAST)
    cloud: Any = s3.cloud.connect("cumulet-demo")
    cloud.object_store.delete_object(f"dir/key/{upload['UploadId']}/1", container=f"{bucket}+segments")
    client.abort_multipart_upload(**upload)
    assert list(cloud.object_store.objects(f"{bucket}+segments")) == []


def test_uploads_that_cannot_be_completed(client: Any, bucket: str) -> None:
    upload = begun(client, bucket)
    one, two = part(client, upload, 1, LAST), part(client, upload, 2, LAST)
    for parts, wanted in (
        ([one, two], "EntityTooSmall"),
        ([two, one], "InvalidPartOrder"),
        ([one, one], "InvalidPartOrder"),
        ([{**one, "ETag": '"' + "0" * 32 + '"'}], "InvalidPart"),
        ([{**one, "ETag": "nonsense"}], "InvalidPart"),
        ([{**one, "PartNumber": 7}], "InvalidPart"),
        ([], "MalformedXML"),
    ):
        with pytest.raises(ClientError) as refused:
            completed(client, upload, *parts)
        assert code(refused) == wanted
    for number in (0, 10001):
        with pytest.raises(ClientError) as refused:
            part(client, upload, number, LAST)
        assert code(refused) == "InvalidArgument"
    with pytest.raises(ClientError) as refused:
        completed(client, {**upload, "UploadId": "unknown"}, one)
    assert code(refused) == "NoSuchUpload"
    assert keys(client.list_objects(Bucket=bucket)) == []


def test_parts_that_are_copied(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="from", Body=FIRST)
    upload = begun(client, bucket)
    source = {"CopySource": f"{bucket}/from"}
    first = client.upload_part_copy(**upload, PartNumber=1, **source)["CopyPartResult"]["ETag"]
    last = client.upload_part_copy(**upload, PartNumber=2, **source, CopySourceRange="bytes=10-19")["CopyPartResult"][
        "ETag"
    ]
    assert first == f'"{hashlib.md5(FIRST).hexdigest()}"'
    assert last == f'"{hashlib.md5(FIRST[10:20]).hexdigest()}"'
    for told in ("bytes=1-5,7-9", "10-19", "bytes=99999999-"):
        with pytest.raises(ClientError) as refused:
            client.upload_part_copy(**upload, PartNumber=3, **source, CopySourceRange=told)
        assert code(refused) == "InvalidArgument"
    completed(client, upload, {"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": last})
    assert client.get_object(Bucket=bucket, Key="dir/key", Range="bytes=5242870-")["Body"].read() == (
        FIRST[5242870:] + FIRST[10:20]
    )
    again = begun(client, bucket, "again")  # a part may come from what was uploaded in parts itself
    etag = client.upload_part_copy(**again, PartNumber=1, CopySource=f"{bucket}/dir/key")["CopyPartResult"]["ETag"]
    completed(client, again, {"PartNumber": 1, "ETag": etag})
    assert client.head_object(Bucket=bucket, Key="again")["ContentLength"] == len(FIRST) + 10
    client.copy_object(Bucket=bucket, Key="whole", CopySource=f"{bucket}/dir/key")
    assert client.get_object(Bucket=bucket, Key="whole")["Body"].read() == FIRST + FIRST[10:20]


def test_pages_of_uploads_and_parts(client: Any, bucket: str) -> None:
    uploads = [begun(client, bucket, key) for key in ("a", "b/1", "b/2", "c")]
    found = client.list_multipart_uploads(Bucket=bucket, MaxUploads=2)
    assert ([one["Key"] for one in found["Uploads"]], found["IsTruncated"]) == (["a", "b/1"], True)
    more = client.list_multipart_uploads(
        Bucket=bucket, KeyMarker=found["NextKeyMarker"], UploadIdMarker=found["NextUploadIdMarker"]
    )
    assert ([one["Key"] for one in more["Uploads"]], more["IsTruncated"]) == (["b/2", "c"], False)
    found = client.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [one["Prefix"] for one in found["CommonPrefixes"]] == ["b/"]
    assert [one["Key"] for one in found["Uploads"]] == ["a", "c"]
    assert [one["Key"] for one in client.list_multipart_uploads(Bucket=bucket, Prefix="b/")["Uploads"]] == [
        "b/1",
        "b/2",
    ]
    for number in range(1, 13):
        part(client, uploads[0], number, b"x")
    pages = list(client.get_paginator("list_parts").paginate(**uploads[0], PaginationConfig={"PageSize": 5}))
    assert [[one["PartNumber"] for one in page["Parts"]] for page in pages] == [
        [1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12],
    ]  # fmt: skip


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC64NVME", "SHA256"])
def test_files_go_and_come_in_parts(client: Any, bucket: str, tmp_path: Path, algorithm: str) -> None:
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(os.urandom(13 * MIB))
    how = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    client.upload_file(str(sent), bucket, "file", Config=how, ExtraArgs={"ChecksumAlgorithm": algorithm})
    assert client.head_object(Bucket=bucket, Key="file")["ETag"].endswith('-3"')
    client.download_file(bucket, "file", str(got), Config=how)
    assert got.read_bytes() == sent.read_bytes()
    client.copy({"Bucket": bucket, "Key": "file"}, bucket, "copy", Config=how)
    client.get_waiter("object_exists").wait(Bucket=bucket, Key="copy")
    client.download_file(bucket, "copy", str(got), Config=how)
    assert got.read_bytes() == sent.read_bytes()
    client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "file"}, {"Key": "copy"}]})
    client.get_waiter("object_not_exists").wait(Bucket=bucket, Key="file")
    client.delete_bucket(Bucket=bucket)
    client.get_waiter("bucket_not_exists").wait(Bucket=bucket)
