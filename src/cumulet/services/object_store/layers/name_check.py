"""Names that a cloud does not want: with certain characters, too long, or matching an expression. Off by default.

Reference: https://docs.openstack.org/swift/latest/middleware.html#name-check-forbidden-character-filter
"""

import re
from typing import TYPE_CHECKING

from cumulet.services.object_store.message import Handler, Request, Response, refuse
from cumulet.services.object_store.words import requested_path

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime


def name_check(service: "ObjectStoreRuntime", app: Handler) -> Handler:
    return NameCheck(service, app) if service.kernel.settings.object_name_check else app


class NameCheck:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        settings = service.kernel.settings
        self.app = app
        self.characters = frozenset(settings.object_name_forbidden_characters)
        self.longest = settings.object_name_longest
        self.pattern = (
            re.compile(settings.object_name_forbidden_pattern) if settings.object_name_forbidden_pattern else None
        )
        service.told["name_check"] = {
            "forbidden_chars": settings.object_name_forbidden_characters,
            "maximum_length": settings.object_name_longest,
            "forbidden_regexp": settings.object_name_forbidden_pattern,
        }

    async def __call__(self, request: Request) -> Response:
        reason = self._fault(requested_path(request))
        return refuse(400, f"Object/Container/Account name {reason}") if reason else await self.app(request)

    def _fault(self, path: str) -> str:
        if not self.characters.isdisjoint(path):
            return f"contains forbidden chars from {''.join(sorted(self.characters))}"
        if len(path.encode()) > self.longest:
            return f"longer than the allowed maximum {self.longest}"
        if self.pattern is not None and self.pattern.search(path):
            return f"contains a forbidden substring from regular expression {self.pattern.pattern}"
        return ""
