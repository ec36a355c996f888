"""The registry of ports: no two rows collide, and names and offsets lead to the right row."""

from collections import Counter

import pytest

from cumulet import ports
from cumulet.config import load


def test_names_and_numbers_are_unique() -> None:
    assert max(Counter(row.name for row in ports.PORTS).values()) == 1
    taken = Counter(
        (row.protocol, number) for row in ports.PORTS for number in range(row.number, (row.last or row.number) + 1)
    )
    assert max(taken.values()) == 1


def test_the_default_ports_are_those_that_clients_know() -> None:
    known = {
        "identity": 5000,
        "image": 9292,
        "compute": 8774,
        "placement": 8778,
        "network": 9696,
        "block-storage": 8776,
    }
    assert {name: ports.port(name).number for name in known} == known


def test_an_offset_moves_numbers_and_ranges() -> None:
    assert ports.port("compute", 10000).number == 18774
    assert ports.port("vnc", 100).label == "6000-6099"
    with pytest.raises(KeyError):
        ports.port("no-such-service")


def test_no_offset_that_is_allowed_leads_past_the_last_port() -> None:
    largest = load({"port_offset": 30000}, {}).port_offset
    assert max(ports.with_offset(row, largest).number for row in ports.PORTS) <= 65535


def test_urls_bracket_ipv6() -> None:
    assert ports.root_url("192.0.2.1", ports.port("image")) == "http://192.0.2.1:9292"
    assert ports.root_url("2001:db8::1", ports.port("image")) == "http://[2001:db8::1]:9292"
