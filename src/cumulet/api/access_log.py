"""The access log: one line for each request, in the same words for every service."""

import logging
import time
from urllib.parse import quote

from cumulet.api.http import Request
from cumulet.core.context import Caller

access = logging.getLogger("cumulet.access")


def one_line(path: str) -> str:
    """A path as it may stand in a log: nobody writes lines of his own into it."""
    return path if path.isprintable() else quote(path)


def log_request(
    service: str, request: Request, path: str, request_id: str, caller: Caller, status: int, started: float
) -> None:
    """A request has been answered; `started` is of the clock `time.perf_counter`. The text is put together here, since a record
    of many arguments costs a small request more."""
    if access.isEnabledFor(logging.INFO):
        took = (time.perf_counter() - started) * 1000
        access.info(
            f"{service} {request.remote} {request_id} {caller.user_id or '-'} {caller.project_id or '-'} "
            f"{request.method} {one_line(path)} {status} {took:.1f} ms"
        )
