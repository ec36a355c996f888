"""Users of containers, accounts, quotas, and of objects that go by themselves."""

import time
from pathlib import Path
from typing import Any

from tests.crash.object_disk import SOON, read_objects
from tests.crash.object_users import User


class Boxes(User):
    """Containers that are made, filled, emptied and deleted."""

    def prepare(self) -> None:
        self.boxes: dict[str, set[str]] = {}

    def act(self) -> None:
        box, object = f"box-{self.dice.randrange(4)}", f"o{self.dice.randrange(2)}"
        if box not in self.boxes:
            self.begun = ("make", box, "")
        elif not self.boxes[box]:
            self.begun = ("delete", box, "") if self.dice.random() < 0.5 else ("fill", box, object)
        else:
            self.begun = ("empty" if self.dice.random() < 0.7 else "fill", box, object)
        self.do(*self.begun)

    def do(self, what: str, box: str, object: str) -> None:
        method = "PUT" if what in ("make", "fill") else "DELETE"
        reply = self.call(method, f"{box}/{object}" if object else box, box.encode() if what == "fill" else b"")
        assert reply.status_code in ((201, 202) if method == "PUT" else (204, 404)), f"{what} {box}: {reply.text}"
        if what == "delete":
            self.boxes.pop(box, None)
        elif what == "make":
            self.boxes[box] = set()
        elif what == "fill":
            self.boxes[box].add(object)
        else:
            self.boxes[box].discard(object)

    def check(self) -> None:
        what, of, object = (*self.begun, None, None, None)[:3]
        there = {row["name"]: row["count"] for row in self.good("GET", "?format=json&prefix=box-").json()}
        for box in {*self.boxes, *there, *([of] if of else [])}:
            assert (self.call("HEAD", box).status_code == 204) == (box in there), box
            if box not in there:
                assert box not in self.boxes or (what, of) == ("delete", box), f"lost: {box}"
                continue
            assert box in self.boxes or (what, of) == ("make", box), f"deleted and back: {box}"
            rows = {row["name"] for row in self.listed(box)}
            may = {object} if of == box and what in ("fill", "empty") else set()
            assert rows - may == self.boxes.get(box, set()) - may, f"{box}: {rows}"
            assert there[box] == len(rows)
            assert all(self.good("GET", f"{box}/{name}").content == box.encode() for name in rows)
            assert all(self.call("GET", f"{box}/o{n}").status_code == 404 for n in range(2) if f"o{n}" not in rows)
        if self.begun:
            self.do(*self.begun)


class Quotas(User):
    """Containers with a quota, which are always nearly full."""

    limits = ({"X_Container_Meta_Quota_Count": "4"}, {"X_Container_Meta_Quota_Bytes": "450"})
    most = 4
    data_of_one = b"x" * 100

    def prepare(self) -> None:
        self.there: dict[str, set[str]] = {}
        for number, limit in enumerate(self.limits):
            self.good("PUT", f"quota-{number}", **limit)
            self.there[f"quota-{number}"] = set()

    def act(self) -> None:
        box = f"quota-{self.dice.randrange(len(self.limits))}"
        if self.there[box] and self.dice.random() < 0.4:
            self.begun = ("delete", box, self.dice.choice(sorted(self.there[box])))
        else:
            self.begun = ("put", box, f"o{next(self.turns)}")
        self.do(*self.begun)

    def do(self, what: str, box: str, name: str) -> None:
        if what == "put":
            reply = self.call("PUT", f"{box}/{name}", self.data_of_one)
            full = len(self.there[box]) >= self.most  # whoever puts a name again counts it twice, as upstream does
            assert reply.status_code == (413 if full else 201), f"{box} holds {self.there[box]}: {reply.status_code}"
            self.there[box] |= set() if full else {name}
        else:
            reply = self.call("DELETE", f"{box}/{name}")
            assert reply.status_code in (204, 404), reply.text
            self.there[box].discard(name)

    def check(self) -> None:
        _, of, name = self.begun or (None, None, None)
        for box, known in self.there.items():
            rows = {row["name"] for row in self.listed(box)}
            may = {name} if of == box else set()
            assert rows - may == known - may, f"{box}: {rows}"
            told = self.good("HEAD", box).headers
            assert int(told["X-Container-Object-Count"]) == len(rows)
            assert int(told["X-Container-Bytes-Used"]) == len(rows) * len(self.data_of_one)
            self.there[box] = rows
        if self.begun:
            self.do(*self.begun)


class Expiring(User):
    """Objects that go at a time, whose time is changed, or that stay after all. `ends` is 0 for never."""

    def prepare(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.good("PUT", "expiring")

    def act(self) -> None:
        alive = [name for name, (_, ends) in self.objects.items() if not ends or ends > time.time() + 60]
        if alive and self.dice.random() < 0.4:
            name = self.dice.choice(alive)
            self.begun = ("post", name, self.objects[name][0], self.ends())
        elif alive and self.dice.random() < 0.2:
            self.begun = ("delete", self.dice.choice(alive), b"", 0)
        else:
            self.begun = ("put", f"o{next(self.turns)}", self.data(10, 2000), self.ends())
        self.do(*self.begun)

    def ends(self) -> int:
        return self.dice.choice((0, int(time.time()) + 2, int(time.time()) + 3, int(time.time()) + 7200))

    def do(self, what: str, name: str, data: bytes, ends: int) -> None:
        if what == "delete":
            reply = self.call("DELETE", f"expiring/{name}")
            assert reply.status_code in (204, 404), reply.text
            self.objects.pop(name, None)
            return
        soon = 0 < ends < time.time() + 60  # told as seconds from its arrival, however late that is
        told = {"X_Delete_After": "2"} if soon else {"X_Delete_At": str(ends)} if ends else {}
        if what == "put":
            self.good("PUT", f"expiring/{name}", data, **told)
        else:
            self.good("POST", f"expiring/{name}", **told)
        self.objects[name] = (data, ends)

    def check(self) -> None:
        what, of, data, ends = (*self.begun, None, None, None, None)[:4]
        if what == "delete":
            self.do("delete", of, b"", 0)
        elif what is not None:  # again, with a time that is not over yet
            reply = self.call("GET", f"expiring/{of}")
            assert reply.status_code == 404 or reply.content == data
            if what == "put" or reply.ok:
                self.do(what, of, data, int(time.time()) + 2 if ends else 0)
            else:
                self.objects.pop(of)
        last = max((ends for _, ends in self.objects.values() if ends < time.time() + 60), default=0)
        wanted = {name for name, (_, ends) in self.objects.items() if not ends or ends > time.time() + 60}
        until = max(time.time(), last) + SOON
        while (rows := {row["name"] for row in self.listed("expiring")}) != wanted:
            assert not wanted - rows, f"gone too early: {wanted - rows}"
            assert time.time() < until, f"still listed: {rows - wanted}"
            time.sleep(0.1)
        for name, (data, _) in list(self.objects.items()):
            reply = self.call("GET", f"expiring/{name}")
            if name in wanted:
                assert reply.content == data, name
            else:
                assert reply.status_code == 404, name
                del self.objects[name]


class Accounts(User):
    """Whole accounts that an administrator makes and deletes, with all that is in them."""

    def prepare(self) -> None:
        self.account = ""
        self.gone: set[str] = set()

    def renew(self) -> None:
        super().renew()
        self.session.headers["X-Auth-Token"] = self.site.cloud.token()

    def of(self, account: str, method: str, path: str = "", data: bytes = b"") -> Any:
        url = f"{self.site.cloud.url('object-store')}/v1/{account}{path}"
        return self.session.request(method, url, data=data, timeout=60)

    def act(self) -> None:
        account = f"AUTH_crash-{next(self.turns)}"
        self.begun = ("fill", account)
        assert self.of(account, "PUT").status_code == 201
        for box in ("a", "b"):
            assert self.of(account, "PUT", f"/{box}").status_code == 201
            for number in range(4):
                assert self.of(account, "PUT", f"/{box}/o{number}", self.data(10, 3000)).status_code == 201
        self.begun = ("delete", account)
        assert self.of(account, "DELETE").status_code == 204
        self.gone.add(account)

    def check(self) -> None:
        if self.begun:
            reply = self.of(self.begun[1], "DELETE")
            assert reply.status_code in (204, 404, 410), reply.text
            if reply.status_code != 404:  # that was not made yet
                self.gone.add(self.begun[1])
        device = Path(self.site.cloud.data) / "object-store/devices/d1"
        until = time.time() + SOON
        while left := {account for account, _, _ in read_objects(device)} & self.gone:
            assert time.time() < until, f"objects of deleted accounts: {left}"
            time.sleep(0.2)
        for account in self.gone:
            assert self.of(account, "GET").status_code in (404, 410)
            assert self.of(account, "GET", "/a/o0").status_code == 404
