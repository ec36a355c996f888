"""No query string, path, header or malformed body gets a 500 or no answer at all; a body that is too large is a 413."""

import http.client
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cumulet import program
from cumulet.api.http import MAX_BODY, Endpoint
from cumulet.api.resource import ResourceMeta
from cumulet.api.service import Service
from tests.authz.scene import Scene

FUZZ = settings(
    max_examples=10, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
TIMEOUT = 20.0
"""Seconds that any answer may take, on a machine that is busy with other things."""

Call = tuple[Service, Endpoint]

NAMES = [
    "limit", "marker", "sort_key", "sort_dir", "sort", "fields", "page_reverse", "name", "id", "status", "visibility",
    "all_tenants", "changes-since", "changes-before", "project_id", "tenant_id", "user_id", "host", "ip", "deleted",
    "resources", "required", "member_of", "in_tree", "uuid", "group_policy", "resources1", "owner", "member_status",
    "size_min", "size_max", "created_at", "tags", "tags-any", "not-tags", "fixed_ips", "scope.project.id", "effective",
    "include_names", "include_subtree", "name__contains", "flavor", "image", "minDisk", "is_public", "reserved", "detailed",
    "usages", "hypervisor_hostname_pattern", "with_servers", "binary", "length", "tag", "os_hidden", "domain_id",
]  # fmt: skip
VALUES = [
    "", "0", "-1", "1", "1.5", "9" * 30, "9" * 5000, "1e999", "nan", "true", "None", "null", "\x00", "a\x00b", "💥", "a" * 4000,
    "'", '"', "%", "_", "\\", "asc", "desc", "name:asc", "name,id", ":", ",", "in:", "in:a,b", "gt:2020", "lte:x", "gt:",
    "2020-01-01T00:00:00Z", "9999-99-99", "0001-01-01T00:00:00+23:59", "VCPU:1", "VCPU:0", "VCPU:", "!CUSTOM_A", "*", "(", "[a",
    "ip_address=10.0.0.1", "subnet_id=x", "ip_address", "300.1.1.1", "::", "٣", "\ud7ff", "../../etc/passwd",
]  # fmt: skip
RAW = ["&", "=", "&&==&", "%", "%zz", "%ff%fe", "a=%00&a=%ff", "a[]=1", "?", "#", ";", "a;b=c", "+" * 50, "a=1&" * 3000]
IDS = [
    "%00", "%ff", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a" * 3000, "%F0%9F%92%A5", "00000000000040008000000000000000",
    "{id}", "'", "%25s", "-1", "0", "9" * 400, "%20", "null", "a%0Ab", "%2F", ".", "~", "*",
]  # fmt: skip
VERSIONS = [
    "", "compute", "compute 2.1", "compute 2.999", "compute 99999999999.1", "compute " + "9" * 5000 + ".1",
    "compute 2.²".encode().decode("latin-1"),
    "compute -1.0", "compute latest", "placement 1.99", "placement 1.", "placement latest", "placement x.y", "1.1",
    "compute 2.1, compute 2.2", ",,,", "compute 2.1\t", "💥".encode().decode("latin-1"),
]  # fmt: skip


def calls(*methods: str) -> Iterator[Call]:
    for service in program.SERVICES:
        for endpoint in service.endpoints:
            if endpoint.method in methods and not (service.type == "compute" and endpoint.path.startswith("/v2/")):
                yield service, endpoint


def label(call: Call) -> str:
    service, endpoint = call
    return f"{service.type} {endpoint.method} {endpoint.path} {endpoint.action}".strip()


class Line:
    """A connection that sends what it is told to, as no library would."""

    def __init__(self, scene: Scene, service: Service) -> None:
        self.address = urlsplit(scene.cloud.url(service.ports[0])).netloc
        self.token = scene.tokens["admin"]
        self._connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT)

    def close(self) -> None:
        self._connection.close()

    def send(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """Status and body of the answer; fails for a 500, and where there is none in time."""
        chunked = isinstance(body, list)
        sent = {"X-Auth-Token": self.token, "Content-Type": "application/json"}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        if chunked:
            sent["Transfer-Encoding"] = "chunked"
        self._connection.request(method, path, body, sent, encode_chunked=chunked)  # type: ignore[arg-type]
        reply = self._connection.getresponse()
        data = reply.read()
        if reply.will_close:
            self._connection.close()
        assert reply.status not in (500, 502, 504), f"{method} {path[:300]}: {reply.status} {data[:300]!r}"
        return reply.status, data


def concrete(endpoint: Endpoint, scene: Scene) -> str:
    """The endpoint's path with ids of real things, as far as they are known by the segment before."""

    def place(found: re.Match[str]) -> str:
        kind = found[1].rstrip("s").replace("-", "_")
        return f"{found[1]}/{scene[kind] if kind in ('network', 'server', 'router', 'port', 'image', 'user') else 'default'}"

    return re.sub(r"\{[^}]*\}", "default", re.sub(r"([a-z-]+)/\{[^}]*\}", place, endpoint.path))


def names_of(endpoint: Endpoint) -> list[str]:
    cls = endpoint.resource
    return NAMES + ([f.wire for f in cls.fields] if isinstance(cls, ResourceMeta) else [])


@pytest.mark.parametrize("call", list(calls("GET")), ids=label)
def test_no_query_gets_a_500(call: Call, scene: Scene) -> None:
    service, endpoint = call
    path = concrete(endpoint, scene)
    newest = {}
    if service.microversions is not None:
        newest["OpenStack_API_Version"] = f"{service.microversions.service} latest"
    pair = st.tuples(st.sampled_from(names_of(endpoint)), st.sampled_from(VALUES) | st.text(max_size=20))
    sane = st.lists(pair, min_size=1, max_size=4).map(
        lambda pairs: urlencode([(k, v.encode(errors="replace")) for k, v in pairs])
    )

    @FUZZ
    @given(query=sane | sane | sane | st.sampled_from(RAW), latest=st.booleans())
    def send(query: str, latest: bool) -> None:
        line.send("GET", f"{path}?{query}", **(newest if latest else {}))

    with closing(Line(scene, service)) as line:
        send()


@pytest.mark.parametrize("call", [c for c in calls("GET", "DELETE", "PUT", "PATCH") if "{" in c[1].path], ids=label)
def test_no_path_gets_a_500(call: Call, scene: Scene) -> None:
    service, endpoint = call
    body = b"{}" if endpoint.method in ("PUT", "PATCH") else None
    with closing(Line(scene, service)) as line:
        for key in IDS:
            line.send(endpoint.method, key.join(re.split(r"\{[^}]*\}", endpoint.path)), body)


@pytest.mark.parametrize("service", program.SERVICES, ids=lambda s: s.type)
def test_no_version_gets_a_500(service: Service, scene: Scene) -> None:
    paths = [e.path for e in service.endpoints if e.method == "GET" and "{" not in e.path]
    with closing(Line(scene, service)) as line:
        for path in (paths[0], paths[-1]):
            for version in VERSIONS:
                line.send("GET", path, OpenStack_API_Version=version)
                line.send("GET", path, X_OpenStack_Nova_API_Version=version.removeprefix("compute "))


@pytest.mark.parametrize("service", program.SERVICES, ids=lambda s: s.type)
@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v3\xff\xfe HTTP/1.1\r\nHost: x",
        b"GET /?name=\xff\xfe HTTP/1.1\r\nHost: x",
        b"GET / HTTP/1.1\r\nHost: \xff\xfe",
        b"GET /v2.0/networks HTTP/1.1\r\nHost: \xff\xfe\r\nX-Auth-Token: \xff\xfe",
        b'GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: \xff\r\nX-Forwarded-Host: a b\xff"',
        b"GET http://[::1/ HTTP/1.1\r\nHost: x",
        b"\xff\xfe / HTTP/1.1\r\nHost: x",
        b"GET / HTTP/9.9\r\nHost: x",
        b"POST /v3/auth/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: -1",
        b"POST /v3/auth/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999",
        b"POST /v3/auth/tokens HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 100_000,
    ],
    ids=range(13),
)
def test_no_bytes_get_a_500(sent: bytes, service: Service, scene: Scene) -> None:
    host, port = urlsplit(scene.cloud.url(service.ports[0])).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as raw:
        raw.sendall(sent + b"\r\nConnection: close\r\n\r\n")
        answer = raw.recv(1 << 16)
    assert re.match(rb"HTTP/1\.[01] ([234]\d\d|501|505) ", answer), answer[:300]


DEEP = 10_000
MALFORMED: dict[str, object] = {
    "nothing": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "a NUL": b"\x00",
    "a BOM": b"\xef\xbb\xbf{}",
    "a lone surrogate": b'{"name": "\\ud800"}',
    "a huge number": b'{"a": ' + b"9" * 5000 + b"}",
    "a huge exponent": b'{"a": 1e999999}',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "almost deep lists": b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}",
    "unclosed lists": b"[" * DEEP,
    "a list": b"[]",
    "null": b"null",
    "text": b'"text"',
    "twice the same key": b'{"a": 1, "a": 2}',
    "in chunks": [b'{"a', b'": ', b"1}"],
    "no chunk": [],
}


KINDS = ("", "text/plain", "application/xml", "application/json; charset=utf-16", "a/b; " + "x" * 5000, "\xf0\x9f\x92")


@pytest.mark.parametrize("call", list(calls("POST", "PUT", "PATCH")), ids=label)
def test_no_malformed_body_gets_a_500(call: Call, scene: Scene) -> None:
    service, endpoint = call
    path, action = concrete(endpoint, scene), endpoint.action.encode()
    with closing(Line(scene, service)) as line:
        for body in MALFORMED.values():
            line.send(endpoint.method, path, body)
            if action and isinstance(body, bytes):
                line.send(endpoint.method, path, b'{"%s": %s}' % (action, body))
        for kind in KINDS:
            line.send(endpoint.method, path, b"{}", Content_Type=kind)


def takes_body(endpoint: Endpoint) -> bool:
    return bool(endpoint.body or endpoint.action or (endpoint.resource and endpoint.method == "POST"))


@pytest.mark.parametrize("call", [c for c in calls("POST", "PUT", "PATCH") if takes_body(c[1])], ids=label)
def test_a_body_that_is_too_large_is_a_413(call: Call, scene: Scene) -> None:
    service, endpoint = call
    path, headers = concrete(endpoint, scene), {}
    if service.microversions is not None:
        until = min(endpoint.until, service.microversions.high)
        headers["OpenStack_API_Version"] = f"{service.microversions.service} {until[0]}.{until[1]}"
    large = b'{"a": "' + b"a" * MAX_BODY + b'"}'
    with closing(Line(scene, service)) as line:
        for body in (large, [large[: 1 << 19], large[1 << 19 :]]):
            status, _ = line.send(endpoint.method, path, body, **headers)
            assert status in (413, 403, 404), status  # who may not, or names nothing, is told that first
