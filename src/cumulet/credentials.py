"""The credential files in the data directory, for their owner only: `admin-openrc`, `demo-openrc`, `clouds.yaml`."""

import json
import shlex
from pathlib import Path

from msgspec import Struct

from cumulet.files import write_atomic

ADMIN_CLOUD = "cumulet"
DEMO_CLOUD = "cumulet-demo"
ADMIN_OPENRC = "admin-openrc"
DEMO_OPENRC = "demo-openrc"
CLOUDS_YAML = "clouds.yaml"


class CredentialsError(Exception):
    """A credential file is missing or cannot be read; the text says what to do."""


class Login(Struct, frozen=True):
    """How one user logs in to one project. Domains are ids."""

    auth_url: str
    username: str
    password: str
    project: str
    region: str
    user_domain: str = "default"
    project_domain: str = "default"


def write(data: Path, *, auth_url: str, region: str, admin_password: str, demo_password: str) -> None:
    """Write all three files, each atomically and with mode 0600. `auth_url` ends in `/v3`."""
    admin = Login(auth_url=auth_url, username="admin", password=admin_password, project="admin", region=region)
    demo = Login(auth_url=auth_url, username="demo", password=demo_password, project="demo", region=region)
    write_atomic(data / ADMIN_OPENRC, openrc(admin))
    write_atomic(data / DEMO_OPENRC, openrc(demo))
    write_atomic(data / CLOUDS_YAML, clouds_yaml({ADMIN_CLOUD: admin, DEMO_CLOUD: demo}))


def openrc(login: Login) -> str:
    """A file to source in a shell before running the `openstack` command."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in _variables(login).items())


def clouds_yaml(clouds: dict[str, Login]) -> str:
    """The file that openstacksdk and the `openstack` command look for. JSON's quoting is valid in YAML."""
    lines = ["clouds:"]
    for name, login in clouds.items():
        lines += [
            f"  {name}:",
            "    auth:",
            f"      auth_url: {json.dumps(login.auth_url)}",
            f"      username: {json.dumps(login.username)}",
            f"      password: {json.dumps(login.password)}",
            f"      project_name: {json.dumps(login.project)}",
            f"      user_domain_id: {login.user_domain}",
            f"      project_domain_id: {login.project_domain}",
            f"    region_name: {json.dumps(login.region)}",
            "    identity_api_version: 3",
            "    interface: public",
        ]
    return "\n".join(lines) + "\n"


def read_openrc(path: Path) -> Login:
    """Read back what `openrc` wrote. Raises CredentialsError."""
    try:
        words = shlex.split(path.read_text(encoding="utf-8"), comments=True)
    except OSError as error:
        raise CredentialsError(f"cannot read {path}: {error.strerror}; has `cumulet up` been started?") from error
    found = dict(word.split("=", 1) for word in words if "=" in word)
    try:
        return Login(
            auth_url=found["OS_AUTH_URL"],
            username=found["OS_USERNAME"],
            password=found["OS_PASSWORD"],
            project=found["OS_PROJECT_NAME"],
            region=found["OS_REGION_NAME"],
            user_domain=found["OS_USER_DOMAIN_ID"],
            project_domain=found["OS_PROJECT_DOMAIN_ID"],
        )
    except KeyError as error:
        raise CredentialsError(f"{path} does not set {error.args[0]}") from error


def _variables(login: Login) -> dict[str, str]:
    return {
        "OS_AUTH_URL": login.auth_url,
        "OS_IDENTITY_API_VERSION": "3",
        "OS_USERNAME": login.username,
        "OS_PASSWORD": login.password,
        "OS_PROJECT_NAME": login.project,
        "OS_USER_DOMAIN_ID": login.user_domain,
        "OS_PROJECT_DOMAIN_ID": login.project_domain,
        "OS_REGION_NAME": login.region,
        "OS_INTERFACE": "public",
    }
