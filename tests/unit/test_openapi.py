"""The OpenAPI documents hold together, at every version, and say what the routes say."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from cumulet import program
from cumulet.api.openapi import document
from cumulet.api.service import Service
from cumulet.cli import cumulet
from cumulet.cli.openapi import SERVICES

METHODS = {"get", "put", "post", "delete", "head", "patch"}


def versions() -> Iterator[Any]:
    for service in program.SERVICES:
        yield pytest.param(service, None, id=service.type)
        if service.microversions is not None:
            low, high = service.microversions.low, service.microversions.high
            for minor in {low[1], (low[1] + high[1]) // 2}:
                yield pytest.param(service, (low[0], minor), id=f"{service.type}-{low[0]}.{minor}")


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


@pytest.mark.parametrize(("service", "version"), list(versions()))
def test_the_document_holds_together(service: Service, version: tuple[int, int] | None) -> None:
    made = json.loads(json.dumps(document(service, version)))
    assert made["openapi"] == "3.1.0"
    assert made["info"]["version"]
    shapes = [re.sub(r"{[^}]*}", "{}", path) for path in made["paths"]]
    assert len(shapes) == len(set(shapes)), "two paths differ only in the names of their parameters"
    for reference in references(made):
        name = reference.removeprefix("#/components/schemas/")
        assert name in made["components"]["schemas"], reference
    for path, operations in made["paths"].items():
        assert path.startswith("/")
        assert set(operations) <= METHODS
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["responses"], where
            names = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert names == set(re.findall(r"{([^}]*)}", path)), where
            keys = [(p["in"], p["name"]) for p in operation["parameters"]]
            assert len(keys) == len(set(keys)), where


def test_actions_stand_under_their_keys() -> None:
    (compute,) = (service for service in program.SERVICES if service.type == "compute")
    operation = document(compute)["paths"]["/v2.1/servers/{id}/action"]["post"]
    keys = {one["required"][0] for one in operation["requestBody"]["content"]["application/json"]["schema"]["oneOf"]}
    assert {"reboot", "os-start", "os-stop"} <= keys
    assert "- `reboot`: " in operation["description"]


def test_the_command_prints_it_and_knows_the_versions() -> None:
    assert {service.type for service in program.SERVICES} == set(SERVICES)
    result = CliRunner().invoke(cumulet, ["openapi", "compute", "--version", "2.79"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["info"]["version"] == "2.79"
    for arguments in (
        ["compute", "--version", "3.0"],
        ["compute", "--version", "new"],
        ["identity", "--version", "1.0"],
    ):
        result = CliRunner().invoke(cumulet, ["openapi", *arguments])
        assert result.exit_code == 2, result.output
