"""Configuration of single domains, which the drivers of their users read.

    PUT|PATCH|GET|DELETE /v3/domains/{id}/config
    PATCH|GET|DELETE /v3/domains/{id}/config/{group}, /v3/domains/{id}/config/{group}/{option}
    GET /v3/domains/config/default, /v3/domains/config/{group}/default, /v3/domains/config/{group}/{option}/default

Only the options of `OPTIONS` can be set. Sensitive ones are stored sealed and never shown; where the value of another option
holds `%(password)s`, they are put there for the driver alone (`domain_config`).
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, json
from sqlalchemy import ColumnElement, Connection, delete, insert, select

from cumulet.api.http import Endpoint, Response
from cumulet.core.errors import Forbidden, NotFound
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.fernet import Vault
from cumulet.services.identity.project import check_domain
from cumulet.services.identity.rules import ADMIN, ADMIN_OR_SYSTEM_READER, ANYBODY, undomained
from cumulet.services.identity.tables import domain_option

log = logging.getLogger(__name__)

Config = dict[str, dict[str, Any]]
"""Options by group."""

DEFAULT_DOMAIN = "default"
COMPLIANCE = "security_compliance"
READABLE = ("password_regex", "password_regex_description")
"""What anybody may know of the rules for passwords."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # the options that a domain may set, with what holds where it does not
    "identity": {"driver": "sql", "list_limit": None},
    "ldap": {
        "url": "ldap://localhost",
        "user": None,
        "suffix": "cn=example,cn=com",
        "query_scope": "one",
        "page_size": 0,
        "alias_dereferencing": "default",
        "debug_level": None,
        "chase_referrals": None,
        "user_tree_dn": None,
        "user_filter": None,
        "user_objectclass": "inetOrgPerson",
        "user_id_attribute": "cn",
        "user_name_attribute": "sn",
        "user_mail_attribute": "mail",
        "user_description_attribute": "description",
        "user_pass_attribute": "userPassword",
        "user_enabled_attribute": "enabled",
        "user_enabled_invert": False,
        "user_enabled_mask": 0,
        "user_enabled_default": "True",
        "user_attribute_ignore": ["default_project_id"],
        "user_default_project_id_attribute": None,
        "user_enabled_emulation": False,
        "user_enabled_emulation_dn": None,
        "user_enabled_emulation_use_group_config": False,
        "user_additional_attribute_mapping": [],
        "group_tree_dn": None,
        "group_filter": None,
        "group_objectclass": "groupOfNames",
        "group_id_attribute": "cn",
        "group_name_attribute": "ou",
        "group_members_are_ids": False,
        "group_member_attribute": "member",
        "group_desc_attribute": "description",
        "group_attribute_ignore": [],
        "group_additional_attribute_mapping": [],
        "tls_cacertfile": None,
        "tls_cacertdir": None,
        "use_tls": False,
        "tls_req_cert": "demand",
        "use_pool": True,
        "pool_size": 10,
        "pool_retry_max": 3,
        "pool_retry_delay": 0.1,
        "pool_connection_timeout": -1,
        "pool_connection_lifetime": 600,
        "use_auth_pool": True,
        "auth_pool_size": 100,
        "auth_pool_connection_lifetime": 60,
    },
}
SENSITIVE: Mapping[str, frozenset[str]] = {"identity": frozenset(), "ldap": frozenset({"password"})}

RULES = {
    "identity:get_domain_config": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:get_domain_config_default": undomained(ADMIN_OR_SYSTEM_READER),
    "identity:get_security_compliance_domain_config": ANYBODY,
    "identity:create_domain_config": undomained(ADMIN),
    "identity:update_domain_config": undomained(ADMIN),
    "identity:delete_domain_config": undomained(ADMIN),
}


class Body(Struct):
    """`{"config": {group: {option: value}}}`; of a single option: `{"config": {option: value}}`."""

    config: dict[str, Any] = {}


def refused(reason: str) -> Forbidden:
    return Forbidden(f"Invalid domain specific configuration: {reason}.")


def absent(domain_id: str, group: str = "", option: str = "") -> NotFound:
    what = f"option {option} in group {group}" if option else f"group {group}" if group else "any options"
    return NotFound(message=f"Could not find {what} in domain configuration for domain {domain_id}.")


# ---- what may be set ----------------------------------------------------------------------------------------------------


def check_name(group: str, option: str = "") -> None:
    """Forbidden unless a domain may set this."""
    if not group:
        return
    if group not in OPTIONS:
        raise refused(f"Group {group} is not supported for domain specific configurations; {' and '.join(OPTIONS)} are")
    if option and option not in OPTIONS[group] and option not in SENSITIVE[group]:
        raise refused(f"Option {option} in group {group} is not supported for domain specific configurations")


def check_config(config: Mapping[str, Any]) -> None:
    """Forbidden unless these are options that a domain may set, by group."""
    if not config:
        raise refused("No options specified")
    for group, options in config.items():
        if not options or not isinstance(options, dict):
            raise refused(f"The value of group {group} specified in the config should be a dictionary of options")
        for option in options:
            check_name(group, option)


def check_change(config: Mapping[str, Any], group: str, option: str) -> None:
    """Forbidden unless a change holds what its URL names, and that alone."""
    check_config(config)
    check_name(group, option)
    if group and set(config) != {group}:
        raise refused(f"Trying to update group {group}, so that, and only that, group must be specified in the config")
    if option and set(config[group]) != {option}:
        raise refused(
            f"Trying to update option {option} in group {group}, so that, and only that, option must be specified in"
            " the config"
        )


# ---- what is stored -----------------------------------------------------------------------------------------------------

_c = domain_option.c


def _where(domain_id: str, group: str, option: str) -> Sequence[ColumnElement[bool]]:
    conditions = [_c.domain_id == domain_id]
    if group:
        conditions.append(_c.section == group)
    if option:
        conditions.append(_c.name == option)
    return conditions


def _there(tx: Connection, domain_id: str, group: str = "", option: str = "") -> bool:
    return tx.execute(select(_c.name).where(*_where(domain_id, group, option)).limit(1)).first() is not None


def _shown(tx: Connection, domain_id: str, group: str = "", option: str = "") -> Config:
    """What is set and may be shown."""
    config: Config = {}
    chosen = (
        select(domain_option)
        .where(*_where(domain_id, group, option), _c.sealed.is_(None))
        .order_by(_c.section, _c.name)
    )
    for row in tx.execute(chosen):
        config.setdefault(row.section, {})[row.name] = json.decode(row.value)
    return config


def _store(tx: Connection, vault: Vault, domain_id: str, config: Config) -> None:
    rows = []
    for group, options in config.items():
        tx.execute(delete(domain_option).where(_c.domain_id == domain_id, _c.section == group, _c.name.in_(options)))
        for option, value in options.items():
            sensitive = option in SENSITIVE[group]
            text = json.encode(value).decode()
            rows.append({
                "domain_id": domain_id, "section": group, "name": option,
                "value": None if sensitive else text, "sealed": vault.seal(text) if sensitive else None,
            })  # fmt: skip
    tx.execute(insert(domain_option), rows)


def domain_config(tx: Connection, domain_id: str, vault: Vault) -> Config:
    """All that a domain has set, for the driver of its users: sensitive options in the clear, and put into the others where
    these hold `%(name)s`. What cannot be put together stays as it is written, with a warning."""
    config: Config = {}
    secrets: dict[str, Any] = {}
    for row in tx.execute(select(domain_option).where(_c.domain_id == domain_id)):
        value = json.decode(row.value if row.sealed is None else vault.open(row.sealed))
        config.setdefault(row.section, {})[row.name] = value
        if row.sealed is not None:
            secrets[row.name] = value
    for group, options in config.items():
        for option, value in options.items():
            if isinstance(value, str) and option not in SENSITIVE[group]:
                options[option] = _substituted(value, secrets, f"{option} of group {group} of domain {domain_id}")
    return config


def _substituted(text: str, secrets: Mapping[str, Any], which: str) -> str:
    try:
        return text % secrets
    except KeyError as error:
        log.warning("option %s refers to %s, which is not set", which, error)
    except (ValueError, TypeError):
        log.warning("option %s holds a reference that cannot be read; `%%(password)s` is one that can", which)
    return text


# ---- calls --------------------------------------------------------------------------------------------------------------


async def put_config(ctx: Ctx, id: str, body: Body) -> Response:
    """Set the configuration of a domain anew."""

    def store(tx: Connection) -> tuple[bool, Config]:
        check_domain(tx, id)
        check_config(body.config)
        there = _there(tx, id)
        tx.execute(delete(domain_option).where(_c.domain_id == id))
        _store(tx, ctx.service.vault, id, body.config)
        return there, _shown(tx, id)

    there, config = await ctx.service.write(store)
    return Response.json({"config": config}, 200 if there else 201)


async def change_config(ctx: Ctx, id: str, body: Body, group: str = "", option: str = "") -> Any:
    """Change options of a domain: any, or those of the group, or the option, that the URL names and that are set already."""
    config = {group: body.config} if option else body.config

    def store(tx: Connection) -> Config:
        check_domain(tx, id)
        check_change(config, group, option)
        if group and not _there(tx, id, group, option):
            raise absent(id, group, option)
        _store(tx, ctx.service.vault, id, config)
        return _shown(tx, id)

    return {"config": await ctx.service.write(store)}


async def show_config(ctx: Ctx, id: str, group: str = "", option: str = "") -> Any:
    """Show the options of a domain, of one of its groups, or one of them; those that are sensitive are not shown."""
    if group == COMPLIANCE:
        return _compliance(ctx, id, option)
    ctx.require("identity:get_domain_config")

    def look(tx: Connection) -> Config:
        check_domain(tx, id)
        check_name(group, option)
        return _shown(tx, id, group, option)

    config = await ctx.service.kernel.db.read_inline(look)
    if not config:
        raise absent(id, group, option)
    return {"config": config[group] if option else config}


def _compliance(ctx: Ctx, id: str, option: str) -> Any:
    """What anybody may know of the rules for passwords, which are those of all domains."""
    ctx.require("identity:get_security_compliance_domain_config")
    if id != DEFAULT_DOMAIN:
        raise refused(
            "Reading security compliance information for any domain other than the default domain is not allowed or"
            " supported"
        )
    if option and option not in READABLE:
        raise refused(f"Reading security compliance values other than {' and '.join(READABLE)} is not allowed")
    values = {name: getattr(ctx.service.kernel.settings, name) or None for name in READABLE}
    return {"config": {option: values[option]} if option else {COMPLIANCE: values}}


async def delete_config(ctx: Ctx, id: str, group: str = "", option: str = "") -> Response:
    """Remove the options of a domain, of one of its groups, or one of them."""

    def remove(tx: Connection) -> None:
        check_domain(tx, id)
        check_name(group, option)
        if group and not _there(tx, id, group, option):
            raise absent(id, group, option)
        tx.execute(delete(domain_option).where(*_where(id, group, option)))

    await ctx.service.write(remove)
    return Response(204)


async def show_default(ctx: Ctx, group: str = "", option: str = "") -> Any:
    """Show what holds where a domain sets nothing: all options, those of one group, or one."""
    check_name(group, option)
    if not group:
        return {"config": OPTIONS}
    if not option:
        return {"config": {group: OPTIONS[group]}}
    if option not in OPTIONS[group]:
        raise refused(f"Reading the default for option {option} in group {group} is not supported")
    return {"config": {option: OPTIONS[group][option]}}


_paths = [f"/v3/domains/{{id}}/config{rest}" for rest in ("", "/{group}", "/{group}/{option}")]
_defaults = [f"/v3/domains/config{rest}/default" for rest in ("", "/{group}", "/{group}/{option}")]
endpoints = [
    Endpoint("PUT", _paths[0], put_config, "identity:create_domain_config", body=Body),
    *(Endpoint("PATCH", path, change_config, "identity:update_domain_config", body=Body) for path in _paths),
    *(Endpoint("GET", path, show_config) for path in _paths),
    *(Endpoint("DELETE", path, delete_config, "identity:delete_domain_config") for path in _paths),
    *(Endpoint("GET", path, show_default, "identity:get_domain_config_default") for path in _defaults),
]
