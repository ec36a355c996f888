"""Declared, listening, answering, in the catalogue: for each port of a host, and whether the four agree."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from cumulet.listeners import Listener
from cumulet.portmap.detect import EXPECTED, OPEN, UNCERTAIN, Finding, detect, detect_udp
from cumulet.portmap.facts import PortFact

AT_ONCE = 64
"""Connections that are tried at the same time."""
DOCUMENTED = {
    "keystone": "identity", "keystone (admin)": "identity", "glance-api": "image", "nova-api": "compute",
    "placement-api": "placement", "neutron-server": "network", "cinder-api": "block-storage", "heat-api": "orchestration",
}  # fmt: skip
"""Components whose version documents tell which service answers."""
SOON = 30
"""Days before its end from which on a certificate is worth a word."""
FRONT_ENDS = 8
"""Ports of a range that are looked at: a range of a thousand consoles is not tried one by one."""


class Target(Struct, frozen=True, kw_only=True):
    """A port to look at. `required` is whether it is a fault if nothing listens there; `url` what the catalogue says of it."""

    host: str
    port: int
    protocol: str
    component: str
    service: str
    required: bool = True
    url: str = ""


class Result(Struct, frozen=True, kw_only=True):
    """What was found. `listening` is None where only a look from this host could tell, and it is another one.

    `agrees` is whether what answers is what is declared; `problem` one sentence, empty where all is well.
    """

    host: str
    port: int
    protocol: str
    component: str
    service: str
    state: str
    listening: bool | None
    process: str
    finding: Finding
    catalogue: str
    agrees: bool
    problem: str


def targets(host: str, rows: Iterable[PortFact], offset: int = 0, required: bool = True) -> list[Target]:
    """The ports of a host that the facts declare. Of a range, the first few. Ports that are planned, removed or misprints are
    left out."""
    found: dict[tuple[int, str], Target] = {}
    for row in rows:
        if row.state != "listed" or row.protocol not in ("tcp", "udp"):
            continue
        first, last = row.range
        for number in range(first, min(last, first + FRONT_ENDS - 1) + 1):
            is_required = required and first == last
            found.setdefault(
                (number + offset, row.protocol),
                Target(host=host, port=number + offset, protocol=row.protocol, component=row.component, service=row.service,
                       required=is_required),
            )  # fmt: skip
    return list(found.values())


def catalogue_targets(catalogue: Sequence[Mapping[str, object]], components: Mapping[str, str]) -> list[Target]:
    """The ports that a cloud's own catalogue names, each once; `components` maps service types to upstream's programs."""
    found: dict[tuple[str, int], Target] = {}
    for service in msgspec.convert(catalogue, list[_Service]):
        for endpoint in service.endpoints:
            address = urlsplit(endpoint.url)
            port = address.port or (443 if address.scheme == "https" else 80)
            if address.hostname:
                found.setdefault(
                    (address.hostname, port),
                    Target(host=address.hostname, port=port, protocol="tcp", service=service.type, url=endpoint.url,
                           component=components.get(service.type, service.type)),
                )  # fmt: skip
    return list(found.values())


class _Endpoint(Struct):
    url: str


class _Service(Struct):
    type: str
    endpoints: list[_Endpoint]


async def check(
    wanted: Sequence[Target], *, timeout: float = 2.0, local: Sequence[Listener] | None = None, urls: Sequence[str] = ()
) -> list[Result]:
    """Look at every target at once. `local` is what listens here, if the targets are here; `urls` those of a catalogue."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(target: Target) -> Result:
        async with room:
            if target.protocol == "udp":
                finding = await detect_udp(target.host, target.port, timeout)
            else:
                finding = await detect(target.host, target.port, EXPECTED.get(target.component, "http"), timeout)
        return _judge(target, finding, local, urls)

    return list(await asyncio.gather(*map(one, wanted)))


def _judge(target: Target, finding: Finding, local: Sequence[Listener] | None, urls: Sequence[str]) -> Result:
    listener = None
    if local is not None:
        listener = next((x for x in local if (x.port, x.protocol) == (target.port, target.protocol)), None)
    listening = None if local is None else listener is not None
    catalogue = target.url or next((url for url in urls if _is_at(url, target)), "")
    agrees, problem = _agrees(target, finding)
    if finding.state not in (OPEN, UNCERTAIN):
        problem = finding.problem if target.required or listening else ""
        if listening:
            problem = f"{listener} listens, but from here {finding.problem}" if listener else problem
    elif not problem and finding.certificate is not None and finding.certificate.days_left < SOON:
        days = finding.certificate.days_left
        problem = f"its certificate {'has expired' if days < 0 else f'expires in {days} days'}"
    return Result(
        host=target.host, port=target.port, protocol=target.protocol, component=target.component, service=target.service,
        state=finding.state, listening=listening, process=f"{listener.name or '?'} ({listener.pid or '?'})" if listener else "",
        finding=finding, catalogue=catalogue, agrees=agrees, problem=problem,
    )  # fmt: skip


def _agrees(target: Target, finding: Finding) -> tuple[bool, str]:
    """Whether what answers is what is declared, and a sentence where it is not."""
    if finding.state == UNCERTAIN:
        return True, ""
    if finding.state != OPEN:
        return False, ""
    expected = EXPECTED.get(target.component, "http")
    spoken = finding.speaks.replace("https", "http")
    if spoken != expected:
        what = f"speaks {finding.speaks}" if finding.speaks else finding.detail
        return False, f"{target.component} would speak {expected}, but what answers {what}"
    wanted = DOCUMENTED.get(target.component)
    if wanted and finding.service and finding.service != wanted:
        return False, f"{wanted} is declared here, but {finding.service} answers"
    return True, ""


def _is_at(url: str, target: Target) -> bool:
    address = urlsplit(url)
    return (address.port or (443 if address.scheme == "https" else 80)) == target.port and target.protocol == "tcp"
