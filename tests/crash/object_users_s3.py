"""Users of S3: uploads in parts, and rules by which objects end. They use boto3."""

import os
import time
from datetime import UTC, datetime
from hashlib import md5
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.crash.object_disk import SOON
from tests.crash.object_users import User

PART = 5 << 20
FIRST = os.urandom(PART)
"""The first part of all uploads: it is large, since S3 wants it so."""


class S3User(User):
    def renew(self) -> None:
        super().renew()
        config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        self.s3: Any = boto3.client(
            "s3",
            endpoint_url=self.site.cloud.url("object-store"),
            region_name="us-east-1",
            aws_access_key_id=self.site.key["access"],
            aws_secret_access_key=self.site.key["secret"],
            config=config,
        )

    def leave(self) -> None:
        super().leave()
        self.s3.close()

    def keys(self, bucket: str) -> set[str]:
        return {one["Key"] for one in self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])}


class Parts(S3User):
    """Uploads in parts: begun, completed, aborted; what they made is deleted."""

    bucket = "in-parts"

    def prepare(self) -> None:
        self.s3.create_bucket(Bucket=self.bucket)
        self.uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        self.objects: dict[str, bytes] = {}
        self.gone: set[str] = set()

    def act(self) -> None:
        what = self.dice.random()
        ready = [key for key, (_, parts) in self.uploads.items() if len(parts) == 2]
        if ready and what < 0.7:
            self.begun = ("complete" if what < 0.5 else "abort", self.dice.choice(ready), None)
        elif len(self.objects) > 1:
            self.begun = ("delete", self.dice.choice(list(self.objects)), None)
        elif unready := [key for key in self.uploads if key not in ready]:
            key = self.dice.choice(unready)
            has = self.uploads[key][1]
            self.begun = ("part", key, (2, self.data(1000)) if 1 in has else (1, FIRST))
        else:
            self.begun = ("create", f"dir/o{next(self.turns)}", None)
        self.do(*self.begun)

    def do(self, what: str, key: str, more: Any) -> None:
        if what == "create":
            made = self.s3.create_multipart_upload(Bucket=self.bucket, Key=key, Metadata={"key": key.replace("/", "-")})
            self.uploads[key] = (made["UploadId"], {})
        elif what == "part":
            number, data = more
            self.s3.upload_part(UploadId=self.uploads[key][0], PartNumber=number, Body=data, **self.at(key))
            self.uploads[key][1][number] = data
        elif what == "complete":
            upload, parts = self.uploads[key]
            told = [{"PartNumber": number, "ETag": md5(data).hexdigest()} for number, data in sorted(parts.items())]
            self.s3.complete_multipart_upload(UploadId=upload, MultipartUpload={"Parts": told}, **self.at(key))
            del self.uploads[key]
            self.objects[key] = b"".join(data for _, data in sorted(parts.items()))
        elif what == "abort":
            self.s3.abort_multipart_upload(UploadId=self.uploads[key][0], **self.at(key))
            del self.uploads[key]
            self.gone.add(key)
        else:
            self.s3.delete_object(**self.at(key))
            self.objects.pop(key, None)
            self.gone.add(key)

    def at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": key}

    def going_on(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []):
            found.setdefault(one["Key"], []).append(one["UploadId"])
        return found

    def check(self) -> None:
        what, of, _ = (*self.begun, None, None, None)[:3]
        for key, data in self.objects.items():
            if (what, of) != ("delete", key):
                got = self.s3.get_object(**self.at(key))
                assert got["Body"].read() == data, key
                assert got["Metadata"] == {"key": key.replace("/", "-")}
        going_on = self.going_on()
        for key, (upload, parts) in self.uploads.items():
            if (what, of) in (("complete", key), ("abort", key)):
                continue
            assert going_on[key] == [upload]
            listed = self.s3.list_parts(UploadId=upload, **self.at(key)).get("Parts", [])
            told = {one["PartNumber"]: one["ETag"].strip('"') for one in listed}
            may = {self.begun[2][0]} if (what, of) == ("part", key) else set()
            assert {n for n in told if n not in may} == {n for n in parts if n not in may}
            assert all(told[number] == md5(data).hexdigest() for number, data in parts.items())
        assert self.keys(self.bucket) - {of} == self.objects.keys() - {of}
        if self.begun:
            self._again(*self.begun)
        assert {key: [upload] for key, (upload, _) in self.uploads.items()} == self.going_on()
        self._no_parts_left()

    def _again(self, what: str, key: str, more: Any) -> None:
        if what == "create":  # whoever was not told its id aborts it
            for upload in self.going_on().get(key, []):
                self.s3.abort_multipart_upload(UploadId=upload, **self.at(key))
            self.do("create", key, None)
            return
        if what == "abort":
            try:
                self.do(what, key, more)
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchUpload":
                    raise
                del self.uploads[key]
                self.gone.add(key)
            return
        self.do(what, key, more)
        if what == "complete":
            assert self.s3.get_object(**self.at(key))["Body"].read() == self.objects[key]

    def _no_parts_left(self) -> None:
        """Of what was aborted or deleted no part stays; those of deleted objects the expirer takes."""
        until = time.monotonic() + SOON
        while True:
            names = [row["name"] for row in self.listed(f"{self.bucket}+segments")] if self.begins() else []
            left = {name for name in names if "/".join(name.split("/")[:2]) in self.gone}
            if not left:
                return
            assert time.monotonic() < until, f"left: {left}"
            time.sleep(0.2)

    def begins(self) -> bool:
        return self.call("HEAD", f"{self.bucket}+segments").ok


class Kept(S3User):
    """A bucket with versions: the newest of an object's versions is what there is. `versions` are by key and id, their data or
    None for the mark of a delete."""

    bucket = "with-versions"

    def prepare(self) -> None:
        self.versions: dict[tuple[str, str], bytes | None] = {}
        self.removed: set[tuple[str, str]] = set()
        self.s3.create_bucket(Bucket=self.bucket)
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})

    def act(self) -> None:
        key, what = self.dice.choice("ab"), self.dice.random()
        there = self.of(key)
        if what < 0.4 or not there:
            self.begun = ("put", key, self.data(10, 5000))
        elif what < 0.55:
            self.begun = ("delete", key, None)
        else:
            self.begun = ("remove", key, there[0] if what < 0.85 else self.dice.choice(there))
        self.do(*self.begun)

    def of(self, key: str) -> list[str]:
        """The ids of an object's versions, the newest first: they are times."""
        return sorted((version for of, version in self.versions if of == key), reverse=True)

    def do(self, what: str, key: str, more: Any) -> None:
        at = {"Bucket": self.bucket, "Key": key}
        if what == "put":
            self.versions[key, self.s3.put_object(Body=more, **at)["VersionId"]] = more
        elif what == "delete":
            told = self.s3.delete_object(**at)
            if "VersionId" in told:
                self.versions[key, told["VersionId"]] = None
            else:  # there was nothing to be deleted: as upstream's, it does not say how the mark is called
                self.versions = self.look()
        else:
            self.s3.delete_object(VersionId=more, **at)
            self.versions.pop((key, more), None)
            self.removed.add((key, more))

    def look(self) -> dict[tuple[str, str], bytes | None]:
        told = self.s3.list_object_versions(Bucket=self.bucket)
        found: dict[tuple[str, str], bytes | None] = {
            (m["Key"], m["VersionId"]): None for m in told.get("DeleteMarkers", [])
        }
        for one in told.get("Versions", []):
            got = self.s3.get_object(Bucket=self.bucket, Key=one["Key"], VersionId=one["VersionId"])
            found[one["Key"], one["VersionId"]] = got["Body"].read()
        return found

    def check(self) -> None:
        what, of, more = self.begun or (None, None, None)
        found = self.look()
        for place, data in self.versions.items():
            assert (what, of, more) == ("remove", *place) or place in found, f"lost: {place}"
            assert found.get(place, data) == data, f"another: {place}"
        assert not self.removed & found.keys(), "deleted and back"
        for place in found.keys() - self.versions.keys():
            assert (what, of) in (("put", place[0]), ("delete", place[0])), f"nobody made {place}"
            assert found[place] == more, f"torn: {place}"
        self.versions = found
        if self.begun:
            self.do(*self.begun)
        keys = self.keys(self.bucket)
        for key in "ab":
            newest = self.of(key)[:1]
            data = self.versions[key, newest[0]] if newest else None
            assert (key in keys) == (data is not None), f"{key} is not what its newest version is"
            assert data is None or self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() == data


class Rules(S3User):
    """Lifecycle rules: what is below old/ ends at once, all else stays."""

    bucket = "with-rules"

    def prepare(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.s3.create_bucket(Bucket=self.bucket)
        ended = {"Date": datetime(2020, 1, 1, tzinfo=UTC)}
        rule = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "old/"}, "Expiration": ended}
        self.s3.put_bucket_lifecycle_configuration(Bucket=self.bucket, LifecycleConfiguration={"Rules": [rule]})

    def act(self) -> None:
        name, old = f"o{self.dice.randrange(30)}", self.dice.random() < 0.7
        self.begun = (f"{'old' if old else 'new'}/{name}", self.data(10, 4000))
        self.do(*self.begun)

    def do(self, key: str, data: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        if key.startswith("new/"):
            self.kept[key] = data

    def check(self) -> None:
        if self.begun:
            self.do(*self.begun)
        until = time.monotonic() + SOON
        while (keys := self.keys(self.bucket)) != self.kept.keys():
            assert not self.kept.keys() - keys, f"lost: {self.kept.keys() - keys}"
            assert time.monotonic() < until, f"not ended: {keys - self.kept.keys()}"
            time.sleep(0.2)
        for key, data in self.kept.items():
            assert self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() == data
