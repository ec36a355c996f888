"""Try every connection that the cloud needs between its hosts, in both directions, and say what stops those that fail.

For each flow of the facts, from each host that has a role of its source to each that has one of its destination: whether it is
declared, whether something listens (a process, or a responder of ours where nothing does), and whether it is reachable.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from types import TracebackType
from typing import Any, Self

from msgspec import Struct
from msgspec.structs import replace

from cumulet.portmap.facts import UPSTREAM, Facts, Flow
from cumulet.portmap.verify.inventory import Host

RUN = "import sys,base64;exec(base64.b64decode(sys.argv[1]))"
SAMPLE = 2
"""Ports of a range that are tried: the first and the last."""


class VerifyError(Exception):
    """A host cannot be used; the text says which and why."""


class Proof(Struct, frozen=True, kw_only=True):
    """The verdicts on one connection. `listening` is `process`, `responder` or why nothing does; `reachable` is `open`,
    `closed`, `filtered` or `open|filtered`; `blocked` says what stops it, where something does."""

    source: str  # host
    destination: str  # host
    address: str
    port: int
    protocol: str
    network: str
    flow: str  # component to component, and what for
    declared: bool
    listening: str
    reachable: str
    blocked: str = ""

    @property
    def good(self) -> bool:
        return self.declared and self.reachable == "open"


class Agent:
    """The process on a host. Use as an async context manager."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        script = base64.b64encode(resources.files(__package__).joinpath("agent.py").read_bytes()).decode()
        # ssh gives its words to a shell, so they are quoted for one; a command that takes words as they are is not hurt by it.
        words = [f"'{RUN}'" if self._through_shell else RUN, script]
        pipe = asyncio.subprocess.PIPE
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.host.command, "python3", "-c", *words, stdin=pipe, stdout=pipe, stderr=pipe, limit=1 << 22
            )
        except OSError as error:
            raise VerifyError(f"{self.host.name}: cannot run {self.host.command[0]}: {error.strerror}") from error
        try:
            async with asyncio.timeout(30):
                line = await self._stdout.readline()
        except TimeoutError:
            line = b""
        if line.strip() != b'"ready"':
            raise VerifyError(f"{self.host.name}: {await self._last_words()}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def ask(self, name: str, argument: Any = None) -> Any:
        """Have the agent do one thing. Raises VerifyError where it has gone."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        async with self._lock:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(json.dumps([name, argument]).encode() + b"\n")
                await process.stdin.drain()
            line = await self._stdout.readline()
        if not line:
            raise VerifyError(f"{self.host.name}: the connection was lost: {await self._last_words()}")
        return json.loads(line)

    @property
    def _through_shell(self) -> bool:
        return self.host.command[0].rpartition("/")[2] == "ssh"

    @property
    def _stdout(self) -> asyncio.StreamReader:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout

    async def _last_words(self) -> str:
        process = self._process
        assert process is not None
        assert process.stderr is not None
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        text = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
        return text[-1] if text else "no answer from its Python within 30 s"


async def prove(
    facts: Facts, hosts: Sequence[Host], *, era: str = "current", dialect: str = UPSTREAM, timeout: float = 2.0
) -> list[Proof]:
    """Every verdict. Raises VerifyError where a host cannot be used; nothing is left on any of them."""
    async with contextlib.AsyncExitStack() as stack:
        agents = {host.name: Agent(host) for host in hosts}
        await asyncio.gather(*(stack.enter_async_context(agent) for agent in agents.values()))
        wanted = _wanted(facts, hosts, era, dialect)
        theirs = {name: await agent.ask("listening") for name, agent in agents.items()}
        listening = await _answer(agents, wanted)
        wanted += _undeclared(hosts, wanted, theirs)
        return await _explained(agents, await _try(agents, wanted, listening, timeout), timeout)


class _Try(Struct, frozen=True, kw_only=True):
    source: Host
    destination: Host
    protocol: str
    port: int
    network: str
    flow: str
    declared: bool = True

    @property
    def address(self) -> str:
        return self.destination.address(self.network)


def _wanted(facts: Facts, hosts: Sequence[Host], era: str, dialect: str) -> list[_Try]:
    """The connections that the flows ask for, each once."""
    found: dict[tuple[str, str, str, int, str], _Try] = {}
    for row in facts.table(era, dialect):
        if row.protocol not in ("tcp", "udp") or row.state != "listed":
            continue
        first, last = row.range
        for flow in facts.flows_to(row):
            for source, destination in _pairs(facts, hosts, flow):
                for port in sorted({first, last}):
                    key = (source.name, destination.name, row.protocol, port, destination.address(flow.network))
                    text = f"{flow.source} to {row.component}: {flow.purpose}"
                    found.setdefault(
                        key,
                        _Try(source=source, destination=destination, protocol=row.protocol, port=port,
                             network=flow.network, flow=text),
                    )  # fmt: skip
    return list(found.values())


def _pairs(facts: Facts, hosts: Sequence[Host], flow: Flow) -> Iterable[tuple[Host, Host]]:
    """The hosts between which a flow travels."""
    sources, destinations = facts.by_name[flow.source].roles, facts.by_name[flow.destination].roles
    if flow.network == "local":
        return
    for source in hosts:
        for destination in hosts:
            reaches = {*sources} & source.all_roles and {*destinations} & destination.all_roles
            if source is not destination and reaches:
                yield source, destination


def _undeclared(hosts: Sequence[Host], wanted: Sequence[_Try], theirs: dict[str, list[tuple[str, int]]]) -> list[_Try]:
    """What listens on a host without any flow from another one: it is tried, and told if it is reachable."""
    declared = {(t.source.name, t.destination.name, t.protocol, t.port) for t in wanted}
    found = []
    for destination in hosts:
        for protocol, port in theirs[destination.name]:
            for source in hosts:
                key = (source.name, destination.name, protocol, port)
                if source is not destination and key not in declared and protocol == "tcp":
                    found.append(
                        _Try(source=source, destination=destination, protocol=protocol, port=port, network="internal",
                             flow="no flow is declared", declared=False)
                    )  # fmt: skip
    return found


async def _answer(agents: dict[str, Agent], wanted: Sequence[_Try]) -> dict[tuple[str, str], str]:
    """Have every host answer on its ports; (host, "tcp/8774") -> who does."""
    ports: dict[str, set[tuple[str, int]]] = {}
    for one in wanted:
        ports.setdefault(one.destination.name, set()).add((one.protocol, one.port))
    found: dict[tuple[str, str], str] = {}
    for name, wants in ports.items():
        answer = await agents[name].ask("listen", sorted(wants))
        found.update({(name, port): who for port, who in answer.items()})
    return found


async def _try(
    agents: dict[str, Agent], wanted: Sequence[_Try], listening: dict[tuple[str, str], str], timeout: float
) -> list[Proof]:
    """Try all, each host its own at once."""
    by_source: dict[str, list[_Try]] = {}
    for one in wanted:
        by_source.setdefault(one.source.name, []).append(one)

    async def from_host(name: str, tries: list[_Try]) -> list[Proof]:
        targets = [(t.protocol, t.address, t.port) for t in tries]
        results = await agents[name].ask("probe", {"targets": targets, "timeout": timeout})
        return [
            Proof(
                source=name, destination=t.destination.name, address=t.address, port=t.port, protocol=t.protocol,
                network=t.network, flow=t.flow, declared=t.declared, reachable=result,
                listening=listening.get((t.destination.name, f"{t.protocol}/{t.port}"), "process"),
            )
            for t, result in zip(tries, results, strict=True)
        ]  # fmt: skip

    nested = await asyncio.gather(*(from_host(name, tries) for name, tries in by_source.items()))
    return [proof for proofs in nested for proof in proofs if proof.declared or proof.reachable == "open"]


async def _explained(agents: dict[str, Agent], proofs: list[Proof], timeout: float) -> list[Proof]:
    """The proofs, each that failed with what stops it: all packets are sent once more, and nftables tells of each on both
    ends which rule dropped it."""
    failed = [p for p in proofs if p.reachable != "open" and not p.listening.startswith("nothing")]
    if not failed:
        return proofs
    incoming: dict[str, list[tuple[str, str, int]]] = {name: [] for name in agents}
    outgoing: dict[str, list[tuple[str, str, int]]] = {name: [] for name in agents}
    for proof in failed:
        own = agents[proof.source].host.address(proof.network)
        incoming[proof.destination].append((proof.protocol, own, proof.port))
        outgoing[proof.source].append((proof.protocol, proof.address, proof.port))
    problems = {
        name: await agent.ask("trace", {"prerouting": incoming[name], "output": outgoing[name]})
        for name, agent in agents.items()
    }
    await asyncio.gather(
        *(
            agents[name].ask("probe", {"targets": targets, "timeout": min(timeout, 1.0)})
            for name, targets in outgoing.items()
            if targets
        )
    )
    told = {name: await agent.ask("traced", 0.5) for name, agent in agents.items()}
    return [_with_reason(proof, told, problems) if proof in failed else proof for proof in proofs]


def _with_reason(proof: Proof, told: dict[str, list[list[str]]], problems: dict[str, str]) -> Proof:
    """The proof with what stops it."""

    def seen(host: str) -> str | None:
        """The rule on a host that dropped the packet, "" if it passed there, None if it was not seen."""
        found = [
            rule
            for protocol, _source, destination, port, rule in told[host]
            if (protocol, destination, port) == (proof.protocol, proof.address, str(proof.port))
        ]
        return next(filter(None, found), "") if found else None

    left, arrived = seen(proof.source), seen(proof.destination)
    if left:
        reason = f"{proof.source}: {left}"
    elif arrived:
        reason = f"{proof.destination}: {arrived}"
    elif proof.reachable == "open|filtered" and proof.listening != "responder":
        reason = "nobody can tell: it is a UDP service that does not answer"
    elif proof.reachable == "closed" or arrived == "":
        reason = f"{proof.destination} refuses it, and no rule of nftables there drops it"
    elif problem := problems[proof.source] or problems[proof.destination]:
        reason = f"the rules cannot be read: {problem}"
    else:
        reason = f"lost between {proof.source} and {proof.destination}: it left, and did not arrive"
    return replace(proof, blocked=reason)
