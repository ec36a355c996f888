"""A small OpenID Connect provider on loopback: discovery, keys, tokens by three grants, introspection."""

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CLIENT = "Basic " + base64.b64encode(b"cumulet:client-secret").decode()


class Issuer:
    """`claims` are what it says of people by name; everything that was asked of it is in `asked`."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Any] = {"first": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.claims: dict[str, dict[str, Any]] = {"ann": {"email": "ann@acme.test", "groups": ["crew", "staff"]}}
        self.asked: list[str] = []
        self.broken = ""

    def say(self, who: str, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        standard = {"iss": self.url, "sub": who, "aud": ["cumulet", "other"], "iat": now, "exp": now + 300}
        told = standard | self.claims.get(who, {}) | claims
        return {name: value for name, value in told.items() if value is not None}

    def token(self, who: str, *, kid: str | None = "first", key: Any = None, alg: str = "RS256", **claims: Any) -> str:
        headers = {"kid": kid} if kid is not None else {}
        return jwt.encode(
            self.say(who, **claims), self.keys["first"] if key is None else key, algorithm=alg, headers=headers
        )

    def add_key(self, kid: str) -> Any:
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())
        return self.keys[kid]

    async def discovery(self, request: web.Request) -> web.Response:
        self.asked.append("discovery")
        document = {
            "issuer": "http://elsewhere.test" if self.broken == "issuer" else self.url,
            "jwks_uri": "http://192.0.2.1/keys" if self.broken == "jwks_uri" else f"{self.url}/keys",
            "token_endpoint": f"{self.url}/token",
            "introspection_endpoint": f"{self.url}/introspect",
        }
        return web.json_response(document)

    async def jwks(self, request: web.Request) -> web.Response:
        self.asked.append("keys")
        if self.broken == "redirect":
            raise web.HTTPFound("/other-keys")
        if self.broken == "keys":
            return web.Response(text="<html>no")
        algorithms = {"first": jwt.algorithms.RSAAlgorithm}
        found = [
            algorithms.get(kid, jwt.algorithms.ECAlgorithm).to_jwk(key.public_key(), as_dict=True) | {"kid": kid}
            for kid, key in self.keys.items()
        ]
        if self.broken == "endless":
            return web.json_response({"keys": found, "more": "x" * (2 << 20)})
        return web.json_response({"keys": found, "more": "x" * (200 << 10)})  # in many pieces

    async def grant(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert request.headers["Authorization"] == CLIENT
        kind = form["grant_type"]
        assert kind in ("password", "client_credentials")
        who = str(form["username"]) if kind == "password" else "robot"
        if kind == "password" and form["password"] != "acme-secret":
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": self.token(who), "token_type": "Bearer"})

    async def introspect(self, request: web.Request) -> web.Response:
        self.asked.append("introspect")
        assert request.headers["Authorization"] == CLIENT
        who = str((await request.post())["token"])
        if who == "nonsense":
            return web.json_response({"active": False})
        return web.json_response(self.say(who) | {"active": True, **self.claims.get(f"{who}-more", {})})


@asynccontextmanager
async def issuer_on_loopback() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    app = web.Application()
    app.add_routes([
        web.get("/.well-known/openid-configuration", issuer.discovery),
        web.get("/keys", issuer.jwks),
        web.get("/other-keys", issuer.jwks),
        web.post("/token", issuer.grant),
        web.post("/introspect", issuer.introspect),
    ])  # fmt: skip
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    issuer.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    yield issuer
    await runner.cleanup()
