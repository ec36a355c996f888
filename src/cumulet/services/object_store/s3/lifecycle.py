"""When objects of a bucket end: GET|PUT|DELETE /bucket?lifecycle. `lifecycle_work.py` applies the rules.

They are kept in the bucket's system metadata. What moves objects to other storage classes is refused: there is one.
Reference: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lifecycle-mgmt.html
"""

import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from cumulet.services.object_store.message import Response
from cumulet.services.object_store.s3.cors import MOST_KEPT, kept
from cumulet.services.object_store.s3.errors import S3Error, not_implemented
from cumulet.services.object_store.s3.lifecycle_register import enlist
from cumulet.services.object_store.s3.request import BUCKET_SYSMETA, S3Request, xml_reply
from cumulet.services.object_store.s3.xml import Shape, document, leaf, node, value

LARGEST = 256 * 1024
MOST_RULES = 1000
_TAG: Shape = {"Key": ("1", None), "Value": ("1", None)}
_SIZES: Shape = {"ObjectSizeGreaterThan": ("?", None), "ObjectSizeLessThan": ("?", None)}
_MOVE: Shape = {
    "Date": ("?", None),
    "Days": ("?", None),
    "NoncurrentDays": ("?", None),
    "NewerNoncurrentVersions": ("?", None),
    "StorageClass": ("?", None),
}
SHAPE: Shape = {
    "Rule": (
        "+",
        {
            "ID": ("?", None),
            "Prefix": ("?", None),
            "Status": ("1", None),
            "Filter": (
                "?",
                {
                    "Prefix": ("?", None),
                    "Tag": ("?", _TAG),
                    "And": ("?", {"Prefix": ("?", None), "Tag": ("*", _TAG), **_SIZES}),
                    **_SIZES,
                },
            ),
            "Expiration": ("?", {"Date": ("?", None), "Days": ("?", None), "ExpiredObjectDeleteMarker": ("?", None)}),
            "NoncurrentVersionExpiration": (
                "?",
                {"NoncurrentDays": ("?", None), "NewerNoncurrentVersions": ("?", None)},
            ),
            "AbortIncompleteMultipartUpload": ("?", {"DaysAfterInitiation": ("1", None)}),
            "Transition": ("*", _MOVE),
            "NoncurrentVersionTransition": ("*", _MOVE),
        },
    )
}


class Rule(Struct, omit_defaults=True):
    """Which objects end when. Numbers are days, but for sizes (bytes) and `newer` (how many noncurrent versions stay)."""

    id: str
    enabled: bool = True
    prefix: str = ""
    larger: int | None = None
    smaller: int | None = None
    days: int | None = None
    date: str = ""
    markers: bool = False
    noncurrent: int | None = None
    newer: int | None = None
    uploads: int | None = None

    def covers(self, name: str, size: int) -> bool:
        """Whether the rule is about an object of this name and size."""
        if not self.enabled or not name.startswith(self.prefix):
            return False
        return (self.larger is None or size > self.larger) and (self.smaller is None or size < self.smaller)

    def ended(self, modified: datetime, now: datetime) -> bool:
        """Whether an object that was made then has come to its end."""
        if self.days is not None and midnight_after(modified, self.days) <= now:
            return True
        return bool(self.date) and _moment(self.date) <= now


_decode = msgspec.json.Decoder(list[Rule]).decode


def midnight_after(moment: datetime, days: int) -> datetime:
    """The midnight (UTC) that follows so many days: objects end at midnight, as S3 has it."""
    later = moment + timedelta(days=days)
    midnight = later.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == later else midnight + timedelta(days=1)


def rules_of(text: str) -> list[Rule]:
    """The rules as they are kept."""
    try:
        return _decode(text) if text else []
    except msgspec.DecodeError:
        return []


async def put_lifecycle(s3: S3Request) -> Response:
    """Set a bucket's rules."""
    s3.key = ""
    found = await s3.xml("LifecycleConfiguration", SHAPE, LARGEST)
    if found is None:
        raise S3Error("MalformedXML")
    rules = [_rule(one) for one in found]
    if len(rules) > MOST_RULES or len({rule.id for rule in rules}) < len(rules):
        raise S3Error("InvalidRequest", f"At most {MOST_RULES} rules are taken, and each has an ID of its own.")
    text = kept(rules)
    if len(text) > MOST_KEPT:
        raise S3Error("InvalidRequest", f"The rules are too long: {MOST_KEPT} characters of them are kept.")
    # First the register: a bucket that it names and that has no rules costs a look, one that it lacks is never looked at.
    await enlist(s3)
    await s3.ask("POST", headers={f"{BUCKET_SYSMETA}Lifecycle": text})
    return Response(200)


def _rule(one: Any) -> Rule:
    if one.find("Transition") is not None or one.find("NoncurrentVersionTransition") is not None:
        raise not_implemented("Objects are not moved to other storage classes: there is STANDARD only.")
    if one.find(".//Tag") is not None:
        raise not_implemented("Object tagging is not supported.")
    status = value(one, "Status")
    if status not in ("Enabled", "Disabled"):
        raise S3Error("MalformedXML")
    places = [place for place in ("", "Filter/", "Filter/And/") if one.find(f"{place}Prefix") is not None]
    if len(places) > 1:
        raise S3Error("MalformedXML")
    prefix = value(one, f"{places[0]}Prefix") if places else ""
    rule = Rule(value(one, "ID") or secrets.token_hex(16), status == "Enabled", prefix)
    rule.larger = _number(one, "ObjectSizeGreaterThan", least=0)
    rule.smaller = _number(one, "ObjectSizeLessThan", least=1)
    expiration = one.find("Expiration")
    if expiration is not None:
        if len(expiration) != 1:
            raise S3Error("MalformedXML")
        rule.days = _number(expiration, "Days")
        rule.markers = value(expiration, "ExpiredObjectDeleteMarker") == "true"
        if date := value(expiration, "Date"):
            rule.date = _midnight(date)
    noncurrent = one.find("NoncurrentVersionExpiration")
    if noncurrent is not None:
        rule.noncurrent = _number(noncurrent, "NoncurrentDays")
        rule.newer = _number(noncurrent, "NewerNoncurrentVersions")
        if rule.noncurrent is None:
            raise S3Error("MalformedXML")
    uploads = one.find("AbortIncompleteMultipartUpload")
    if uploads is not None:
        rule.uploads = _number(uploads, "DaysAfterInitiation")
    if expiration is None and noncurrent is None and uploads is None:
        raise S3Error("InvalidRequest", "At least one action needs to be specified in a rule.")
    return rule


def _number(one: Any, name: str, least: int = 1) -> int | None:
    found = one.find(f".//{name}")
    if found is None:
        return None
    text = (found.text or "").strip()
    if (
        not re.fullmatch("[0-9]{1,15}", text)
        or int(text) < least
        or int(text) > 10**9 * (10**6 if "Size" in name else 1)
    ):
        raise S3Error("InvalidRequest", f"{name} is a whole number, at least {least}.")
    if "Size" not in name and int(text) > 100_000:
        raise S3Error("InvalidRequest", f"{name} is at most 100000.")
    return int(text)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _midnight(text: str) -> str:
    try:
        moment = _moment(text.strip())
    except (ValueError, OverflowError):
        raise S3Error("MalformedXML") from None
    if moment != moment.replace(hour=0, minute=0, second=0, microsecond=0):
        raise S3Error("InvalidRequest", "'Date' must be at midnight GMT")
    return moment.strftime("%Y-%m-%dT00:00:00+00:00")


async def get_lifecycle(s3: S3Request) -> Response:
    """Show a bucket's rules."""
    s3.key = ""
    found = await s3.ask("HEAD")
    rules = rules_of(found.headers.get(f"{BUCKET_SYSMETA}Lifecycle", ""))
    if not rules:
        raise S3Error("NoSuchLifecycleConfiguration", BucketName=s3.bucket)
    return xml_reply(document("LifecycleConfiguration", *map(_shown, rules)))


def _shown(rule: Rule) -> str:
    sizes = [
        *([leaf("ObjectSizeGreaterThan", str(rule.larger))] if rule.larger is not None else []),
        *([leaf("ObjectSizeLessThan", str(rule.smaller))] if rule.smaller is not None else []),
    ]
    which = [leaf("Prefix", rule.prefix), *sizes] if rule.prefix or not sizes else sizes
    told = [leaf("ID", rule.id), node("Filter", node("And", *which) if len(which) > 1 else which[0])]
    told.append(leaf("Status", "Enabled" if rule.enabled else "Disabled"))
    if rule.days is not None:
        told.append(node("Expiration", leaf("Days", str(rule.days))))
    elif rule.date:
        told.append(node("Expiration", leaf("Date", rule.date.replace("+00:00", ".000Z"))))
    elif rule.markers:
        told.append(node("Expiration", leaf("ExpiredObjectDeleteMarker", "true")))
    if rule.noncurrent is not None:
        newer = [leaf("NewerNoncurrentVersions", str(rule.newer))] if rule.newer is not None else []
        told.append(node("NoncurrentVersionExpiration", leaf("NoncurrentDays", str(rule.noncurrent)), *newer))
    if rule.uploads is not None:
        told.append(node("AbortIncompleteMultipartUpload", leaf("DaysAfterInitiation", str(rule.uploads))))
    return node("Rule", *told)


async def delete_lifecycle(s3: S3Request) -> Response:
    """Remove a bucket's rules."""
    s3.key = ""
    await s3.ask("POST", headers={f"{BUCKET_SYSMETA}Lifecycle": ""})
    return Response(204)
