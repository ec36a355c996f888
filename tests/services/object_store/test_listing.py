"""Listings held against a plain reading of what they mean, for many small sets of names."""

import random
import sqlite3

import msgspec
import pytest

from cumulet.services.object_store.storage.listing import Source, Wanted, after, listing

SOURCE = Source("object", "deleted = ?", (0,), "json_object('name', name)")


def _table(names: set[str]) -> sqlite3.Connection:
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE TABLE object (name TEXT PRIMARY KEY, deleted INTEGER)")
    conn.executemany("INSERT INTO object VALUES (?, 0)", [(name,) for name in names])
    return conn


def _listed(names: set[str], wanted: Wanted) -> list[str]:
    rows = msgspec.json.decode(listing(_table(names), SOURCE, wanted))
    return [row.get("name", row.get("subdir")) for row in rows]


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


@pytest.mark.parametrize("seed", range(60))
def test_a_listing_is_what_it_should_be(seed: int) -> None:
    chance = random.Random(seed)
    letters = chance.choice(["ab/", "a/", "ab-/", "aé/\U0001f600", "a\ud7ff/", "a/\x00b"])

    def word(most: int) -> str:
        return "".join(chance.choice(letters) for _ in range(chance.randrange(most)))

    names = {word(7) for _ in range(chance.randrange(60))} - {""}
    for _ in range(60):
        wanted = Wanted(
            prefix=word(3),
            delimiter=chance.choice(["", "/", "/", "a", "a/", "//"]),
            marker=chance.choice(["", word(5)]),
            end_marker=chance.choice(["", "", word(5)]),
            path=chance.choice([None, None, None, "", word(3)]),
            reverse=chance.random() < 0.5,
            limit=chance.choice([1, 2, 3, 10_000]),
            reserved=chance.random() < 0.5,
        )
        assert _listed(names, wanted) == _plain(names, wanted), (wanted, sorted(names))


def test_what_comes_after_a_prefix() -> None:
    assert after("ab") == "ac"
    assert after("a\U0010ffff") == "b"
    assert after("\U0010ffff") is None
    assert after("\ud7ff") == "\ue000"


def test_pages_by_marker_are_the_whole() -> None:
    names = {f"{folder}/{name}" for folder in "abc" for name in range(20)} | {"top", "x/"}
    for reverse in (False, True):
        whole, marker = [], ""
        while page := _listed(names, Wanted(delimiter="/", marker=marker, limit=2, reverse=reverse)):
            whole += page
            marker = page[-1]
        assert whole == _listed(names, Wanted(delimiter="/", reverse=reverse))


def test_folders_are_passed_over_not_read() -> None:
    """The work of a folded listing grows with what it shows, not with what is in the folders."""

    def steps(size: int) -> int:
        conn = _table({f"{folder}/{n:06d}" for folder in "abcdef" for n in range(size)})
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        conn.set_progress_handler(step, 1)
        assert len(msgspec.json.decode(listing(conn, SOURCE, Wanted(delimiter="/")))) == 6
        return count

    assert steps(5000) == steps(5)
