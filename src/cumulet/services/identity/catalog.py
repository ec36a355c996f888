"""The catalogue as tokens carry it: every enabled endpoint of every enabled service, or, for a project that endpoints or
endpoint groups are associated with (OS-EP-FILTER), those alone."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, and_, exists, or_, select

from cumulet.services.identity.endpoint import PLACE, Endpoint
from cumulet.services.identity.endpoint_group import EndpointGroup
from cumulet.services.identity.service import Service
from cumulet.services.identity.tables import endpoint_group_of_project, endpoint_of_project


class CatalogRow(Struct, frozen=True):
    """An endpoint with what the catalogue says of its service. A service without endpoints has one row with none."""

    service_id: str
    service_type: str
    service_name: str | None
    id: str | None
    interface: str | None
    region_id: str | None
    url: str | None


class Catalog(Struct, frozen=True):
    """All that catalogues are made of. `of_project` has the endpoints of those projects that have any associated."""

    rows: list[CatalogRow]
    of_project: Mapping[str, set[str]]


_s, _e = Service.table.c, Endpoint.table.c
_cut = or_(exists(select(endpoint_of_project)), exists(select(endpoint_group_of_project)))
"""Whether there is a project with endpoints of its own; asked along, so that nothing more is asked in most clouds."""
_rows = (
    select(_s.id, _s.type, _s.name, _e.id, _e.interface, _e.region_id, _e.url, _cut.label("cut"))
    .join_from(Service.table, Endpoint.table, and_(_e.service_id == _s.id, _e.enabled), isouter=True)
    .where(_s.enabled)
    .order_by(_s.type, _s.id, _e.interface)
)
_direct = select(endpoint_of_project.c.project_id, endpoint_of_project.c.endpoint_id)
_groups = select(endpoint_group_of_project.c.project_id, EndpointGroup.table.c.filters).join(
    EndpointGroup.table, EndpointGroup.table.c.id == endpoint_group_of_project.c.endpoint_group_id
)
_endpoints = select(_e.id, _e.service_id, _e.region_id, _e.interface)


def read_catalog(tx: Connection) -> Catalog:
    rows = tx.execute(_rows).all()
    of_project = _of_project(tx) if rows and rows[0].cut else {}
    return Catalog([CatalogRow(*row[:-1]) for row in rows], of_project)


def _of_project(tx: Connection) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for project_id, endpoint_id in tx.execute(_direct):
        found.setdefault(project_id, set()).add(endpoint_id)
    endpoints = tx.execute(_endpoints).all()
    for project_id, filters in tx.execute(_groups):
        if matching := {endpoint.id for endpoint in endpoints if filters.match(endpoint)}:
            found.setdefault(project_id, set()).update(matching)
    return found


def catalog_for(catalog: Catalog, project_id: str | None, user_id: str) -> list[dict[str, Any]]:
    """The catalogue of one token; endpoints that need a project are left out of a token without one."""
    chosen = catalog.of_project.get(project_id) if project_id else None
    known = {"project_id": project_id, "tenant_id": project_id, "user_id": user_id}
    services: dict[str, dict[str, Any]] = {}
    for row in catalog.rows:
        service = services.setdefault(
            row.service_id,
            {"endpoints": [], "id": row.service_id, "type": row.service_type, "name": row.service_name or ""},
        )
        if row.url is None or (chosen is not None and row.id not in chosen):
            continue
        if all(known.get(name) for name in PLACE.findall(row.url)):
            service["endpoints"].append({
                "id": row.id,
                "interface": row.interface,
                "region_id": row.region_id,
                "region": row.region_id,
                "url": PLACE.sub(lambda match: known[match[1]] or "", row.url),
            })  # fmt: skip
    return [service for service in services.values() if chosen is None or service["endpoints"]]
