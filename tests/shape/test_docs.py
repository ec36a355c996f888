"""Documentation that can drift is a failing test."""

from pathlib import Path

from cumulet import ports
from cumulet.config import Settings

ROOT = Path(__file__).parents[2]


def test_readme_has_the_port_table() -> None:
    text = (ROOT / "README.md").read_text()
    for row in ports.PORTS:
        if row.served:
            assert f"| {row.label} |" in text, f"port {row.label} ({row.name})"


def test_settings_are_documented() -> None:
    text = (ROOT / "docs/settings.md").read_text()
    for setting in Settings.__struct_fields__:
        assert f"`{setting}`" in text, setting


def test_architecture_names_every_folder() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for folder in (ROOT / "src/cumulet").rglob("*"):
        if folder.is_dir() and not folder.name.startswith("_") and folder.name != "migrations":
            assert f"{folder.name}/" in text, folder.name


def test_every_dependency_has_its_reason() -> None:
    import tomllib

    text = (ROOT / "docs/architecture.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for dependency in project["dependencies"]:
        package = dependency.split(">")[0].split("=")[0].split("[")[0]
        assert f"`{package}`" in text, package
