"""Clouds as the clients know them: an entry of `clouds.yaml` (openstacksdk's format), and the catalogue that it leads to."""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE_VARIABLE = "OS_CLIENT_CONFIG_FILE"
PLACES = (Path("clouds.yaml"), Path.home() / ".config/openstack/clouds.yaml", Path("/etc/openstack/clouds.yaml"))


class CloudsError(Exception):
    """There is no such cloud, its entry cannot be read, or it lets nobody in; the text says which and what would do."""


def find(name: str, file: Path | None = None) -> Mapping[str, Any]:
    """The entry of that name, from the file named, from $OS_CLIENT_CONFIG_FILE or from where the clients look."""
    path = file or next((p for p in _places() if p.is_file()), None)
    if path is None:
        raise CloudsError(f"there is no clouds.yaml; the clients look for {', '.join(map(str, PLACES))}")
    clouds = _read(path).get("clouds")
    if not isinstance(clouds, dict):
        raise CloudsError(f"{path} has no `clouds:`")
    entry = clouds.get(name)
    if not isinstance(entry, dict):
        raise CloudsError(f"{path} has no cloud {name!r}; it has {', '.join(sorted(map(str, clouds))) or 'none'}")
    if not isinstance(entry.get("auth"), dict) or not entry["auth"].get("auth_url"):
        raise CloudsError(f"the cloud {name!r} in {path} has no `auth:` with an `auth_url`")
    return entry


def _places() -> tuple[Path, ...]:
    named = os.environ.get(FILE_VARIABLE)
    return (Path(named),) if named else PLACES


def _read(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CloudsError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise CloudsError(f"{path} is no YAML{where}: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, dict):
        raise CloudsError(f"{path} is no YAML mapping")
    return content


def login_body(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The body of POST /v3/auth/tokens for an entry: password, application credential or token."""
    auth = entry["auth"]
    if auth.get("application_credential_id") or auth.get("application_credential_name"):
        credential = {"secret": auth.get("application_credential_secret", "")}
        if auth.get("application_credential_id"):
            credential["id"] = auth["application_credential_id"]
        else:
            credential |= {"name": auth["application_credential_name"], "user": _user(auth)}
        return {"auth": {"identity": {"methods": ["application_credential"], "application_credential": credential}}}
    if auth.get("token"):
        identity: dict[str, Any] = {"methods": ["token"], "token": {"id": auth["token"]}}
    else:
        user = {**_user(auth), "password": str(auth.get("password", ""))}
        identity = {"methods": ["password"], "password": {"user": user}}
    return {"auth": {"identity": identity, **_scope(auth)}}


def _user(auth: Mapping[str, Any]) -> dict[str, Any]:
    if auth.get("user_id"):
        return {"id": auth["user_id"]}
    return {"name": auth.get("username", ""), "domain": _domain(auth, "user")}


def _domain(auth: Mapping[str, Any], kind: str) -> dict[str, Any]:
    for key in (f"{kind}_domain_id", "default_domain_id", "default_domain"):
        if auth.get(key):
            return {"id": auth[key]}
    name = auth.get(f"{kind}_domain_name") or auth.get("default_domain_name")
    return {"name": name} if name else {"id": "default"}


def _scope(auth: Mapping[str, Any]) -> dict[str, Any]:
    if auth.get("system_scope"):
        return {"scope": {"system": {"all": True}}}
    if auth.get("project_id"):
        return {"scope": {"project": {"id": auth["project_id"]}}}
    if auth.get("project_name"):
        return {"scope": {"project": {"name": auth["project_name"], "domain": _domain(auth, "project")}}}
    if auth.get("domain_id") or auth.get("domain_name"):
        key = "id" if auth.get("domain_id") else "name"
        return {"scope": {"domain": {key: auth[f"domain_{key}"]}}}
    return {}


async def catalogue(entry: Mapping[str, Any], timeout: float = 10.0) -> list[dict[str, Any]]:
    """The catalogue as this login sees it. Raises CloudsError."""
    import aiohttp

    base = str(entry["auth"]["auth_url"]).rstrip("/")
    url = f"{base}/auth/tokens" if base.endswith("/v3") else f"{base}/v3/auth/tokens"
    verify: Any = True
    if entry.get("verify") is False:
        verify = False
    elif entry.get("cacert"):
        try:
            verify = ssl.create_default_context(cafile=str(entry["cacert"]))
        except OSError as error:
            raise CloudsError(f"cannot read the CA certificates in {entry['cacert']}: {error.strerror}") from error
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout)) as session,
            session.post(url, json=login_body(entry), ssl=verify) as answer,
        ):
            text = await answer.text()
            body = await answer.json(content_type=None) if answer.status == 201 else {}
    except aiohttp.ClientError as error:
        raise CloudsError(f"no answer from {url}: {error}") from error
    except TimeoutError as error:
        raise CloudsError(f"no answer from {url} within {timeout:g} s") from error
    except ValueError as error:
        raise CloudsError(f"{url} did not answer with JSON; is it an Identity API?") from error
    if answer.status != 201:
        raise CloudsError(f"{url} refused the login with {answer.status}: {text[:200]}")
    found: list[dict[str, Any]] = body.get("token", {}).get("catalog", [])
    return found
