"""What compute is: its calls and its rules, put together from the files that hold them."""

from cumulet.api.dialect import COMPUTE
from cumulet.api.service import Service
from cumulet.services.compute import (
    console,
    flavor,
    host,
    keypair,
    old_host,
    quota,
    retired,
    security_group,
    server_group,
    version,
)
from cumulet.services.compute.server import (
    create,
    delete,
    fixed_ip,
    instance_action,
    interface,
    lock,
    metadata,
    password,
    power,
    rebuild,
    resize,
    resource,
    show,
    snapshot,
    unserved,
)

MODULES = (
    version, flavor, keypair, quota, server_group, host, old_host, console, create, show, delete, power, lock, metadata,
    interface, snapshot, rebuild, resize, instance_action, fixed_ip, password, security_group, unserved, retired,
)  # fmt: skip

SERVICE = Service(
    type="compute",
    upstream="nova",
    ports=("compute",),
    dialect=COMPUTE,
    microversions=version.MICROVERSIONS,
    endpoints=version.also_old([endpoint for module in MODULES for endpoint in module.endpoints]),
    needs=("image", "network", "placement"),
    rules={name: text for module in (*MODULES[1:], resource) for name, text in module.RULES.items()},
    request_id_header="X-Compute-Request-Id",
)
