"""Every error that a service may raise, as one tree. They know no HTTP: `api/dialect.py` words them for each API family.

CloudError
├── Invalid             the request makes no sense as it stands
├── Unauthorized        nobody we know is asking
├── Forbidden           who asks may not do this
├── NotFound            there is no such thing, or not for who asks
├── MethodNotAllowed    the path exists, the method does not
├── NotAcceptable       no such version or representation
├── Conflict            not in this state, or there is one already
├── QuotaExceeded       a limit of the project would be passed
├── Gone                it was there once
├── PreconditionFailed  the state the caller relies on has changed
├── TooLarge            more bytes than this call takes
├── UnsupportedMedia    a content type this call does not take
├── RangeNotSatisfiable the bytes asked for are not there
├── NotImplementedHere  upstream has it, this cloud does not
└── Unavailable         something outside does not answer; worth trying again
"""

from typing import Any


class CloudError(Exception):
    """Base of all. `message` is one sentence for the caller; `code` is a family's own name for the fault
    (`PortNotFound`, `placement.concurrent_update`), where clients look at it; `headers` go on the reply."""

    def __init__(self, message: str = "", *, code: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.headers = headers


class Invalid(CloudError): ...


class Unauthorized(CloudError): ...


class Forbidden(CloudError):
    """`rule` names the policy rule that refused, where one did."""

    def __init__(self, message: str = "", *, rule: str = "", code: str = "") -> None:
        super().__init__(message, code=code)
        self.rule = rule


class NotFound(CloudError):
    """`kind` and `id` name what was looked for: `NotFound("port", port_id)`. A whole sentence goes into `message`."""

    def __init__(self, kind: str = "", id: Any = "", *, message: str = "", code: str = "") -> None:
        super().__init__(message or (f"{kind} {id} could not be found." if kind else "Not found."), code=code)
        self.kind = kind
        self.id = str(id)


class MethodNotAllowed(CloudError): ...


class NotAcceptable(CloudError): ...


class Conflict(CloudError): ...


class QuotaExceeded(CloudError):
    """`resource` is the quota's name; the numbers tell the caller where he stands."""

    def __init__(self, resource: str, *, limit: int, used: int, requested: int = 1) -> None:
        super().__init__(
            f"Quota exceeded for {resource}: requested {requested}, but already used {used} of {limit} {resource}"
        )
        self.resource, self.limit, self.used, self.requested = resource, limit, used, requested


class Gone(CloudError): ...


class PreconditionFailed(CloudError): ...


class TooLarge(CloudError): ...


class UnsupportedMedia(CloudError): ...


class RangeNotSatisfiable(CloudError): ...


class NotImplementedHere(CloudError): ...


class Unavailable(CloudError): ...
