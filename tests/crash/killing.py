"""What the tests that kill have in common: a cloud to kill, clients that work until it is gone, and what they were promised."""

import contextlib
import http.client
import itertools
import os
import random
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import requests
import urllib3.exceptions
from botocore.exceptions import BotoCoreError

from tests.cloud import Cloud, ProcessCloud

Job = Callable[[], object]
NOBODY = (requests.RequestException, BotoCoreError, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
"""How clients say that there is nobody to talk to."""


@contextlib.contextmanager
def simulated_cloud(
    directory: Path, *options: str, environment: dict[str, str] | None = None
) -> Iterator[ProcessCloud]:
    """A cloud in a process of its own, with simulated drivers."""
    simulated = ("--hypervisor", "simulated", "--network", "simulated")
    cloud = ProcessCloud(directory / "data", *simulated, *options, environment=environment)
    try:
        cloud.start()
        yield cloud
    finally:
        cloud.destroy()


def turns(least: int, enough: Callable[[], object]) -> Iterator[int]:
    """Numbers of turns: so many, and more where too little was done in them to prove anything, as on a busy machine."""
    for number in itertools.count():
        if number >= 5 * least or (number >= least and enough()):
            return
        yield number


@contextlib.contextmanager
def seeded() -> Iterator[int]:
    """A seed for all that is random: CRASH_SEED, or any. What fails inside says which it was, so that it can be had again."""
    seed = int(os.environ.get("CRASH_SEED", "0")) or random.randrange(1000)
    try:
        yield seed
    except AssertionError as error:
        raise AssertionError(f"CRASH_SEED={seed}: {error}") from error


class Together:
    """Jobs that run at once, each in a thread. What one of them raises is raised when they are waited for."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._failed: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(job,)) for job in jobs]
        for thread in self._threads:
            thread.start()

    def _run(self, job: Job) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - told in the thread of the test
            self._failed.append("".join(traceback.format_exception(error)))

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()
        assert not self._failed, "\n".join(self._failed)


@contextlib.contextmanager
def at_work(jobs: Iterable[Job], over: threading.Event) -> Iterator[None]:
    """Clients that go on until `over` is set, at the end of the block at the latest, or until they have lost the cloud: they
    may only from then on.
    """

    def until_lost(job: Job) -> None:
        try:
            job()
        except NOBODY:
            if not over.is_set():
                raise

    over.clear()
    clients = Together([partial(until_lost, job) for job in jobs])
    try:
        yield
    finally:
        over.set()
        clients.wait()


def kill_while(cloud: ProcessCloud, jobs: Iterable[Job], over: threading.Event, after: float) -> None:
    """SIGKILL the cloud when clients have worked for so many seconds. What was not answered then was not promised."""
    with at_work(jobs, over):
        time.sleep(after)  # the moment of the kill is what is random here
        over.set()
        cloud.kill()


@dataclass
class Promises:
    """What the clients know of the things of one kind.

    A thing is *promised* once its create was answered, *doomed* from when its delete is sent, *gone* once that was answered.
    """

    promised: set[str] = field(default_factory=set)
    doomed: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)

    def free(self) -> list[str]:
        """Those that nobody tries to delete."""
        return sorted(self.promised - self.doomed)

    def check(self, there: set[str], kind: str) -> None:
        """Nothing promised is lost, nothing deleted is back."""
        assert self.promised - self.doomed <= there, f"lost: {kind}"
        assert not self.gone & there, f"deleted and back: {kind}"


def rows(cloud: Cloud, query: str) -> list[Any]:
    """Rows of the cloud's database."""
    with sqlite3.connect(f"file:{cloud.data}/cumulet.sqlite?mode=ro", uri=True) as database:
        found = database.execute(query).fetchall()
    database.close()
    return found
