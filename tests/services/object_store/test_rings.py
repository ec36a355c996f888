"""Rings: swift's files, what they say, and how they are built. The files in `rings_of_swift` were made by swift 2.38."""

import pickle
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from cumulet.cli import cumulet
from cumulet.services.object_store import policies
from cumulet.services.object_store.names import HashSalt
from cumulet.services.object_store.ring import builder_file, data
from cumulet.services.object_store.ring.builder import Builder
from cumulet.services.object_store.ring.data import RingData, RingError
from cumulet.services.object_store.ring.ring import FileRing, Table

SWIFT = Path(__file__).parent / "rings_of_swift"
PLACES = {
    # what swift's own reader says: partition, its devices, its handoffs
    0: ([2, 3, 4], [1, 5]),
    37: ([5, 2, 1], [4, 3]),
    74: ([4, 2, 1], [5, 3]),
    111: ([5, 1, 3], [4, 2]),
    148: ([5, 3], [2, 1, 4]),
    185: ([2, 3], [5, 4, 1]),
    222: ([5, 1], [3, 4, 2]),
}


def builder(power: int, replicas: float, *hosts: tuple[int, int, int, float], overload: float = 0.0) -> Builder:
    """A builder with devices (region, zone, host, weight), one after the other."""
    made = Builder(power, replicas, 1)
    made.overload = overload
    for number, (region, zone, host, weight) in enumerate(hosts):
        address = f"10.{region}.{zone}.{host}"
        made.add(
            {"region": region, "zone": zone, "ip": address, "port": 6000, "device": f"d{number}", "weight": weight}
        )
    return made


def counts(made: Builder) -> list[int]:
    return [device["parts"] for device in made.every()]


@pytest.mark.parametrize("file", ["version1", "version2"])
def test_swifts_rings_say_here_what_they_say_there(file: str) -> None:
    ring = FileRing(SWIFT / f"{file}.ring.gz")
    assert (ring.power, ring.replicas, ring.table.data.replicas) == (8, 3, 2.5)
    for partition, (primaries, handoffs) in PLACES.items():
        assert [device.id for device in ring.devices(partition)] == primaries
        assert [device.id for device in ring.handoffs(partition)] == handoffs


@pytest.mark.parametrize("write", [data._written_1, data._written_2])
def test_a_ring_that_is_written_is_read_again(write: object, tmp_path: Path) -> None:
    ring = data.load(SWIFT / "version1.ring.gz")
    (tmp_path / "x.ring.gz").write_bytes(write(ring))  # type: ignore[operator]
    again = data.load(tmp_path / "x.ring.gz")
    assert (again.table, again.devices, again.power, again.version) == (ring.table, ring.devices, 8, ring.version)


def test_swift_reads_what_is_written(tmp_path: Path) -> None:
    swift = pytest.importorskip("swift.common.ring.ring", reason="swift is not installed")
    ring = data.load(SWIFT / "version1.ring.gz")
    for number, write in enumerate((data._written_1, data._written_2), 1):
        (tmp_path / "x.ring.gz").write_bytes(write(ring))
        read = swift.RingData.load(str(tmp_path / "x.ring.gz"))
        assert (read.format_version, read.part_power, read.replica_count) == (number, 8, 2.5)
        assert [list(row) for row in read._replica2part2dev_id] == [list(row) for row in ring.table]


def test_what_is_no_ring_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "object.ring.gz"
    with pytest.raises(RingError, match="cannot read the ring"):
        data.load(file)
    whole = (SWIFT / "version1.ring.gz").read_bytes()
    for broken in (b"", b"no ring", whole[: len(whole) // 2], whole[:40] + b"\0" * 20 + whole[60:]):
        file.write_bytes(broken)
        with pytest.raises(RingError, match=r"object\.ring\.gz"):
            data.load(file)


def test_a_builder_of_swift_goes_on_here(tmp_path: Path) -> None:
    made = builder_file.load(SWIFT / "object.builder")
    assert (made.power, made.replicas, len(made.table)) == (8, 2.5, 3)
    made.pretend_hours_passed()
    made.rebalance("1")
    assert made.balance < 1 and made.dispersion == 0
    builder_file.save(made, tmp_path / "object.builder")
    again = builder_file.load(tmp_path / "object.builder")
    assert again.table == made.table and again.devices == made.devices


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("it ran",)


def test_a_builder_may_not_run_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "object.builder"
    file.write_bytes(pickle.dumps({"part_power": Evil()}, protocol=2))
    with pytest.raises(RingError, match="no builder"):
        builder_file.load(file)
    assert not capsys.readouterr().out


def test_every_device_gets_what_its_weight_says() -> None:
    made = builder(10, 3, *((1, zone, host, 100.0 * host) for zone in (1, 2, 3) for host in (1, 2)))
    moved, balance, _ = made.rebalance("1")
    assert moved == 3 * 1024 and balance < 1 and made.dispersion == 0
    assert sum(counts(made)) == 3 * 1024


def test_copies_lie_in_different_zones_and_hosts() -> None:
    table = _table(builder(8, 3, *((1, zone, host, 100.0) for zone in (1, 2, 3) for host in (1, 2))))
    for partition in range(256):
        assert {device.zone for device in table.devices(partition)} == {1, 2, 3}
    table = _table(builder(8, 3, *((region, 1, host, 100.0) for region in (1, 2) for host in (1, 2, 3))))
    for partition in range(256):
        devices = table.devices(partition)
        assert {device.region for device in devices} == {1, 2} and len({device.address for device in devices}) == 3


def test_handoffs_begin_where_no_copy_is() -> None:
    table = _table(builder(8, 2, *((1, zone, host, 100.0) for zone in (1, 2, 3) for host in (1, 2))))
    for partition in range(256):
        primaries, handoffs = table.devices(partition), table.handoffs(partition)
        assert handoffs[0].zone not in {device.zone for device in primaries}
        assert {device.id for device in (*primaries, *handoffs)} == set(range(6))


def test_a_new_device_moves_only_what_it_gets_and_one_copy_of_a_partition() -> None:
    made = builder(10, 3, *((1, zone, 1, 100.0) for zone in range(1, 6)))
    made.rebalance("1")
    before = _table(made)
    made.add({"region": 1, "zone": 6, "ip": "10.1.6.1", "port": 6000, "device": "new", "weight": 100.0})
    assert made.rebalance("1")[0] == 0 and counts(made)[5] == 0  # what has just moved stays where it is
    made.pretend_hours_passed()
    moved, balance, _ = made.rebalance("1")
    assert balance < 1 and abs(counts(made)[5] - 512) <= 1 and moved < 700
    for partition in range(1024):
        assert len(set(before.devices(partition)) - set(_table(made).devices(partition))) <= 1


def test_a_removed_device_is_emptied_however_short_ago_its_partitions_moved() -> None:
    made = builder(8, 3, *((1, zone, 1, 100.0) for zone in range(1, 6)))
    made.rebalance("1")
    made.remove(2)
    _, _, gone = made.rebalance("1")
    assert gone == 1 and made.devices[2] is None
    assert all(len({d.id for d in _table(made).devices(partition)} - {2}) == 3 for partition in range(256))


def test_a_weight_of_nothing_empties_a_device_with_time() -> None:
    made = builder(8, 3, *((1, zone, 1, 100.0) for zone in range(1, 6)))
    made.rebalance("1")
    made.set_weight(0, 0)
    made.pretend_hours_passed()
    made.rebalance("1")
    assert counts(made)[0] == 0


def test_the_number_of_copies_changes() -> None:
    made = builder(8, 1, *((1, zone, 1, 100.0) for zone in range(1, 5)))
    made.rebalance("1")
    for replicas, lengths in ((3, [256, 256, 256]), (2.25, [256, 256, 64]), (1, [256])):
        made.set_replicas(replicas)
        made.pretend_hours_passed()
        made.rebalance("1")
        assert [len(row) for row in made.table] == lengths and made.balance < 2


def test_overload_gives_up_balance_for_distance() -> None:
    hosts = ((1, 1, 1, 100.0), (1, 1, 1, 100.0), (1, 2, 1, 50.0), (1, 3, 1, 50.0))
    made = builder(8, 3, *hosts)
    made.rebalance("1")
    assert made.balance < 1 and made.dispersion > 30
    made = builder(8, 3, *hosts, overload=made.required_overload)
    made.rebalance("1")
    assert made.dispersion == 0 and made.balance == pytest.approx(100)


def test_one_seed_gives_one_ring() -> None:
    hosts = [(1, zone, 1, 100.0) for zone in range(1, 6)]
    first, second, third = (builder(8, 3, *hosts) for _ in range(3))
    first.rebalance("a"), second.rebalance("a"), third.rebalance("b")
    assert first.table == second.table != third.table


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda made: made.add({"ip": "10.1.1.1", "port": 6000, "device": "d0", "weight": 1.0}), "is in the ring as 0"),
        (lambda made: made.add({"ip": "10.1.1.9", "port": 6000, "device": "d0", "weight": -1.0}), "0 or more"),
        (lambda made: made.remove(7), "no device 7"),
        (lambda made: made.set_weight(0, -1), "0 or more"),
        (lambda made: made.set_replicas(0.5), "at least 1 copy"),
        (lambda made: made.ring(), "not been balanced"),
        (lambda made: made.rebalance(), "3 copies need as many devices"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: object, words: str) -> None:
    with pytest.raises(RingError, match=words):
        wrong(builder(4, 3, (1, 1, 1, 100.0)))  # type: ignore[operator]


def test_a_ring_is_read_anew_when_its_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "object.ring.gz"
    shutil.copy(SWIFT / "version1.ring.gz", file)
    ring = FileRing(file)
    assert not ring.reload()
    made = builder(4, 1, (1, 1, 1, 100.0))
    made.rebalance()
    data.save(made.ring(), file)
    assert ring.reload() and (ring.power, ring.replicas) == (4, 1)
    file.write_bytes(b"half a ring")
    assert not ring.reload() and ring.power == 4  # what was right stays in force


def test_the_commands(tmp_path: Path) -> None:
    def run(*words: str, fails: bool = False) -> str:
        result = CliRunner().invoke(cumulet, ["ring", *words, "--object-rings", str(tmp_path)], terminal_width=200)
        assert (result.exit_code != 0) == fails, result.output
        return result.output

    run("create", "account", "object", "--power", "6")
    assert "is there already" in run("create", "object", fails=True)
    for zone in range(1, 5):
        run("add", "account", "object", "--zone", str(zone), "--address", f"10.0.0.{zone}", "--device", "sdb")
    assert "to be balanced" in run("show", "object")
    assert "192 copies" in run("rebalance", "account", "object", "--seed", "1")
    assert [d.port for d in FileRing(tmp_path / "account.ring.gz").every()] == [6002] * 4
    ring = FileRing(tmp_path / "object.ring.gz")
    salt = policies.read(tmp_path / policies.FILE).salt
    digest = salt.name("AUTH_x", "c", "o")
    shown = run("nodes", "object", "AUTH_x", "c", "o")
    assert digest in shown and ring.devices(int(digest[:8], 16) >> 26)[0].address in shown
    run("set-weight", "object", "0", "--address", "10.0.0.4")
    run("set", "object", "--replicas", "2", "--overload", "0.1", "--min-part-hours", "0")
    run("rebalance", "object", "--force")
    assert FileRing(tmp_path / "object.ring.gz").replicas == 2
    run("remove", "object", "--address", "10.0.0.4", "--device", "sdb")
    assert "1 devices removed" in run("rebalance", "object")
    assert "no device of the ring" in run("remove", "object", "--id", "3", fails=True)
    assert "say which devices" in run("remove", "object", fails=True)
    assert "there is no builder" in run("show", "container", fails=True)
    assert "../x is no ring" in run("create", "../x", fails=True)
    assert "from 0 to 63" in run("nodes", "object", "--partition", "64", fails=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "swift_hash_path_suffix"),
        ("[swift-hash]\nswift_hash_path_suffix = x\n[storage-policy:1]\nname = gold\n", "no \\[storage-policy:0\\]"),
        ("[swift-hash]\nswift_hash_path_suffix = x\n[storage-policy:0]\nname = a b\n", "letters, digits"),
        (
            "[swift-hash]\nswift_hash_path_suffix = x\n[storage-policy:0]\nname = a\npolicy_type = erasure_coding\n",
            "only replication",
        ),
        (
            "[swift-hash]\nswift_hash_path_suffix = x\n[storage-policy:0]\nname = a\n[storage-policy:1]\nname = A\n",
            "one name",
        ),
        (
            "[swift-hash]\nswift_hash_path_suffix = x\n[storage-policy:0]\nname = a\ndeprecated = yes\n",
            "every storage policy is deprecated",
        ),
    ],
)  # fmt: skip
def test_a_swift_conf_that_cannot_be_used_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "swift.conf"
    file.write_text(text)
    with pytest.raises(RingError, match=words):
        policies.read(file)


def test_policies_have_names_and_aliases(tmp_path: Path) -> None:
    file = tmp_path / "swift.conf"
    file.write_text(
        "[swift-hash]\nswift_hash_path_prefix = p\nswift_hash_path_suffix = s\n"
        "[storage-policy:0]\nname = gold\naliases = yellow, orange\n"
        "[storage-policy:1]\nname = silver\ndefault = yes\n[storage-policy:2]\nname = old\ndeprecated = yes\n"
    )
    read = policies.read(file)
    assert read.salt == HashSalt(b"p", b"s")
    assert read.policies.default.name == "silver"
    orange = read.policies.named("ORANGE")
    assert orange is not None and (orange.index, orange.ring, orange.objects) == (0, "object", "objects")
    assert [policy.ring for policy in read.policies] == ["object", "object-1", "object-2"]
    assert [told["name"] for told in read.policies.told] == ["gold", "silver"]


def _table(made: Builder) -> Table:
    if not made.table:
        made.rebalance("1")
    ring: RingData = made.ring()
    return Table(ring)
