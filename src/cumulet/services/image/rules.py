"""The parts that the image service's policy defaults are made of, as upstream's `glance/policies` has them.

Everything here belongs to projects: a token of the system or of a domain is refused, whatever its roles.
"""

from collections.abc import Mapping

ADMIN = "rule:context_is_admin"
SERVICE = "rule:service_api"
OWNER = "project_id:%(project_id)s"
MEMBER = f"{ADMIN} or (role:member and {OWNER})"
READER = f"{ADMIN} or (role:reader and {OWNER})"

PARTS: Mapping[str, str] = {
    "context_is_admin": "role:admin",
    "service_api": "role:service or role:admin",
    "project_scope": "not system_scope:all and domain_id:None",
}


def in_project(rules: Mapping[str, str]) -> dict[str, str]:
    """The same rules for tokens of a project alone (upstream: `scope_types=['project']`)."""
    return {name: f"rule:project_scope and ({text})" for name, text in rules.items()}
