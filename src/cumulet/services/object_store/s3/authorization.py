"""Who signed a request of S3, and what exactly he signed: versions 2 and 4 of the signature, in headers or in the URL.

References: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html and, of version 2,
https://docs.aws.amazon.com/AmazonS3/latest/userguide/RESTAuthentication.html
"""

import hashlib
import re
import time
from calendar import timegm
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_tz
from urllib.parse import quote, unquote_to_bytes

from cumulet.services.identity.interface import AccessKey
from cumulet.services.object_store.message import Request
from cumulet.services.object_store.s3.errors import S3Error, invalid_argument

V4 = "AWS4-HMAC-SHA256"
SKEW = 900
"""Seconds that a client's clock may differ from this one."""
LONGEST = 7 * 86400
"""Seconds for which a URL may be signed."""
UNSIGNED = "UNSIGNED-PAYLOAD"
SUB_RESOURCES = {
    "accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory", "lifecycle", "location", "logging",
    "metrics", "notification", "object-lock", "partNumber", "policy", "publicAccessBlock", "replication", "requestPayment",
    "response-cache-control", "response-content-disposition", "response-content-encoding", "response-content-language",
    "response-content-type", "response-expires", "restore", "select", "select-type", "storageClass", "tagging", "torrent",
    "uploadId", "uploads", "versionId", "versioning", "versions", "website",
}  # fmt: skip
"""The parameters that version 2 signs."""
_MUST_BE_SIGNED = ("x-amz-copy", "x-amz-acl", "x-amz-grant", "x-amz-meta")
_CONTROL = re.compile("^[\x00-\x20]*|[\x00-\x20]*$")
_NO_DATE = "AWS authentication requires a valid Date or x-amz-date header"


@dataclass(slots=True)
class Signed:
    """A request's signature. `text` is what was signed, `canonical` (of version 4) what its hash was made of; `in_query`: it
    is a URL that somebody was given. `scope` and `date` are what signatures of chunks begin with."""

    version: int
    access: str
    signature: str
    text: bytes
    in_query: bool = False
    date: str = ""
    scope: str = ""
    canonical: bytes = b""
    also: bytes = b""  # what some clients sign instead

    def verified(self, key: AccessKey) -> bool:
        """Whether the request was signed with this key."""
        if key.verifies(self.text, self.signature):
            return True
        return bool(self.also) and key.verifies(self.also, self.signature)

    def mismatch(self) -> S3Error:
        """The refusal of a wrong signature, with all that helps to find out why it is wrong."""
        info = {
            "AWSAccessKeyId": self.access,
            "StringToSign": self.text.decode(errors="replace"),
            "SignatureProvided": self.signature,
            "StringToSignBytes": self.text.hex(" "),
        }
        if self.version == 4:
            info["CanonicalRequest"] = self.canonical.decode(errors="replace")
            info["CanonicalRequestBytes"] = self.canonical.hex(" ")
        return S3Error("SignatureDoesNotMatch", **info)


def access_key(request: Request) -> str | None:
    """Whose key a request is signed with; None where it is no request of S3."""
    header = request.headers.get("Authorization", "")
    if header.startswith("AWS "):
        return header[4:].rpartition(":")[0]
    if header.startswith(f"{V4} "):
        return header.partition("Credential=")[2].partition("/")[0]
    raw = request.query.raw
    if "AWSAccessKeyId" in raw or "X-Amz-Credential" in raw:
        if (found := request.query.get("AWSAccessKeyId")) is not None:
            return found
        if (found := request.query.get("X-Amz-Credential")) is not None:
            return found.partition("/")[0]
    return None


def signed(request: Request, bucket_in_host: str, region: str) -> Signed:
    """What a request says of its signature; S3Error where that is malformed, too old or too new."""
    if "X-Amz-Credential" in request.query or request.headers.get("Authorization", "").startswith(f"{V4} "):
        return _version_4(request, region)
    return _version_2(request, bucket_in_host)


# ---- version 2 ----------------------------------------------------------------------------------------------------------


def _version_2(request: Request, bucket_in_host: str) -> Signed:
    query = request.query
    in_query = "AWSAccessKeyId" in query
    if in_query:
        access, signature = query.get("AWSAccessKeyId") or "", query.get("Signature") or ""
        expires = _check_expires(query.get("Expires"))
        if not (access and signature):
            raise S3Error("AccessDenied")
    else:
        expires = ""
        _check_skew(_moment(request.headers.get("X-Amz-Date") or request.headers.get("Date")))
        header = request.headers.get("Authorization", "")
        if ":" not in header:
            raise S3Error("AccessDenied")
        access, _, signature = header[4:].rpartition(":")
    path = f"/{bucket_in_host}{request.raw_path}" if bucket_in_host else request.raw_path
    text, also = _text_2(request, path, expires, in_query), b""
    if path.count("/") == 1 and path != "/":
        also = _text_2(
            request, f"{path}/", expires, in_query
        )  # botocore signs a bucket so, and sends it without the slash
    return Signed(2, access, signature, text, in_query, also=also)


def _check_expires(told: str | None) -> str:
    try:
        moment = float(told or "")
    except ValueError:
        raise S3Error("AccessDenied") from None
    if not moment >= time.time():
        raise S3Error("AccessDenied", "Request has expired")
    if moment >= 2**31:
        raise S3Error("AccessDenied", f"Invalid date (should be seconds since epoch): {told}")
    return told or ""


def _text_2(request: Request, path: str, expires: str, in_query: bool) -> bytes:
    headers = request.headers
    amazon: dict[str, list[str]] = {}
    for name, value in headers.items():
        low = name.lower().strip()
        if low.startswith("x-amz-"):
            amazon.setdefault(low, []).append(value.strip())
    date = expires if in_query else ("" if "x-amz-date" in amazon else headers.get("Date", ""))
    lines = [request.method, _stripped(headers.get("Content-MD5")), _stripped(headers.get("Content-Type")), date]
    lines += [f"{name}:{','.join(values)}" for name, values in sorted(amazon.items())]
    params = sorted((name, value) for name, value in request.query.pairs if name in SUB_RESOURCES)
    tail = "&".join(f"{name}={value}" if value else name for name, value in params)
    lines.append(f"{path}?{tail}" if tail else path)
    return _bytes("\n".join(lines))


# ---- version 4 ----------------------------------------------------------------------------------------------------------


def _version_4(request: Request, region: str) -> Signed:
    in_query = "X-Amz-Credential" in request.query
    if in_query:
        moment = _check_presigned(request)
        credential, names, signature = _of_query(request)
    else:
        moment = _moment(request.headers.get("X-Amz-Date") or request.headers.get("Date"), iso=True)
        _check_skew(moment)
        credential, names, signature = _of_header(request.headers.get("Authorization", ""))
    date = datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%SZ")
    access, scope = _scope(credential, date[:8], region, in_query)
    canonical = _canonical(request, names)
    text = f"{V4}\n{date}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}".encode()
    return Signed(4, access, signature, text, in_query, date, scope, canonical)


def _of_header(header: str) -> tuple[str, list[str], str]:
    """(the credential, the names of the signed headers, the signature)."""
    credential = header.partition("Credential=")[2].partition(",")[0].strip()
    _check_credential(credential)
    signature = header.partition("Signature=")[2].partition(",")[0].strip()
    if not signature:
        raise S3Error("AccessDenied")
    names = header.partition("SignedHeaders=")[2].partition(",")[0].strip()
    if not names:
        raise S3Error("AuthorizationHeaderMalformed")
    return credential, names.split(";"), signature


def _of_query(request: Request) -> tuple[str, list[str], str]:
    query = request.query
    if query.get("X-Amz-Algorithm") != V4:
        raise invalid_argument("X-Amz-Algorithm", query.get("X-Amz-Algorithm") or "")
    credential, signature = query.get("X-Amz-Credential") or "", query.get("X-Amz-Signature")
    _check_credential(credential)
    if not signature:
        raise S3Error("AccessDenied")
    names = query.get("X-Amz-SignedHeaders")
    if names is None:
        raise S3Error("AuthorizationHeaderMalformed")
    return credential, names.split(";"), signature


def _check_credential(credential: str) -> None:
    if credential.count("/") != 4 or credential.startswith("/"):
        raise S3Error("AccessDenied")


def _scope(credential: str, date: str, region: str, in_query: bool) -> tuple[str, str]:
    """(the access key, the scope) of a credential; refused where it is none of this place and this day."""
    access, *told = credential.split("/")
    code = "AuthorizationQueryParametersError" if in_query else "AuthorizationHeaderMalformed"
    begin = "Error parsing the X-Amz-Credential parameter" if in_query else "The authorization header is malformed"
    if told[0] != date:
        raise S3Error(code, f'Invalid credential date "{told[0]}". This date is not the same as X-Amz-Date: "{date}".')
    if told[1] not in (region, region.lower()):
        raise S3Error(code, f"{begin}; the region '{told[1]}' is wrong; expecting '{region}'", Region=region)
    if told[2] != "s3":
        raise S3Error(code, f'{begin}; incorrect service "{told[2]}". This endpoint belongs to "s3".')
    if told[3] != "aws4_request":
        raise S3Error(code, f'{begin}; incorrect terminal "{told[3]}". This endpoint uses "aws4_request".')
    return access, "/".join(told)


def _check_presigned(request: Request) -> float:
    """When a URL was signed; refused where it is not good any more."""
    told = request.query.get("X-Amz-Expires")
    if told is None:
        raise S3Error("AccessDenied")
    code = "AuthorizationQueryParametersError"
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", told.strip()) or int(told) >= 2**63:
        raise S3Error(code, "X-Amz-Expires should be a number")
    if int(told) < 0:
        raise S3Error(code, "X-Amz-Expires must be non-negative")
    if int(told) > LONGEST:
        raise S3Error(
            code,
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than "
            f"{LONGEST} seconds",
        )
    moment = _moment(request.query.get("X-Amz-Date") or request.headers.get("X-Amz-Date"), iso=True)
    if moment + int(told) < time.time():
        raise S3Error("AccessDenied", "Request has expired")
    return moment


def _canonical(request: Request, names: list[str]) -> bytes:
    """The canonical form of a request, whose hash is signed."""
    wanted = set(names)
    sent: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        low = name.lower().strip()
        sent.setdefault(low, []).append(" ".join(_stripped(value).split()))
        if low not in wanted and low.startswith(_MUST_BE_SIGNED):
            raise S3Error(
                "AccessDenied", "There were headers present in the request which were not signed", HeadersNotSigned=low
            )
    if not wanted <= sent.keys():
        raise S3Error("SignatureDoesNotMatch")
    lines = "".join(f"{name}:{','.join(sent[name])}\n" for name in sorted(wanted))
    path = quote(unquote_to_bytes(request.raw_path), safe="-_.~/")
    payload = request.headers.get("X-Amz-Content-SHA256", UNSIGNED)
    parts = (request.method, path, _canonical_query(request), lines, ";".join(sorted(wanted)), payload)
    return _bytes("\n".join(parts))


def _canonical_query(request: Request) -> str:
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in request.query.pairs
        if name not in ("Signature", "X-Amz-Signature")
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


# ---- times and text -----------------------------------------------------------------------------------------------------


def _moment(told: str | None, iso: bool = False) -> float:
    """A time as clients tell it, in seconds since 1970."""
    found = None
    if told:
        try:
            parsed = parsedate_tz(told)
            if parsed is not None:
                found = timegm(parsed[:9]) - (parsed[9] or 0)
            else:
                found = timegm(time.strptime(told, "%Y%m%dT%H%M%SZ" if iso else "%Y-%m-%dT%H:%M:%S"))
        except (ValueError, OverflowError, TypeError, IndexError):
            found = None
    if found is None or found < 0:
        raise S3Error("AccessDenied", _NO_DATE)
    if found > 253402300799:
        raise S3Error("RequestTimeTooSkewed")
    return found


def _check_skew(moment: float) -> None:
    if abs(moment - time.time()) > SKEW:
        raise S3Error("RequestTimeTooSkewed")


def _stripped(value: str | None) -> str:
    return _CONTROL.sub("", value or "")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
