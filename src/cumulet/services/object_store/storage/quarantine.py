"""Where what is damaged is put: out of the way of requests and replicators, but not away."""

import contextlib
import os


def quarantine(directory: str, place: str) -> str:
    """Move a hash directory to the quarantine `place`; where it now is. What is not there any more is no error."""
    os.makedirs(place, exist_ok=True)
    name = os.path.basename(directory)
    target = f"{place}/{name}"
    if os.path.exists(target):
        target += f"-{os.urandom(8).hex()}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, target)
    return target
