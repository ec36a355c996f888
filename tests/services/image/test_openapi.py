"""The image service's calls and replies, held against the OpenAPI document of its API. Replies are checked wherever a test of
this folder gets one."""

import re

import pytest

from cumulet.services.image.declaration import SERVICE
from tests.harness import Client
from tests.openapi_document import FOLDER, Document, document, missing
from tests.services.image.test_image_data import make
from tests.unit.coverage_page import ABSENT

NOT_MEANT: list[tuple[str, str]] = []
"""What the document has and upstream refuses."""


@pytest.fixture
def described() -> Document:
    found = document("image")
    if found is None:
        pytest.skip(f"{FOLDER} names no folder with a document of image")
    return found


async def test_what_is_documented_is_served_or_told_to_be_absent(described: Document, client: Client) -> None:
    """Schemas are one call each in the document, and calls with a name here."""
    reasons = [pattern for _, _, pattern in ABSENT["image"] if pattern] + [pattern for pattern, _ in NOT_MEANT]
    untold = [o for o in missing(described, SERVICE.endpoints) if not any(re.fullmatch(p, str(o)) for p in reasons)]
    schemas = [o for o in untold if re.fullmatch(r"GET /v2/schemas/[a-z/_]+", str(o))]
    for operation in schemas:
        assert (await client("GET", operation.path)).status == 200, operation
    assert schemas and [str(o) for o in untold if o not in schemas] == [], (
        "or say in tests/unit/coverage_page.py why not"
    )


async def test_replies_are_checked(described: Document, client: Client) -> None:
    assert client.check is not None
    image = await make(client)
    reply = await client("GET", image["self"])
    operation = described.find("GET", image["self"])
    assert operation is not None and operation.path == "/v2/images/{image_id}"
    assert described.complaint(operation, 200, reply.data) == ""
    assert "$.size" in described.complaint(operation, 200, b'{"size": "much"}')
    with pytest.raises(AssertionError):
        client.check("GET", "/v2/images", 200, b'{"images": 5}')
