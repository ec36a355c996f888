"""The facts hang together, and say what the table that everybody knows says."""

import re
from collections import Counter

import pytest

from cumulet import ports as registry
from cumulet.portmap.explain import explain
from cumulet.portmap.facts import DIALECTS, ERAS, NETWORKS, OWN, ROLES, facts, read_neighbours

KNOWN = facts()
CLASSIC = {
    # the published table of the first eras: port, component
    "8776": "cinder-api", "8774": "nova-api", "8773": "nova-api (ec2)", "8775": "nova-api (metadata)",
    "5900-5999": "qemu (VNC, SPICE)", "6080": "nova-novncproxy", "6081": "nova-xvpvncproxy", "6082": "nova-spicehtml5proxy",
    "8386": "sahara-api", "35357": "keystone (admin)", "5000": "keystone", "9292": "glance-api", "9191": "glance-registry",
    "9696": "neutron-server", "6000": "object-server", "6001": "container-server", "6002": "account-server", "8004": "heat-api",
    "8000": "heat-api-cfn", "8003": "heat-api-cloudwatch", "8777": "ceilometer-api", "80": "horizon", "443": "horizon",
    "8080": "swift-proxy", "873": "rsyncd", "3260": "iSCSI target", "3306": "mysqld", "5672": "rabbitmq-server",
}  # fmt: skip
PARTIES = {"client", "tenant", "operator", "external"}


def test_the_classic_table_is_there_whole() -> None:
    assert {row.port: row.component for row in KNOWN.table("kilo", "upstream")} == CLASSIC


def test_every_row_is_well_formed() -> None:
    for row in KNOWN.ports:
        assert row.protocol in ("tcp", "udp", "gre", "vrrp")
        assert 0 < row.range[0] <= row.range[1] < 65536
        assert row.era in ERAS
        assert row.dialect in DIALECTS
        assert row.state in ("listed", "planned", "removed", "misprint")
        assert row.source
    for flow in KNOWN.flows:
        assert flow.source in KNOWN.by_name, flow
        assert flow.destination in KNOWN.by_name, flow
        assert flow.network in (*NETWORKS, "admin", "local")
        assert flow.phase in ("run", "deploy")
        assert flow.purpose
        assert flow.reference
        assert flow.range
    for component in KNOWN.components:
        assert set(component.roles) <= {*ROLES, *PARTIES}
        assert component.about
        assert not component.about.endswith(".")
    for neighbour in read_neighbours():
        assert neighbour.range
        assert neighbour.source


def test_one_row_is_one_fact() -> None:
    ports = Counter((r.component, r.port, r.protocol, r.era, r.dialect, r.state) for r in KNOWN.ports)
    assert [key for key, count in ports.items() if count > 1] == []
    flows = Counter((f.source, f.destination, f.port, f.protocol, f.era) for f in KNOWN.flows)
    assert [key for key, count in flows.items() if count > 1] == []
    assert not [row for row in KNOWN.ports if re.search(r"[,/+]", row.port)]


def test_every_component_that_listens_is_described() -> None:
    assert {row.component for row in KNOWN.ports} <= set(KNOWN.by_name)


def test_the_registry_and_the_facts_agree() -> None:
    """Where this program listens as upstream's component does, upstream's table (of one era or the other) says the same."""
    known = {(row.component, row.port) for row in KNOWN.ports if row.dialect == "upstream"}
    assert [row.name for row in registry.PORTS if (row.component, row.label) not in known] == []
    own = {row.port for row in KNOWN.table("current", OWN)}
    assert own == {row.label for row in registry.PORTS}


def test_a_dialect_moves_ports() -> None:
    def placement(dialect: str) -> set[str]:
        return {r.port for r in KNOWN.table("current", dialect, "placement") if r.state == "listed"}

    assert placement("upstream") == {"8778"}
    assert placement("kolla-ansible") == {"8780"}
    assert {r.port for r in KNOWN.table("current", "devstack", "object-store")} >= {"6613", "6611", "6612", "8080"}


def said(what: str) -> str:
    return "\n".join(
        " ".join([e.port, e.component, e.about, e.exposure, *e.elsewhere, *e.collisions, *e.notes])
        for e in explain(KNOWN, what)
    )


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("6081", ["Geneve", "another protocol", "removed in Ussuri"]),
        ("35357", ["outgoing connections", "ip_local_reserved_ports=35357"]),
        ("5000", ["AirPlay"]),
        ("8080", ["Tomcat", "horizon"]),
        ("8003", ["the page that says so is wrong", "heat-api-cloudwatch"]),
        ("6000", ["X11", "Never: it believes whoever connects"]),
        ("8774", ["The Compute API", "Yes, to those who use the cloud"]),
        ("3306", ["No: only the cloud itself uses it"]),
        ("5950", ["only the console proxies may reach them"]),
        ("9191", ["No: only the cloud itself uses it", "Held the images' metadata", "REMOVED"]),
        ("glance-registry", ["9191", "removed"]),
        ("object-store", ["object-server", "rsyncd", "swift-proxy"]),
    ],
)
def test_explanations_say_what_matters(what: str, words: list[str]) -> None:
    text = said(what)
    assert [word for word in words if word not in text] == []
