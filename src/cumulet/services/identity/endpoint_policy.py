"""Which policy goes for which endpoints (OS-ENDPOINT-POLICY): one of its own, one of its service in its region or in a region
above, or one of its service.

    HEAD|GET|PUT|DELETE /v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}
    HEAD|GET|PUT|DELETE /v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}
    HEAD|GET|PUT|DELETE /v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}
    GET /v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints
    GET /v3/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, false, insert, or_, select, update

from cumulet.api.crud import enveloped, everything, list_page
from cumulet.api.http import Endpoint as Call
from cumulet.api.http import Response
from cumulet.api.query import Listing
from cumulet.api.resource import Resource
from cumulet.core import db
from cumulet.core.errors import NotFound
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.endpoint import Endpoint
from cumulet.services.identity.policy import Policy
from cumulet.services.identity.region import Region, downwards, region_tree, upwards
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, undomained
from cumulet.services.identity.service import Service
from cumulet.services.identity.tables import policy_association

BASE = "/v3/policies/{policy_id}/OS-ENDPOINT-POLICY"
PARTS: Mapping[str, type[Resource]] = {
    "policy_id": Policy, "endpoint_id": Endpoint, "service_id": Service, "region_id": Region,
}  # fmt: skip
PLACES = {
    # what an association may be of, as rules name it, and where it is
    "endpoint": f"{BASE}/endpoints/{{endpoint_id}}",
    "service": f"{BASE}/services/{{service_id}}",
    "region_and_service": f"{BASE}/services/{{service_id}}/regions/{{region_id}}",
}

RULES = {
    "identity:get_policy_for_endpoint": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:list_endpoints_for_policy": undomained(ADMIN_OR_SYSTEM_READER),
    **{f"identity:check_policy_association_for_{place}": undomained(ADMIN_OR_SYSTEM_READER) for place in PLACES},
    **{f"identity:create_policy_association_for_{place}": undomained(ADMIN) for place in PLACES},
    **{f"identity:delete_policy_association_for_{place}": undomained(ADMIN) for place in PLACES},
}

_c = policy_association.c


def _of(ids: Mapping[str, str]) -> dict[str, str]:
    """What an association is of, as its row says it."""
    return {name: ids.get(name, "") for name in ("endpoint_id", "service_id", "region_id")}


def _need(tx: Connection, ids: Mapping[str, str]) -> None:
    """NotFound unless all that is named is there."""
    for name, cls in PARTS.items():
        if name in ids:
            db.get(tx, cls, ids[name])


async def check_association(ctx: Ctx, **ids: str) -> Response:
    """Tell whether a policy is associated with an endpoint, a service, or a service in a region."""

    def look(tx: Connection) -> bool:
        _need(tx, ids)
        row = {"policy_id": ids["policy_id"], **_of(ids)}
        return tx.execute(select(policy_association).filter_by(**row)).first() is not None

    if not await ctx.service.kernel.db.read_inline(look):
        raise NotFound(message="Could not find policy association.")
    return Response(204)


async def associate(ctx: Ctx, **ids: str) -> Response:
    """Associate a policy with an endpoint, a service, or a service in a region; another one's place is taken."""

    def store(tx: Connection) -> None:
        _need(tx, ids)
        row, policy = _of(ids), {"policy_id": ids["policy_id"]}
        if not tx.execute(update(policy_association).filter_by(**row).values(policy)).rowcount:
            tx.execute(insert(policy_association).values({**row, **policy}))

    await ctx.service.write(store)
    return Response(204)


async def dissociate(ctx: Ctx, **ids: str) -> Response:
    """Remove an association of a policy, if there is one."""

    def remove(tx: Connection) -> None:
        _need(tx, ids)
        tx.execute(delete(policy_association).filter_by(policy_id=ids["policy_id"], **_of(ids)))

    await ctx.service.write(remove)
    return Response(204)


async def list_endpoints(ctx: Ctx, policy_id: str) -> Any:
    """List the endpoints that a policy is associated with: themselves, by their service, or by a region they are below."""
    matching = await ctx.service.kernel.db.read_inline(_endpoints_of, policy_id)
    return await list_page(ctx, Endpoint, everything, listing=Listing(sort=(("id", "asc"),)), extra=[matching])


def _endpoints_of(tx: Connection, policy_id: str) -> ColumnElement[bool]:
    db.get(tx, Policy, policy_id)
    e = Endpoint.table.c
    rows = tx.execute(select(policy_association).where(_c.policy_id == policy_id)).all()
    above = region_tree(tx) if any(row.region_id for row in rows) else {}
    arms: list[ColumnElement[bool]] = [false()]
    for row in rows:
        if row.endpoint_id:
            arms.append(e.id == row.endpoint_id)
        elif row.region_id:
            arms.append(and_(e.service_id == row.service_id, e.region_id.in_(downwards(row.region_id, above))))
        else:
            arms.append(e.service_id == row.service_id)
    return or_(*arms)


async def show_policy(ctx: Ctx, endpoint_id: str) -> Any:
    """Show the policy that goes for an endpoint."""
    return enveloped(ctx, Policy, await ctx.service.kernel.db.read_inline(_policy_of, endpoint_id))


def _policy_of(tx: Connection, endpoint_id: str) -> Policy:
    endpoint = db.get(tx, Endpoint, endpoint_id)
    own, of_service = _c.endpoint_id == endpoint_id, _c.service_id == endpoint.service_id
    rows = tx.execute(select(policy_association).where(or_(own, of_service))).all()
    policies = {(row.endpoint_id, row.region_id): row.policy_id for row in rows}
    regions = upwards(endpoint.region_id, region_tree(tx)) if rows else []
    for place in ((endpoint_id, ""), *(("", region) for region in regions), ("", "")):
        if place in policies:
            return db.get(tx, Policy, policies[place])
    raise NotFound(message=f"No policy is associated with endpoint {endpoint_id}.")


def _calls(place: str, path: str) -> list[Call]:
    made: list[tuple[str, str, Callable[..., Awaitable[Any]]]] = [
        ("GET", "check", check_association), ("PUT", "create", associate), ("DELETE", "delete", dissociate),
    ]  # fmt: skip
    return [
        Call(method, path, serve, f"identity:{verb}_policy_association_for_{place}") for method, verb, serve in made
    ]


endpoints = [
    *(call for place, path in PLACES.items() for call in _calls(place, path)),
    Call("GET", f"{BASE}/endpoints", list_endpoints, "identity:list_endpoints_for_policy", resource=Endpoint),
    Call(
        "GET", "/v3/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy", show_policy, "identity:get_policy_for_endpoint",
        resource=Policy,
    ),
]  # fmt: skip
