"""Clients that write and read objects all the time, and remember what they were promised."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

import requests

from cumulet.services.object_store.node import Kind
from tests.cloud import inside
from tests.cluster.hosts import ObjectCluster, wait_until

SIZES = (0, 1, 100, 4096, 70_000, 300_000)
CONTAINERS = ("one", "two", "three")


def content(seed: str) -> bytes:
    """What an object holds, from a word."""
    made = random.Random(seed)
    return made.randbytes(made.choice(SIZES))


@dataclass
class Promise:
    """What an object may hold: what the last answer promised, or what was sent after that and not answered. As long as a node
    has not heard of it, that may be what was promised before (`older`): object storage is eventually consistent."""

    promised: str = ""
    perhaps: list[str] = field(default_factory=list)
    older: list[str] = field(default_factory=list)

    def seeds(self, *, settled: bool) -> set[str]:
        return {seed for seed in (self.promised, *self.perhaps, *(() if settled else self.older)) if seed}


class Load:
    """Writers and readers in threads. `failures` are reads that did not give what was promised."""

    def __init__(self, cluster: ObjectCluster, writers: int = 3, readers: int = 2, seed: str = "1") -> None:
        self.cluster = cluster
        self.url, self.account = _account(cluster)
        self.token = cluster.proxy.token()
        self.promises: dict[tuple[str, str], Promise] = {}
        self.writes: Counter[int] = Counter()
        self.reads = 0
        self.failures: list[str] = []
        self._seed = seed
        self._sizes = (writers, readers)
        self._stop = threading.Event()
        self._writing = [threading.Lock() for _ in range(writers)]
        self._go = threading.Event()
        self._go.set()
        self._threads: list[threading.Thread] = []
        for name in CONTAINERS:
            assert self.request(requests.Session(), "PUT", name).status_code in (201, 202)

    def request(self, session: requests.Session, method: str, path: str, **more: Any) -> requests.Response:
        headers = {"X-Auth-Token": self.token, **more.pop("headers", {})}
        return session.request(method, f"{self.url}/{path}", headers=headers, timeout=60, **more)

    @property
    def promised(self) -> list[tuple[str, str]]:
        return [key for key, promise in self.promises.copy().items() if promise.promised]

    def start(self) -> None:
        writers, readers = self._sizes
        works = [
            *((self._write, number) for number in range(writers)),
            *((self._read, number) for number in range(readers)),
        ]
        for work, number in works:
            thread = threading.Thread(target=self._inside, args=(work, number), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
        assert not any(thread.is_alive() for thread in self._threads)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No write is on its way meanwhile, and every copy of what was written is in its place."""
        self._go.clear()
        try:
            with ExitStack() as stack:
                for lock in self._writing:
                    stack.enter_context(lock)
                wait_until("copies in their places", self.missing_copies)
                yield
        finally:
            self._go.set()

    def go_on(self, more: int, seconds: float = 120.0) -> None:
        """Wait until so many more writes have been promised, as many readers having looked."""
        writes, reads = self.writes[201] + more, self.reads + more // 2
        wait_until("writes go on", lambda: max(0, writes - self.writes[201]) + max(0, reads - self.reads), seconds)

    def _inside(self, work: Any, number: int) -> None:
        with inside(self.cluster.site.namespace("px")):
            work(number, random.Random(f"{self._seed} {work.__name__} {number}"))

    def _write(self, number: int, chance: random.Random) -> None:
        session = requests.Session()
        count = 0
        while not self._stop.is_set():
            self._go.wait()
            with self._writing[number]:
                session = self._write_one(session, number, count := count + 1, chance)

    def _write_one(self, session: requests.Session, number: int, count: int, chance: random.Random) -> requests.Session:
        """One write, and what was promised; the session for the next."""
        mine = [key for key in self.promised if key[1].startswith(f"{self._seed}/w{number}-")]
        again = mine and chance.random() < 0.2
        key = chance.choice(mine) if again else (chance.choice(CONTAINERS), f"{self._seed}/w{number}-{count}/ä")
        seed = f"{self._seed}/{number}/{count}"
        promise = self.promises.setdefault(key, Promise())
        promise.perhaps.append(seed)
        data = content(seed)
        try:
            reply = self.request(session, "PUT", "/".join(key), data=data)
        except requests.RequestException:
            self.writes[0] += 1
            return requests.Session()
        self.writes[reply.status_code] += 1
        if reply.status_code == 201:
            assert reply.headers["Etag"] == md5(data, usedforsecurity=False).hexdigest()
            promise.older += [promise.promised, *promise.perhaps]
            promise.promised = seed
            promise.perhaps.clear()
        return session

    def _read(self, number: int, chance: random.Random) -> None:
        session = requests.Session()
        while not self._stop.is_set():
            keys = self.promised
            if not keys:
                continue
            key = chance.choice(keys)
            wrong = self.look(session, key, settled=False)
            self.reads += 1
            if wrong:
                self.failures.append(wrong)

    def look(self, session: requests.Session, key: tuple[str, str], *, settled: bool) -> str:
        """What is wrong with an object, or nothing."""
        before = self.promises[key].seeds(settled=settled)
        try:
            reply = self.request(session, "GET", "/".join(key))
        except requests.RequestException as error:
            return f"{key}: {error}"
        if reply.status_code != 200:
            return f"{key}: {reply.status_code} {reply.text[:200]} {reply.headers.get('X-Trans-Id')}"
        after = self.promises[key].seeds(settled=settled)
        if not any(content(seed) == reply.content for seed in before | after):
            return f"{key}: {len(reply.content)} bytes that nobody sent"
        return ""

    def check(self, *, settled: bool = True) -> None:
        """Every object that was promised is read back byte for byte."""
        session = requests.Session()
        wrong = [found for key in self.promised if (found := self.look(session, key, settled=settled))]
        assert not wrong, f"{len(wrong)} of {len(self.promised)}: {wrong[:5]}"

    def unlisted(self) -> list[tuple[str, str]]:
        """Promised objects that the listings do not name."""
        session = requests.Session()
        listed: set[tuple[str, str]] = set()
        for container in CONTAINERS:
            marker = ""
            while True:
                page = self.request(session, "GET", container, params={"marker": marker, "format": "json"})
                if page.status_code != 200:
                    return [(container, str(page.status_code))]
                names = [row["name"] for row in page.json()]
                if not names:
                    break
                listed.update((container, name) for name in names)
                marker = names[-1]
        return sorted(set(self.promised) - listed)

    def unequal_listings(self) -> list[str]:
        """Containers, and the account, whose copies do not count alike."""
        found = []
        for path in ((self.account,), *((self.account, container) for container in CONTAINERS)):
            kind: Kind = "container" if len(path) == 2 else "account"
            header = f"X-{kind}-Object-Count"
            _, devices = self.cluster.place(kind, *path)
            replies = [self.cluster.ask(device, kind, "HEAD", *path) for device in devices]
            counted = [(reply.status_code, reply.headers.get(header)) for reply in replies]
            if len(set(counted)) > 1 or counted[0][0] != 204:
                found.append(f"{'/'.join(path)}: {counted}")
        return found

    def missing_copies(self) -> list[str]:
        """Copies of promised objects that are not where they belong, or are not what was promised."""
        found = []
        for container, name in self.promised:
            promise = self.promises[container, name]
            wanted = {md5(content(seed), usedforsecurity=False).hexdigest() for seed in promise.seeds(settled=True)}
            _, devices = self.cluster.place("object", self.account, container, name)
            for device in devices:
                reply = self.cluster.ask(device, "object", "HEAD", self.account, container, name)
                if reply.status_code != 200 or reply.headers.get("Etag", "").strip('"') not in wanted:
                    found.append(f"{container}/{name} at {device.address}: {reply.status_code}")
        return found


def _account(cluster: ObjectCluster) -> tuple[str, str]:
    """The URL and the name of the admin's account."""
    connection = cluster.proxy.connect()
    url = str(connection.object_store.get_endpoint())
    return url, url.rsplit("/", 1)[1]
