"""The JSON Home document of the API: what can be found where, by names that stay (draft-nottingham-json-home-03).

It holds the calls that are served, by the relations that upstream gives them.
"""

import re
from collections.abc import Iterable
from typing import Any

BASE = "https://docs.openstack.org/api/openstack-identity/3"
PARAMETER = re.compile(r"\{(\w+)\}")

RELATIONS: tuple[tuple[str, str], ...] = (
    # path below /v3, relation (that of an extension after its name)
    ("/OS-EP-FILTER/endpoint_groups", "OS-EP-FILTER/endpoint_groups"),
    ("/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}", "OS-EP-FILTER/endpoint_group"),
    ("/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/endpoints", "OS-EP-FILTER/endpoints_in_endpoint_group"),
    (
        "/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects",
        "OS-EP-FILTER/projects_associated_with_endpoint_group",
    ),
    (
        "/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}",
        "OS-EP-FILTER/endpoint_group_to_project_association",
    ),
    ("/OS-EP-FILTER/endpoints/{endpoint_id}/projects", "OS-EP-FILTER/endpoint_projects"),
    ("/OS-EP-FILTER/projects/{project_id}/endpoint_groups", "OS-EP-FILTER/project_endpoint_groups"),
    ("/OS-EP-FILTER/projects/{project_id}/endpoints", "OS-EP-FILTER/project_endpoints"),
    ("/OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}", "OS-EP-FILTER/project_endpoint"),
    ("/OS-FEDERATION/identity_providers", "OS-FEDERATION/identity_providers"),
    ("/OS-FEDERATION/identity_providers/{idp_id}", "OS-FEDERATION/identity_provider"),
    ("/OS-FEDERATION/identity_providers/{idp_id}/protocols", "OS-FEDERATION/identity_provider_protocols"),
    ("/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}", "OS-FEDERATION/identity_provider_protocol"),
    (
        "/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/auth",
        "OS-FEDERATION/identity_provider_protocol_auth",
    ),
    ("/OS-FEDERATION/mappings", "OS-FEDERATION/mappings"),
    ("/OS-FEDERATION/mappings/{mapping_id}", "OS-FEDERATION/mapping"),
    ("/OS-FEDERATION/saml2/metadata", "OS-FEDERATION/metadata"),
    ("/OS-FEDERATION/service_providers", "OS-FEDERATION/service_providers"),
    ("/OS-FEDERATION/service_providers/{service_provider_id}", "OS-FEDERATION/service_provider"),
    (
        "/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/inherited_to_projects",
        "OS-INHERIT/domain_group_roles_inherited_to_projects",
    ),
    (
        "/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
        "OS-INHERIT/domain_group_role_inherited_to_projects",
    ),
    (
        "/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/inherited_to_projects",
        "OS-INHERIT/domain_user_roles_inherited_to_projects",
    ),
    (
        "/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
        "OS-INHERIT/domain_user_role_inherited_to_projects",
    ),
    (
        "/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
        "OS-INHERIT/project_group_role_inherited_to_projects",
    ),
    (
        "/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
        "OS-INHERIT/project_user_role_inherited_to_projects",
    ),
    ("/OS-OAUTH1/access_token", "OS-OAUTH1/access_tokens"),
    ("/OS-OAUTH1/authorize/{request_token_id}", "OS-OAUTH1/authorize_request_token"),
    ("/OS-OAUTH1/consumers", "OS-OAUTH1/consumers"),
    ("/OS-OAUTH1/consumers/{consumer_id}", "OS-OAUTH1/consumer"),
    ("/OS-OAUTH1/request_token", "OS-OAUTH1/request_tokens"),
    ("/OS-OAUTH2/token", "OS-OAUTH2/token"),
    ("/OS-REVOKE/events", "OS-REVOKE/events"),
    ("/OS-SIMPLE-CERT/ca", "OS-SIMPLE-CERT/ca_certificate"),
    ("/OS-SIMPLE-CERT/certificates", "OS-SIMPLE-CERT/certificates"),
    ("/OS-TRUST/trusts", "OS-TRUST/trusts"),
    ("/OS-TRUST/trusts/{trust_id}", "OS-TRUST/trust"),
    ("/OS-TRUST/trusts/{trust_id}/roles", "OS-TRUST/trust_roles"),
    ("/OS-TRUST/trusts/{trust_id}/roles/{role_id}", "OS-TRUST/trust_role"),
    (
        "/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso",
        "OS-FEDERATION/identity_providers_websso",
    ),
    ("/auth/OS-FEDERATION/saml2", "OS-FEDERATION/saml2"),
    ("/auth/OS-FEDERATION/saml2/ecp", "OS-FEDERATION/ecp"),
    ("/auth/OS-FEDERATION/websso/{protocol_id}", "OS-FEDERATION/websso"),
    ("/auth/catalog", "auth_catalog"),
    ("/auth/domains", "OS-FEDERATION/domains"),
    ("/auth/domains", "auth_domains"),
    ("/auth/projects", "OS-FEDERATION/projects"),
    ("/auth/projects", "auth_projects"),
    ("/auth/system", "auth_system"),
    ("/auth/tokens", "auth_tokens"),
    ("/auth/tokens/OS-PKI/revoked", "OS-PKI/revocations"),
    ("/credentials", "credentials"),
    ("/credentials/{credential_id}", "credential"),
    ("/domains", "domains"),
    ("/domains/config/default", "domain_config_default"),
    ("/domains/config/{group}/default", "domain_config_default_group"),
    ("/domains/config/{group}/{option}/default", "domain_config_default_option"),
    ("/domains/{domain_id}", "domain"),
    ("/domains/{domain_id}/config", "domain_config"),
    ("/domains/{domain_id}/config/{group}", "domain_config_group"),
    ("/domains/{domain_id}/config/{group}/{option}", "domain_config_option"),
    ("/domains/{domain_id}/groups/{group_id}/roles", "domain_group_roles"),
    ("/domains/{domain_id}/groups/{group_id}/roles/{role_id}", "domain_group_role"),
    ("/domains/{domain_id}/users/{user_id}/roles", "domain_user_roles"),
    ("/domains/{domain_id}/users/{user_id}/roles/{role_id}", "domain_user_role"),
    ("/ec2tokens", "OS-EC2/ec2tokens"),
    ("/endpoints", "endpoints"),
    ("/endpoints/{endpoint_id}", "endpoint"),
    ("/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy", "OS-ENDPOINT-POLICY/endpoint_policy"),
    ("/groups", "groups"),
    ("/groups/{group_id}", "group"),
    ("/groups/{group_id}/users", "group_users"),
    ("/groups/{group_id}/users/{user_id}", "group_user"),
    ("/limits", "limits"),
    ("/limits/model", "limit_model"),
    ("/limits/{limit_id}", "limit"),
    ("/policies", "policies"),
    ("/policies/{policy_id}", "policy"),
    ("/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints", "OS-ENDPOINT-POLICY/policy_endpoints"),
    (
        "/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}",
        "OS-ENDPOINT-POLICY/endpoint_policy_association",
    ),
    ("/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}", "OS-ENDPOINT-POLICY/service_policy_association"),
    (
        "/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}",
        "OS-ENDPOINT-POLICY/region_and_service_policy_association",
    ),
    ("/projects", "projects"),
    ("/projects/{project_id}", "project"),
    ("/projects/{project_id}/groups/{group_id}/roles", "project_group_roles"),
    ("/projects/{project_id}/groups/{group_id}/roles/{role_id}", "project_group_role"),
    ("/projects/{project_id}/tags/{value}", "project_tags"),
    ("/projects/{project_id}/users/{user_id}/roles", "project_user_roles"),
    ("/projects/{project_id}/users/{user_id}/roles/{role_id}", "project_user_role"),
    ("/regions", "regions"),
    ("/regions/{region_id}", "region"),
    ("/registered_limits", "registered_limits"),
    ("/registered_limits/{registered_limit_id}", "registered_limit"),
    ("/role_assignments", "role_assignments"),
    ("/role_inferences", "role_inferences"),
    ("/roles", "roles"),
    ("/roles/{prior_role_id}/implies", "implied_roles"),
    ("/roles/{prior_role_id}/implies/{implied_role_id}", "implied_role"),
    ("/roles/{role_id}", "role"),
    ("/s3tokens", "s3tokens/s3tokens"),
    ("/services", "services"),
    ("/services/{service_id}", "service"),
    ("/system/groups/{group_id}/roles", "system_group_roles"),
    ("/system/groups/{group_id}/roles/{role_id}", "system_group_role"),
    ("/system/users/{user_id}/roles", "system_user_roles"),
    ("/system/users/{user_id}/roles/{role_id}", "system_user_role"),
    ("/users", "users"),
    ("/users/{user_id}", "user"),
    ("/users/{user_id}/OS-OAUTH1/access_tokens", "OS-OAUTH1/user_access_tokens"),
    ("/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}", "OS-OAUTH1/user_access_token"),
    ("/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles", "OS-OAUTH1/user_access_token_roles"),
    ("/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles/{role_id}", "OS-OAUTH1/user_access_token_role"),
    ("/users/{user_id}/access_rules", "access_rules"),
    ("/users/{user_id}/access_rules/{access_rule_id}", "access_rule"),
    ("/users/{user_id}/application_credentials", "application_credentials"),
    ("/users/{user_id}/application_credentials/{application_credential_id}", "application_credential"),
    ("/users/{user_id}/credentials/OS-EC2", "OS-EC2/user_credentials"),
    ("/users/{user_id}/credentials/OS-EC2/{credential_id}", "OS-EC2/user_credential"),
    ("/users/{user_id}/groups", "user_groups"),
    ("/users/{user_id}/password", "user_change_password"),
    ("/users/{user_id}/projects", "user_projects"),
)
OF_EXTENSION = {
    "access_token_id": "OS-OAUTH1",
    "consumer_id": "OS-OAUTH1",
    "endpoint_group_id": "OS-EP-FILTER",
    "idp_id": "OS-FEDERATION",
    "mapping_id": "OS-FEDERATION",
    "protocol_id": "OS-FEDERATION",
    "request_token_id": "OS-OAUTH1",
    "service_provider_id": "OS-FEDERATION",
    "trust_id": "OS-TRUST",
}
"""Parameters that an extension defines."""
CALLED = {
    "group": "config_group",
    "implied_role_id": "role_id",
    "option": "config_option",
    "prior_role_id": "role_id",
    "value": "tag_value",
}
"""Parameters that are called otherwise in paths than in relations."""
EXPERIMENTAL = ("/limits", "/registered_limits")


def home(paths: Iterable[str], prefix: str) -> dict[str, Any]:
    """The document, of those calls whose paths are served, with paths that begin with `prefix`."""
    served = {PARAMETER.sub("{}", path.removeprefix("/v3")) for path in paths}
    found = {}
    for path, relation in RELATIONS:
        if PARAMETER.sub("{}", path) not in served:
            continue
        extension, _, name = relation.rpartition("/")
        found[_named(extension, "rel", name)] = _resource(path, prefix)
    return {"resources": found}


def _resource(path: str, prefix: str) -> dict[str, Any]:
    names = PARAMETER.findall(path)
    resource: dict[str, Any] = {"href": prefix + path}
    if names:
        parameters = {n: _named(OF_EXTENSION.get(n, ""), "param", CALLED.get(n, n)) for n in names}
        resource = {"href-template": prefix + path, "href-vars": parameters}
    if path.startswith(EXPERIMENTAL):
        resource["hints"] = {"status": "experimental"}
    return resource


def _named(extension: str, kind: str, name: str) -> str:
    return f"{BASE}/ext/{extension}/1.0/{kind}/{name}" if extension else f"{BASE}/{kind}/{name}"
