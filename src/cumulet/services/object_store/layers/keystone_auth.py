"""Who may do what: the roles of identity, and the ACLs of containers.

Whoever has an operator's role in a project owns its account, `AUTH_` and the project's id: he may do everything in it but
delete it. A reader may read all of it. A reseller's administrator may do everything everywhere. All others may what ACLs let
them: users of projects, roles, or anybody who comes from a site.
Reference: https://docs.openstack.org/swift/latest/overview_auth.html, "Keystone Auth"
"""

from collections.abc import Awaitable
from functools import lru_cache
from typing import Any

from cumulet.core.context import NOBODY, Caller
from cumulet.services.object_store.message import Handler, Request, Response, refuse
from cumulet.services.object_store.proxy.acl import Acl, parse_acl, referrer_allowed
from cumulet.services.object_store.proxy.info import account_info

DEFAULT_DOMAIN = "default"
DOMAIN = "X-Account-Sysmeta-Project-Domain-Id"
UNKNOWN = "_unknown"
"""What stands for a project's domain where it was not known when its account was made."""


class KeystoneAuth:
    """The layer."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.app = app
        settings = service.kernel.settings
        self.prefixes = tuple(f"{prefix}_" for prefix in names(settings.object_reseller_prefixes))
        self.operators = roles_of(settings.object_operator_roles)
        self.resellers = roles_of(settings.object_reseller_admin_roles)
        self.readers = roles_of(settings.object_project_reader_roles)
        self.system_readers = roles_of(settings.object_system_reader_roles)
        self.of_services = roles_of(settings.object_service_roles)

    def __call__(self, request: Request) -> Awaitable[Response]:
        if not request.settled:
            request.authorize = self.authorize
            if request.caller is not NOBODY and self.resellers & lowered(request.caller.roles):
                request.memo["reseller"] = True
        return self.app(request) if request.object else self._with_domain(request)

    async def _with_domain(self, request: Request) -> Response:
        response = await self.app(request)
        if DOMAIN in response.headers:
            response.headers["X-Account-Project-Domain-Id"] = response.headers[DOMAIN]
        return response

    async def authorize(self, request: Request) -> Response | None:
        """None, or the refusal."""
        request.owner = False
        if request.method == "OPTIONS":
            return None
        caller, acl = request.caller, parse_acl(request.acl)
        if caller is NOBODY:
            return None if self._is_served(request.account) and self._by_referrer(request, acl) else refuse(401)
        if not request.object:
            await self._note_domain(request, caller)
        roles = lowered(caller.roles)
        if self.resellers & roles:
            request.owner = True
            return None
        reads = request.method in ("GET", "HEAD")
        if reads and caller.system and self.system_readers & roles:
            return None
        if not request.container and request.method == "DELETE":
            return refuse(403)
        if acl.grantees and self._is_granted(caller, acl, await self._names_count(request, caller, acl)):
            return None
        by_referrer = self._by_referrer(request, acl)
        if by_referrer:
            return None
        prefix = self._own(request.account, caller)
        if prefix is None:
            return refuse(403)
        if self.operators & roles and self._is_served_to(prefix, caller):
            request.owner = True
            return None
        if reads and prefix == self.prefixes[0] and self.readers & roles:
            return None
        if by_referrer is None and any(role.lower() in roles for role in acl.grantees):
            return None
        return refuse(403)

    def _is_served_to(self, prefix: str, caller: Caller) -> bool:
        """Accounts of further prefixes may need a service that hands the request on."""
        if prefix == self.prefixes[0] or not self.of_services:
            return True
        return caller.service is not None and bool(self.of_services & lowered(caller.service.roles))

    def _is_served(self, account: str) -> bool:
        return account.startswith(self.prefixes)

    def _own(self, account: str, caller: Caller) -> str | None:
        """The prefix by which an account is the one of the caller's project."""
        project = caller.project_id
        if project:
            for prefix in self.prefixes:
                if account == prefix + project:
                    return prefix
        return None

    def _by_referrer(self, request: Request, acl: Acl) -> bool | None:
        """Whether anybody may who comes from where he does, or a container that is synchronised; False: from there he may, but
        not this; None: it does not say."""
        key = request.memo.get("sync key")
        if key and key == request.headers.get("X-Container-Sync-Key") and "X-Timestamp" in request.headers:
            return True
        if not acl.referrers or not referrer_allowed(request.headers.get("Referer"), acl.referrers):
            return None
        return bool(request.object) or acl.listings

    def _is_granted(self, caller: Caller, acl: Acl, by_name: bool) -> bool:
        """Whether an ACL names the caller as project:user, each by its id, by `*`, or by its name where that counts."""
        projects = [caller.project_id, "*", *([caller.project_name] if by_name else ())]
        users = [caller.user_id, "*", *([caller.user_name] if by_name else ())]
        return any(f"{project}:{user}" in acl.grantees for project in projects if project for user in users)

    async def _names_count(self, request: Request, caller: Caller, acl: Acl) -> bool:
        """Names are only unique in a domain; so they count where all is in the default one."""
        if (caller.user_domain_id or DEFAULT_DOMAIN) != DEFAULT_DOMAIN:
            return False
        if (caller.project_domain_id or DEFAULT_DOMAIN) != DEFAULT_DOMAIN:
            return False
        if self._own(request.account, caller) is not None:
            return True
        if not any(":" in grantee for grantee in acl.grantees):
            return False
        info = await account_info(self.app, request)
        return info.ok and info.sysmeta.get("project-domain-id") in (None, DEFAULT_DOMAIN)

    async def _note_domain(self, request: Request, caller: Caller) -> None:
        """Have an account that is about to be made remember the domain of its project."""
        makes = request.method == "PUT" or (request.method == "POST" and not request.container)
        if not makes or DOMAIN in request.headers:
            return
        own = self._own(request.account, caller) is not None
        info = await account_info(self.app, request)
        before = info.sysmeta.get("project-domain-id")
        told: str | None = None
        if not info.ok or "X-Backend-Fake-Account-Listing" in info.headers:
            told = (caller.project_domain_id or "") if own else UNKNOWN
        elif before is None and own and caller.project_domain_id == DEFAULT_DOMAIN:
            told = DEFAULT_DOMAIN
        elif before == UNKNOWN and own:
            told = caller.project_domain_id or ""
        if told is not None:
            request.headers[DOMAIN] = told


def roles_of(setting: str) -> frozenset[str]:
    """The roles that a setting names; their case does not count."""
    return lowered(frozenset(names(setting)))


@lru_cache(maxsize=1024)
def lowered(roles: frozenset[str]) -> frozenset[str]:
    """Roles in lower case. It is asked for each request, and there are few different sets of them in a cloud."""
    return frozenset(role.lower() for role in roles)


def names(setting: str) -> list[str]:
    """A setting that is a list with commas."""
    return [name.strip() for name in setting.split(",") if name.strip()]
