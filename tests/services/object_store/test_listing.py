"""Listings held against a plain reading of what they mean, for many small sets of names."""

import random
import sqlite3
from collections.abc import Iterable

import msgspec
import pytest

from cumulet.services.object_store.storage import container_rows
from cumulet.services.object_store.storage.listing import Source, Wanted, listing

SOURCE = Source("object", "policy = :policy AND deleted = 0", {"policy": 1}, "listed")


def _row(name: str, policy: int = 1, *, deleted: bool = False) -> tuple[object, ...]:
    listed = msgspec.json.encode({"name": name}).decode()
    return policy, deleted, name, "", "", "", 0, None, listed, 0


def _table(names: set[str], others: Iterable[str] = ()) -> sqlite3.Connection:
    """A container with names, and others that are deleted or of another policy."""
    conn = sqlite3.connect(":memory:")
    conn.executescript(container_rows.SCHEMA)
    rows = [_row(name) for name in names]
    rows += [_row(name, 0) for name in others] + [_row(name, deleted=True) for name in others]
    conn.executemany("INSERT INTO object VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    return conn


def _entries(conn: sqlite3.Connection, wanted: Wanted) -> list[str]:
    rows = msgspec.json.decode(listing(conn, SOURCE, wanted))
    return [row.get("name", row.get("subdir")) for row in rows]


def _listed(names: set[str], wanted: Wanted) -> list[str]:
    return _entries(_table(names), wanted)


def _plain(names: set[str], wanted: Wanted) -> list[str]:
    """What the listing should be, said as simply as possible."""
    prefix, delimiter = wanted.prefix, wanted.delimiter
    if wanted.path is not None:
        prefix, delimiter = (wanted.path.rstrip("/") + "/" if wanted.path else ""), "/"
    low, high = (wanted.end_marker, wanted.marker) if wanted.reverse else (wanted.marker, wanted.end_marker)
    result: list[str] = []
    for name in sorted(names, reverse=wanted.reverse):
        if not name.startswith(prefix) or name <= low or (high and name >= high):
            continue
        if not wanted.reserved and name < "\x01":
            continue
        end = name.find(delimiter, len(prefix)) if delimiter else -1
        if wanted.path is not None:
            if name == prefix or (end >= 0 and end + 1 < len(name)):
                continue
        elif end >= 0:
            name = name[: end + len(delimiter)]
            if name == low or name in result:
                continue
        result.append(name)
    return result[: wanted.limit]


LETTERS = [
    "ab/",
    "a/",
    "ab-/",
    "abc",
    "/",
    'a"\\\n/',
    "aé/\U0001f600",
    "a\ud7ff/",
    "a/\ue000\ud7ff\uffff\U00010000",
    "a/\x00b",
    "a/\x00\x01",
    "\x00/",
    "a\U0010ffff",
    "a/\U0010ffff",
    "\U0010ffff\U0010fffe",
    "/\x00\U0010ffff",
]
"""Of which names and delimiters are made: the last that there is and its neighbours, NUL, and what JSON escapes."""


class Asker:
    """What may be asked of names, by chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.letters = LETTERS[seed % len(LETTERS)]
        most = self.chance.choice([4, 7, 10])
        self.names = {self.word(most) for _ in range(self.chance.choice([3, 20, 60, 200]))} - {""}
        self.others = {self.word(7) + "!" for _ in range(5)}

    def word(self, most: int) -> str:
        return "".join(self.chance.choice(self.letters) for _ in range(self.chance.randrange(most)))

    def wanted(self) -> Wanted:
        chance, word = self.chance, self.word
        delimiter = chance.choice(["", "/", self.letters[0], self.letters[-1], word(3), word(4)])
        prefix = chance.choice(["", word(3), word(5), self.known("", delimiter)])
        return Wanted(
            prefix=prefix,
            delimiter=delimiter,
            marker=chance.choice(["", word(5), word(8), self.known(prefix, delimiter)]),
            end_marker=chance.choice(["", "", word(5), word(8), self.known(prefix, delimiter)]),
            path=chance.choice([None, None, None, None, "", word(3), word(4)]),
            reverse=chance.random() < 0.5,
            limit=chance.choice([0, 1, 2, 3, 5, 10, 10_000]),
            reserved=chance.random() < 0.5,
        )

    def known(self, prefix: str, delimiter: str) -> str:
        """A name, or the folder that it is in."""
        name = self.chance.choice(sorted(self.names) or ["none"])
        end = name.find(delimiter, len(prefix))
        return name if end < 0 or self.chance.random() < 0.5 else name[: end + len(delimiter)]


@pytest.mark.parametrize("seed", range(96))
def test_a_listing_is_what_it_should_be(seed: int) -> None:
    asker = Asker(seed)
    conn = _table(asker.names, asker.others)
    for _ in range(100):
        wanted = asker.wanted()
        assert _entries(conn, wanted) == _plain(asker.names, wanted), (wanted, sorted(asker.names))


def test_pages_by_marker_are_the_whole() -> None:
    names = {f"{folder}/{name}" for folder in "abc" for name in range(20)} | {"top", "x/"}
    for reverse in (False, True):
        whole, marker = [], ""
        while page := _listed(names, Wanted(delimiter="/", marker=marker, limit=2, reverse=reverse)):
            whole += page
            marker = page[-1]
        assert whole == _listed(names, Wanted(delimiter="/", reverse=reverse))


def _steps(names: set[str], wanted: Wanted) -> int:
    """How many steps SQLite takes."""
    conn = _table(names)
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    conn.set_progress_handler(step, 1)
    assert _entries(conn, wanted) == _plain(names, wanted)
    return count


def test_folders_are_passed_over_not_read() -> None:
    """The work of a folded listing grows with what it shows, not with what is in the folders."""

    def steps(size: int) -> int:
        return _steps({f"{folder}/{n:06d}" for folder in "abcdef" for n in range(size)}, Wanted(delimiter="/"))

    assert steps(2000) == steps(5)


@pytest.mark.parametrize("reverse", [False, True])
def test_names_in_no_folder_are_read_once_more_at_most(reverse: bool) -> None:
    names = {f"{n:06d}" for n in range(2000)}
    plain = _steps(names, Wanted(reverse=reverse))
    assert _steps(names, Wanted(delimiter="/", reverse=reverse)) < 3 * plain


@pytest.mark.parametrize("reverse", [False, True])
def test_no_more_is_looked_at_than_may_be_shown(reverse: bool) -> None:
    """A folder far behind the end of a listing is not looked for."""

    def steps(size: int) -> int:
        names = {"a/b", "z/b"} | {f"n{n:06d}" for n in range(size)}
        return _steps(names, Wanted(delimiter="/", limit=20, reverse=reverse))

    assert steps(2000) == steps(50)
