"""An OpenAPI 3.1 document of a service, from its endpoints and declarations.

Reference: the OpenAPI Specification 3.1.0. Request bodies come from the same structs that check them.
"""

from typing import Any

import msgspec

from cumulet.api.http import Endpoint
from cumulet.api.resource import ResourceMeta, Use, Version, body_type
from cumulet.api.service import Service


def document(service: Service, version: Version) -> dict[str, Any]:
    """The whole document at one version."""
    alive = [e for e in service.endpoints if e.since <= version <= e.until]
    bodies = {_name(e): t for e in alive if (t := _body(e, version)) is not None}
    schemas, components = msgspec.json.schema_components(bodies.values(), ref_template="#/components/schemas/{name}")
    by_name = dict(zip(bodies, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in alive:
        operation = paths.setdefault(endpoint.path.replace(":rest}", "}"), {}).setdefault(endpoint.method.lower(), {})
        operation.update(_operation(endpoint, version))
        if schema := by_name.get(_name(endpoint)):
            content = operation.setdefault("requestBody", {"content": {"application/json": {"schema": {"oneOf": []}}}})
            content["content"]["application/json"]["schema"]["oneOf"].append(schema)
    title = f"{service.type} ({service.upstream})"
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": ".".join(map(str, version))},
        "paths": paths,
        "components": {"schemas": components},
    }


def _name(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path} {endpoint.action}"


def _body(endpoint: Endpoint, version: Version) -> Any:
    if isinstance(endpoint.body, ResourceMeta):
        return body_type(endpoint.body, endpoint.mode, version)
    return endpoint.body


def _operation(endpoint: Endpoint, version: Version) -> dict[str, Any]:
    names = [s.strip("{}").removesuffix(":rest") for s in endpoint.path.split("/") if s.startswith("{")]
    parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    if endpoint.method == "GET" and isinstance(endpoint.resource, ResourceMeta) and not names:
        shown = endpoint.resource.at("show", version)
        parameters += [
            {"name": f.wire, "in": "query", "required": False, "description": f.doc, "schema": {"type": "string"}}
            for f in shown
            if Use.FILTER in f.use
        ]
    return {
        "summary": endpoint.doc.split("\n")[0],
        "parameters": parameters,
        "responses": {str(endpoint.status): {"description": "Done"}},
        "security": [{"token": []}] if endpoint.auth else [],
        **({"x-policy": endpoint.policy} if endpoint.policy else {}),
    }
