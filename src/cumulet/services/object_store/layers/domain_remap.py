"""Domain remap: http://container.account.storage.example/object is /v1/AUTH_account/container/object, for each domain in
`object_storage_domain`. `-` stands for `_` in an account, and case does not count in its prefix, since host names are so.

Reference: https://docs.openstack.org/swift/latest/middleware.html#domain-remap
"""

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from cumulet.services.object_store.layers.hosts import host_of, storage_domains, told_again
from cumulet.services.object_store.message import Handler, Request, Response, parts_of, refuse
from cumulet.services.object_store.words import listed, requested_path

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

ROOT = "v1"


def domain_remap(service: "ObjectStoreRuntime", app: Handler) -> Handler:
    return DomainRemap(service, app) if service.kernel.settings.object_storage_domain else app


class DomainRemap:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        settings = service.kernel.settings
        self.app = app
        self.domains = storage_domains(settings.object_storage_domain)
        self.prefixes = {prefix.lower(): prefix for prefix in listed(settings.object_domain_prefixes)}
        self.default = settings.object_domain_default_prefix
        self.mangle = settings.object_domain_mangle
        service.told["domain_remap"] = {"default_reseller_prefix": self.default or None}

    async def __call__(self, request: Request) -> Response:
        host, _ = host_of(request)
        domain = next((domain for domain in self.domains if host.lower().endswith(domain)), None)
        if domain is None:
            return await self.app(request)
        names = host[: -len(domain)].strip(".").split(".")
        if len(names) > 2:
            return refuse(400, "Bad domain in host header")
        account = self._account(names[-1])
        if account is None:
            return await self.app(request)
        asked = requested_path(request)
        rest = asked.removeprefix("/")
        if self.mangle and (rest + "/").startswith(f"{ROOT}/"):
            rest = rest[len(ROOT) + 1 :]
        path = "/".join(["", ROOT, account, *names[:-1], rest])
        _redirect(request, path)
        response = await self.app(request)
        return told_again(response, rf"^(https?://[^/]+){re.escape(request.raw_path)}(.*)$", quote(asked))

    def _account(self, name: str) -> str | None:
        """The account that a label of a host's name stands for; None for none of ours."""
        if not self.prefixes:
            return name
        if "_" not in name:
            name = name.replace("-", "_", 1)
        prefix = name.partition("_")[0]
        known = self.prefixes.get(prefix.lower())
        if known is not None:
            return known + name[len(known) :]
        return f"{self.default}_{name}" if self.default else None


def _redirect(request: Request, path: str) -> None:
    request.version, request.account, request.container, request.object = parts_of(path)
    request.raw_path = quote(path)
