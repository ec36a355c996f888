"""Quotas of accounts: X-Account-Quota-Bytes and X-Account-Quota-Count, for all or (-Policy-NAME) for one storage policy, which
only resellers set and whoever may read the account sees. An upload that would exceed one is refused with 413, unless it is a
reseller's.

The older name, X-Account-Meta-Quota-Bytes, is taken as well.
Reference: https://docs.openstack.org/swift/latest/middleware.html#account-quotas
"""

from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING

from cumulet.services.object_store.layers.container_quotas import is_number
from cumulet.services.object_store.message import Handler, Refusal, Request, Response, refuse
from cumulet.services.object_store.proxy.info import Info, account_info, container_info

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

KINDS = ("Quota-Bytes", "Quota-Count")
OLD = ("X-Account-Meta-Quota-Bytes", "X-Remove-Account-Meta-Quota-Bytes")


class AccountQuotas:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        self.service = service
        self.app = app
        service.told["account_quotas"] = {}

    def __call__(self, request: Request) -> Awaitable[Response]:
        if not request.container:
            return self._account(request) if request.account else self.app(request)
        if request.object and request.method == "PUT" and not request.memo.get("reseller"):
            return self._upload(request)
        return self.app(request)

    async def _upload(self, request: Request) -> Response:
        reason = await self._exceeded(request)
        return await (self._refused(request, reason) if reason else self.app(request))

    async def _account(self, request: Request) -> Response:
        """Quotas are kept where clients cannot reach, and shown under their own names."""
        if request.method in ("POST", "PUT"):
            for old in OLD:
                new = old.replace("-Meta-", "-")
                if (value := request.headers.get(old)) is not None and not request.headers.get(new):
                    request.headers[new] = value
            for kind in KINDS:
                self._set(request, kind)
        response = await self.app(request)
        for kind in KINDS:
            for told, kept in self._names(kind):
                if value := response.headers.get(f"X-Account-Sysmeta-{kept}"):
                    response.headers[f"X-Account-{told}"] = value
        return response

    def _names(self, kind: str) -> Iterator[tuple[str, str]]:
        """(name that clients know, name that it is kept under), of all policies and of each."""
        yield kind, kind
        for policy in self.service.policies:
            yield f"{kind}-Policy-{policy.name}", f"{kind}-Policy-{policy.index}"

    def _set(self, request: Request, kind: str) -> None:
        headers = request.headers
        for told, kept in self._names(kind):
            value = headers.pop(f"X-Account-{told}", None)
            if headers.pop(f"X-Remove-Account-{told}", None):
                value = ""
            if value is None:
                continue
            if not request.memo.get("reseller"):
                raise Refusal(refuse(403, "Only a reseller's administrator sets quotas of accounts."))
            if value and not is_number(value):
                raise Refusal(
                    refuse(400, f"X-Account-{told} must be a number of bytes or objects, or empty for no quota.")
                )
            headers[f"X-Account-Sysmeta-{kept}"] = value

    async def _exceeded(self, request: Request) -> str:
        """Which quota an upload would exceed, in words; "" for none."""
        info = await account_info(self.app, request)
        limits = _limits(info)
        if not limits:
            return ""
        info = await account_info(self.app, request, fresh=True)
        size = request.length or 0
        if _above(limits, "bytes", info.number("X-Account-Bytes-Used") + size) or _above(
            limits, "count", info.number("X-Account-Object-Count") + 1
        ):
            return "Upload exceeds quota."
        if any("policy" in name for name in limits):
            container = await container_info(self.app, request)
            index = container.number("X-Backend-Storage-Policy-Index")
            policy = self.service.policies.get(index)
            prefix = f"X-Account-Storage-Policy-{policy.name if policy else ''}"
            if _above(limits, f"bytes-policy-{index}", info.number(f"{prefix}-Bytes-Used") + size) or _above(
                limits, f"count-policy-{index}", info.number(f"{prefix}-Object-Count") + 1
            ):
                return "Upload exceeds policy quota."
        return ""

    async def _refused(self, request: Request, reason: str) -> Response:
        """Whoever may not write at all is told so instead: that is known further in, where the ACL is."""
        refusal = refuse(413, reason)
        before = request.authorize
        if before is None:
            return refusal

        async def authorize(asked: Request) -> Response | None:
            return await before(asked) or refusal

        request.authorize = authorize
        return await self.app(request)


def _limits(info: Info) -> dict[str, int]:
    """The quotas of an account: bytes, count, bytes-policy-0, ..."""
    found = {"bytes": info.meta.get("quota-bytes", "")}
    for name, value in info.sysmeta.items():
        if name.startswith("quota-"):
            found[name.removeprefix("quota-")] = value
    return {name: int(value) for name, value in found.items() if is_number(value)}


def _above(limits: dict[str, int], name: str, amount: int) -> bool:
    return name in limits and amount > limits[name]
