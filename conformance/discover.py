"""What the cloud under test offers, asked over its public APIs as the admin; makes what Tempest needs and misses."""

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
VERSIONS = {"image": "/v2", "network": "/v2.0"}
GUEST_IMAGE = "cumulet-guest"
SPARE_IMAGE = "conformance-{}"
RESELLER = "ResellerAdmin"
"""The role of those who may do everything in every account of object storage."""


@dataclass
class Found:
    """All that tempest.conf is written from."""

    auth_url: str
    username: str
    password: str
    project: str
    region: str
    services: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    guest: bool = False
    flavors: list[str] = field(default_factory=list)
    external_network: str = ""
    external_name: str = ""
    compute_hosts: int = 1
    hypervisor: str = "QEMU"


class Api:
    """An admin's token and the catalogue's public endpoints."""

    def __init__(self, found: Found) -> None:
        user = {"name": found.username, "domain": {"id": "default"}, "password": found.password}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": found.project, "domain": {"id": "default"}}},
            }
        }
        self._token = ""
        headers, answer = self._send("POST", f"{found.auth_url}/auth/tokens", json.dumps(body).encode())
        self._token = headers["X-Subject-Token"]
        self._endpoints = {
            service["type"]: endpoint["url"].rstrip("/")
            for service in answer["token"]["catalog"]
            for endpoint in service["endpoints"]
            if endpoint["interface"] == "public" and endpoint["region"] == found.region
        }

    @property
    def services(self) -> list[str]:
        return sorted(self._endpoints)

    def call(self, method: str, service: str, path: str, body: Json | bytes | None = None) -> Json:
        """Send a request; exits with the service's own words if it is refused."""
        url = self._endpoints[service]
        if not re.search(r"/v\d", url):
            url += VERSIONS.get(service, "")
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        return self._send(method, url + path, data, kind)[1]

    def _send(self, method: str, url: str, data: bytes | None, kind: str = "application/json") -> tuple[Any, Json]:
        headers = {"Content-Type": kind, "Accept": "application/json", "X-Auth-Token": self._token}
        request = urllib.request.Request(url, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                text = answer.read()
                return answer.headers, json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {url} was answered with {error.code}: {error.read()[:500]!r}") from error
        except urllib.error.URLError as error:
            raise SystemExit(f"no answer from {url}: {error.reason}") from error


def discover(found: Found) -> Found:
    """Fill in `found`, of which only the login is given."""
    api = Api(found)
    found.services = api.services
    if "image" in found.services:
        _images(api, found)
    if "compute" in found.services:
        flavors = api.call("GET", "compute", "/flavors/detail")["flavors"]
        found.flavors = [flavor["id"] for flavor in sorted(flavors, key=lambda one: (one["ram"], one["disk"]))][:2]
        services = api.call("GET", "compute", "/os-services?binary=nova-compute")["services"]
        found.compute_hosts = sum(service["state"] == "up" for service in services)
        hypervisors = api.call("GET", "compute", "/os-hypervisors/detail")["hypervisors"]
        found.hypervisor = hypervisors[0]["hypervisor_type"] if hypervisors else found.hypervisor
        found.guest = found.guest and found.hypervisor != "simulated"  # where nothing runs nobody answers SSH
    if "object-store" in found.services and not api.call("GET", "identity", f"/roles?name={RESELLER}")["roles"]:
        api.call("POST", "identity", "/roles", {"role": {"name": RESELLER}})
    if "network" in found.services:
        networks = api.call("GET", "network", "/networks?router:external=true")["networks"]
        if networks:
            found.external_network, found.external_name = networks[0]["id"], networks[0]["name"]
    return found


def _images(api: Api, found: Found) -> None:
    """Two distinct active images that differ in nothing but their id: the guest twice, or twice an empty disk."""
    active = api.call("GET", "image", "/images?limit=1000&status=active")["images"]
    by_name = {image["name"]: image["id"] for image in active}
    found.guest = GUEST_IMAGE in by_name
    if found.guest:
        found.images.append(by_name[GUEST_IMAGE])
    for number in (1, 2):
        name = SPARE_IMAGE.format(number)
        if len(found.images) < 2:
            found.images.append(by_name.get(name) or _upload(api, name))


def _upload(api: Api, name: str) -> str:
    wanted = {"name": name, "disk_format": "raw", "container_format": "bare", "visibility": "public"}
    image = api.call("POST", "image", "/images", wanted)["id"]
    api.call("PUT", "image", f"/images/{image}/file", bytes(1024 * 1024))
    return str(image)
