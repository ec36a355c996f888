"""What a command that serves asks of SQLite before it uses it."""

import subprocess
import sys

import pytest

from cumulet.core.db.sqlite_memory import library

OPENS = """
import ctypes, sqlite3
from cumulet.cli.serving import serve
from cumulet.core.db.sqlite_memory import library

async def main():
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE TABLE t AS SELECT zeroblob(1000000)")
    used = library().sqlite3_memory_used
    used.restype = ctypes.c_int64
    print(used(), conn.execute("SELECT length(rowid) FROM t").fetchone()[0])
    return 0

"""


@pytest.mark.skipif(library() is None, reason="SQLite is built into Python")
@pytest.mark.parametrize(("run", "counted"), [("serve(main())", False), ("import asyncio; asyncio.run(main())", True)])
def test_memory_is_not_counted(run: str, counted: bool) -> None:
    done = subprocess.run([sys.executable, "-c", OPENS + run], capture_output=True, text=True, check=True)
    used, rows = done.stdout.split()
    assert (int(used) > 0) == counted
    assert rows == "1"
