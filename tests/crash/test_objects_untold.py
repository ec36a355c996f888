"""SIGKILL (and a power cut) between an object's file and its row: what is on the disk is listed after the next start.

The moment is not left to chance: a container's database is locked, so that the program waits with the row, and is killed there.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
import requests

from cumulet.services.object_store.storage.object_file import choose
from tests.cloud import ProcessCloud
from tests.crash.killing import simulated_cloud
from tests.crash.object_disk import QUEUE, SOON, settled

Request = tuple[str, str, bytes, dict[str, Any]]
OFTEN = {"CUMULET_OBJECT_UPDATE_INTERVAL": "0.5", "CUMULET_OBJECT_EXPIRER_INTERVAL": "0.2"}
SHORT = 5
"""Seconds after which an object goes by itself."""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[ProcessCloud]:
    with simulated_cloud(tmp_path, environment=OFTEN) as cloud:
        yield cloud


class Client:
    """The owner of an account, whose requests may end with the program."""

    def __init__(self, cloud: ProcessCloud) -> None:
        self.cloud = cloud
        self.token = cloud.token()
        self.account = f"AUTH_{cloud.connect().current_project_id}"

    def __call__(self, method: str, path: str, data: bytes = b"", **headers: Any) -> requests.Response:
        told = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        path = f"/v1/{self.account}/{path}"
        return self.cloud.request(method, "object-store", path, token=self.token, data=data, headers=told)

    def listed(self, container: str) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self("GET", f"{container}?format=json").json()}

    def killed(self, *wanted: Request) -> None:
        """Make requests, and kill the cloud when the file of each is there: none is answered before."""
        before = self.files()
        answered: list[int] = []

        def ask(request: Request) -> None:
            with contextlib.suppress(requests.RequestException):
                answered.append(self(request[0], request[1], request[2], **request[3]).status_code)

        threads = [threading.Thread(target=ask, args=(request,)) for request in wanted]
        for thread in threads:
            thread.start()
        until(lambda: len(self.files() - before) == len(wanted))
        self.cloud.kill()
        for thread in threads:
            thread.join()
        assert answered == []

    @property
    def device(self) -> Path:
        return self.cloud.data / "object-store/devices/d1"

    def files(self) -> set[Path]:
        return {path for path in self.device.glob("objects/*/*/*/*") if path.suffix in (".data", ".ts", ".meta")}

    def objects(self) -> int:
        """How many objects there are, by their files."""
        directories = {path.parent for path in self.files()}
        return sum(bool(choose([path.name for path in directory.iterdir()]).data) for directory in directories)


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def locked(client: Client, container: str) -> Iterator[None]:
    """Nobody else writes to the database of a container, nor to the queue of objects that go by themselves."""
    with contextlib.ExitStack() as stack:
        for path in client.device.glob("containers/*/*/*/*.db"):
            conn = stack.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None)))
            ((told,),) = conn.execute("SELECT data FROM info")
            if f'"account":"{QUEUE}"' in told or f'"container":"{container}"' in told:
                conn.execute("BEGIN IMMEDIATE")
        yield


def test_what_was_not_told_is_listed(cloud: ProcessCloud) -> None:
    client = Client(cloud)
    for container in ("c", "d"):
        assert client("PUT", container).status_code == 201
    for name in ("old", "doomed", "typed"):
        assert client("PUT", f"c/{name}", b"as it was", Content_Type="text/plain").status_code == 201
    # The entry of an object lies in one of a hundred containers of the day on which it ends, by its name. So this makes the one
    # that is locked below; and that of tomorrow as well, should the object that is put then end after midnight (UTC).
    for seconds in (SHORT, 60):
        assert client("PUT", "d/short", b"", X_Delete_After=seconds).status_code == 201
        assert client("DELETE", "d/short").status_code == 204
    with locked(client, "c"):
        client.killed(
            ("PUT", "c/new", b"new", {}),
            ("PUT", "c/old", b"another", {}),
            ("POST", "c/typed", b"", {"Content_Type": "image/png", "X_Object_Meta_Colour": "red"}),
            ("DELETE", "c/doomed", b"", {}),
            ("PUT", "d/short", b"goes by itself", {"X_Delete_After": SHORT}),
        )
    cloud.start()
    rows = client.listed("c")
    assert set(rows) == {"new", "old", "typed"}
    assert rows["new"]["hash"] == md5(b"new").hexdigest()
    assert rows["old"]["bytes"] == len(b"another")
    assert client("GET", "c/old").content == b"another"
    assert rows["typed"]["content_type"] == "image/png"
    until(lambda: client("GET", "d/short").status_code == 404)
    until(lambda: client.objects() == len(rows))  # so its file is gone as well
    settled(cloud.data)

    with locked(client, "d"):
        client.killed(("PUT", "d/cut", b"before the lights went out", {}))
    noted = client.device / "intents"
    noted.write_bytes(b"\0" * 640)  # as if nothing of it had been written to the disk
    cloud.start()
    until(lambda: "cut" in client.listed("d"))
    settled(cloud.data)
    for name in ("c/new", "c/old", "c/typed", "c", "d/cut", "d"):
        assert client("DELETE", name).status_code == 204
    cloud.stop()
    assert not noted.exists(), "a stop in order leaves nothing to be looked for"
