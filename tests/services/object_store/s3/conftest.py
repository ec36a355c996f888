"""A whole cloud and boto3 clients with access keys of its users."""

import secrets
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.cloud import InProcessCloud


class S3Cloud:
    """A cloud, and clients of its S3 API."""

    def __init__(self, cloud: InProcessCloud) -> None:
        self.cloud = cloud
        self.endpoint = cloud.url("object-store")
        self._keys: dict[str, dict[str, Any]] = {}

    def key(self, name: str = "cumulet-demo") -> dict[str, Any]:
        """An access key of the user `name` of clouds.yaml."""
        if name not in self._keys:
            self._keys[name] = self.new_key(self.cloud.connect(name))
        return self._keys[name]

    def new_key(self, connection: Any) -> dict[str, Any]:
        path = f"/users/{connection.current_user_id}/credentials/OS-EC2"
        made: Any = connection.identity.post(path, json={"tenant_id": connection.current_project_id})
        key: dict[str, Any] = made.json()["credential"]
        return key

    def user(self, name: str, *roles: str, project: str = "demo") -> Any:
        """An access key of a new user with these roles in a project."""
        admin: Any = self.cloud.connect()
        user = admin.identity.create_user(name=f"{name}-{secrets.token_hex(4)}", password="secret")
        found = admin.identity.find_project(project)
        for role in roles:
            admin.identity.assign_project_role_to_user(found, user, admin.identity.find_role(role))
        path = f"/users/{user.id}/credentials/OS-EC2"
        return admin.identity.post(path, json={"tenant_id": found.id}).json()["credential"]

    def expire(self) -> None:
        """Have what is to be deleted later deleted now."""
        self.cloud.call(self.cloud.program.object_store.expirer.run())

    def client(
        self, key: dict[str, Any] | None = None, version: str = "s3v4", style: str = "path", region: str = "us-east-1"
    ) -> Any:
        key = key or self.key()
        config = Config(signature_version=version, s3={"addressing_style": style}, retries={"total_max_attempts": 1})
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=region,
            aws_access_key_id=key["access"],
            aws_secret_access_key=key["secret"],
            config=config,
        )


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """The cloud's settings, for modules that need others than the usual."""
    return {}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> Iterator[S3Cloud]:
    cloud = InProcessCloud(tmp_path_factory.mktemp("s3") / "data", **settings)
    cloud.start()
    yield S3Cloud(cloud)
    cloud.stop()


@pytest.fixture(params=["s3v4", "s3"])
def client(request: pytest.FixtureRequest, s3: S3Cloud) -> Any:
    """A client of the project demo, with each version of the signature."""
    return s3.client(version=request.param)


@pytest.fixture
def bucket(client: Any) -> str:
    """A new bucket of its own."""
    name = f"bucket-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=name)
    return name
