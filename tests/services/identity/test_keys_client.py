"""python-openstackclient makes access keys, credentials and consumers, and dances with them, unmodified."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services.identity.conftest import PASSWORDS, Identity, wanted

OPENSTACK = str(Path(sys.executable).parent / "openstack")

pytestmark = pytest.mark.clients


class CommandLine:
    """The command `openstack`, run against the cloud."""

    def __init__(self, cloud: Identity, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        url = {"OS_AUTH_URL": f"{cloud.http.url}/v3", "OS_IDENTITY_API_VERSION": "3"}
        self._environment = {**clean, **url, **environment}

    @classmethod
    def of(cls, cloud: Identity, user: str) -> "CommandLine":
        return cls(
            cloud, OS_USERNAME=user, OS_PASSWORD=PASSWORDS[user], OS_PROJECT_NAME=user, OS_USER_DOMAIN_ID="default",
            OS_PROJECT_DOMAIN_ID="default",
        )  # fmt: skip

    async def __call__(self, words: str, *more: str) -> Any:
        """What the command says; names of columns in lower case."""
        process = await asyncio.create_subprocess_exec(
            OPENSTACK, *words.split(), *more, env=self._environment, stdout=-1, stderr=-1
        )
        out, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()
        found = json.loads(out) if out.strip() else None
        return {name.lower(): value for name, value in found.items()} if isinstance(found, dict) else found


@pytest.fixture
async def cloud(identity: Identity) -> Identity:
    await identity.runtime.ensure_bootstrap(wanted(identity_url=f"{identity.http.url}/v3"))
    return identity


async def test_access_keys_and_credentials(cloud: Identity) -> None:
    run, user = CommandLine.of(cloud, "demo"), cloud.accounts.demo_user_id
    key = await run("ec2 credentials create -f json")
    assert key["user_id"] == user and key["project_id"] == cloud.accounts.demo_project_id
    (listed,) = await run("ec2 credentials list -f json")
    assert listed["Access"] == key["access"] and listed["Secret"] == key["secret"]
    assert (await run("ec2 credentials show -f json", key["access"]))["secret"] == key["secret"]
    made = await run("credential create --type cert -f json", user, "certificate")
    assert {row["Type"] for row in await run("credential list -f json")} == {"cert", "ec2"}
    await run("credential set --type cert --data other --user", user, made["id"])
    assert (await run("credential show -f json", made["id"]))["blob"] == "other"
    await run("credential delete", made["id"])
    await run("ec2 credentials delete", key["access"])
    assert await run("credential list -f json") == []


async def test_consumers(cloud: Identity) -> None:
    run = CommandLine.of(cloud, "admin")
    consumer = await run("consumer create --description printer -f json")
    await run("consumer set --description scanner", consumer["id"])
    (listed,) = await run("consumer list -f json")
    assert listed["ID"] == consumer["id"]
    keys = ("--consumer-key", consumer["id"], "--consumer-secret", consumer["secret"])
    request = await run("request token create --project admin -f json", *keys)
    said = await run("request token authorize --role member -f json --request-key", request["id"])
    asked = ("--request-key", request["id"], "--request-secret", request["secret"])
    verifier = ("--verifier", said["oauth_verifier"])
    access = await run("access token create -f json", *keys, *asked, *verifier)
    program = CommandLine(
        cloud, OS_AUTH_TYPE="v3oauth1", OS_CONSUMER_KEY=consumer["id"], OS_CONSUMER_SECRET=consumer["secret"],
        OS_ACCESS_KEY=access["id"], OS_ACCESS_SECRET=access["secret"],
    )  # fmt: skip
    assert (await program("token issue -f json"))["project_id"] == cloud.accounts.admin_project_id
    await run("consumer delete", consumer["id"])
