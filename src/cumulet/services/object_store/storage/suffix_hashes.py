"""What a partition holds, in short: a hash for each suffix directory, so that two copies can be compared by a few kilobytes.

`hashes.json` in the partition's directory holds what was reckoned last, `hashes.invalid` the suffixes in which something was
changed since. A partition without `hashes.json` was never compared with another copy, and its changes are not noted.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from hashlib import md5

import msgspec

from cumulet.services.object_store.storage import object_file
from cumulet.services.object_store.storage.object_file import ZERO, stamp

HASHES = "hashes.json"
INVALID = "hashes.invalid"
LEFT_OVER = 86400
"""Seconds after which a file that rsync did not finish is taken away."""

Hashes = dict[str, str]

encode = msgspec.json.Encoder(order="sorted").encode
decode = msgspec.json.Decoder(Hashes).decode

_compared: dict[str, bool] = {}
"""Whether partitions have hashes: only this process makes them."""
_locks = [threading.Lock() for _ in range(64)]


def _lock(partition: str) -> threading.Lock:
    return _locks[hash(partition) % len(_locks)]


def invalidate(partition: str, suffix: str) -> None:
    """Something has changed in a suffix directory of a partition's directory."""
    if _is_compared(partition):
        with _lock(partition), open(f"{partition}/{INVALID}", "ab") as file:
            file.write(f"{suffix}\n".encode())


def is_noted(directory: str) -> bool:
    """Whether `changed` has anything to do: to be asked when something has changed in a hash directory, not before."""
    return _is_compared(os.path.dirname(os.path.dirname(directory)))


def _is_compared(partition: str) -> bool:
    compared = _compared.get(partition)
    if compared is None:
        compared = _compared.setdefault(partition, os.path.exists(f"{partition}/{HASHES}"))
    return compared


def changed(directory: str) -> None:
    """Something has changed in a hash directory."""
    suffix = os.path.dirname(directory)
    invalidate(os.path.dirname(suffix), os.path.basename(suffix))


def hashes(partition: str, again: tuple[str, ...] = ()) -> Hashes:
    """The hash of each suffix of a partition that holds anything; `again` are reckoned anew in any case."""
    path = f"{partition}/{HASHES}"
    os.makedirs(partition, exist_ok=True)
    with _lock(partition):
        _compared[partition] = True
        known = _known(path)
        if known is None:  # from now on changes are noted
            known = {}
            write_atomic_at(path, encode(known))
        invalid = set(_invalid(partition)) | set(again)
        for suffix in invalid:
            known.pop(suffix, None)
        if invalid:
            write_atomic_at(path, encode(known))
            unlink(f"{partition}/{INVALID}")
    there = suffixes(partition)
    fresh = {suffix: told for suffix, told in known.items() if suffix in there}
    for suffix in there:
        if suffix not in fresh and (told := suffix_hash(f"{partition}/{suffix}")):
            fresh[suffix] = told
    if fresh != known:
        with _lock(partition):
            write_atomic_at(path, encode({s: told for s, told in fresh.items() if s not in _invalid(partition)}))
    return fresh


def forget(partition: str) -> None:
    """A partition is not compared any more."""
    with _lock(partition):
        for name in (HASHES, INVALID):
            unlink(f"{partition}/{name}")
        _compared.pop(partition, None)


def suffixes(partition: str) -> set[str]:
    """The suffix directories of a partition."""
    try:
        return {name for name in os.listdir(partition) if len(name) == 3}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def suffix_hash(suffix: str) -> str:
    """The hash over the names of all that counts in a suffix directory; "" where there is nothing. What is obsolete goes."""
    digest = md5(usedforsecurity=False)
    empty = True
    for directory in sorted(listed(suffix)):
        files = object_file.choose(listed(f"{suffix}/{directory}"))
        for name in files.obsolete:
            unlink(f"{suffix}/{directory}/{name}")
        for name in (files.data, files.content_type, files.meta, files.tombstone):
            if name:
                empty = False
                digest.update(f"{directory}/{name}\n".encode())
    return "" if empty else digest.hexdigest()


def sync(suffix: str) -> None:
    """Have the disk keep the names in a suffix directory, which another program has written."""
    for directory in [*(f"{suffix}/{name}" for name in listed(suffix)), suffix]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            object_file.sync_directory(directory)


def hash_directories(partition: str) -> Iterator[str]:
    """The hash directories of a partition."""
    for suffix in sorted(suffixes(partition)):
        for name in sorted(listed(f"{partition}/{suffix}")):
            yield f"{partition}/{suffix}/{name}"


def reclaim(directory: str, age: float) -> bool:
    """Take away what a hash directory need not remember any more: tombstones older than `age` seconds, metadata of data that
    never came, what rsync left. An empty directory goes too. Whether something counted that is gone now."""
    names = listed(directory)
    before = time.time() - age
    files = object_file.choose(names)
    gone = list(files.obsolete)
    counted = False
    if files.tombstone and stamp(files.tombstone).seconds < before:
        gone.append(files.tombstone)
        counted = True
    if not files.data and files.meta and stamp(files.meta) > ZERO and stamp(files.meta).seconds < before:
        gone += [name for name in (files.meta, files.content_type) if name]
        counted = True
    gone += [name for name in names if name.startswith(".") and _age(f"{directory}/{name}") > LEFT_OVER]
    for name in gone:
        unlink(f"{directory}/{name}")
    if len(gone) >= len(names):
        remove_empty(directory)
    return counted


def remove_empty(directory: str) -> None:
    """A hash directory and its suffix directory, if there is nothing in them."""
    remove_directory(directory)
    remove_directory(os.path.dirname(directory))


def remove_directory(directory: str) -> None:
    """A directory, if there is nothing in it."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def unlink(path: str) -> None:
    """A file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def write_atomic_at(path: str, data: bytes) -> None:
    """Replace a file in one step. It can be reckoned anew, so nothing waits for the disk."""
    temporary = f"{path}.new"
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def _known(path: str) -> Hashes | None:
    try:
        with open(path, "rb") as file:
            return decode(file.read())
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:  # a power cut tore it: reckon all of it anew
        return {}


def _invalid(partition: str) -> list[str]:
    try:
        with open(f"{partition}/{INVALID}") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def listed(directory: str) -> list[str]:
    """What is in a directory; nothing, where it is not there."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _age(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0
