"""What every cloud has: domain `default`, the roles, the admin's and a demonstration's project and user, the catalogue.

All of it is one transaction that makes what is missing and can be run at every start.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select

from cumulet.core import db
from cumulet.core.types import new_hex_id
from cumulet.services.identity.domain import Domain
from cumulet.services.identity.endpoint import Endpoint
from cumulet.services.identity.interface import Accounts, Bootstrap, CatalogEntry
from cumulet.services.identity.project import Project
from cumulet.services.identity.region import Region
from cumulet.services.identity.role import Role
from cumulet.services.identity.service import Service
from cumulet.services.identity.tables import SYSTEM, assignment, implied_role
from cumulet.services.identity.user import User

if TYPE_CHECKING:
    from cumulet.services.identity.runtime import IdentityRuntime

DEFAULT = "default"
IMPLIED = (("admin", "manager"), ("manager", "member"), ("member", "reader"))
ROLES = ("admin", "manager", "member", "reader", "service")
DESCRIPTIONS = {"admin": "The administrator's project.", "demo": "A project to try things in.", "service": "Services."}


async def ensure_accounts(identity: "IdentityRuntime", wanted: Bootstrap) -> Accounts:
    """Make what is missing, bring the catalogue up to date."""
    there = await identity.kernel.db.read(_users)
    passwords = {"admin": wanted.admin_password, "demo": wanted.demo_password}
    hashes = {name: await identity.passwords.hash(text) for name, text in passwords.items() if name not in there}
    return await identity.write(_ensure, wanted, hashes)


def _users(tx: Connection) -> set[str]:
    return set(tx.execute(select(User.table.c.name).where(User.table.c.domain_id == DEFAULT)).scalars())


def _ensure(tx: Connection, wanted: Bootstrap, hashes: Mapping[str, str]) -> Accounts:
    if db.first(tx, Domain, Project.table.c.id == DEFAULT) is None:
        db.insert(tx, Domain.new(None, id=DEFAULT, name="Default", description="The default domain"))
    created = _find(tx, User, "admin") is None
    roles = {name: _role(tx, name) for name in ROLES}
    _imply(tx, roles)
    projects = {name: _project(tx, name, text) for name, text in DESCRIPTIONS.items()}
    users = {name: _user(tx, name, hashes, projects) for name in ("admin", "demo")}
    for target_type, target_id in (("project", projects["admin"]), ("domain", DEFAULT), ("system", SYSTEM)):
        _assign(tx, users["admin"], target_type, target_id, roles["admin"])
    if created:
        _assign(tx, users["demo"], "project", projects["demo"], roles["member"])
    _ensure_catalog(tx, wanted.region, wanted.endpoints)
    return Accounts(projects["admin"], users["admin"], projects["demo"], users["demo"], created)


def _find(tx: Connection, cls: type[User] | type[Project], name: str) -> str | None:
    c = cls.table.c
    found: str | None = tx.execute(select(c.id).where(c.domain_id == DEFAULT, c.name == name)).scalar()
    return found


def _role(tx: Connection, name: str) -> str:
    c = Role.table.c
    found = db.first(tx, Role, c.name == name, c.domain_id == "")
    if found is None:
        found = Role.new(None, id=new_hex_id(), name=name, option_values={"immutable": True})
        db.insert(tx, found)
    return found.id


def _imply(tx: Connection, roles: Mapping[str, str]) -> None:
    for prior, implied in IMPLIED:
        row = {"prior_role_id": roles[prior], "implied_role_id": roles[implied]}
        if tx.execute(select(implied_role).filter_by(**row)).first() is None:
            tx.execute(insert(implied_role).values(row))


def _project(tx: Connection, name: str, description: str) -> str:
    found = _find(tx, Project, name)
    if found is None:
        found = new_hex_id()
        row = Project.new(None, id=found, name=name, domain_id=DEFAULT, parent_id=DEFAULT, description=description)
        db.insert(tx, row)
    return found


def _user(tx: Connection, name: str, hashes: Mapping[str, str], projects: Mapping[str, str]) -> str:
    found = _find(tx, User, name)
    if found is None:
        found = new_hex_id()
        row = User.new(
            None, id=found, name=name, domain_id=DEFAULT, default_project_id=projects[name], password_hash=hashes[name]
        )
        db.insert(tx, row)
    return found


def _assign(tx: Connection, user_id: str, target_type: str, target_id: str, role_id: str) -> None:
    row = {
        "actor_type": "user", "actor_id": user_id, "target_type": target_type, "target_id": target_id,
        "role_id": role_id, "inherited": False,
    }  # fmt: skip
    if tx.execute(select(assignment).filter_by(**row)).first() is None:
        tx.execute(insert(assignment).values(row))


def _ensure_catalog(tx: Connection, region: str, entries: Sequence[CatalogEntry]) -> None:
    if db.first(tx, Region, Region.table.c.id == region) is None:
        db.insert(tx, Region.new(None, id=region))
    for entry in entries:
        s, e = Service.table.c, Endpoint.table.c
        service = db.first(tx, Service, s.type == entry.service_type, s.name == entry.service_name)
        if service is None:
            service = Service.new(None, id=new_hex_id(), type=entry.service_type, name=entry.service_name)
            db.insert(tx, service)
        where = (e.service_id == service.id, e.interface == entry.interface, e.region_id == region)
        endpoint = db.first(tx, Endpoint, *where)
        if endpoint is None:
            row = Endpoint.new(
                None, id=new_hex_id(), service_id=service.id, interface=entry.interface, url=entry.url, region_id=region
            )
            db.insert(tx, row)
        elif endpoint.url != entry.url:
            db.update(tx, Endpoint, endpoint.id, url=entry.url)
