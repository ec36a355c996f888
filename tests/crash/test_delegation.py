"""SIGKILL while trusts and application credentials are made, used and deleted: no use twice, nothing half made or half gone."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cloud import ProcessCloud
from tests.crash.killing import Promises, kill_while, rows, simulated_cloud, turns

ROUNDS = 4
CLIENTS = 3
USES = 3
DEMO = "cumulet-demo"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[ProcessCloud]:
    with simulated_cloud(tmp_path) as cloud:
        yield cloud


class Delegators:
    """Clients that make delegations, log in by them, and delete some, until they are told to stop or the cloud is gone."""

    def __init__(self, cloud: ProcessCloud) -> None:
        self.cloud = cloud
        demo = cloud.connect(DEMO)
        self.trustor, self.project = demo.current_user_id, demo.current_project_id
        user = {"user": {"name": "trustee", "password": "secret"}}
        self.trustee = cloud.request("POST", "identity", "/v3/users", user).json()["user"]["id"]
        self.won: list[str] = []
        self.made = {"trust": Promises(), "application_credential": Promises()}
        self.over = threading.Event()

    def jobs(self) -> list[Callable[[], None]]:
        """What they do, with the token of today."""
        return [partial(self._work, self.cloud.token(DEMO), seed) for seed in range(CLIENTS)]

    def _work(self, token: str, seed: int) -> None:
        dice = random.Random(seed)
        while not self.over.is_set():
            self._trust(token, dice.random() < 0.5)
            self._credential(token, dice.random() < 0.5)

    def _trust(self, token: str, keep: bool) -> None:
        trust = {
            "trustor_user_id": self.trustor, "trustee_user_id": self.trustee, "project_id": self.project,
            "impersonation": True, "remaining_uses": USES, "roles": [{"name": "member"}, {"name": "reader"}],
        }  # fmt: skip
        id = self._made("/v3/OS-TRUST/trusts", "trust", trust, token)
        logins = [threading.Thread(target=self._login, args=(id,)) for _ in range(2)]
        for login in logins:
            login.start()
        for login in logins:
            login.join()
        self._keep_or_delete(f"/v3/OS-TRUST/trusts/{id}", "trust", id, token, keep)

    def _login(self, id: str) -> None:
        user = {"id": self.trustee, "password": "secret"}
        identity = {"methods": ["password"], "password": {"user": user}}
        body = {"auth": {"identity": identity, "scope": {"OS-TRUST:trust": {"id": id}}}}
        try:
            if self.cloud.request("POST", "identity", "/v3/auth/tokens", body, token=None).status_code == 201:
                self.won.append(id)
        except requests.RequestException:
            pass

    def _credential(self, token: str, keep: bool) -> None:
        path = f"/v3/users/{self.trustor}/application_credentials"
        rules = [{"service": "image", "method": "GET", "path": f"/{n}"} for n in range(3)]
        values = {"name": random.randbytes(8).hex(), "access_rules": rules}
        id = self._made(path, "application_credential", values, token)
        self._keep_or_delete(f"{path}/{id}", "application_credential", id, token, keep)

    def _made(self, path: str, kind: str, values: Any, token: str) -> str:
        reply = self.cloud.request("POST", "identity", path, {kind: values}, token=token)
        id: str = reply.json()[kind]["id"]
        self.made[kind].promised.add(id)
        return id

    def _keep_or_delete(self, path: str, kind: str, id: str, token: str, keep: bool) -> None:
        if not keep:
            self.made[kind].doomed.add(id)
            assert self.cloud.request("DELETE", "identity", path, token=token).status_code == 204
            self.made[kind].gone.add(id)


def test_sigkill_leaves_no_delegation_half_there(cloud: ProcessCloud) -> None:
    dice = random.Random(3)
    clients = Delegators(cloud)

    def left() -> dict[str, int]:
        return dict(rows(cloud, "SELECT id, remaining_uses FROM identity_trust"))

    for _ in turns(ROUNDS, lambda: len(left()) > 5 and clients.won):
        kill_while(cloud, clients.jobs(), clients.over, dice.uniform(0.5, 1.5))
        cloud.start()
    trusts = left()
    assert len(trusts) > 5 and clients.won, "too little was done to prove anything"
    won = Counter(clients.won)
    for id, uses in trusts.items():
        assert 0 <= uses <= USES - won[id]
    credentials = {id for (id,) in rows(cloud, "SELECT id FROM identity_application_credential")}
    there = {"trust": set(trusts), "application_credential": credentials}
    for kind, ids in there.items():
        clients.made[kind].check(ids, kind)
    links = (
        ("identity_trust_role", "trust_id", set(trusts), 2),
        ("identity_application_credential_role", "application_credential_id", credentials, 2),
        ("identity_application_credential_rule", "application_credential_id", credentials, 3),
    )
    for table, column, ids, each in links:
        assert dict(rows(cloud, f"SELECT {column}, count(*) FROM {table} GROUP BY {column}")) == dict.fromkeys(
            ids, each
        )
    cloud.request("DELETE", "identity", f"/v3/users/{clients.trustee}")
    assert rows(cloud, "SELECT * FROM identity_trust_role") == []
