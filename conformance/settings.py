"""tempest.conf, written from what was discovered. Tempest's own defaults stand where nothing is said."""

from configparser import RawConfigParser
from pathlib import Path

from discover import Found

SERVICES = {
    "nova": "compute",
    "glance": "image",
    "neutron": "network",
    "cinder": "block-storage",
    "swift": "object-store",
}
"""Tempest's names of the services it can test, and their types in the catalogue. Tests of one that is not in the
catalogue are skipped, and counted as such."""


def write(path: Path, found: Found, *, workspace: Path, timeout: int) -> None:
    """Write the file; `timeout` bounds each build and each wait for SSH, in seconds."""
    config = RawConfigParser()
    for section in (_run(found, workspace), _identity(found), _compute(found, timeout), _network(found, timeout)):
        config.read_dict(section)
    with path.open("w") as file:
        config.write(file)


def _run(found: Found, workspace: Path) -> dict[str, dict[str, object]]:
    services: dict[str, object] = {name: kind in found.services for name, kind in SERVICES.items()}
    return {
        "DEFAULT": {"log_dir": workspace / "logs", "log_file": "tempest.log", "use_stderr": False, "debug": True},
        "oslo_concurrency": {"lock_path": workspace / "lock"},
        "service_available": services | {"horizon": False},
        "enforce_scope": dict.fromkeys(("keystone", "nova", "glance", "neutron", "placement"), True),
    }


def _identity(found: Found) -> dict[str, dict[str, object]]:
    return {
        "auth": {
            "use_dynamic_credentials": True,
            "admin_username": found.username,
            "admin_password": found.password,
            "admin_project_name": found.project,
            "admin_domain_name": "Default",
            "admin_user_domain_name": "Default",
            "admin_project_domain_name": "Default",
            "default_credentials_domain_name": "Default",
        },
        "identity": {
            "uri_v3": found.auth_url,
            "auth_version": "v3",
            "region": found.region,
            "v3_endpoint_type": "public",
            "default_domain_id": "default",
        },
        "identity-feature-enabled": {"access_rules": True, "enforce_scope": True},
        "image": {"region": found.region},
        "image-feature-enabled": {"import_image": True, "image_conversion": False},
        "placement": {"region": found.region, "max_microversion": "latest"},
    }


def _compute(found: Found, timeout: int) -> dict[str, dict[str, object]]:
    compute: dict[str, object] = {
        "region": found.region,
        "min_compute_nodes": found.compute_hosts,
        "max_microversion": "latest",
        "build_timeout": timeout,
        "build_interval": 1,
        "hypervisor_type": "QEMU",
    }
    if found.images:
        compute |= {"image_ref": found.images[0], "image_ref_alt": found.images[1]}
    if found.flavors:
        compute |= {"flavor_ref": found.flavors[0], "flavor_ref_alt": found.flavors[-1]}
    features = ("vnc_console", "config_drive", "metadata_service", "console_output", "interface_attach")
    return {
        "compute": compute,
        "compute-feature-enabled": dict.fromkeys(features, True),
        "validation": {
            "run_validation": found.guest,
            "image_ssh_user": "cumulet",
            "image_alt_ssh_user": "cumulet",
            "connect_method": "floating",
            "auth_method": "keypair",
            "ssh_timeout": timeout,
            "ping_timeout": 120,
        },
    }


def _network(found: Found, timeout: int) -> dict[str, dict[str, object]]:
    return {
        "network": {
            "region": found.region,
            "public_network_id": found.external_network,
            "floating_network_name": found.external_name,
            "project_networks_reachable": False,
            "build_timeout": timeout,
        },
        "network-feature-enabled": {"ipv6": True, "port_security": True},
    }
