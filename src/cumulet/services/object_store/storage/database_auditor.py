"""Looks for damage in databases: SQLite's own check, and counts that are not those of the rows.

A damaged file is put aside (`database.py`); other nodes have copies, and replicators bring one back. Counts that are wrong are
made right, and said.
"""

import logging
import sqlite3

from cumulet.services.object_store.storage.database import Database, Stat, Unit
from cumulet.services.object_store.storage.database_rounds import KINDS, Job, Places, Rounds
from cumulet.services.object_store.storage.databases import ACCOUNTS, Databases

log = logging.getLogger("cumulet.object_store.auditor")

COUNTS = {
    "accounts": "SELECT policy, sum(1 - deleted), sum(objects), sum(bytes) FROM container GROUP BY policy",
    "containers": "SELECT policy, 0, sum(1 - deleted), sum(size) FROM object GROUP BY policy",
}


class DatabaseAuditor:
    """`audited` counts databases, `mended` those whose counts were wrong."""

    def __init__(self, databases: Databases, places: Places) -> None:
        self.rounds = Rounds(databases, places, at_once=1)
        self.audited = self.mended = 0

    async def run(self) -> None:
        """One round over all databases."""
        for kind in KINDS:
            await self.rounds.over(kind, self._audit)

    async def _audit(self, job: Job, database: Database) -> None:
        await database.read(_check)
        counts = COUNTS[job.kind]

        def are_right(conn: sqlite3.Connection) -> bool:
            return _counted(conn, counts) == _known(stats)

        stats = (await database.ask()).stats
        if not await database.read(are_right):  # or it has changed meanwhile: looked at again where nothing changes

            def work(unit: Unit) -> bool:
                right = _counted(unit.connection, counts)
                if right == _known(unit.info.stats):
                    return False
                unit.change(stats=right)
                return True

            if await database.write(work):
                self.mended += 1
                kind = "account" if job.kind == ACCOUNTS else "container"
                log.error("the counts of the %s in %s were wrong, and are right now", kind, database.path)
        self.audited += 1


def _check(conn: sqlite3.Connection) -> None:
    found = [row[0] for row in conn.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        raise sqlite3.DatabaseError(f"database disk image is malformed: {found[0]}")


def _counted(conn: sqlite3.Connection, counts: str) -> dict[int, Stat]:
    return _known({policy: Stat(*told) for policy, *told in conn.execute(counts)})


def _known(stats: dict[int, Stat]) -> dict[int, Stat]:
    return {policy: stat for policy, stat in stats.items() if stat != Stat()}
