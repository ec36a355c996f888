"""`cumulet ports` and its commands, as people and scripts use them, against a running cloud and against wrong input."""

import csv
import json
import re
import socket
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cumulet import ports as registry
from cumulet import status
from cumulet.cli import cumulet
from cumulet.portmap.facts import DIALECTS, ERAS, ROLES, facts
from cumulet.portmap.graph import build, dot, mermaid, services, svg
from tests.cloud import InProcessCloud, free_port


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(cumulet, ["ports", *arguments], env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="session")
def announced(cloud: InProcessCloud) -> InProcessCloud:
    """The running cloud, with the status file that `cumulet up` writes."""
    if status.read(cloud.data) is None:
        status.write(cloud.data, cloud.call(cloud.program.status(9e9, 0.5)))
    return cloud


# ---- the table ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown"])
def test_the_table_has_every_row(form: str) -> None:
    result = run("--format", form, "--port-offset", "10000")
    lines = result.output.splitlines()
    if form == "json":
        rows = json.loads(result.output)
        assert {row["component"]: row["port"] for row in rows}["nova-api"] == "18774"
    elif form == "csv":
        rows = list(csv.DictReader(lines))
        assert {row["component"]: row["port"] for row in rows}["keystone"] == "15000"
        assert "API client" in next(row["used by"] for row in rows if row["component"] == "glance-api")
    elif form == "markdown":
        rows = lines[2:]
    else:
        rows = [line for line in lines[1:] if not line.startswith(" ")]
        assert max(map(len, lines)) <= 120
    assert len(rows) == len(registry.PORTS)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("era", ERAS)
def test_every_dialect_of_every_era_can_be_listed(dialect: str, era: str) -> None:
    assert run("--dialect", dialect, "--era", era).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--service", "teapot"), 2, "no service 'teapot' is known"),
        (("--dialect", "teapot"), 2, "is not one of"),
        (("explain", "0"), 2, "they go from 1 to 65535"),
        (("explain", "65536"), 2, "they go from 1 to 65535"),
        (("explain", "99"), 1, "nothing of OpenStack listens on 99"),
        (("explain", "teapot"), 1, "no component or service is called teapot"),
        (("graph", "--service", "teapot"), 2, "no service 'teapot' is known"),
        (("check", "king=127.0.0.1"), 2, "there is no role 'king'"),
        (("check", "nowhere.invalid"), 1, "neither an address nor a name that resolves"),
        (("check", "--cloud", "a", "127.0.0.1"), 2, "name hosts or a cloud, not both"),
        (("check", "--data", "/nonexistent"), 1, "is up; start one with `cumulet up`"),
        (("verify", "/nonexistent"), 1, "cannot read /nonexistent: no such file or directory"),
    ],
)
def test_wrong_input_gets_one_sentence(arguments: tuple[str, ...], status: int, words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    assert words in result.output
    assert len([line for line in result.output.splitlines() if line.startswith("Error: ")]) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no clouds.yaml"),
        ("clouds: [", "is no YAML, line 1"),
        ("- a", "is no YAML mapping"),
        ("clouds:\n  other: {}\n", "has no cloud 'mine'; it has other"),
        ("clouds:\n  mine: {}\n", "has no `auth:` with an `auth_url`"),
        ("clouds:\n  mine:\n    auth: {auth_url: 'http://127.0.0.1:1'}\n", "no answer from http://127.0.0.1:1"),
    ],
)
def test_an_unusable_clouds_yaml_gets_one_sentence(
    content: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clouds.yaml"
    if content is not None:
        file.write_text(content)
    result = run("check", "--cloud", "mine", env={"OS_CLIENT_CONFIG_FILE": str(file)})
    assert result.exit_code == 1
    assert words in result.output
    assert result.output.startswith("Error: ")


# ---- explain ------------------------------------------------------------------------------------------------------------


def test_an_explanation_fits_the_terminal_and_is_json_too() -> None:
    text = run("explain", "5000").output
    assert max(map(len, text.splitlines())) <= 125
    assert "expose" in text
    found = json.loads(run("explain", "8774", "--json").output)
    assert found[0]["component"] == "nova-api"
    assert "API client" in found[0]["callers"]["public"]


# ---- check --------------------------------------------------------------------------------------------------------------


def test_a_running_cloud_is_as_it_should_be(announced: InProcessCloud) -> None:
    result = run("check", "--data", str(announced.data))
    assert result.exit_code == 0, result.output
    assert f"{len(registry.served())} of {len(registry.served())} ports answer; nothing wrong" in result.output
    found = json.loads(run("check", "--data", str(announced.data), "--json").output)
    by_name = {row["component"]: row for row in found}
    for component, service in (("nova-api", "compute"), ("keystone", "identity"), ("placement-api", "placement")):
        row = by_name[component]
        assert row["listening"] is True
        assert row["finding"]["service"] == service
        assert row["catalogue"].startswith("http://")
        assert re.fullmatch(r"\S+ \(\d+\)", row["process"])


def test_a_cloud_is_checked_by_its_catalogue(announced: InProcessCloud) -> None:
    env = {"OS_CLIENT_CONFIG_FILE": str(announced.data / "clouds.yaml")}
    result = run("check", "--cloud", "cumulet", "--json", env=env)
    assert result.exit_code == 0, result.output
    assert {row["service"] for row in json.loads(result.output)} >= {"identity", "compute", "network", "image"}
    wrong = (announced.data / "clouds.yaml").read_text().replace(
        json.dumps(announced.program.secrets.admin_password), '"wrong"'
    )  # fmt: skip
    file = announced.data / "wrong.yaml"
    file.write_text(wrong)
    refused = run("check", "--cloud", "cumulet", "--clouds-file", str(file))
    assert refused.exit_code == 1
    assert "refused the login with 401" in refused.output


def test_a_host_on_which_nothing_answers_fails_the_check() -> None:
    result = run("check", "storage=127.254.254.254", "--timeout", "0.5")
    assert result.exit_code == 1
    assert "0 of" in result.output


def test_a_port_that_somebody_else_took_is_told(announced: InProcessCloud, tmp_path: Path) -> None:
    """A status that promises a service where a server of another kind listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        written = status.read(announced.data)
        assert written is not None
        data = tmp_path / "data"
        data.mkdir()
        (data / "admin-openrc").write_text((announced.data / "admin-openrc").read_text())
        urls = {"compute": f"http://127.0.0.1:{sock.getsockname()[1]}", "image": f"http://127.0.0.1:{free_port()}"}
        import msgspec

        status.write(data, msgspec.structs.replace(written, urls=urls))
        result = run("check", "--data", str(data), "--timeout", "1")
    assert result.exit_code == 1
    assert (
        "nova-api would speak http" in result.output.replace("\n", " ").replace("  ", "") or "nova-api" in result.output
    )
    assert "nothing listens there" in result.output


# ---- graph --------------------------------------------------------------------------------------------------------------

GRAPHS = [("cumulet", "", ""), ("upstream", "", ""), ("upstream", "compute", ""), ("kolla-ansible", "", "storage")]


@pytest.mark.parametrize(("dialect", "service", "role"), GRAPHS)
def test_a_drawing_shows_every_component_within_its_frame(dialect: str, service: str, role: str) -> None:
    graph = build(facts(), dialect=dialect, service=service, role=role)
    root = ET.fromstring(svg(graph))
    space = "{http://www.w3.org/2000/svg}"
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [r for r in root.iter(f"{space}rect") if "box" in r.attrib.get("class", "")]
    assert len(boxes) == len(graph.nodes)
    corners = {(float(b.attrib["x"]), float(b.attrib["y"])) for b in boxes}
    assert len(corners) == len(boxes), "two components lie on each other"
    for box in boxes:
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height
    names = {text.text for text in root.iter(f"{space}text")}
    assert {node.name for node in graph.nodes} <= names
    lines = [p for p in root.iter(f"{space}path") if p.attrib.get("class") == "line"]
    assert len(lines) == len([edge for edge in graph.edges if edge.source != edge.destination])


def test_every_service_and_role_can_be_drawn() -> None:
    for service in services(facts()):
        graph = build(facts(), dialect="upstream", service=service)
        for form in (svg, dot, mermaid):
            assert form(graph)
    for role in ROLES:
        assert build(facts(), dialect="upstream", role=role).edges


def test_text_forms_name_both_ends() -> None:
    graph = build(facts(), dialect="upstream", service="image")
    assert '"API client" -> "glance-api"' in dot(graph)
    assert mermaid(graph).startswith("flowchart LR\n")
    assert mermaid(graph).count("-->") == len(graph.edges)


def test_the_drawing_is_written_to_a_file(tmp_path: Path) -> None:
    result = run("graph", "-o", str(tmp_path / "ports.svg"))
    assert re.search(r"\d+ components, \d+ connections", result.output)
    assert (tmp_path / "ports.svg").read_text().startswith("<svg")
