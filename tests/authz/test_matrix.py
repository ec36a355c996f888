"""Who may make which call: every call of every service, as admin, manager, member and reader of a project, and as a member
of another project, against what upstream's defaults (its secure RBAC) give each of them."""

import re
from itertools import pairwise
from typing import Any

import pytest
import requests

from cumulet import program
from cumulet.api.http import Endpoint
from cumulet.api.service import Service
from cumulet.api.version import text
from tests.authz.scene import KINDS, PLACES, Scene
from tests.cloud import InProcessCloud

CALLERS = ("admin", "manager", "member", "reader", "stranger")
LAST_FIRST = CALLERS[::-1]

# Verdicts, in the order of CALLERS: a allowed, r refused (403), h hidden (404).
ANY = "aaaaa"  # whoever has a token
ADMIN = "arrrr"
READ = "aaaah"  # the project's own things
WRITE = "aaarh"
MAKE = "aaara"  # something new in one's own project
MINE = "aaaar"  # what is the project's own, and refused openly to others
OWNER = "hhahh"  # a user's own, whatever his roles
OWNER_ADMIN = "ararr"
OWN = "rrarr"  # the same for the owner alone, and refused openly to others

NETWORKING = (
    "networks|subnets|ports|routers|floatingips|security-groups|security-group-rules|subnetpools|address-scopes"
)
ADMIN_ACTIONS = "os-resetState|migrate|os-migrateLive|evacuate|shelveOffload|resetNetwork|injectNetworkInfo"
MANAGER_ACTIONS = "migrate|os-migrateLive"

EXPECTED: dict[str, list[tuple[str, str]]] = {
    # by service: "METHOD path action" as a regular expression, the first that fits, and who may
    "identity": [
        (r"\S+ /v3/auth/.*", ANY),
        (r"GET /v3/OS-FEDERATION/(projects|domains)", ANY),
        (r"GET /v3/(regions.*|credentials)", ANY),
        (r"POST /v3/credentials", OWNER_ADMIN),
        (r"\S+ /v3/users/\{user_id\}/credentials/OS-EC2.*", OWNER_ADMIN),
        (r"\S+ /v3/credentials/.*", OWNER_ADMIN),
        (r"GET /v3/domains/\{id\}", ADMIN),
        (r"GET /v3/(registered_limits.*|limits|limits/model)", ANY),
        (r"GET /v3/limits/\{id\}", MINE),
        (r"GET /v3/OS-TRUST/trusts", ADMIN),
        (r"POST /v3/OS-TRUST/trusts", OWN),
        (r"\S+ /v3/OS-TRUST/trusts/.*", OWNER_ADMIN),
        (r"POST /v3/users/\{user_id\}/application_credentials", OWN),
        (r"\S+ /v3/users/\{user_id\}/application_credentials.*", OWNER_ADMIN),
        (r"\S+ /v3/users/\{user_id\}/access_rules.*", OWN),  # of others' an admin of the system learns
        (r".*", ADMIN),
    ],
    "image": [
        (r"GET /v2/info/stores/detail", ADMIN),
        (r"\S+ /v2/(tasks|cache).*", ADMIN),
        (r"DELETE /v2/stores/.*", "rrrrh"),  # what the only store has stays, for admins too
        (r"GET /v2/(schemas/.*|info/.*|images|metadefs/namespaces|metadefs/resource_types)", ANY),
        (r"POST /v2/metadefs/namespaces", ADMIN),
        (r"GET /v2/metadefs/.*", READ),
        (r"\S+ /v2/metadefs/.*", "arrrh"),  # of the project's own it is told that only an admin changes it
        (r"POST /v2/images", MAKE),
        (r"PUT /v2/images/\{image_id\}/members/\{member_id\}", "arrra"),  # the consumer's word, not the owner's
        (r"DELETE /v2/images/\{image_id\}/members/\{member_id\}", "aaarr"),
        (r"GET /v2/images/\{image_id\}/members/\{member_id\}", ANY),
        (r"GET /v2/images/\{image_id\}/file", WRITE),
        (r"GET /v2/images/\{image_id\}/locations", "arrrh"),  # for services
        (r"GET .*", READ),
        (r".*", WRITE),
    ],
    "image-registry": [
        (r"GET (/v1)?/images/\{image_id\}/members", ANY),  # refused, to everybody alike
        (r"GET .*", ADMIN),
        (r".*", ANY),
    ],
    "placement": [(r"GET /usages", MINE), (r".*", ADMIN)],
    "network": [
        (r"GET /v2.0/(extensions.*|availability_zones|service-providers|agents|quotas/tenant)", ANY),
        (r"GET /v2.0/agents/.*", "ahhhh"),
        (r"GET /v2.0/quotas/.*", MINE),
        (r"\S+ /v2.0/quotas.*", ADMIN),
        (rf"GET /v2.0/({NETWORKING})", ANY),
        (r"POST /v2.0/(subnets|ports|security-group-rules)", WRITE),  # in something of the project's
        (rf"POST /v2.0/({NETWORKING})", MAKE),
        (r"GET .*", READ),
        (r".*", WRITE),
    ],
    "compute": [
        (r"GET /v2(?:\.1)?/flavors/\S+/os-flavor-access", ADMIN),
        (r"GET /v2(?:\.1)?/(flavors|flavors/\S+|limits|extensions.*|os-availability-zone|os-quota-sets/\S+/defaults)", ANY),
        (r"\S+ /v2(?:\.1)?/os-keypairs/.*", OWNER),
        (r"\S+ /v2(?:\.1)?/os-keypairs", ANY),
        (r"GET /v2(?:\.1)?/os-quota-sets/.*", MINE),
        (r"\S+ /v2(?:\.1)?/(flavors|os-quota|os-hypervisors|os-services|os-aggregates|os-availability-zone).*", ADMIN),
        (r"\S+ /v2(?:\.1)?/(os-hosts|os-migrations).*", ADMIN),
        (rf"POST /v2(?:\.1)?/servers/\S+/action ({MANAGER_ACTIONS})", "aarrr"),
        (rf"POST /v2(?:\.1)?/servers/\S+/action ({ADMIN_ACTIONS})", ADMIN),
        (r"GET /v2(?:\.1)?/servers/\{id\}/diagnostics", ADMIN),
        (r"\S+ /v2(?:\.1)?/os-(cells|cloudpipe|certificates|fping|agents|fixed-ips|floating-ip|security-group-d).*", ANY),
        (r"\S+ /v2(?:\.1)?/(os-networks|os-tenant-networks|os-volumes|os-snapshots|os-baremetal-nodes|images).*", ANY),
        (r"GET /v2(?:\.1)?/(servers|servers/detail|os-server-groups|os-security-groups)", ANY),
        (r"POST /v2(?:\.1)?/os-security-group-rules", WRITE),
        (r"POST /v2(?:\.1)?/(servers|os-server-groups|os-security-groups)", MAKE),
        (r"GET .*", READ),
        (r".*", WRITE),
    ],
}  # fmt: skip

NOTHING = re.compile(
    # calls for which who may make them may still find nothing
    r"GET (/v2/tasks/|/v2.0/agents/|\S+/extensions/\{|\S+/os-flavor-access)"
    r"|(DELETE|PUT) \S+/os-services|\S+/os-hosts/|/allocations/"
    r"|/authorize/|/access_tokens/\{|/(ec2|s3)tokens"
    r"|/os-hypervisors/\{id\}/(search|servers)|inherited_to_projects|/OS-TRUST/trusts/\{id\}/roles/|removeSecurityGroup|removeTenantAccess"
)

ACTIONS: dict[str, Any] = {
    "reboot": {"type": "SOFT"}, "os-resetState": {"state": "active"}, "addFixedIp": {"networkId": "{home}"},
    "removeFixedIp": {"address": "10.200.255.9"}, "addSecurityGroup": {"name": "default"},
    "removeSecurityGroup": {"name": "default"}, "addTenantAccess": {"tenant": "{demo}"},
    "removeTenantAccess": {"tenant": "{demo}"}, "os-getVNCConsole": {"type": "novnc"}, "os-getConsoleOutput": {},
    "createImage": {"name": "new"}, "rebuild": {"imageRef": "{public}"}, "resize": {"flavorRef": "{flavor}"},
}  # fmt: skip

BODIES: list[tuple[str, Any]] = [
    (r"\S+ /v3/OS-FEDERATION/.*/protocols/.*", {"protocol": {"mapping_id": "{mapping}"}}),
    (r"\S+ /v3/OS-FEDERATION/mappings/.*", {"mapping": {"rules": [{"local": [], "remote": [{"type": "x"}]}]}}),
    (r"\S+ /v3/OS-FEDERATION/identity_providers/\{id\}", {"identity_provider": {"description": "x"}}),
    (r"\S+ /v3/OS-FEDERATION/service_providers/\{id\}", {"service_provider": {
        "auth_url": "https://other.test/auth", "sp_url": "https://other.test/ecp"}}),
    # "METHOD path" of a service, and a body that makes sense, where `body_of` cannot know
    (r"PUT /v2.0/routers/\{id\}/(add|remove)_router_interface", {"subnet_id": "{home_subnet}"}),
    (r"(PUT|POST) /v2.0/.*/tags", {"tags": ["blue"]}),
    (r"PUT /v2.0/quotas/.*", {"quota": {"network": -1}}),
    (r"PUT .*/os-quota-sets/.*", {"quota_set": {"instances": -1}}),
    (r"PUT .*/servers/\{id\}", {"server": {"name": "other"}}),
    (r"(PUT|POST) .*/servers/\{id\}/metadata", {"metadata": {"blue": "1"}}),
    (r"PUT .*/servers/\{id\}/metadata/\{key\}", {"meta": {"blue": "2"}}),
    (r"PUT .*/servers/\{id\}/tags", {"tags": ["blue"]}),
    (r"POST .*/servers/\{id\}/os-interface", {"interfaceAttachment": {"net_id": "{home}"}}),
    (r"POST .*/servers/\{id\}/remote-consoles", {"remote_console": {"protocol": "vnc", "type": "novnc"}}),
    (r"POST .*/servers/\{id\}/os-volume_attachments", {"volumeAttachment": {"volumeId": "{home}"}}),
    (r"PUT .*/os-security-groups/\{id\}", {"security_group": {"name": "other", "description": "x"}}),
    (r"POST .*/os-security-groups", {"security_group": {"name": "new", "description": "x"}}),
    (r"POST .*/os-security-group-rules", {"security_group_rule": {
        "parent_group_id": "{security_group}", "ip_protocol": "tcp", "from_port": 1, "to_port": 2, "cidr": "0.0.0.0/0"}}),
    (r"POST .*/os-extra_specs", {"extra_specs": {"blue": "1"}}),
    (r"PUT .*/os-extra_specs/\{key\}", {"blue": "1"}),
    (r"PUT .*/flavors/\{id\}", {"flavor": {"description": "x"}}),
    (r"POST /v2/images/\{image_id\}/import", {"method": {"name": "web-download", "uri": "http://192.0.2.1/data"}}),
    (r"POST /v2/tasks", {"type": "import", "input": {
        "import_from": "http://192.0.2.1/data", "import_from_format": "raw", "image_properties": {}}}),
    (r"POST /v2/images/\{image_id\}/locations", {"url": "http://192.0.2.1/data"}),
    (r"POST /v2/images/\{image_id\}/members", {"member": "{demo}"}),
    (r"PUT /v2/images/\{image_id\}/members/.*", {"status": "accepted"}),
    (r"POST /v2/metadefs/namespaces/\{namespace\}/tags", {"tags": [{"name": "red"}]}),
    (r"POST /v2/metadefs/.*/properties", {"name": "red", "title": "Red", "type": "string"}),
    (r"PUT /v2/metadefs/.*/properties/.*", {"name": "blue", "title": "Blue", "type": "string"}),
    (r"POST /v2/metadefs/.*/(objects|resource_types)", {"name": "red"}),
    (r"PUT /v2/metadefs/.*/(objects|tags)/.*", {"name": "blue"}),
    (r"PUT /v2/metadefs/namespaces/\{namespace\}", {"namespace": "{metadef}", "owner": "{demo}"}),
    (r"PATCH /v2/images/.*", [{"op": "replace", "path": "/name", "value": "other"}]),
    (r"PUT /v3/projects/\{id\}/tags", {"tags": ["blue"]}),
    (r"(PUT|PATCH) /v3/domains/\{id\}/config(/\{group\})?", {"config": {"ldap": {"url": "ldap://scene"}}}),
    (r"PATCH /v3/domains/\{id\}/config/\{group\}/\{option\}", {"config": {"url": "ldap://scene"}}),
    (r"POST .*/credentials/OS-EC2", {"tenant_id": "{demo}"}),
    (r"POST /v3/(ec2|s3)tokens", {"credentials": {"access": "none"}}),
    (r"PUT /resource_providers/\{uuid\}", {"name": "other"}),
    (r"POST /v2\.1/os-server-groups", {"server_group": {"name": "new", "policy": "affinity"}}),
    (r"POST /resource_classes", {"name": "CUSTOM_RED"}),
    (r"PUT /resource_providers/.*/traits", {"traits": [], "resource_provider_generation": 0}),
    (r"PUT /resource_providers/.*/aggregates", {"aggregates": [], "resource_provider_generation": 0}),
    (r"PUT /resource_providers/.*/inventories", {"inventories": {}, "resource_provider_generation": 0}),
    (r"POST /resource_providers/.*/inventories", {"resource_class": "VCPU", "total": 4}),
    (r"PUT /resource_providers/.*/inventories/.*", {"total": 4, "resource_provider_generation": 1}),
]  # fmt: skip

PREPARED: list[tuple[str, Any]] = [
    # what an admin puts there first, for calls on a part of an object: (path, body)
    (r".*/tags/\{tag\}$", None),
    (r".*/roles/\{role_id\}$", None),
    (r".*/groups/\{id\}/users/\{user_id\}$", None),
    (r".*/implies/\{implied_id\}$", None),
    (r".*/os-extra_specs/\{key\}$", {"blue": "1"}),
    (r".*/metadata/\{key\}$", {"meta": {"blue": "1"}}),
    (r".*/(traits|resource_classes)/\{name\}$", None),
    (r".*/protocols/\{protocol_id\}$", {"protocol": {"mapping_id": "{mapping}"}}),
    (r".*/OS-EP-FILTER/.*/\{\w+\}/\w+/\{\w+\}$", None),
    (r".*/OS-ENDPOINT-POLICY/.*\{\w+\}$", None),
]


def calls() -> list[tuple[Service, Endpoint]]:
    return [(s, e) for s in program.SERVICES for e in s.endpoints if e.auth]


def label(call: tuple[Service, Endpoint]) -> str:
    service, endpoint = call
    return f"{service.type} {endpoint.method} {endpoint.path} {endpoint.action}".strip()


def expected(service: Service, endpoint: Endpoint) -> str:
    what = f"{endpoint.method} {endpoint.path} {endpoint.action}".strip()
    return next(verdicts for pattern, verdicts in EXPECTED[service.type] if re.fullmatch(pattern, what))


class Ask:
    """One call of the matrix, as it can be made again and again."""

    def __init__(self, scene: Scene, service: Service, endpoint: Endpoint) -> None:
        self.scene, self.service, self.endpoint = scene, service, endpoint

    def prepare(self) -> str:
        """Put there what the call is about; its path."""
        path = self._path()
        for pattern, body in PREPARED:
            if re.match(pattern, self.endpoint.path):
                self._send("PUT", path, self._filled(body), "admin")
        if "inventories" in path:
            self._send("PUT", f"{path.partition('/inventories')[0]}/inventories", {
                "resource_provider_generation": 0, "inventories": {"VCPU": {"total": 4}}}, "admin")  # fmt: skip
        if "router_interface" in path:
            opposite = "remove" if "/add_" in path else "add"
            self._send("PUT", f"{path.rpartition('/')[0]}/{opposite}_router_interface", self._body(), "member")
        if "/config" in path and "/domains/config" not in path:
            self._send("PUT", f"{path.partition('/config')[0]}/config", {"config": {"ldap": {"url": "x"}}}, "admin")
        if path.endswith("/OS-ENDPOINT-POLICY/policy"):
            base = f"/v3/policies/{self.scene['policy']}/OS-ENDPOINT-POLICY"
            self._send("PUT", f"{base}/endpoints/{self.scene['endpoint']}", None, "admin")
        if "/members/" in path:
            base = path.partition("/members")[0]
            self._send("POST", f"{base}/members", {"member": self.scene.elsewhere}, "member")
        return path

    def ask(self, who: str, path: str) -> requests.Response:
        return self._send(self.endpoint.method, path, self._body(), who)

    def _path(self) -> str:
        segments = self.endpoint.path.split("/")
        made = [self._place(before) if here.startswith("{") else here for before, here in pairwise(segments)]
        path = "/" + "/".join(made)
        queries = {"/usages": f"?project_id={self.scene.demo}", "/allocation_candidates": "?resources=VCPU:1"}
        return path + queries.get(path, "")

    def _place(self, before: str) -> str:
        scene = self.scene
        if before in ("quotas", "os-quota-sets"):
            return scene.demo if self.endpoint.method == "GET" else scene.elsewhere
        if before == "members":
            return scene.elsewhere
        if self.endpoint.path.startswith("/v3/users/{user_id}/") and before == "users":
            return scene.users["member"]
        if before in ("agents", "os-hypervisors", "os-interface", "os-instance-actions", "OS-EC2"):
            return self._found(before)
        return scene.place(before)

    def _found(self, before: str) -> str:
        """The id of something that the cloud makes itself."""
        if before == "OS-EC2":
            path, body = f"/v3/users/{self.scene.users['member']}/credentials/OS-EC2", {"tenant_id": self.scene.demo}
            return str(self._send("POST", path, body, "admin").json()["credential"]["access"])
        if before == "agents":
            reply = self._send("GET", "/v2.0/agents", None, "admin").json()["agents"]
            return str(reply[0]["id"]) if reply else "none"
        if before == "os-hypervisors":
            return str(self._send("GET", "/v2.1/os-hypervisors", None, "admin").json()["hypervisors"][0]["id"])
        server = f"/v2.1/servers/{self.scene['server']}"
        if before == "os-interface":
            found = self._send("GET", f"{server}/os-interface", None, "admin").json()["interfaceAttachments"]
            return str(found[0]["port_id"]) if found else "none"
        actions = self._send("GET", f"{server}/os-instance-actions", None, "admin").json()["instanceActions"]
        return str(actions[0]["request_id"])

    def _body(self) -> Any:
        endpoint = self.endpoint
        if endpoint.action:
            return self._filled({endpoint.action: ACTIONS.get(endpoint.action)})
        if endpoint.method not in ("POST", "PUT", "PATCH"):
            return None
        for pattern, body in BODIES:
            if re.fullmatch(pattern, f"{endpoint.method} {endpoint.path}"):
                return self._filled(body)
        path = endpoint.path.replace("/v2/os-", "/v2.1/os-").replace("/v2/servers", "/v2.1/servers")
        for kind, (_, service, made_at, _) in KINDS.items():
            if service == self.service.type and path == made_at:
                return self.scene.body(kind)
            if (
                service == self.service.type
                and path.startswith(f"{made_at}/{{")
                and path.count("/") == made_at.count("/") + 1
            ):
                return {kind: {"description": "other"}}
        return {}

    def _filled(self, body: Any) -> Any:
        if isinstance(body, dict):
            return {k: self._filled(v) for k, v in body.items()}
        if isinstance(body, str) and body.startswith("{"):
            fixed = {"{demo}": self.scene.demo, "{public}": self.scene.image}
            return fixed.get(body) or self.scene[body[1:-1]]
        return body

    def _send(self, method: str, path: str, body: Any, who: str) -> requests.Response:
        headers = {}
        if path.endswith(("/file", "/stage")):
            headers["Content-Type"] = "application/octet-stream"
        elif method == "PATCH" and self.service.type == "image":
            headers["Content-Type"] = "application/openstack-images-v2.1-json-patch"
        elif body is not None:
            headers["Content-Type"] = "application/json"
        microversions = self.service.microversions
        if microversions is not None and not self.endpoint.path.startswith("/v2/"):
            version = text(min(self.endpoint.until, microversions.high))
            headers["OpenStack-API-Version"] = f"{microversions.service} {version}"
        token = self.scene.tokens[who]
        if "/auth/tokens" in path:
            token = headers["X-Subject-Token"] = self.scene.login(who) if method == "DELETE" else token
        return self.scene.cloud.request(method, self.service.ports[0], path, body, token=token, headers=headers)


def verdict(reply: requests.Response) -> str:
    status = reply.status_code
    assert status not in (401, 500, 502, 504), f"{status} {reply.text[:300]}"
    return {403: "r", 404: "h"}.get(status, "a")


@pytest.mark.parametrize("call", calls(), ids=label)
def test_who_may(call: tuple[Service, Endpoint], scene: Scene) -> None:
    service, endpoint = call
    ask = Ask(scene, service, endpoint)
    wanted = expected(service, endpoint)
    told = {}
    for who in LAST_FIRST:
        reply = ask.ask(who, ask.prepare())
        told[who] = verdict(reply)
        if told[who] == "h" and wanted[CALLERS.index(who)] == "a" and NOTHING.search(label(call)):
            told[who] = "a"
        if reply.ok and who == "stranger":
            leaked = [kind for kind, key in scene.private().items() if key in reply.text]
            assert not leaked or "/members/" in endpoint.path, f"{leaked} of another project is in {reply.text[:300]}"
        if reply.ok and (
            endpoint.method == "DELETE"
            or endpoint.action in ("forceDelete", "lock", "rebuild", "resize", "createImage")
        ):
            consumed(scene, endpoint)
    if "/members/" in endpoint.path:
        scene.forget("image")
    assert "".join(told[who] for who in CALLERS) == wanted, told


def consumed(scene: Scene, endpoint: Endpoint) -> None:
    """Forget what a call may have removed, so that the next caller meets another."""
    segments = endpoint.path.split("/")
    if isinstance(scene.cloud, InProcessCloud):
        scene.cloud.settle()
    for before, segment in pairwise(segments):
        if segment.startswith("{") and before in PLACES:
            scene.forget(PLACES[before])
