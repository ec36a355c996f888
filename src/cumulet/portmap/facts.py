"""The facts: `data/ports.csv` (one row says where a component listens), `data/flows.csv` (one row says who opens a connection
to it, and what for), `data/components.csv` (what a component is, and on which hosts) and `data/neighbours.csv` (what else
wants the same ports). Each row of a fact names its source.

Two eras differ: `kilo`, whose table is still the most copied one, and `current`. Deployment tools move ports: those rows
have the tool as their `dialect`. What Cumulet itself listens on is in `cumulet.ports` alone; here it is the dialect `cumulet`.
"""

import csv
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from cumulet import ports as registry

DATA = Path(__file__).parent / "data"
OWN = "cumulet"
UPSTREAM = "upstream"
ERAS = ("kilo", "current")
DIALECTS = (OWN, UPSTREAM, "devstack", "kolla-ansible", "openstack-ansible", "tripleo", "mosk")
NETWORKS = ("public", "internal", "storage", "tenant")
"""Where a connection travels: between clients and the cloud, between its hosts, to storage, inside tenants' networks."""
ROLES = ("controller", "compute", "network", "storage")
"""What hosts are; `all-in-one` is all of them."""

T = TypeVar("T")


class PortFact(Struct, frozen=True, kw_only=True):
    """A component listens on a port. `port` is a number or a range (`5900-5999`); for the protocols `gre` and `vrrp`, which
    have no ports, the number of the IP protocol. `endpoint` holds the endpoint kinds of the catalogue, or `internal`.

    `state` is `listed`, `removed` (upstream has it no more), `misprint` (a page says so and is wrong) or `planned` (Cumulet
    does not listen there yet).
    """

    service: str
    project: str
    component: str
    port: str
    protocol: str
    endpoint: tuple[str, ...]
    era: str
    dialect: str
    state: str
    note: str
    source: str

    @property
    def range(self) -> tuple[int, int]:
        return port_range(self.port)


class Flow(Struct, frozen=True, kw_only=True):
    """A component connects to another. `phase` is `run`, or `deploy` for what happens only while a cloud is set up;
    `network` one of NETWORKS, or `local` where both ends are on one host."""

    source: str
    destination: str
    port: str
    protocol: str
    network: str
    purpose: str
    era: str
    phase: str
    reference: str

    @property
    def range(self) -> tuple[int, int]:
        return port_range(self.port)


class Neighbour(Struct, frozen=True, kw_only=True):
    """Something that is no part of OpenStack and wants a port, too."""

    port: str
    protocol: str
    who: str
    note: str
    source: str

    @property
    def range(self) -> tuple[int, int]:
        return port_range(self.port)


class Component(Struct, frozen=True, kw_only=True):
    """A program, or a party outside of the cloud. `roles` are those of the hosts it runs on, or `client`, `tenant`,
    `operator`, `external`; `network` is the one on which it is reached, `service` its service type (parties have none)."""

    component: str
    service: str
    roles: tuple[str, ...]
    network: str
    about: str


def port_range(text: str) -> tuple[int, int]:
    """(first, last) of `8774` or `5900-5999`."""
    first, _, last = text.partition("-")
    return int(first), int(last or first)


class Facts(Struct, frozen=True, dict=True):
    """All of it."""

    ports: tuple[PortFact, ...]
    flows: tuple[Flow, ...]
    components: tuple[Component, ...]

    @cached_property
    def by_name(self) -> dict[str, Component]:
        return {row.component: row for row in self.components}

    @cached_property
    def services(self) -> tuple[str, ...]:
        """Every service type that a port is listed under."""
        return tuple(sorted({row.service for row in self.ports}))

    def table(self, era: str, dialect: str, service: str = "") -> list[PortFact]:
        """The ports of one kind of cloud: the dialect's own rows, and upstream's for the components that it does not move."""
        rows = [row for row in self.ports if row.era == era or row.dialect == OWN]
        chosen = [row for row in rows if row.dialect == dialect]
        if dialect not in (OWN, UPSTREAM):
            moved = {row.component for row in chosen}
            chosen += [row for row in rows if row.dialect == UPSTREAM and row.component not in moved]
        chosen = [row for row in chosen if not service or row.service == service]
        return sorted(chosen, key=lambda row: (row.range, row.protocol, row.component))

    def users(self, row: PortFact) -> list[str]:
        """The components that connect to a port."""
        return sorted({flow.source for flow in self.flows_to(row)})

    def flows_to(self, row: PortFact) -> list[Flow]:
        """The flows to a port, wherever a dialect put it: they are told of the component."""
        names = {row.component}
        eras = ERAS if row.dialect == OWN else (row.era,)
        found = [f for f in self.flows if f.destination in names and f.protocol == row.protocol and f.era in eras]
        exact = [f for f in found if overlap(f.range, row.range)]
        return exact or found

    def at(self, number: int) -> list[PortFact]:
        """Every port row that the number is in, whatever its protocol, era and dialect (IP protocol numbers are no ports)."""
        return [r for r in self.ports if r.protocol in ("tcp", "udp") and r.range[0] <= number <= r.range[1]]


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


@lru_cache(1)
def facts() -> Facts:
    """The facts, read once."""
    ports = (*_own_ports(), *_read("ports.csv", PortFact, ("endpoint",)))
    return Facts(ports, tuple(_read("flows.csv", Flow)), tuple(_read("components.csv", Component, ("roles",))))


@lru_cache(1)
def read_neighbours() -> tuple[Neighbour, ...]:
    """Who else wants ports, from `data/neighbours.csv`."""
    return tuple(_read("neighbours.csv", Neighbour))


def _own_ports() -> Iterable[PortFact]:
    """What Cumulet's own registry says, in the same form."""
    for row in registry.PORTS:
        yield PortFact(
            service=row.service_type, project="cumulet", component=row.component, port=row.label, protocol=row.protocol,
            endpoint=(row.endpoint,), era="current", dialect=OWN, state="listed" if row.served else "planned",
            note=row.purpose, source="cumulet ports",
        )  # fmt: skip


def _read(name: str, cls: type[T], lists: tuple[str, ...] = ()) -> list[T]:
    """The rows of a file; columns in `lists` hold several values, separated by semicolons."""
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in rows:
        for column in lists:
            row[column] = tuple(value for value in row[column].split(";") if value)
    return msgspec.convert(rows, list[cls])  # type: ignore[valid-type]
