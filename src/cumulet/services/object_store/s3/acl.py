"""S3's access control lists: what they are, how they are told, and how they are kept beside a bucket or an object.

Kept as JSON in system metadata, as swift's s3api keeps them.
Reference: https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from cumulet.services.object_store.message import Headers
from cumulet.services.object_store.s3.errors import S3Error, invalid_argument, not_implemented
from cumulet.services.object_store.s3.xml import XSI, Shape, document, leaf, node, value

PERMISSIONS = ("FULL_CONTROL", "READ", "WRITE", "READ_ACP", "WRITE_ACP")
GROUPS = {
    "AllUsers": "http://acs.amazonaws.com/groups/global/AllUsers",
    "AuthenticatedUsers": "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
    "LogDelivery": "http://acs.amazonaws.com/groups/s3/LogDelivery",
}
LOG_DELIVERY_USER = ".log_delivery"
_GRANTEE: Shape = {
    "ID": ("?", None),
    "DisplayName": ("?", None),
    "URI": ("?", None),
    "EmailAddress": ("?", None),
}
SHAPE: Shape = {
    "Owner": ("1", {"ID": ("1", None), "DisplayName": ("?", None)}),
    "AccessControlList": ("1", {"Grant": ("*", {"Grantee": ("1", _GRANTEE), "Permission": ("1", None)})}),
}
_TYPE = f"{{{XSI}}}type"


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission, and the user (project:name) or the group (one of GROUPS) that has it."""

    grantee: str
    permission: str

    def covers(self, user: str, permission: str) -> bool:
        if self.permission not in ("FULL_CONTROL", permission):
            return False
        if self.grantee == "LogDelivery":
            return user.rpartition(":")[2] == LOG_DELIVERY_USER
        return self.grantee in GROUPS or self.grantee == user

    def xml(self) -> str:
        kind = "Group" if self.grantee in GROUPS else "CanonicalUser"
        attributes = f' xmlns:xsi="{XSI}" xsi:type="{kind}"'
        if kind == "Group":
            told = [leaf("URI", GROUPS[self.grantee])]
        else:
            told = [leaf("ID", self.grantee), leaf("DisplayName", self.grantee)]
        return node("Grant", node("Grantee", *told, attributes=attributes), leaf("Permission", self.permission))


@dataclass(frozen=True, slots=True)
class Acl:
    """Whose a bucket or an object is, and who else may do what to it. What is nobody's is out of reach of all."""

    owner: str
    grants: tuple[Grant, ...] = ()

    def allows(self, user: str, permission: str) -> bool:
        if self.owner and self.owner == user:
            return True
        return permission != "OWNER" and any(grant.covers(user, permission) for grant in self.grants)

    def encode(self) -> str:
        grants = [{"Permission": grant.permission, "Grantee": grant.grantee} for grant in self.grants]
        return msgspec.json.encode({"Owner": self.owner, "Grant": grants}).decode()

    def xml(self) -> bytes:
        owner = node("Owner", leaf("ID", self.owner), leaf("DisplayName", self.owner))
        return document(
            "AccessControlPolicy", owner, node("AccessControlList", *(grant.xml() for grant in self.grants))
        )


def decode(kept: str) -> Acl:
    """An ACL as it is kept; one that lets nobody in where none is kept."""
    try:
        found = msgspec.json.decode(kept, type=dict[str, Any]) if kept else {}
        grants = tuple(Grant(one["Grantee"], one["Permission"]) for one in found.get("Grant", ()))
    except (msgspec.DecodeError, KeyError, TypeError):
        return Acl("")
    return Acl(found.get("Owner") or "", grants)


def canned(name: str, bucket_owner: str, owner: str) -> Acl:
    """One of the ACLs that have names."""
    full = Grant(owner, "FULL_CONTROL")
    lists = {
        "private": (full,),
        "public-read": (Grant("AllUsers", "READ"), full),
        "public-read-write": (Grant("AllUsers", "READ"), Grant("AllUsers", "WRITE"), full),
        "authenticated-read": (Grant("AuthenticatedUsers", "READ"), full),
        "bucket-owner-read": (Grant(bucket_owner, "READ"), full),
        "bucket-owner-full-control": (full, Grant(bucket_owner, "FULL_CONTROL")),
        "log-delivery-write": (Grant("LogDelivery", "WRITE"), Grant("LogDelivery", "READ_ACP"), full),
    }
    if name not in lists:
        raise invalid_argument("x-amz-acl", name)
    return Acl(owner, lists[name])


def from_headers(headers: Headers, bucket_owner: str, owner: str) -> Acl | None:
    """The ACL that a request's headers ask for; None where they ask for none."""
    grants: list[Grant] = []
    for name, told in headers.items():
        permission = name[12:].upper().replace("-", "_")
        if name.lower().startswith("x-amz-grant-") and permission in PERMISSIONS:
            grants += [Grant(_grantee(one), permission) for one in told.split(",")]
    wanted = headers.get("X-Amz-Acl")
    if wanted is None:
        return Acl(owner, tuple(grants)) if grants else None
    if grants:
        raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
    return canned(wanted, bucket_owner, owner)


def from_xml(found: Any) -> Acl:
    """The ACL that a document states."""
    grants = []
    for one in found.iterfind("AccessControlList/Grant"):
        grantee, permission = one.find("Grantee"), value(one, "Permission")
        if permission.upper() not in PERMISSIONS:
            raise not_implemented(f"There is no permission {permission}.")
        match grantee.get(_TYPE):
            case "CanonicalUser" if value(grantee, "ID"):
                grants.append(Grant(value(grantee, "ID"), permission))
            case "Group":
                grants.append(Grant(_group(value(grantee, "URI")), permission))
            case "AmazonCustomerByEmail":
                raise not_implemented("Users are named by their ID here, not by an address.")
            case _:
                raise S3Error("MalformedACLError")
    return Acl(value(found, "Owner/ID"), tuple(grants))


def _grantee(told: str) -> str:
    kind, equals, name = told.strip().partition("=")
    name = name.strip("\"'")
    if not equals:
        raise S3Error("InvalidRequest")
    match kind.lower():
        case "id":
            return name
        case "uri":
            return _group(name)
        case "emailaddress":
            raise not_implemented("Users are named by their ID here, not by an address.")
    raise invalid_argument(kind, name, "Argument format not recognized")


def _group(uri: str) -> str:
    found = next((name for name, known in GROUPS.items() if known == uri), None)
    if found is None:
        raise invalid_argument("uri", uri, "Invalid group uri")
    return found


# ---- in swift's words ---------------------------------------------------------------------------------------------------

SWIFT_ACLS: dict[str, dict[str, str]] = {
    "private": {"X-Container-Read": ".", "X-Container-Write": "."},
    "public-read": {"X-Container-Read": ".r:*,.rlistings"},
    "public-read-write": {"X-Container-Read": ".r:*,.rlistings", "X-Container-Write": ".r:*"},
}
"""What ACLs with names become where S3's own are not in use."""


def swift_headers(name: str) -> dict[str, str]:
    """The ACL of this name, as a container's headers."""
    if name in ("authenticated-read", "log-delivery-write"):
        raise not_implemented(f"The ACL {name} needs S3's own ACLs, which are not in use here.")
    known = SWIFT_ACLS.get("private" if name in ("bucket-owner-read", "bucket-owner-full-control") else name)
    if known is None:
        raise invalid_argument("x-amz-acl", name)
    return known


def swift_headers_of(found: Any) -> dict[str, str]:
    """An ACL in XML, as a container's headers: the nearest of those with names."""
    name = "unknown"
    for one in found.iterfind("AccessControlList/Grant"):
        permission, kind = value(one, "Permission"), one.find("Grantee").get(_TYPE)
        if permission == "FULL_CONTROL" and kind == "CanonicalUser":
            name = name if name.startswith("public-read") else "private"
        elif permission == "READ" and kind == "Group":
            name = "public-read-write" if name == "public-read-write" else "public-read"
        elif permission == "WRITE" and kind == "Group":
            name = "public-read-write"
        else:
            name = "unsupported"
    if name not in SWIFT_ACLS:
        raise S3Error("MalformedACLError")
    return SWIFT_ACLS[name]
