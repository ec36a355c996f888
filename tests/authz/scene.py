"""People with each role, and one object of each kind, in a whole cloud: who they are, what they own."""

import secrets
from collections.abc import Callable
from typing import Any

from cumulet.core.types import new_id
from tests.cloud import Cloud, InProcessCloud

PEOPLE = {
    "manager": ("manager", "demo"),
    "member": ("member", "demo"),
    "reader": ("reader", "demo"),
    "stranger": ("member", "elsewhere"),
}
"""Everybody but the admin: role and project."""

Made = Callable[["Scene"], dict[str, Any]]
NAME = "scene"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO2bHKp3Kf0u1LCaR8cTz0nnzNqb3d2Xh8bP3r0v1v0X scene"

KINDS: dict[str, tuple[str, str, str, Made]] = {
    # kind: (who makes it, service, path, body)
    "network": ("member", "network", "/v2.0/networks", lambda s: {"network": {"name": NAME}}),
    "home": ("member", "network", "/v2.0/networks", lambda s: {"network": {"name": "home"}}),
    "subnet": ("member", "network", "/v2.0/subnets", lambda s: {
        "subnet": {"network_id": s["network"], "ip_version": 4, "cidr": s.cidr()}}),
    "home_subnet": ("member", "network", "/v2.0/subnets", lambda s: {
        "subnet": {"network_id": s["home"], "ip_version": 4, "cidr": "10.200.0.0/16"}}),
    "port": ("member", "network", "/v2.0/ports", lambda s: {"port": {"network_id": s["home"]}}),
    "router": ("member", "network", "/v2.0/routers", lambda s: {"router": {"name": NAME}}),
    "floatingip": ("member", "network", "/v2.0/floatingips", lambda s: {
        "floatingip": {"floating_network_id": s.public}}),
    "security_group": ("member", "network", "/v2.0/security-groups", lambda s: {
        "security_group": {"name": f"{NAME}-{secrets.token_hex(3)}"}}),
    "security_group_rule": ("member", "network", "/v2.0/security-group-rules", lambda s: {"security_group_rule": {
        "security_group_id": s["security_group"], "direction": "ingress", "protocol": "tcp",
        "port_range_min": (n := s.number()), "port_range_max": n}}),
    "subnetpool": ("member", "network", "/v2.0/subnetpools", lambda s: {
        "subnetpool": {"name": NAME, "prefixes": ["10.0.0.0/8"]}}),
    "address_scope": ("member", "network", "/v2.0/address-scopes", lambda s: {
        "address_scope": {"name": NAME, "ip_version": 4}}),
    "server": ("member", "compute", "/v2.1/servers", lambda s: {"server": {
        "name": NAME, "flavorRef": s.flavor, "imageRef": s.image, "networks": [{"uuid": s["home"]}],
        "metadata": {"blue": "1"}}}),
    "server_group": ("member", "compute", "/v2.1/os-server-groups", lambda s: {
        "server_group": {"name": NAME, "policies": ["affinity"]}}),
    "keypair": ("member", "compute", "/v2.1/os-keypairs", lambda s: {
        "keypair": {"name": f"key-{secrets.token_hex(3)}", "public_key": PUBLIC_KEY}}),
    "flavor": ("admin", "compute", "/v2.1/flavors", lambda s: {"flavor": {
        "name": secrets.token_hex(4), "ram": 64, "vcpus": 1, "disk": 1}}),
    "image": ("member", "image", "/v2/images", lambda s: {
        "name": NAME, "disk_format": "raw", "container_format": "bare", "visibility": "shared"}),
    "metadef": ("admin", "image", "/v2/metadefs/namespaces", lambda s: {
        "namespace": secrets.token_hex(4), "owner": s.demo, "tags": [{"name": "blue"}], "objects": [{"name": "blue"}],
        "properties": {"blue": {"title": "Blue", "type": "string"}}, "resource_type_associations": [{"name": "blue"}]}),
    "domain": ("admin", "identity", "/v3/domains", lambda s: {
        "domain": {"name": secrets.token_hex(4), "enabled": False}}),
    "project": ("admin", "identity", "/v3/projects", lambda s: {"project": {"name": secrets.token_hex(4)}}),
    "user": ("admin", "identity", "/v3/users", lambda s: {"user": {"name": secrets.token_hex(4)}}),
    "group": ("admin", "identity", "/v3/groups", lambda s: {"group": {"name": secrets.token_hex(4)}}),
    "role": ("admin", "identity", "/v3/roles", lambda s: {"role": {"name": secrets.token_hex(4)}}),
    "implied": ("admin", "identity", "/v3/roles", lambda s: {"role": {"name": secrets.token_hex(4)}}),
    "service": ("admin", "identity", "/v3/services", lambda s: {"service": {"type": "scene", "name": NAME}}),
    "endpoint": ("admin", "identity", "/v3/endpoints", lambda s: {"endpoint": {
        "service_id": s["service"], "interface": "public", "url": "http://127.0.0.1:1"}}),
    "region": ("admin", "identity", "/v3/regions", lambda s: {"region": {"id": secrets.token_hex(4)}}),
    "credential": ("member", "identity", "/v3/credentials", lambda s: {
        "credential": {"type": "scene", "blob": "secret", "user_id": s.users["member"]}}),
    "consumer": ("admin", "identity", "/v3/OS-OAUTH1/consumers", lambda s: {"consumer": {"description": NAME}}),
    "trust": ("member", "identity", "/v3/OS-TRUST/trusts", lambda s: {"trust": {
        "trustor_user_id": s.users["member"], "trustee_user_id": s["user"], "project_id": s.demo, "impersonation": False,
        "roles": [{"name": "reader"}]}}),
    "application_credential": ("member", "identity", "/v3/users/{user_id}/application_credentials", lambda s: {
        "application_credential": {"name": secrets.token_hex(4)}}),
    "access_rule": ("member", "identity", "/v3/users/{user_id}/application_credentials", lambda s: {
        "application_credential": {"name": secrets.token_hex(4), "access_rules": [
            {"service": "scene", "method": "GET", "path": f"/{secrets.token_hex(4)}"}]}}),
    "policy": ("admin", "identity", "/v3/policies", lambda s: {"policy": {"type": "text/plain", "blob": "x"}}),
    "mapping": ("admin", "identity", "/v3/OS-FEDERATION/mappings/{new}", lambda s: {"mapping": {
        "rules": [{"local": [], "remote": [{"type": NAME}]}]}}),
    "identity_provider": ("admin", "identity", "/v3/OS-FEDERATION/identity_providers/{new}", lambda s: {
        "identity_provider": {"description": NAME}}),
    "service_provider": ("admin", "identity", "/v3/OS-FEDERATION/service_providers/{new}", lambda s: {
        "service_provider": {"auth_url": "https://scene.test/auth", "sp_url": "https://scene.test/ecp"}}),
    "endpoint_group": ("admin", "identity", "/v3/OS-EP-FILTER/endpoint_groups", lambda s: {"endpoint_group": {
        "name": NAME, "filters": {"interface": "admin"}}}),
    "registered_limit": ("admin", "identity", "/v3/registered_limits", lambda s: {"registered_limits": [{
        "service_id": s["service"], "resource_name": secrets.token_hex(4), "default_limit": 1}]}),
    "limit": ("admin", "identity", "/v3/limits", lambda s: {"limits": [{
        "service_id": s["service"], "resource_name": s.resource(), "resource_limit": 1, "project_id": s.demo}]}),
    "provider": ("admin", "placement", "/resource_providers", lambda s: {
        "name": secrets.token_hex(4), "uuid": new_id()}),
}  # fmt: skip

PRIVATE = frozenset({
    "network", "home", "subnet", "home_subnet", "port", "router", "floatingip", "security_group", "security_group_rule",
    "subnetpool", "address_scope", "server", "server_group", "keypair", "image", "credential", "metadef",
    "trust", "application_credential", "access_rule",
})  # fmt: skip
"""What nobody of another project may ever read of."""


PLACES: dict[str, str] = {
    # the segment before a parameter, and what stands for it (`=` a word, else a kind of the scene)
    "domains": "domain", "projects": "project", "users": "user", "groups": "group", "roles": "role", "implies": "implied",
    "services": "service", "endpoints": "endpoint", "regions": "region", "credentials": "credential", "policies": "policy",
    "endpoint_groups": "endpoint_group", "registered_limits": "registered_limit", "limits": "limit", "config": "=ldap",
    "{group}": "=url",
    "consumers": "consumer", "authorize": "=none", "access_tokens": "=none",
    "mappings": "mapping", "identity_providers": "identity_provider", "service_providers": "service_provider",
    "protocols": "=openid",
    "trusts": "trust", "application_credentials": "application_credential", "access_rules": "access_rule",
    "tasks": "=none", "cache": "image", "nodes": "image", "stores": "=file", "{store_id}": "image",
    "images": "image", "schemas": "=image", "metadefs": "=namespace", "namespaces": "metadef", "objects": "=blue",
    "properties": "=blue", "resource_types": "=blue", "resource_providers": "provider", "inventories": "=VCPU",
    "resource_classes": "=CUSTOM_BLUE", "traits": "=CUSTOM_BLUE", "allocations": "=00000000-0000-4000-8000-000000000001",
    "networks": "network", "subnets": "subnet", "ports": "port", "routers": "router", "floatingips": "floatingip",
    "security-groups": "security_group", "security-group-rules": "security_group_rule", "subnetpools": "subnetpool",
    "address-scopes": "address_scope", "tags": "=blue", "metadata": "=blue", "os-extra_specs": "=blue",
    "servers": "server", "flavors": "flavor", "os-keypairs": "keypair", "os-server-groups": "server_group",
    "os-security-groups": "security_group", "os-security-group-rules": "security_group_rule", "ips": "=home",
    "extensions": "=router", "os-quota-class-sets": "=default", "os-services": "=00000000-0000-4000-8000-000000000001",
    "os-networks": "network", "os-tenant-networks": "network", "os-floating-ips": "floatingip",
    "os-floating-ip-pools": "=public",
    "os-hosts": "=none", "os-volumes": "=none", "os-snapshots": "=none", "os-baremetal-nodes": "=none",
}  # fmt: skip


class Scene:
    """`scene["port"]` is the id of a port of the demo project's, made when it is first asked for, and again after
    `forget("port")`."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.tokens = {"admin": cloud.token()}
        self.users: dict[str, str] = {}
        self._count = 0
        self._made: dict[str, str] = {}
        self.elsewhere: str = self._call("POST", "identity", "/v3/projects", {"project": {"name": "elsewhere"}})["id"]
        self.demo: str = self._first("identity", "/v3/projects?name=demo")["id"]
        self._people()
        self._lift_quotas()
        self.public: str = self._first("network", "/v2.0/networks?router:external=true")["id"]
        self.flavor: str = self._first("compute", "/v2.1/flavors")["id"]
        self.image: str = self._public_image()

    def __getitem__(self, kind: str) -> str:
        if kind not in self._made:
            self._made[kind] = self.make(kind)
        return self._made[kind]

    def forget(self, kind: str) -> None:
        self._made.pop(kind, None)

    def make(self, kind: str) -> str:
        """Make another one of a kind; its id."""
        who, service, path, body = KINDS[kind]
        if kind in ("port", "server"):
            self["home_subnet"]
        sent = body(self)
        method = "PUT" if path.endswith("/{new}") else "POST"
        path = path.replace("{new}", secrets.token_hex(4))
        made = self._call(method, service, path.replace("{user_id}", self.users["member"]), sent, who=who)
        if kind == "image":
            self._upload(made["id"])
        if kind == "access_rule":  # it outlives what it was made for, and can be deleted then
            path = f"/v3/users/{self.users['member']}/application_credentials/{made['id']}"
            self._call("DELETE", service, path, who=who)
            return str(made["access_rules"][0]["id"])
        if kind == "provider":
            return str(sent["uuid"])
        if isinstance(made, list):
            (made,) = made
        if isinstance(self.cloud, InProcessCloud):
            self.cloud.settle()
        return str(made[{"keypair": "name", "metadef": "namespace"}.get(kind, "id")])

    def place(self, before: str) -> str:
        """What stands for a path's parameter after the segment `before`."""
        place = PLACES[before]
        return place[1:] if place.startswith("=") else self[place]

    def ids(self) -> list[str]:
        """Ids of all there is (but for what the admin needs to log in), and some of nothing."""
        return [*self._made.values(), self.public, self.flavor, "00000000-0000-4000-8000-000000000000", "default"]

    def private(self) -> dict[str, str]:
        """Ids of the demo project's own things, by kind."""
        return {kind: key for kind, key in self._made.items() if kind in PRIVATE}

    def body(self, kind: str) -> dict[str, Any]:
        """A body that makes one of a kind."""
        return KINDS[kind][3](self)

    def resource(self) -> str:
        """A resource of the service's that limits are registered for."""
        body = self.body("registered_limit")
        self._call("POST", "identity", "/v3/registered_limits", body)
        return str(body["registered_limits"][0]["resource_name"])

    def cidr(self) -> str:
        return f"10.{self.number() % 100 + 1}.{self.number() % 250}.0/24"

    def number(self) -> int:
        self._count += 1
        return self._count

    def login(self, name: str) -> str:
        """A new token of one of the people."""
        if name == "admin":
            return str(self.cloud.connect().auth_token)
        return self.cloud.login(f"scene-{name}", "secret", PEOPLE[name][1])

    def _people(self) -> None:
        projects = {"demo": self.demo, "elsewhere": self.elsewhere}
        for name, (role, project) in PEOPLE.items():
            user = {"user": {"name": f"scene-{name}", "password": "secret"}}
            self.users[name] = self._call("POST", "identity", "/v3/users", user)["id"]
            role_id = self._first("identity", f"/v3/roles?name={role}")["id"]
            self._call("PUT", "identity", f"/v3/projects/{projects[project]}/users/{self.users[name]}/roles/{role_id}")
            self.tokens[name] = self.login(name)

    def _lift_quotas(self) -> None:
        names = ("network", "subnet", "port", "router", "floatingip", "security_group", "security_group_rule")
        none = {"quota": dict.fromkeys(names, -1)}
        for project in (self.demo, self.elsewhere):
            self._call("PUT", "network", f"/v2.0/quotas/{project}", none)
            self._call(
                "PUT", "compute", f"/v2.1/os-quota-sets/{project}", {"quota_set": {"instances": -1, "cores": -1}}
            )

    def _public_image(self) -> str:
        body = {"name": "public", "disk_format": "raw", "container_format": "bare", "visibility": "public"}
        image: str = self._call("POST", "image", "/v2/images", body)["id"]
        self._upload(image)
        return image

    def _upload(self, image: str) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        reply = self.cloud.request("PUT", "image", f"/v2/images/{image}/file", data=b"\0" * 4096, headers=headers)
        assert reply.status_code == 204, reply.text

    def _first(self, service: str, path: str) -> Any:
        reply = self.cloud.request("GET", service, path)
        assert reply.status_code == 200, reply.text
        items = next(v for k, v in reply.json().items() if isinstance(v, list))
        return items[0]

    def _call(self, method: str, service: str, path: str, body: Any = None, who: str = "admin") -> Any:
        reply = self.cloud.request(method, service, path, body, token=self.tokens[who])
        assert reply.status_code < 300, f"{method} {path}: {reply.status_code} {reply.text}"
        if not reply.content:
            return None
        value = reply.json()
        return next(iter(value.values())) if len(value) == 1 else value
