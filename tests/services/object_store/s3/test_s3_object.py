"""Objects, with boto3, and with requests that are signed by hand where boto3 would not send them."""

import base64
import email.utils
import hashlib
import hmac
import io
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.services.object_store.s3.conftest import S3Cloud
from tests.services.object_store.s3.test_s3_bucket import code, keys

DATA = bytes(range(256)) * 40


def test_data_metadata_and_headers(client: Any, bucket: str) -> None:
    told = {"plain": "value", "under_score": "x"}
    put = client.put_object(
        Bucket=bucket, Key="dir/key", Body=DATA, Metadata=told, ContentType="text/x-data", CacheControl="max-age=5",
        ContentDisposition="attachment", ContentEncoding="identity", ContentLanguage="de",
    )  # fmt: skip
    etag = f'"{hashlib.md5(DATA).hexdigest()}"'
    assert put["ETag"] == etag
    for call in (client.get_object, client.head_object):
        found = call(Bucket=bucket, Key="dir/key")
        assert (found["ETag"], found["ContentLength"], found["Metadata"]) == (etag, len(DATA), told)
        assert (found["ContentType"], found["CacheControl"], found["ContentLanguage"]) == (
            "text/x-data", "max-age=5", "de"
        )  # fmt: skip
        assert (found["ContentDisposition"], found["ContentEncoding"]) == ("attachment", "identity")
    found = client.get_object(
        Bucket=bucket, Key="dir/key", ResponseContentType="text/other", ResponseContentDisposition="inline"
    )
    assert (found["ContentType"], found["ContentDisposition"]) == ("text/other", "inline")
    client.put_object(Bucket=bucket, Key="untyped")
    assert client.head_object(Bucket=bucket, Key="untyped")["ContentType"] == "binary/octet-stream"


def test_metadata_may_be_named_by_characters_that_no_header_has(client: Any, bucket: str) -> None:
    """Some of them come back, as from swift; the others are left out, as Amazon does."""
    told = {f"a{sign}b": sign for sign in "!\"#$%&'()*+-./<=>?@[\\]^`{|}~"}
    kept = {name: value for name, value in told.items() if value in "!#$%&'(*+-.^`|~"}
    client.put_object(Bucket=bucket, Key="key", Body=DATA, Metadata=told)
    assert client.head_object(Bucket=bucket, Key="key")["Metadata"] == kept
    client.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/key")
    found = client.get_object(Bucket=bucket, Key="copy")
    assert (found["Metadata"], found["Body"].read()) == (kept, DATA)


def test_ranges(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=DATA)
    for asked, part in (("bytes=0-9", DATA[:10]), ("bytes=10200-", DATA[10200:]), ("bytes=-5", DATA[-5:])):
        found = client.get_object(Bucket=bucket, Key="key", Range=asked)
        assert found["Body"].read() == part
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert client.head_object(Bucket=bucket, Key="key", Range=asked)["ContentLength"] == len(part)
    with pytest.raises(ClientError) as refused:
        client.get_object(Bucket=bucket, Key="key", Range="bytes=99999-")
    assert code(refused) == "InvalidRange"
    assert (
        client.get_object(Bucket=bucket, Key="key", PartNumber=1)["ContentRange"]
        == f"bytes 0-{len(DATA) - 1}/{len(DATA)}"
    )
    for number, wanted in ((2, "InvalidPartNumber"), (0, "InvalidArgument"), (10001, "InvalidArgument")):
        with pytest.raises(ClientError) as refused:
            client.get_object(Bucket=bucket, Key="key", PartNumber=number)
        assert code(refused) == wanted


def test_conditions(client: Any, bucket: str) -> None:
    etag = client.put_object(Bucket=bucket, Key="key", Body=DATA)["ETag"]
    later = datetime.now(UTC) + timedelta(days=1)
    earlier = datetime.now(UTC) - timedelta(days=1)
    for good in ({"IfMatch": etag}, {"IfNoneMatch": '"0"'}, {"IfModifiedSince": earlier}, {"IfUnmodifiedSince": later}):
        assert client.get_object(Bucket=bucket, Key="key", **good)["ETag"] == etag
    for bad, status in (
        ({"IfMatch": '"0"'}, 412), ({"IfNoneMatch": etag}, 304), ({"IfUnmodifiedSince": earlier}, 412),
    ):  # fmt: skip
        with pytest.raises(ClientError) as refused:
            client.get_object(Bucket=bucket, Key="key", **bad)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="key", IfNoneMatch="*")
    assert code(refused) == "PreconditionFailed"
    client.put_object(Bucket=bucket, Key="new", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="key", IfMatch=etag)
    assert code(refused) == "NotImplemented"


def test_what_is_not_there(client: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as refused:
        client.get_object(Bucket=bucket, Key="nothing")
    assert code(refused) == "NoSuchKey"
    with pytest.raises(ClientError) as refused:
        client.head_object(Bucket=bucket, Key="nothing")
    assert code(refused) == "404"
    assert client.delete_object(Bucket=bucket, Key="nothing")["ResponseMetadata"]["HTTPStatusCode"] == 204
    with pytest.raises(ClientError) as refused:
        client.get_object(Bucket=bucket, Key="key", VersionId="1234567890.12345")
    assert code(refused) == "NoSuchVersion"
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="k" * 1025)
    assert code(refused) == "KeyTooLongError"


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_of_uploads(client: Any, bucket: str, algorithm: str) -> None:
    client.put_object(Bucket=bucket, Key="known", Body=DATA, ChecksumAlgorithm=algorithm)
    client.upload_fileobj(io.BytesIO(DATA), bucket, "stream", ExtraArgs={"ChecksumAlgorithm": algorithm})
    for key in ("known", "stream"):
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == DATA
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="wrong", Body=DATA, ChecksumSHA256=wrong)
    assert code(refused) == "BadDigest"
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="wrong", Body=DATA, ContentMD5=base64.b64encode(b"x" * 16).decode())
    assert code(refused) == "BadDigest"
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key="wrong", Body=DATA, ContentMD5="no digest")
    assert code(refused) == "InvalidDigest"
    assert "wrong" not in keys(client.list_objects(Bucket=bucket))


def test_a_body_other_than_the_signed_one_is_not_stored(s3: S3Cloud, bucket: str) -> None:
    credentials = Credentials(s3.key()["access"], s3.key()["secret"])
    asked = AWSRequest("PUT", f"{s3.endpoint}/{bucket}/key", data=b"honest", headers={"Content-Length": "6"})
    asked.context["payload_signing_enabled"] = True
    S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(asked)
    headers = dict(asked.headers)
    reply = requests.put(asked.url, data=b"forged", headers=headers, timeout=30)
    assert (reply.status_code, "XAmzContentSHA256Mismatch" in reply.text) == (400, True)
    assert requests.put(asked.url, data=b"honest", headers=headers, timeout=30).status_code == 200
    headers["x-amz-meta-more"] = "unsigned"
    assert "<Code>AccessDenied</Code>" in requests.put(asked.url, data=b"honest", headers=headers, timeout=30).text


def test_urls_that_somebody_was_given(client: Any, bucket: str) -> None:
    put = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a b/ü"}, ExpiresIn=60)
    assert requests.put(put, data=DATA, timeout=30).status_code == 200
    get = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/ü"}, ExpiresIn=60)
    assert requests.get(get, timeout=30).content == DATA
    reply = requests.put(get, data=b"other", timeout=30)
    assert (reply.status_code, "SignatureDoesNotMatch" in reply.text) == (403, True)
    assert requests.get(get.replace("a%20b", "a%20c"), timeout=30).status_code == 403
    short = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/ü"}, ExpiresIn=1)
    until = time.time() + 10
    while (reply := requests.get(short, timeout=30)).ok and time.time() < until:
        time.sleep(0.2)
    assert (reply.status_code, "Request has expired" in reply.text) == (403, True)


def test_the_clock_may_not_be_wrong(s3: S3Cloud, client: Any, bucket: str) -> None:
    date = email.utils.formatdate(time.time() - 3600, usegmt=True)
    text = f"GET\n\n\n{date}\n/{bucket}"
    signature = base64.b64encode(hmac.digest(s3.key()["secret"].encode(), text.encode(), "sha1")).decode()
    headers = {"Date": date, "Authorization": f"AWS {s3.key()['access']}:{signature}"}
    reply = requests.get(f"{s3.endpoint}/{bucket}", headers=headers, timeout=30)
    assert (reply.status_code, "RequestTimeTooSkewed" in reply.text) == (403, True)


def test_copies(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="from", Body=DATA, Metadata={"a": "1"}, ContentType="text/x-from")
    etag = client.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/from")["CopyObjectResult"]["ETag"]
    found = client.get_object(Bucket=bucket, Key="to")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"]) == (DATA, {"a": "1"}, "text/x-from")
    assert found["ETag"] == etag
    client.copy_object(
        Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "to"}, MetadataDirective="REPLACE",
        Metadata={"b": "2"}, ContentType="text/x-to",
    )  # fmt: skip
    found = client.get_object(Bucket=bucket, Key="to")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"]) == (DATA, {"b": "2"}, "text/x-to")
    for more, wanted in (
        ({"CopySource": f"{bucket}/to"}, "InvalidRequest"),
        ({"CopySource": f"{bucket}/nothing"}, "NoSuchKey"),
        ({"CopySource": f"{bucket}-not/to"}, "NoSuchBucket"),
        ({"CopySource": f"{bucket}/from", "CopySourceIfMatch": '"0"'}, "PreconditionFailed"),
        ({"CopySource": f"{bucket}/from", "CopySourceIfNoneMatch": etag}, "PreconditionFailed"),
        ({"CopySource": "nowhere"}, "InvalidArgument"),
    ):
        with pytest.raises(ClientError) as refused:
            client.copy_object(Bucket=bucket, Key="to", **more)
        assert code(refused) == wanted


def test_an_object_that_expires(client: Any, bucket: str) -> None:
    def told(request: Any, **_: Any) -> None:
        request.headers["X-Delete-After"] = "1000"

    client.meta.events.register("before-sign.s3.PutObject", told)
    client.put_object(Bucket=bucket, Key="key")
    assert "swift-object-expiration" in client.head_object(Bucket=bucket, Key="key")["Expiration"]
