"""What really answers on a port: connect, listen for a greeting, or say the first words of the protocol that is expected.

Nothing is changed on the other side: no login, no write. Protocols: HTTP and OpenStack's version documents, TLS (RFC 8446)
with its certificate, the greetings of MySQL, RFB (RFC 6143), rsync and SSH (RFC 4253), AMQP 0-9-1's header, an iSCSI login
(RFC 7143), memcached, Redis and epmd.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

LIMIT = 65536
"""Bytes read of an answer."""

OPEN, CLOSED, FILTERED, UNCERTAIN = "open", "closed", "filtered", "open|filtered"


class Certificate(Struct, frozen=True, kw_only=True):
    """A server's certificate: whom it names, and until when it is valid (RFC 3339)."""

    subject: str
    names: tuple[str, ...]
    expires: str
    days_left: int


class Finding(Struct, frozen=True, kw_only=True):
    """What a port said. `speaks` is a protocol (`http`, `mysql`, ...) or empty; `detail` a few words of its own."""

    state: str
    speaks: str = ""
    detail: str = ""
    service: str = ""  # the OpenStack service whose version document it gave
    certificate: Certificate | None = None
    problem: str = ""
    milliseconds: float = 0.0


EXPECTED = {
    "mysqld": "mysql", "rabbitmq-server": "amqp", "iSCSI target": "iscsi", "qemu (VNC, SPICE)": "rfb", "rsyncd": "rsync",
    "sshd": "ssh", "sshd (nova)": "ssh", "memcached": "memcached", "redis-server": "redis", "rabbitmq-server (epmd)": "epmd",
    "object-server": "http", "container-server": "http", "account-server": "http",
}  # fmt: skip
"""The protocols of components that are no HTTP servers (and of storage nodes)."""

FIRST_WORDS: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: cumulet-ports\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
    "amqp": b"AMQP\x00\x00\x09\x01",
    "memcached": b"version\r\n",
    "redis": b"PING\r\n",
    "epmd": b"\x00\x01n",
}
SPEAK_FIRST = ("mysql", "rfb", "rsync", "ssh")


def iscsi_login() -> bytes:
    """A login PDU for a discovery session: whatever the target says of it, only a target answers in this form."""
    text = b"InitiatorName=iqn.2026-01.cumulet:ports\x00SessionType=Discovery\x00AuthMethod=None\x00"
    data = text + b"\x00" * (-len(text) % 4)
    isid, task, cmd_sn = b"\x40\x00\x01\x37\x00\x00", 1, 1
    header = b"\x43\x81\x00\x00\x00" + len(text).to_bytes(3, "big") + isid
    return header + struct.pack(">HIHHII16x", 0, task, 0, 0, cmd_sn, 0) + data


RECOGNISE: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("rfb", lambda d: d.startswith(b"RFB ")),
    ("rsync", lambda d: d.startswith(b"@RSYNCD:")),
    ("ssh", lambda d: d.startswith(b"SSH-")),
    ("http", lambda d: d.startswith(b"HTTP/")),
    ("amqp", lambda d: d.startswith((b"AMQP", b"\x01\x00\x00\x00\x00"))),
    ("mysql", lambda d: len(d) > 5 and d[3] in (0, 1) and (d[4] == 10 or d[4] == 0xFF) and b"\x00" in d[5:]),
    ("iscsi", lambda d: len(d) >= 48 and d[0] & 0x3F in (0x23, 0x3F)),
    ("memcached", lambda d: d.startswith(b"VERSION ")),
    ("redis", lambda d: d.startswith((b"+PONG", b"-NOAUTH", b"-DENIED"))),
    ("epmd", lambda d: len(d) >= 4 and d[:4] == b"\x00\x00\x11\x11"),
)


async def detect(host: str, port: int, expected: str = "http", timeout: float = 2.0) -> Finding:
    """What answers on a TCP port. `expected` is asked for first; where something else answers, the usual others are tried."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        found = await _ask(host, port, expected, timeout)
    except TimeoutError:
        found = Finding(
            state=FILTERED, problem=f"no answer within {timeout:g} s: a firewall drops it, or the host is down"
        )
    except ConnectionRefusedError:
        found = Finding(state=CLOSED, problem="nothing listens there")
    except OSError as error:
        found = Finding(state=FILTERED, problem=(error.strerror or str(error)).lower())
    return msgspec.structs.replace(found, milliseconds=round((loop.time() - began) * 1000, 1))


async def _ask(host: str, port: int, expected: str, timeout: float) -> Finding:
    """Connect within `timeout`. What then is silent is open: it is given half of the time to speak the expected protocol, and
    a little for each of the others."""
    patience, last = timeout / 2, b""
    for protocol in dict.fromkeys((expected, "http", "tls", "amqp")):
        if protocol == "tls":
            finding = await _tls(host, port, timeout, patience)
            if finding is not None:
                return finding
            continue
        last = await _exchange(host, port, protocol, timeout, patience) or last
        patience = timeout / 6
        name = recognise(last)
        if name == "http" and b"HTTPS" in last:  # a server that wants TLS, and says so in the clear
            continue
        if name is not None:
            return _described(name, last)
    told = repr(last[:40])[2:-1]
    return Finding(state=OPEN, detail=f"says {told!r}" if told else "says nothing that is known here")


def recognise(data: bytes) -> str | None:
    """The protocol that an answer is of."""
    return next((name for name, fits in RECOGNISE if data and fits(data)), None)


async def _exchange(
    host: str, port: int, protocol: str, timeout: float, patience: float, context: ssl.SSLContext | None = None
) -> bytes:
    """Connect, say the protocol's first words, and read the answer (a greeting, where the server speaks first)."""
    reader, writer = await _connect(host, port, timeout, context)
    try:
        if protocol not in SPEAK_FIRST:
            words = iscsi_login() if protocol == "iscsi" else FIRST_WORDS.get(protocol, b"")
            writer.write(words.replace(b"%s", host.encode()) if protocol == "http" else words)
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(patience):
                return await (_whole(reader) if protocol == "http" else reader.read(LIMIT))
        return b""
    finally:
        await _hang_up(writer)


async def _connect(
    host: str, port: int, timeout: float, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(timeout):
        return await asyncio.open_connection(host, port, ssl=context, server_hostname=host if context else None)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # nobody waits for what a silent server would still say
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """An HTTP answer to its end (the request asked for the connection to be closed), or a greeting that is none."""
    parts = [await reader.read(LIMIT)]
    if parts[0].startswith(b"HTTP/"):
        while (more := await reader.read(LIMIT)) and sum(map(len, parts)) < LIMIT:
            parts.append(more)
    return b"".join(parts)


async def _tls(host: str, port: int, timeout: float, patience: float) -> Finding | None:
    """Whether TLS is spoken, with the certificate and what is inside; None where it is not."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # which certificate it is, is what we want to know
    try:
        _, writer = await _connect(host, port, patience, context)
    except (TimeoutError, OSError):  # it was connected to before, so this is about TLS
        return None
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    await _hang_up(writer)
    answer = await _exchange(host, port, "http", timeout, timeout / 2, context)
    inner = _described("http", answer) if recognise(answer) == "http" else Finding(state=OPEN)
    return msgspec.structs.replace(
        inner,
        speaks="https" if inner.speaks else "tls",
        certificate=read_certificate(certificate) if certificate else None,
    )


def read_certificate(data: bytes) -> Certificate:
    """What a certificate (DER) says."""
    from cryptography import x509

    read = x509.load_der_x509_certificate(data)
    names: tuple[str, ...] = ()
    with contextlib.suppress(x509.ExtensionNotFound):
        extension = read.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(str(name.value) for name in extension.value)
    end = read.not_valid_after_utc
    return Certificate(
        subject=read.subject.rfc4514_string(),
        names=names,
        expires=end.isoformat(),
        days_left=(end - datetime.now(UTC)).days,
    )


def _described(name: str, data: bytes) -> Finding:
    """A finding in the protocol's own words."""
    if name == "http":
        status = data.split(b"\r\n", 1)[0].decode("latin-1")[9:60]
        service, versions = version_document(data.partition(b"\r\n\r\n")[2])
        return Finding(state=OPEN, speaks="http", detail=versions or status, service=service)
    if name == "mysql":
        text = data[5:].split(b"\x00", 1)[0] if data[4] == 10 else data[7:]
        return Finding(state=OPEN, speaks="mysql", detail=text.decode("latin-1")[:60])
    if name in ("rfb", "rsync", "ssh", "memcached"):
        return Finding(state=OPEN, speaks=name, detail=data.split(b"\n", 1)[0].decode("latin-1").strip()[:60])
    return Finding(
        state=OPEN, speaks=name, detail={"amqp": "AMQP 0-9-1", "iscsi": "answers an iSCSI login"}.get(name, "")
    )


def version_document(body: bytes) -> tuple[str, str]:
    """(the service that a version document is of, its versions in words); two empty texts where it is none."""
    try:
        document = msgspec.json.decode(_dechunked(body))
    except msgspec.DecodeError:
        return "", ""
    versions = _versions(document)
    ids = [str(version["id"]) for version in versions]
    return (_service_of(versions, ids), "versions " + ", ".join(ids[:6])) if ids else ("", "")


def _service_of(versions: list[dict[str, Any]], ids: list[str]) -> str:
    """The service that has just these versions, of those whose documents tell them apart."""
    if any("identity" in str(version.get("media-types")) for version in versions):
        return "identity"
    if set(ids) <= {"v2.0", "v2.1"} and "v2.1" in ids:
        return "compute"
    if any(id == "v3.0" for id in ids):
        return "block-storage"
    if ids == ["v2.0"]:
        return "network"
    if ids == ["v1.0"]:
        return "placement" if versions[0].get("max_version") else "orchestration"
    return "image" if len(ids) > 2 and all(id.startswith("v2.") for id in ids) else ""


def _dechunked(body: bytes) -> bytes:
    """The body without the lengths of chunked transfer, where it has them (RFC 9112, 7.1)."""
    if body[:1] in (b"{", b"["):
        return body
    start, end = body.find(b"{"), body.rfind(b"}")
    return re.sub(rb"\r\n[0-9a-fA-F]+\r\n", b"", body[start : end + 1])


def _versions(document: Any) -> list[dict[str, Any]]:
    """The versions that a document lists: `{"versions": [...]}`, `{"versions": {"values": [...]}}`, `{"version": {...}}`."""
    if not isinstance(document, dict):
        return []
    found = document.get("versions", [document.get("version")])
    if isinstance(found, dict):
        found = found.get("values")
    return [v for v in found if isinstance(v, dict) and "id" in v] if isinstance(found, list) else []


async def detect_udp(host: str, port: int, timeout: float = 1.0) -> Finding:
    """Whether a UDP port is open. Without an answer nobody can tell an open one from one that a firewall drops."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    class Probe(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _address: Any) -> None:
            if not answer.done():
                answer.set_result(data)

        def error_received(self, error: Exception) -> None:
            if not answer.done():
                answer.set_exception(error)

    family = socket.AF_INET6 if ":" in host else socket.AF_UNSPEC
    try:
        transport, _ = await loop.create_datagram_endpoint(Probe, remote_addr=(host, port), family=family)
    except OSError as error:
        return Finding(state=FILTERED, problem=(error.strerror or str(error)).lower())
    try:
        transport.sendto(UDP_WORDS.get(port, b"\x00"))
        data = await asyncio.wait_for(answer, timeout)
        return Finding(state=OPEN, detail=f"answered {len(data)} bytes")
    except TimeoutError:
        return Finding(state=UNCERTAIN, problem="no answer: open, or a firewall drops it; UDP does not tell")
    except ConnectionRefusedError:
        return Finding(state=CLOSED, problem="nothing listens there")
    except OSError as error:
        return Finding(state=FILTERED, problem=(error.strerror or str(error)).lower())
    finally:
        transport.close()


UDP_WORDS = {
    53: b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07version\x04bind\x00\x00\x10\x00\x03",  # DNS: version.bind
    123: b"\x23" + bytes(47),  # NTP: a client's request
}
