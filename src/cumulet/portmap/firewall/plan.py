"""Which connections a host must let in: the flows that end at components of its roles, from the networks they come from."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from cumulet.portmap.facts import NETWORKS, OWN, ROLES, UPSTREAM, Facts, Flow, PortFact

ADMIN = "admin"
NAMED = (*NETWORKS, ADMIN)
"""The networks that a plan is made for. `admin` is where hosts are administered from; without it, `internal`."""
ALL_IN_ONE = "all-in-one"
HOST_ROLES = (ALL_IN_ONE, *ROLES, "client")

Cidr = ipaddress.IPv4Network | ipaddress.IPv6Network


class PlanError(Exception):
    """The plan cannot be made as asked; the text says what is wrong and what would do."""


class Rule(Struct, frozen=True, kw_only=True, order=True):
    """Connections to ports `first` to `last` of `protocol` are let in from the CIDRs of `network` (several networks, if
    they have the same CIDRs). For `gre` and `vrrp` the two are the number of the IP protocol."""

    network: str
    protocol: str
    first: int
    last: int
    sources: tuple[str, ...]
    purpose: str

    @property
    def ports(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    @property
    def has_ports(self) -> bool:
        return self.protocol in ("tcp", "udp")


class Plan(Struct, frozen=True, kw_only=True):
    """What a host lets in. `left_out` names the networks that flows come from but that were given no CIDR, with their ports."""

    roles: tuple[str, ...]
    rules: tuple[Rule, ...]
    left_out: Mapping[str, tuple[str, ...]]


def cidrs(network: str, texts: Iterable[str]) -> tuple[str, ...]:
    """The CIDRs in their proper form; PlanError where one is none."""
    found = []
    for text in texts:
        try:
            found.append(str(ipaddress.ip_network(text.strip(), strict=True)))
        except ValueError as error:
            raise PlanError(
                f"the {network} network {text!r} is no CIDR ({error}); 192.0.2.0/24 or 2001:db8::/64 would be one"
            ) from None
    return tuple(dict.fromkeys(found))


def make(
    facts: Facts,
    roles: Sequence[str],
    networks: Mapping[str, Sequence[str]],
    *,
    era: str = "current",
    dialect: str = OWN,
    services: Sequence[str] = (),
    offset: int = 0,
) -> Plan:
    """The plan of a host with these roles. `networks` maps names of NAMED to CIDRs; `services` (types) cuts it down to some;
    `offset` is Cumulet's `port_offset`."""
    held = _roles(roles)
    given = {name: cidrs(name, texts) for name, texts in networks.items()}
    given.setdefault(ADMIN, given.get("internal", ()))
    rules: dict[tuple[str, int, int, tuple[str, ...]], tuple[set[str], set[str]]] = {}
    missing: dict[str, set[str]] = {}
    for row in _listening(facts, held, era, dialect, services):
        first, last = (number + (offset if row.dialect == OWN else 0) for number in row.range)
        for flow in _flows(facts, row, era):
            if sources := given.get(flow.network):
                names, components = rules.setdefault((row.protocol, first, last, sources), (set(), set()))
                names.add(flow.network)
                components.add(row.component)
            else:
                missing.setdefault(flow.network, set()).add(f"{row.port}/{row.protocol}")
    made = [
        Rule(network=", ".join(sorted(names)), protocol=protocol, first=first, last=last, sources=sources,
             purpose=", ".join(sorted(components)))
        for (protocol, first, last, sources), (names, components) in rules.items()
    ]  # fmt: skip
    return Plan(
        roles=tuple(roles),
        rules=tuple(sorted(made)),
        left_out={n: tuple(sorted(p)) for n, p in sorted(missing.items())},
    )


def _roles(roles: Sequence[str]) -> frozenset[str]:
    if unknown := [role for role in roles if role not in HOST_ROLES]:
        raise PlanError(f"there is no role {', '.join(unknown)}; the roles are {', '.join(HOST_ROLES)}")
    return frozenset(ROLES if ALL_IN_ONE in roles else roles)


def _listening(
    facts: Facts, roles: frozenset[str], era: str, dialect: str, services: Sequence[str]
) -> Iterable[PortFact]:
    """The ports on which a host of these roles listens: those of the cloud, and the host's own administration."""
    known = {row.service for row in facts.table(era, dialect)}
    if unknown := [service for service in services if service not in known]:
        raise PlanError(f"no port is listed for {', '.join(unknown)}; the services are {', '.join(sorted(known))}")
    rows = [r for r in facts.table(era, dialect) if r.state == "listed" and (not services or r.service in services)]
    rows += [row for row in facts.table("current", UPSTREAM, "admin") if row not in rows]
    for row in rows:
        component = facts.by_name.get(row.component)
        if component is not None and roles & {*component.roles}:
            yield row


def _flows(facts: Facts, row: PortFact, era: str) -> Iterable[Flow]:
    """Who connects to the port from another host. A public endpoint has clients even where no row says so."""
    found = [flow for flow in facts.flows_to(row) if flow.network != "local"]
    if "public" in row.endpoint and all(flow.network != "public" for flow in found):
        found.append(
            Flow(
                source="API client", destination=row.component, port=row.port, protocol=row.protocol, network="public",
                purpose=row.note, era=era, phase="run", reference=row.source,
            )
        )  # fmt: skip
    return found
