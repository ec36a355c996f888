"""A small client of the public OpenStack APIs, for the demo."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from cumulet.credentials import Login

Json = dict[str, Any]
"""A JSON object as a service answered it: this module passes on what it is given, whatever its fields."""

_VERSIONS = {"image": "/v2", "network": "/v2.0"}
"""By custom the catalogue has these services' endpoints without a version."""

T = TypeVar("T")
_TIMEOUT = aiohttp.ClientTimeout(total=60)


class CloudError(Exception):
    """A call was refused or failed, or what was waited for did not come; the text is the service's own where it can."""


class Cloud:
    """One login: a token, a catalogue, and requests to the services found in it. Use as an async context manager."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.project_id = ""
        self._token = ""
        self._endpoints: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        try:
            await self._authenticate()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def exists(self, service: str, path: str) -> Json | None:
        """GET; None if it is not there."""
        status, body = await self._send("GET", f"{self.endpoint(service)}{path}", None)
        return None if status == 404 else _refuse_failure("GET", path, status, body)

    async def upload(self, path: str, content: bytes) -> None:
        """PUT image data."""
        status, body = await self._send("PUT", f"{self.endpoint('image')}{path}", content)
        _refuse_failure("PUT", path, status, body)

    async def get(self, service: str, path: str) -> Json:
        """GET; raises CloudError on anything but success."""
        return await self.request("GET", service, path)

    async def find(self, service: str, path: str, collection: str, name: str) -> Json | None:
        """The one resource of that name in a listing, or None. Raises CloudError if the name is ambiguous."""
        answer = await self.get(service, f"{path}?name={name}")
        # Some services match names as a pattern, or not at all.
        found: list[Json] = [item for item in answer[collection] if item["name"] == name]
        if len(found) > 1:
            raise CloudError(f"there are {len(found)} of {path.rpartition('/')[2]} named {name}; remove all but one")
        return found[0] if found else None

    async def delete(self, service: str, path: str) -> bool:
        """DELETE; False if it was not there."""
        status, body = await self._send("DELETE", f"{self.endpoint(service)}{path}", None)
        if status == 404:
            return False
        _refuse_failure("DELETE", path, status, body)
        return True

    async def request(self, method: str, service: str, path: str, body: Json | None = None) -> Json:
        """Send a request to a service of the catalogue; the decoded answer, `{}` if there is none."""
        status, answer = await self._send(method, f"{self.endpoint(service)}{path}", body)
        return _refuse_failure(method, path, status, answer)

    def endpoint(self, service: str) -> str:
        """The public endpoint of a service type, without a slash at its end."""
        try:
            return self._endpoints[service]
        except KeyError as error:
            raise CloudError(f"the catalogue has no public endpoint of type {service}") from error

    async def _authenticate(self) -> None:
        login = self.login
        user = {"name": login.username, "domain": {"id": login.user_domain}, "password": login.password}
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": {"name": login.project, "domain": {"id": login.project_domain}}}
        url = f"{login.auth_url}/auth/tokens"
        assert self._session is not None
        try:
            async with self._session.post(url, json={"auth": {"identity": identity, "scope": scope}}) as answer:
                body = await _decode(answer)
                token = _refuse_failure("POST", url, answer.status, body)["token"]
                self._token = answer.headers["X-Subject-Token"]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CloudError(f"no answer from {url}: {error}") from error
        self.project_id = token["project"]["id"]
        for service in token["catalog"]:
            for endpoint in service["endpoints"]:
                if endpoint["interface"] == "public" and endpoint["region"] == login.region:
                    self._endpoints[service["type"]] = _versioned(service["type"], endpoint["url"].rstrip("/"))

    async def _send(self, method: str, url: str, body: Json | bytes | None) -> tuple[int, Json]:
        assert self._session is not None, "use Cloud as a context manager"
        headers = {"X-Auth-Token": self._token, "Accept": "application/json"}
        data: bytes | None = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers["Content-Type"] = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        try:
            async with self._session.request(method, url, data=data, headers=headers) as answer:
                return answer.status, await _decode(answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CloudError(f"no answer to {method} {url}: {error or 'timed out'}") from error


async def wait_for(what: str, look: Callable[[], Awaitable[T | None]], *, timeout: float, interval: float = 0.5) -> T:
    """Look again and again until there is something to return. Raises CloudError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = await look()
        if found is not None:
            return found
        if time.monotonic() >= deadline:
            raise CloudError(f"{what} did not come within {timeout:.0f} s")
        await asyncio.sleep(interval)


def _versioned(service: str, url: str) -> str:
    version = _VERSIONS.get(service, "")
    return url if not version or re.search(r"/v\d", url) else url + version


async def _decode(answer: aiohttp.ClientResponse) -> Json:
    """The JSON object of an answer; text that is none becomes its message."""
    text = await answer.text()
    if not text:
        return {}
    try:
        body = await answer.json(content_type=None)
    except ValueError:
        return {"message": text[:500]}
    return body if isinstance(body, dict) else {"message": text[:500]}


def _refuse_failure(method: str, path: str, status: int, body: Json) -> Json:
    if status >= 400:
        raise CloudError(f"{method} {path} was answered with {status}: {message_of(body)}")
    return body


def message_of(body: Json) -> str:
    """The service's own words from any of OpenStack's error envelopes.

    `{"error": {"message": ...}}`, `{"badRequest": {"message": ...}}`, `{"NeutronError": {"message": ...}}`,
    `{"errors": [{"detail": ...}]}` and `{"message": ...}`.
    """
    errors = body.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return str(errors[0].get("detail") or errors[0].get("title") or errors[0])
    if "message" in body:
        return str(body["message"])
    for value in body.values():
        if isinstance(value, dict) and "message" in value:
            return str(value["message"])
        if isinstance(value, str):
            return value
    return "no reason given"
