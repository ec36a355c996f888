"""The order of the layers around the proxy's core: the outermost first. As swift's default pipeline, which its features count
on (a copy of a large object, a version of a symlink, an encrypted part).

A layer is a class with `__init__(self, service, app)` - `service` is the runtime, `app` what is further in - and
`__call__(self, request) -> Awaitable[Response]`. That takes one look at the request, and where it is not the layer's business,
returns `self.app(request)`; only where it is, a coroutine of the layer's own. There are more than twenty layers, and most of
them have nothing to do with most requests: so each of those costs a call, and makes nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

from cumulet.services.object_store.layers.account_quotas import AccountQuotas
from cumulet.services.object_store.layers.bulk import Bulk
from cumulet.services.object_store.layers.cname_lookup import cname_lookup
from cumulet.services.object_store.layers.container_quotas import ContainerQuotas
from cumulet.services.object_store.layers.container_sync import ContainerSync
from cumulet.services.object_store.layers.copy import Copies
from cumulet.services.object_store.layers.crossdomain import CrossDomain
from cumulet.services.object_store.layers.dlo import DynamicLargeObjects
from cumulet.services.object_store.layers.domain_remap import domain_remap
from cumulet.services.object_store.layers.encryption import encryption
from cumulet.services.object_store.layers.etag_quoter import EtagQuoter
from cumulet.services.object_store.layers.formpost import FormPost
from cumulet.services.object_store.layers.healthcheck import HealthCheck
from cumulet.services.object_store.layers.keystone_auth import KeystoneAuth
from cumulet.services.object_store.layers.list_endpoints import list_endpoints
from cumulet.services.object_store.layers.listing_formats import ListingFormats
from cumulet.services.object_store.layers.name_check import name_check
from cumulet.services.object_store.layers.ratelimit import ratelimit
from cumulet.services.object_store.layers.read_only import ReadOnly
from cumulet.services.object_store.layers.recon import recon
from cumulet.services.object_store.layers.slo import StaticLargeObjects
from cumulet.services.object_store.layers.staticweb import StaticWeb
from cumulet.services.object_store.layers.symlink import Symlinks
from cumulet.services.object_store.layers.tempurl import TempUrls
from cumulet.services.object_store.layers.versions import Versions
from cumulet.services.object_store.layers.versions_legacy import LegacyVersions
from cumulet.services.object_store.message import Handler
from cumulet.services.object_store.s3.layer import S3

LayerType = Callable[[Any, Handler], Handler]

LAYERS: Sequence[LayerType] = (
    HealthCheck,
    recon,
    CrossDomain,
    list_endpoints,
    name_check,
    cname_lookup,  # what a request is about must be known before all that asks for it
    domain_remap,
    EtagQuoter,
    ListingFormats,
    ContainerSync,
    Bulk,
    TempUrls,
    ratelimit,
    ReadOnly,
    FormPost,
    S3,
    KeystoneAuth,
    StaticWeb,
    Copies,
    ContainerQuotas,
    AccountQuotas,
    StaticLargeObjects,
    DynamicLargeObjects,
    LegacyVersions,
    Versions,
    Symlinks,
    encryption,
)
"""catch errors and gatekeeper are in proxy/front.py. Then: healthcheck, recon, crossdomain, listed endpoints, name check, cname
lookup, domain remap, ETag quotes, listing formats, container sync, bulk, tempurl, rate limit, read only, form POST, S3,
identity (keystoneauth), static web, copy, container quotas, account quotas, SLO, DLO, versions, symlinks, encryption, the
core. Some are functions, which leave a layer out that no setting asks for."""

INNER: Sequence[LayerType] = (Symlinks, encryption)
"""The layers that know how an object is kept, for what the program does with objects by itself."""


def assemble(service: Any, core: Handler, layers: Sequence[LayerType] = LAYERS) -> Handler:
    """The core with its layers around it."""
    handler = _method(core)
    for layer in reversed(layers):
        made = layer(service, handler)
        handler = handler if made is handler else _method(made)
    return handler


def _method(handler: Any) -> Handler:
    """What calling an object comes to. Said so it is called at once; through the object it costs as much again as the look that
    most layers take."""
    method: Handler = handler.__call__
    return method
