"""What is in a bucket: GET /bucket, in three forms: version 1, version 2 (`list-type=2`) and with versions (`?versions`).

References: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cumulet.services.object_store.message import Response
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.s3.bucket import listing, owner_xml
from cumulet.services.object_store.s3.errors import invalid_argument
from cumulet.services.object_store.s3.request import DELETE_MARKER, S3Request, xml_reply
from cumulet.services.object_store.s3.times import in_xml
from cumulet.services.object_store.s3.told import MAX_KEYS
from cumulet.services.object_store.s3.xml import document, leaf, node

_S3_ETAG = re.compile(r";\s*s3_etag=([^;\s]+)")
_SLO_ETAG = re.compile(r";\s*slo_etag=([^;\s]+)")


@dataclass(slots=True)
class Asked:
    """What a listing was asked for. `kind` is 1, 2 or "versions"; `told` the limit as it was told, `limit` as it is kept."""

    kind: int | str
    query: dict[str, str]
    told: int
    limit: int
    encoded: bool
    owners: bool

    def name(self, value: str) -> str:
        return quote(value, safe="/~") if self.encoded else value


async def list_objects(s3: S3Request) -> Response:
    """List the objects of a bucket."""
    asked = _asked(s3)
    found = await listing(s3, s3.bucket, {**asked.query, "limit": str(asked.limit + 1)})
    truncated = 0 < asked.limit < len(found)
    found = found[: asked.limit]
    last = (found[-1].get("name") or found[-1].get("subdir") or "") if truncated else ""
    told = [leaf("Name", s3.bucket), leaf("Prefix", asked.name(s3.param("prefix") or ""))]
    match asked.kind:
        case "versions":
            told += _head_of_versions(s3, asked, last, found)
        case 2:
            told += _head_of_version_2(s3, asked, last, len(found))
        case _:
            told += _head_of_version_1(s3, asked, last)
    told.append(leaf("MaxKeys", str(asked.told)))
    if (delimiter := s3.param("delimiter")) or (delimiter is not None and asked.kind == "versions"):
        told.append(leaf("Delimiter", asked.name(delimiter)))
    if asked.encoded:
        told.append(leaf("EncodingType", "url"))
    told.append(leaf("IsTruncated", "true" if truncated else "false"))
    owner = owner_xml(s3.user_id)
    told += [_entry(asked, one, owner) for one in found]
    return xml_reply(document("ListVersionsResult" if asked.kind == "versions" else "ListBucketResult", *told))


def _asked(s3: S3Request) -> Asked:
    told = s3.number("max-keys", MAX_KEYS)
    encoding = s3.param("encoding-type")
    if encoding not in (None, "url"):
        raise invalid_argument("encoding-type", encoding or "", "Invalid Encoding Method specified in Request")
    query = {name: text_param(s3, name) for name in ("prefix", "delimiter") if s3.param(name) is not None}
    asked = Asked(1, query, told, min(told, MAX_KEYS), encoding == "url", True)
    if s3.param("versions") is not None:
        asked.kind = "versions"
        _ask_versions(s3, query)
        return asked
    kind = s3.param("list-type") or "1"
    if not kind.isascii() or not kind.lstrip("-").isdigit():
        raise invalid_argument("list-type", kind, "Argument list-type must be an integer")
    if int(kind) == 2:
        asked.kind = 2
        asked.owners = (s3.param("fetch-owner") or "").lower() in ("true", "1", "yes", "on", "t", "y")
        if s3.param("start-after") is not None:
            query["marker"] = text_param(s3, "start-after")
        if (token := s3.param("continuation-token")) is not None:
            query["marker"] = _marker_of(token)
    elif s3.param("marker") is not None:
        query["marker"] = text_param(s3, "marker")
    return asked


def text_param(s3: S3Request, name: str) -> str:
    """A parameter that is text in UTF-8."""
    value = s3.param(name) or ""
    if "\ufffd" in value or "\0" in value:
        raise invalid_argument(name, quote(value))
    return value


def _ask_versions(s3: S3Request, query: dict[str, str]) -> None:
    query["versions"] = "true"
    marker, version = s3.param("key-marker"), s3.param("version-id-marker")
    if marker is not None:
        query["marker"] = text_param(s3, "key-marker")
    if version is None:
        return
    if marker is None:
        message = "A version-id marker cannot be specified without a key marker."
        raise invalid_argument("version-id-marker", version, message)
    if version != "null":
        try:
            Timestamp.parse(version)
        except ValueError:
            raise invalid_argument("version-id-marker", version, "Invalid version id specified") from None
    query["version_marker"] = version


def _marker_of(token: str) -> str:
    try:
        return base64.b64decode(token, validate=True).decode()
    except (binascii.Error, ValueError):
        message = "The continuation token provided is incorrect"
        raise invalid_argument("continuation-token", quote(token), message) from None


def _head_of_version_1(s3: S3Request, asked: Asked, last: str) -> list[str]:
    told = [leaf("Marker", asked.name(s3.param("marker") or ""))]
    if last and s3.param("delimiter") is not None:
        told.append(leaf("NextMarker", asked.name(last)))
    return told


def _head_of_version_2(s3: S3Request, asked: Asked, last: str, count: int) -> list[str]:
    told = []
    if last:
        told.append(leaf("NextContinuationToken", base64.b64encode(last.encode()).decode()))
    if (token := s3.param("continuation-token")) is not None:
        told.append(leaf("ContinuationToken", token))
    if (start := s3.param("start-after")) is not None:
        told.append(leaf("StartAfter", asked.name(start)))
    told.append(leaf("KeyCount", str(count)))
    return told


def _head_of_versions(s3: S3Request, asked: Asked, last: str, found: list[dict[str, Any]]) -> list[str]:
    told = [leaf("KeyMarker", asked.name(s3.param("key-marker") or ""))]
    told.append(leaf("VersionIdMarker", s3.param("version-id-marker") or ""))
    if last:
        told.append(leaf("NextKeyMarker", asked.name(last)))
        told.append(leaf("NextVersionIdMarker", found[-1].get("version_id") or "null"))
    return told


def _entry(asked: Asked, one: dict[str, Any], owner: str) -> str:
    if "subdir" in one:
        return node("CommonPrefixes", leaf("Prefix", asked.name(one["subdir"])))
    told, kind = [leaf("Key", asked.name(one["name"]))], "Contents"
    marker = asked.kind == "versions" and one.get("content_type") == DELETE_MARKER
    if asked.kind == "versions":
        kind = "DeleteMarker" if marker else "Version"
        told.append(leaf("VersionId", one.get("version_id") or "null"))
        told.append(leaf("IsLatest", "true" if one.get("is_latest", True) else "false"))
    told.append(leaf("LastModified", in_xml(one["last_modified"])))
    if not marker:
        told.append(leaf("ETag", listed_etag(one)))
        told.append(leaf("Size", str(one["bytes"])))
    if asked.owners:
        told.append(owner)
    if not marker:
        told.append(leaf("StorageClass", "STANDARD"))
    return node(kind, *told)


def listed_etag(one: dict[str, Any]) -> str:
    """The entity tag of an object in a listing, as S3 tells it."""
    etag = str(one["hash"])
    if own := one.get("s3_etag"):
        return str(own)
    if own := _S3_ETAG.search(etag):
        return f'"{own[1]}"'
    if own := one.get("slo_etag"):
        return '"' + str(own).strip('"') + '-N"'
    if own := _SLO_ETAG.search(etag):
        return f'"{own[1]}-N"'
    return etag if len(etag) > 1 and etag[0] == etag[-1] == '"' else f'"{etag}"'
