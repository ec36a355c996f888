"""openstacksdk and python-openstackclient limit projects and cut their catalogues down, unmodified."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services.identity.conftest import PASSWORDS, Identity, wanted
from tests.services.identity.test_client import with_client

OPENSTACK = str(Path(sys.executable).parent / "openstack")

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")]


async def test_the_sdk_limits_projects(identity: Identity) -> None:
    def work(cloud: Any) -> None:
        service = cloud.identity.create_service(type="sample", name="sample")
        row = {"service_id": service.id, "resource_name": "apples", "region_id": "RegionOne"}
        registered = cloud.identity.create_registered_limit(**row, default_limit=10)
        assert cloud.identity.update_registered_limit(registered, default_limit=9).default_limit == 9
        project = cloud.identity.find_project("demo")
        limit = cloud.identity.create_limit(**row, resource_limit=4, project_id=project.id)
        assert cloud.identity.update_limit(limit, resource_limit=5).resource_limit == 5
        assert [x.id for x in cloud.identity.limits(project_id=project.id)] == [limit.id]
        assert [x.default_limit for x in cloud.identity.registered_limits(service_id=service.id)] == [9]
        cloud.identity.delete_limit(limit)
        cloud.identity.delete_registered_limit(registered)
        cloud.identity.delete_service(service)

    await with_client(identity, "admin", work)


async def test_the_sdk_gives_projects_their_endpoints(identity: Identity) -> None:
    def work(cloud: Any) -> None:
        service = cloud.identity.create_service(type="sample", name="sample")
        endpoint = cloud.identity.create_endpoint(service_id=service.id, interface="public", url="http://x.test")
        project = cloud.identity.find_project("demo")
        cloud.identity.associate_endpoint_with_project(project, endpoint)
        assert [e.id for e in cloud.identity.project_endpoints(project)] == [endpoint.id]
        assert [p.id for p in cloud.identity.endpoint_projects(endpoint)] == [project.id]
        cloud.identity.disassociate_endpoint_from_project(project, endpoint)
        group = cloud.identity.create_endpoint_group(name="near", filters={"service_id": service.id})
        assert cloud.identity.update_endpoint_group(group, name="far").name == "far"
        cloud.identity.associate_project_with_endpoint_group(group, project)
        assert [e.id for e in cloud.identity.endpoint_group_endpoints(group)] == [endpoint.id]
        assert [p.id for p in cloud.identity.endpoint_group_projects(group)] == [project.id]
        assert [g.name for g in cloud.identity.project_endpoint_groups(project)] == ["far"]
        cloud.identity.disassociate_project_from_endpoint_group(group, project)
        cloud.identity.delete_endpoint_group(group)

    await with_client(identity, "admin", work)


async def test_the_command_line_does_both(identity: Identity, tmp_path: Path) -> None:
    await identity.runtime.ensure_bootstrap(wanted(identity_url=f"{identity.http.url}/v3"))
    environment = {
        **os.environ, "OS_AUTH_URL": f"{identity.http.url}/v3", "OS_USERNAME": "admin", "OS_PASSWORD": PASSWORDS["admin"],
        "OS_PROJECT_NAME": "admin", "OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default",
        "OS_IDENTITY_API_VERSION": "3", "OS_REGION_NAME": "RegionOne",
    }  # fmt: skip

    async def openstack(*words: str) -> Any:
        """What a command says, as JSON where it says anything."""
        process = await asyncio.create_subprocess_exec(
            OPENSTACK, *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out) if out.strip() else None

    show = ("-f", "json")
    await openstack("service", "create", "--name", "sample", "sample", *show)
    endpoint = (await openstack("endpoint", "create", "sample", "public", "http://x.test", *show))["id"]
    what = ("--service", "sample", "--region", "RegionOne")
    registered = await openstack("registered", "limit", "create", *what, "--default-limit", "10", "apples", *show)
    assert registered["default_limit"] == 10
    limit = await openstack("limit", "create", "--project", "demo", *what, "--resource-limit", "3", "apples", *show)
    assert limit["resource_limit"] == 3 and limit["project_id"] == identity.accounts.demo_project_id
    assert [row["Resource Name"] for row in await openstack("limit", "list", "--project", "demo", *show)] == ["apples"]
    await openstack("endpoint", "add", "project", endpoint, "demo")
    assert [row["ID"] for row in await openstack("endpoint", "list", "--project", "demo", *show)] == [endpoint]
    filters = tmp_path / "filters.json"
    filters.write_text('{"interface": "public"}')
    await openstack("endpoint", "group", "create", "near", str(filters), *show)
    await openstack("endpoint", "group", "add", "project", "near", "demo")
    assert [row["Name"] for row in await openstack("endpoint", "group", "list", "--project", "demo", *show)] == ["near"]
    demo = (await identity.login("demo", scope="demo")).json()["token"]["catalog"]
    assert {entry["interface"] for service in demo for entry in service["endpoints"]} == {"public"}
