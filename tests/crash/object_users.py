"""Users of object storage who work until the cloud is killed under them, and who know what they were promised.

Each has an area of his own, so that what he finds afterwards is his own doing. What was on its way when the cloud was killed is
done again: it may have been done or not, or halfway, but it must be possible to bring it to its end.
"""

import itertools
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import requests
import swiftclient.client

from tests.cloud import ProcessCloud
from tests.crash.killing import Together


@dataclass
class Site:
    """A cloud, and who works in it: the owner of an account, and his key for S3."""

    cloud: ProcessCloud
    key: dict[str, Any] = field(default_factory=dict)
    account: str = ""
    token: str = ""

    def log_in(self) -> None:
        connection = self.cloud.connect("cumulet-demo")
        self.token, self.account = connection.auth_token or "", f"AUTH_{connection.current_project_id}"
        if not self.key:
            path = f"/users/{connection.current_user_id}/credentials/OS-EC2"
            made: Any = connection.identity.post(path, json={"tenant_id": connection.current_project_id})
            self.key = made.json()["credential"]

    @property
    def url(self) -> str:
        return f"{self.cloud.url('object-store')}/v1/{self.account}"


class User:
    """One who works in an area of his own. Subclasses say what he does (`act`), and what he looks at (`check`)."""

    def __init__(self, site: Site, seed: str) -> None:
        self.site = site
        self.dice = random.Random(f"{seed} {type(self).__name__}")
        self.turns = itertools.count(1)
        self.done = 0
        self.begun: tuple[Any, ...] = ()
        """What is on its way: as `promise` and `again` of the subclass understand it."""
        self.renew()

    def renew(self) -> None:
        """New connections, with the token of today."""
        self.session = requests.Session()
        self.session.headers["X-Auth-Token"] = self.site.token
        self.swift = swiftclient.client.Connection(
            preauthurl=self.site.url, preauthtoken=self.site.token, retries=0, retry_on_ratelimit=False
        )

    def leave(self) -> None:
        """Close all connections: their ports may be those that the next start listens at."""
        self.session.close()
        self.swift.close()

    def call(self, method: str, path: str = "", data: Any = b"", **headers: Any) -> requests.Response:
        told = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        url = f"{self.site.url}/{path}" if path else self.site.url
        return self.session.request(method, url, data=data, headers=told, timeout=60)

    def good(self, method: str, path: str = "", data: Any = b"", **headers: Any) -> requests.Response:
        reply = self.call(method, path, data, **headers)
        assert reply.ok, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply

    def listed(self, container: str, query: str = "") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.good("GET", f"{container}?format=json&{query}").json()
        return rows

    def data(self, *sizes: int) -> bytes:
        """Data that nothing else is."""
        size = self.dice.choice(sizes or (0, 100, 70_000, 300_000))
        return b"%s %d " % (type(self).__name__.encode(), next(self.turns)) + os.urandom(size)

    def prepare(self) -> None:
        """Make what the area consists of."""

    def act(self) -> None:
        """Do one thing."""
        raise NotImplementedError

    def check(self) -> None:
        """Look at everything, and bring to its end what was on its way."""
        raise NotImplementedError

    def look_at_all(self) -> None:
        self.check()
        self.begun = ()

    def work(self) -> None:
        """Go on until there is nobody to talk to any more."""
        while True:
            self.act()
            self.begun = ()
            self.done += 1


def all_at_once(users: list[User], work: Callable[[User], None]) -> None:
    """Have all users do something; what one of them finds wrong is raised."""
    Together([partial(work, user) for user in users]).wait()
