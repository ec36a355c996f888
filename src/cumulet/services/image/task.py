"""Tasks, which tell what becomes of imports: GET|POST /v2/tasks, GET /v2/tasks/{task_id}, GET /v2/images/{image_id}/tasks.

A task is what clients see of an operation (`importing.py`): a row that is written with it and ended with it, and goes two days
later. `POST /v2/tasks` is upstream's older way of importing: it registers the image as well.
"""

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from cumulet.api.crud import list_page
from cumulet.api.http import Endpoint, Response
from cumulet.api.query import Listing
from cumulet.api.resource import FIND, SORT, Resource, computed, read
from cumulet.core import db
from cumulet.core.context import Context
from cumulet.core.errors import Invalid, MethodNotAllowed, NotFound
from cumulet.core.types import Id, Str64, Str255, Text, Time, later, new_id, now
from cumulet.services.image.image import look_up
from cumulet.services.image.rules import ADMIN, in_project

if TYPE_CHECKING:
    from cumulet.services.image.runtime import ImageRuntime

Ctx: TypeAlias = "Context[ImageRuntime]"

LIFETIME = 48 * 3600
"""Seconds that a task is kept after its end."""
IMPORT, LOCATION, OLD_IMPORT = "api_image_import", "location_import", "import"
ENDED = ("success", "failure")


class Task(Resource, table="image_task", path="/v2/tasks", key="", plural="tasks"):
    """What becomes of an import."""

    id: Id = read("An identifier for the task.", use=SORT)
    type: Str64 = read("What it does.", use=FIND)
    status: Str64 = read("pending, processing, success or failure.", use=FIND)
    owner: Str255 | None = read("The project it works for.", use=SORT)
    created_at: Time = read("When it was asked for.", use=SORT)
    updated_at: Time = read("When it last got on.", use=SORT)
    expires_at: Time | None = read("When it will be forgotten; set once it has ended.")
    self_url: str = computed("Its own URL.", lambda task: f"/v2/tasks/{task.id}", wire="self")
    schema: str = computed("The URL of its schema.", lambda task: "/v2/schemas/task")
    input: dict[str, Any] = read("What was asked for.")
    result: dict[str, Any] | None = read("What came of it.")
    message: Text = read("How far it is, or what went wrong.")
    image_id: Id | None = read("The image it is about.", index=True)
    request_id: Str64 = read("The request that asked for it.")
    user_id: Str255 | None = read("Who asked for it.")


BRIEF = ("id", "type", "status", "owner", "created_at", "updated_at", "expires_at", "self", "schema")
"""What lists show of a task."""
OPTIONAL = frozenset({"expires_at", "image_id", "user_id"})

RULES = in_project({"tasks_api_access": ADMIN})
LISTING = Listing(sort=(("created_at", "desc"),))


def add_task(
    tx: Connection, ctx: Ctx, kind: str, image_id: str, asked: dict[str, Any], *, owner: str | None = None
) -> str:
    """Write down a task for an image, in the transaction that adds its operation; returns its id."""
    moment = now()
    task = Task(
        id=new_id(), type=kind, status="pending", owner=owner or ctx.caller.project_id, input=asked, result=None, message="",
        image_id=image_id, request_id=ctx.request_id, user_id=ctx.caller.user_id, created_at=moment, updated_at=moment,
        expires_at=None,
    )  # fmt: skip
    db.insert(tx, task)
    return task.id


def say(tx: Connection, task_id: str, message: str) -> None:
    """Tell how far a task is, unless it has ended."""
    where = [Task.table.c.id == task_id, Task.table.c.status.not_in(ENDED)]
    db.update_where(tx, Task, where, status="processing", message=message, updated_at=now())


def succeed(tx: Connection, task_id: str, image_id: str) -> None:
    _end(tx, task_id, status="success", result={"image_id": image_id}, message="")


def fail(tx: Connection, task_id: str, message: str) -> None:
    _end(tx, task_id, status="failure", message=message)


def _end(tx: Connection, task_id: str, **values: Any) -> None:
    where = [Task.table.c.id == task_id, Task.table.c.status.not_in(ENDED)]
    db.update_where(tx, Task, where, **values, updated_at=now(), expires_at=later(LIFETIME))


def forget(tx: Connection) -> None:
    """Remove tasks whose time is over."""
    db.remove_where(tx, Task, Task.table.c.expires_at < now())


def _whole(task: Task) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(Task.view()(task))
    return {name: value for name, value in shown.items() if value is not None or name not in OPTIONAL}


def _brief(task: Task) -> dict[str, Any]:
    return {name: value for name, value in _whole(task).items() if name in BRIEF}


async def list_tasks(ctx: Ctx) -> Any:
    """List tasks, newest first."""
    query = ctx.request.query
    if (status := query.get("status")) not in (None, "pending", "processing", *ENDED):
        raise Invalid(f"Invalid status value: {status}")
    if (kind := query.get("type")) not in (None, IMPORT, LOCATION, OLD_IMPORT):
        raise Invalid(f"Invalid type value: {kind}")
    return await list_page(ctx, Task, lambda _ctx: (), listing=LISTING, view=_brief)


async def show_task(ctx: Ctx, task_id: str) -> Any:
    """Show a task."""

    def look(tx: Connection) -> Task:
        try:
            return db.get(tx, Task, task_id)
        except NotFound:
            raise NotFound(message=f"Failed to find task {task_id}.") from None

    return _whole(await ctx.service.kernel.db.read_inline(look))


async def delete_task(ctx: Ctx, task_id: str) -> Any:
    """Refused: tasks go by themselves."""
    raise MethodNotAllowed(
        "This operation is currently not permitted on Tasks. They are auto deleted after reaching the time based on their "
        "expires_at property.",
        headers={"Allow": "GET"},
    )


async def list_image_tasks(ctx: Ctx, image_id: str) -> Any:
    """List the tasks of an image."""
    image = await look_up(ctx, image_id, "get_image")

    def look(tx: Connection) -> list[Task]:
        return db.find(tx, Task, Task.table.c.image_id == image.id, order=(Task.table.c.created_at,))

    return {"tasks": [_whole(task) for task in await ctx.service.kernel.db.read(look)]}


class ImportInput(Struct):
    """What the older way of importing takes."""

    import_from: str
    import_from_format: str
    image_properties: dict[str, Any]


class NewTask(Struct):
    """A task that is asked for."""

    type: Literal["import"]
    input: ImportInput


async def create_task(ctx: Ctx, body: NewTask) -> Response:
    """Import an image that is yet to be registered from an http or https URL."""
    task = await ctx.service.import_new(ctx, body.input)
    return Response(201, _whole(task), {"Location": f"/v2/tasks/{task.id}"})


endpoints = [
    Endpoint("GET", "/v2/tasks", list_tasks, "tasks_api_access", resource=Task),
    Endpoint("POST", "/v2/tasks", create_task, "tasks_api_access", NewTask, status=201, resource=Task),
    Endpoint("GET", "/v2/tasks/{task_id}", show_task, "tasks_api_access", resource=Task),
    Endpoint("DELETE", "/v2/tasks/{task_id}", delete_task, "tasks_api_access", status=405, resource=Task),
    Endpoint("GET", "/v2/images/{image_id}/tasks", list_image_tasks, resource=Task),
]
