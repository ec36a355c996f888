"""Lifecycle rules at work: objects, versions and uploads that have come to their end are deleted.

Every so often (`s3_lifecycle_interval`) the buckets of the register are gone through. An object is deleted as it was when it
was listed: with a time just after its own, so that one that took its place meanwhile stays.
"""

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

from cumulet.services.object_store.message import Handler, Response, ask, drain
from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.s3.completed import made_of
from cumulet.services.object_store.s3.lifecycle import Rule, midnight_after, rules_of
from cumulet.services.object_store.s3.lifecycle_register import entries, own_request, registered, strike
from cumulet.services.object_store.s3.request import BUCKET_SYSMETA, DELETE_MARKER, SEGMENTS, is_slo

log = logging.getLogger(__name__)


class Lifecycles:
    """Applies the rules of all buckets. `app` is what requests are made of."""

    def __init__(self, service: Any, app: Handler) -> None:
        self.service, self.app = service, app

    async def apply_all(self, now: datetime | None = None) -> None:
        async for account, bucket in registered(self.app):
            try:
                await self.apply(account, bucket, now or datetime.now(UTC))
            except Exception:
                log.exception(
                    "The lifecycle rules of %s/%s could not be applied; they are tried again", account, bucket
                )

    async def apply(self, account: str, bucket: str, now: datetime) -> None:
        """Apply the rules of one bucket."""
        head = await ask(self.app, own_request("HEAD", account, bucket))
        if not head.ok and head.status != 404:
            return
        rules = [rule for rule in rules_of(head.headers.get(f"{BUCKET_SYSMETA}Lifecycle", "")) if rule.enabled]
        if not rules:
            await strike(self.app, account, bucket)
            return
        for rule in rules:
            if rule.days is not None or rule.date:
                await self._end_objects(account, bucket, rule, now)
            versions = bool(head.headers.get("X-Container-Sysmeta-Versions-Enabled"))
            if versions and (rule.noncurrent is not None or rule.markers):
                await self._end_versions(account, bucket, rule, now)
            if rule.uploads is not None:
                await self._end_uploads(account, bucket, rule, now, versions=versions)

    async def _end_objects(self, account: str, bucket: str, rule: Rule, now: datetime) -> None:
        async for one in entries(self.app, account, bucket, prefix=rule.prefix):
            if rule.covers(one["name"], int(one.get("bytes") or 0)) and rule.ended(_modified(one), now):
                await self._delete(account, bucket, one["name"], one["last_modified"])

    async def _end_versions(self, account: str, bucket: str, rule: Rule, now: datetime) -> None:
        """Noncurrent versions end so many days after they stopped being current: after the next newer one was made."""
        async for name, versions in self._versions(account, bucket, rule.prefix):
            spared = rule.newer or 0
            for position, one in zip(count(), versions, strict=False):
                marker = one.get("content_type") == DELETE_MARKER
                if position and rule.noncurrent is not None and rule.covers(name, int(one.get("bytes") or 0)):
                    if midnight_after(_modified(versions[position - 1]), rule.noncurrent) > now:
                        continue
                    if spared and not marker:
                        spared -= 1
                        continue
                    await self._delete(account, bucket, name, one["last_modified"], one.get("version_id") or "null")
            latest = versions[0]
            if rule.markers and len(versions) == 1 and latest.get("content_type") == DELETE_MARKER:
                await self._delete(account, bucket, name, latest["last_modified"], latest.get("version_id") or "null")

    async def _versions(
        self, account: str, bucket: str, prefix: str
    ) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
        """Each name of a bucket with its versions, the latest first."""
        found: list[dict[str, Any]] = []
        async for one in entries(self.app, account, bucket, prefix=prefix, versions="true"):
            if found and found[0]["name"] != one["name"]:
                yield found[0]["name"], found
                found = []
            found.append(one)
        if found:
            yield found[0]["name"], found

    async def _end_uploads(self, account: str, bucket: str, rule: Rule, now: datetime, *, versions: bool) -> None:
        """An upload that nobody ends is aborted: its parts go, then what stands for it. One that was completed, and cut off
        there, keeps its parts."""
        parts, ended, done = bucket + SEGMENTS, dict[str, None](), list[str]()
        async for one in entries(self.app, account, parts, prefix=rule.prefix):
            key, _, last = one["name"].rpartition("/")
            if one.get("content_type") == "application/directory" and not last.isdigit():
                if midnight_after(_modified(one), rule.uploads or 0) <= now:
                    begun = one["last_modified"]
                    made = await made_of(self.app, account, bucket, key, last, begun=begun, versions=versions)
                    if made is None:
                        ended[one["name"]] = None
                    else:
                        done.append(one["name"])
            elif key in ended:
                await self._ask("DELETE", account, parts, one["name"])
        for name in (*ended, *done):
            await self._ask("DELETE", account, parts, name)

    async def _delete(self, account: str, bucket: str, name: str, modified: str, version: str = "") -> None:
        query = {"version-id": version} if version else {}
        head = await self._ask("HEAD", account, bucket, name, **query, symlink="get")
        if head.ok and is_slo(head):
            query["multipart-manifest"] = "delete"
        request = own_request("DELETE", account, bucket, name, **query)
        if not version:
            request.headers["X-Timestamp"] = _after(modified)
        response = await ask(self.app, request)
        await drain(response)  # the parts of a large object go while this is read
        if not response.ok and response.status not in (404, 409):
            log.warning(
                "Deleting %s/%s/%s, which has ended, was refused with %s", account, bucket, name, response.status
            )

    async def _ask(self, method: str, account: str, container: str, object: str, **query: str) -> Response:
        return await ask(self.app, own_request(method, account, container, object, **query))


def _modified(one: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(one["last_modified"]).replace(tzinfo=UTC)


def _after(modified: str) -> str:
    """The moment after a time of a listing."""
    moment = datetime.fromisoformat(modified).replace(tzinfo=UTC)
    whole = int(moment.timestamp()) * 100_000 + moment.microsecond // 10
    return Timestamp(whole + 1).normal
