"""Who asks, for what, at which version: the one value that every handler gets first."""

from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from cumulet.core.errors import Forbidden


class ServiceUser(Struct, frozen=True, kw_only=True):
    """The service that hands on a caller's request, by the token of its own that it sends along."""

    user_id: str
    user_domain_id: str = ""
    project_id: str | None = None
    project_domain_id: str | None = None
    roles: frozenset[str] = frozenset()


class AccessRule(Struct, frozen=True):
    """One kind of request that a caller may make: the service's type, the HTTP method and a pattern of the path."""

    service: str
    method: str
    path: str


class Caller(Struct, frozen=True, kw_only=True):
    """Whoever a token speaks for. Ids are None where the token has no such scope; `roles` are names, implied ones included.

    `delegation` is the kind of leave that the token speaks by (a trust, an application credential), `delegation_id` which one;
    a `restricted` caller may not pass on what he was given. With `access_rules` he may make those requests only.
    `service` is who hands his request on, where that is a service.
    """

    user_id: str
    user_name: str = ""
    user_domain_id: str = ""
    project_id: str | None = None
    project_name: str = ""
    project_domain_id: str | None = None
    domain_id: str | None = None
    system: bool = False
    roles: frozenset[str] = frozenset()
    token: str = ""
    delegation: str = ""
    delegation_id: str = ""
    restricted: bool = False
    trustor_id: str | None = None
    trustee_id: str | None = None
    access_rules: tuple[AccessRule, ...] | None = None
    service: ServiceUser | None = None

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles

    @property
    def trust_id(self) -> str | None:
        return self.delegation_id if self.delegation == "trust" else None


NOBODY = Caller(user_id="")
"""The caller of a request without a token (version documents, authentication itself)."""


def system_caller(project_id: str | None = None) -> Caller:
    """The program itself, at work on a resource of `project_id`."""
    roles = frozenset({"admin", "manager", "member", "reader", "service"})
    return Caller(user_id="cumulet", user_name="cumulet", project_id=project_id, system=True, roles=roles)


class Authorizer(Protocol):
    """What a context asks of policy (implemented in `api/policy.py`)."""

    def allows(self, rule: str, caller: Caller, target: Any) -> bool: ...

    def granted(self, rules: frozenset[str], caller: Caller) -> frozenset[str]: ...


S = TypeVar("S")


class Context(Generic[S]):
    """One call: the caller, the API version in force, and the service that serves it.

    `service` is the runtime object of the service (typed per service: `Ctx = Context[Compute]`).
    `request` is the HTTP request (`api/http.py`) and `dialect` the words of its API family (`api/dialect.py`); both are None
    for work inside the program.
    """

    __slots__ = ("caller", "dialect", "policy", "request", "request_id", "service", "version")

    def __init__(
        self,
        service: S,
        caller: Caller,
        policy: Authorizer,
        *,
        version: tuple[int, int] = (0, 0),
        request_id: str = "",
        request: Any = None,
        dialect: Any = None,
    ) -> None:
        self.service = service
        self.caller = caller
        self.policy = policy
        self.version = version
        self.request_id = request_id
        self.request = request
        self.dialect = dialect

    def allows(self, rule: str, target: Any = None) -> bool:
        """Whether policy lets the caller do what `rule` names, to `target` (default: something of his own project)."""
        return self.policy.allows(rule, self.caller, target)

    def require(self, rule: str, target: Any = None) -> None:
        """Raise Forbidden unless policy allows it."""
        if not self.policy.allows(rule, self.caller, target):
            raise Forbidden(rule=rule)


current: ContextVar[Context[Any] | None] = ContextVar("current", default=None)
"""The request that is being served here, for what tells of it and is not handed it. It decides nothing."""
