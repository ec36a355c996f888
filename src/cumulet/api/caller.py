"""Whose request it is: from the tokens that came with it to its caller, and what his access rules let him do."""

from collections.abc import Awaitable, Collection
from typing import Protocol

from msgspec.structs import replace

from cumulet.core.access import permits
from cumulet.core.context import Caller, ServiceUser

SERVICE_ROLE = "service"
"""The role that makes a token in X-Service-Token a service's."""


class Authenticate(Protocol):
    """From a token to who holds it; Unauthorized if nobody does. `allow_expired`: one that ended a while ago counts too."""

    def __call__(self, token: str, *, allow_expired: bool = False) -> Awaitable[Caller]: ...


async def handed_on(authenticate: Authenticate, token: str, of_service: str) -> Caller:
    """Whose request a service hands on. It may take long to come to that, so his token may have ended in the meantime.

    As keystonemiddleware has it: a token in X-Service-Token that is not valid spoils the request.
    """
    service = await authenticate(of_service)
    caller = await authenticate(token, allow_expired=SERVICE_ROLE in service.roles)
    user = ServiceUser(
        user_id=service.user_id,
        user_domain_id=service.user_domain_id,
        project_id=service.project_id,
        project_domain_id=service.project_domain_id,
        roles=service.roles,
    )
    return replace(caller, service=user)


def is_permitted(caller: Caller, known_as: Collection[str], method: str, path: str) -> bool:
    """Whether a caller's access rules, if he has any, name this call of a service, or a service makes it as a part of one that
    they name."""
    if caller.access_rules is None or (caller.service is not None and SERVICE_ROLE in caller.service.roles):
        return True
    return permits(caller.access_rules, known_as, method, path)
