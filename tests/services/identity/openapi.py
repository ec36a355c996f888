"""A client that holds every reply against identity's OpenAPI document, where there is one (`tests/openapi_document.py`)."""

import re
from typing import Any

from tests.harness import Client, Reply
from tests.openapi_document import Document, document

EXCEPTIONS: list[tuple[str, str]] = [
    (r"/auth(/tokens)? answered .*password_expires_at: None is not", "a password that does not expire has null"),
    (r"/roles answered 200 with \S+description: None is not", "a role without a description has null"),
    (r"/v3/endpoints\S* answered .*region(_id)?: None is not", "an endpoint without a region has null"),
    (
        r"answered 401 .*required_auth_methods.* is not of type 'string'",
        "what is required is a list of lists of methods",
    ),
    (
        r"^GET /v3/(auth|OS-FEDERATION)/(projects|domains) .*\$\.links: .* is not of type 'array'",
        "the links of any list are an object",
    ),
    (
        r"^PATCH /v3/domains/\{domain_id\}/config/.* has too many properties",
        "a change of a part answers with the whole",
    ),
]
"""Where the document is wrong: a regular expression of complaints, and how upstream's own code has it."""


class CheckedClient(Client):
    """Fails the test whose request is answered otherwise than the document has it."""

    def __init__(self, client: Client, held_against: Document) -> None:
        super().__init__(client.url, client._session)
        self._document = held_against

    async def __call__(
        self, method: str, path: str, body: Any = None, *, token: str = "member", data: Any = None, **headers: str
    ) -> Reply:
        reply = await super().__call__(method, path, body, token=token, data=data, **headers)
        operation = self._document.find(method, path)
        if operation is not None:
            complaint = self._document.complaint(operation, reply.status, reply.data)
            assert not complaint or excused(complaint), complaint
        return reply


def excused(complaint: str) -> bool:
    """Whether it is known that the document is wrong there."""
    return any(re.search(pattern, complaint) for pattern, _ in EXCEPTIONS)


def checked(client: Client) -> Client:
    """The client, checked where there is a document."""
    held_against = document("identity")
    return client if held_against is None else CheckedClient(client, held_against)
