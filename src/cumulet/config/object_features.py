"""The settings of object storage's features: its layers, and its rounds outside of storage nodes."""

from pathlib import Path
from typing import Annotated

from cumulet.config.program import ProgramSettings
from cumulet.config.words import says


class ObjectFeatureSettings(ProgramSettings, frozen=True, kw_only=True):
    """What object storage is told of its features."""

    object_digests: Annotated[
        str, says("The digests that signatures of temporary URLs and of forms may be made with, separated by commas.")
    ] = "sha1,sha256,sha512"
    object_tempurl_methods: Annotated[
        str, says("The methods that temporary URLs may be made for, separated by commas.")
    ] = "GET,HEAD,PUT,POST,DELETE"
    object_tempurl_incoming_remove: Annotated[
        str,
        says(
            "Headers that are taken out of requests with a temporary URL, separated by commas; `*` at the end stands for "
            "all that begin so."
        ),
    ] = "x-timestamp,x-open-expired"
    object_tempurl_incoming_allow: Annotated[
        str, says("Headers that are left in nevertheless, written in the same way.", "none")
    ] = ""
    object_tempurl_outgoing_remove: Annotated[
        str,
        says("Headers that are taken out of the replies to requests with a temporary URL, written in the same way."),
    ] = "x-object-meta-*"
    object_tempurl_outgoing_allow: Annotated[
        str, says("Headers that are left in nevertheless, written in the same way.")
    ] = "x-object-meta-public-*"
    object_staticweb_url: Annotated[
        str,
        says(
            "The scheme and host (https://www.example.com) that static web sends visitors to.",
            "those of the request",
        ),
    ] = ""
    object_storage_domain: Annotated[
        str,
        says(
            "The domains, separated by commas, under which containers have host names (container.AUTH-account.DOMAIN).",
            "none: paths alone count",
        ),
    ] = ""
    object_domain_prefixes: Annotated[
        str, says("The prefixes of accounts that host names may stand for, separated by commas; empty for any.")
    ] = "AUTH"
    object_domain_default_prefix: Annotated[
        str, says("The prefix that is put before accounts in host names that have none of these.", "none")
    ] = ""
    object_domain_mangle: Annotated[
        bool,
        says("Whether /v1 at the start of a path on such a host is taken for the API's version, and not for a name."),
    ] = False
    object_cname_depth: Annotated[
        int,
        says(
            "How many names DNS may lead through from a site's own domain to one of the domains above; 0: no other domains "
            "are served.",
            ge=0,
            le=16,
        ),
    ] = 0
    object_cname_servers: Annotated[
        str,
        says("The DNS servers that are asked (192.0.2.1, [2001:db8::1]:5353), separated by commas.", "the host's own"),
    ] = ""
    object_account_ratelimit: Annotated[
        float, says("How many containers an account may make and delete a second; 0 is any number.", ge=0)
    ] = 0.0
    object_account_ratelimits: Annotated[
        str,
        says(
            "Accounts with limits of their own, separated by commas: ACCOUNT=10 (changes a second), ACCOUNT=WHITELIST "
            "(none), ACCOUNT=BLACKLIST (no requests).",
            "none",
        ),
    ] = ""
    object_container_ratelimits: Annotated[
        str,
        says(
            "How many objects of a container may be changed a second, by the number in it (100=50, 10000=5), separated by "
            "commas.",
            "any number",
        ),
    ] = ""
    object_listing_ratelimits: Annotated[
        str, says("How often a second a container may be listed, written in the same way.", "any number")
    ] = ""
    object_ratelimit_longest_wait: Annotated[
        float, says("For how many seconds a request that comes too soon may be held before it is refused.", gt=0)
    ] = 60.0
    object_ratelimit_buffer: Annotated[
        float, says("For how many seconds of idleness a client may catch up at once.", ge=0)
    ] = 5.0
    object_crossdomain: Annotated[str, says("The rules in /crossdomain.xml, as XML.")] = (
        '<allow-access-from domain="*" secure="false" />'
    )
    object_healthcheck_disable: Annotated[
        Path | None,
        says("While this file exists /healthcheck says that the node is not to be used.", "it always is"),
    ] = None
    object_recon: Annotated[
        bool,
        says("Whether /recon/... answers, without a token, on the port that clients use as well as on those of nodes."),
    ] = False
    object_list_endpoints: Annotated[
        bool, says("Whether /endpoints/... says, without a token, on which nodes data lies.")
    ] = False
    object_name_check: Annotated[bool, says("Refuse names as the three settings below say.")] = False
    object_name_forbidden_characters: Annotated[str, says("Characters that no name may hold.")] = "'\"`<>"
    object_name_longest: Annotated[int, says("The longest path, in bytes.", ge=1)] = 255
    object_name_forbidden_pattern: Annotated[
        str, says("The regular expression that no path may match; empty for none.")
    ] = r"/\./|/\.\./|/\.$|/\.\.$"
    object_etag_quoted: Annotated[
        bool,
        says(
            "Whether ETags are in quotation marks where neither container nor account says (X-...-Rfc-Compliant-Etags)."
        ),
    ] = False
    object_read_only: Annotated[bool, says("Refuse every change of accounts, containers and objects.")] = False
    object_read_only_deletes: Annotated[bool, says("Let deletes through where changes are refused.")] = False
    object_sync_realms: Annotated[
        Path | None,
        says(
            "The file of realms and clusters that containers may be synchronised with, in upstream's form.",
            "container-sync-realms.conf beside the rings",
        ),
    ] = None
    object_sync_current: Annotated[
        str, says("Which of them this cluster is (//realm/cluster), for GET /info.", "not told")
    ] = ""
    object_sync_hosts: Annotated[
        str, says("Hosts to which containers may be synchronised by a full URL, separated by commas.")
    ] = "127.0.0.1"
    object_sync_full_urls: Annotated[
        bool, says("Whether containers may be synchronised to full URLs, and not to realms alone.")
    ] = True
    object_sync_interval: Annotated[
        float, says("How often containers are looked through for what is to be synchronised, in seconds.", gt=0)
    ] = 300.0
    object_sync_time: Annotated[
        float, says("For how many seconds one container may be synchronised before the next has its turn.", gt=0)
    ] = 60.0
    object_encryption: Annotated[
        bool,
        says("Encrypt objects and their metadata from now on; what is encrypted stays readable either way."),
    ] = False
    object_expirer_interval: Annotated[
        float, says("How often objects are looked for whose time to be deleted has come, in seconds.", gt=0)
    ] = 300.0
    object_expirer_rate: Annotated[float, says("How many of them are deleted a second, at most.", gt=0)] = 50.0
    object_expirer_concurrency: Annotated[int, says("How many of them are deleted at once.", ge=1, le=256)] = 4
    object_expirer_share: Annotated[
        str,
        says(
            "Which part of the work this host does, where several share it: 0/3 is the first of three.",
            "all of it",
            pattern=r"^(|[0-9]+/[1-9][0-9]*)$",
        ),
    ] = ""
    object_expirer_delays: Annotated[
        str,
        says(
            "Accounts or containers whose objects are kept for some seconds after their time, separated by commas: "
            "AUTH_a=3600, AUTH_a/container=60.",
            "none",
        ),
    ] = ""
    object_expirer_reclaim: Annotated[
        float, says("For how many seconds it is tried again to delete an object that is not found.", ge=0)
    ] = 604800.0
    object_database_audit_interval: Annotated[
        float, says("Seconds between rounds that look for damage in the databases of accounts and containers.", gt=0)
    ] = 1800.0
    object_reaper_interval: Annotated[
        float, says("Seconds between rounds that remove what was in deleted accounts.", gt=0)
    ] = 3600.0
    object_reaper_delay: Annotated[
        float, says("For how many seconds what was in a deleted account is kept before it is removed.", ge=0)
    ] = 0.0
