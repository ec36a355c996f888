"""The order of the layers around the proxy's core: the outermost first. As swift's default pipeline, which its features count
on (a copy of a large object, a version of a symlink, an encrypted part).

A layer is a class with `__init__(self, service, app)` - `service` is the runtime, `app` what is further in - and
`async __call__(self, request) -> Response`. What is not its business it hands on untouched:
`return await self.app(request)` comes first in `__call__` and costs one look at the request.
"""

from collections.abc import Callable, Sequence
from typing import Any

from cumulet.services.object_store.layers.bulk import Bulk
from cumulet.services.object_store.layers.copy import Copies
from cumulet.services.object_store.layers.dlo import DynamicLargeObjects
from cumulet.services.object_store.layers.keystone_auth import KeystoneAuth
from cumulet.services.object_store.layers.listing_formats import ListingFormats
from cumulet.services.object_store.layers.slo import StaticLargeObjects
from cumulet.services.object_store.layers.symlink import Symlinks
from cumulet.services.object_store.layers.versions import Versions
from cumulet.services.object_store.layers.versions_legacy import LegacyVersions
from cumulet.services.object_store.message import Handler

LayerType = Callable[[Any, Handler], Handler]

LAYERS: Sequence[LayerType] = (
    ListingFormats,
    Bulk,
    KeystoneAuth,
    Copies,
    StaticLargeObjects,
    DynamicLargeObjects,
    LegacyVersions,
    Versions,
    Symlinks,
)
"""catch errors and gatekeeper are in proxy/front.py. Then: healthcheck, recon, listing formats, domain remap, cname lookup,
container sync, bulk, tempurl, rate limit, form POST, S3, identity (keystoneauth), static web, copy, container quotas,
account quotas, SLO, DLO, versions, symlinks, encryption, the core."""


def assemble(service: Any, core: Handler, layers: Sequence[LayerType] = LAYERS) -> Handler:
    """The core with its layers around it."""
    handler = core
    for layer in reversed(layers):
        handler = layer(service, handler)
    return handler
