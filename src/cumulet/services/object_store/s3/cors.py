"""Which other sites' pages may use a bucket: GET|PUT|DELETE /bucket?cors, OPTIONS, and headers of all replies to such pages.

The rules are kept in the bucket's system metadata. Browsers ask before they send a signed request, with one that is not signed
and so does not say whose bucket it is about, unless it is a signed URL: then the bucket's rules hold, else the setting
`s3_cors_origins`.
Reference: https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html
"""

import json
import re
from typing import Any

import msgspec
from msgspec import Struct

from cumulet.services.object_store.message import Request, Response
from cumulet.services.object_store.proxy.info import container_info
from cumulet.services.object_store.s3.errors import S3Error
from cumulet.services.object_store.s3.request import BUCKET_SYSMETA, S3Request, account_of, xml_reply
from cumulet.services.object_store.s3.xml import Shape, document, leaf, node, value

LARGEST = 64 * 1024
MOST_KEPT = 8100
"""Bytes that the rules may take where they are kept: those of a header that every server takes."""
METHODS = {"GET", "PUT", "HEAD", "POST", "DELETE"}
ALLOWED = "GET, HEAD, PUT, POST, DELETE, OPTIONS"
SHAPE: Shape = {
    "CORSRule": (
        "+",
        {
            "ID": ("?", None),
            "AllowedOrigin": ("+", None),
            "AllowedMethod": ("+", None),
            "AllowedHeader": ("*", None),
            "ExposeHeader": ("*", None),
            "MaxAgeSeconds": ("?", None),
        },
    )
}


class CorsRule(Struct, omit_defaults=True):
    """Pages of which origins may use which methods, send and see which headers."""

    origins: list[str]
    methods: list[str]
    headers: list[str] = []
    exposed: list[str] = []
    age: int | None = None
    id: str = ""

    def allows(self, origin: str, method: str, headers: list[str]) -> bool:
        return (
            method in self.methods
            and any(matches(pattern, origin) for pattern in self.origins)
            and all(any(matches(pattern.lower(), header) for pattern in self.headers) for header in headers)
        )


_decode = msgspec.json.Decoder(list[CorsRule]).decode


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern, in which one `*` stands for anything, is that of a text."""
    begin, star, end = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(begin) + len(end) and text.startswith(begin) and text.endswith(end)


def kept(value: Any) -> str:
    """A value as it is kept in a header: JSON, of ASCII alone."""
    return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


async def put_cors(s3: S3Request) -> Response:
    """Set a bucket's rules."""
    s3.key = ""
    found = await s3.xml("CORSConfiguration", SHAPE, LARGEST)
    if found is None:
        raise S3Error("MalformedXML")
    rules = [_rule(one) for one in found]
    text = kept(rules)
    if len(text) > MOST_KEPT:
        raise S3Error("InvalidRequest", f"The rules are too long: {MOST_KEPT} characters of them are kept.")
    await s3.ask("POST", headers={f"{BUCKET_SYSMETA}Cors": text})
    return Response(200)


def _rule(one: Any) -> CorsRule:
    def texts(name: str) -> list[str]:
        return [(child.text or "").strip() for child in one.iterfind(name)]

    rule = CorsRule(texts("AllowedOrigin"), texts("AllowedMethod"), texts("AllowedHeader"), texts("ExposeHeader"))
    rule.id = value(one, "ID")
    for method in rule.methods:
        if method not in METHODS:
            raise S3Error(
                "InvalidRequest", f"Found unsupported HTTP method in CORS config. Unsupported method is {method}"
            )
    for pattern in (*rule.origins, *rule.headers):
        if pattern.count("*") > 1:
            raise S3Error("InvalidRequest", f'"{pattern}" can not have more than one wildcard.')
    age = value(one, "MaxAgeSeconds").strip()
    if age:
        if not re.fullmatch("[0-9]{1,9}", age):
            raise S3Error("MalformedXML")
        rule.age = int(age)
    return rule


async def get_cors(s3: S3Request) -> Response:
    """Show a bucket's rules."""
    s3.key = ""
    found = await s3.ask("HEAD")
    rules = _rules(found.headers.get(f"{BUCKET_SYSMETA}Cors", ""))
    if not rules:
        raise S3Error("NoSuchCORSConfiguration", BucketName=s3.bucket)
    return xml_reply(document("CORSConfiguration", *map(_shown, rules)))


def _shown(rule: CorsRule) -> str:
    told = [leaf("ID", rule.id)] if rule.id else []
    told += [leaf("AllowedOrigin", one) for one in rule.origins] + [leaf("AllowedMethod", one) for one in rule.methods]
    told += [leaf("AllowedHeader", one) for one in rule.headers] + [leaf("ExposeHeader", one) for one in rule.exposed]
    told += [leaf("MaxAgeSeconds", str(rule.age))] if rule.age is not None else []
    return node("CORSRule", *told)


async def delete_cors(s3: S3Request) -> Response:
    """Remove a bucket's rules."""
    s3.key = ""
    await s3.ask("POST", headers={f"{BUCKET_SYSMETA}Cors": ""})
    return Response(204)


def _rules(text: str) -> list[CorsRule]:
    try:
        return _decode(text) if text else []
    except msgspec.DecodeError:
        return []


# ---- requests of pages --------------------------------------------------------------------------------------------------


async def preflight(layer: Any, request: Request, access: str | None = None) -> Response:
    """What a browser asks before it sends a request of a page's."""
    origin = request.headers.get("Origin", "")
    method = request.headers.get("Access-Control-Request-Method", "")
    headers = [part.strip().lower() for part in request.headers.get("Access-Control-Request-Headers", "").split(",")]
    headers = [header for header in headers if header]
    if access is not None and origin and method:
        rules = await _rules_of(layer, request, access)
        rule = next((rule for rule in rules if rule.allows(origin, method, headers)), None)
        if rule is not None:
            response = Response(200)
            _allow(response, rule, origin, headers)
            return response
        if rules:
            return S3Error("AccessDenied", "CORSResponse: This CORS request is not allowed.").reply(request.transaction)
    wanted = {part.strip() for part in layer.service.kernel.settings.s3_cors_origins.split(",") if part.strip()}
    of_s3 = access is not None or ("authorization" in headers and not request.raw_path.startswith(("/v1/", "/v1.0/")))
    if not wanted or not of_s3:
        forwarded: Response = await layer.app(request)
        return forwarded
    if "*" not in wanted and origin not in wanted:
        return Response(401, b"", {"Allow": ALLOWED})
    response = Response(200, b"", {"Allow": ALLOWED, "Access-Control-Allow-Origin": origin})
    response.headers["Access-Control-Allow-Methods"] = ALLOWED
    response.headers["Vary"] = "Origin, Access-Control-Request-Headers"
    if headers:
        response.headers["Access-Control-Allow-Headers"] = ", ".join(sorted(set(headers)))
    return response


async def _rules_of(layer: Any, request: Request, access: str) -> list[CorsRule]:
    """The rules of the bucket that a signed URL is about. Its signature is not looked at: nothing else is told."""
    key = await layer.service.identity.access_key(access)
    bucket, _ = layer.place(request)
    if key is None or not bucket:
        return []
    account = account_of(layer.service, key.caller)
    about = request.sub("HEAD", source="S3", trusted=True, version="v1", account=account)
    found = await container_info(layer.app, about, bucket, account)
    return _rules(found.headers.get(f"{BUCKET_SYSMETA}Cors", ""))


async def decorate(s3: S3Request, response: Response) -> None:
    """Tell a browser that a page may see this reply, if the bucket's rules say so."""
    origin = s3.headers["Origin"]
    try:
        found = await s3.info()
    except S3Error:
        return
    for rule in _rules(found.headers.get(f"{BUCKET_SYSMETA}Cors", "")):
        if rule.allows(origin, s3.method, []):
            _allow(response, rule, origin, [])
            return


def _allow(response: Response, rule: CorsRule, origin: str, headers: list[str]) -> None:
    everybody = "*" in rule.origins
    told = response.headers
    told["Access-Control-Allow-Origin"] = "*" if everybody else origin
    if not everybody:
        told["Access-Control-Allow-Credentials"] = "true"
    told["Access-Control-Allow-Methods"] = ", ".join(rule.methods)
    told["Vary"] = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"
    if headers:
        told["Access-Control-Allow-Headers"] = ", ".join(headers)
    if rule.exposed:
        told["Access-Control-Expose-Headers"] = ", ".join(rule.exposed)
    if rule.age is not None:
        told["Access-Control-Max-Age"] = str(rule.age)
