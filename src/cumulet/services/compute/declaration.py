"""What compute is: its calls and its rules, put together from the files that hold them."""

from cumulet.api.dialect import COMPUTE
from cumulet.api.service import Service
from cumulet.services.compute import flavor, keypair, quota, server_group, version
from cumulet.services.compute.server import create, delete, instance_action, power, resource, show

MODULES = (version, flavor, keypair, quota, server_group, create, show, delete, power, instance_action)

SERVICE = Service(
    type="compute",
    upstream="nova",
    ports=("compute",),
    dialect=COMPUTE,
    microversions=version.MICROVERSIONS,
    endpoints=[endpoint for module in MODULES for endpoint in module.endpoints],
    needs=("image", "network", "placement"),
    rules={name: text for module in (*MODULES[1:], resource) for name, text in module.RULES.items()},
    request_id_header="X-Compute-Request-Id",
)
