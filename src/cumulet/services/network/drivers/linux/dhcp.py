"""DHCP, DNS and router advertisements: a dnsmasq per network and per IPv6 router, which outlives the program.

Files, in a directory each: `dnsmasq.conf` (a change restarts it), `hosts` and `names` (read anew on SIGHUP),
`leases`, `pid`. A process is ours if its command line names our `dnsmasq.conf`; nothing else is ever signalled.
"""

import ipaddress
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

from cumulet.services.network.drivers import DataplaneError, Network, Subnet
from cumulet.services.network.drivers.linux.bridge import BRIDGE, METADATA_ADDRESS
from cumulet.services.network.drivers.linux.command import run

DOMAIN = "openstacklocal"
LEASE = 86400
"""Seconds of a lease."""

ADVERTISE = 60
"""Seconds between router advertisements."""

CAPABILITIES = "-all,+net_admin,+net_raw,+net_bind_service,+setgid"
PRIVILEGES = ("setpriv", f"--bounding-set={CAPABILITIES}", "--inh-caps=-all", "--no-new-privs")
"""dnsmasq stays root, as its files may lie where only root comes, but may do no more than its work needs."""


def configuration(network: Network, directory: Path) -> str:
    """dnsmasq.conf of a network; empty if it has no subnet with DHCP."""
    subnets = [subnet for subnet in network.subnets if subnet.dhcp_address]
    if not subnets or not network.admin_state_up:
        return ""
    lines = [
        f"interface={BRIDGE}", "except-interface=lo", "bind-interfaces", "user=root", "group=root",
        "no-hosts", "no-resolv", "no-ping", "dhcp-authoritative", "dhcp-ignore=tag:!known", "log-facility=/dev/null",
        f"pid-file={directory}/pid", f"dhcp-leasefile={directory}/leases",
        f"dhcp-hostsfile={directory}/hosts", f"addn-hosts={directory}/names",
        f"domain={DOMAIN}", f"local=/{DOMAIN}/", "expand-hosts", "dhcp-lease-max=65536",
        f"dhcp-option-force=option:mtu,{network.mtu}",
    ]  # fmt: skip
    servers = dict.fromkeys(server for subnet in subnets for server in subnet.dns_nameservers)
    lines += [f"server={server}" for server in servers]
    for number, subnet in enumerate(subnets):
        lines += _subnet_lines(subnet, f"subnet{number}", network.mtu)
    return "\n".join(lines) + "\n"


def _subnet_lines(subnet: Subnet, tag: str, mtu: int) -> Iterator[str]:
    net = ipaddress.ip_network(subnet.cidr, strict=False)
    if isinstance(net, ipaddress.IPv6Network):
        yield "enable-ra"
        # Lifetime 0: br0 announces the prefix but is nobody's way out.
        yield f"ra-param={BRIDGE},mtu:{mtu},{ADVERTISE},0"
        yield _range6(subnet, tag)
        servers = [f"[{server}]" for server in subnet.dns_nameservers if ":" in server] or [f"[{subnet.dhcp_address}]"]
        yield f"dhcp-option=tag:{tag},option6:dns-server,{','.join(servers)}"
        return
    yield f"dhcp-range=set:{tag},{net.network_address},static,{net.netmask},{LEASE}"
    routes = [f"{METADATA_ADDRESS}/32,{subnet.dhcp_address}"]
    routes += [f"{route.destination},{route.nexthop}" for route in subnet.host_routes]
    if subnet.gateway_ip:
        routes.append(f"0.0.0.0/0,{subnet.gateway_ip}")
    yield f"dhcp-option=tag:{tag},option:router" + (f",{subnet.gateway_ip}" if subnet.gateway_ip else "")
    # 249 is what 121 is called by Windows before Vista.
    yield from (f"dhcp-option=tag:{tag},{code},{','.join(routes)}" for code in (121, 249))
    four = [server for server in subnet.dns_nameservers if ":" not in server] or [str(subnet.dhcp_address)]
    yield f"dhcp-option=tag:{tag},option:dns-server,{','.join(four)}"


def _range6(subnet: Subnet, tag: str) -> str:
    """What is announced of an IPv6 subnet: addresses of the guests' own making, or only by DHCPv6."""
    net = ipaddress.ip_network(subnet.cidr, strict=False)
    mode = {"slaac": "ra-only", "dhcpv6-stateless": "ra-stateless"}.get(subnet.ipv6_mode or "", "static")
    lease = f",{LEASE}" if mode == "static" else ""
    return f"dhcp-range=set:{tag},{net.network_address},{mode},{net.prefixlen}{lease}"


def hosts(network: Network) -> tuple[str, str]:
    """The `hosts` file (MAC, address, name: who is answered) and the `names` file (what DNS answers)."""
    served = {subnet.id for subnet in network.subnets if subnet.dhcp_address}
    leases, names = [], []
    for port in network.ports:
        for fixed in port.fixed_ips:
            address = fixed.ip_address
            plain = "host-" + address.replace(".", "-").replace(":", "-").strip("-")
            name = port.hostname or plain
            names.append(f"{address} {plain}" + (f" {name}" if name != plain else ""))
            if fixed.subnet_id in served and port.admin_state_up:
                leases.append(f"{port.mac.lower()},{f'[{address}]' if ':' in address else address},{name}")
    return "".join(f"{line}\n" for line in leases), "".join(f"{line}\n" for line in names)


def ensure(network: Network, directory: Path, *, first: bool) -> None:
    """Have dnsmasq serve the network as it is now, in the thread's namespace; `first` as in `serve`."""
    wanted = configuration(network, directory)
    leases, names = hosts(network) if wanted else ("", "")
    serve(directory, wanted, leases, names, first=first)


def ensure_advertisements(legs: list[tuple[str, int, Subnet]], directory: Path, *, first: bool) -> None:
    """Have a router announce itself, in the thread's namespace, by its legs (device, MTU, subnet) as the way out."""
    lines = []
    for number, (device, mtu, subnet) in enumerate(legs):
        lines += [f"interface={device}", f"ra-param={device},mtu:{mtu},{ADVERTISE},{30 * ADVERTISE}"]
        lines.append(_range6(subnet, f"leg{number}"))
    if lines:
        common = ["port=0", "enable-ra", "except-interface=lo", "bind-interfaces", "user=root", "group=root"]
        lines = [*common, "dhcp-ignore=tag:!known", "log-facility=/dev/null", f"pid-file={directory}/pid", *lines]
        lines.append(f"dhcp-leasefile={directory}/leases")
    serve(directory, "".join(f"{line}\n" for line in lines), "", "", first=first)


def serve(directory: Path, wanted: str, leases: str, names: str, *, first: bool) -> None:
    """Have one dnsmasq run, in the thread's namespace, with these files; none without a configuration.

    `first` says that nothing is known of what a process has read: it is told to read its files again.
    """
    if not wanted:
        remove(directory)
        return
    directory.mkdir(parents=True, exist_ok=True)
    process = running(directory)
    path = directory / "dnsmasq.conf"
    if process is not None and (_read(path) != wanted or _stale_leases(directory, leases)):
        # Ended before the new configuration is written: a crash in between leaves no process with an old one.
        _end(process, directory)
        process = None
    changed = [_write(directory / "hosts", leases), _write(directory / "names", names), _write(path, wanted)]
    if process is None:
        if first:
            end_all(directory)  # one that was being started when the program was killed
        _prune(directory, leases)
        run((*PRIVILEGES, "dnsmasq", f"--conf-file={path}"))
    elif first or any(changed):
        _signal(process, directory, signal.SIGHUP)


def remove(directory: Path) -> None:
    """End a network's dnsmasq and delete its files. Nothing there: no effect."""
    process = running(directory)
    if process is not None:
        _end(process, directory)
    for name in ("dnsmasq.conf", "hosts", "names", "leases", "pid"):
        (directory / name).unlink(missing_ok=True)


def running(directory: Path) -> int | None:
    """The process that serves from this directory, if it lives."""
    try:
        process = int((directory / "pid").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return process if _is_ours(process, directory) else None


def adopt(root: Path) -> dict[Path, list[int]]:
    """All dnsmasq processes whose configuration lies below `root`, by directory; mends a missing pid file."""
    found: dict[Path, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        for word in _command_line(int(entry)):
            path = Path(word.removeprefix("--conf-file="))
            if word.startswith("--conf-file=") and (root == path.parent or root in path.parents):
                found.setdefault(path.parent, []).append(int(entry))
    for directory, processes in found.items():
        if directory.is_dir() and running(directory) is None:
            (directory / "pid").write_text(f"{processes[0]}\n")
    return found


def end_all(root: Path) -> None:
    """End every dnsmasq whose configuration lies below `root`."""
    for directory, processes in adopt(root).items():
        for process in processes:
            _end(process, directory)


def _command_line(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is_ours(process: int, directory: Path) -> bool:
    return f"--conf-file={directory}/dnsmasq.conf" in _command_line(process)


def _signal(process: int, directory: Path, number: signal.Signals) -> None:
    """Signal a process through a handle that cannot come to mean another one."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        if not _is_ours(process, directory):
            return
        signal.pidfd_send_signal(handle, number)
        if number is signal.SIGHUP or _ended(handle):
            return
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not _ended(handle):
            raise DataplaneError(f"dnsmasq (process {process}) of {directory} does not end")
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def _ended(handle: int) -> bool:
    """Whether a process comes to its end within 5 seconds."""
    return bool(select.select([handle], [], [], 5.0)[0])


def _end(process: int, directory: Path) -> None:
    _signal(process, directory, signal.SIGTERM)


def _lease_lines(directory: Path) -> list[str]:
    return (_read(directory / "leases") or "").splitlines()


def _stale(line: str, wanted: dict[str, str]) -> bool:
    """Whether a lease gives an address to a MAC that is not its owner (any more)."""
    fields = line.split()
    return len(fields) >= 3 and fields[2] in wanted and wanted[fields[2]] != fields[1].lower()


def _owners(leases: str) -> dict[str, str]:
    return {line.split(",")[1]: line.split(",")[0] for line in leases.splitlines()}


def _stale_leases(directory: Path, leases: str) -> bool:
    """Whether dnsmasq remembers an address as leased to another MAC: it would refuse it to the new owner for a day."""
    lines = _lease_lines(directory)
    owners = _owners(leases) if lines else {}
    return any(_stale(line, owners) for line in lines)


def _prune(directory: Path, leases: str) -> None:
    """Drop stale leases from the file; only while no dnsmasq runs on it."""
    owners = _owners(leases)
    kept = [line for line in _lease_lines(directory) if not _stale(line, owners)]
    (directory / "leases").write_text("".join(f"{line}\n" for line in kept))


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _write(path: Path, text: str) -> bool:
    """Write a file as a whole unless it says so already; whether it changed."""
    if _read(path) == text:
        return False
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.replace(path)
    return True
