"""SIGKILL at random moments while objects are written, changed and deleted: what was acknowledged is there, byte for byte;
what was not is there whole or not at all; listings say the same; nothing is left half written."""

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import md5
from pathlib import Path

import pytest
import requests

from cumulet.services.object_store.storage.disk_process import LOCK
from tests.cloud import ProcessCloud
from tests.crash.killing import at_work, kill_while, seeded, simulated_cloud, turns
from tests.crash.object_disk import settled

ROUNDS = 6
SIZES = (0, 100, 4096, 70_000, 300_000, 3_000_000)
GONE = b"(deleted)"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[ProcessCloud]:
    with simulated_cloud(tmp_path) as cloud:
        yield cloud


@dataclass
class Known:
    """What one client knows of its objects: what was acknowledged last, and what was on its way when the cloud died."""

    acknowledged: dict[str, bytes] = field(default_factory=dict)
    unsure: dict[str, bytes] = field(default_factory=dict)


class Clients:
    """Clients that write until the cloud is killed under them, each its own objects."""

    def __init__(self, cloud: ProcessCloud, seed: int) -> None:
        self.cloud, self.token = cloud, cloud.token()
        self.account = f"/v1/AUTH_{cloud.connect().current_project_id}"
        self.stopped = threading.Event()
        self.known = [Known() for _ in range(8)]
        self.seed = seed
        self.done = 0
        self.session = requests.Session()

    def call(
        self, method: str, path: str, data: bytes = b"", session: requests.Session | None = None
    ) -> requests.Response:
        url = self.cloud.url("object-store") + self.account + path
        headers = {"X-Auth-Token": self.token}
        return (session or self.session).request(method, url, data=data, headers=headers, timeout=60)

    def jobs(self) -> list[Callable[[], None]]:
        return [partial(self.work, number, known) for number, known in enumerate(self.known)]

    def work(self, number: int, known: Known) -> None:
        choose = random.Random(f"{self.seed} {number}")
        with requests.Session() as session:  # each call by itself would take a port of its own, which a start may want
            self.write_and_delete(choose, session, number, known)

    def write_and_delete(self, choose: random.Random, session: requests.Session, number: int, known: Known) -> None:
        for turn in itertools.count():
            name = f"{number}-{choose.randrange(12)}"
            data = os.urandom(choose.choice(SIZES)) + b"%d" % turn
            delete = choose.random() < 0.2
            known.unsure[name] = GONE if delete else data
            if self.stopped.is_set():
                del known.unsure[name]
                return
            reply = self.call("DELETE" if delete else "PUT", f"/kill/{name}", b"" if delete else data, session)
            assert reply.status_code in ((204, 404) if delete else (201,)), reply.text
            known.acknowledged[name] = known.unsure.pop(name)
            self.done += 1

    def check(self) -> None:
        """Every object is as one of the two that may be; the listing says the same, from the first request on."""
        listed = {row["name"]: row for row in self.call("GET", "/kill?format=json").json()}
        for known in self.known:
            for name in {*known.acknowledged, *known.unsure}:
                may = [known.acknowledged.get(name, GONE), *([known.unsure[name]] if name in known.unsure else [])]
                reply = self.call("GET", f"/kill/{name}")
                found = GONE if reply.status_code == 404 else reply.content
                assert found in may, f"{name}: {reply.status_code}, {len(reply.content)} bytes"
                row = listed.get(name)
                assert (row is None) == (found == GONE), name
                assert row is None or row["hash"] == md5(found).hexdigest()
                known.acknowledged[name] = found
            known.unsure.clear()


def test_kill_while_objects_are_written(cloud: ProcessCloud) -> None:
    with seeded() as seed:
        choose = random.Random(seed)
        clients = Clients(cloud, seed)
        assert clients.call("PUT", "/kill").status_code == 201
        for turn in turns(ROUNDS, lambda: clients.done > 20 * ROUNDS):
            clients.seed = seed * 100 + turn
            kill_while(cloud, clients.jobs(), clients.stopped, choose.uniform(0.3, 2))
            clients.session.close()
            cloud.start()
            clients.check()
            settled(cloud.data)
    assert clients.done > 20 * ROUNDS, "too little was done to prove anything"
    assert (cloud.data / "object-store/devices" / LOCK).exists(), "the disk process had its part in it"


def test_kill_the_disk_process_while_objects_are_written(cloud: ProcessCloud) -> None:
    """The program finishes what it was doing: clients see nothing of it, and nothing is left to make good."""
    clients = Clients(cloud, random.randrange(1000))
    assert clients.call("PUT", "/kill").status_code == 201
    for turn in range(3):
        clients.seed += turn
        with at_work(clients.jobs(), clients.stopped):
            pid = disk_process(cloud)
            time.sleep(random.uniform(0, 0.5))
            os.kill(pid, signal.SIGKILL)
            done = clients.done
            deadline = time.monotonic() + 30
            while clients.done < done + 50:
                assert time.monotonic() < deadline, "it goes on without it"
                time.sleep(0.01)
        clients.check()
        cloud.stop()  # a new one is started at once by a new program
        settled(cloud.data)
        cloud.start()
        clients.check()


def disk_process(cloud: ProcessCloud) -> int:
    """The process that writes small objects, as soon as there is one that works."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for words in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                parent = int((words.parent / "stat").read_text().rpartition(")")[2].split()[1])
                if cloud.process is not None and parent == cloud.process.pid and b"disk_worker" in words.read_bytes():
                    return int(words.parent.name)
        time.sleep(0.02)
    raise AssertionError("the disk process never came")
