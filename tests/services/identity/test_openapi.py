"""Identity's calls and replies, held against the OpenAPI document of its API. Replies are checked wherever a test of this
folder gets one."""

import re
from itertools import chain

import pytest

from cumulet.services.identity.declaration import SERVICE
from tests.openapi_document import EXCEPTIONS, FOLDER, Document, document, missing
from tests.services.identity.conftest import Identity
from tests.unit.coverage_page import ABSENT

NOT_MEANT: list[tuple[str, str]] = [
    (r"(GET|HEAD) /v3/(ec2tokens|s3tokens)", "upstream only takes POST there"),
    (r"(GET|HEAD|PUT|PATCH|DELETE) /v3/OS-OAUTH2/token", "upstream answers 405 to all but POST"),
    (r"(GET|HEAD) /v3/auth/OS-FEDERATION/saml2(/ecp)?", "upstream only takes POST there"),
    (r"(GET|HEAD) /v3/OS-OAUTH1/(access_token|request_token)", "upstream only takes POST there"),
]
"""What the document has and upstream refuses."""


@pytest.fixture
def described() -> Document:
    found = document("identity")
    if found is None:
        pytest.skip(f"{FOLDER} names no folder with a document of identity")
    return found


def test_what_is_documented_is_served_or_told_to_be_absent(described: Document) -> None:
    reasons = [pattern for _, _, pattern in ABSENT["identity"] if pattern] + [pattern for pattern, _ in NOT_MEANT]
    untold = [
        str(o) for o in missing(described, SERVICE.endpoints) if not any(re.fullmatch(p, str(o)) for p in reasons)
    ]
    assert not untold, "serve these, or say in tests/unit/coverage_page.py why not"


def test_what_is_told_to_be_absent_is(described: Document) -> None:
    not_meant = [pattern for pattern, _ in NOT_MEANT]
    for what, _, pattern in ABSENT["identity"]:
        absent = [str(o) for o in missing(described, SERVICE.endpoints) if pattern and re.fullmatch(pattern, str(o))]
        found = [name for name in absent if not any(re.fullmatch(p, name) for p in not_meant)]
        assert found or not pattern, f"{what} is served: strike it out"


async def test_replies_are_checked(described: Document, identity: Identity) -> None:
    assert identity.http.check is not None
    operation = described.find("GET", f"/v3/projects/{identity.accounts.demo_project_id}?parents_as_list")
    assert operation is not None and operation.path == "/v3/projects/{project_id}"
    reply = await identity.call("GET", f"/v3/projects/{identity.accounts.demo_project_id}")
    assert described.complaint(operation, 200, reply.data) == ""
    assert "'x' was unexpected" in described.complaint(operation, 200, b'{"project": {}, "x": 1}')
    assert "$.project.name" in described.complaint(operation, 200, b'{"project": {"name": 7}}')
    assert "with nothing" in described.complaint(operation, 204, b"")
    assert described.complaint(operation, 404, b"") == ""


def test_paths_are_found_by_their_segments(described: Document) -> None:
    for path, found in (
        ("/v3/domains/config/default", "/v3/domains/config/default"),
        ("/v3/domains/abc", "/v3/domains/{domain_id}"),
        ("/v3/limits/model", "/v3/limits/model"),
        ("/v3/", "/v3"),
    ):
        operation = described.find("GET", path)
        assert operation is not None and operation.path == found
    assert described.find("GET", "/v3/nothing") is None
    assert described.find("POST", "/v3/domains/abc") is None


def test_exceptions_have_reasons() -> None:
    assert all(re.compile(pattern) and reason for pattern, reason in chain(*EXCEPTIONS.values()))
