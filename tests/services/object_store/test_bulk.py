"""Archives that are unpacked, and many deletes at once."""

import io
import tarfile
from typing import Any

import pytest

from cumulet.services.object_store.layers import bulk_delete
from tests.services.object_store.stores import DEMO, Store

MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2"}


def archive(
    mode: str, files: dict[str, bytes], pax: dict[str, str] | None = None, format: int = tarfile.PAX_FORMAT
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=format) as tar:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.pax_headers = pax or {}
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


async def extract(store: Store, path: str, data: Any, format: str = "tar", **headers: str) -> Any:
    reply = await store("PUT", f"{path}?extract-archive={format}", data, Accept="application/json", **headers)
    assert reply.status == 200
    return reply.json()


@pytest.mark.parametrize("format", MODES)
async def test_an_archive_becomes_objects(store: Store, format: str) -> None:
    files = {"a.txt": b"hello", "./deep/b": b"x" * 3000, "/c": b"", f"long/{'n' * 200}": b"l", "\u00fc": b"u"}
    told = await extract(store, "box/under", archive(MODES[format], files), format)
    assert (told["Response Status"], told["Number Files Created"], told["Errors"]) == ("201 Created", 5, [])
    for name, data in files.items():
        assert await store.get(f"box/under/{name.removeprefix('./').lstrip('/')}") == data
    assert (await store("HEAD", "box/under/a.txt")).headers["Content-Type"] == "text/plain"


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
async def test_every_form_of_tar(store: Store, format: int) -> None:
    name = f"{'d' * 90}/{'n' * 90}"
    told = await extract(store, "box", archive("w", {name: b"x"}, format=format))
    assert told["Number Files Created"] == 1, told
    assert await store.get(f"box/{name}") == b"x"


async def test_containers_are_made(store: Store) -> None:
    told = await extract(store, "", archive("w", {"one/a": b"1", "two/b": b"2", "lost": b"3"}))
    assert told["Number Files Created"] == 2
    assert (await store("GET", "")).data == b"one\ntwo\n"


async def test_attributes_become_metadata(store: Store) -> None:
    pax = {
        "SCHILY.xattr.user.mime_type": "text/x",
        "SCHILY.xattr.user.meta.lunch": "soup",
        "LIBARCHIVE.xattr.user.meta.dinner": "none",
        "SCHILY.xattr.user.stuff": "no",
    }
    await extract(store, "box", archive("w", {"a": b"1"}, pax), X_Object_Meta_All="yes")
    told = (await store("HEAD", "box/a")).headers
    assert (told["Content-Type"], told["X-Object-Meta-Lunch"], told["X-Object-Meta-Dinner"]) == (
        "text/x",
        "soup",
        "none",
    )
    assert told["X-Object-Meta-All"] == "yes"


@pytest.mark.parametrize(
    ("data", "format", "said"),
    [
        (b"no archive at all", "tar", "Invalid Tar File"),
        (b"x" * 2000, "tar", "Invalid Tar File"),
        (b"no archive at all", "tar.gz", "Invalid Tar File: not tar.gz"),
        (b"no archive at all", "tar.bz2", "Invalid Tar File: not tar.bz2"),
        (archive("w", {}), "tar", "Invalid Tar File: No Valid Files"),
        (archive("w", {"a": b"x" * 5000})[:3000], "tar", "Invalid Tar File: unexpected end of data"),
        (archive("w:gz", {"a": b"x" * 5000})[:-20], "tar.gz", "Invalid Tar File"),
    ],
)
async def test_what_is_no_archive(store: Store, data: bytes, format: str, said: str) -> None:
    told = await extract(store, "box", data, format)
    assert told["Response Status"] == "400 Bad Request"
    assert told["Response Body"].startswith(said), told
    assert (await store("HEAD", "box/a")).status == 404


async def test_what_cannot_be_stored_does_not_stop_the_rest(store: Store) -> None:
    files = {"x" * 1025: b"long", "a": b"1"}
    told = await extract(store, "box", archive("w", files))
    assert (told["Response Status"], told["Number Files Created"]) == ("400 Bad Request", 1)
    assert told["Errors"] == [[f"box/{'x' * 1025}", "400 Bad Request"]]


async def test_a_small_archive_that_grows(store: Store) -> None:
    """What is packed tightly is stored as it is unpacked, piece by piece."""
    size = 20 << 20
    told = await extract(store, "box", archive("w:gz", {"zeros": bytes(size)}), "tar.gz")
    assert told["Number Files Created"] == 1
    assert (await store("HEAD", "box/zeros")).headers["Content-Length"] == str(size)


async def test_other_forms_of_reply(store: Store) -> None:
    data = archive("w", {"a": b"1"})
    reply = await store("PUT", "box?extract-archive=tar", data)
    assert b"Number Files Created: 1\n" in reply.data
    assert b"Response Status: 201 Created\n" in reply.data
    reply = await store("PUT", "box?extract-archive=tar", data, Accept="application/xml")
    assert b"<number_files_created>1</number_files_created>" in reply.data
    reply = await store("PUT", "box?extract-archive=tar", data, Accept="image/png")
    assert b"406 Not Acceptable" in reply.data
    assert (await store("PUT", "box?extract-archive=zip", data)).status == 400


async def test_many_deletes(store: Store) -> None:
    for container in ("one", "tw%20o"):
        await store.put(container)
        for name in ("a", "%C3%BC"):
            await store.put(f"{container}/{name}")
    lines = b"/one/a\none/%C3%BC\n/one/none\n\n/tw%20o/a\n/tw%20o/%C3%BC\n/one\n/tw%20o"
    reply = await store("POST", "?bulk-delete", lines, Accept="application/json", Content_Type="text/plain")
    told = reply.json()
    assert (told["Response Status"], told["Number Deleted"], told["Number Not Found"]) == ("200 OK", 6, 1)
    assert (await store("GET", "")).data == b""


async def test_deletes_that_fail(store: Store) -> None:
    await store.put("one")
    await store.put("one/a")
    reply = await store("POST", "?bulk-delete", b"/one\n/%FF/x\n/no/%00", Accept="application/json")
    told = reply.json()
    assert told["Response Status"] == "400 Bad Request"
    assert sorted(told["Errors"]) == [
        ["/%FF/x", "412 Precondition Failed"],
        ["/no/%00", "412 Precondition Failed"],
        ["/one", "409 Conflict"],
    ]


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (b"", {}, "400 Bad Request"),
        (b"/a\n" * 4, {}, "413 Request Entity Too Large"),
        (b"/a", {"Content-Type": "application/json"}, "406 Not Acceptable"),
        (b"/" + b"x" * 10000, {}, "400 Bad Request"),
    ],
)
async def test_what_is_no_list_of_deletes(
    store: Store, data: bytes, headers: dict[str, str], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_delete, "MAX_DELETES", 3)
    reply = await store("POST", "?bulk-delete", data, headers={"Accept": "application/json", **headers})
    assert (reply.status, reply.json()["Response Status"]) == (200, status)


async def test_who_may(store: Store) -> None:
    await store.put("box")
    data = archive("w", {"a": b"1"})
    expected = {"admin": "201 Created", "manager": "201 Created", "member": "201 Created", "reader": "400 Bad Request"}
    for token, status in {**expected, "other": "400 Bad Request", "nobody": "401 Unauthorized"}.items():
        told = await extract(store, "box", data, token=token)
        assert told["Response Status"] == status, (token, told)
        assert told["Number Files Created"] == (status == "201 Created")
    for token in ("reader", "other", "nobody"):
        reply = await store("POST", "?bulk-delete", b"/box/a", token=token, Accept="application/json")
        assert (reply.json()["Number Deleted"], len(reply.json()["Errors"])) == (0, 1), token
    await store.post("box", X_Container_Write="project-other:*")
    reply = await store("POST", f"/v1/{DEMO}?bulk-delete", b"/box/a", token="other", Accept="application/json")
    assert reply.json()["Number Deleted"] == 1
