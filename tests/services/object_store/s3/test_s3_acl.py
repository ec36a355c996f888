"""S3's own ACLs, where the setting `s3_acl` is on: who may do what to buckets and objects."""

from itertools import pairwise
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from tests.services.object_store.s3.conftest import S3Cloud
from tests.services.object_store.s3.test_s3_bucket import code, keys

ALL = "http://acs.amazonaws.com/groups/global/AllUsers"


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {"s3_acl": True}


@pytest.fixture(scope="module")
def other(s3: S3Cloud) -> Any:
    """Another user of the same project, who may do nothing there by his role."""
    admin: Any = s3.cloud.connect()
    admin.identity.create_role(name="nothing")
    return s3.client(s3.user("other", "nothing"))


def name_of(client: Any) -> str:
    """A client's user as ACLs name him."""
    return str(client.list_buckets()["Owner"]["ID"])


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as told:
        call(**arguments)
    return code(told)


def test_what_is_private(s3: S3Cloud, client: Any, bucket: str, other: Any) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"data")
    acl = client.get_bucket_acl(Bucket=bucket)
    assert acl["Owner"]["ID"] == "demo:demo"
    assert [one["Permission"] for one in acl["Grants"]] == ["FULL_CONTROL"]
    for call in (other.list_objects, other.head_bucket, other.get_bucket_acl, other.delete_bucket):
        assert refused(call, Bucket=bucket) in ("AccessDenied", "403")
    for call in (other.get_object, other.put_object, other.delete_object, other.get_object_acl):
        assert refused(call, Bucket=bucket, Key="key") == "AccessDenied"
    reader = s3.client(s3.user("reader", "reader"))
    for each in (other, reader):
        assert refused(each.create_bucket, Bucket=f"{bucket}-other") == "AccessDenied"
    assert refused(other.put_bucket_acl, Bucket=bucket, ACL="public-read") == "AccessDenied"
    assert bucket not in [one["Name"] for one in other.list_buckets()["Buckets"]]
    assert bucket in [one["Name"] for one in client.list_buckets()["Buckets"]]
    found = other.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key"}]})
    assert [one["Code"] for one in found["Errors"]] == ["AccessDenied"]


def test_acls_with_names(client: Any, bucket: str, other: Any) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"data")
    client.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert keys(other.list_objects(Bucket=bucket)) == ["key"]
    assert refused(other.get_object, Bucket=bucket, Key="key") == "AccessDenied"  # an object has an ACL of its own
    client.put_object_acl(Bucket=bucket, Key="key", ACL="public-read")
    assert other.get_object(Bucket=bucket, Key="key")["Body"].read() == b"data"
    assert refused(other.put_object, Bucket=bucket, Key="more") == "AccessDenied"
    client.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    other.put_object(Bucket=bucket, Key="more", Body=b"by the other")
    # The new object is its maker's.
    assert refused(client.get_object, Bucket=bucket, Key="more") == "AccessDenied"
    other.put_object(Bucket=bucket, Key="more", Body=b"by the other", ACL="bucket-owner-full-control")
    assert client.get_object(Bucket=bucket, Key="more")["Body"].read() == b"by the other"
    grants = client.get_object_acl(Bucket=bucket, Key="more")["Grants"]
    assert {one["Grantee"]["ID"] for one in grants} == {"demo:demo", name_of(other)}
    client.put_object(Bucket=bucket, Key="for users", ACL="authenticated-read")
    assert other.head_object(Bucket=bucket, Key="for users")
    assert refused(client.put_object, Bucket=bucket, Key="x", ACL="nonsense") == "InvalidArgument"


def test_grants(client: Any, bucket: str, other: Any) -> None:
    client.put_object(Bucket=bucket, Key="key", Body=b"data", GrantRead=f"id={name_of(other)}")
    assert other.get_object(Bucket=bucket, Key="key")["Body"].read() == b"data"
    assert refused(other.get_object_acl, Bucket=bucket, Key="key") == "AccessDenied"
    policy = {
        "Owner": {"ID": "demo:demo"},
        "Grants": [
            {"Grantee": {"Type": "CanonicalUser", "ID": name_of(other)}, "Permission": "WRITE"},
            {"Grantee": {"Type": "CanonicalUser", "ID": name_of(other)}, "Permission": "READ_ACP"},
            {"Grantee": {"Type": "Group", "URI": ALL}, "Permission": "READ"},
        ],
    }
    client.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)
    assert len(other.get_bucket_acl(Bucket=bucket)["Grants"]) == 3
    other.put_object(Bucket=bucket, Key="other's")
    other.delete_object(Bucket=bucket, Key="key")
    assert refused(other.put_bucket_acl, Bucket=bucket, ACL="private") == "AccessDenied"
    assert refused(other.delete_bucket, Bucket=bucket) == "AccessDenied"
    taken = {**policy, "Owner": {"ID": name_of(other)}}
    assert refused(client.put_bucket_acl, Bucket=bucket, AccessControlPolicy=taken) == "AccessDenied"
    assert (
        refused(client.put_object, Bucket=bucket, Key="x", GrantRead="emailaddress=a@example.org") == "NotImplemented"
    )
    assert refused(client.put_object, Bucket=bucket, Key="x", GrantRead="uri=http://nowhere") == "InvalidArgument"
    assert refused(client.put_object, Bucket=bucket, Key="x", GrantRead="id=a", ACL="private") == "InvalidRequest"


@pytest.mark.parametrize(
    ("declared", "reply"),
    [
        ('<!ENTITY e SYSTEM "file:///etc/passwd">', 200),
        ('<!ENTITY e "-value">', 200),
        ("<!ENTITY a 'ha'>" + "".join(f"<!ENTITY {name} '{f'&{of};' * 10}'>" for of, name in pairwise("abcdfghijklmne")), 400),
    ],
)  # fmt: skip
def test_a_document_type_tells_nothing(client: Any, bucket: str, declared: str, reply: int) -> None:
    url = client.generate_presigned_url("put_bucket_acl", Params={"Bucket": bucket})
    kind = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"'
    data = (
        f"<!DOCTYPE x [{declared}]><AccessControlPolicy><Owner><ID>demo:demo</ID></Owner><AccessControlList>"
        f"<Grant><Grantee {kind}><ID>id&e;x</ID></Grantee><Permission>READ</Permission></Grant>"
        "</AccessControlList></AccessControlPolicy>"
    )
    told = requests.put(url, data=data, timeout=30)
    assert told.status_code == reply and "root:" not in told.text
    grants = client.get_bucket_acl(Bucket=bucket)["Grants"]
    assert [one["Grantee"]["ID"] for one in grants] == (["id"] if reply == 200 else ["demo:demo"])


def test_uploads_in_parts_have_the_acl_that_they_began_with(client: Any, bucket: str, other: Any) -> None:
    names = {"Bucket": bucket, "Key": "key"}
    upload = client.create_multipart_upload(**names, ACL="public-read")["UploadId"]
    assert refused(other.upload_part, **names, UploadId=upload, PartNumber=1, Body=b"x") == "AccessDenied"
    assert refused(other.list_parts, **names, UploadId=upload) == "AccessDenied"
    etag = client.upload_part(**names, UploadId=upload, PartNumber=1, Body=b"parts")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    assert refused(other.complete_multipart_upload, **names, UploadId=upload, MultipartUpload=parts) == "AccessDenied"
    client.complete_multipart_upload(**names, UploadId=upload, MultipartUpload=parts)
    assert other.get_object(**names)["Body"].read() == b"parts"
    client.put_object_acl(**names, ACL="private")
    assert refused(other.get_object, **names) == "AccessDenied"
    found = client.get_object(**names)
    assert (found["Body"].read(), found["ETag"].endswith('-1"')) == (b"parts", True)
    assert refused(other.copy_object, Bucket=bucket, Key="copy", CopySource=f"{bucket}/key") == "AccessDenied"
