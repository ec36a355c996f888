"""Runs swift's own functional tests against a running Cumulet, and says what passed.

    python conformance/swift_suite.py --data DIR [--out DIR] [pytest's arguments: tests, -k, ...]

The tests are those of swift's sdist, fetched with pip into a virtual environment of their own and not kept here. The projects
and users that they need are made as the admin of DIR/clouds.yaml. What is off by default is skipped, unless the cloud runs with
`--object-reseller-prefixes AUTH,SERVICE --object-service-roles service` (service tokens), `--object-storage-domain example.net`
(domain remap), `--object-open-expired` and several storage policies.
"""

import argparse
import configparser
import json
import os
import secrets
import subprocess
import sys
import tarfile
import venv
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import openstack
import openstack.config
from openstack.connection import Connection

VERSION = "2.38.3"
PACKAGES = (f"swift=={VERSION}", "python-swiftclient", "python-keystoneclient", "boto", "boto3", "awscrt", "pytest")
S3_REGION = "us-east-1"
DOMAIN = "test-domain"
PASSWORD = "testing-testing"
USERS = (
    # number in test.conf, user, project, domain, role
    ("", "tester", "test", "default", "member"),
    ("2", "tester2", "test2", "default", "member"),
    ("3", "tester3", "test", "default", "nothing"),
    ("4", "tester4", "test4", DOMAIN, "member"),
    ("5", "tester5", "test5", "default", "service"),
    ("6", "tester6", "test6", "default", "ResellerAdmin"),
)
SECOND_S3 = "tester-s3"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run swift's functional tests against a running Cumulet.")
    parser.add_argument("--data", type=Path, required=True, help="the data directory of the cloud, with clouds.yaml")
    parser.add_argument("--out", type=Path, default=Path("swift-suite"), help="where the results go")
    parser.add_argument(
        "--home", type=Path, default=Path.home() / ".cache/cumulet-swift-suite", help="swift and its venv"
    )
    parser.add_argument("--storage-domain", default="", help="what the cloud's --object-storage-domain is")
    options, more = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    source = fetch(options.home)
    config = openstack.config.OpenStackConfig(config_files=[str(options.data / "clouds.yaml")])
    write_config(Connection(config=config.get_one("cumulet")), options.out / "test.conf", options.storage_domain)
    if not any(each.startswith("test") for each in more):
        more = ["test/functional", "-o", "python_files=test_*.py tests.py", *more]
    results = options.out.absolute() / "results.xml"
    command = [
        options.home / "venv/bin/python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={results}",
        *more,
    ]
    environment = {**os.environ, "SWIFT_TEST_CONFIG_FILE": str(options.out.absolute() / "test.conf")}
    subprocess.run(command, cwd=source, env=environment, check=False)
    return report(results, options.out / "summary.txt")


def fetch(home: Path) -> Path:
    """The sdist, unpacked, and an environment that can run its tests."""
    source, python = home / f"swift-{VERSION}", home / "venv/bin/python"
    if not python.exists():
        venv.create(home / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    if not source.exists():
        wanted = ["--no-binary", "swift", "--no-deps", "--no-build-isolation", "-d", str(home), f"swift=={VERSION}"]
        subprocess.run([python, "-m", "pip", "install", "-q", "pbr", "setuptools", "wheel"], check=True)
        subprocess.run([python, "-m", "pip", "download", "-q", *wanted], check=True)
        with tarfile.open(home / f"swift-{VERSION}.tar.gz") as archive:
            archive.extractall(home, filter="data")
    return source


def write_config(cloud: Any, path: Path, storage_domain: str) -> None:
    """Make projects, users and roles, and tell the tests of them."""
    identity = cloud.identity
    domains = {"default": "default"}
    found = identity.find_domain(DOMAIN) or identity.create_domain(name=DOMAIN)
    domains[DOMAIN] = found.id
    told = {
        "auth_version": "3",
        "auth_uri": cloud.config.get_auth_args()["auth_url"],
        "collate": "C",
        "insecure": "no",
        "service_prefix": "SERVICE",
        "storage_domain": "example.net",
        "s3_storage_url": cloud.object_store.get_endpoint().split("/v1/")[0] + "/",
        "s3_region": S3_REGION,
    }
    if storage_domain:
        told["storage_domain"] = storage_domain
    keys = {}
    for number, name, project, domain, role in USERS:
        keys[number] = _user(cloud, name, project, domains[domain], role)
        told |= {f"account{number}": project, f"username{number}": name, f"password{number}": PASSWORD}
        told[f"domain{number}"] = "Default" if domain == "default" else domain
    for number, key in (("", keys[""]), ("2", _user(cloud, SECOND_S3, "test", "default", "member")), ("3", keys["3"])):
        told |= {f"s3_access_key{number}": key[0], f"s3_secret_key{number}": key[1]}
    config = configparser.ConfigParser(interpolation=None)
    config["func_test"] = told
    can = cloud.session.get(f"{told['s3_storage_url']}info", authenticated=False).json()
    config["s3api_test"] = {
        "s3_acl_tests_enabled": can["s3api"]["s3_acl"],
        "endpoint": told["s3_storage_url"].rstrip("/"),
        "region": told["s3_region"],
        **{f"access_key{n}": told[f"s3_access_key{'' if n == 1 else n}"] for n in (1, 2, 3)},
        **{f"secret_key{n}": told[f"s3_secret_key{'' if n == 1 else n}"] for n in (1, 2, 3)},
    }
    with path.open("w") as file:
        config.write(file)


def _user(cloud: Any, name: str, project: str, domain: str, role: str) -> tuple[str, str]:
    """A user with a role in a project; his keys for S3."""
    identity = cloud.identity
    in_project = identity.find_project(project, domain_id=domain) or identity.create_project(
        name=project, domain_id=domain
    )
    user = identity.find_user(name, domain_id=domain)
    user = user or identity.create_user(name=name, domain_id=domain, password=PASSWORD)
    given = identity.find_role(role) or identity.create_role(name=role)
    identity.assign_project_role_to_user(in_project, user, given)
    return _key(identity, user, in_project)


def _key(identity: Any, user: Any, project: Any) -> tuple[str, str]:
    """The user's key for S3. It is called project:user, which is what owners are called with Keystone: tests of S3's own ACLs
    compare the two, and with tempauth they are the same."""
    access = f"{project.name}:{user.name}"
    known = (json.loads(each.blob) for each in identity.credentials(type="ec2", user_id=user.id))
    blob = next((each for each in known if each["access"] == access), None)
    if blob is None:
        blob = {"access": access, "secret": secrets.token_hex(16)}
        identity.create_credential(type="ec2", blob=json.dumps(blob), user_id=user.id, project_id=project.id)
    return blob["access"], blob["secret"]


def report(results: Path, summary: Path) -> int:
    """One line a test in `summary`; what was counted is printed."""
    counts: Counter[str] = Counter()
    lines = []
    for case in ET.parse(results).getroot().iter("testcase"):  # noqa: S314 - what pytest wrote just now
        verdict, why = "pass", ""
        for kind, word in (("failure", "FAIL"), ("error", "ERROR"), ("skipped", "skip")):
            if (node := case.find(kind)) is not None:
                verdict, why = word, " ".join((node.get("message") or "").split())[:300]
        counts[verdict] += 1
        name = f"{(case.get('classname') or '').removeprefix('test.functional.')}.{case.get('name')}"
        lines.append(f"{verdict:5} {name} {why}".rstrip())
    lines.sort()
    total = ", ".join(f"{verdict} {count}" for verdict, count in sorted(counts.items()))
    summary.write_text("\n".join([total, *lines]) + "\n")
    sys.stdout.write(f"{total}; {summary} has one line a test\n")
    return 1 if counts["FAIL"] or counts["ERROR"] else 0


if __name__ == "__main__":
    sys.exit(main())
