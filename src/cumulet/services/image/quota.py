"""What a project may have of images, and what it has: the four resources that limits can be registered for.

The limits are identity's (`registered_limits` and `limits` for the service `image`). A resource without a limit is not
limited. What is used is counted in the transaction that adds to it. Sizes are in MiB.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, Table, case, func, select

from cumulet.core.errors import QuotaExceeded
from cumulet.core.quota import UNLIMITED

COUNT = "image_count_total"
SIZE = "image_size_total"
STAGED = "image_stage_total"
UPLOADING = "image_count_uploading"
RESOURCES = (SIZE, STAGED, COUNT, UPLOADING)

MEMBERS = PROPERTIES = TAGS = 128
"""How many of each one image may have."""


def used(tx: Connection, images: Table, project_id: str) -> dict[str, int]:
    """How much a project has of each resource."""
    c = images.c
    arriving = c.status.in_(("saving", "uploading", "importing"))
    staged = c.status.in_(("uploading", "importing"))
    size = func.coalesce(c.size, 0)
    row = tx.execute(
        select(
            func.count(),
            func.sum(case((c.status.in_(("active", "deactivated")), size), else_=0)),
            func.sum(case((staged, size), else_=0)),
            func.sum(case((arriving, 1), else_=0)),
        ).where(c.owner == project_id)
    ).one()
    count, stored, waiting, uploading = (int(value or 0) for value in row)
    return {SIZE: stored >> 20, STAGED: waiting >> 20, COUNT: count, UPLOADING: uploading}


def check(tx: Connection, images: Table, limits: Mapping[str, int], project_id: str, **more: int) -> None:
    """QuotaExceeded if the project would have more of a resource than `limits` gives it; `more` by the resources' names
    (0: is it over already?)."""
    watched = {name: limits[name] for name in more if limits.get(name, UNLIMITED) != UNLIMITED}
    if not watched:
        return
    have = used(tx, images, project_id)
    for name, limit in watched.items():
        if have[name] + more[name] > limit:
            raise QuotaExceeded(name, limit=limit, used=have[name], requested=more[name])
