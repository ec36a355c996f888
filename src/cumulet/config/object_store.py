"""The settings of object storage: who may do what, where objects lie, S3, and the rounds of a storage node."""

from pathlib import Path
from typing import Annotated

from cumulet.config.image import ImageSettings
from cumulet.config.words import says


class ObjectStoreSettings(ImageSettings, frozen=True, kw_only=True):
    """What object storage is told, but for its features."""

    object_operator_roles: Annotated[
        str, says("The roles that make a user an owner of his project's account, separated by commas.")
    ] = "admin,member"
    object_project_reader_roles: Annotated[
        str, says("The roles that let a user read all of his project's account, separated by commas.", "none")
    ] = "reader"
    object_system_reader_roles: Annotated[
        str,
        says("The roles that, held on the system, let a user read every account, separated by commas.", "none"),
    ] = "reader"
    object_reseller_admin_roles: Annotated[
        str, says("The roles that let a user do everything in every account, separated by commas.", "none")
    ] = "ResellerAdmin"
    object_reseller_prefixes: Annotated[
        str,
        says(
            "What names of accounts begin with before `_` and the project's id; the first is in the catalogue, those of the "
            "others are for services that hand on a user's request."
        ),
    ] = "AUTH"
    object_service_roles: Annotated[
        str,
        says(
            "The roles of services that may reach accounts of further prefixes for a user, separated by commas.", "none"
        ),
    ] = ""
    object_open_expired: Annotated[
        bool,
        says("Let clients read and keep objects that have expired and are not removed yet, by X-Open-Expired: true."),
    ] = False
    object_info_key: Annotated[
        str, says("The key that signs requests for what GET /info tells administrators only.", "nobody is told that")
    ] = ""
    object_devices: Annotated[
        Path | None,
        says(
            "The directory of this host's devices of object storage: each a directory, or a file system mounted there.",
            "`object-store/devices` in the data directory",
        ),
    ] = None
    object_rings: Annotated[
        Path | None,
        says(
            "The directory of the cluster's rings and its swift.conf, the same on every host of object storage.",
            "`object-store/rings` in the data directory, made for one host at the first start",
        ),
    ] = None
    object_bind: Annotated[
        str,
        says(
            "The IP address of this host on which storage nodes reach each other; they trust whoever reaches them, so it is "
            "one of a network of their own."
        ),
    ] = "127.0.0.1"
    s3_location: Annotated[
        str,
        says("The region that S3's requests are signed for.", min_length=1, max_length=64, pattern="^[A-Za-z0-9-]+$"),
    ] = "us-east-1"
    s3_acl: Annotated[
        bool,
        says(
            "Keep S3's own ACLs of buckets and objects, and let them alone say who may use either by S3; otherwise roles and "
            "swift's ACLs do."
        ),
    ] = False
    s3_domains: Annotated[
        str,
        says("The domains below which host names begin with a bucket's name, separated by commas.", "none"),
    ] = ""
    s3_dns_names: Annotated[
        bool, says("Take names of buckets that host names may begin with only, as S3 does; otherwise any of swift's.")
    ] = True
    s3_cors_origins: Annotated[
        str,
        says(
            "The sites whose pages may ask for any bucket before they sign a request, separated by commas; `*` is any.",
            "none",
        ),
    ] = ""
    s3_lifecycle_interval: Annotated[
        int, says("How often the lifecycle rules of S3's buckets are applied, in seconds.", ge=1)
    ] = 3600
    object_mounts: Annotated[
        bool, says("Whether a device of object storage is used only while a file system is mounted in its directory.")
    ] = False
    object_reserve: Annotated[
        float, says("The part of a device that is kept free of objects, in percent.", ge=0, le=50)
    ] = 1.0
    object_reclaim_age: Annotated[
        int,
        says(
            "How long it is remembered that an object was deleted, in seconds: a node that was away for longer brings it back.",
            ge=1,
        ),
    ] = 7 * 86400
    object_update_interval: Annotated[
        float, says("Seconds between rounds that bring listings what they could not be told at once.", gt=0)
    ] = 30.0
    object_replication_interval: Annotated[
        float, says("Seconds between rounds that compare the copies of objects.", gt=0)
    ] = 30.0
    object_audit_interval: Annotated[float, says("Seconds between rounds that look for damaged objects.", gt=0)] = 30.0
    object_audit_files: Annotated[
        float, says("How many objects a second are read to see whether they are whole; 0 is without a limit.", ge=0)
    ] = 20.0
    object_audit_bytes: Annotated[
        float, says("How many bytes a second are read to see whether objects are whole; 0 is without a limit.", ge=0)
    ] = 10e6
    object_audit_fast_files: Annotated[
        float, says("How many objects a second are looked at without reading their data; 0 is without a limit.", ge=0)
    ] = 50.0
