"""A port in plain words: what it is, who connects to it and from where, whether to expose it, what it collides with."""

from collections.abc import Iterable

from msgspec import Struct

from cumulet.listeners import ephemeral_range
from cumulet.portmap.facts import OWN, UPSTREAM, Facts, Flow, PortFact, overlap, read_neighbours

FROM = {
    "public": "clients outside the cloud",
    "internal": "the cloud's own hosts",
    "storage": "the storage network",
    "tenant": "tenants' networks",
    "admin": "whoever administers the hosts",
    "local": "the same host only",
}
NO_AUTHENTICATION = frozenset({
    "object-server", "container-server", "account-server", "rsyncd", "memcached", "qemu (VNC, SPICE)", "qemu (serial)",
    "etcd", "redis-server", "iSCSI target", "NVMe-oF target", "rabbitmq-server (epmd)",
})  # fmt: skip
"""Components that by default believe whoever connects."""


class Explanation(Struct, frozen=True, kw_only=True):
    """What is said of one port of one component. Texts are sentences for people."""

    port: str
    protocol: str
    component: str
    service: str
    state: str
    about: str
    callers: dict[str, list[str]]  # network -> components
    exposure: str
    elsewhere: list[str]
    collisions: list[str]
    notes: list[str]
    sources: list[str]


def explain(facts: Facts, wanted: str) -> list[Explanation]:
    """What is known of a port (`8774`), a component (`nova-api`) or a service (`compute`); nothing is an empty list.

    Rows of several eras and dialects that say the same of one component become one explanation.
    """
    if wanted.isdecimal():
        rows = facts.at(int(wanted))
    else:
        rows = [r for r in facts.ports if wanted.lower() in (r.component.lower(), r.service.lower(), r.project.lower())]
    groups: dict[tuple[str, str, str], list[PortFact]] = {}
    for row in rows:
        groups.setdefault((row.component, row.port, row.protocol), []).append(row)
    return [_explain(facts, group) for group in groups.values()]


def _explain(facts: Facts, rows: list[PortFact]) -> Explanation:
    row = min(rows, key=lambda r: (r.dialect != OWN, r.dialect != UPSTREAM, r.era))
    component = facts.by_name.get(row.component)
    flows = [flow for r in rows for flow in facts.flows_to(r)]
    callers: dict[str, list[str]] = {}
    for flow in flows:
        if flow.source not in callers.setdefault(flow.network, []):
            callers[flow.network].append(flow.source)
    states = {r.state for r in rows}
    return Explanation(
        port=row.port, protocol=row.protocol, component=row.component, service=row.service,
        state="listed" if states & {"listed", "planned"} else min(states),
        about=component.about if component else row.note,
        callers={network: sorted(names) for network, names in sorted(callers.items())},
        exposure=_exposure(row, rows, flows),
        elsewhere=_elsewhere(facts, row),
        collisions=collisions(facts, row),
        notes=list(dict.fromkeys(f"{_where(r)}: {r.note}" for r in rows if r.note and r.dialect != OWN)),
        sources=list(dict.fromkeys(r.source for r in rows if r.dialect != OWN)),
    )  # fmt: skip


def _exposure(row: PortFact, rows: list[PortFact], flows: Iterable[Flow]) -> str:
    """Whether it may be reached from outside, in a sentence or two."""
    states = {r.state for r in rows}
    if states <= {"removed"}:
        return "No: upstream has removed it. Nothing should listen here."
    if states <= {"misprint"}:
        return "No: the page that says so is wrong."
    gone = " Upstream has removed it since." if "removed" in states else ""
    if row.component in NO_AUTHENTICATION:
        return f"Never: it believes whoever connects. Only the components above may reach it.{gone}"
    if any("public" in r.endpoint for r in rows):
        return f"Yes, to those who use the cloud; with TLS in front where the network between is not yours.{gone}"
    networks = {flow.network for flow in flows}
    if networks <= {"local"} and networks:
        return f"No: only the same host uses it; it belongs on loopback.{gone}"
    return f"No: only the cloud itself uses it.{gone}"


def _where(row: PortFact) -> str:
    return f"{row.dialect}, {row.era}" if row.dialect != UPSTREAM else row.era


def _elsewhere(facts: Facts, row: PortFact) -> list[str]:
    """The other ports of the same component, or of its proxies."""
    found = []
    for other in facts.ports:
        same = other.component == row.component or other.component.startswith(f"{row.component} (")
        if same and (other.port, other.protocol) != (row.port, row.protocol) and other.dialect != OWN:
            what = "" if other.component == row.component else f" as {other.component}"
            state = "" if other.state == "listed" else f", {other.state}"
            found.append(f"{other.port}/{other.protocol}{what} ({_where(other)}{state})")
    return list(dict.fromkeys(found))


def collisions(facts: Facts, row: PortFact, ephemeral: tuple[int, int] | None = None) -> list[str]:
    """What else wants the same port, in sentences. `ephemeral` are the ports of outgoing connections, else this host's."""
    if row.protocol not in ("tcp", "udp"):
        return []
    first, last = row.range
    found = []
    for other in facts.ports:
        has_ports = other.protocol in ("tcp", "udp")
        if has_ports and other.component != row.component and overlap(other.range, row.range):
            word = "no collision, another protocol" if other.protocol != row.protocol else other.state
            found.append(f"{other.component} on {other.port}/{other.protocol} ({_where(other)}; {word})")
    for neighbour in read_neighbours():
        if neighbour.protocol == row.protocol and overlap(neighbour.range, row.range):
            found.append(f"{neighbour.who}: {neighbour.note}")
    low, high = ephemeral or ephemeral_range()
    if row.protocol == "tcp" and first <= high and low <= last:
        found.append(
            f"the ports of outgoing connections on this host ({low}-{high}): one may hold it when the service starts; "
            f"sysctl net.ipv4.ip_local_reserved_ports={row.port} keeps it free"
        )
    return list(dict.fromkeys(found))
