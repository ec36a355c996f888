"""What calls of networking may cost: SQL statements, and Python calls of our own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import event

import cumulet
from tests.services.network.conftest import Net, net

__all__ = ["net"]

SOURCE = str(Path(cumulet.__file__).parent)


class Cost:
    """What was spent between the start and the end of a measurement."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.calls = 0

    def count(self, frame: FrameType, kind: str, _argument: Any) -> None:
        if kind == "call" and frame.f_code.co_filename.startswith(SOURCE):
            self.calls += 1


@contextmanager
def measured(net: Net) -> Iterator[Cost]:
    """Count on the event loop's thread and on the database's one."""
    cost = Cost()
    engine = net.kernel.db.engine

    def note(_c: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        cost.statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    sys.setprofile(cost.count)
    try:
        yield cost
    finally:
        sys.setprofile(None)
        event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
async def quiet(net: Net) -> Net:
    """Networking whose operations wait, so that only requests are measured; its database thread is profiled too."""
    await net.kernel.operations.stop()
    return net


async def in_database_thread(net: Net, work: Any) -> None:
    await net.kernel.db.run(lambda tx: work())


async def test_creating_a_port(quiet: Net) -> None:
    network, _ = await quiet.network()
    body = {"port": {"network_id": network["id"]}}
    await quiet("POST", "ports", body)  # the first one makes the default group and the DHCP port
    await quiet("POST", "ports", body)
    with measured(quiet) as cost:
        await in_database_thread(quiet, lambda: sys.setprofile(cost.count))
        cost.calls, before = 0, len(cost.statements)
        reply = await quiet("POST", "ports", body)
        statements, calls = cost.statements[before:], cost.calls
        await in_database_thread(quiet, lambda: sys.setprofile(None))
    assert reply.status == 201
    assert len(statements) <= 12, "\n".join(statements)
    assert calls <= 300, calls


async def test_showing_a_port(quiet: Net) -> None:
    network, _ = await quiet.network()
    port = await quiet.make("port", network_id=network["id"])
    await quiet.show("port", port["id"])
    with measured(quiet) as cost:
        await quiet.show("port", port["id"])
    assert len(cost.statements) <= 2, "\n".join(cost.statements)
    assert cost.calls <= 60, cost.calls


async def test_listing_ports_costs_the_same_for_many(quiet: Net) -> None:
    network, _ = await quiet.network()
    for number in (2, 20):
        await quiet("POST", "ports", {"ports": [{"network_id": network["id"]}] * number})
        with measured(quiet) as cost:
            assert len(await quiet.list("port")) > number
        assert len(cost.statements) <= 2, "\n".join(cost.statements)
