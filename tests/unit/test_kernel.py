"""The kernel by itself, with one small service of its own: the pipeline, declarations, lists, policy, operations."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct
from sqlalchemy import Connection

from cumulet.api.crud import crud, own_project
from cumulet.api.dialect import COMPUTE
from cumulet.api.http import Endpoint
from cumulet.api.policy import ADMIN, ADMIN_OR_OWNER_MEMBER, ADMIN_OR_OWNER_READER
from cumulet.api.query import Listing
from cumulet.api.resource import AUTO, FILTER, FIND, Resource, edit, hidden, once, read
from cumulet.api.service import Service
from cumulet.api.version import Microversions
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.db import metadata
from cumulet.core.errors import Unavailable
from cumulet.core.kernel import Kernel
from cumulet.core.operations import Operation, Permanent
from cumulet.core.types import Id, Name, Time, new_id, now
from tests.harness import Client, kernel, serve


class Kennel(Struct, forbid_unknown_fields=True):
    place: str
    size: int = 1


class Dog(Resource, table="test_dogs", path="/dogs"):
    """A dog."""

    id: Id = read("Its id.", use=FIND)
    name: Name = edit("Its name.", use=FIND)
    project_id: str = once("Its owner.", AUTO, FIND, set="{verb}_dog:project_id")
    age: Annotated[int, Meta(ge=0)] = edit("Years.", 0, FIND)
    good: bool = edit("Whether it is a good dog.", True, FILTER)
    chip: str | None = edit("The chip.", None, show="get_dog:chip", wire="chip:id")
    kennels: list[Kennel] = edit("Where it sleeps.", [])
    tail: str = read("Its tail, since 1.5.", "long", since=(1, 5))
    secret: str = hidden("Never shown.", "x")
    created_at: Time = read("When.")


class Runtime:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel


Ctx = Context[Runtime]


async def create_dog(ctx: Ctx, body: Any) -> Dog:
    dog = Dog.new(body, id=new_id(), project_id=body.given().get("project_id", ctx.caller.project_id), created_at=now(),
                  tail="long", secret="s")  # fmt: skip
    await ctx.service.kernel.db.run(db.insert, dog)
    return dog


async def create_dogs(ctx: Ctx, bodies: list[Any]) -> list[Dog]:
    return [await create_dog(ctx, body) for body in bodies]


async def update_dog(ctx: Ctx, id: str, body: Any) -> Dog:
    def change(tx: Connection) -> Dog:
        db.get(tx, Dog, id, *own_project(Dog)(ctx))
        db.update(tx, Dog, id, **body.given())
        return db.get(tx, Dog, id)

    return await ctx.service.kernel.db.run(change)


async def delete_dog(ctx: Ctx, id: str) -> None:
    await ctx.service.kernel.db.run(lambda tx: (db.get(tx, Dog, id, *own_project(Dog)(ctx)), db.remove(tx, Dog, id)))


class Bark(Struct, forbid_unknown_fields=True):
    times: int


async def bark(ctx: Ctx, id: str, body: Bark) -> Any:
    return {"bark": "woof" * body.times}


async def broken(ctx: Ctx) -> Any:
    raise ZeroDivisionError


SERVICE = Service(
    type="dogs", upstream="dogs", ports=(), dialect=COMPUTE, microversions=Microversions("dogs", (1, 1), (1, 9), "X-Dogs"),
    endpoints=[
        *crud(Dog, policy="{verb}_dog", scope=own_project(Dog), listing=Listing(sort=(("age", "asc"),), refuse_unknown=True),
              create=create_dog, update=update_dog, delete=delete_dog, create_many=create_dogs),
        Endpoint("POST", "/dogs/{id}/action", bark, "get_dog", Bark, action="bark"),
        Endpoint("GET", "/broken", broken),
    ],
    rules={
        "get_dog": ADMIN_OR_OWNER_READER, "create_dog": ADMIN_OR_OWNER_MEMBER, "update_dog": ADMIN_OR_OWNER_MEMBER,
        "delete_dog": ADMIN_OR_OWNER_MEMBER, "get_dog:chip": ADMIN, "create_dog:project_id": ADMIN,
        "update_dog:project_id": ADMIN,
    },
)  # fmt: skip


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with kernel(tmp_path) as parts:
        await parts.db.run(lambda tx: metadata.create_all(tx, [Dog.table]))
        async with serve(SERVICE, Runtime(parts)) as client:
            yield client


async def test_create_show_update_delete(client: Client) -> None:
    reply = await client("POST", "/dogs", {"dog": {"name": "Rex", "kennels": [{"place": "yard"}]}})
    assert reply.status == 201, reply.data
    dog = reply.json()["dog"]
    assert dog["kennels"] == [{"place": "yard", "size": 1}]
    assert dog["project_id"] == "project-demo"
    assert "secret" not in dog and "chip:id" not in dog and "tail" not in dog
    assert dog["created_at"].endswith("Z") and len(dog["created_at"]) == 20
    path = f"/dogs/{dog['id']}"
    assert (await client("GET", path)).json()["dog"] == dog
    assert (await client("PUT", path, {"dog": {"age": 3, "chip:id": "c"}})).json()["dog"]["age"] == 3
    assert (await client("GET", path, token="admin")).json()["dog"]["chip:id"] == "c"
    newer = await client("GET", path, OpenStack_API_Version="dogs 1.5")
    assert newer.json()["dog"]["tail"] == "long" and newer.headers["OpenStack-API-Version"] == "dogs 1.5"
    assert (await client("DELETE", path)).status == 204
    assert (await client("GET", path)).status == 404


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"dog": {}}, "name"),
        ({"dog": {"name": 5}}, "name"),
        ({"dog": {"name": "x", "age": -1}}, "age"),
        ({"dog": {"name": "x", "wings": 2}}, "wings"),
        ({"dog": {"name": "x", "kennels": [{"size": 1}]}}, "place"),
        ({"cat": {}}, "cat"),
        ([], "object"),
    ],
)
async def test_bad_bodies_say_what_is_wrong(client: Client, body: Any, says: str) -> None:
    reply = await client("POST", "/dogs", body)
    assert reply.status == 400
    assert says in reply.json()["badRequest"]["message"]


async def test_lists_filter_sort_and_page(client: Client) -> None:
    bodies = [{"name": f"dog{age}", "age": age, "good": age % 2 == 0} for age in range(6)]
    reply = await client("POST", "/dogs", {"dogs": bodies})
    assert reply.status == 201 and len(reply.json()["dogs"]) == 6

    async def names(query: str, **more: Any) -> list[str]:
        return [d["name"] for d in (await client("GET", f"/dogs?{query}", **more)).json()["dogs"]]

    assert await names("good=true") == ["dog0", "dog2", "dog4"]
    assert await names("name=dog1&name=dog3") == ["dog1", "dog3"]
    assert await names("sort_key=age&sort_dir=desc&limit=2") == ["dog5", "dog4"]
    page = (await client("GET", "/dogs?limit=4")).json()
    link = page["dogs_links"][0]["href"]
    rest = (await client("GET", link[link.index("/dogs") :])).json()
    assert [d["name"] for d in rest["dogs"]] == ["dog4", "dog5"] and "dogs_links" not in rest
    assert await names("", token="other") == []
    assert len(await names("", token="admin")) == 6
    assert (await client("GET", "/dogs?wings=1")).status == 400
    assert (await client("GET", "/dogs?chip:id=c")).status == 400
    assert (await client("GET", "/dogs?sort_key=secret")).status == 400
    assert (await client("GET", "/dogs?limit=x")).status == 400
    assert (await client("GET", f"/dogs?marker={new_id()}")).status == 400


async def test_who_may(client: Client) -> None:
    body = {"dog": {"name": "x"}}
    assert (await client("POST", "/dogs", body, token="nobody")).status == 401
    assert (await client("POST", "/dogs", body, token="wrong")).status == 401
    assert (await client("POST", "/dogs", body, token="reader")).status == 403
    assert (await client("POST", "/dogs", {"dog": {"name": "x", "project_id": "p"}})).status == 403
    made = (await client("POST", "/dogs", body)).json()["dog"]
    for method in ("GET", "PUT", "DELETE"):
        sent = {"dog": {"age": 1}} if method == "PUT" else None
        assert (await client(method, f"/dogs/{made['id']}", sent, token="other")).status == 404
    assert (await client("GET", f"/dogs/{made['id']}", token="reader")).status == 200


async def test_versions_routes_and_errors(client: Client) -> None:
    assert (await client("GET", "/dogs", OpenStack_API_Version="dogs 2.0")).status == 406
    assert (await client("GET", "/dogs", X_Dogs="1.3")).headers["X-Dogs"] == "1.3"
    assert (await client("GET", "/dogs", OpenStack_API_Version="dogs latest")).headers["X-Dogs"] == "1.9"
    assert (await client("GET", "/dogs", OpenStack_API_Version="dogs x")).status == 400
    assert (await client("GET", "/cats")).status == 404
    refused = await client("PATCH", "/dogs")
    assert refused.status == 405 and refused.headers["Allow"] == "GET, POST"
    failed = await client("GET", "/broken")
    assert failed.status == 500 and failed.headers["X-Openstack-Request-Id"] in failed.json()["computeFault"]["message"]


async def test_actions(client: Client) -> None:
    assert (await client("POST", "/dogs/1/action", {"bark": {"times": 2}})).json() == {"bark": "woofwoof"}
    assert (await client("POST", "/dogs/1/action", {"bark": {}})).status == 400
    assert (await client("POST", "/dogs/1/action", {"sing": {}})).status == 400
    assert (await client("POST", "/dogs/1/action", {"bark": {"times": 2}}, token="nobody")).status == 401


async def test_large_body_is_refused(client: Client) -> None:
    assert (await client("POST", "/dogs", data=io.BytesIO(b"x" * (2 << 20)))).status == 413


async def test_operations_run_in_order_retry_and_fail(tmp_path: Path) -> None:
    seen: list[str] = []
    failed: list[str] = []

    async def work(operation: Operation) -> None:
        await asyncio.sleep(0)
        seen.append(f"{operation.resource_id}{operation.args['n']}")
        if operation.args["n"] == 1 and operation.attempts == 1:
            raise Unavailable("not yet")
        if operation.args["n"] == 2:
            raise ValueError("never")

    async with kernel(tmp_path) as parts:
        parts.operations.register(
            "work",
            work,
            attempts=2,
            on_failure=lambda tx, operation, error: failed.append(f"{operation.resource_id} {error}"),
        )
        await parts.operations.start()
        for n in range(3):
            await parts.db.run(parts.operations.add, "work", "a", {"n": n})
        await parts.db.run(parts.operations.add, "work", "b", {"n": 0})
        await parts.operations.idle()
    assert [s for s in seen if s[0] == "a"] == ["a0", "a1", "a1", "a2", "a2"]
    assert failed == ["a never"]


@pytest.mark.parametrize("broken_undo", [False, True])
async def test_what_fails_for_good_is_taken_back_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_undo: bool
) -> None:
    """Whether it is the handler that fails or the write of its end; and what cannot be taken back fails nevertheless."""
    monkeypatch.setattr("cumulet.core.operations.BACKOFF", (0.01,))
    log: list[str] = []

    async def work(operation: Operation) -> Any:
        log.append(f"work {operation.resource_id}")
        if operation.resource_id == "handler":
            raise Permanent("no")

        def finish(tx: Connection) -> None:
            raise ValueError("the end cannot be written")

        return finish

    async def undo(operation: Operation) -> None:
        log.append(f"undo {operation.resource_id}")
        if broken_undo:
            raise OSError("no")

    async with kernel(tmp_path) as parts:
        parts.operations.register(
            "work", work, undo=undo, attempts=2, on_failure=lambda tx, operation, error: log.append(f"failed {error}")
        )
        await parts.operations.start()
        for name in ("handler", "end"):
            await parts.db.run(parts.operations.add, "work", name)
            await parts.operations.idle()
    assert log[:3] == ["work handler", "undo handler", "failed no"]
    assert log[3:] == ["work end", "work end", "undo end", "failed the end cannot be written"]


async def test_a_delete_supersedes_what_runs(tmp_path: Path) -> None:
    started, log = asyncio.Event(), []

    async def build(operation: Operation) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            log.append("build ended")

    async def delete(operation: Operation) -> None:
        log.append("delete")

    async with kernel(tmp_path) as parts:
        parts.operations.register("build", build)
        parts.operations.register("delete", delete)
        await parts.operations.start()
        await parts.db.run(parts.operations.add, "build", "a")
        await started.wait()
        await parts.db.run(lambda tx: parts.operations.add(tx, "delete", "a", supersede=True))
        await parts.operations.idle()
    assert log == ["build ended", "delete"]


async def test_what_a_dead_process_left_is_taken_up(tmp_path: Path) -> None:
    done: list[int] = []

    async def work(operation: Operation) -> None:
        done.append(operation.attempts)

    async with kernel(tmp_path) as parts:
        parts.operations.register("work", work)
        await parts.db.run(parts.operations.add, "work", "a")
        await parts.db.run(
            lambda tx: tx.exec_driver_sql("UPDATE core_operation SET state='running', owner='test-host', attempts=1")
        )
        await parts.operations.start()
        await parts.operations.idle()
    assert done == [1], "a run that ended with its process is no attempt"
