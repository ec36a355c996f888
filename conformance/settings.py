"""tempest.conf, written from what was discovered. Tempest's own defaults stand where nothing is said.

Every feature of the services is switched on, also what Cumulet does not have: a test that is skipped tells nothing of it.
"""

from configparser import RawConfigParser
from pathlib import Path

from discover import RESELLER, Found

SERVICES = {
    "nova": "compute",
    "glance": "image",
    "neutron": "network",
    "cinder": "block-storage",
    "swift": "object-store",
}
"""Tempest's names of the services it can test, and their types in the catalogue. Tests of one that is not in the
catalogue are skipped, and counted as such."""
COMPUTE_FEATURES = (
    "attach_encrypted_volume", "block_migration_for_live_migration", "can_migrate_between_any_hosts", "change_password",
    "cold_migration", "config_drive", "console_output", "disk_config", "enable_instance_password",
    "hostname_fqdn_sanitization", "ide_bus", "interface_attach", "live_migrate_back_and_forth", "live_migration",
    "metadata_service", "pause", "personality", "rescue", "resize", "serial_console", "share_attachments", "shelve",
    "shelve_migrate", "snapshot", "spice_console", "stable_rescue", "suspend", "swap_volume", "vnc_console",
    "volume_backed_live_migration", "volume_multiattach", "vtpm_live_migration",
)  # fmt: skip
IMAGE_FEATURES = (
    "do_secure_hash", "http_store_enabled", "image_conversion", "image_format_enforcement", "import_image",
    "manage_locations", "os_glance_reserved", "store_weight_enabled",
)  # fmt: skip
IDENTITY_FEATURES = ("access_rules", "enforce_scope", "external_idp", "security_compliance", "trust")
NETWORK_FEATURES = (
    "floating_ips", "ipv6", "ipv6_subnet_attributes", "port_admin_state_change", "port_security", "qos_min_bw_and_pps",
)  # fmt: skip


def write(path: Path, found: Found, *, workspace: Path, timeout: int) -> None:
    """Write the file; `timeout` bounds each build and each wait for SSH, in seconds."""
    config = RawConfigParser()
    sections = (
        _run(found, workspace),
        _identity(found),
        _compute(found, timeout),
        _network(found, timeout),
        _objects(found),
    )
    for section in sections:
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
            "user_lockout_failure_attempts": 2,
            "user_lockout_duration": 5,
            "user_unique_last_password_count": 2,
        },
        "identity-feature-enabled": dict.fromkeys(IDENTITY_FEATURES, True),
        "image": {"region": found.region, "image_caching_enabled": True},
        "image-feature-enabled": dict.fromkeys(IMAGE_FEATURES, True),
        "placement": {"region": found.region, "max_microversion": "latest"},
    }


def _compute(found: Found, timeout: int) -> dict[str, dict[str, object]]:
    compute: dict[str, object] = {
        "region": found.region,
        "min_compute_nodes": found.compute_hosts,
        "max_microversion": "latest",
        "build_timeout": timeout,
        "build_interval": 1,
        "shelved_offload_time": 0,
        "volume_device_name": "vdb",
        "hypervisor_type": found.hypervisor,
    }
    if found.images:
        compute |= {"image_ref": found.images[0], "image_ref_alt": found.images[1]}
    if found.flavors:
        compute |= {"flavor_ref": found.flavors[0], "flavor_ref_alt": found.flavors[-1]}
    return {
        "compute": compute,
        "compute-feature-enabled": {
            **dict.fromkeys(COMPUTE_FEATURES, True),
            "nova_policy_roles": "admin,manager,member,reader,service",
            "scheduler_enabled_filters": "all",
        },
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
        "network-feature-enabled": {**dict.fromkeys(NETWORK_FEATURES, True), "qos_placement_physnet": "public"},
    }


def _objects(found: Found) -> dict[str, dict[str, object]]:
    """Containers are only synchronised where the cloud shares a realm with another one, so that is not tested."""
    return {
        "object-storage": {"region": found.region, "operator_role": "member", "reseller_admin_role": RESELLER},
        "object-storage-feature-enabled": {
            **dict.fromkeys(("discoverability", "object_versioning"), True),
            "container_sync": False,
            "discoverable_apis": "all",
        },
    }
