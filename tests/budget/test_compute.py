"""What showing and listing servers may cost: SQL statements, Python calls of ours, and time that does not grow."""

from pathlib import Path

from tests.budget.spent import spending
from tests.services.compute.conftest import Behind, running


async def test_showing_a_server(tmp_path: Path) -> None:
    async with running(tmp_path, Behind()) as compute:
        server_id = (await compute.boot())["id"]
        await compute.kernel.operations.idle()
        await compute.kernel.operations.stop()  # it looks now and then at what waits, which is no part of a call's cost
        for token in ("member", "admin"):
            await compute.show(server_id, token=token)
            async with spending(compute.kernel.db) as spent:
                await compute.show(server_id, token=token)
            assert len(spent.statements) <= 2, str(spent)
            assert spent.calls.total() <= 60, str(spent)


async def test_a_list_takes_as_many_statements_as_it_did(tmp_path: Path) -> None:
    async with running(tmp_path, Behind()) as compute:
        taken = []
        for _ in range(2):
            await compute.boot()
            await compute.kernel.operations.idle()
            await compute("GET", "/servers/detail")
            async with spending(compute.kernel.db) as spent:
                await compute("GET", "/servers/detail")
            taken.append(len([text for text in spent.statements if "FROM core_operation" not in text]))
        assert taken[0] == taken[1] <= 2


async def test_a_page_is_read_in_order_from_an_index(tmp_path: Path) -> None:
    """What a page costs does not grow with the number of servers, deleted ones included: nothing is sorted."""
    async with running(tmp_path, Behind()) as compute:
        await compute.boot()
        await compute.kernel.operations.idle()
        await compute.kernel.operations.stop()  # as above
        async with spending(compute.kernel.db) as spent:
            await compute("GET", "/servers/detail?limit=10")
        (page,) = [text for text in spent.statements if "ORDER BY" in text]
        steps = await compute.kernel.db.read(
            lambda tx: [row.detail for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {page}", ("p", 10, 0))]
        )
        assert steps and "compute_server_order" in steps[0] and not any("TEMP B-TREE" in step for step in steps), steps
