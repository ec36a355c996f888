"""Clients that make and delete things until the program is killed under them, and remember what they were promised."""

import hashlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import requests

from tests.cloud import Cloud, ProcessCloud
from tests.crash.killing import Promises, rows, turns

FINAL = {"ACTIVE", "SHUTOFF", "ERROR", "PAUSED"}
PIECE = 65536


@dataclass(frozen=True)
class Site:
    """What the load works on: an image, a network with a router to `public`, and how much there may be at once."""

    image_id: str
    network_id: str
    public_id: str
    servers: int
    sides: int


class Load:
    """Clients of a cloud: servers, floating IPs, networks with routers ("sides"), and images being uploaded."""

    def __init__(self, cloud: Cloud, site: Site, *, clients: int, seed: int) -> None:
        self.cloud = cloud
        self.site = site
        self.servers, self.floating_ips, self.images = Promises(), Promises(), Promises()
        self.networks, self.routers = Promises(), Promises()
        self.uploaded: dict[str, str] = {}  # image -> MD5 of data whose upload was answered
        self.errors: list[str] = []
        self.token = cloud.token()
        self._numbers = itertools.count()
        self._dice = [random.Random(f"{seed} {number}") for number in range(clients)]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        self.token = self.cloud.token()
        self._stop.clear()
        self._threads = [threading.Thread(target=self._client, args=(dice,)) for dice in self._dice]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors

    def _client(self, dice: random.Random) -> None:
        actions: dict[Callable[[random.Random], None], int] = {
            self._create_server: 6, self._delete_server: 3, self._power: 4, self._attach: 1, self._remake: 2,
            self._create_floating_ip: 2, self._delete_floating_ip: 1, self._create_side: 2, self._delete_side: 1,
            self._upload_image: 1, self._delete_image: 1,
        }  # fmt: skip
        while not self._stop.is_set():
            (action,) = dice.choices(list(actions), list(actions.values()))
            try:
                action(dice)
            except requests.RequestException:
                return  # the program was killed: what was not answered was not promised
            except Exception as error:  # noqa: BLE001 - told by `stop`, in the thread of the test
                self.errors.append(f"{action.__name__}: {error!r}")
                return

    def _call(
        self, method: str, service: str, path: str, body: Any = None, *, good: tuple[int, ...], **more: Any
    ) -> Any:
        """One call; its reply must have one of the statuses `good`. None unless it is the first of them."""
        reply = self.cloud.request(method, service, path, body, token=self.token, **more)
        assert reply.status_code in good, f"{method} {path}: {reply.status_code} {reply.text}"
        if reply.status_code != good[0]:
            return None
        return reply.json() if reply.content else {}

    def _delete(self, kind: Promises, victim: str, service: str, path: str) -> None:
        kind.doomed.add(victim)
        self._call("DELETE", service, f"{path}/{victim}", good=(204, 404))
        kind.gone.add(victim)

    # ---- servers --------------------------------------------------------------------------------------------------------

    def _create_server(self, dice: random.Random) -> None:
        # All that there are: being deleted, or made by a call that was never answered, they take their place too.
        listed = {one["id"] for one in self._call("GET", "compute", "/v2.1/servers", good=(200,))["servers"]}
        if len(listed) >= self.site.servers:
            self.servers.promised |= listed - self.servers.doomed
            return self._delete_server(dice)
        body = {
            "name": f"s{next(self._numbers)}", "flavorRef": "42", "imageRef": self.site.image_id,
            "networks": [{"uuid": self.site.network_id}], "config_drive": dice.random() < 0.3,
        }  # fmt: skip
        made = self._call("POST", "compute", "/v2.1/servers", {"server": body}, good=(202,))
        self.servers.promised.add(made["server"]["id"])
        return None

    def _delete_server(self, dice: random.Random) -> None:
        if victims := self.servers.free():
            self._delete(self.servers, dice.choice(victims), "compute", "/v2.1/servers")

    def _power(self, dice: random.Random) -> None:
        if victims := self.servers.free():
            action: dict[str, Any] = dice.choice([{"os-stop": None}, {"os-start": None}, {"reboot": {"type": "HARD"}}])
            path = f"/v2.1/servers/{dice.choice(victims)}/action"
            self._call("POST", "compute", path, action, good=(202, 409, 404))

    def _remake(self, dice: random.Random) -> None:
        """A new disk for a server, or an image of the one it has."""
        if victims := self.servers.free():
            rebuild = {"rebuild": {"imageRef": self.site.image_id}}
            action = dice.choice([rebuild, {"createImage": {"name": f"snapshot{next(self._numbers)}"}}])
            path = f"/v2.1/servers/{dice.choice(victims)}/action"
            self._call("POST", "compute", path, action, good=(202, 409, 404))

    def _attach(self, dice: random.Random) -> None:
        """A second card. The guests here do not know how to let go of one: it stays as long as its server."""
        if not (victims := self.servers.free()):
            return
        path = f"/v2.1/servers/{dice.choice(victims)}/os-interface"
        cards = self._call("GET", "compute", path, good=(200, 404))
        if cards and len(cards["interfaceAttachments"]) < 2:
            body = {"interfaceAttachment": {"net_id": self.site.network_id}}
            self._call("POST", "compute", path, body, good=(200, 404, 409))

    # ---- networks -------------------------------------------------------------------------------------------------------

    def _create_floating_ip(self, dice: random.Random) -> None:
        if len(self.floating_ips.free()) >= 2 * self.site.servers:
            return self._delete_floating_ip(dice)
        ports = self._call(
            "GET", "network", f"/v2.0/ports?network_id={self.site.network_id}&device_owner=compute:nova", good=(200,)
        )["ports"]
        body: dict[str, Any] = {"floating_network_id": self.site.public_id}
        if ports:
            body["port_id"] = dice.choice(ports)["id"]
        made = self._call("POST", "network", "/v2.0/floatingips", {"floatingip": body}, good=(201, 404, 409))
        if made:
            self.floating_ips.promised.add(made["floatingip"]["id"])
        return None

    def _delete_floating_ip(self, dice: random.Random) -> None:
        if victims := self.floating_ips.free():
            self._delete(self.floating_ips, dice.choice(victims), "network", "/v2.0/floatingips")

    def _create_side(self, dice: random.Random) -> None:
        if len(self.routers.free()) >= self.site.sides:
            return self._delete_side(dice)
        number = next(self._numbers)
        made = self._call("POST", "network", "/v2.0/networks", {"network": {"name": f"n{number}"}}, good=(201,))
        network = made["network"]["id"]
        self.networks.promised.add(network)
        body: dict[str, Any] = {"network_id": network, "ip_version": 4, "cidr": f"10.{number % 90 + 100}.0.0/24"}
        subnet = self._call("POST", "network", "/v2.0/subnets", {"subnet": body}, good=(201,))["subnet"]["id"]
        body = {"name": f"r{number}", "external_gateway_info": {"network_id": self.site.public_id}}
        router = self._call("POST", "network", "/v2.0/routers", {"router": body}, good=(201,))["router"]["id"]
        self.routers.promised.add(router)
        path = f"/v2.0/routers/{router}/add_router_interface"
        self._call(
            "PUT", "network", path, {"subnet_id": subnet}, good=(200, 404)
        )  # somebody may have deleted the router
        return None

    def _delete_side(self, dice: random.Random) -> None:
        if not (victims := self.routers.free()):
            return
        router = dice.choice(victims)
        self.routers.doomed.add(router)
        query = f"device_id={router}&device_owner=network:router_interface"
        legs = self._call("GET", "network", f"/v2.0/ports?{query}", good=(200,))["ports"]
        for leg in legs:
            path = f"/v2.0/routers/{router}/remove_router_interface"
            self._call("PUT", "network", path, {"port_id": leg["id"]}, good=(200, 404))
        if self._call("DELETE", "network", f"/v2.0/routers/{router}", good=(204, 404, 409)) is None:
            return  # its maker was still adding a leg, or another client was faster
        self.routers.gone.add(router)
        for leg in legs:
            self._delete(self.networks, leg["network_id"], "network", "/v2.0/networks")

    # ---- images ---------------------------------------------------------------------------------------------------------

    def _upload_image(self, dice: random.Random) -> None:
        body = {"name": f"i{next(self._numbers)}", "disk_format": "raw", "container_format": "bare"}
        image = self._call("POST", "image", "/v2/images", body, good=(201,))["id"]
        self.images.promised.add(image)
        pieces = [image[:8].encode() * (PIECE // 8)] * dice.randrange(1, 16)

        def slowly() -> Iterator[bytes]:
            for piece in pieces:
                time.sleep(0.01)  # an upload takes its time, so that kills fall into it
                yield piece

        headers = {"Content-Type": "application/octet-stream"}
        stored = self._call(
            "PUT", "image", f"/v2/images/{image}/file", good=(204, 404, 410), data=slowly(), headers=headers
        )
        if stored is not None:
            self.uploaded[image] = hashlib.md5(b"".join(pieces)).hexdigest()

    def _delete_image(self, dice: random.Random) -> None:
        if len(victims := self.images.free()) > 3:
            self._delete(self.images, dice.choice(victims), "image", "/v2/images")

    # ---- what came of it ------------------------------------------------------------------------------------------------

    def check(self) -> list[dict[str, Any]]:
        """All promises were kept; returns the servers, none of which is under way or in ERROR."""
        servers = settled(self.cloud)
        faults = {s["id"]: s["fault"]["message"] for s in servers if s["status"] == "ERROR"}
        assert faults == {}
        self.servers.check({s["id"] for s in servers}, "servers")
        for kind, name in ((self.networks, "networks"), (self.routers, "routers"), (self.floating_ips, "floatingips")):
            listed = self.cloud.request("GET", "network", f"/v2.0/{name}").json()[name]
            kind.check({one["id"] for one in listed}, name)
            assert [one for one in listed if one["status"] == "ERROR"] == []
        images = {i["id"]: i for i in self.cloud.request("GET", "image", "/v2/images?limit=1000").json()["images"]}
        self.images.check(set(images), "images")
        for image, checksum in self.uploaded.items():
            if image in images:
                data = self.cloud.request("GET", "image", f"/v2/images/{image}/file").content
                assert hashlib.md5(data).hexdigest() == checksum == images[image]["checksum"], f"image {image}"
        assert {i["status"] for i in images.values()} <= {"active", "queued"}
        assert {i["status"] for i in images.values() if i.get("image_type") == "snapshot"} <= {"active"}
        return servers


def settled(cloud: Cloud, timeout: float = 150) -> list[dict[str, Any]]:
    """The servers, once none is under way and no operation is unfinished."""
    deadline = time.monotonic() + timeout
    while True:
        listed = cloud.request("GET", "compute", "/v2.1/servers/detail?all_tenants=1")
        servers: list[dict[str, Any]] = listed.json()["servers"]
        busy = [s["id"] for s in servers if s["OS-EXT-STS:task_state"] or s["status"] not in FINAL]
        unfinished = rows(
            cloud,
            "SELECT kind, resource_id, state, attempts, error FROM core_operation WHERE state IN ('queued', 'running')",
        )
        if not busy and not unfinished:
            return servers
        assert time.monotonic() < deadline, f"stuck: {busy} {unfinished}"
        time.sleep(0.1)


def set_up(cloud: Cloud, image: bytes, *, servers: int, sides: int) -> Site:
    """A network with a router, an image that boots, and no quotas."""

    def call(method: str, service: str, path: str, body: Any) -> Any:
        reply = cloud.request(method, service, path, body)
        assert reply.ok, reply.text
        return reply.json()

    project = cloud.connect().current_project_id
    free = dict.fromkeys(("network", "subnet", "port", "router", "floatingip"), -1)
    call("PUT", "network", f"/v2.0/quotas/{project}", {"quota": free})
    quota = {"quota_set": {"instances": -1, "cores": -1, "ram": -1}}
    call("PUT", "compute", f"/v2.1/os-quota-sets/{project}", quota)
    (public,) = cloud.request("GET", "network", "/v2.0/networks?router:external=true").json()["networks"]
    network = call("POST", "network", "/v2.0/networks", {"network": {"name": "crash"}})["network"]["id"]
    body: dict[str, Any] = {"network_id": network, "ip_version": 4, "cidr": "10.9.0.0/16"}
    subnet = call("POST", "network", "/v2.0/subnets", {"subnet": body})["subnet"]["id"]
    body = {"name": "crash", "external_gateway_info": {"network_id": public["id"]}}
    router = call("POST", "network", "/v2.0/routers", {"router": body})["router"]["id"]
    call("PUT", "network", f"/v2.0/routers/{router}/add_router_interface", {"subnet_id": subnet})
    body = {"name": "crash", "disk_format": "raw", "container_format": "bare"}
    made = call("POST", "image", "/v2/images", body)["id"]
    headers = {"Content-Type": "application/octet-stream"}
    assert cloud.request("PUT", "image", f"/v2/images/{made}/file", data=image, headers=headers).status_code == 204
    return Site(made, network, public["id"], servers, sides)


def kill_again_and_again(
    cloud: ProcessCloud, load: Load, *, rounds: int, dice: random.Random, enough: Callable[[], object] = lambda: True
) -> None:
    """Load and SIGKILL, in turns; in some of them the next starts are killed as well, before one comes through.

    One of four ends is an orderly one: nothing may come of that either.
    """
    for number in turns(rounds, enough):
        load.run()
        time.sleep(dice.uniform(0.2, 1.5))  # the moment of the kill is what is random here
        if number % 4 == 3:
            cloud.stop()
        else:
            cloud.kill()
        load.stop()
        for _ in range(number % 3):
            cloud.launch()
            time.sleep(dice.uniform(0.3, 2.0))
            cloud.kill()
        cloud.start()


def delete_all(cloud: Cloud, site: Site) -> None:
    """Delete everything that the load, and `set_up`, made."""

    def every(service: str, path: str, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cloud.request("GET", service, path).json()[key]
        return found

    def delete(service: str, path: str) -> None:
        reply = cloud.request("DELETE", service, path)
        assert reply.status_code == 204, reply.text

    for one in every("compute", "/v2.1/servers", "servers"):
        delete("compute", f"/v2.1/servers/{one['id']}")
    assert settled(cloud) == []
    for one in every("network", "/v2.0/floatingips", "floatingips"):
        delete("network", f"/v2.0/floatingips/{one['id']}")
    for port in every("network", "/v2.0/ports?device_owner=network:router_interface", "ports"):
        path = f"/v2.0/routers/{port['device_id']}/remove_router_interface"
        assert cloud.request("PUT", "network", path, {"port_id": port["id"]}).ok
    for one in every("network", "/v2.0/routers", "routers"):
        delete("network", f"/v2.0/routers/{one['id']}")
    for one in every("network", "/v2.0/networks", "networks"):
        if one["id"] != site.public_id:
            delete("network", f"/v2.0/networks/{one['id']}")
    for one in every("image", "/v2/images?limit=1000", "images"):
        if one["name"] != "cumulet-guest":
            delete("image", f"/v2/images/{one['id']}")
    settled(cloud)
