"""SQLite without its count of the memory in use.

For that count all threads take one lock at each piece of memory that SQLite asks for or gives back: two threads that read
listings of containers took no less time than one would, and twice the processor. Python's module cannot turn it off; SQLite
itself can be asked to. Reference: https://www.sqlite.org/c3ref/c_config_covering_index_scan.html
"""

import _sqlite3
import ctypes

MEMSTATUS = 9
"""SQLITE_CONFIG_MEMSTATUS"""


def library() -> ctypes.CDLL | None:
    """SQLite as Python has it; None where it is built into Python and cannot be reached."""
    file = getattr(_sqlite3, "__file__", None)
    if file is None:
        return None
    try:
        found = ctypes.CDLL(file)
    except OSError:
        return None
    needed = ("sqlite3_memory_used", "sqlite3_shutdown", "sqlite3_config", "sqlite3_initialize")
    if not all(hasattr(found, name) for name in needed):
        return None
    found.sqlite3_memory_used.restype = ctypes.c_int64
    return found


def do_not_count() -> bool:
    """Whether it could be turned off. Not where the process has a connection, which would lose what it uses: of that the count
    itself tells."""
    found = library()
    if found is None or found.sqlite3_memory_used():
        return False
    found.sqlite3_shutdown()
    done = not found.sqlite3_config(MEMSTATUS, 0)
    found.sqlite3_initialize()
    return done
