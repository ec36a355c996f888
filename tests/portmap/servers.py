"""Servers of other make, each started on free ports of loopback with files of its own, and ended by its id."""

import contextlib
import datetime
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cloud import free_port

BROKER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None and not Path(name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextmanager
def running(
    command: Sequence[str],
    ready: Callable[[], bool],
    directory: Path,
    env: Mapping[str, str] | None = None,
    wait: float = 90,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server until `ready`; in the end it and its children are ended by their process group's id."""
    with open(directory / "server.log", "ab") as log:
        process = subprocess.Popen(
            list(command), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, **(env or {})}, cwd=directory,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + wait
            while not ready():
                assert process.poll() is None, (directory / "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline, (directory / "server.log").read_text()[-2000:]
                time.sleep(0.05)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def mariadb(directory: Path) -> Iterator[int]:
    port, data = free_port(), directory / "data"
    common = ["--no-defaults", f"--datadir={data}"]
    subprocess.run(
        ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"],
        check=True, capture_output=True,
    )  # fmt: skip
    command = ["mariadbd", *common, "--user=root", f"--port={port}", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=8M",
               f"--socket={directory}/s", f"--pid-file={directory}/pid"]  # fmt: skip
    with running(command, lambda: answers(port), directory):
        yield port


@contextmanager
def rabbitmq(directory: Path) -> Iterator[int]:
    port, mapper = free_port(), free_port()
    directory.chmod(0o755)
    env = {
        "HOME": str(directory), "RABBITMQ_NODENAME": "ports@localhost", "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_MNESIA_BASE": str(directory / "db"),
        "RABBITMQ_LOG_BASE": str(directory / "log"), "RABBITMQ_DIST_PORT": str(free_port()), "ERL_EPMD_PORT": str(mapper),
        "RABBITMQ_PID_FILE": str(directory / "pid"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null", "RABBITMQ_CONFIG_FILE": str(directory / "none"), "ERL_EPMD_ADDRESS": "127.0.0.1",
    }  # fmt: skip
    # Its name server would stay behind as a daemon, so it is started first, as a process of ours.
    with (
        running(["epmd", "-port", str(mapper), "-address", "127.0.0.1"], lambda: answers(mapper), directory, env),
        running([str(BROKER)], lambda: answers(port), directory, env),
    ):
        yield port


@contextmanager
def tgt(directory: Path) -> Iterator[int]:
    port, control = free_port(), str(os.getpid() % 30000 + 1)

    def admin(*arguments: str) -> None:
        subprocess.run(["tgtadm", "-C", control, *arguments], check=True, capture_output=True)

    command = ["tgtd", "-f", "--control-port", control, "--iscsi", f"portal=127.0.0.1:{port}"]
    with running(command, lambda: answers(port), directory):
        # Without a target it hangs up on everybody.
        name = "iqn.2026-01.cumulet:test"
        admin("--lld", "iscsi", "--op", "new", "--mode", "target", "--tid", "1", "-T", name)
        try:
            yield port
        finally:
            admin("--lld", "iscsi", "--op", "delete", "--mode", "target", "--tid", "1")
            admin("--op", "delete", "--mode", "system")
    for left in Path("/var/run/tgtd").glob(f"socket.{control}*"):
        left.unlink()


@contextmanager
def rsync(directory: Path) -> Iterator[int]:
    port = free_port()
    (directory / "rsyncd.conf").write_text("use chroot = no\n")
    command = ["rsync", "--daemon", "--no-detach", f"--port={port}", "--address=127.0.0.1",
               f"--config={directory}/rsyncd.conf"]  # fmt: skip
    with running(command, lambda: answers(port), directory):
        yield port


@contextmanager
def qemu_screen(directory: Path) -> Iterator[int]:
    display = free_port() - 5900
    while not 0 < display < 50000:
        display = free_port() - 5900
    command = ["qemu-system-x86_64", "-M", "none", "-display", "none", "-nodefaults", "-vnc", f"127.0.0.1:{display}"]
    with running(command, lambda: answers(5900 + display), directory):
        yield 5900 + display


@contextmanager
def serving(answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server of a few lines: `answer` gets each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def http(body: bytes, status: bytes = b"200 OK", type: bytes = b"application/json") -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        if connection.recv(4096):
            head = (
                b"HTTP/1.1 " + status + b"\r\nContent-Type: " + type + b"\r\nContent-Length: " + str(len(body)).encode()
            )
            connection.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)

    return answer


def certificate(directory: Path, days: float) -> ssl.SSLContext:
    """A server's context with a certificate of its own that ends in so many days."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cloud.test")])
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(end - datetime.timedelta(days=400)).not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("cloud.test")]), critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = directory / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + made.public_bytes(serialization.Encoding.PEM)
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
