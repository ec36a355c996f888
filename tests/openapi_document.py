"""What an OpenAPI document says of replies, to hold ours against. The documents are not part of the project: the environment
variable OPENAPI_DOCUMENTS names a folder that has them (`identity-v3.14.yaml`, ...)."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import msgspec
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from cumulet.api.http import Endpoint

FOLDER = "OPENAPI_DOCUMENTS"
METHODS = ("get", "head", "post", "put", "patch", "delete")
PARAMETER = re.compile(r"\{[^}]*\}")
URI = "urn:document"


EXCEPTIONS: dict[str, list[tuple[str, str]]] = {
    "identity": [
        (r"/auth(/tokens)? answered .*password_expires_at: None is not", "a password that does not expire has null"),
        (r"/roles answered 200 with \S+description: None is not", "a role without a description has null"),
        (r"/v3/endpoints\S* answered .*region(_id)?: None is not", "an endpoint without a region has null"),
        (
            r"answered 401 .*required_auth_methods.* is not of type 'string'",
            "what is required is a list of lists of methods",
        ),
        (
            r"^GET /v3/(auth|OS-FEDERATION)/(projects|domains) .*\$\.links: .* is not of type 'array'",
            "the links of any list are an object",
        ),
        (
            r"^PATCH /v3/domains/\{domain_id\}/config/.* has too many properties",
            "a change of a part answers with the whole",
        ),
    ],
    "image": [
        (r"/(import|locations) answered 202 with nothing", "upstream answers with a status alone"),
        (r"^GET /v2/schemas/\S+ answered 200 with \$: \{", "a schema is an object, and the document has it as text"),
        (r"^GET /v2/info/usage .* is not of type 'array'", "usage is an object by resource"),
        (r"^GET /v2/info/stores\S* .*: 'true' is not of type 'boolean'", "upstream has the text 'true'"),
        (r"^POST \S+/tags answered 201 .*\('tags' was unexpected\)", "the tags that were made, as in the request"),
    ],
}
"""By service whose tests check their replies, where its document is wrong: a regular expression of complaints, and how
upstream's own code has it."""


class Operation(msgspec.Struct, frozen=True):
    """One call that is documented; `schemas` tells where in the document the JSON of a reply is described, by status."""

    method: str
    path: str
    schemas: Mapping[int, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def bare(path: str) -> str:
    """The path with its parameters' names left out, since documents and programs name them differently."""
    return PARAMETER.sub("{}", path).rstrip("/") or "/"


class Document:
    """An OpenAPI document."""

    def __init__(self, text: str) -> None:
        self._content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self._checks: dict[str, Draft202012Validator] = {}

    @cached_property
    def operations(self) -> list[Operation]:
        return [
            self._operation(method, path, item[method])
            for path, item in self._content["paths"].items()
            for method in METHODS
            if method in item
        ]

    def _operation(self, method: str, path: str, said: Any) -> Operation:
        place = f"#/paths/{path.replace('~', '~0').replace('/', '~1').replace('{', '%7B').replace('}', '%7D')}/{method}"
        schemas = {
            int(status): f"{place}/responses/{status}/content/application~1json/schema"
            for status, reply in said["responses"].items()
            if "application/json" in reply.get("content", {})
        }
        return Operation(method.upper(), path, schemas)

    @cached_property
    def _tree(self) -> dict[Any, Any]:
        tree: dict[Any, Any] = {}
        for operation in self.operations:
            node = tree
            for segment in bare(operation.path).split("/"):
                node = node.setdefault(segment, {})
            node.setdefault(None, {})[operation.method] = operation
        return tree

    def find(self, method: str, path: str) -> Operation | None:
        """The operation that a request is an example of; fixed segments win over parameters."""
        for node in _walk(self._tree, (path.partition("?")[0].rstrip("/") or "/").split("/")):
            if method in node.get(None, {}):
                found: Operation = node[None][method]
                return found
        return None

    def complaint(self, operation: Operation, status: int, data: bytes) -> str:
        """What is wrong with a reply; nothing where the document has it so, or says nothing of this kind of reply.

        The documents guess which success an operation answers with, so its body is held against what any success has.
        """
        place = operation.schemas.get(status)
        if place is None and status < 300:
            place = next((place for other, place in operation.schemas.items() if other < 300), None)
        if place is None or operation.method == "HEAD":
            return ""
        if not data:
            return f"{operation} answered {status} with nothing, and the document has a body"
        error = best_match(self._check(place).iter_errors(msgspec.json.decode(data)))
        return "" if error is None else f"{operation} answered {status} with {error.json_path}: {error.message[:500]}"

    def _check(self, place: str) -> Draft202012Validator:
        if place not in self._checks:
            self._checks[place] = Draft202012Validator({"$ref": f"{URI}{place}"}, registry=self._registry)
        return self._checks[place]

    @cached_property
    def _registry(self) -> Any:
        return Registry().with_resource(URI, DRAFT202012.create_resource(self._content))


def _walk(node: dict[Any, Any], segments: list[str]) -> Iterator[dict[Any, Any]]:
    if not segments:
        yield node
        return
    for name in (segments[0], "{}"):
        if name in node:
            yield from _walk(node[name], segments[1:])


@cache
def document(service: str) -> Document | None:
    """The document of a service's API, where there is one."""
    folder = os.environ.get(FOLDER)
    found = sorted(Path(folder).glob(f"{service}-v*.yaml")) if folder else []
    return Document(found[-1].read_text()) if found else None


class Check:
    """Fails the test whose request is answered otherwise than the document of the service's API has it."""

    def __init__(self, held_against: Document, exceptions: list[tuple[str, str]]) -> None:
        self._document, self._exceptions = held_against, exceptions

    def __call__(self, method: str, path: str, status: int, data: bytes) -> None:
        operation = self._document.find(method, path)
        if operation is not None:
            complaint = self._document.complaint(operation, status, data)
            assert not complaint or any(re.search(known, complaint) for known, _ in self._exceptions), complaint


def checking(service: str) -> Check | None:
    """What the replies of a service's tests are held against, if there is something."""
    held_against = document(service) if service in EXCEPTIONS else None
    return Check(held_against, EXCEPTIONS[service]) if held_against else None


def missing(described: Document, endpoints: Iterable[Endpoint]) -> list[Operation]:
    """What is documented and not served. HEAD comes with GET."""
    served = {(e.method, bare(e.path)) for e in endpoints}
    served |= {("HEAD", path) for method, path in served if method == "GET"}
    return [o for o in described.operations if (o.method, bare(o.path)) not in served]
