"""What the account server and the container server have in common: how a call is taken apart, refused, and answered."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cumulet.services.object_store.message import Headers, Refusal, Response, refuse
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.node import BackendRequest
from cumulet.services.object_store.storage.database import Damaged, Database, Full, Info, Missing, Unit
from cumulet.services.object_store.storage.databases import Databases, Kind
from cumulet.services.object_store.values import is_true

log = logging.getLogger("cumulet.object_store.database")

MAX_META_COUNT = 90
MAX_META_SIZE = 4096
AUTO_CREATE = "."
"""What accounts begin with that the program makes for itself, when they are first written to."""

PolicyName = Callable[[int], str | None]
"""The name of a storage policy; None where there is no policy of that number."""

Method = Callable[[BackendRequest], Awaitable[Response]]


@dataclass(slots=True)
class DatabaseServer:
    """Answers for the databases of one kind on this node. Subclasses fill `methods`: by method, and by method and `/` for
    what stands in a database."""

    databases: Databases
    policy_name: PolicyName
    methods: dict[str, Method] = field(default_factory=dict)

    kind: Kind = field(init=False, default="accounts")

    async def handle(self, request: BackendRequest) -> Response:
        """Answer one call; what cannot be served is a reply too."""
        inner = request.object or (request.container if self.kind == "accounts" else "")
        method = self.methods.get(f"{request.method}/" if inner else request.method)
        if method is None:
            return refuse(405, f"{request.method} is not a method of this server.")
        if self.databases.closed:
            return refuse(503, "This node is stopping.")
        if not self.databases.devices.usable(request.device):
            return refuse(507, f"The device {request.device} is not there.")
        try:
            return await method(request)
        except Refusal as refusal:
            return refusal.response
        except Full as error:
            log.error("%s", error)
            return refuse(507, "The device is full, or does not write.")
        except Damaged as error:
            return refuse(503, str(error))
        except Missing:
            return refuse(404)
        except Exception:
            log.exception("%s of %s/%s failed", request.method, request.account, request.container)
            return refuse(500, "The server met an error that it did not expect; its log says which.")

    def database(self, request: BackendRequest) -> Database:
        container = request.container if self.kind == "containers" else ""
        return self.databases.find(self.kind, request.device, request.partition, request.account, container)

    def room(self, request: BackendRequest) -> None:
        """Refusal (507) where a device is as good as full."""
        if self.databases.devices.crowded(request.device):
            raise Refusal(refuse(507, "The device is full."))

    def policy(self, request: BackendRequest) -> int | None:
        """The storage policy that a call names; Refusal (400) where there is no such policy."""
        told = request.headers.get("X-Backend-Storage-Policy-Index")
        if told is None:
            return None
        if not told.isdigit() or self.policy_name(int(told)) is None:
            raise Refusal(refuse(400, f"Invalid X-Backend-Storage-Policy-Index '{told}'"))
        return int(told)


def timestamp(request: BackendRequest) -> Timestamp:
    """When a call was made: what orders it."""
    told = request.headers.get("X-Timestamp")
    if told is None:
        raise Refusal(refuse(400, "Missing X-Timestamp header"))
    return parse_timestamp(told, "X-Timestamp")


def parse_timestamp(told: str, name: str) -> Timestamp:
    try:
        return Timestamp.parse(told)
    except ValueError:
        raise Refusal(refuse(400, f"Invalid {name} header")) from None


def number(request: BackendRequest, name: str) -> int:
    """A header that must be there, and be a number."""
    told = request.headers.get(name, "")
    if not (told.isascii() and told.removeprefix("-").isdigit()):
        raise Refusal(refuse(400, f"{name} must be a number, not '{told}'."))
    return int(told)


def said_yes(request: BackendRequest, name: str) -> bool:
    return is_true(request.headers.get(name))


def metadata_of(headers: Headers, kind: str, saved: frozenset[str], at: str) -> dict[str, tuple[str, str]]:
    """The metadata in a call's headers, of users and of the program, each with its time."""
    prefixes = (f"x-{kind}-meta-", f"x-{kind}-sysmeta-")
    found: dict[str, tuple[str, str]] = {}
    for name, value in headers.items():
        low = name.lower()
        if low in saved or (low.startswith(prefixes) and low not in prefixes):
            found[low.title()] = (value, at)
    return found


def keep_metadata(unit: Unit, new: dict[str, tuple[str, str]], *, check: bool = True) -> bool:
    """Take over what is later than what is known; "" removes. Whether anything was. Refusal (400) where it is too much."""
    known = unit.info.metadata
    later = {name: said for name, said in new.items() if name not in known or _later(said, known[name])}
    if not later:
        return False
    merged = {**known, **later}
    if check:
        check_metadata(merged)
    unit.change(metadata=merged)
    return True


def _later(said: tuple[str, str], known: tuple[str, str]) -> bool:
    return (said[1], said[0]) > (known[1], known[0])


def check_metadata(metadata: dict[str, tuple[str, str]]) -> None:
    count = size = 0
    for name, (value, _) in metadata.items():
        head, found, tail = name.lower().partition("-meta-")
        if value and found and head in ("x-account", "x-container"):
            count += 1
            size += len(tail.encode()) + len(value.encode())
    if count > MAX_META_COUNT:
        raise Refusal(refuse(400, f"Too many metadata items; max {MAX_META_COUNT}"))
    if size > MAX_META_SIZE:
        raise Refusal(refuse(400, f"Total metadata too large; max {MAX_META_SIZE}"))


def told_metadata(info: Info) -> list[tuple[str, str]]:
    return [(name, value) for name, (value, _) in info.metadata.items() if value]


def cleared(info: Info, at: str) -> dict[str, tuple[str, str]]:
    """The metadata of what is deleted at a time: none."""
    return {name: ("", at) if said[1] < at else said for name, said in info.metadata.items()}
