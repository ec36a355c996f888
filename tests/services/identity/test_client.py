"""openstacksdk logs in and works with accounts, unmodified."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
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


def run_command(directory: Path, *arguments: str, cloud: str = credentials.ADMIN_CLOUD) -> Any:
    """`openstack ... -f json`, the official command line."""
    environ = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(directory / credentials.CLOUDS_YAML), "OS_CLOUD": cloud}
    command = [sys.executable, "-W", "ignore", "-m", "openstackclient.shell", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout) if done.stdout.strip() else None


@pytest.mark.clients
async def test_the_command_line_manages_users_and_their_passwords(identity: Identity) -> None:
    def work(cloud: Any) -> None:
        directory = identity.runtime.kernel.settings.data
        options = ["--ignore-lockout-failure-attempts", "--multi-factor-auth-rule", "password,totp"]
        made = run_command(directory, "user", "create", "ann", "--password", "secret", *options, "-f", "json")
        rules = {"ignore_lockout_failure_attempts": True, "multi_factor_auth_rules": [["password", "totp"]]}
        assert made["options"] == rules
        run_command(directory, "user", "set", "ann", "--disable-multi-factor-auth", "--password", "other")
        shown = run_command(directory, "user", "show", "ann", "-f", "json")
        assert shown["options"] == {**rules, "multi_factor_auth_enabled": False} and shown["enabled"] is True
        old, new = PASSWORDS["demo"], "another"
        change = ["user", "password", "set", "--original-password", old, "--password", new]
        run_command(directory, *change, cloud=credentials.DEMO_CLOUD)

    await with_client(identity, "admin", work)
    assert (await identity.login("ann", "other")).status == 201
    assert (await identity.login("demo", "another")).status == 201
    assert (await identity.login("demo")).status == 401
