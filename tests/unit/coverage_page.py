"""`docs/coverage.md`: every call that is served, from the route tables, and by hand what is not there yet and why."""

from cumulet import program
from cumulet.api.http import Endpoint
from cumulet.api.openapi import summary
from cumulet.api.resource import ANY
from cumulet.api.service import Service
from cumulet.api.version import text

REFUSED = ("Refused:", "Dropped by upstream")
"""How the docstrings of calls begin that are there only to say no in upstream's way."""
OLD_COMPUTE = "/v2/"
"""Compute's version 2.0 is the same table once more, under another path."""
FIRST = "own API first, then what few clients use"
ABSENT: dict[str, list[tuple[str, str, str]]] = {
    # what, why, and which documented calls it is (a regular expression; a test holds it against the document of the API)
    "identity": [
        (
            "Certificates as clients of OAuth 2 (`tls_client_auth`)",
            "needs a front end that is trusted to verify them",
            "",
        ),
    ],
    "image": [
        (
            "Stores other than directories and web servers",
            "images in object storage, RBD, S3 and others are not there yet",
            "",
        ),
        ("Certificates of signed images from a key manager", "not there yet; they come from a directory", ""),
        ("Unpacking of `lha` archives at import", "gzip and zip are unpacked", ""),
        ("Version 1 of the API", "retired by upstream long ago; the registry's port lists images in its words", ""),
    ],
}
"""By service with a document to hold it against: what upstream has and this version does not, and why."""
NOT_YET: dict[str, list[tuple[str, str]]] = {
    "object-store": [
        ("Erasure-coded storage policies", "policies keep whole copies"),
    ],
    "image-registry": [
        ("Whatever changes something", "upstream removed the registry; images are changed through the image API"),
    ],
    "placement": [
        ("`POST /reshaper`", "no driver moves inventories between providers yet"),
    ],
    "network": [
        ("Trunks", "need VLAN-aware ports in the dataplane"),
        ("Quality of service", "needs shaping in the dataplane"),
        ("RBAC policies and shared address scopes", "`shared` networks are there, sharing with one project is not"),
        ("Address groups, default security group rules", "rules name addresses and groups"),
        ("Port forwarding of floating IPs, local IPs, NDP proxy", "floating IPs are one to one"),
        ("DVR, HA routers, router flavors", "one host has one router namespace each"),
        ("Segments, network IP availability, auto-allocated topology", FIRST),
        ("Metering, logging, VPN, load balancers, BGP", "services of their own upstream"),
        ("IPv6 prefix delegation", "subnets are given their prefix"),
    ],
    "compute": [
        ("Migrate, live migration, evacuate, shelve", "need a second host, or a second disk driver"),
        ("Volumes: attach, boot from volume", "come with block storage"),
        ("Rescue, suspend, backup, crash dumps, changing passwords", "not in the driver yet; refused with 501"),
        ("Consoles other than noVNC", "SPICE, serial, XVP: their ports are reserved"),
        ("Aggregates (making them), `os-hosts`, `os-migrations`", "there is one host"),
        ("Usage reports (`os-simple-tenant-usage`, audit log)", "come with telemetry"),
        ("Networks, volumes and images through compute (before 2.36)", "ask the service itself; refused with 501"),
        ("EC2 API", "a face of its own on port 8773"),
    ],
}
"""By service: what upstream has and this version does not, and why."""


def coverage_page() -> str:
    """The whole page."""
    lines = [
        "# What is served",
        "",
        "Made from the route tables and held by a test; `make docs` writes it anew. The policy rule is the one checked",
        "before the call is read; where it says *in the call*, the rule depends on the object or on the caller's scope.",
        "Calls that are listed as *refused* exist so that clients get upstream's status and a sentence instead of a 404.",
        "`cumulet openapi SERVICE` prints the same with parameters and bodies.",
        "",
        "| service | upstream | calls served | refused with a sentence | versions |",
        "| --- | --- | --- | --- | --- |",
    ]
    for service in program.SERVICES:
        served, refused = _calls(service)
        spoken = service.microversions
        versions = f"{text(spoken.low)} to {text(spoken.high)}" if spoken else "no microversions"
        cells = (f"[{service.type}](#{service.type})", service.upstream, str(len(served)), str(len(refused)), versions)
        lines.append(_row(*cells))
    lines += [
        "",
        "Block storage, orchestration, telemetry, data processing and the dashboard are not there yet.",
    ]
    for service in program.SERVICES:
        lines += _section(service)
    return "\n".join(lines) + "\n"


def _section(service: Service) -> list[str]:
    served, refused = _calls(service)
    lines = ["", f"## {service.type}", "", "| call | versions | policy | what |", "| --- | --- | --- | --- |"]
    lines += [_row(_name(e), _versions(e), _policy(e), summary(e)) for e in served]
    if service.type == "compute":
        lines += ["", "All that version 2.1 without microversions has is served under `/v2` as well."]
    if refused:
        lines += ["", "Refused: " + ", ".join(dict.fromkeys(_name(e) for e in refused)) + "."]
    lines += ["", f"### Not there yet: {service.type}", "", "| what | why |", "| --- | --- |"]
    absent = [(what, why) for what, why, _ in ABSENT.get(service.type, [])]
    return lines + [_row(what, why) for what, why in absent + NOT_YET.get(service.type, [])]


def _calls(service: Service) -> tuple[list[Endpoint], list[Endpoint]]:
    """The endpoints that serve, and those that refuse."""
    own = [e for e in service.endpoints if not (service.type == "compute" and e.path.startswith(OLD_COMPUTE))]
    refused = [e for e in own if e.doc.startswith(REFUSED)]
    return [e for e in own if not e.doc.startswith(REFUSED)], refused


def _name(endpoint: Endpoint) -> str:
    path = endpoint.path.replace(":rest}", "}")
    return f"`{endpoint.method} {path}`" + (f" `{endpoint.action}`" if endpoint.action else "")


def _versions(endpoint: Endpoint) -> str:
    since = text(endpoint.since) if endpoint.since != ANY else ""
    until = text(endpoint.until) if endpoint.until[0] < ENDLESS else ""
    if since and until:
        return f"{since} to {until}"
    return f"from {since}" if since else f"to {until}" if until else "all"


ENDLESS = 99
"""The major version that stands for no end."""


def _policy(endpoint: Endpoint) -> str:
    if not endpoint.auth:
        return "anybody, also without a token"
    return f"`{endpoint.policy}`" if endpoint.policy else "in the call"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
