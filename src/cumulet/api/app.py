"""The pipeline: how one request becomes one reply. Read `App.__call__` top to bottom.

route       first, so that what does not exist costs nothing and is a 404 even without a token
version     before the token: an unsupported version is a 406 to anybody
token       who is asking, on whose behalf a service hands it on, and whether his token is good for this call
policy      may he make this call at all (whose objects he may touch is in the SQL of each call)
decode      bytes to a checked struct; only now is the body read, so a refused upload costs nothing
handle      the service's own function
encode      JSON, once
errors      anything raised above, worded in the family's dialect; the unexpected is logged and a plain 500
"""

import logging
import time
import uuid
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from cumulet.api.access_log import log_request, one_line
from cumulet.api.caller import Authenticate, handed_on, is_permitted
from cumulet.api.http import Endpoint, Request, Response, Router, encode_json
from cumulet.api.policy import Policy
from cumulet.api.resource import ANY, ResourceMeta, Version
from cumulet.api.service import Service
from cumulet.core.context import NOBODY, Caller, Context, current
from cumulet.core.errors import CloudError, Forbidden, Invalid, MethodNotAllowed, NotFound, Unauthorized

log = logging.getLogger("cumulet.api")


class InternalError(CloudError):
    """What the caller is told of an error that is the program's own fault."""


class App:
    """One service, answering requests. `runtime` is what its handlers find as `ctx.service`."""

    def __init__(self, service: Service, runtime: Any, authenticate: Authenticate, policy: Policy) -> None:
        self.service = service
        self.runtime = runtime
        self.authenticate = authenticate
        self.policy = policy
        self.router = Router(service.endpoints)
        self._known_as = frozenset((service.type, *service.aliases))

    async def __call__(self, request: Request) -> Response:
        """Answer one request; never raises but for cancellation."""
        started = time.perf_counter()
        request_id = f"req-{uuid.uuid4()}"
        ctx = Context(
            self.runtime, NOBODY, self.policy, request_id=request_id, request=request, dialect=self.service.dialect
        )
        before = current.set(ctx)
        try:
            response = await self._answer(ctx, request)
        except CloudError as error:
            response = self.service.dialect.error(error, request_id, request)
        except Exception:
            log.exception("%s %s failed, request %s", request.method, one_line(request.path), request_id)
            failure = InternalError(f"The server failed to answer. Its log says more under {request_id}.")
            response = self.service.dialect.error(failure, request_id, request)
        finally:
            current.reset(before)
        self._sign(response, ctx, request)
        log_request(self.service.type, request, request.path, request_id, ctx.caller, response.status, started)
        return response

    async def _answer(self, ctx: Context[Any], request: Request) -> Response:
        endpoints, values = self._route(request)
        if self.service.microversions is not None:
            ctx.version = self.service.microversions.settle(request)
        endpoint, raw = await self._choose(endpoints, ctx.version, request)
        if endpoint.auth:
            ctx.caller = await self._who(request, endpoint)
            if endpoint.policy:
                ctx.require(endpoint.policy)
        arguments: dict[str, Any] = dict(zip(self.router.names(endpoint), values, strict=True))
        if endpoint.body is not None:
            arguments["body"] = _decode(endpoint, await request.read() if raw is None else raw, ctx.version)
        result = await endpoint.handler(ctx, **arguments)
        if isinstance(result, Response):
            if not isinstance(result.body, bytes) and not result.is_data:
                result.headers.setdefault("Content-Type", "application/json")
                result.body = encode_json(result.body)
            return result
        if result is None:
            return Response(endpoint.status)
        return Response(endpoint.status, encode_json(result), {"Content-Type": "application/json"})

    def _route(self, request: Request) -> tuple[list[Endpoint], list[str]]:
        found = self.router.find(request.path)
        versions_only = request.path.count("/") <= 2  # the root, or "/v2.1/"
        slashed = request.path.endswith("/") and not versions_only and not self.service.dialect.trailing_slash
        if found is None or slashed:
            raise NotFound(message="The resource could not be found.")
        methods, values = found
        endpoints = methods.get(request.method) or (methods.get("GET") if request.method == "HEAD" else None)
        if endpoints is None:
            allowed = {"Allow": ", ".join(sorted(methods))}
            raise MethodNotAllowed(f"The method {request.method} is not allowed for this resource.", headers=allowed)
        return endpoints, values

    async def _choose(
        self, endpoints: list[Endpoint], version: Version, request: Request
    ) -> tuple[Endpoint, msgspec.Raw | None]:
        """The endpoint for this version and, among actions, for the body's one key, with that key's value."""
        alive = [e for e in endpoints if e.since <= version <= e.until]
        if not alive:
            if endpoints[0].auth:
                await self._who(request, endpoints[0])  # which versions have a call is nobody's business
            raise NotFound(message="The resource could not be found.")
        if not alive[0].action:
            return alive[0], None
        if not request.headers.get("X-Auth-Token"):
            raise Unauthorized()
        try:
            body = msgspec.json.decode(await request.read(), type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            raise Invalid("Malformed request body: an object with one action is expected.") from None
        for endpoint in alive:
            if endpoint.action in body:
                return endpoint, body[endpoint.action]
        named = ", ".join(body) or "none"
        raise Invalid(f"There is no such action: {named}")

    async def _who(self, request: Request, endpoint: Endpoint) -> Caller:
        token = request.headers.get("X-Auth-Token")
        if not token:
            raise Unauthorized()
        of_service = request.headers.get("X-Service-Token")
        caller = await (handed_on(self.authenticate, token, of_service) if of_service else self.authenticate(token))
        if caller.access_rules is not None:
            self._hold_to_rules(caller, request, endpoint)
        return caller

    def _hold_to_rules(self, caller: Caller, request: Request, endpoint: Endpoint) -> None:
        """Forbidden unless the caller's access rules name this call, or a service makes it as a part of one that they name."""
        if not endpoint.beyond_rules and not is_permitted(caller, self._known_as, request.method, request.path):
            raise Forbidden(
                f"The access rules of the token do not allow {request.method} {request.path} of {self.service.type}."
            )

    def _sign(self, response: Response, ctx: Context[Any], request: Request) -> None:
        """The headers that every reply carries."""
        headers = response.headers
        headers["X-Openstack-Request-Id"] = ctx.request_id
        if self.service.request_id_header:
            headers[self.service.request_id_header] = ctx.request_id
        microversions = self.service.microversions
        if microversions is not None and "OpenStack-API-Version" not in headers:
            headers.update(microversions.headers(microversions.low if ctx.version == ANY else ctx.version))


@cache
def _decoder(model: Any) -> Callable[[Any], Any]:
    return msgspec.json.Decoder(model).decode


def _decode(endpoint: Endpoint, data: Any, version: Version) -> Any:
    if isinstance(endpoint.body, ResourceMeta):
        return endpoint.body.decode(endpoint.mode, data, version)
    try:
        return _decoder(endpoint.body)(data)
    except msgspec.DecodeError as error:
        raise Invalid(f"Invalid input: {error}") from None
