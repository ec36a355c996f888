"""What a project's catalogue is cut down to: endpoints and endpoint groups associated with projects (OS-EP-FILTER).

    HEAD|GET|PUT|DELETE /v3/OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}
    HEAD|GET|PUT|DELETE /v3/OS-EP-FILTER/endpoint_groups/{group_id}/projects/{project_id}
    GET /v3/OS-EP-FILTER/projects/{project_id}/endpoints, .../endpoint_groups
    GET /v3/OS-EP-FILTER/endpoints/{endpoint_id}/projects
    GET /v3/OS-EP-FILTER/endpoint_groups/{group_id}/endpoints, .../projects

`catalog.py` makes the catalogue of it.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, insert, or_, select

from cumulet.api.crud import everything, list_page
from cumulet.api.http import Endpoint as Call
from cumulet.api.http import Response
from cumulet.api.query import Listing
from cumulet.api.resource import Resource
from cumulet.core import db
from cumulet.core.errors import Conflict, NotFound
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.endpoint import Endpoint
from cumulet.services.identity.endpoint_group import EndpointGroup
from cumulet.services.identity.project import Project
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, undomained
from cumulet.services.identity.tables import endpoint_group_of_project, endpoint_of_project

BASE = "/v3/OS-EP-FILTER"
LISTING = Listing(sort=(("id", "asc"),))

RULES = {
    "identity:list_projects_for_endpoint": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:check_endpoint_in_project": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:list_endpoints_for_project": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:add_endpoint_to_project": undomained(ADMIN),
    "identity:remove_endpoint_from_project": undomained(ADMIN),
    "identity:list_projects_associated_with_endpoint_group": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:list_endpoints_associated_with_endpoint_group": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:list_endpoint_groups_for_project": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:get_endpoint_group_in_project": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:add_endpoint_group_to_project": undomained(ADMIN),
    "identity:remove_endpoint_group_from_project": undomained(ADMIN),
}


# ---- associations -------------------------------------------------------------------------------------------------------


def _there(tx: Connection, table: Table, row: dict[str, str]) -> bool:
    return tx.execute(select(table).filter_by(**row)).first() is not None


async def _find(ctx: Ctx, table: Table, row: dict[str, str], *needed: tuple[type[Resource], str]) -> None:
    """NotFound unless all that is named is there, and associated."""

    def look(tx: Connection) -> bool:
        for cls, id in needed:
            db.get(tx, cls, id)
        return _there(tx, table, row)

    if not await ctx.service.kernel.db.read_inline(look):
        raise _apart(row)


def _apart(row: dict[str, str]) -> NotFound:
    return NotFound(message="There is no association of " + " and ".join(f"{n} {id}" for n, id in row.items()) + ".")


async def _add(ctx: Ctx, table: Table, row: dict[str, str], *needed: tuple[type[Resource], str]) -> Response:
    def add(tx: Connection) -> None:
        for cls, id in needed:
            db.get(tx, cls, id)
        if _there(tx, table, row):
            raise Conflict("Conflict occurred attempting to store an association with a project - Duplicate entry.")
        tx.execute(insert(table).values(row))

    await ctx.service.write(add)
    return Response(204)


async def _remove(ctx: Ctx, table: Table, row: dict[str, str], *needed: tuple[type[Resource], str]) -> Response:
    def remove(tx: Connection) -> None:
        for cls, id in needed:
            db.get(tx, cls, id)
        if not tx.execute(delete(table).filter_by(**row)).rowcount:
            raise _apart(row)

    await ctx.service.write(remove)
    return Response(204)


async def check_endpoint(ctx: Ctx, project_id: str, endpoint_id: str) -> Response:
    """Tell whether an endpoint is associated with a project."""
    row = {"endpoint_id": endpoint_id, "project_id": project_id}
    await _find(ctx, endpoint_of_project, row, (Endpoint, endpoint_id), (Project, project_id))
    return Response(204)


async def add_endpoint(ctx: Ctx, project_id: str, endpoint_id: str) -> Response:
    """Associate an endpoint with a project."""
    row = {"endpoint_id": endpoint_id, "project_id": project_id}
    return await _add(ctx, endpoint_of_project, row, (Endpoint, endpoint_id), (Project, project_id))


async def remove_endpoint(ctx: Ctx, project_id: str, endpoint_id: str) -> Response:
    """Take an endpoint away from a project."""
    return await _remove(ctx, endpoint_of_project, {"endpoint_id": endpoint_id, "project_id": project_id})


async def show_group(ctx: Ctx, group_id: str, project_id: str) -> Any:
    """Show the association of an endpoint group with a project."""
    row = {"endpoint_group_id": group_id, "project_id": project_id}
    await _find(ctx, endpoint_group_of_project, row, (Project, project_id), (EndpointGroup, group_id))
    return {"project_endpoint_group": {**row, "links": {"self": f"{ctx.request.base_url}{ctx.request.path}"}}}


async def add_group(ctx: Ctx, group_id: str, project_id: str) -> Response:
    """Associate an endpoint group with a project."""
    row = {"endpoint_group_id": group_id, "project_id": project_id}
    return await _add(ctx, endpoint_group_of_project, row, (Project, project_id), (EndpointGroup, group_id))


async def remove_group(ctx: Ctx, group_id: str, project_id: str) -> Response:
    """Take an endpoint group away from a project."""
    row = {"endpoint_group_id": group_id, "project_id": project_id}
    return await _remove(ctx, endpoint_group_of_project, row, (Project, project_id), (EndpointGroup, group_id))


# ---- lists --------------------------------------------------------------------------------------------------------------


async def list_endpoints_of_project(ctx: Ctx, project_id: str) -> Any:
    """List the endpoints of a project: those associated with it and those of its endpoint groups."""

    def look(tx: Connection) -> list[EndpointGroup]:
        db.get(tx, Project, project_id)
        return db.find(tx, EndpointGroup, _groups_of(project_id))

    groups = await ctx.service.kernel.db.read_inline(look)
    direct = select(endpoint_of_project.c.endpoint_id).where(endpoint_of_project.c.project_id == project_id)
    matching = [and_(*group.filters.conditions()) for group in groups]
    return await _page(ctx, Endpoint, or_(Endpoint.table.c.id.in_(direct), *matching))


def _groups_of(project_id: str) -> ColumnElement[bool]:
    c, id = endpoint_group_of_project.c, EndpointGroup.table.c.id
    chosen: ColumnElement[bool] = id.in_(select(c.endpoint_group_id).where(c.project_id == project_id))
    return chosen


async def _page(ctx: Ctx, cls: type[Resource], *where: ColumnElement[bool]) -> Any:
    return await list_page(ctx, cls, everything, listing=LISTING, extra=where)


async def list_groups_of_project(ctx: Ctx, project_id: str) -> Any:
    """List the endpoint groups of a project."""
    await ctx.service.kernel.db.read_inline(db.get, Project, project_id)
    return await _page(ctx, EndpointGroup, _groups_of(project_id))


async def list_projects_of_endpoint(ctx: Ctx, endpoint_id: str) -> Any:
    """List the projects that an endpoint is associated with."""
    await ctx.service.kernel.db.read_inline(db.get, Endpoint, endpoint_id)
    c = endpoint_of_project.c
    return await _page(ctx, Project, Project.table.c.id.in_(select(c.project_id).where(c.endpoint_id == endpoint_id)))


async def list_projects_of_group(ctx: Ctx, group_id: str) -> Any:
    """List the projects that an endpoint group is associated with."""
    await ctx.service.kernel.db.read_inline(db.get, EndpointGroup, group_id)
    c = endpoint_group_of_project.c
    chosen = select(c.project_id).where(c.endpoint_group_id == group_id)
    return await _page(ctx, Project, Project.table.c.id.in_(chosen))


async def list_endpoints_of_group(ctx: Ctx, group_id: str) -> Any:
    """List the endpoints that an endpoint group matches."""
    group = await ctx.service.kernel.db.read_inline(db.get, EndpointGroup, group_id)
    return await _page(ctx, Endpoint, *group.filters.conditions())


_endpoint = f"{BASE}/projects/{{project_id}}/endpoints/{{endpoint_id}}"
_group = f"{BASE}/endpoint_groups/{{group_id}}"
_member = f"{_group}/projects/{{project_id}}"
endpoints = [
    Call("GET", _endpoint, check_endpoint, "identity:check_endpoint_in_project"),
    Call("PUT", _endpoint, add_endpoint, "identity:add_endpoint_to_project"),
    Call("DELETE", _endpoint, remove_endpoint, "identity:remove_endpoint_from_project"),
    Call(
        "GET", f"{BASE}/projects/{{project_id}}/endpoints", list_endpoints_of_project,
        "identity:list_endpoints_for_project", resource=Endpoint,
    ),
    Call(
        "GET", f"{BASE}/projects/{{project_id}}/endpoint_groups", list_groups_of_project,
        "identity:list_endpoint_groups_for_project", resource=EndpointGroup,
    ),
    Call(
        "GET", f"{BASE}/endpoints/{{endpoint_id}}/projects", list_projects_of_endpoint,
        "identity:list_projects_for_endpoint", resource=Project,
    ),
    Call("GET", _member, show_group, "identity:get_endpoint_group_in_project"),
    Call("PUT", _member, add_group, "identity:add_endpoint_group_to_project"),
    Call("DELETE", _member, remove_group, "identity:remove_endpoint_group_from_project"),
    Call(
        "GET", f"{_group}/projects", list_projects_of_group,
        "identity:list_projects_associated_with_endpoint_group", resource=Project,
    ),
    Call(
        "GET", f"{_group}/endpoints", list_endpoints_of_group,
        "identity:list_endpoints_associated_with_endpoint_group", resource=Endpoint,
    ),
]  # fmt: skip
