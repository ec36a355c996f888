"""The image service as the program sees it."""

from cumulet.api.dialect import IMAGE
from cumulet.api.service import Service
from cumulet.services.image import discovery, image, image_data, image_member

SERVICE = Service(
    type="image",
    upstream="glance",
    ports=("image",),
    dialect=IMAGE,
    endpoints=[*discovery.endpoints, *image.endpoints, *image_data.endpoints, *image_member.endpoints],
    rules={**image.RULES, **image_member.RULES},
)
