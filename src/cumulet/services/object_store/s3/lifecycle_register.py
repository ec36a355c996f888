"""Which buckets have lifecycle rules: objects named `account/bucket` in a container of an account that is the program's own."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import msgspec

from cumulet.api.http import Query
from cumulet.services.object_store.message import Handler, Headers, Request, Response, ask, drain
from cumulet.services.object_store.s3.errors import S3Error
from cumulet.services.object_store.s3.request import S3Request

ACCOUNT, CONTAINER = ".s3_lifecycle", "buckets"


def own_request(method: str, account: str, container: str = "", object: str = "", **query: str) -> Request:
    """A request that the program makes itself: nobody is asked for leave."""
    return Request(
        method, account, container, object, Headers({"Content-Length": "0"} if method == "PUT" else {}),
        Query(urlencode(query)), settled=True, owner=True, source="S3L",
    )  # fmt: skip


async def enlist(s3: S3Request) -> None:
    """Put a request's bucket into the register."""
    name = f"{s3.account}/{s3.bucket}"
    response = await _put(s3.app, name)
    if response.status == 404:
        for container in ("", CONTAINER):
            await ask(s3.app, own_request("PUT", ACCOUNT, container))
        response = await _put(s3.app, name)
    if not response.ok:
        raise S3Error("ServiceUnavailable")


async def _put(app: Handler, name: str) -> Response:
    return await ask(app, own_request("PUT", ACCOUNT, CONTAINER, name))


async def strike(app: Handler, account: str, bucket: str) -> None:
    """Take a bucket off the register."""
    await ask(app, own_request("DELETE", ACCOUNT, CONTAINER, f"{account}/{bucket}"))


async def registered(app: Handler) -> AsyncIterator[tuple[str, str]]:
    """(account, bucket) of all that may have rules."""
    async for one in entries(app, ACCOUNT, CONTAINER):
        account, _, bucket = one["name"].partition("/")
        yield account, bucket


async def entries(app: Handler, account: str, container: str, **query: str) -> AsyncIterator[dict[str, Any]]:
    """All entries of a container, page by page; none where it is not there."""
    asked = {"format": "json", "marker": "", **query}
    while True:
        response = await ask(app, own_request("GET", account, container, **asked))
        data = await drain(response)
        page = msgspec.json.decode(data, type=list[dict[str, Any]]) if response.ok and data else []
        for one in page:
            if "name" in one:
                yield one
        if not page:
            return
        asked["marker"] = page[-1].get("name") or page[-1].get("subdir") or ""
        if "versions" in asked and "version_id" in page[-1]:
            asked["version_marker"] = page[-1]["version_id"]
