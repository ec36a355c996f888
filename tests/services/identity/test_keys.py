"""`cumulet keys`: a running program takes up what another process rotates, and a rotation may be killed at any point."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cumulet.cli import cumulet
from cumulet.core.db import Database
from cumulet.services.identity.credential import Credential
from cumulet.services.identity.fernet import KeyRing, Vault
from cumulet.services.identity.reseal import reseal, rotate_vault
from tests.services.identity.conftest import Identity


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cumulet, ["keys", *arguments])


def data_of(identity: Identity) -> Path:
    return identity.runtime.kernel.settings.data


async def test_a_running_program_takes_up_a_new_key(identity: Identity) -> None:
    data = data_of(identity)
    before = await identity.token("demo", scope="demo")
    done = await asyncio.to_thread(run, "rotate", "--data", str(data))
    assert done.output == "tokens are sealed with key 2 from now on; those of before stay valid\n"
    after = await identity.token("demo", scope="demo")
    (data / "identity/keys/1").unlink()  # so what is open now was sealed with the new one
    identity.runtime.keys.load()
    identity.runtime._forget()
    assert (await identity.call("GET", "/v3/auth/projects", token=after)).status == 200
    assert (await identity.call("GET", "/v3/auth/projects", token=before)).status == 401


async def test_survivors_stay_valid_and_tokens_of_an_unseen_key_are_opened(identity: Identity) -> None:
    before = await identity.token("demo", scope="demo")
    directory = data_of(identity) / "identity" / "keys"
    other = type(identity.runtime.keys)(directory, 100)
    other.load()
    other.ring.add()
    elsewhere = other.seal(identity.runtime.keys.open(before))
    for token in (elsewhere, before):
        assert (await identity.call("GET", "/v3/auth/projects", token=token)).status == 200
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in directory.iterdir()} == {0o600}


async def credential(identity: Identity, text: str) -> str:
    made = await identity.made("credentials", type="cert", blob=text, user_id=identity.accounts.demo_user_id)
    return str(made["id"])


async def test_stored_credentials_are_sealed_anew_while_the_program_runs(identity: Identity) -> None:
    data = data_of(identity)
    ids = [await credential(identity, f"secret {n}") for n in range(3)]
    for number in (2, 3, 4):
        done = await asyncio.to_thread(run, "rotate", "--credentials", "--data", str(data))
        assert done.output == f"3 stored secrets are sealed with key {number} now\n"
        assert sorted(os.listdir(data / "identity/credential_keys")) == [str(number - 1), str(number)]
        for n, id in enumerate(ids):
            shown = await identity.call("GET", f"/v3/credentials/{id}")
            assert shown.json()["credential"]["blob"] == f"secret {n}"
    later = await credential(identity, "later")
    assert (await identity.call("GET", f"/v3/credentials/{later}")).json()["credential"]["blob"] == "later"
    database = Database(f"sqlite:///{data / 'cumulet.sqlite'}")
    assert reseal(database.engine, Vault(data / "identity/credential_key")) == 0, "the program seals with the new key"
    database.engine.dispose()


def test_the_one_key_of_old_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "credential_key"
    old = Vault(path)
    sealed = old.seal("text")
    os.rename(tmp_path / "credential_keys" / "1", path)
    vault = Vault(path)
    assert vault.open(sealed) == "text" and vault.ring.numbers() == [0]
    assert vault.ring.add() == 1
    assert vault.open(sealed) == "text" and not vault.is_current(sealed) and vault.is_current(vault.seal("x"))
    vault.ring.drop([0])
    assert not path.exists()
    with pytest.raises(ValueError, match="no key opens"):
        vault.open(sealed)


async def test_what_cannot_be_opened_drops_no_key(identity: Identity) -> None:
    data = data_of(identity)
    await credential(identity, "lost")
    (data / "identity/credential_keys/1").unlink()
    KeyRing(data / "identity/credential_keys").add()
    done = await asyncio.to_thread(run, "rotate", "--credentials", "--data", str(data))
    assert done.exit_code == 1 and "No key was dropped" in done.output
    assert os.listdir(data / "identity/credential_keys") == ["1"]


ROTATE = """
import sys
from pathlib import Path
from cumulet.core.db import Database
from cumulet.services.identity.declaration import SERVICE
from cumulet.services.identity.fernet import KeyRing, Vault
from cumulet.services.identity.reseal import rotate_vault
data = Path(sys.argv[1])
engine = Database(f"sqlite:///{data / 'cumulet.sqlite'}").engine
while True:
    KeyRing(data / "identity" / "keys").add()
    print(rotate_vault(engine, Vault(data / "identity" / "credential_key")), flush=True)
"""


async def test_a_rotation_may_be_killed_at_any_point(identity: Identity) -> None:
    data = data_of(identity)
    before = await identity.token("demo", scope="demo")
    ids = [await credential(identity, f"secret {n}") for n in range(5)]

    def rotate_until_killed(rounds: int) -> None:
        command = [sys.executable, "-c", ROTATE, str(data)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rounds):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)

    for rounds in (1, 4, 9):
        await asyncio.to_thread(rotate_until_killed, rounds)
        for n, id in enumerate(ids):
            shown = await identity.call("GET", f"/v3/credentials/{id}")
            assert shown.json()["credential"]["blob"] == f"secret {n}"
        identity.runtime._forget()
        assert (await identity.call("GET", "/v3/auth/projects", token=before)).status == 200
    database = Database(f"sqlite:///{data / 'cumulet.sqlite'}")
    vault = Vault(data / "identity/credential_key")
    assert rotate_vault(database.engine, vault) == len(ids)
    with database.engine.begin() as tx:
        assert all(vault.is_current(row.blob) for row in tx.execute(Credential.table.select()))
    database.engine.dispose()
    assert len(os.listdir(data / "identity/credential_keys")) == 2


def test_the_list_tells_ages(tmp_path: Path) -> None:
    assert run("--data", str(tmp_path)).output == (
        f"Error: there is no cloud in {tmp_path}; name its directory with --data\n"
    )
    ring = KeyRing(tmp_path / "identity" / "keys")
    ring.open()
    hours = ring.path(1).stat().st_mtime - 2 * 3600
    os.utime(ring.path(1), (hours, hours))
    ring.add()
    shown = run("--list", "--data", str(tmp_path)).output
    assert "  key 2, 0 seconds old, seals\n  key 1, 2 hours old\n" in shown
    assert shown == run("--data", str(tmp_path)).output
