"""Placement as the program sees it: its port, its calls, its rules."""

from cumulet.api.dialect import PLACEMENT
from cumulet.api.service import Service
from cumulet.services.placement import allocation, candidate, inventory, name, resource_provider, version

PARTS = (version, resource_provider, inventory, name, allocation, candidate)

SERVICE = Service(
    type="placement",
    upstream="placement",
    ports=("placement",),
    dialect=PLACEMENT,
    endpoints=[endpoint for part in PARTS for endpoint in part.endpoints],
    microversions=version.MICROVERSIONS,
    rules={rule: text for part in PARTS for rule, text in part.RULES.items()},
)
