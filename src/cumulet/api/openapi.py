"""An OpenAPI 3.1 document of a service, from its endpoints and declarations.

Reference: the OpenAPI Specification 3.1.0. Request bodies come from the same structs that check them.
"""

from typing import Any

import msgspec

from cumulet.api.http import Endpoint
from cumulet.api.resource import ResourceMeta, Use, Version, body_type
from cumulet.api.service import Service
from cumulet.api.version import text

NEWEST: Version = (99, 998)
"""Stands for "all that is not from an old version" where a service has no microversions."""
PATHS = ("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH")
"""The methods an OpenAPI document knows and that are served here."""


def document(service: Service, version: Version | None = None) -> dict[str, Any]:
    """The whole document at one version, the newest by default."""
    if version is None:
        version = service.microversions.high if service.microversions else NEWEST
    groups = grouped(service, version)
    bodies = [(e, t) for group in groups.values() for e in group if (t := _body(e, version)) is not None]
    schemas, components = msgspec.json.schema_components(
        [t for _, t in bodies], ref_template="#/components/schemas/{name}"
    )
    of = {id(endpoint): schema for (endpoint, _), schema in zip(bodies, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for (path, method), group in groups.items():
        paths.setdefault(path, {})[method.lower()] = _operation(path, group, of, version)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{service.type} ({service.upstream})",
            "version": text(version) if service.microversions else "0",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
    }


def grouped(service: Service, version: Version) -> dict[tuple[str, str], list[Endpoint]]:
    """The endpoints that live at a version, by path and method. Paths that differ only in their parameters' names are one:
    the first name stands for all."""
    spelled: dict[str, str] = {}
    groups: dict[tuple[str, str], list[Endpoint]] = {}
    for endpoint in service.endpoints:
        if endpoint.since <= version <= endpoint.until and endpoint.method in PATHS:
            shape = "/".join("{}" if part.startswith("{") else part for part in endpoint.path.split("/"))
            path = spelled.setdefault(shape, endpoint.path.replace(":rest}", "}"))
            groups.setdefault((path, endpoint.method), []).append(endpoint)
    return groups


def _body(endpoint: Endpoint, version: Version) -> Any:
    if isinstance(endpoint.body, ResourceMeta):
        return body_type(endpoint.body, endpoint.mode, version)
    return endpoint.body


def _operation(path: str, group: list[Endpoint], of: dict[int, Any], version: Version) -> dict[str, Any]:
    """One operation of the document: an endpoint, or all the actions that share a path."""
    first = group[0]
    operation: dict[str, Any] = {
        "summary": "Actions, chosen by the body's one key." if first.action else summary(first),
        "parameters": _parameters(path, first, version),
        "responses": {str(status): {"description": "Done"} for status in sorted({e.status for e in group})},
        "security": [{"token": []}] if first.auth else [],
    }
    if first.action:
        operation["description"] = "\n".join(f"- `{e.action}`: {summary(e)}" for e in group)
    if rules := sorted({e.policy for e in group if e.policy}):
        operation["x-policy"] = rules
    schemas = [_in_envelope(e, of[id(e)]) for e in group if id(e) in of]
    if schemas:
        schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _in_envelope(endpoint: Endpoint, schema: Any) -> Any:
    """The schema of the body as it is sent: an action's stands under its key."""
    if not endpoint.action:
        return schema
    return {"type": "object", "required": [endpoint.action], "properties": {endpoint.action: schema}}


def _parameters(path: str, endpoint: Endpoint, version: Version) -> list[dict[str, Any]]:
    names = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    if endpoint.method == "GET" and isinstance(endpoint.resource, ResourceMeta) and not names:
        shown = endpoint.resource.at("show", version)
        parameters += [
            {"name": f.wire, "in": "query", "required": False, "description": f.doc, "schema": {"type": "string"}}
            for f in shown
            if Use.FILTER in f.use
        ]
    return parameters


def summary(endpoint: Endpoint) -> str:
    """The first line of what the call says of itself."""
    return endpoint.doc.split("\n")[0]
