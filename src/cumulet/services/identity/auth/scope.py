"""What a token is to be for: the `scope` of a login."""

from functools import cache
from typing import Any, Literal

from msgspec import Struct, field
from sqlalchemy import ColumnElement, Connection, Select, String, bindparam, select

from cumulet.core.errors import Forbidden, Invalid, Unauthorized
from cumulet.services.identity.assignments import roles_on
from cumulet.services.identity.auth.by_trust import trusted_place
from cumulet.services.identity.auth.method import Proof
from cumulet.services.identity.auth.place import NOWHERE, Place
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.claims import APPLICATION_CREDENTIAL
from cumulet.services.identity.project import Project
from cumulet.services.identity.tables import SYSTEM
from cumulet.services.identity.user import User


class DomainRef(Struct):
    id: str | None = None
    name: str | None = None

    @property
    def named(self) -> tuple[bool, str | None]:
        """Whether it is named by its id, and the id or name."""
        return (True, self.id) if self.id is not None else (False, self.name)


class ProjectScope(Struct):
    id: str | None = None
    name: str | None = None
    domain: DomainRef | None = None


class SystemScope(Struct):
    all: Literal[True]


class Scope(Struct):
    project: ProjectScope | None = None
    domain: DomainRef | None = None
    system: SystemScope | None = None
    unscoped: dict[str, Any] | None = None
    trust: dict[str, Any] | None = field(default=None, name="OS-TRUST:trust")


async def place_of(ctx: Ctx, proof: Proof, asked: Scope | str | None) -> Place:
    """What the token is to be for. Whether its user has a role there is seen when the token is resolved."""
    if proof.scope is not None:
        return _only_place(proof, asked)
    if isinstance(asked, str) or (asked is not None and asked.unscoped is not None):
        return NOWHERE
    if asked is None:
        return await ctx.service.kernel.db.read_inline(_default_place, proof.user_id)
    given = [s for s in (asked.project, asked.domain, asked.system, asked.trust) if s is not None]
    if len(given) != 1:
        raise Invalid("A scope is exactly one of project, domain, system and unscoped.")
    if asked.trust is not None:
        return await ctx.service.kernel.db.read_inline(trusted_place, proof.user_id, asked.trust)
    if asked.system is not None:
        return Place("system", SYSTEM)
    return await ctx.service.kernel.db.read_inline(_named_place, asked)


def _only_place(proof: Proof, asked: Scope | str | None) -> Place:
    """Where a proof is good for that is itself a delegation. An application credential's may not even be asked for."""
    assert proof.scope is not None
    if asked is not None and proof.via == APPLICATION_CREDENTIAL:
        if proof.since is not None:
            raise Forbidden(rule="Using an application credential token to create a scoped token is not allowed")
        raise Unauthorized(
            "Error authenticating with application credential: Application credentials cannot request a scope."
        )
    return Place(*proof.scope)


def _default_place(tx: Connection, user_id: str) -> Place:
    """The user's default project, if he can use it; no scope else."""
    u, p = User.table.c, Project.table.c
    statement = select(p.id).where(u.id == user_id, p.id == u.default_project_id, p.enabled, ~p.is_domain)
    project_id = tx.execute(statement).scalar()
    if project_id is None or not roles_on(tx, user_id, "project", project_id):
        return NOWHERE
    return Place("project", project_id)


def _named_place(tx: Connection, asked: Scope) -> Place:
    """The project or domain that was named; Unauthorized where there is none, as for one that he may not use."""
    if asked.domain is not None:
        if asked.domain.id is None and asked.domain.name is None:
            raise Invalid("Expecting to find id or name in domain. The server could not comply with the request.")
        domain_id = domain_named(tx, asked.domain)
        if domain_id is None:
            raise Unauthorized()
        return Place("domain", domain_id)
    project = asked.project
    assert project is not None
    if project.id is not None:
        found = tx.execute(_project, {"id": project.id}).scalar()
    elif project.name is None or project.domain is None:
        raise Invalid(
            "Expecting to find id, or name and domain, in project. The server could not comply with the request."
        )
    else:
        by_id, domain = project.domain.named
        found = tx.execute(_project_named(by_id), {"name": project.name, "domain": domain}).scalar()
    if found is None:
        raise Unauthorized()
    return Place("project", found)


def in_domain(column: ColumnElement[str], by_id: bool) -> ColumnElement[bool]:
    """The condition for what lives in the domain that the parameter `domain` names."""
    d, named = Project.table.alias().c, bindparam("domain", type_=String())
    return column == (named if by_id else select(d.id).where(d.name == named, d.is_domain).scalar_subquery())


_c = Project.table.c
_project = select(_c.id).where(_c.id == bindparam("id"), ~_c.is_domain)


@cache
def _project_named(by_id: bool) -> Select[tuple[str]]:
    return select(_c.id).where(_c.name == bindparam("name"), in_domain(_c.domain_id, by_id), ~_c.is_domain)


def domain_named(tx: Connection, ref: DomainRef) -> str | None:
    """The id of the domain that is meant, if there is one."""
    c = Project.table.c
    where = c.id == ref.id if ref.id is not None else c.name == ref.name
    found: str | None = tx.execute(select(c.id).where(where, c.is_domain)).scalar()
    return found
