"""Object storage as the program sees it.

What an API of objects cannot leave to the pipeline of the others is done by its own front (`proxy/front.py`): names are any
bytes, a path may need no token (a public container, a temporary URL) and replies are not JSON. So the endpoints only tell
what there is.
"""

from collections.abc import Awaitable, Callable

from cumulet.api.dialect import OBJECT_STORE
from cumulet.api.http import Endpoint, Response
from cumulet.api.service import Service
from cumulet.core.context import Context
from cumulet.services.object_store.runtime import ObjectStoreRuntime

ACCOUNT, CONTAINER, OBJECT = "/v1/{account}", "/v1/{account}/{container}", "/v1/{account}/{container}/{object:rest}"
CALLS = (
    ("GET", "/info", "Show what this object storage can do and its limits."),
    ("GET", ACCOUNT, "List containers."),
    ("HEAD", ACCOUNT, "Show the metadata of an account."),
    ("POST", ACCOUNT, "Create, update and delete metadata of an account; delete many objects."),
    ("PUT", ACCOUNT, "Upload an archive, whose files become objects."),
    ("DELETE", ACCOUNT, "Delete an account (an operator), or many objects."),
    ("GET", CONTAINER, "List objects."),
    ("HEAD", CONTAINER, "Show the metadata of a container."),
    ("PUT", CONTAINER, "Create a container, or upload an archive into it."),
    ("POST", CONTAINER, "Create, update and delete metadata of a container, or upload an object by a form."),
    ("DELETE", CONTAINER, "Delete an empty container."),
    ("OPTIONS", CONTAINER, "Say which other sites' pages may use a container (CORS)."),
    ("GET", OBJECT, "Download an object, or parts of it."),
    ("HEAD", OBJECT, "Show the metadata of an object."),
    ("PUT", OBJECT, "Upload an object, or copy one."),
    ("POST", OBJECT, "Replace the metadata of an object."),
    ("COPY", OBJECT, "Copy an object."),
    ("DELETE", OBJECT, "Delete an object."),
    ("OPTIONS", OBJECT, "Say which other sites' pages may use an object (CORS)."),
)


def _endpoint(method: str, path: str, sentence: str) -> Endpoint:
    return Endpoint(method, path, _serve(sentence), auth=False)


def _serve(sentence: str) -> Callable[..., Awaitable[Response]]:
    async def serve(ctx: Context[ObjectStoreRuntime], **names: str) -> Response:
        return await ctx.service.answer(ctx.request)

    serve.__doc__ = sentence
    return serve


SERVICE = Service(
    type="object-store",
    upstream="swift",
    ports=("object-store",),
    dialect=OBJECT_STORE,
    endpoints=[_endpoint(*call) for call in CALLS],
    needs=("identity",),
    free_names=("x-amz-meta-", "x-account-meta-", "x-container-meta-", "x-object-meta-"),
    whole=True,
)
