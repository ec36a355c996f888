"""A cluster loses a node, a disk, its network, its processes: what was promised stays."""

import os
import random
import time
from collections.abc import Iterator

import pytest

from tests.cluster.hosts import NODES, ObjectCluster, object_cluster, wait_until, why_not
from tests.cluster.load import Load

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectCluster]:
    with object_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def load(cluster: ObjectCluster, request: pytest.FixtureRequest) -> Iterator[Load]:
    made = Load(cluster, seed=request.node.name)
    made.start()
    made.go_on(30)
    yield made
    made.stop()


def settle(load: Load) -> None:
    """After all is well again every copy comes to its place, every listing names every object."""
    load.stop()
    load.check(settled=False)
    wait_until("copies in their places", load.missing_copies)
    wait_until("listings", load.unlisted)
    wait_until("copies of listings", load.unequal_listings)
    load.check()
    assert not load.failures, load.failures[:5]


def test_a_node_stops_while_objects_are_written(cluster: ObjectCluster, load: Load) -> None:
    node = cluster.nodes["n3"]
    node.kill()
    load.go_on(100)
    node.start()
    load.go_on(20)
    settle(load)
    assert set(load.writes) == {201}


def test_a_disk_is_wiped(cluster: ObjectCluster, load: Load) -> None:
    node = cluster.nodes["n2"]
    node.end()
    node.wipe()
    load.go_on(50)
    node.start()
    settle(load)


def test_the_network_parts_and_heals(cluster: ObjectCluster, load: Load) -> None:
    parted = [cluster.nodes[name] for name in NODES[:2]]
    with load.held():  # both copies that make a promise may be on the two nodes that are cut off at that moment
        for node in parted:
            node.cut()
    load.go_on(60)
    for node in parted:
        node.cut(off=False)
    settle(load)


def test_processes_are_killed_at_random_moments(cluster: ObjectCluster, load: Load) -> None:
    """One node after the other, and the proxy now and then, end as in a power cut while objects are written."""
    chance = random.Random(os.environ.get("CRASH_SEED", "5"))
    for round in range(6):
        node = cluster.nodes[chance.choice(NODES)]
        time.sleep(chance.uniform(0, 0.7))
        node.kill()
        if round % 3 == 2:
            cluster.proxy.kill()
            cluster.proxy.start()
            load.failures.clear()  # there was nobody to ask
        load.go_on(10)
        node.start()
    load.go_on(20)
    settle(load)
