"""Users with large objects and many: static and dynamic large objects, archives, bulk deletes, copies."""

import io
import tarfile
import time
from typing import Any

from tests.crash.object_disk import SOON
from tests.crash.object_users import User

JSON = {"Accept": "application/json"}


class Static(User):
    """Static large objects, deleted with their segments: at once or by the expirer."""

    box = "static"
    most = 4

    def prepare(self) -> None:
        self.objects: dict[str, list[bytes]] = {}
        self.gone: set[str] = set()
        self.good("PUT", self.box)
        self.good("PUT", f"{self.box}-parts")

    def act(self) -> None:
        if len(self.objects) < self.most and self.dice.random() < 0.6:
            self.begun = ("upload", f"o{next(self.turns)}", [self.data(30_000, 90_000) for _ in range(3)])
        elif self.objects:
            self.begun = ("delete", self.dice.choice(list(self.objects)), self.dice.random() < 0.4)
        else:
            return
        self.do(*self.begun)

    def do(self, what: str, name: str, more: Any) -> None:
        if what == "upload":
            etags = []
            for number, part in enumerate(more):
                etags.append(self.swift.put_object(f"{self.box}-parts", f"{name}/{number}", part))
            self.put_manifest(name, more, etags)
            self.objects[name] = more
        else:
            self.delete(name, later=more)
            self.objects.pop(name, None)
            self.gone.add(name)

    def put_manifest(self, name: str, parts: list[bytes], etags: list[str]) -> None:
        rows = [
            f'{{"path": "/{self.box}-parts/{name}/{number}", "etag": "{etag}", "size_bytes": {len(part)}}}'
            for number, (part, etag) in enumerate(zip(parts, etags, strict=True))
        ]
        manifest = f"[{', '.join(rows)}]".encode()
        self.swift.put_object(self.box, name, manifest, query_string="multipart-manifest=put")

    def delete(self, name: str, *, later: bool) -> None:
        if later:
            reply = self.call("DELETE", f"{self.box}/{name}?multipart-manifest=delete&async=yes")
            assert reply.status_code in (204, 404), reply.text
        else:
            reply = self.call("DELETE", f"{self.box}/{name}?multipart-manifest=delete", **JSON)
            told = reply.json()
            assert told["Response Status"] == "200 OK", told

    def check(self) -> None:
        what, of, more = (*self.begun, None, None, None)[:3]
        rows = {row["name"]: row["bytes"] for row in self.listed(self.box)}
        for name, parts in self.objects.items():
            if (what, of) != ("delete", name):  # else some of its segments may be gone
                assert self.good("GET", f"{self.box}/{name}").content == b"".join(parts), name
                assert rows[name] == self.size(parts)
        if what == "upload":
            for row in self.listed(f"{self.box}-parts", f"prefix={of}/"):
                number = int(row["name"].rpartition("/")[2])
                assert self.good("GET", f"{self.box}-parts/{row['name']}").content == more[number]
        assert not rows.keys() - self.objects.keys() - {of}, "nobody made these"
        if self.begun:
            self.do(*self.begun)
        for name in self.gone:
            assert self.call("GET", f"{self.box}/{name}").status_code == 404
        until = time.monotonic() + SOON
        while left := self.gone & {row["name"].partition("/")[0] for row in self.listed(f"{self.box}-parts")}:
            assert time.monotonic() < until, f"segments of what was deleted: {left}"  # by the expirer, for some
            time.sleep(0.1)

    def size(self, parts: list[bytes]) -> int:
        return sum(map(len, parts))


class Dynamic(Static):
    """Dynamic large objects. Their users delete the segments by themselves."""

    box = "dynamic"

    def put_manifest(self, name: str, parts: list[bytes], etags: list[str]) -> None:
        self.swift.put_object(self.box, name, b"", headers={"X-Object-Manifest": f"{self.box}-parts/{name}/"})

    def delete(self, name: str, *, later: bool) -> None:
        for place in (*(f"{self.box}-parts/{name}/{number}" for number in range(3)), f"{self.box}/{name}"):
            reply = self.call("DELETE", place)
            assert reply.status_code in (204, 404), reply.text

    def size(self, parts: list[bytes]) -> int:
        return 0


class Bulk(User):
    """Archives that become containers full of objects, and are deleted in one request, container and all."""

    files = 12

    def prepare(self) -> None:
        self.boxes: dict[str, dict[str, bytes]] = {}
        self.gone: set[str] = set()

    def act(self) -> None:
        if len(self.boxes) < 2 or (len(self.boxes) < 4 and self.dice.random() < 0.5):
            files = {f"f{number}": self.data(0, 500, 20_000) for number in range(self.files)}
            self.begun = ("upload", f"bulk-{next(self.turns)}", files)
        else:
            self.begun = ("delete", self.dice.choice(list(self.boxes)), None)
        self.do(*self.begun)

    def do(self, what: str, box: str, files: dict[str, bytes] | None) -> None:
        if files is not None:
            kind = self.dice.choice(("tar", "tar.gz", "tar.bz2"))
            told = self.call("PUT", f"?extract-archive={kind}", archive(box, files, kind), **JSON).json()
            assert told["Response Status"] == "201 Created", told
            assert told["Number Files Created"] == len(files)
            self.boxes[box] = files
        else:
            lines = [f"/{box}/f{number}" for number in range(self.files)]
            body = "\n".join([*lines, f"/{box}"]).encode()
            told = self.call("POST", "?bulk-delete", body, Content_Type="text/plain", **JSON).json()
            assert told["Response Status"] == "200 OK", told
            assert told["Number Deleted"] + told["Number Not Found"] == self.files + 1
            self.boxes.pop(box, None)
            self.gone.add(box)

    def check(self) -> None:
        there = {row["name"] for row in self.good("GET", "?format=json&prefix=bulk-").json()}
        what, of, more = (*self.begun, None, None, None)[:3]
        for box, files in {**self.boxes, **({of: more} if what == "upload" else {})}.items():
            rows = {row["name"] for row in self.listed(box)} if box in there else set()
            assert rows == files.keys() or (box == of and rows < files.keys()), f"{box}: {rows}"
            for name in rows:
                assert self.good("GET", f"{box}/{name}").content == files[name], f"{box}/{name}"
        assert there - {of} == self.boxes.keys() - {of}
        if self.begun:
            self.do(*self.begun)
        for box in self.gone:
            assert self.call("HEAD", box).status_code == 404, box
            assert self.call("GET", f"{box}/f0").status_code == 404, box


def archive(box: str, files: dict[str, bytes], kind: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=f"w:{kind.partition('.')[2]}") as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(f"{box}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


class Copies(User):
    """COPY, and PUT with X-Copy-From, of objects with metadata."""

    def prepare(self) -> None:
        self.sources = {f"from-{number}": self.data(0, 1000, 300_000) for number in range(4)}
        self.copied: dict[str, str] = {}
        self.good("PUT", "copies")
        self.good("PUT", "copies-to")
        for name, data in self.sources.items():
            self.good("PUT", f"copies/{name}", data, X_Object_Meta_Name=name)

    def act(self) -> None:
        self.begun = (f"to-{self.dice.randrange(5)}", self.dice.choice(list(self.sources)))
        self.do(*self.begun)

    def do(self, to: str, source: str) -> None:
        if self.dice.random() < 0.5:
            self.good("COPY", f"copies/{source}", Destination=f"copies-to/{to}")
        else:
            self.good("PUT", f"copies-to/{to}", X_Copy_From=f"copies/{source}")
        self.copied[to] = source

    def check(self) -> None:
        rows = {row["name"] for row in self.listed("copies-to")}
        may = {to: {source} for to, source in self.copied.items()}
        if self.begun:
            may.setdefault(self.begun[0], {""}).add(self.begun[1])
        for to, sources in may.items():
            reply = self.call("GET", f"copies-to/{to}")
            source = reply.headers.get("X-Object-Meta-Name", "")
            assert source in sources, f"{to} is of {source!r}, may be of {sources}"
            assert not source or reply.content == self.sources[source]
            assert (to in rows) == bool(source)
        if self.begun:
            self.do(*self.begun)
