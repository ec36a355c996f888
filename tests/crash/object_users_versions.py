"""Users who keep what they overwrite: with X-Versions-Enabled, X-Versions-Location and X-History-Location."""

from typing import Any
from urllib.parse import quote

from tests.crash.object_users import User

NAMES = ("a", "b", "c", "with/slash")
DELETED = "application/x-deleted;swift_versions_deleted=1"


class Versioned(User):
    """X-Versions-Enabled. `versions` are by name and id, their data or None for the mark of a delete."""

    def prepare(self) -> None:
        self.versions: dict[tuple[str, str], bytes | None] = {}
        self.current: dict[str, str] = {}
        self.removed: set[tuple[str, str]] = set()
        self.good("PUT", "versioned", X_Versions_Enabled="true")

    def act(self) -> None:
        name, what = self.dice.choice(NAMES), self.dice.random()
        there = [each for (of, each), data in self.versions.items() if of == name and data is not None]
        if what < 0.5 or not there:
            self.begun = ("put", name, self.data())
        elif what < 0.65:
            self.begun = ("delete", name)
        elif what < 0.85:
            self.begun = ("remove", name, self.dice.choice(there))
        else:
            self.begun = ("restore", name, self.dice.choice(there))
        self.do(*self.begun)

    def do(self, what: str, name: str, more: Any = None) -> None:
        place = f"versioned/{quote(name)}"
        if what == "put":
            version = self.good("PUT", place, more).headers["X-Object-Version-Id"]
            self.versions[name, version] = more
            self.current[name] = version
        elif what == "delete":
            reply = self.call("DELETE", place)
            assert reply.status_code in (204, 404), reply.text
            self.versions[name, reply.headers["X-Object-Version-Id"]] = None
            self.current.pop(name, None)
        elif what == "remove":
            reply = self.call("DELETE", f"{place}?version-id={more}")
            assert reply.status_code in (204, 404), reply.text
            self.removed.add((name, more))
            self.versions.pop((name, more), None)
            if self.current.get(name) == more:
                del self.current[name]
        else:
            reply = self.call("PUT", f"{place}?version-id={more}")
            assert reply.ok, reply.text
            self.current[name] = more

    def check(self) -> None:
        rows = {(row["name"], row["version_id"]): row for row in self.listed("versioned", "versions=true")}
        what, of, more = (*self.begun, None, None, None)[:3]
        found: dict[tuple[str, str], bytes | None] = {}
        for (name, version), row in rows.items():
            reply = self.call("GET", f"versioned/{quote(name)}?version-id={version}")
            marks = row["content_type"] == DELETED
            assert reply.status_code == (404 if marks else 200), f"{name} {version}: {reply.status_code} {reply.text}"
            found[name, version] = None if marks else reply.content
            assert marks or len(reply.content) == row["bytes"]
        for key, data in self.versions.items():
            if (what, of, more) != ("remove", *key):
                assert key in found, f"lost: {key}"
            assert found.get(key, data) == data, f"another: {key}"
        assert not self.removed & found.keys(), "deleted and back"
        for key in found.keys() - self.versions.keys():
            assert (what, of) in (("put", key[0]), ("delete", key[0])), f"nobody made {key}"
            assert found[key] == (more if what == "put" else None), f"torn: {key}"
        self._check_current(found, what, of, more)
        self.versions = found
        if self.begun:
            self.do(*self.begun)

    def _check_current(self, found: dict[tuple[str, str], bytes | None], what: Any, of: Any, more: Any) -> None:
        rows = {row["name"]: row for row in self.listed("versioned")}
        for name in NAMES:
            reply = self.call("GET", f"versioned/{quote(name)}")
            version = reply.headers["X-Object-Version-Id"] if reply.ok else ""
            may = {self.current.get(name, "")}
            if what in ("delete", "remove") and of == name:
                may.add("")
            if what == "restore" and of == name:
                may.add(more)
            if what == "put" and of == name and version not in may:
                assert reply.content == more
                may.add(version)
            assert version in may, f"{name} is of {version}, may be of {may}"
            assert not version or reply.content == found[name, version]
            assert (name in rows) == bool(version), f"{name} and its listing"
            self.current[name] = version
        self.current = {name: version for name, version in self.current.items() if version}


class Stack(User):
    """X-Versions-Location: a DELETE brings back what was there before. `archive` is what was carried away, the last at the
    end; marks of deletes are passed over."""

    header = "X_Versions_Location"

    def prepare(self) -> None:
        self.box = type(self).__name__.lower()
        self.current: dict[str, bytes | None] = dict.fromkeys(NAMES)
        self.archive: dict[str, list[bytes]] = {name: [] for name in NAMES}
        self.good("PUT", f"{self.box}-archive")
        self.good("PUT", self.box, **{self.header: f"{self.box}-archive"})

    def act(self) -> None:
        name = self.dice.choice(NAMES)
        self.begun = ("delete", name) if self.dice.random() < 0.3 else ("put", name, self.data())
        self.do(*self.begun)
        self.current[name], self.archive[name] = self.after(*self.begun)

    def do(self, what: str, name: str, data: bytes = b"") -> None:
        if what == "put":
            self.good("PUT", f"{self.box}/{quote(name)}", data)
        else:
            reply = self.call("DELETE", f"{self.box}/{quote(name)}")
            assert reply.status_code in (204, 404), reply.text

    def after(self, what: str, name: str, data: bytes | None = None) -> tuple[bytes | None, list[bytes]]:
        """What is there, and in the archive, once something has been done."""
        now, before = self.current[name], self.archive[name]
        if what == "put":
            return data, [*before, now] if now is not None else before
        return self.after_delete(now, before)

    def after_delete(self, now: bytes | None, before: list[bytes]) -> tuple[bytes | None, list[bytes]]:
        return (before[-1], before[:-1]) if before else (None, before)

    def halfway(self, what: str, name: str, data: bytes | None = None) -> list[tuple[bytes | None, list[bytes]]]:
        """What may be there while something is done."""
        now, before = self.current[name], self.archive[name]
        if what == "put":
            return [(now, before if now is None else [*before, now])]
        return [(before[-1], before)] if before else []

    def look(self, name: str) -> tuple[bytes | None, list[bytes]]:
        prefix = f"{len(name):03x}{name}/"
        archived = []
        for row in self.listed(f"{self.box}-archive", f"prefix={quote(prefix)}"):
            reply = self.good("GET", f"{self.box}-archive/{quote(row['name'])}")
            assert len(reply.content) == row["bytes"]
            if row["content_type"] != DELETED:
                archived.append(reply.content)
        reply = self.call("GET", f"{self.box}/{quote(name)}")
        assert reply.status_code in (200, 404), reply.text
        return reply.content if reply.ok else None, archived

    def check(self) -> None:
        for name in NAMES:
            known = (self.current[name], self.archive[name])
            found = self.look(name)
            if self.begun and self.begun[1] == name:
                end = self.after(*self.begun)
                assert found in (known, end, *self.halfway(*self.begun)), f"{self.begun[0]} {name}: {found}"
                if found != end:
                    self.do(*self.begun)
                    assert self.look(name) == end, f"{self.begun[0]} {name} again"
                self.current[name], self.archive[name] = end
            else:
                assert found == known, f"{name}: {found}, was {known}"


class History(Stack):
    """X-History-Location: what a DELETE takes away is kept as well."""

    header = "X_History_Location"

    def after_delete(self, now: bytes | None, before: list[bytes]) -> tuple[bytes | None, list[bytes]]:
        return None, before if now is None else [*before, now]

    def halfway(self, what: str, name: str, data: bytes | None = None) -> list[tuple[bytes | None, list[bytes]]]:
        now, before = self.current[name], self.archive[name]
        return [] if now is None else [(now, [*before, now])]
