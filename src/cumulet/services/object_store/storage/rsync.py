"""rsync, which brings files to other nodes: its daemon there has one module for each kind of storage (`object`, `container`,
`account`), which holds the devices.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Sequence

from cumulet.services.object_store.node import Device

log = logging.getLogger("cumulet.object_store.rsync")

PATIENCE = 30
"""Seconds without any progress after which it gives up."""
UNFINISHED = ".*." + "[0-9a-zA-Z]" * 6
"""Names of files that rsync has not finished."""
PER_CALL = 500
"""Directories that are named in one command."""


class Rsync:
    """Pushes below the devices of other nodes, to the module of one kind."""

    def __init__(self, module: str, port: int) -> None:
        self.module = module
        self.port = port
        self.missing = False

    async def push(self, directory: str, names: Sequence[str], place: Device, target: str, local: str | None) -> bool:
        """Bring what is in `names` of a directory to the directory `target` of a device, that of this node at the path
        `local`. Whole files that are there already stay as they are. False, and a line in the log, if it failed."""
        if shutil.which("rsync") is None:
            if not self.missing:
                log.error("objects cannot be replicated: the program rsync is not there")
            self.missing = True
            return False
        address = place.replication_address or place.address
        host = f"[{address}]" if ":" in address else address
        to = f"{local}/{target}/" if local else f"rsync://{host}:{self.port}/{self.module}/{place.name}/{target}/"
        for start in range(0, len(names), PER_CALL):
            if not await _run(directory, names[start : start + PER_CALL], to, remote=local is None):
                return False
        return True


async def _run(directory: str, names: Sequence[str], to: str, *, remote: bool) -> bool:
    options = ["--recursive", "--whole-file", "--ignore-existing", "--fsync", f"--timeout={PATIENCE}"]
    if remote:
        options.append(f"--contimeout={PATIENCE}")
    process = await asyncio.create_subprocess_exec(
        "rsync",
        *options,
        f"--exclude={UNFINISHED}",
        "--",
        *names,
        to,
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if (
        process.returncode == 24
    ):  # files vanished that have been replaced meanwhile: the next round brings what came then
        return True
    if process.returncode:
        log.warning("rsync to %s failed (%d): %s", to, process.returncode, said.decode(errors="replace").strip()[-500:])
    return process.returncode == 0
