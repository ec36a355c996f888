"""Networks on the host follow the database, and many who want one at once do not each read all of it."""

import asyncio

import pytest

from cumulet.services.network import drivers
from cumulet.services.network.drivers import DataplaneError
from tests.services.network.conftest import Net, net

__all__ = ["net"]


class Watched:
    """Notes what the dataplane is asked for; fails where it is told to."""

    def __init__(self, net: Net) -> None:
        self.specs: list[drivers.Network] = []
        self.fail = False
        self._ensure = net.runtime.dataplane.ensure_network

    async def ensure_network(self, network: drivers.Network) -> None:
        self.specs.append(network)
        await asyncio.sleep(0.01)
        if self.fail:
            raise DataplaneError("no")
        await self._ensure(network)


@pytest.fixture
async def watched(net: Net, monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched(net)
    monkeypatch.setattr(net.runtime.dataplane, "ensure_network", watched.ensure_network)
    return watched


async def test_who_wants_the_same_network_at_once_shares_a_look(net: Net, watched: Watched) -> None:
    network, _ = await net.network()
    await net.make("port", network_id=network["id"])
    await net.kernel.operations.idle()
    watched.specs.clear()
    await asyncio.gather(*(net.runtime.realise([network["id"]]) for _ in range(20)))
    assert len(watched.specs) == 1


async def test_what_is_committed_before_is_in_what_is_made(net: Net, watched: Watched) -> None:
    """Whoever asks after his commit finds it made, also while an earlier look is under way."""
    network, _ = await net.network()
    ids: list[str] = []

    async def add() -> None:
        port = await net.make("port", network_id=network["id"])
        await net.runtime.realise([network["id"]])
        assert port["id"] in {p.id for spec in watched.specs for p in spec.ports}
        ids.append(port["id"])

    await asyncio.gather(*(add() for _ in range(10)))
    await net.kernel.operations.idle()
    assert {p.id for p in watched.specs[-1].ports} == set(ids)


async def test_a_port_that_changed_is_read_again_and_one_that_is_gone_goes(net: Net, watched: Watched) -> None:
    network, _ = await net.network()
    kept = await net.make("port", network_id=network["id"])
    gone = await net.make("port", network_id=network["id"])
    await net.runtime.realise([network["id"]])
    await net("PUT", f"ports/{kept['id']}", {"port": {"admin_state_up": False}})
    await net("DELETE", f"ports/{gone['id']}")
    await net.runtime.realise([network["id"]])
    assert [(p.id, p.admin_state_up) for p in watched.specs[-1].ports] == [(kept["id"], False)]


async def test_a_failure_reaches_everybody_and_is_not_kept(net: Net, watched: Watched) -> None:
    network, _ = await net.network()
    await net.make("port", network_id=network["id"])
    await net.kernel.operations.idle()
    watched.fail = True
    found = await asyncio.gather(*(net.runtime.realise([network["id"]]) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, DataplaneError) for error in found)
    watched.fail = False
    await net.runtime.realise([network["id"]])
