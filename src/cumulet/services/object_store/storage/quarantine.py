"""Where what is damaged is put: out of the way of requests and replicators, but not away."""

import contextlib
import os

from cumulet.services.object_store.storage.object_file import Torn, choose


def quarantine(directory: str, place: str, torn: Torn | None = None) -> bool:
    """Move a hash directory to the quarantine `place`; what is not there any more is no error. Where one file of it is `torn`
    and what it was to replace is still there, a power cut came before anybody was promised it: only that file is moved then,
    and True says that there is an object still."""
    name = os.path.basename(directory)
    os.makedirs(place, exist_ok=True)
    target = f"{place}/{name}"
    if os.path.exists(target):
        target += f"-{os.urandom(8).hex()}"
    alone = torn is not None and _is_one_of_several(directory, torn)
    with contextlib.suppress(FileNotFoundError):
        if torn is not None and alone:
            os.mkdir(target)
            os.rename(torn.path, f"{target}/{os.path.basename(torn.path)}")
        else:
            os.rename(directory, target)
    return alone


def _is_one_of_several(directory: str, torn: Torn) -> bool:
    try:
        rest = choose([name for name in os.listdir(directory) if name != os.path.basename(torn.path)])
    except FileNotFoundError:
        return False
    return bool(rest.data or rest.tombstone)
