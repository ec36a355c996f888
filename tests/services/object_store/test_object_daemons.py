"""What keeps objects in order: suffix hashes, replication by rsync, the updater, the auditor; on real directories."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.services.object_store.message import Headers, Response, drain, refuse, stream
from cumulet.services.object_store.names import HashSalt, Timestamp, partition
from cumulet.services.object_store.node import BackendRequest, Device, Rings
from cumulet.services.object_store.storage import async_pending, object_file, suffix_hashes
from cumulet.services.object_store.storage.async_pending import Update
from cumulet.services.object_store.storage.auditor import Auditor
from cumulet.services.object_store.storage.devices import Devices, hash_directory
from cumulet.services.object_store.storage.object_replicator import ObjectReplicator
from cumulet.services.object_store.storage.object_server import ObjectServer
from cumulet.services.object_store.storage.rsync import Rsync
from cumulet.services.object_store.storage.updater import Updater
from tests.cloud import free_port

SALT = HashSalt(b"", b"salt")
POWER = 3
START = 1_700_000_000
DEVICES = [Device(number, f"sd{number}", "127.0.0.1", 6000 + number) for number in range(4)]


class FixedRing:
    """Three copies on the first three of four devices; the last is the handoff of all."""

    power = POWER
    replicas = 3

    def devices(self, partition: int) -> tuple[Device, ...]:
        return tuple(DEVICES[:3])

    def handoffs(self, partition: int) -> list[Device]:
        return DEVICES[3:]


class Cluster:
    """Four nodes of one device each. All devices lie in one directory, so rsync copies without a daemon; calls of a node that
    is down are answered with 503."""

    def __init__(self, root: Path) -> None:
        self.down: set[str] = set()
        self.told: list[tuple[str, BackendRequest]] = []
        self.refuses: dict[str, int] = {}
        self.ring = FixedRing()
        self.rings = Rings(self.ring, self.ring, {0: self.ring})
        self.devices = Devices(root, reserve=0)
        for device in DEVICES:
            (root / device.name).mkdir(parents=True)
        self.server = ObjectServer(self.devices, SALT, self)
        self.clock = START
        self.runner = asyncio.Runner()

    async def call(self, device: Device, request: BackendRequest) -> Response:
        if device.name in self.down:
            return refuse(503)
        if request.kind == "container":
            self.told.append((device.name, request))
            return Response(self.refuses.get(device.name, 201))
        return await self.server.handle(request)

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def replicate(self, *names: str) -> list[ObjectReplicator]:
        """A round on each of some nodes."""
        made = []
        for name in names:
            replicator = ObjectReplicator(
                self.devices, self, lambda: self.rings, lambda device: True, rsync_port=0, reclaim_age=3600
            )
            replicator._jobs = only(replicator, name)  # type: ignore[method-assign]
            self.runner.run(replicator.run())
            made.append(replicator)
        return made

    def ask(self, method: str, device: str, name: str, body: bytes = b"", at: float | None = None) -> tuple[int, bytes]:
        return self.runner.run(self.asked(method, device, name, body, at))

    async def asked(self, method: str, device: str, name: str, body: bytes, at: float | None) -> tuple[int, bytes]:
        self.clock += 1
        told = Timestamp.parse(self.clock if at is None else at).internal
        headers = Headers({"X-Timestamp": told, "Content-Type": "a/b", "Content-Length": str(len(body))})
        number = partition(SALT.digest("a", "c", name), POWER)
        request = BackendRequest("object", method, device, number, "a", "c", name, headers, body=stream(body))
        reply = await self.server.handle(request)
        return reply.status, await drain(reply)

    def directory(self, device: str, name: str) -> str:
        number = partition(SALT.digest("a", "c", name), POWER)
        return hash_directory(self.devices.objects(device, 0), number, SALT.name("a", "c", name))


def only(replicator: ObjectReplicator, name: str) -> Any:
    """The jobs of one node: all devices of the tests are in one directory."""
    real = replicator._jobs

    def jobs(device: str, policy: int) -> Any:
        return real(device, policy) if device == name else []

    return jobs


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.runner.run(cluster.devices.close())
    cluster.runner.close()


needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")


def test_suffix_hashes_follow_changes(cluster: Cluster) -> None:
    cluster.ask("PUT", "sd0", "o", b"1")
    place = str(Path(cluster.directory("sd0", "o")).parents[1])
    first = suffix_hashes.hashes(place)
    assert len(first) == 1
    assert suffix_hashes.hashes(place) == first
    cluster.ask("PUT", "sd0", "o", b"2")
    second = suffix_hashes.hashes(place)
    assert second.keys() == first.keys()
    assert second != first
    cluster.ask("POST", "sd0", "o")
    third = suffix_hashes.hashes(place)
    assert third != second
    cluster.ask("DELETE", "sd0", "o")
    assert suffix_hashes.hashes(place) not in (first, second, third)
    (Path(place) / suffix_hashes.HASHES).write_text("torn by a power cut")
    assert suffix_hashes.hashes(place).keys() == first.keys()


def test_equal_copies_have_equal_hashes(cluster: Cluster) -> None:
    for device in ("sd0", "sd1"):
        cluster.ask("PUT", device, "o", b"1", at=START)
        cluster.ask("POST", device, "o", at=START + 1)
    one, other = (
        suffix_hashes.hashes(str(Path(cluster.directory(device, "o")).parents[1])) for device in ("sd0", "sd1")
    )
    assert one == other


@needs_rsync
def test_what_a_place_lacks_is_brought_to_it(cluster: Cluster) -> None:
    for number in range(20):
        cluster.ask("PUT", "sd0", f"o{number}", b"%d" % number)
    cluster.ask("POST", "sd0", "o0")
    cluster.ask("DELETE", "sd0", "o1")
    cluster.replicate("sd0")
    for device in ("sd1", "sd2"):
        for number in range(20):
            expected = (404, None) if number == 1 else (200, b"%d" % number)
            status, body = cluster.ask("GET", device, f"o{number}")
            assert (status, None if status == 404 else body) == expected
        assert Path(cluster.directory(device, "o0")).joinpath(f"{START + 21}.00000-0.meta").exists()
    assert not (Path(cluster.devices.root) / "sd3" / "objects").exists()
    [again] = cluster.replicate("sd0")
    assert again.pushed == 0


@needs_rsync
def test_the_later_change_wins_wherever_it_was_made(cluster: Cluster) -> None:
    cluster.ask("PUT", "sd0", "o", b"old", at=START)
    cluster.ask("PUT", "sd1", "o", b"new", at=START + 5)
    cluster.ask("DELETE", "sd2", "p", at=START + 5)
    cluster.ask("PUT", "sd0", "p", b"old", at=START)
    cluster.replicate("sd0", "sd1", "sd2")
    for device in ("sd0", "sd1", "sd2"):
        assert cluster.ask("GET", device, "o") == (200, b"new")
        assert cluster.ask("GET", device, "p")[0] == 404
    cluster.replicate("sd0", "sd1", "sd2")
    for device in ("sd0", "sd1", "sd2"):
        assert os.listdir(cluster.directory(device, "o")) == [f"{START + 5}.00000.data"]


@needs_rsync
def test_a_wiped_device_is_filled_again(cluster: Cluster) -> None:
    for number in range(10):
        cluster.ask("PUT", "sd0", f"o{number}", b"%d" % number)
    cluster.replicate("sd0")
    shutil.rmtree(Path(cluster.devices.root) / "sd1")
    (Path(cluster.devices.root) / "sd1").mkdir()
    cluster.replicate("sd2")
    assert [cluster.ask("GET", "sd1", f"o{number}") for number in range(10)] == [(200, b"%d" % n) for n in range(10)]


@needs_rsync
def test_a_handoff_gives_up_what_all_places_have(cluster: Cluster) -> None:
    cluster.ask("PUT", "sd3", "o", b"1")
    cluster.down = {"sd2"}
    cluster.replicate("sd3")
    assert cluster.ask("GET", "sd3", "o") == (200, b"1"), "one place does not have it yet"
    cluster.down = set()
    cluster.replicate("sd3")
    for device in ("sd0", "sd1", "sd2"):
        assert cluster.ask("GET", device, "o") == (200, b"1")
    assert os.listdir(cluster.devices.objects("sd3", 0)) == []


@needs_rsync
def test_what_comes_while_a_handoff_gives_up_stays(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.ask("PUT", "sd3", "o", b"1", at=START)
    real = ObjectReplicator._push

    async def push(self: ObjectReplicator, *args: Any) -> bool:
        done = await real(self, *args)
        await cluster.asked("PUT", "sd3", "o", b"2", START + 1)
        return done

    monkeypatch.setattr(ObjectReplicator, "_push", push)
    cluster.replicate("sd3")
    assert cluster.ask("GET", "sd3", "o") == (200, b"2")
    monkeypatch.undo()
    cluster.replicate("sd3")
    assert cluster.ask("GET", "sd0", "o") == (200, b"2")
    assert os.listdir(cluster.devices.objects("sd3", 0)) == []


@needs_rsync
def test_a_stand_in_takes_what_a_failed_device_should_have(cluster: Cluster) -> None:
    cluster.ask("PUT", "sd0", "o", b"1")
    shutil.rmtree(Path(cluster.devices.root) / "sd1")
    cluster.replicate("sd0")
    assert cluster.ask("GET", "sd2", "o") == (200, b"1")
    assert cluster.ask("GET", "sd3", "o") == (200, b"1")
    assert not (Path(cluster.devices.root) / "sd1").exists()


@needs_rsync
def test_rsync_through_a_daemon(tmp_path: Path) -> None:
    port = free_port()
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "sd0" / "objects").mkdir(parents=True)
    for name in ("abc/d1/1.data", "abc/d1/.1.data.Ab12cD", "abd/d2/2.ts", "xyz/d3/3.data"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(name.encode())
    config = tmp_path / "rsyncd.conf"
    config.write_text(
        f"use chroot = no\nuid = {os.geteuid()}\ngid = {os.getegid()}\n[object]\npath = {there}\nread only = no\n"
    )
    daemon = subprocess.Popen(
        ["rsync", "--daemon", "--no-detach", f"--port={port}", "--address=127.0.0.1", f"--config={config}"]
    )
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        rsync = Rsync("object", port)
        assert asyncio.run(rsync.push(str(here), ["abc", "abd"], DEVICES[0], "objects/7", None))
        assert not asyncio.run(rsync.push(str(here), ["abc"], DEVICES[1], "objects/7", None)), (
            "that device is not there"
        )
    finally:
        daemon.terminate()
        daemon.wait()
    found = sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file())
    assert found == ["sd0/objects/7/abc/d1/1.data", "sd0/objects/7/abd/d2/2.ts"]
    assert (there / found[0]).read_bytes() == b"abc/d1/1.data"
    assert not asyncio.run(Rsync("object", port).push(str(here), ["abc"], DEVICES[0], "objects/7", None)), (
        "nobody answers"
    )


def test_old_tombstones_are_reclaimed(cluster: Cluster) -> None:
    now = Timestamp.now().seconds
    cluster.ask("PUT", "sd0", "old", b"1", at=now - 8000)
    cluster.ask("DELETE", "sd0", "old", at=now - 7000)
    cluster.ask("DELETE", "sd0", "recent", at=now - 100)
    cluster.ask("PUT", "sd0", "kept", b"1", at=now - 8000)
    left = Path(cluster.directory("sd0", "kept")) / ".x.data.Ab12cD"
    left.write_bytes(b"what rsync did not finish")
    os.utime(left, (now - 1e6, now - 1e6))
    replicator = ObjectReplicator(
        cluster.devices, cluster, lambda: cluster.rings, lambda device: True, rsync_port=0, reclaim_age=3600
    )
    cluster.runner.run(replicator.reclaim())
    assert not Path(cluster.directory("sd0", "old")).exists()
    assert os.listdir(cluster.directory("sd0", "recent")) == [f"{Timestamp.parse(now - 100).internal}.ts"]
    assert len(os.listdir(cluster.directory("sd0", "kept"))) == 1


def auditor(cluster: Cluster) -> Auditor:
    return Auditor(cluster.devices, lambda: [0], files_per_second=0, bytes_per_second=0, fast_files_per_second=0)


@pytest.mark.parametrize("fast", [True, False])
def test_the_auditor_finds_files_that_are_cut(cluster: Cluster, fast: bool) -> None:
    for number in range(5):
        cluster.ask("PUT", "sd0", f"o{number}", os.urandom(3_000_000))
    directory = Path(cluster.directory("sd0", "o3"))
    [name] = os.listdir(directory)
    with (directory / name).open("r+b") as file:
        file.truncate(1_234_567)
    audit = auditor(cluster)
    cluster.runner.run(audit.run_fast() if fast else audit.run())
    assert (audit.audited, audit.quarantined) == (5, 1)
    assert not directory.exists()
    assert (Path(cluster.devices.quarantined("sd0", 0)) / directory.name / name).exists()
    assert cluster.ask("GET", "sd0", "o3")[0] == 404
    assert cluster.ask("GET", "sd0", "o2")[0] == 200


@needs_rsync
def test_the_auditor_finds_data_that_is_not_what_was_stored(cluster: Cluster) -> None:
    for device in ("sd0", "sd1"):
        cluster.ask("PUT", device, "o", b"x" * 3_000_000, at=START)
    suffix_hashes.hashes(str(Path(cluster.directory("sd0", "o")).parents[1]))
    directory = Path(cluster.directory("sd0", "o"))
    [name] = os.listdir(directory)
    with (directory / name).open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"y")
    audit = auditor(cluster)
    cluster.runner.run(audit.run_fast())
    assert audit.quarantined == 0
    cluster.runner.run(audit.run())
    assert audit.quarantined == 1
    cluster.replicate("sd1")
    assert cluster.ask("GET", "sd0", "o") == (200, b"x" * 3_000_000)


def updater(cluster: Cluster) -> Updater:
    return Updater(cluster.devices, SALT, cluster, lambda: cluster.rings, reclaim_age=3600)


def pending(cluster: Cluster, timestamp: Timestamp, name: str = "o") -> list[tuple[str, Update | None]]:
    directory = cluster.devices.pending("sd0", 0)
    update = Update("PUT", "a", "c", name, {"X-Timestamp": timestamp.internal, "X-Size": "1"})
    digest = SALT.name("a", "c", name)
    async_pending.save(directory, cluster.devices.temporary("sd0", 0), digest, timestamp.internal, update)
    return list(async_pending.waiting(directory))


def test_the_updater_tells_those_that_do_not_know_yet(cluster: Cluster) -> None:
    now = Timestamp.now()
    assert len(pending(cluster, now)) == 1
    cluster.refuses = {"sd1": 503}
    cluster.runner.run(updater(cluster).run())
    assert sorted(name for name, _ in cluster.told) == ["sd0", "sd1", "sd2"]
    cluster.told.clear()
    cluster.refuses = {}
    cluster.runner.run(updater(cluster).run())
    [(name, request)] = cluster.told
    assert (name, request.method, request.container, request.object) == ("sd1", "PUT", "c", "o")
    assert request.headers["X-Size"] == "1"
    assert list(async_pending.waiting(cluster.devices.pending("sd0", 0))) == []


def test_only_the_latest_update_of_an_object_is_told(cluster: Cluster) -> None:
    now = Timestamp.now()
    pending(cluster, Timestamp(now.ticks - 5))
    assert len(pending(cluster, now)) == 1
    cluster.runner.run(updater(cluster).run())
    assert {request.headers["X-Timestamp"] for _, request in cluster.told} == {now.internal}


def test_updates_of_what_is_long_gone_are_given_up(cluster: Cluster) -> None:
    cluster.refuses = {device.name: 404 for device in DEVICES}
    pending(cluster, Timestamp(Timestamp.now().ticks - 4000 * 100_000), "old")
    pending(cluster, Timestamp.now(), "recent")
    (Path(cluster.devices.pending("sd0", 0)) / "abc").mkdir()
    (Path(cluster.devices.pending("sd0", 0)) / "abc" / f"{'0' * 32}-{START}.00000").write_bytes(b"no update")
    cluster.runner.run(updater(cluster).run())
    [(_, left)] = async_pending.waiting(cluster.devices.pending("sd0", 0))
    assert left is not None
    assert left.object == "recent"


def test_choosing_what_counts() -> None:
    def chosen(*names: str) -> tuple[str, str, str, str]:
        files = object_file.choose(list(names))
        return files.data, files.meta, files.content_type, files.tombstone

    assert chosen("0000000005.00000.data", "0000000003.00000.ts") == ("0000000005.00000.data", "", "", "")
    assert chosen("0000000005.00000.data", "0000000005.00000.ts")[3] == "0000000005.00000.ts"
    assert chosen("0000000005.00000.data", "0000000005.00000_0000000000000001.ts")[3].endswith("1.ts")
    assert chosen("0000000005.00000.data", "0000000004.00000.meta")[:2] == ("0000000005.00000.data", "")
    assert (
        chosen("0000000005.00000.data", "0000000006.00000.meta", "0000000007.00000.meta")[1] == "0000000007.00000.meta"
    )
    typed = "0000000006.00000-0.meta"
    assert chosen("0000000005.00000.data", typed, "0000000007.00000.meta")[1:3] == ("0000000007.00000.meta", typed)
    assert chosen(".0000000009.00000.data.Ab12cD", "0000000005.00000.data", "x")[0] == "0000000005.00000.data"
