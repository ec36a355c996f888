"""Firewall rules on real hosts (network namespaces): what is declared gets through from where it should, and nothing else."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from cumulet.portmap.facts import ROLES, facts
from cumulet.portmap.firewall import render
from cumulet.portmap.firewall.plan import Plan, PlanError, make
from cumulet.portmap.verify.prove import Agent
from tests.portmap.hosts import NEEDS_ROOT, NETWORKS, Place, cidrs, place

CLIENTS = ("public", "internal", "storage", "tenant", "admin")
STRANGERS = [("tcp", 1), ("tcp", 23), ("tcp", 4443), ("tcp", 31337), ("udp", 1), ("udp", 31337)]
"""Ports of no component: the rules must stop them."""


@pytest.fixture(scope="module")
def site() -> Iterator[Place]:
    """A host, and one client on each network."""
    with place("host", *CLIENTS) as made:
        made.give("host", list(NETWORKS))
        for network in CLIENTS:
            made.give(network, [network])
        yield made


def plan_of(role: str, dialect: str = "upstream", era: str = "current") -> Plan:
    return make(facts(), [role], cidrs(CLIENTS), dialect=dialect, era=era)


async def reached(
    site: Place, ports: list[tuple[str, int]], wanted: dict[str, set[tuple[str, int]]], family: int = 4
) -> dict[str, set[tuple[str, int]]]:
    """By client's network, the ports of the host that can be reached from there, where something answers on all of them.
    An answer that is wanted is waited for as long as a busy machine may take."""
    address_of = site.address if family == 4 else site.address6

    async def from_network(network: str) -> set[tuple[str, int]]:
        async with Agent(site.host(network, [], [network])) as client:
            found: set[tuple[str, int]] = set()
            others = [port for port in ports if port not in wanted[network]]
            for some, timeout in ((sorted(wanted[network]), 30.0), (others, 0.5)):
                targets = [(protocol, address_of("host", network), port) for protocol, port in some]
                results = await client.ask("probe", {"targets": targets, "timeout": timeout})
                found |= {port for port, result in zip(some, results, strict=True) if result == "open"}
            return found

    async with Agent(site.host("host", [], ["internal"])) as host:
        answers = await host.ask("listen", ports)
        assert not [port for port, who in answers.items() if who != "responder"]
        return dict(zip(CLIENTS, await asyncio.gather(*map(from_network, CLIENTS)), strict=True))


def ends(plan: Plan) -> dict[str, set[tuple[str, int]]]:
    """By network, the ports that the plan lets in (of a range, its ends)."""
    allowed: dict[str, set[tuple[str, int]]] = {network: set() for network in CLIENTS}
    for rule in plan.rules:
        for network in rule.network.split(", "):
            if rule.has_ports:
                allowed[network] |= {(rule.protocol, rule.first), (rule.protocol, rule.last)}
    return allowed


def load(site: Place, form: str, plan: Plan) -> None:
    if form == "nftables":
        site.run("host", "nft", "-f", "-", text=render.nftables(plan))
    else:
        site.run("host", "sh", "-s", text=render.iptables(plan))


def unload(site: Place) -> None:
    site.run("host", "nft", "flush", "ruleset")


@NEEDS_ROOT
@pytest.mark.root
@pytest.mark.parametrize("form", ["nftables", "iptables"])
@pytest.mark.parametrize("role", ["all-in-one", *ROLES, "client"])
def test_what_is_declared_gets_through_and_nothing_else(site: Place, role: str, form: str) -> None:
    if form == "iptables" and shutil.which("iptables-restore") is None:
        pytest.skip("iptables is not installed")
    plan = plan_of(role)
    allowed = ends(plan)
    ports = sorted({*STRANGERS, *set().union(*allowed.values())})
    # Without rules all of them are reached from everywhere: so it is the rules that stop what is stopped below.
    every = {network: set(ports) for network in CLIENTS}
    assert asyncio.run(reached(site, ports, every)) == every
    load(site, form, plan)
    try:
        assert asyncio.run(reached(site, ports, allowed)) == allowed
        if role == "controller":
            assert asyncio.run(reached(site, ports, allowed, family=6)) == allowed
        load(site, form, plan)  # again: nothing doubles, nothing breaks
        assert asyncio.run(reached(site, ports, allowed)) == allowed
    finally:
        unload(site)


@NEEDS_ROOT
@pytest.mark.root
def test_answers_come_back_to_a_host_that_lets_nothing_in(site: Place) -> None:
    async def out() -> list[str]:
        async with Agent(site.host("public", [], ["public"])) as far, Agent(site.host("host", [], ["public"])) as host:
            await far.ask("listen", [("tcp", 8774), ("udp", 53)])
            address = site.address("public", "public")
            targets = [("tcp", address, 8774), ("udp", address, 53), ("tcp", address, 8775)]
            found: list[str] = await host.ask("probe", {"targets": targets, "timeout": 30})
            return found

    load(site, "nftables", plan_of("client"))
    try:
        assert asyncio.run(out()) == ["open", "open", "closed"]
    finally:
        unload(site)


@NEEDS_ROOT
@pytest.mark.root
@pytest.mark.parametrize(
    "dialect", ["cumulet", "upstream", "kolla-ansible", "openstack-ansible", "tripleo", "devstack"]
)
def test_the_tools_take_every_rule_set(site: Place, dialect: str) -> None:
    for era in ("kilo", "current"):
        for role in ("all-in-one", *ROLES):
            plan = plan_of(role, dialect, era)
            assert site.run("host", "nft", "-c", "-f", "-", text=render.nftables(plan)).returncode == 0
            for version, tool in ((4, "iptables-restore"), (6, "ip6tables-restore")):
                if shutil.which(tool):
                    rules = "\n".join([*render.iptables_rules(plan, version), ""])
                    site.run("host", tool, "--test", "--noflush", text=rules)
    assert not site.run("host", "nft", "list", "ruleset").stdout, "a check has changed something"


@pytest.mark.skipif(shutil.which("ufw") is None, reason="ufw is not installed")
def test_ufw_takes_the_commands() -> None:
    for line in render.ufw(plan_of("compute")).splitlines():
        if line.startswith("ufw allow"):
            done = subprocess.run(
                ["sh", "-c", line.replace("ufw", "ufw --dry-run", 1)], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"


def test_security_group_rules_are_what_networking_takes(cloud: object) -> None:
    """Every rule of a group is accepted by a Networking API, and none twice."""
    from tests.cloud import InProcessCloud

    assert isinstance(cloud, InProcessCloud)
    token = cloud.token()
    project = cloud.request("GET", "identity", "/v3/projects?name=admin", token=token).json()["projects"][0]["id"]
    unlimited = {"quota": {"security_group_rule": -1}}
    assert cloud.request("PUT", "network", f"/v2.0/quotas/{project}", unlimited, token=token).ok
    made = cloud.request("POST", "network", "/v2.0/security-groups", {"security_group": {"name": "hosts"}}, token=token)
    group = made.json()["security_group"]["id"]
    for rule in render.security_group_rules(plan_of("all-in-one")):
        body = {"security_group_rule": {**rule, "security_group_id": group}}
        reply = cloud.request("POST", "network", "/v2.0/security-group-rules", body, token=token)
        assert reply.status_code == 201, reply.text
    cloud.request("DELETE", "network", f"/v2.0/security-groups/{group}", token=token)
    cloud.request("DELETE", "network", f"/v2.0/quotas/{project}", token=token)


def test_networks_that_are_not_given_are_told() -> None:
    plan = make(facts(), ["controller"], {"internal": ["10.0.0.0/24"]})
    assert "5000/tcp" in plan.left_out["public"]
    assert {rule.network for rule in plan.rules} <= {"internal", "admin, internal", "admin"}


def test_public_clients_reach_no_internal_port() -> None:
    plan = make(facts(), ["all-in-one"], {"public": ["0.0.0.0/0"], "internal": ["10.0.0.0/24"]}, dialect="upstream")
    public = {rule.first for rule in plan.rules if rule.network == "public"}
    assert {5000, 8774, 9292, 9696} <= public
    assert not public & {3306, 5672, 11211, 2379, 4369, 25672, 6200, 873, 22, 8775, 5900}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"roles": ["king"]}, "there is no role king"),
        ({"networks": {"internal": ["10.0.0.1/24"]}}, "has host bits set"),
        ({"networks": {"internal": ["10.0.0"]}}, "is no CIDR"),
        ({"services": ["teapots"]}, "no port is listed for teapots"),
    ],
)
def test_a_wrong_question_gets_one_sentence(arguments: dict[str, object], words: str) -> None:
    whole = {"roles": ["controller"], "networks": {}, **arguments}
    with pytest.raises(PlanError, match=words):
        make(facts(), whole.pop("roles"), whole.pop("networks"), **whole)  # type: ignore[arg-type]
