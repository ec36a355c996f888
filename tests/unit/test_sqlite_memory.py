"""What a command that serves asks of SQLite before it uses it."""

import sqlite3
import subprocess
import sys

import pytest

from cumulet.core.db.sqlite_memory import do_not_count, library

OPENS = """
import sqlite3
from cumulet.cli.serving import serve
from cumulet.core.db.sqlite_memory import library

async def main():
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE TABLE t AS SELECT zeroblob(1000000)")
    print(library().sqlite3_memory_used(), conn.execute("SELECT length(rowid) FROM t").fetchone()[0])
    return 0

"""


@pytest.mark.skipif(library() is None, reason="SQLite is built into Python")
@pytest.mark.parametrize(("run", "counted"), [("serve(main())", False), ("import asyncio; asyncio.run(main())", True)])
def test_memory_is_not_counted(run: str, counted: bool) -> None:
    done = subprocess.run([sys.executable, "-c", OPENS + run], capture_output=True, text=True, check=True)
    used, rows = done.stdout.split()
    assert (int(used) > 0) == counted
    assert rows == "1"


def test_a_connection_keeps_what_it_uses() -> None:
    """It is too late then, and nothing is changed."""
    conn = sqlite3.connect(":memory:")
    assert not do_not_count()
    conn.execute("CREATE TABLE t AS SELECT 1 AS one")
    assert conn.execute("SELECT one FROM t").fetchone() == (1,)
    conn.close()
