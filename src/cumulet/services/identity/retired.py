"""Calls that upstream has retired, and answers still: what belonged to PKI tokens, which services checked themselves.

What has no answer of its own any more (all of version 2.0) is a 404 as any path that does not exist.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from cumulet.api.http import Endpoint
from cumulet.core.errors import CloudError, Forbidden, Gone
from cumulet.services.identity.calls import Ctx

NO_PKI = "This API is no longer available due to the removal of support for PKI tokens."
RETIRED: tuple[tuple[str, Callable[[], CloudError]], ...] = (
    ("/v3/OS-SIMPLE-CERT/ca", lambda: Gone(NO_PKI)),
    ("/v3/OS-SIMPLE-CERT/certificates", lambda: Gone(NO_PKI)),
    (
        "/v3/auth/tokens/OS-PKI/revoked",
        lambda: Forbidden("Tokens that were revoked are not listed; ask for the token itself."),
    ),
)
"""By path: how a GET is refused, whoever asks."""


def _refusal(error: Callable[[], CloudError]) -> Callable[[Ctx], Awaitable[Any]]:
    async def refuse(ctx: Ctx) -> Any:
        """Refused: it went with PKI tokens."""
        raise error()

    return refuse


RULES: dict[str, str] = {}
endpoints = [Endpoint("GET", path, _refusal(error), auth=False) for path, error in RETIRED]
