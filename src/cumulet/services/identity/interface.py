"""What other parts of the program may ask of identity."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from cumulet.core.context import Caller


class CatalogEntry(Struct, frozen=True):
    """One endpoint of the catalogue. `url` may hold `$(project_id)s`."""

    service_type: str
    service_name: str
    interface: str  # public | internal | admin
    url: str


class Bootstrap(Struct, frozen=True):
    """What the first start makes. Passwords are set only when the user is made."""

    region: str
    admin_password: str
    demo_password: str
    endpoints: Sequence[CatalogEntry]


class Accounts(Struct, frozen=True):
    """The projects and users of the first start, and whether this start made them."""

    admin_project_id: str
    admin_user_id: str
    demo_project_id: str
    demo_user_id: str
    created: bool


class AccessKey(Protocol):
    """An access key of EC2 or S3, and who makes requests with it. Its secret stays with identity."""

    @property
    def caller(self) -> Caller: ...

    def verifies(self, signed: bytes, signature: str) -> bool:
        """Whether `signature` is that of a request's string to sign (S3's, version 2 or 4), made with this key."""
        ...

    def verifies_part(self, signed: bytes, signature: str) -> bool:
        """The same of a chunk, or of the trailer, of an upload in chunks."""
        ...


class Identity(Protocol):
    async def authenticate(self, token: str, *, allow_expired: bool = False) -> Caller:
        """Who holds this token; Unauthorized if it is wrong, expired or revoked. Answered from memory where possible.

        `allow_expired`: one that ended no longer ago than the setting `allow_expired_window` counts too.
        """
        ...

    async def access_key(self, access: str) -> AccessKey | None:
        """The access key of this name; None where there is none, or its owner may not act in its project any more. Answered
        from memory where possible."""
        ...

    async def limits(self, service_type: str, project_id: str) -> Mapping[str, int]:
        """How much of each resource of a service a project may have in this region: its own limit, or else the registered
        default; -1 is unlimited. Resources that nobody registered are not named."""
        ...

    async def endpoint(self, service_type: str, region: str, interface: str) -> str | None:
        """The URL of an endpoint in the catalogue, or None."""
        ...

    async def ensure_bootstrap(self, wanted: Bootstrap) -> Accounts:
        """Make domain `default`, the roles, the admin and demo projects and users and the catalogue where they are missing;
        bring the endpoints' URLs up to date."""
        ...
