"""Metadata definitions from an operator's files, one namespace each, in upstream's form.

The form is the body of POST /v2/metadefs/namespaces. Files are only read for namespaces that are not there, so what people
changed stays changed.
"""

import asyncio
from pathlib import Path

from sqlalchemy import Connection

from cumulet.config import SettingsError
from cumulet.core import db
from cumulet.core.errors import CloudError
from cumulet.core.kernel import Kernel
from cumulet.services.image.metadef import Namespace
from cumulet.services.image.metadef_namespace import Whole, read_whole, store

OWNER = "admin"
"""Whose the namespaces are for which the files name nobody, as upstream has it."""


async def load_metadefs(kernel: Kernel, directory: Path) -> int:
    """Make the namespaces of the files that are missing; how many there were. SettingsError names a file that is wrong."""
    return await kernel.db.run(_store_missing, await asyncio.to_thread(_read, directory))


def _read(directory: Path) -> list[Whole]:
    found = []
    for file in sorted(directory.glob("*.json")):
        try:
            found.append(read_whole(Namespace.decode("create", file.read_bytes()), OWNER))
        except (OSError, CloudError) as error:
            raise SettingsError(f"`image_metadefs`: the file {file} cannot be used: {error}") from error
    return found


def _store_missing(tx: Connection, wanted: list[Whole]) -> int:
    there = {namespace.namespace for namespace in db.find(tx, Namespace)}
    missing = [whole for whole in wanted if whole.namespace.namespace not in there]
    for whole in missing:
        store(tx, whole)
    return len(missing)
