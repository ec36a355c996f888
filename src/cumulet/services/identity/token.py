"""Tokens: POST|GET|HEAD|DELETE /v3/auth/tokens; GET /v3/auth/catalog, /v3/auth/projects, /v3/auth/domains, /v3/auth/system."""

import base64
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field
from sqlalchemy import Connection, select

from cumulet.api.crud import list_page
from cumulet.api.http import Endpoint, Response
from cumulet.core.errors import Forbidden, Invalid, NotFound, Unauthorized
from cumulet.services.identity.assignments import roles_on
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.domain import Domain
from cumulet.services.identity.endpoint import catalog_for
from cumulet.services.identity.fernet import Claims
from cumulet.services.identity.fields import Password
from cumulet.services.identity.project import Project, held_by, of_user
from cumulet.services.identity.revocation import microseconds
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, ANYBODY
from cumulet.services.identity.session import Session
from cumulet.services.identity.tables import SYSTEM, assignment
from cumulet.services.identity.user import User

RULES = {
    "identity:validate_token": f"{ADMIN_OR_SYSTEM_READER} or rule:service_role or rule:token_subject",
    "identity:check_token": f"{ADMIN_OR_SYSTEM_READER} or rule:token_subject",
    "identity:revoke_token": f"{ADMIN} or rule:token_subject",
    "identity:get_auth_catalog": ANYBODY,
    "identity:get_auth_projects": ANYBODY,
    "identity:get_auth_domains": ANYBODY,
    "identity:get_auth_system": ANYBODY,
}
METHODS = ("password", "token")


class DomainRef(Struct):
    id: str | None = None
    name: str | None = None


class UserLogin(Struct):
    password: Password
    id: str | None = None
    name: str | None = None
    domain: DomainRef | None = None


class PasswordMethod(Struct):
    user: UserLogin


class TokenMethod(Struct):
    id: str


class Identity(Struct):
    methods: Annotated[list[str], Meta(min_length=1, max_length=8)]
    password: PasswordMethod | None = None
    token: TokenMethod | None = None


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


class Auth(Struct):
    identity: Identity
    scope: Scope | Literal["unscoped"] | None = None


class AuthBody(Struct):
    auth: Auth


class Proof(Struct):
    """Who has shown that he is who, by which methods; `since` continues a token's time and chain."""

    user_id: str
    methods: tuple[str, ...]
    issued_at: int
    since: Claims | None = None


async def issue_token(ctx: Ctx, body: AuthBody) -> Response:
    """Log in: a token for who shows that he is a user, for the scope he asks for."""
    runtime = ctx.service
    proof = await _prove(ctx, body.auth.identity)
    scope, scope_id = await _scope(ctx, proof.user_id, body.auth.scope)
    own = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
    since = proof.since
    claims = Claims(
        user_id=proof.user_id,
        methods=proof.methods,
        issued_at=proof.issued_at,
        expires_at=since.expires_at if since else proof.issued_at + runtime.lifetime * 1_000_000,
        audit_ids=(own, since.audit_ids[-1]) if since else (own,),
        scope=scope,
        scope_id=scope_id,
    )
    session = await runtime.resolve(claims)
    reply = await _body(ctx, session)
    return Response.json(reply, 201, **{"X-Subject-Token": runtime.keys.seal(claims), "Vary": "X-Auth-Token"})


async def _prove(ctx: Ctx, identity: Identity) -> Proof:
    """Check every method that is used; all must tell of the same user."""
    unknown = [m for m in identity.methods if m not in METHODS]
    if unknown:
        raise Unauthorized(f"Attempted to authenticate with an unsupported method: {', '.join(sorted(unknown))[:200]}.")
    proofs = []
    if "password" in identity.methods:
        if identity.password is None:
            raise Invalid("Expecting to find password in identity. The server could not comply with the request.")
        proofs.append(await _by_password(ctx, identity.password.user))
    if "token" in identity.methods:
        if identity.token is None:
            raise Invalid("Expecting to find token in identity. The server could not comply with the request.")
        proofs.append(await _by_token(ctx, identity.token.id))
    if len({proof.user_id for proof in proofs}) != 1:
        raise Unauthorized()
    methods = dict.fromkeys(m for proof in proofs for m in proof.methods)
    first, last = proofs[0], proofs[-1]
    return Proof(first.user_id, tuple(methods), min(first.issued_at, last.issued_at), last.since)


async def _by_password(ctx: Ctx, login: UserLogin) -> Proof:
    # The time is taken first: a change of the password while this one is verified voids the token as well.
    at = microseconds()
    if login.id is None and (login.name is None or login.domain is None):
        raise Invalid(
            "Expecting to find id, or name and domain, in user. The server could not comply with the request."
        )
    row = await ctx.service.kernel.db.read_inline(_login_row, login)
    right = await ctx.service.passwords.verify(row.password_hash if row is not None else None, login.password)
    if row is None or not right or not row.enabled:
        raise Unauthorized()
    return Proof(row.id, ("password",), at)


def _login_row(tx: Connection, login: UserLogin) -> Any:
    c = User.table.c
    statement = select(c.id, c.password_hash, c.enabled)
    if login.id is not None:
        return tx.execute(statement.where(c.id == login.id)).first()
    assert login.domain is not None
    domain_id = _domain_id(tx, login.domain)
    return tx.execute(statement.where(c.name == login.name, c.domain_id == domain_id)).first() if domain_id else None


def _domain_id(tx: Connection, ref: DomainRef) -> str | None:
    c = Project.table.c
    where = c.id == ref.id if ref.id is not None else c.name == ref.name
    found: str | None = tx.execute(select(c.id).where(where, c.is_domain)).scalar()
    return found


async def _by_token(ctx: Ctx, token: str) -> Proof:
    session = await ctx.service.session(token)
    methods = ("token", *(m for m in session.claims.methods if m != "token"))
    return Proof(session.user.id, methods, microseconds(), session.claims)


# ---- scope --------------------------------------------------------------------------------------------------------------


async def _scope(ctx: Ctx, user_id: str, asked: Scope | str | None) -> tuple[str, str]:
    """(kind, id) of what the token is to be for. Whether the user has a role there is seen when the token is resolved."""
    if isinstance(asked, str) or (asked is not None and asked.unscoped is not None):
        return "", ""
    if asked is None:
        return await ctx.service.kernel.db.read_inline(_default_scope, user_id)
    given = [s for s in (asked.project, asked.domain, asked.system, asked.trust) if s is not None]
    if len(given) != 1:
        raise Invalid("A scope is exactly one of project, domain, system and unscoped.")
    if asked.trust is not None:
        raise Unauthorized()
    if asked.system is not None:
        return "system", SYSTEM
    return await ctx.service.kernel.db.read_inline(_named_scope, asked)


def _default_scope(tx: Connection, user_id: str) -> tuple[str, str]:
    """The user's default project, if he can use it; no scope else."""
    u, p = User.table.c, Project.table.c
    statement = select(p.id).where(u.id == user_id, p.id == u.default_project_id, p.enabled, ~p.is_domain)
    project_id = tx.execute(statement).scalar()
    if project_id is None or not roles_on(tx, user_id, "project", project_id):
        return "", ""
    return "project", project_id


def _named_scope(tx: Connection, asked: Scope) -> tuple[str, str]:
    """The project or domain that was named; Unauthorized where there is none, as for one that he may not use."""
    if asked.domain is not None:
        if asked.domain.id is None and asked.domain.name is None:
            raise Invalid("Expecting to find id or name in domain. The server could not comply with the request.")
        domain_id = _domain_id(tx, asked.domain)
        if domain_id is None:
            raise Unauthorized()
        return "domain", domain_id
    project = asked.project
    assert project is not None
    c = Project.table.c
    if project.id is not None:
        found = tx.execute(select(c.id).where(c.id == project.id, ~c.is_domain)).scalar()
    elif project.name is None or project.domain is None:
        raise Invalid(
            "Expecting to find id, or name and domain, in project. The server could not comply with the request."
        )
    else:
        domain_id = _domain_id(tx, project.domain) or ""
        where = (c.name == project.name, c.domain_id == domain_id, ~c.is_domain)
        found = tx.execute(select(c.id).where(*where)).scalar() if domain_id else None
    if found is None:
        raise Unauthorized()
    return "project", found


# ---- a token's body -----------------------------------------------------------------------------------------------------


def _time(microseconds_: int) -> str:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds_)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def _body(ctx: Ctx, session: Session) -> dict[str, Any]:
    """What is told of a token."""
    claims = session.claims
    token: dict[str, Any] = {
        "methods": claims.methods,
        "user": session.user,
        "audit_ids": claims.audit_ids,
        "expires_at": _time(claims.expires_at),
        "issued_at": _time(claims.issued_at),
    }
    if session.project is not None:
        token |= {"project": session.project, "is_domain": False}
    elif session.domain is not None:
        token["domain"] = session.domain
    elif session.system:
        token["system"] = {"all": True}
    if claims.scope:
        token["roles"] = session.roles
        if "nocatalog" not in ctx.request.query:
            token["catalog"] = await _catalog(ctx, session.project.id if session.project else None, session.user.id)
    return {"token": token}


async def _catalog(ctx: Ctx, project_id: str | None, user_id: str) -> list[dict[str, Any]]:
    return catalog_for(await ctx.service.catalog(), project_id, user_id)


async def _subject(ctx: Ctx, rule: str) -> tuple[str, Session]:
    """The token that the request is about, if the caller may do this with it."""
    token = ctx.request.headers.get("X-Subject-Token") or ""
    try:
        session = await ctx.service.session(token)
    except Unauthorized:
        raise NotFound(message="Failed to validate token") from None
    ctx.require(rule, {"target.token.user_id": session.user.id})
    return token, session


async def show_token(ctx: Ctx) -> Response:
    """Validate a token and show what it is for."""
    rule = "identity:check_token" if ctx.request.method == "HEAD" else "identity:validate_token"
    token, session = await _subject(ctx, rule)
    reply = await _body(ctx, session)
    return Response.json(reply, 200, **{"X-Subject-Token": token, "Vary": "X-Auth-Token"})


async def revoke_token(ctx: Ctx) -> Response:
    """Revoke a token."""
    _, session = await _subject(ctx, "identity:revoke_token")
    await ctx.service.revoke(session.claims)
    return Response(204)


# ---- what a token's holder may have -------------------------------------------------------------------------------------


async def show_catalog(ctx: Ctx) -> Any:
    """Show the catalogue as the caller's token sees it."""
    caller = ctx.caller
    if not (caller.project_id or caller.domain_id or caller.system):
        raise Forbidden(rule="identity:get_auth_catalog")
    catalog = await _catalog(ctx, caller.project_id, caller.user_id)
    return {"catalog": catalog, "links": {"self": ctx.request.url}}


async def list_own_projects(ctx: Ctx) -> Any:
    """List the projects that the caller can have a token for."""
    return await list_page(ctx, Project, lambda _: [*held_by(ctx.caller.user_id), Project.table.c.enabled])


async def list_own_domains(ctx: Ctx) -> Any:
    """List the domains that the caller can have a token for."""
    a, c = assignment.c, Project.table.c
    held = select(a.target_id).where(of_user(ctx.caller.user_id), a.target_type == "domain", ~a.inherited)
    return await list_page(ctx, Domain, lambda _: [c.id.in_(held), c.is_domain, c.enabled])


async def list_own_system(ctx: Ctx) -> Any:
    """List the systems that the caller can have a token for: all of it, or none."""
    roles = await ctx.service.kernel.db.read_inline(roles_on, ctx.caller.user_id, "system", SYSTEM)
    return {"system": [{"all": True}] if roles else [], "links": {"self": ctx.request.url}}


endpoints = [
    Endpoint("POST", "/v3/auth/tokens", issue_token, body=AuthBody, status=201, auth=False),
    Endpoint("GET", "/v3/auth/tokens", show_token),
    Endpoint("DELETE", "/v3/auth/tokens", revoke_token),
    Endpoint("GET", "/v3/auth/catalog", show_catalog, "identity:get_auth_catalog"),
    Endpoint("GET", "/v3/auth/projects", list_own_projects, "identity:get_auth_projects", resource=Project),
    Endpoint("GET", "/v3/auth/domains", list_own_domains, "identity:get_auth_domains", resource=Domain),
    Endpoint("GET", "/v3/auth/system", list_own_system, "identity:get_auth_system"),
]
