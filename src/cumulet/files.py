"""Files that are either wholly there or not at all."""

import os
from pathlib import Path


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Replace `path` in one step; a reader, or a crash, meets the old content or the new, never half of it."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(
        f".{path.name}.new"
    )  # always the same: what a crash leaves is taken over by the next try
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)  # the umask, or a left-over file, may have given another one
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
