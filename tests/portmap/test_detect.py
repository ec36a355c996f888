"""What answers on a port is told right: of real servers, of TLS, of what keeps silent, of nothing."""

import asyncio
import json
import socket
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulet.portmap.check import Target, check
from cumulet.portmap.detect import EXPECTED, Finding, detect, detect_udp, recognise, version_document
from tests.cloud import free_port
from tests.portmap import servers
from tests.portmap.servers import BROKER, http, needs, serving


def look(port: int, expected: str = "http", timeout: float = 30.0) -> Finding:
    return asyncio.run(detect("127.0.0.1", port, expected, timeout))


def judged(port: int, component: str, service: str = "", timeout: float = 30.0) -> Any:
    target = Target(host="127.0.0.1", port=port, protocol="tcp", component=component, service=service)
    return asyncio.run(check([target], timeout=timeout))[0]


REAL = [
    pytest.param(servers.mariadb, "mysqld", "MariaDB", marks=needs("mariadbd", "mariadb-install-db"), id="mariadb"),
    pytest.param(servers.rabbitmq, "rabbitmq-server", "AMQP 0-9-1", marks=needs(str(BROKER), "epmd"), id="rabbitmq"),
    pytest.param(servers.tgt, "iSCSI target", "iSCSI login", marks=needs("tgtd"), id="tgt"),
    pytest.param(servers.rsync, "rsyncd", "@RSYNCD: 3", marks=needs("rsync"), id="rsync"),
    pytest.param(servers.qemu_screen, "qemu (VNC, SPICE)", "RFB 003.008", marks=needs("qemu-system-x86_64"), id="qemu"),
]


@pytest.mark.parametrize(("server", "component", "words"), REAL)
def test_real_servers_are_known(server: Any, component: str, words: str, tmp_path: Path) -> None:
    started: AbstractContextManager[int] = server(tmp_path)
    with started as port:
        found = look(port, EXPECTED[component])
        assert (found.state, found.speaks) == ("open", EXPECTED[component])
        assert words in found.detail
        assert judged(port, component).problem == ""
        wrong = judged(port, "nova-api", "compute", timeout=3)
        assert not wrong.agrees
        assert "nova-api would speak http, but what answers" in wrong.problem


def test_tls_is_told_with_its_certificate(tmp_path: Path) -> None:
    body = json.dumps({"versions": [{"id": "v2.0", "links": []}]}).encode()
    with serving(http(body), servers.certificate(tmp_path, 90)) as port:
        found = look(port)
        assert found.speaks == "https"
        assert found.service == "network"
        assert found.certificate is not None
        assert found.certificate.names == ("cloud.test",)
        assert found.certificate.days_left == 89
        assert judged(port, "neutron-server", "network").problem == ""


@pytest.mark.parametrize(("days", "words"), [(10.5, "expires in 10 days"), (-3, "has expired")])
def test_a_certificate_near_its_end_is_a_problem(tmp_path: Path, days: float, words: str) -> None:
    with serving(http(b"{}"), servers.certificate(tmp_path, days)) as port:
        assert words in judged(port, "nova-api", "compute").problem


def test_a_server_that_wants_tls_and_says_so_in_the_clear(tmp_path: Path) -> None:
    context = servers.certificate(tmp_path, 90)

    def answer(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) == b"\x16":
            with context.wrap_socket(connection, server_side=True) as inner:
                http(b"{}")(inner)
        else:
            http(b"The plain HTTP request was sent to HTTPS port", b"400 Bad Request", b"text/html")(connection)

    with serving(answer) as port:
        assert look(port).speaks == "https"


def test_silence_closed_and_filtered_are_told_apart() -> None:
    free = free_port()
    assert look(free).state == "closed"

    def silent(connection: socket.socket) -> None:
        while connection.recv(4096):
            pass

    with serving(silent) as port:
        found = look(port, timeout=1.5)
        assert found.state == "open"
        assert "nothing that is known" in found.detail
        assert "nova-api would speak http" in judged(port, "nova-api", "compute", timeout=3).problem
    assert judged(free, "nova-api", "compute").problem == "nothing listens there"


def test_another_service_in_the_place_of_one_is_a_problem() -> None:
    body = json.dumps({"versions": [{"id": "v2.0"}, {"id": "v2.1"}]}).encode()
    with serving(http(body)) as port:
        assert judged(port, "nova-api", "compute").problem == ""
        wrong = judged(port, "neutron-server", "network")
        assert wrong.problem == "network is declared here, but compute answers"


def test_udp_is_told_as_far_as_it_can_be() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        silent = sock.getsockname()[1]
        found = asyncio.run(detect_udp("127.0.0.1", silent, 0.3))
        assert found.state == "open|filtered"
        assert "UDP does not tell" in found.problem
    assert asyncio.run(detect_udp("127.0.0.1", silent, 1)).state == "closed"


DOCUMENTS = {
    "identity": {"versions": {"values": [{"id": "v3.14", "media-types": [{"type": "application/vnd.openstack.identity-v3"}]}]}},
    "compute": {"versions": [{"id": "v2.0"}, {"id": "v2.1", "version": "2.96"}]},
    "image": {"versions": [{"id": f"v2.{n}"} for n in range(17, -1, -1)]},
    "network": {"versions": [{"id": "v2.0", "status": "CURRENT"}]},
    "placement": {"versions": [{"id": "v1.0", "max_version": "1.39", "min_version": "1.0"}]},
    "orchestration": {"versions": [{"id": "v1.0", "status": "CURRENT"}]},
    "block-storage": {"versions": [{"id": "v3.0", "version": "3.71"}]},
}  # fmt: skip


@pytest.mark.parametrize("service", list(DOCUMENTS))
def test_version_documents_tell_services_apart(service: str) -> None:
    assert version_document(json.dumps(DOCUMENTS[service]).encode())[0] == service


@given(st.binary(max_size=300))
def test_whatever_is_answered_is_no_fault_of_ours(data: bytes) -> None:
    recognise(data)
    service, words = version_document(data)
    assert isinstance(service, str)
    assert isinstance(words, str)


def test_an_http_answer_in_chunks_is_read() -> None:
    body = json.dumps(DOCUMENTS["network"]).encode()
    parts = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)

    def answer(connection: socket.socket) -> None:
        if connection.recv(4096):
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + parts)

    with serving(answer) as port:
        assert look(port).service == "network"
