"""The headers that the proxy sends to nodes: what of a client's they get, and whom they are to tell of a change."""

from collections.abc import Sequence

from cumulet.services.object_store.message import Headers, Request
from cumulet.services.object_store.node import Device, Kind

PASSED_BY = ("Host", "Connection", "X-Auth-Token", "X-Service-Token", "X-Storage-Token", "Cookie", "Expect")
"""Headers that are no node's business."""


def all_of(request: Request) -> Headers:
    """All headers of a request that may be a node's business."""
    made = request.headers.copy()
    for name in PASSED_BY:
        if name in made:
            made.popall(name)
    made["X-Trans-Id"] = request.transaction
    return made


def kept(request: Request, kind: Kind, passed: Sequence[str] = (), removed: Sequence[str] = ()) -> Headers:
    """Of a request's headers those that are kept with an account or a container: its metadata, and what `passed` names.
    X-Remove-... takes away; metadata of no value, too."""
    prefixes = (f"x-{kind}-meta-", f"x-{kind}-sysmeta-", "x-backend-")
    gone = f"x-remove-{kind}-meta-"
    made = Headers()
    for name, value in request.headers.items():
        low = name.lower()
        if low.startswith(prefixes) or low in passed:
            made[name] = value
        elif low.startswith(gone) or low in removed:
            made.setdefault("X-" + name[9:], "")
    made["X-Timestamp"] = request.headers["X-Timestamp"]
    made["X-Trans-Id"] = request.transaction
    if (agent := request.headers.get("User-Agent")) is not None:
        made["User-Agent"] = agent
    return made


def tell(headers: Sequence[Headers], prefix: str, partition: int, devices: Sequence[Device], updates: int = 0) -> None:
    """Say in the headers of requests to several nodes whom each of them is to tell: X-Account-Host, -Device and -Partition, or
    those of a container. All of `devices` are named, and `updates` are told at least."""
    for position in range(max(len(devices), updates)):
        device = devices[position % len(devices)]
        one = headers[position % len(headers)]
        address = f"[{device.address}]" if ":" in device.address else device.address
        one[f"{prefix}-Partition"] = str(partition)
        for name, value in ((f"{prefix}-Host", f"{address}:{device.port}"), (f"{prefix}-Device", device.name)):
            before = one.get(name)
            one[name] = f"{before},{value}" if before else value
