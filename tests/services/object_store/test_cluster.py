"""A node's place in the cluster: whose rings it may write."""

import shutil
from pathlib import Path

from cumulet.config import Settings
from cumulet.services.object_store.cluster import Cluster
from cumulet.services.object_store.ring.ring import FileRing


async def test_the_rings_of_a_first_start_follow_its_address_and_copies_of_them_are_only_read(tmp_path: Path) -> None:
    first = Settings(data=tmp_path / "one")
    await Cluster(first).start()
    rings, copied = tmp_path / "one/object-store/rings", tmp_path / "copied"
    shutil.copytree(rings, copied)
    before = {path.name: path.read_bytes() for path in copied.iterdir()}

    moved = Settings(data=tmp_path / "one", object_bind="127.0.0.9")
    await Cluster(moved).start()
    assert FileRing(rings / "object.ring.gz").every()[0].address == "127.0.0.9"

    (tmp_path / "devices").mkdir()
    elsewhere = Settings(
        data=tmp_path / "two", object_bind="127.0.0.2", object_rings=copied, object_devices=tmp_path / "devices"
    )
    other = Cluster(elsewhere)
    await other.start()
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
    assert not other.alone
