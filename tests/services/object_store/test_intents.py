"""What a node notes of what it is about to do, and what the next start makes of it."""

import os
from pathlib import Path

import pytest

from cumulet.services.object_store.storage import intents
from cumulet.services.object_store.storage.devices import Devices
from cumulet.services.object_store.storage.intents import LINE, Intents

HASHES = [f"{number:032x}" for number in range(9)]


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    (tmp_path / "sda").mkdir()
    return Devices(tmp_path)


def directory(devices: Devices, number: int, device: str = "sda", tail: str = "") -> str:
    name = HASHES[number]
    return f"{devices.root}/{device}/objects{tail}/{number}/{name[-3:]}/{name}"


def left(devices: Devices, device: str = "sda") -> list[str]:
    """What the next program finds."""
    return sorted(one for file in Intents(devices).left(device) for one in intents.read(file))


def test_what_goes_on_is_found_by_the_next_program(devices: Devices) -> None:
    noted = Intents(devices)
    wanted = [directory(devices, 1), directory(devices, 2, tail="-1")]
    for one in wanted:
        noted.note(one)
    assert left(devices) == sorted(wanted)


def test_a_line_is_written_over_once_its_work_is_told(devices: Devices) -> None:
    noted = Intents(devices)
    noted.note(directory(devices, 0))
    for number in range(1, 9):
        noted.note(directory(devices, number))
        noted.settled(directory(devices, number))
    file = Path(devices.root, "sda", "intents")
    assert file.stat().st_size == 3 * LINE, "as many lines as there was work at one time, and the first"
    assert directory(devices, 0) in left(devices)


def test_two_at_work_in_one_directory_have_a_line_each(devices: Devices) -> None:
    noted = Intents(devices)
    for _ in range(2):
        noted.note(directory(devices, 1))
    noted.settled(directory(devices, 1))
    noted.note(directory(devices, 2))
    assert left(devices) == [directory(devices, 1), directory(devices, 2)]


def test_two_crashes_in_a_row_lose_nothing(devices: Devices) -> None:
    Intents(devices).note(directory(devices, 1))
    Intents(devices).note(directory(devices, 2))  # before anybody has read the first
    assert left(devices) == [directory(devices, 1), directory(devices, 2)]


def test_an_end_in_order_leaves_nothing(devices: Devices) -> None:
    noted = Intents(devices)
    noted.note(directory(devices, 1))
    noted.settled(directory(devices, 1))
    noted.close()
    assert left(devices) == []
    noted.note(directory(devices, 1))
    noted.close()  # it was not told
    assert left(devices) == [directory(devices, 1)]


def test_a_device_that_comes_later_is_read_as_well(devices: Devices) -> None:
    Path(devices.root, "sdb").mkdir()
    Intents(devices).note(directory(devices, 1, "sdb"))
    os.rename(f"{devices.root}/sdb", f"{devices.root}/away")
    noted = Intents(devices)
    assert [intents.read(file) for file in noted.left("sda")] == []
    os.rename(f"{devices.root}/away", f"{devices.root}/sdb")
    noted.note(directory(devices, 2, "sdb"))
    assert [intents.read(file) for file in noted.left("sdb")] == [[directory(devices, 1, "sdb")]]


def test_a_torn_line_is_passed_over(devices: Devices) -> None:
    Intents(devices).note(directory(devices, 1))
    file = Path(devices.root, "sda", "intents")
    file.write_bytes(b"objects/1/../../etc\n" + b"\0" * LINE + b"\n" + file.read_bytes())
    assert left(devices) == [directory(devices, 1)]


def test_a_power_cut_is_told_by_the_first_line(devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_of_this_boot() -> bool:
        (file,) = Intents(devices).left("sda")
        found = intents.is_of_this_boot(file)
        os.unlink(file)
        return found

    Intents(devices).note(directory(devices, 1))
    assert is_of_this_boot()
    Path(devices.root, "sda", "intents").write_bytes(b"\0" * 3 * LINE)  # it had not been written
    assert not is_of_this_boot()
    monkeypatch.setattr(intents, "BOOT", Path(devices.root, "boot"))
    assert not is_of_this_boot()
    intents.BOOT.write_text("another\n")
    assert not is_of_this_boot(), "of one without a name"
    assert is_of_this_boot()


def test_a_device_that_fails_is_said_by_what_follows(devices: Devices) -> None:
    noted = Intents(devices)
    noted.note(directory(devices, 1, "gone"))
    noted.settled(directory(devices, 1, "gone"))
    noted.close()
