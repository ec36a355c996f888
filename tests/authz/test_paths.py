"""What names files, or could: the console's pages, and ids of images."""

import pytest

from tests.authz.scene import Scene

OUTSIDE = [
    "/../../../etc/passwd", "/..%2f..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/etc%00/passwd",
    "/" + "a" * 5000, "/%ff", "/core/..%5c..%5cetc", "/%F0%9F%92%A5",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_the_consoles_pages_are_all_that_is_served(scene: Scene, path: str) -> None:
    reply = scene.cloud.request("GET", "novnc", path, token=None)
    assert reply.status_code in (404, 503) and "root:" not in reply.text  # 503 where noVNC is not installed


@pytest.mark.parametrize("name", ["../../secrets.json", "/etc/passwd", "a/b", ".", ""])
def test_an_image_is_not_named_as_a_file(scene: Scene, name: str) -> None:
    body = {"id": name, "name": name, "disk_format": "raw", "container_format": "bare"}
    assert scene.cloud.request("POST", "image", "/v2/images", body).status_code == 400
