"""The image service as the program sees it."""

from cumulet.api.dialect import IMAGE, IMAGE_REGISTRY
from cumulet.api.service import Service
from cumulet.services.image import (
    cache,
    discovery,
    image,
    image_data,
    image_import,
    image_member,
    image_tag,
    image_update,
    location,
    metadef,
    metadef_namespace,
    metadef_object,
    metadef_property,
    metadef_resource_type,
    metadef_tag,
    registry,
    rules,
    schema,
    store,
    task,
)  # fmt: skip

SERVICE = Service(
    type="image",
    upstream="glance",
    ports=("image",),
    dialect=IMAGE,
    endpoints=[
        *discovery.endpoints,
        *cache.endpoints,
        *schema.endpoints,
        *image.endpoints,
        *image_data.endpoints,
        *image_import.endpoints,
        *image_member.endpoints,
        *image_tag.endpoints,
        *image_update.endpoints,
        *location.endpoints,
        *store.endpoints,
        *task.endpoints,
        *metadef_namespace.endpoints,
        *metadef_object.endpoints,
        *metadef_property.endpoints,
        *metadef_tag.endpoints,
        *metadef_resource_type.endpoints,
    ],
    needs=("identity", "object-store"),
    rules={
        **rules.PARTS,
        **cache.RULES,
        **image.RULES,
        **image_import.RULES,
        **image_member.RULES,
        **location.RULES,
        **metadef.RULES,
        **store.RULES,
        **task.RULES,
    },
)

REGISTRY = Service(
    type="image-registry",
    upstream="glance-registry",
    ports=("image-registry",),
    dialect=IMAGE_REGISTRY,
    endpoints=registry.endpoints,
    rules=registry.RULES,
    within="image",
    listed=False,
)
"""The same images behind the port that the registry had."""
