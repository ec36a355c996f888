"""Whether an upload in parts has become an object already. A program that is killed while it completes one leaves both: the
object, and what stood for the upload. To abort that would take the object's data.
"""

from cumulet.services.object_store.message import Handler, Response, ask
from cumulet.services.object_store.s3.lifecycle_register import entries, own_request
from cumulet.services.object_store.s3.request import SYSMETA


async def made_of(
    app: Handler, account: str, bucket: str, key: str, upload: str, *, begun: str, versions: bool
) -> Response | None:
    """What a HEAD tells of the object that was made of an upload, or of its version; None where there is none. `begun` is
    when, as listings tell times: no version from before then is looked at."""
    head = await ask(app, own_request("HEAD", account, bucket, key))
    if _is_of(head, upload):
        return head
    if versions:
        async for one in entries(app, account, bucket, prefix=key, versions="true"):
            if one["name"] != key:
                break
            if one["last_modified"] >= begun:
                query = {"version-id": one.get("version_id") or "null"}
                head = await ask(app, own_request("HEAD", account, bucket, key, **query))
                if _is_of(head, upload):
                    return head
    return None


def _is_of(head: Response, upload: str) -> bool:
    return head.ok and head.headers.get(f"{SYSMETA}Upload-Id") == upload
