"""The config drive: a small ISO 9660 file system with the label `config-2` that holds a server's instance data."""

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from .. import HypervisorError
from .disk import run

LABEL = "config-2"


def write(file: Path, contents: Mapping[str, bytes]) -> None:
    """Make `file` anew with `contents` (path in the drive -> bytes). Blocking; the old file stays until the new is whole."""
    work = file.with_suffix(".folder")  # always the same: what a crash left of it goes with the next try
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        _fill(file, work, contents)
    finally:
        shutil.rmtree(work)


def _fill(file: Path, folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, data in contents.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise HypervisorError(f"the config drive cannot hold a file named {name!r}")
        target = Path(folder, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    new = file.with_suffix(".new")
    run(*_command(), "-quiet", "-R", "-J", "-l", "-V", LABEL, "-o", str(new), str(folder), package="genisoimage")
    new.rename(file)


def _command() -> tuple[str, ...]:
    if shutil.which("genisoimage") is None and shutil.which("xorriso") is not None:
        return ("xorriso", "-as", "mkisofs")
    return ("genisoimage",)
