"""SIGKILL at random moments while images are uploaded, staged, imported, converted and copied: no image is left on its way, no
file without an owner, and what was promised is there."""

import hashlib
import itertools
import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cloud import ProcessCloud
from tests.crash.killing import Promises, kill_while, rows, simulated_cloud, turns

ROUNDS = 6
DATA = os.urandom(6_000_000)
PIECE = 200_000
SEGMENT = 1 << 20
OCTETS = {"Content-Type": "application/octet-stream"}


class Slow(BaseHTTPRequestHandler):
    """Gives the data in pieces, over about half a second."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        try:
            for start in range(0, len(DATA), PIECE):
                self.wfile.write(DATA[start : start + PIECE])
                time.sleep(0.015)
        except OSError:
            return  # the cloud was killed

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is told."""


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/data"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[ProcessCloud]:
    with simulated_cloud(
        tmp_path, "--image-stores", "file,second,object-store", "--image-segment-size", "1",
        "--image-download-private", "127.0.0.0/8", "--image-download-ports", "*", "--image-conversion", "qcow2",
    ) as cloud:  # fmt: skip
        yield cloud


class Clients:
    """Clients that import until the cloud is killed under them."""

    def __init__(self, cloud: ProcessCloud, web: str) -> None:
        self.cloud, self.web, self.token = cloud, web, cloud.token()
        self.images = Promises()
        self.stopped = threading.Event()

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
        reply = self.cloud.request(method, "image", path, body, token=self.token, **more)
        assert reply.status_code < 500, reply.text
        return reply

    def work(self, dice: random.Random) -> None:
        for number in itertools.count():
            if self.stopped.is_set():
                return
            self.one(dice, number)

    def one(self, dice: random.Random, number: int) -> None:
        body = {"name": f"i{number}", "disk_format": "raw", "container_format": "bare"}
        image = self.call("POST", "/v2/images", body).json()["id"]
        path, kind = f"/v2/images/{image}", dice.choice(("upload", "direct", "web", "copy"))
        if kind in ("upload", "copy"):
            store = {"X-Image-Meta-Store": dice.choice(("file", "object-store"))}
            self.call("PUT", f"{path}/file", data=self.slowly(dice), headers={**OCTETS, **store})
            self.images.promised.add(image)
        elif kind == "direct":
            self.call("PUT", f"{path}/stage", data=self.slowly(dice), headers=OCTETS)
        method = {"direct": {"name": "glance-direct"}, "web": {"name": "web-download", "uri": self.web}}
        if kind != "upload":
            wanted: dict[str, Any] = {"method": method.get(kind, {"name": "copy-image"}), "all_stores": True}
            wanted["all_stores_must_succeed"] = dice.random() < 0.5
            if self.call("POST", f"{path}/import", wanted).status_code == 202:
                self.images.promised.add(image)
        if dice.random() < 0.3:
            time.sleep(dice.random() * 0.3)
            self.images.doomed.add(image)
            self.call("DELETE", path)
            self.images.gone.add(image)

    def slowly(self, dice: random.Random) -> Iterator[bytes]:
        for start in range(0, len(DATA), PIECE):
            yield DATA[start : start + PIECE]
            time.sleep(0.01 * dice.random())


def settled(cloud: ProcessCloud) -> list[dict[str, Any]]:
    """All images, once no operation is unfinished."""
    deadline = time.monotonic() + 120
    while True:
        ((left,),) = rows(cloud, "SELECT count(*) FROM core_operation WHERE state IN ('queued', 'running')")
        if left == 0:
            images: list[dict[str, Any]] = cloud.request("GET", "image", "/v2/images?limit=1000").json()["images"]
            return images
        assert time.monotonic() < deadline, f"{left} operations do not end"
        time.sleep(0.1)


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def objects(cloud: ProcessCloud, container: str) -> set[str]:
    """The names in a container of the image service's own."""
    found = set()
    for path in (cloud.data / "object-store/devices").rglob("containers/*/*/*/*.db"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            told = json.loads(database.execute("SELECT data FROM info").fetchone()[0])
            if (told["account"], told["container"]) == (".image", container):
                found |= {name for (name,) in database.execute("SELECT name FROM object WHERE deleted = 0")}
    return found


def check(cloud: ProcessCloud, images: list[dict[str, Any]]) -> None:
    """No image is on its way, and every file is one that an image owns up to."""
    assert {image["status"] for image in images} <= {"queued", "active", "uploading"}
    assert not [
        image for image in images if "os_glance_import_task" in image or image.get("os_glance_importing_to_stores")
    ]
    for store, directory in (("file", "image"), ("second", "image-second")):
        owners = {image["id"] for image in images if store in image.get("stores", "").split(",")}
        assert files(cloud.data / directory) == owners, store
    sizes = {image["id"]: image["size"] for image in images if "object-store" in image.get("stores", "").split(",")}
    kept, segments = objects(cloud, "images-object-store"), objects(cloud, "images-object-store+segments")
    assert kept == set(sizes) and files(cloud.data / "image-object-store") == set()
    assert len(segments) == sum(-(-size // SEGMENT) for size in sizes.values() if size > SEGMENT)
    waiting = {image["id"] for image in images if image["status"] == "uploading"}
    deadline = time.monotonic() + 60
    while files(cloud.data / "image-staging") != waiting and time.monotonic() < deadline:
        time.sleep(0.05)  # what an import that has just ended staged is removed after its end is written down
    assert files(cloud.data / "image-staging") == waiting
    tasks = cloud.request("GET", "image", "/v2/tasks?limit=1000").json()["tasks"]
    assert {task["status"] for task in tasks} <= {"success", "failure"}


def test_sigkill_during_imports(cloud: ProcessCloud, web: str) -> None:
    dice = random.Random(int(os.environ.get("CRASH_SEED", "1")))
    clients = Clients(cloud, web)
    for number in turns(ROUNDS, lambda: len(clients.images.free()) > ROUNDS):
        jobs = [partial(clients.work, random.Random(f"{number}.{one}.{dice.random()}")) for one in range(4)]
        kill_while(cloud, jobs, clients.stopped, 0.3 + dice.random() * 2)
        cloud.start()
        images = settled(cloud)
        check(cloud, images)
        there = {image["id"]: image for image in images}
        clients.images.check(set(there), "images")
        broken = {one: there[one]["status"] for one in clients.images.free() if there[one]["status"] != "active"}
        assert not broken, broken
    assert len(clients.images.free()) > ROUNDS
    assert any("object-store" in there[image]["stores"] for image in clients.images.free())
    for image in clients.images.free():
        data = cloud.request("GET", "image", f"/v2/images/{image}/file").content
        assert hashlib.sha512(data).hexdigest() == there[image]["os_hash_value"]
        assert there[image]["disk_format"] == "qcow2" or data == DATA
    for image in there:
        assert cloud.request("DELETE", "image", f"/v2/images/{image}").status_code == 204
    check(cloud, settled(cloud))
