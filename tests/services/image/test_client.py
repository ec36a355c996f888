"""openstacksdk and python-openstackclient use images and metadata definitions, unmodified."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstack.exceptions
import pytest

from tests.cloud import InProcessCloud

OPENSTACK = str(Path(sys.executable).parent / "openstack")

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessCloud]:
    cloud = InProcessCloud(tmp_path_factory.mktemp("clients") / "data")
    cloud.start()
    yield cloud
    cloud.stop()


class CommandLine:
    """The command `openstack`, run against the cloud; what it says, as JSON."""

    def __init__(self, cloud: InProcessCloud, name: str = "cumulet") -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        self._environment = {**clean, "OS_CLIENT_CONFIG_FILE": str(cloud.data / "clouds.yaml"), "OS_CLOUD": name}

    def __call__(self, words: str, *more: str) -> Any:
        command = [OPENSTACK, *words.split(), *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=self._environment, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip().startswith(("{", "[")) else None


def test_images_by_the_command_line(cloud: InProcessCloud, tmp_path: Path) -> None:
    run, demo = CommandLine(cloud), CommandLine(cloud, "cumulet-demo")
    file = tmp_path / "disk.raw"
    file.write_bytes(b"\x01" * 4096)
    made = demo("image create -f json --disk-format raw --property os_distro=blue --tag one --file", str(file), "cli")
    assert made["status"] == "active" and made["size"] == 4096 and made["properties"]["os_distro"] == "blue"
    assert made["properties"]["os_hash_algo"] == "sha512", made
    for words in ("--name cli", "--tag one", "--property os_distro=blue", "--status active --sort name:asc", "--long"):
        assert made["id"] in [row["ID"] for row in demo(f"image list -f json {words}")], words
    demo("image set --min-ram 64 --property color=red --tag two --hidden", made["id"])
    assert made["id"] not in [row["ID"] for row in demo("image list -f json")]
    assert made["id"] in [row["ID"] for row in demo("image list -f json --hidden")]
    demo("image set --unhidden --protected", made["id"])
    demo("image unset --property color --tag one", made["id"])
    shown = demo("image show -f json", made["id"])
    assert (
        shown["tags"] == ["two"]
        and shown["min_ram"] == 64
        and shown["protected"]
        and "color" not in shown["properties"]
    )
    project = str(sdk(cloud).identity.find_project("admin").id)
    demo("image add project", made["id"], project)
    run(f"image set --project {project} --accept", made["id"])
    (member,) = demo("image member list -f json", made["id"])
    assert (member["Member ID"], member["Status"]) == (project, "accepted")
    demo("image remove project", made["id"], project)
    demo("image set --deactivate", made["id"])
    assert demo("image show -f json", made["id"])["status"] == "deactivated"
    demo("image set --activate --unprotected", made["id"])
    saved = tmp_path / "saved.raw"
    demo("image save --file", str(saved), made["id"])
    assert saved.read_bytes() == file.read_bytes()
    demo("image delete", made["id"])
    assert made["id"] not in [row["ID"] for row in demo("image list -f json")]


def test_metadata_definitions_by_the_command_line(cloud: InProcessCloud) -> None:
    run = CommandLine(cloud)
    made = run("image metadef namespace create -f json --display-name Blue --public", "OS::Blue")
    assert made["visibility"] == "public" and made["display_name"] == "Blue"
    assert "OS::Blue" in str(run("image metadef namespace list -f json"))
    run("image metadef namespace set --description new --public --protected", "OS::Blue")
    assert run("image metadef namespace show -f json", "OS::Blue")["protected"] is True
    run("image metadef namespace set --unprotected --public", "OS::Blue")
    run("image metadef object create -f json --namespace OS::Blue sky")
    assert run("image metadef object show -f json OS::Blue sky")["name"] == "sky"
    assert "sky" in str(run("image metadef object list -f json OS::Blue"))
    run("image metadef property create -f json OS::Blue --name hue --title Hue --type string --schema {}")
    assert run("image metadef property show -f json OS::Blue hue")["type"] == "string"
    run("image metadef property set --title Shade --type string OS::Blue hue")
    assert "Shade" in str(run("image metadef property list -f json OS::Blue"))
    run("image metadef resource type association create -f json OS::Blue OS::Nova::Server")
    assert "OS::Nova::Server" in str(run("image metadef resource type list -f json"))
    assert "OS::Nova::Server" in str(run("image metadef resource type association list -f json OS::Blue"))
    run("image metadef resource type association delete OS::Blue OS::Nova::Server")
    run("image metadef property delete OS::Blue hue")
    run("image metadef object delete OS::Blue sky")
    run("image metadef namespace delete", "OS::Blue")
    assert "OS::Blue" not in str(run("image metadef namespace list -f json"))


def sdk(cloud: InProcessCloud, name: str = "cumulet") -> Any:
    """An SDK connection; what it finds of a service is typed at run time."""
    return cloud.connect(name)


def test_images_by_the_sdk(cloud: InProcessCloud) -> None:
    admin, demo = sdk(cloud), sdk(cloud, "cumulet-demo")
    image = demo.image.create_image("sdk", disk_format="raw", container_format="bare", data=b"\x02" * 10, kind="x")
    image = demo.image.get_image(image.id)
    assert image.status == "active" and image.properties["kind"] == "x"
    assert demo.image.find_image("sdk").id == image.id
    for query in ({"name": "sdk"}, {"size_min": 10, "size_max": 10}, {"visibility": "shared"}, {"sort": "name:asc"}):
        assert image.id in [found.id for found in demo.image.images(**query)], query
    demo.image.update_image(image, name="sdk2", kind="y")
    assert demo.image.get_image(image.id).properties["kind"] == "y"
    demo.image.add_tag(image, "blue")
    member = demo.image.add_member(image, member=admin.current_project_id)
    assert member.status == "pending"
    admin.image.update_member(admin.current_project_id, image.id, status="accepted")
    assert [found.status for found in demo.image.members(image)] == ["accepted"]
    demo.image.deactivate_image(image.id)
    demo.image.reactivate_image(image.id)
    assert demo.image.get("/info/usage").json()["usage"]["image_count_total"] == {"usage": 1, "limit": -1}
    demo.image.delete_image(image, ignore_missing=False)
    with pytest.raises(openstack.exceptions.NotFoundException):
        demo.image.get_image(image.id)


def test_metadata_definitions_by_the_sdk(cloud: InProcessCloud) -> None:
    admin, demo = sdk(cloud), sdk(cloud, "cumulet-demo")
    admin.image.create_metadef_namespace(namespace="sdk", visibility="public", display_name="SDK")
    assert "sdk" in [n.namespace for n in demo.image.metadef_namespaces()]
    admin.image.update_metadef_namespace("sdk", display_name="new", visibility="public")
    assert demo.image.get_metadef_namespace("sdk").display_name == "new"
    admin.image.create_metadef_object("sdk", name="thing")
    assert demo.image.get_metadef_object("thing", "sdk").name == "thing"
    admin.image.create_metadef_property("sdk", name="p", title="P", type="string")
    assert demo.image.get_metadef_property("p", "sdk").title == "P"
    assert [p.name for p in demo.image.metadef_properties("sdk")] == ["p"]
    admin.image.create_metadef_resource_type_association("sdk", name="OS::X")
    assert [t.name for t in demo.image.metadef_resource_type_associations("sdk")] == ["OS::X"]
    assert "OS::X" in [t.name for t in demo.image.metadef_resource_types()]
    assert demo.image.get_metadef_namespace_schema().name == "namespace"
    assert demo.image.get_images_schema().name == "images"
    with pytest.raises(openstack.exceptions.ForbiddenException):
        demo.image.delete_metadef_namespace("sdk", ignore_missing=False)
    admin.image.delete_all_metadef_properties("sdk")
    admin.image.delete_all_metadef_objects("sdk")
    admin.image.delete_metadef_namespace("sdk", ignore_missing=False)
    assert "sdk" not in [n.namespace for n in demo.image.metadef_namespaces()]


def test_limits_are_those_of_identity(cloud: InProcessCloud) -> None:
    admin, demo = sdk(cloud), sdk(cloud, "cumulet-demo")
    service = admin.identity.find_service("glance")
    limit = admin.identity.create_registered_limit(
        service_id=service.id, region_id="RegionOne", resource_name="image_count_total", default_limit=1
    )
    image = demo.image.create_image("limited", disk_format="raw", container_format="bare")
    assert demo.image.get("/info/usage").json()["usage"]["image_count_total"] == {"usage": 1, "limit": 1}
    with pytest.raises(openstack.exceptions.HttpException, match="image_count_total") as refused:
        demo.image.create_image("more", disk_format="raw", container_format="bare")
    assert refused.value.status_code == 413
    admin.identity.create_limit(
        service_id=service.id, region_id="RegionOne", resource_name="image_count_total", resource_limit=2,
        project_id=demo.current_project_id,
    )  # fmt: skip
    more = demo.image.create_image("more", disk_format="raw", container_format="bare")
    for made in (image, more):
        demo.image.delete_image(made, ignore_missing=False)
    (own,) = admin.identity.limits(project_id=demo.current_project_id)
    admin.identity.delete_limit(own)
    admin.identity.delete_registered_limit(limit)
