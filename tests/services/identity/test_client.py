"""openstacksdk logs in and works with accounts, unmodified."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import openstack
import openstack.connection
import pytest

from cumulet import credentials
from tests.services.identity.conftest import PASSWORDS, Identity, wanted

T = TypeVar("T")

# The SDK warns of calls that it makes itself.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


def connect(url: str, user: str, directory: Path) -> Any:
    passwords = {f"{name}_password": text for name, text in PASSWORDS.items()}
    credentials.write(directory, auth_url=f"{url}/v3", region="RegionOne", **passwords)
    config = openstack.config.OpenStackConfig(config_files=[str(directory / credentials.CLOUDS_YAML)])
    cloud = credentials.ADMIN_CLOUD if user == "admin" else credentials.DEMO_CLOUD
    return openstack.connection.Connection(config=config.get_one(cloud))


async def with_client(identity: Identity, user: str, work: Callable[[Any], T]) -> T:
    await identity.runtime.ensure_bootstrap(wanted(identity_url=f"{identity.http.url}/v3"))

    def run() -> T:
        with connect(identity.http.url, user, identity.runtime.kernel.settings.data) as connection:
            return work(connection)

    return await asyncio.to_thread(run)


@pytest.mark.clients
async def test_the_sdk_manages_accounts(identity: Identity) -> None:
    def work(cloud: Any) -> None:
        identity = cloud.identity
        assert {p.name for p in identity.projects()} == {"admin", "demo", "service"}
        domain = identity.create_domain(name="realm")
        project = identity.create_project(name="work", domain_id=domain.id, tags=["a"])
        user = identity.create_user(name="ann", domain_id=domain.id, password="secret", email="ann@test")
        group = identity.create_group(name="crew", domain_id=domain.id)
        identity.add_user_to_group(user, group)
        assert [u.id for u in identity.group_users(group)] == [user.id]
        role = identity.find_role("member")
        identity.assign_project_role_to_user(project, user, role)
        assert identity.validate_user_has_project_role(project, user, role)
        assert [a.role["id"] for a in identity.role_assignments(user_id=user.id)] == [role.id]
        assert [r.name for r in identity.role_assignments_filter(user=user.id, project=project.id)] == ["member"]
        identity.unassign_project_role_from_user(project, user, role)
        assert not identity.validate_user_has_project_role(project, user, role)
        assert identity.update_user(user, email="new@test").email == "new@test"
        identity.update_domain(domain, is_enabled=False)
        identity.delete_domain(domain)
        assert identity.find_user("ann", domain_id=domain.id) is None
        assert {s.type for s in identity.services()} == {"identity", "network", "object-store"}
        assert {e.interface for e in identity.endpoints()} == {"public", "admin"}
        assert [r.id for r in identity.regions()] == ["RegionOne"]
        service = identity.create_service(type="sample", name="sample")
        identity.create_endpoint(service_id=service.id, interface="public", url="http://x.test", region_id="RegionOne")
        identity.delete_service(service)

    await with_client(identity, "admin", work)


@pytest.mark.clients
async def test_the_sdk_as_an_ordinary_user(identity: Identity) -> None:
    def work(cloud: Any) -> None:
        assert cloud.current_project_id == identity.accounts.demo_project_id
        assert [p.name for p in cloud.identity.user_projects(cloud.current_user_id)] == ["demo"]
        assert cloud.identity.get_user(cloud.current_user_id).name == "demo"
        with pytest.raises(openstack.exceptions.ForbiddenException):
            list(cloud.identity.users())

    await with_client(identity, "demo", work)
