"""What commands share that run until they are told to stop."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import click


def announce(line: str) -> None:
    """Print at once, also into a pipe: scripts wait for the line `ready in X s`."""
    click.echo(line)
    sys.stdout.flush()


def serve(main: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is installed. It is the last moment at which nothing has used SQLite yet."""
    from cumulet.core.db import sqlite_memory

    sqlite_memory.do_not_count()
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)
