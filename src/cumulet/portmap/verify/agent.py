"""What runs on each host while connections are proven: it answers on ports, tries ports, and tells which rule stopped a packet.

It is sent as text and run by the host's own Python (3.7 or newer, standard library only), reads one JSON request a line and
answers each with a line. It writes no file, and takes back the one table of nftables that it makes; it ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import subprocess
import sys
import threading
import time
from typing import Any

TRACE = "cumulet_trace"
WORD = b"cumulet\n"
AT_ONCE = 256
PATIENCE = 20.0  # seconds for nft to tell of all packets, where the host is busy
HELD: dict[tuple[str, int], socket.socket] = {}  # (protocol, port) -> socket of ours


def listen(ports: list[tuple[str, int]]) -> dict[str, str]:
    """Answer on each (protocol, port) that is free: {"tcp/8774": "process" | "responder" | why not}."""
    found = {}
    for protocol, port in ports:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        sock = socket.socket(socket.AF_INET6, kind)
        try:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if protocol == "tcp":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("::", port))
            if protocol == "tcp":
                sock.listen(16)
        except OSError as error:
            sock.close()
            in_use = error.errno == 98
            found[f"{protocol}/{port}"] = "process" if in_use else f"nothing: {error.strerror}"
            continue
        HELD[protocol, port] = sock
        found[f"{protocol}/{port}"] = "responder"
    return found


def serve() -> None:
    """Answer whoever comes to our sockets."""
    while True:
        held = list(HELD.items())
        ready, _, _ = select.select([sock for _, sock in held], [], [], 0.1)
        for (protocol, _), sock in held:
            if sock in ready:
                with contextlib.suppress(OSError):
                    if protocol == "tcp":
                        connection, _ = sock.accept()
                        connection.sendall(WORD)
                        connection.close()
                    else:
                        _, peer = sock.recvfrom(64)
                        sock.sendto(WORD, peer)


def close(_nothing: None) -> None:
    """Let go of every port."""
    while HELD:
        HELD.popitem()[1].close()


def probe(request: dict[str, Any]) -> list[str]:
    """Try (protocol, address, port): "open", "closed" (refused), "filtered" (no answer) or "open|filtered" (UDP)."""
    timeout = request["timeout"]
    results = [""] * len(request["targets"])

    def one(index: int, protocol: str, address: str, port: int) -> None:
        results[index] = _tcp(address, port, timeout) if protocol == "tcp" else _udp(address, port, timeout)

    threads = [threading.Thread(target=one, args=(i, *t)) for i, t in enumerate(request["targets"])]
    for start in range(0, len(threads), AT_ONCE):
        for thread in threads[start : start + AT_ONCE]:
            thread.start()
        for thread in threads[start : start + AT_ONCE]:
            thread.join()
    return results


def _tcp(address: str, port: int, timeout: float) -> str:
    try:
        socket.create_connection((address, port), timeout).close()
        return "open"
    except TimeoutError:
        return "filtered"
    except ConnectionRefusedError:
        return "closed"
    except OSError:
        return "filtered"


def _udp(address: str, port: int, timeout: float) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect((address, port))
            sock.send(b"\0")
            sock.recv(64)
            return "open"
        except TimeoutError:
            return "open|filtered"
        except ConnectionRefusedError:
            return "closed"
        except OSError:
            return "filtered"


def listening(_nothing: None) -> list[tuple[str, int]]:
    """The (protocol, port) pairs on which processes of this host wait, on addresses that others reach."""
    found: set[tuple[str, int]] = set()
    for protocol, state in (("tcp", "0A"), ("udp", "07")):
        for suffix in ("", "6"):
            with contextlib.suppress(OSError), open(f"/proc/net/{protocol}{suffix}") as table:
                for line in list(table)[1:]:
                    fields = line.split()
                    address, port = fields[1].split(":")
                    local = address in ("0100007F", "00000000000000000000000001000000")
                    if fields[3] == state and not local and (protocol, int(port, 16)) not in HELD:
                        found.add((protocol, int(port, 16)))
    return sorted(found)


TRACER: list[subprocess.Popen[str]] = []
PACKET = re.compile(
    r"trace id (\S+) .* packet: .*?ip6? saddr (\S+) ip6? daddr (\S+) .*?(tcp|udp) sport \d+ .*?dport (\d+)"
)
DROP = re.compile(r"trace id (\S+) (.*?) \(?(verdict|policy) (drop|reject)")
REJECT = re.compile(r"trace id (\S+) (.* reject\b.*)")


def trace(request: dict[str, Any]) -> str:
    """Have nftables tell what becomes of packets to and from other hosts, until `traced` is asked. "" or why it cannot.

    `packets` are [protocol, the other's address, port].
    """
    lines = [f"table inet {TRACE} {{"]
    for hook, side in (("prerouting", "saddr"), ("output", "daddr")):
        lines += [f"chain {hook} {{", f"type filter hook {hook} priority -350"]
        for protocol, address, port in request[hook]:
            family = "ip6" if ":" in address else "ip"
            lines.append(f"{family} {side} {address} {protocol} dport {port} meta nftrace set 1")
        lines.append("}")
    try:
        untrace()
        done = subprocess.run(["nft", "-f", "-"], input="\n".join([*lines, "}", ""]), stderr=subprocess.PIPE, text=True)
        if done.returncode:
            return done.stderr.strip().splitlines()[0]
        tracer = subprocess.Popen(["nft", "monitor", "trace"], stdout=subprocess.PIPE, universal_newlines=True)
        TRACER.append(tracer)
        while tracer.poll() is None and not _hears(tracer.pid):
            time.sleep(0.01)
    except OSError as error:
        return f"nft: {error.strerror}"
    return ""


def _sockets(pid: int) -> list[list[str]]:
    """The sockets of a process in netfilter's netlink family (12): in column 3 their groups, in 4 what is unread."""
    with open("/proc/net/netlink") as table:
        rows = [line.split() for line in list(table)[1:]]
    return [row for row in rows if row[1] == "12" and row[2] == str(pid)]


def _hears(pid: int) -> bool:
    """Whether a process has joined a group: only then it is told of packets."""
    return any(int(row[3], 16) for row in _sockets(pid))


def _has_told(pid: int) -> bool:
    """Whether a process has read all that it was told, and waits for more."""
    with open(f"/proc/{pid}/stat") as stat:
        state = stat.read().rpartition(") ")[2][:1]
    return state == "S" and all(row[4] == "0" for row in _sockets(pid))


def traced(seconds: float) -> list[list[str]]:
    """What nftables told: for each packet seen its protocol, source, destination and port, and the rule (or policy) that
    dropped it, "" if none did."""
    if not TRACER:
        return []
    tracer = TRACER.pop()
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(tracer.stdout or ()), daemon=True)
    reader.start()
    time.sleep(seconds)  # what it prints has no end of its own
    until = time.monotonic() + PATIENCE
    while tracer.poll() is None and not _has_told(tracer.pid) and time.monotonic() < until:
        time.sleep(0.01)
    tracer.kill()
    reader.join(2)
    tracer.wait()
    if tracer.stdout is not None:
        tracer.stdout.close()
    untrace()
    packets: dict[str, tuple[str, str, str, str]] = {}
    dropped: dict[str, str] = {}
    for line in lines:
        packet, drop, reject = PACKET.match(line), DROP.match(line), REJECT.match(line)
        if packet:
            packets[packet[1]] = (packet[4], packet[2], packet[3], packet[5])
        if drop:
            dropped[drop[1]] = drop[2] + (" (policy drop)" if drop[3] == "policy" else "")
        elif reject:
            dropped[reject[1]] = reject[2]
    return [[*packet, dropped.get(id, "")] for id, packet in packets.items()]


def untrace() -> None:
    with contextlib.suppress(OSError):
        subprocess.run(["nft", "delete", "table", "inet", TRACE], stderr=subprocess.DEVNULL)


COMMANDS: dict[str, Any] = {
    "listen": listen,
    "close": close,
    "probe": probe,
    "listening": listening,
    "trace": trace,
    "traced": traced,
}


def main() -> None:
    threading.Thread(target=serve, daemon=True).start()
    sys.stdout.write(json.dumps("ready") + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        name, argument = json.loads(line)
        sys.stdout.write(json.dumps(COMMANDS[name](argument)) + "\n")
        sys.stdout.flush()
    for tracer in TRACER:
        tracer.kill()
        untrace()


if __name__ == "__main__":
    main()
