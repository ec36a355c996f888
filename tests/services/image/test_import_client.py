"""openstacksdk and python-openstackclient stage, import, copy and cache images, unmodified."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import InProcessCloud
from tests.services.image.test_client import CommandLine, sdk

pytestmark = pytest.mark.clients

DATA = b"\x03" * 5000


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessCloud]:
    cloud = InProcessCloud(
        tmp_path_factory.mktemp("imports") / "data", image_stores="file,second", image_cache=1,
        image_download_private="127.0.0.0/8", image_download_ports="*",
    )  # fmt: skip
    cloud.start()
    yield cloud
    cloud.stop()


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is told."""


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/disk"
    server.shutdown()
    thread.join()
    server.server_close()


def active(demo: Any, image_id: str) -> Any:
    """The image, once nothing goes on with it."""
    deadline = time.monotonic() + 60
    while True:
        image = demo.image.get_image(image_id)
        if image.status == "active" and "os_glance_import_task" not in image.properties:
            return image
        assert time.monotonic() < deadline, image
        time.sleep(0.05)


def test_imports_by_the_sdk(cloud: InProcessCloud, page: str) -> None:
    admin, demo = sdk(cloud), sdk(cloud, "cumulet-demo")
    assert [store.id for store in demo.image.stores()] == ["file", "second"]
    assert all(store.properties["data_dir"] for store in admin.image.stores(details=True))
    assert "glance-direct" in demo.image.get_import_info().import_methods["value"]
    image = demo.image.create_image("sdk", disk_format="raw", container_format="bare", use_import=True, data=DATA)
    image = active(demo, image.id)
    assert image.size == len(DATA) and image.properties["stores"] == "file"
    assert demo.image.download_image(image).content == DATA
    admin.image.import_image(image, method="copy-image", all_stores=True)
    assert active(demo, image.id).properties["stores"] == "file,second"
    image = demo.image.create_image("web", disk_format="raw", container_format="bare")
    demo.image.import_image(image, method="web-download", uri=page)
    assert active(demo, image.id).size == len(DATA)
    assert demo.image.download_image(image).content == DATA
    demo.image.update_image(image, color="red")
    image = demo.image.update_image(demo.image.get_image(image.id), color="blue", name="changed")
    assert (image.name, image.properties["color"], image.properties["stores"]) == ("changed", "blue", "file")
    tasks = list(demo.image.image_tasks(image))
    assert [task.status for task in tasks] == ["success"]
    assert admin.image.get_task(tasks[0].id).result == {"image_id": image.id}
    assert tasks[0].id in [task.id for task in admin.image.tasks()]
    admin.image.queue_image(image.id)
    deadline = time.monotonic() + 60
    while image.id not in [one["image_id"] for one in admin.image.get_image_cache().cached_images]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    admin.image.cache_delete_image(image.id)
    admin.image.clear_cache("both")
    for one in demo.image.images(owner=demo.current_project_id):
        demo.image.delete_image(one)


def test_imports_by_the_command_line(cloud: InProcessCloud, page: str, tmp_path: Path) -> None:
    run, demo, connection = CommandLine(cloud), CommandLine(cloud, "cumulet-demo"), sdk(cloud, "cumulet-demo")
    file = tmp_path / "disk.raw"
    file.write_bytes(DATA)
    made = demo("image create -f json --disk-format raw --import --file", str(file), "cli")
    assert active(connection, made["id"]).size == len(DATA)
    staged, web = (  # the command would read the data from its standard input
        connection.image.create_image(name, disk_format="raw", container_format="bare") for name in ("staged", "web")
    )
    demo("image stage --file", str(file), staged["id"])
    assert demo("image show -f json", staged["id"])["status"] == "uploading"
    demo("image import --method glance-direct --all-stores", staged["id"])
    assert active(connection, staged["id"]).properties["stores"] == "file,second"
    demo(f"image import --store second --method web-download --uri {page}", web["id"])
    assert active(connection, web["id"]).properties["stores"] == "second"
    demo("image set --property color=red", web["id"])
    assert connection.image.get_image(web["id"]).properties["color"] == "red"
    assert "web-download" in str(demo("image import info -f json"))
    assert "second" in str(run("image stores list -f json"))
    task = run("image task list -f json --status success")[0]
    assert run("image task show -f json", task["ID"])["type"] == "api_image_import"
    run("cached image queue", web["id"])
    deadline = time.monotonic() + 60
    while not [row for row in run("cached image list -f json") if row["ID"] == web["id"] and row["State"] == "cached"]:
        assert time.monotonic() < deadline
    run("cached image delete", web["id"])
    run("cached image clear")
    run("image delete --store second", staged["id"])
    assert connection.image.get_image(staged["id"]).properties["stores"] == "file"
    for image in (made, staged, web):
        demo("image delete", image["id"])
