"""A small OpenStack in memory, as far as the demo asks for it: enough to test the demo's own decisions."""

import uuid
from typing import Any

from aiohttp import web

Json = dict[str, Any]

COLLECTIONS = {
    "networks": "network",
    "subnets": "subnet",
    "routers": "router",
    "ports": "port",
    "security-groups": "security_group",
    "security-group-rules": "security_group_rule",
    "floatingips": "floatingip",
}


class FakeCloud:
    """Everything that was made, by collection, and the calls that changed something, in order."""

    def __init__(self) -> None:
        self.things: dict[str, dict[str, Json]] = {name: {} for name in (*COLLECTIONS, "servers", "images", "keys")}
        self.changes: list[str] = []
        self.fault = ""
        self.root = ""
        self.add("networks", {"name": "public", "router:external": True})

    def add(self, collection: str, thing: Json) -> Json:
        thing = {"id": str(uuid.uuid4()), **thing}
        self.things[collection][thing["id"]] = thing
        return thing

    def app(self) -> web.Application:
        app = web.Application()
        app.middlewares.append(self._note)
        app.add_routes(
            [
                web.post("/v3/auth/tokens", self.login),
                web.get("/compute/v2.1/flavors", self.flavors),
                web.post("/compute/v2.1/os-keypairs", self.make_key),
                web.route("*", "/compute/v2.1/os-keypairs/{name}", self.key),
                web.post("/compute/v2.1/servers", self.make_server),
                web.get("/compute/v2.1/servers", self.servers),
                web.route("*", "/compute/v2.1/servers/{id}", self.server),
                web.route("*", "/image/v2/images", self.images),
                web.route("*", "/image/v2/images/{id}", self.image),
                web.put("/image/v2/images/{id}/file", self.upload),
                web.put("/network/v2.0/routers/{id}/{action}", self.interface),
                web.route("*", "/network/v2.0/{collection}", self.many),
                web.route("*", "/network/v2.0/{collection}/{id}", self.one),
            ]
        )
        return app

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.method != "GET" and not request.path.startswith("/v3"):
            self.changes.append(f"{request.method} {request.path.partition('/v2')[2].partition('/')[2].split('/')[0]}")
        response: web.StreamResponse = await handler(request)
        return response

    async def login(self, request: web.Request) -> web.Response:
        user = (await request.json())["auth"]["identity"]["password"]["user"]
        if user["password"] != "demo":
            error = {"error": {"code": 401, "message": "The request you have made requires authentication."}}
            return web.json_response(error, status=401)
        catalog = [
            {"type": kind, "endpoints": [{"interface": "public", "region": "RegionOne", "url": f"{self.root}{path}"}]}
            for kind, path in (("compute", "/compute/v2.1"), ("image", "/image"), ("network", "/network/"))
        ]
        token = {"token": {"project": {"id": "p"}, "catalog": catalog}}
        return web.json_response(token, status=201, headers={"X-Subject-Token": "t"})

    async def flavors(self, request: web.Request) -> web.Response:
        return web.json_response({"flavors": [{"id": "1", "name": "m1.nano"}]})

    async def make_key(self, request: web.Request) -> web.Response:
        pair = (await request.json())["keypair"]
        if pair["name"] in self.things["keys"]:
            return web.json_response({"conflictingRequest": {"message": "Key pair already exists."}}, status=409)
        self.things["keys"][pair["name"]] = pair
        return web.json_response({"keypair": pair}, status=201)

    async def key(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.things["keys"]:
            return web.json_response({"itemNotFound": {"message": "Keypair not found"}}, status=404)
        if request.method == "DELETE":
            del self.things["keys"][name]
            return web.Response(status=202)
        return web.json_response({"keypair": self.things["keys"][name]})

    async def make_server(self, request: web.Request) -> web.Response:
        wanted = (await request.json())["server"]
        status = "ERROR" if self.fault else "BUILD"
        server = self.add("servers", {"name": wanted["name"], "status": status, "fault": {"message": self.fault}})
        self.add("ports", {"device_id": server["id"], "network_id": wanted["networks"][0]["uuid"], "fixed_ips": []})
        return web.json_response({"server": {"id": server["id"]}}, status=202)

    async def servers(self, request: web.Request) -> web.Response:
        return web.json_response({"servers": list(self.things["servers"].values())})

    async def server(self, request: web.Request) -> web.Response:
        server = self.things["servers"].get(request.match_info["id"])
        if server is None:
            return web.json_response({"itemNotFound": {"message": "Instance could not be found."}}, status=404)
        if request.method == "DELETE":
            server["status"] = "DELETING"
            return web.Response(status=204)
        if server["status"] == "DELETING":
            del self.things["servers"][server["id"]]
            for port in [port for port in self.things["ports"].values() if port["device_id"] == server["id"]]:
                del self.things["ports"][port["id"]]
        body = web.json_response({"server": server})
        server["status"] = "ACTIVE" if server["status"] == "BUILD" else server["status"]
        return body

    async def images(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            image = self.add("images", {**(await request.json()), "status": "queued"})
            return web.json_response(image, status=201)
        return web.json_response({"images": list(self.things["images"].values())})

    async def image(self, request: web.Request) -> web.Response:
        if request.method == "DELETE":
            del self.things["images"][request.match_info["id"]]
            return web.Response(status=204)
        return web.json_response(self.things["images"][request.match_info["id"]])

    async def upload(self, request: web.Request) -> web.Response:
        assert await request.read()
        self.things["images"][request.match_info["id"]]["status"] = "active"
        return web.Response(status=204)

    async def interface(self, request: web.Request) -> web.Response:
        router, subnet = request.match_info["id"], (await request.json())["subnet_id"]
        if request.match_info["action"] == "add_router_interface":
            network = self.things["subnets"][subnet]["network_id"]
            self.add("ports", {"device_id": router, "network_id": network, "fixed_ips": [{"subnet_id": subnet}]})
        else:
            for port in [port for port in self.things["ports"].values() if port["device_id"] == router]:
                del self.things["ports"][port["id"]]
        return web.json_response({})

    async def many(self, request: web.Request) -> web.Response:
        collection = request.match_info["collection"]
        if request.method == "POST":
            return await self._make(request, collection)
        found = [
            thing
            for thing in self.things[collection].values()
            if all(str(thing.get(key)).lower() == value for key, value in request.query.items())
        ]
        return web.json_response({collection.replace("-", "_"): found})

    async def _make(self, request: web.Request, collection: str) -> web.Response:
        kind = COLLECTIONS[collection]
        thing = self.add(collection, (await request.json())[kind])
        if collection == "floatingips":
            thing["floating_ip_address"] = "127.0.0.1"
        if collection == "security-groups":
            thing["security_group_rules"] = []
        if collection == "security-group-rules":
            self.things["security-groups"][thing["security_group_id"]]["security_group_rules"].append(thing)
        return web.json_response({kind: thing}, status=201)

    async def one(self, request: web.Request) -> web.Response:
        collection, name = request.match_info["collection"], request.match_info["id"]
        kind = COLLECTIONS[collection]
        if request.method == "DELETE" and collection == "networks":
            used = [port for port in self.things["ports"].values() if port["network_id"] == name]
            if used:
                error = {"NeutronError": {"type": "NetworkInUse", "message": "There are ports in use.", "detail": ""}}
                return web.json_response(error, status=409)
            self.things["subnets"].clear()
        if request.method == "DELETE" and collection == "security-groups":
            self.things["security-group-rules"].clear()
        if request.method == "DELETE":
            del self.things[collection][name]
            return web.Response(status=204)
        if request.method == "PUT":
            self.things[collection][name] |= (await request.json())[kind]
        return web.json_response({kind: self.things[collection][name]})
