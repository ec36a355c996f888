"""What calls of networking may cost: SQL statements, and Python calls of our own."""

import pytest

from tests.budget.spent import spending
from tests.services.network.conftest import Net, net

__all__ = ["net"]


@pytest.fixture
async def quiet(net: Net) -> Net:
    """Networking whose operations wait, so that only requests are measured."""
    await net.kernel.operations.stop()
    return net


async def test_creating_a_port(quiet: Net) -> None:
    network, _ = await quiet.network()
    body = {"port": {"network_id": network["id"]}}
    await quiet("POST", "ports", body)  # the first one makes the default group and the DHCP port
    await quiet("POST", "ports", body)
    async with spending(quiet.kernel.db) as spent:
        reply = await quiet("POST", "ports", body)
    assert reply.status == 201
    assert len(spent.statements) <= 12, str(spent)
    assert spent.calls.total() <= 300, str(spent)


async def test_showing_a_port(quiet: Net) -> None:
    network, _ = await quiet.network()
    port = await quiet.make("port", network_id=network["id"])
    await quiet.show("port", port["id"])
    async with spending(quiet.kernel.db) as spent:
        await quiet.show("port", port["id"])
    assert len(spent.statements) <= 2, str(spent)
    assert spent.calls.total() <= 60, str(spent)


async def test_listing_ports_costs_the_same_for_many(quiet: Net) -> None:
    network, _ = await quiet.network()
    for number in (2, 20):
        await quiet("POST", "ports", {"ports": [{"network_id": network["id"]}] * number})
        async with spending(quiet.kernel.db) as spent:
            assert len(await quiet.list("port")) > number
        assert len(spent.statements) <= 2, str(spent)
