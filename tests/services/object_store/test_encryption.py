"""Encryption at rest."""

import json
from collections.abc import AsyncIterator, Iterator
from hashlib import md5
from pathlib import Path

import pytest
from click.testing import CliRunner

from cumulet.cli import cumulet
from cumulet.config import SettingsError
from cumulet.services.object_store.encryption import keymaster
from cumulet.services.object_store.encryption.cipher import CryptoError, CryptoMeta
from cumulet.services.object_store.encryption.keymaster import FILE, Keymaster
from tests.services.object_store.stores import Store, object_store

SECRET, COLOR = b"nobody may read this " * 40, "a secret colour"
LARGE = bytes(range(256)) * 3600


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with object_store(tmp_path, object_encryption=True) as store:
        await store.put("c")
        yield store


def on_disk(store: Store) -> Iterator[bytes]:
    """All that lies on the devices."""
    for path in Path(store.runtime.host.devices.root).rglob("*"):
        if path.is_file():
            yield path.read_bytes()


def files_of(store: Store) -> list[bytes]:
    """The data of all objects, as it is kept."""
    return [path.read_bytes()[: len(SECRET)] for path in Path(store.runtime.host.devices.root).rglob("*.data")]


def etag(data: bytes) -> str:
    return md5(data, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("data", [SECRET, LARGE, b"x"], ids=["small", "large", "one byte"])
async def test_nothing_of_an_object_is_on_the_disk(store: Store, data: bytes) -> None:
    reply = await store("PUT", "c/o", data, headers={"X-Object-Meta-Color": COLOR, "Etag": etag(data)})
    assert (reply.status, reply.headers["Etag"]) == (201, etag(data))
    reply = await store("GET", "c/o")
    assert (reply.data == data, reply.headers["Etag"], reply.headers["X-Object-Meta-Color"]) == (
        True,
        etag(data),
        COLOR,
    )
    assert not [name for name in reply.headers if "crypto" in name.lower()]
    head = await store("HEAD", "c/o")
    assert (head.headers["Content-Length"], head.headers["Etag"]) == (str(len(data)), etag(data))
    (row,) = (await store("GET", "c?format=json")).json()
    assert (row["hash"], row["bytes"]) == (etag(data), len(data))
    await store.runtime.host.stop()
    for content in on_disk(store):
        assert data not in content or len(data) == 1
        assert etag(data).encode() not in content
        assert COLOR.encode() not in content


async def test_each_object_has_a_key_of_its_own(store: Store) -> None:
    for name in ("a", "b"):
        await store.put(f"c/{name}", SECRET)
    files = files_of(store)
    assert len(files) == len(set(files)) == 2
    await store.put("c/a", SECRET)
    again = files_of(store)
    assert len(set(again) - set(files)) == 1


@pytest.mark.parametrize("data", [SECRET, LARGE], ids=["small", "large"])
async def test_ranges(store: Store, data: bytes) -> None:
    await store.put("c/o", data)
    for asked, part in (("0-9", data[:10]), ("17-", data[17:]), ("-33", data[-33:]), ("16-16", data[16:17])):
        reply = await store("GET", "c/o", Range=f"bytes={asked}")
        assert (reply.status, reply.data == part) == (206, True), asked
    reply = await store("GET", "c/o", Range="bytes=5-20,100-131,-7")
    assert reply.status == 206
    boundary = reply.headers["Content-Type"].partition("boundary=")[2].encode()
    parts = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in reply.data.split(b"--" + boundary)[1:-1]]
    assert parts == [data[5:21], data[100:132], data[-7:]]
    assert (await store("GET", "c/o", Range="bytes=999999999-")).status == 416


async def test_conditions(store: Store) -> None:
    await store.put("c/o", SECRET)
    tag, other = etag(SECRET), etag(b"")
    for header, value, status in (
        ("If-Match", f'"{tag}"', 200),
        ("If-Match", f'"{other}", {tag}', 200),
        ("If-Match", other, 412),
        ("If-Match", "*", 200),
        ("If-None-Match", tag, 304),
        ("If-None-Match", f'"{other}"', 200),
        ("If-None-Match", "*", 304),
    ):
        reply = await store("GET", "c/o", headers={header: value})
        assert reply.status == status, (header, value)
        assert reply.headers["Etag"].strip('"') == tag
    assert (await store("PUT", "c/o", b"x", If_None_Match="*")).status == 412


async def test_a_wrong_etag_is_refused(store: Store) -> None:
    for data in (SECRET, LARGE, b""):
        reply = await store("PUT", "c/o", data, Etag=etag(b"other"))
        assert reply.status == 422
    assert (await store("HEAD", "c/o")).status == 404


async def test_objects_without_data(store: Store) -> None:
    reply = await store("PUT", "c/empty", b"", headers={"X-Object-Meta-Color": COLOR, "Etag": etag(b"")})
    assert (reply.status, reply.headers["Etag"]) == (201, etag(b""))
    reply = await store("GET", "c/empty")
    assert (reply.data, reply.headers["Etag"], reply.headers["X-Object-Meta-Color"]) == (b"", etag(b""), COLOR)
    assert (await store("GET", "c?format=json")).json()[0]["hash"] == etag(b"")


async def test_metadata_can_be_changed(store: Store) -> None:
    await store.put("c/o", SECRET, headers={"X-Object-Meta-Color": "red", "X-Object-Meta-Size": "xl"})
    await store.post("c/o", headers={"X-Object-Meta-Color": COLOR, "X-Object-Meta-Empty": ""})
    told = (await store("HEAD", "c/o")).headers
    assert told["X-Object-Meta-Color"] == COLOR
    assert "X-Object-Meta-Size" not in told
    assert await store.get("c/o") == SECRET
    assert (await store("POST", "c/o", headers={"X-Object-Meta-Long": "x" * 257})).status == 400
    assert (await store("PUT", "c/o", headers={"X-Object-Meta-Long": "x" * 257})).status == 400


async def test_what_is_encrypted_stays_readable(tmp_path: Path) -> None:
    async with object_store(tmp_path) as store:
        await store.put("c")
        await store.put("c/plain", SECRET, X_Object_Meta_A="b")
        assert not (store.runtime.cluster.directory / FILE).exists()
    async with object_store(tmp_path, object_encryption=True) as store:
        path = store.runtime.cluster.directory / FILE
        assert path.stat().st_mode & 0o777 == 0o600
        await store.put("c/hidden", SECRET, X_Object_Meta_A="b")
        assert await store.get("c/plain") == SECRET
        await store.post("c/plain", X_Object_Meta_A="c")
        assert (await store("GET", "c/plain")).headers["X-Object-Meta-A"] == "c"
    async with object_store(tmp_path) as store:
        for name in ("hidden", "plain"):
            reply = await store("GET", f"c/{name}")
            assert (reply.data, reply.headers["Etag"]) == (SECRET, etag(SECRET))
        assert {row["hash"] for row in (await store("GET", "c?format=json")).json()} == {etag(SECRET)}
        await store.put("c/plain-again", SECRET)
        assert any(SECRET in content for content in on_disk(store))


async def test_a_new_root_secret(store: Store, tmp_path: Path) -> None:
    await store.put("c/old", SECRET)
    master = store.runtime.keymaster
    assert master is not None
    assert keymaster.rotate(master.path) == "2"
    master.reload()
    await store.put("c/new", SECRET)
    for name in ("old", "new"):
        assert await store.get(f"c/{name}") == SECRET
        assert (await store("GET", f"c/{name}", If_None_Match=etag(SECRET))).status == 304
    assert [row["hash"] for row in (await store("GET", "c?format=json")).json()] == [etag(SECRET)] * 2


async def test_without_its_root_secret_nothing_can_be_read(store: Store) -> None:
    await store.put("c/o", SECRET)
    master = store.runtime.keymaster
    assert master is not None
    text = master.path.read_text()
    keymaster.make(master.path)
    master.path.write_text(master.path.read_text().replace("secret_1", "secret_9").replace("id = 1", "id = 9"))
    master.reload()
    reply = await store("GET", "c/o")
    assert (reply.status, reply.data) == (500, b"Error decrypting object")
    assert (await store("GET", "c?format=json")).json()[0]["hash"] == "<unknown>"
    master.path.write_text(text)
    master.reload()
    assert await store.get("c/o") == SECRET


async def test_a_host_of_several_makes_no_secret_of_its_own(tmp_path: Path) -> None:
    async with object_store(tmp_path) as store:
        rings = store.runtime.cluster.directory
    (tmp_path / "other").mkdir()
    with pytest.raises(SettingsError, match="cumulet keys rotate --objects"):
        async with object_store(tmp_path / "other", object_rings=rings, object_encryption=True):
            pass
    assert not (rings / FILE).exists()


def test_keys_are_swifts(tmp_path: Path) -> None:
    """HMAC-SHA256 of the path with the root secret, as swift's keymaster makes them."""
    path = tmp_path / FILE
    path.write_text("[keymaster]\nencryption_root_secret = " + "QUFB" * 16 + "\n")
    master = Keymaster(path)
    master.load()
    keys = master.keys("AUTH_a", "c", "o/p")
    assert keys.id == {"v": "3", "path": "/AUTH_a/c/o/p"}
    assert keys.container.hex() == "fb9eb3e82a34cc63dbe6c1f8ca6fd316170b76a50c73927ab9d30194e6209ad3"
    assert keys.object.hex() == "893fc0e3236b648fc0047c1371455143966beac7d778b1a8d3b8fad6040d4069"
    assert master.keys_of({"v": "2", "path": "/AUTH_a/c/o/p"}, "AUTH_a", "c", "o/p").object == keys.object
    for bad in ({"v": "9", "path": "/a/c/o"}, {"v": "3", "path": "/a/c/o", "secret_id": "x"}, {"path": "x"}):
        with pytest.raises(CryptoError):
            master.keys_of(bad, "a", "c", "o")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[keymaster]\n",
        "[keymaster]\nencryption_root_secret = short\n",
        "[keymaster]\nencryption_root_secret_1 = " + "QUFB" * 16 + "\n",
        "[keymaster]\nencryption_root_secret_1 = " + "QUFB" * 16 + "\nactive_root_secret_id = 2\n",
    ],
)
def test_files_of_root_secrets_that_are_wrong(tmp_path: Path, text: str) -> None:
    path = tmp_path / FILE
    path.write_text(text)
    with pytest.raises(SettingsError, match=str(path)):
        Keymaster(path).load()


@pytest.mark.parametrize("text", ["", "{}", "x", json.dumps({"cipher": "ROT13", "iv": "QUFB"}), json.dumps([1])])
def test_crypto_meta_that_is_none(text: str) -> None:
    with pytest.raises(CryptoError):
        CryptoMeta.load(text)


def test_root_secrets_are_made_and_rotated_from_the_command_line(tmp_path: Path) -> None:
    command = ["keys", "rotate", "--data", str(tmp_path), "--objects"]
    told = CliRunner().invoke(cumulet, command)
    assert told.exit_code == 1
    assert "--object-rings" in told.output
    path = tmp_path / "object-store" / "rings" / FILE
    path.parent.mkdir(parents=True)
    for number in ("1", "2"):
        told = CliRunner().invoke(cumulet, command)
        assert told.exit_code == 0, told.output
        assert path.stat().st_mode & 0o777 == 0o600
        master = Keymaster(path)
        master.load()
        assert master.keys("a", "c").id["secret_id"] == number
    assert len(master.all_keys("a", "c", "o")) == 2
