"""Lifecycle rules: kept, shown, and applied to objects, versions and uploads."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cumulet.services.object_store.s3.lifecycle import Rule, midnight_after
from cumulet.services.object_store.s3.lifecycle_work import Lifecycles
from tests.services.object_store.s3.conftest import S3Cloud
from tests.services.object_store.s3.test_s3_bucket import code, keys
from tests.services.object_store.s3.test_s3_multipart import begun, completed, cut_off, part

RULES = [
    {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}},
    {
        "ID": "large",
        "Status": "Disabled",
        "Filter": {"And": {"Prefix": "big/", "ObjectSizeGreaterThan": 10, "ObjectSizeLessThan": 1000}},
        "Expiration": {"Days": 1},
    },
    {
        "ID": "old",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 7, "NewerNoncurrentVersions": 2},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
    },
]


def put(client: Any, bucket: str, *rules: dict[str, Any]) -> None:
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)})


def rule(**more: Any) -> dict[str, Any]:
    return {"ID": "rule", "Status": "Enabled", "Filter": {"Prefix": ""}, **more}


def later(s3: S3Cloud, days: float) -> None:
    """Apply all rules as if so many days had gone by."""
    service = s3.cloud.program.object_store
    work = Lifecycles(service, service.proxy)
    s3.cloud.call(work.apply_all(datetime.now(UTC) + timedelta(days=days)))


def test_rules_are_kept(client: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as refused:
        client.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert code(refused) == "NoSuchLifecycleConfiguration"
    put(client, bucket, *RULES)
    assert client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == RULES
    client.delete_bucket_lifecycle(Bucket=bucket)
    with pytest.raises(ClientError) as refused:
        client.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert code(refused) == "NoSuchLifecycleConfiguration"


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        ({"Expiration": {"Days": 0}}, "InvalidRequest"),
        ({"Expiration": {"Days": 10**7}}, "InvalidRequest"),
        ({"Expiration": {"Days": 1, "Date": datetime(2026, 1, 1, tzinfo=UTC)}}, "MalformedXML"),
        ({"Expiration": {"Date": datetime(2026, 1, 1, 12, tzinfo=UTC)}}, "InvalidRequest"),
        ({}, "InvalidRequest"),
        ({"Status": "Perhaps", "Expiration": {"Days": 1}}, "MalformedXML"),
        ({"Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}, "NotImplemented"),
        ({"Filter": {"Tag": {"Key": "a", "Value": "b"}}, "Expiration": {"Days": 1}}, "NotImplemented"),
        ({"Prefix": "a", "Expiration": {"Days": 1}}, "MalformedXML"),
    ],
)
def test_rules_that_cannot_be(client: Any, bucket: str, wrong: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ClientError) as refused:
        put(client, bucket, rule(**wrong))
    assert code(refused) == wanted


def test_objects_end(s3: S3Cloud, client: Any, bucket: str) -> None:
    for key, size in (("logs/a", 5), ("logs/b", 500), ("data", 5)):
        client.put_object(Bucket=bucket, Key=key, Body=b"x" * size)
    put(client, bucket, rule(Filter={"And": {"Prefix": "logs/", "ObjectSizeLessThan": 100}}, Expiration={"Days": 2}))
    later(s3, 1)
    assert keys(client.list_objects(Bucket=bucket)) == ["data", "logs/a", "logs/b"]
    later(s3, 3.1)
    assert keys(client.list_objects(Bucket=bucket)) == ["data", "logs/b"]
    put(client, bucket, rule(Expiration={"Date": datetime(2020, 1, 1, tzinfo=UTC)}, Status="Disabled"))
    later(s3, 0)
    assert keys(client.list_objects(Bucket=bucket)) == ["data", "logs/b"]
    put(client, bucket, rule(Expiration={"Date": datetime(2020, 1, 1, tzinfo=UTC)}))
    later(s3, 0)
    assert keys(client.list_objects(Bucket=bucket)) == []


def test_versions_and_delete_markers_end(s3: S3Cloud, client: Any, bucket: str) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    made = [client.put_object(Bucket=bucket, Key="key", Body=b"x")["VersionId"] for _ in range(4)]
    noncurrent = {"NoncurrentDays": 1, "NewerNoncurrentVersions": 1}
    put(client, bucket, rule(NoncurrentVersionExpiration=noncurrent))
    later(s3, 0)
    assert len(client.list_object_versions(Bucket=bucket)["Versions"]) == 4
    later(s3, 3)
    left = [one["VersionId"] for one in client.list_object_versions(Bucket=bucket)["Versions"]]
    assert left == [made[3], made[2]]
    put(client, bucket, rule(Expiration={"Days": 1}))
    later(s3, 3)
    found = client.list_object_versions(Bucket=bucket)
    assert (len(found["Versions"]), len(found["DeleteMarkers"])) == (2, 1)  # what ended is kept as a version
    put(
        client,
        bucket,
        rule(NoncurrentVersionExpiration={"NoncurrentDays": 1}, Expiration={"ExpiredObjectDeleteMarker": True}),
    )
    later(s3, 3)
    later(s3, 3)
    found = client.list_object_versions(Bucket=bucket)
    assert ("Versions" in found, "DeleteMarkers" in found) == (False, False)


def test_uploads_end(s3: S3Cloud, client: Any, bucket: str) -> None:
    upload = client.create_multipart_upload(Bucket=bucket, Key="tmp/key")["UploadId"]
    client.upload_part(Bucket=bucket, Key="tmp/key", UploadId=upload, PartNumber=1, Body=b"part")
    put(client, bucket, rule(Filter={"Prefix": "tmp/"}, AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1}))
    later(s3, 0)
    assert len(client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1
    later(s3, 3)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    cloud: Any = s3.cloud.connect("cumulet-demo")
    assert list(cloud.object_store.objects(f"{bucket}+segments")) == []


def test_an_object_keeps_its_parts_where_its_upload_was_cut_off_at_the_end(
    s3: S3Cloud, client: Any, bucket: str
) -> None:
    upload = begun(client, bucket)
    only = part(client, upload, 1, b"part")
    with cut_off():
        completed(client, upload, only)
    put(client, bucket, rule(AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1}))
    later(s3, 3)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    assert client.get_object(Bucket=bucket, Key="dir/key")["Body"].read() == b"part"


def test_objects_end_at_midnight() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert midnight_after(noon, 1) == datetime(2026, 3, 3, tzinfo=UTC)
    assert midnight_after(datetime(2026, 3, 1, tzinfo=UTC), 1) == datetime(2026, 3, 2, tzinfo=UTC)
    ends = Rule("x", days=1)
    assert not ends.ended(noon, datetime(2026, 3, 2, 23, 59, tzinfo=UTC))
    assert ends.ended(noon, datetime(2026, 3, 3, tzinfo=UTC))


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"s3_lifecycle_interval": 3600}
