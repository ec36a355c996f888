"""The parts that identity's policy defaults are made of, named as upstream documents them."""

from collections.abc import Mapping

ADMIN = "rule:admin_required"
SYSTEM_READER = "role:reader and system_scope:all"
ADMIN_OR_SYSTEM_READER = f"{ADMIN} or ({SYSTEM_READER})"

ANYBODY = "@"

RULES: Mapping[str, str] = {
    "admin_required": "role:admin",
    "service_role": "role:service",
    "service_or_admin": "rule:admin_required or rule:service_role",
    "owner": "user_id:%(user_id)s",
    "admin_or_owner": "rule:admin_required or rule:owner",
    "token_subject": "user_id:%(target.token.user_id)s",
    "admin_or_token_subject": "rule:admin_required or rule:token_subject",
    "service_admin_or_token_subject": "rule:service_or_admin or rule:token_subject",
    "domain_managed_target_role": (
        "'manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s"
    ),
}


def of_domain(role: str, attribute: str) -> str:
    """Whoever holds `role` on the domain that the object's attribute names."""
    return f"(role:{role} and domain_id:%({attribute})s)"


def domain_rules(kind: str, *, plural: str = "", own: str = "") -> dict[str, str]:
    """The rules of what lives in a domain: its readers see, its managers change. `own` lets further callers see one."""
    read = f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', f'target.{kind}.domain_id')}"
    write = f"{ADMIN} or {of_domain('manager', f'target.{kind}.domain_id')}"
    return {
        f"identity:get_{kind}": f"{read} or {own}" if own else read,
        f"identity:list_{plural or kind + 's'}": f"{ADMIN_OR_SYSTEM_READER} or {of_domain('reader', 'target.domain_id')}",
        f"identity:create_{kind}": write,
        f"identity:update_{kind}": write,
        f"identity:delete_{kind}": write,
    }


def system_rules(kind: str, *, plural: str = "", read: str = "") -> dict[str, str]:
    """The rules of what belongs to the whole cloud: system readers see (or whoever `read` names), admins change."""
    read = read or undomained(ADMIN_OR_SYSTEM_READER)
    return {
        f"identity:get_{kind}": read,
        f"identity:list_{plural or kind + 's'}": read,
        f"identity:create_{kind}": undomained(ADMIN),
        f"identity:update_{kind}": undomained(ADMIN),
        f"identity:delete_{kind}": undomained(ADMIN),
    }


def undomained(rule: str) -> str:
    """The rule for what concerns projects and the system: no token of a domain is good for it, whatever its roles."""
    return f"domain_id:None and ({rule})"
