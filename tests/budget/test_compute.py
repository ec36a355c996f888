"""What showing and listing servers may cost: SQL statements, Python calls of ours, and time that does not grow."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import event

import cumulet
from tests.services.compute.conftest import Behind, Compute, running

SOURCE = str(Path(cumulet.__file__).parent)


class Spent:
    """What a stretch of work has cost."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.calls: Counter[str] = Counter()


@contextmanager
def spending(compute: Compute) -> Iterator[Spent]:
    """Count the SQL statements and the Python calls of this package while it is entered."""
    spent, engine = Spent(), compute.kernel.db.engine

    def statement(_c: Any, _u: Any, text: str, *_more: Any) -> None:
        if not text.startswith("BEGIN") and "FROM core_operation" not in text:  # what waits is looked at now and then
            spent.statements.append(text)

    def call(frame: FrameType, what: str, _argument: Any) -> None:
        code = frame.f_code
        generated = code.co_filename == "<string>" and "cumulet" in frame.f_globals.get("__name__", "")
        if what == "call" and (code.co_filename.startswith(SOURCE) or generated):
            spent.calls[f"{code.co_filename.removeprefix(SOURCE)}:{code.co_qualname}"] += 1

    event.listen(engine, "before_cursor_execute", statement)
    profile: Callable[..., None] = call
    sys.setprofile(profile)
    threading.setprofile(profile)
    try:
        yield spent
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        event.remove(engine, "before_cursor_execute", statement)


async def test_showing_a_server(tmp_path: Path) -> None:
    async with running(tmp_path, Behind()) as compute:
        server_id = (await compute.boot())["id"]
        await compute.kernel.operations.idle()
        for token in ("member", "admin"):
            await compute.show(server_id, token=token)
            with spending(compute) as spent:
                await compute.show(server_id, token=token)
            assert len(spent.statements) <= 2, spent.statements
            calls = {name: n for name, n in spent.calls.items() if not name.startswith("/core/operations")}
            assert sum(calls.values()) <= 60, "\n".join(f"{n} {name}" for name, n in sorted(calls.items()))


async def test_a_list_takes_as_many_statements_as_it_did(tmp_path: Path) -> None:
    async with running(tmp_path, Behind()) as compute:
        taken = []
        for _ in range(2):
            await compute.boot()
            await compute.kernel.operations.idle()
            await compute("GET", "/servers/detail")
            with spending(compute) as spent:
                await compute("GET", "/servers/detail")
            taken.append(len(spent.statements))
        assert taken[0] == taken[1] <= 2


async def test_a_page_is_read_in_order_from_an_index(tmp_path: Path) -> None:
    """What a page costs does not grow with the number of servers, deleted ones included: nothing is sorted."""
    async with running(tmp_path, Behind()) as compute:
        await compute.boot()
        await compute.kernel.operations.idle()
        with spending(compute) as spent:
            await compute("GET", "/servers/detail?limit=10")
        (page,) = [text for text in spent.statements if "ORDER BY" in text]
        steps = await compute.kernel.db.read(
            lambda tx: [row.detail for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {page}", ("p", 10, 0))]
        )
        assert steps and "compute_server_order" in steps[0] and not any("TEMP B-TREE" in step for step in steps), steps
