"""Consumers of OAuth 1.0: programs that users may let act for them: GET|POST /v3/OS-OAUTH1/consumers, GET|PATCH|DELETE of one.

A consumer's secret is shown once, when it is made; it is stored encrypted.
"""

from typing import Any

from msgspec import UNSET, Struct, structs
from sqlalchemy import Connection, delete

from cumulet.api.resource import AUTO, Resource, edit, hidden, read, sent_always
from cumulet.core import db
from cumulet.core.db import metadata
from cumulet.core.errors import Invalid, NotFound, Unauthorized
from cumulet.core.types import Id, Text, new_hex_id
from cumulet.services.identity import oauth1
from cumulet.services.identity.calls import Ctx, calls, change, guard
from cumulet.services.identity.rules import system_rules, undomained


class Consumer(Resource, table="identity_consumer", path="/v3/OS-OAUTH1/consumers", extra="extra"):
    """A program that may ask users to let it act for them."""

    id: Id = read("The ID of the consumer, which is its key.")
    description: Text | None = edit("What it is.", None)
    secret: str | None = sent_always("Refused in updates; the secret is picked here.", AUTO)
    sealed: Text = hidden("The secret, encrypted.")
    extra: dict[str, Any] = hidden("Attributes that nobody declared.", {})


RULES = {name: undomained(rule) for name, rule in system_rules("consumer").items()}


async def create_consumer(ctx: Ctx, body: Any) -> Consumer:
    """Make a consumer, whose secret the reply tells."""
    secret = new_hex_id()
    consumer: Consumer = Consumer.new(body, id=new_hex_id(), sealed=ctx.service.vault.seal(secret))
    guard(ctx, "create", Consumer, consumer)
    await ctx.service.write(db.insert, consumer)
    return structs.replace(consumer, extra={**consumer.extra, "secret": secret})


async def update_consumer(ctx: Ctx, consumer: Consumer, body: Any) -> Any:
    if body.secret is not UNSET:
        raise Invalid("The secret of a consumer cannot be changed; make another consumer.")
    if body.description is UNSET and not body.extra:
        raise Invalid("The consumer of the request is empty: it must have what is to be changed.")
    return await ctx.service.write(change, Consumer, consumer.id, body)


async def delete_consumer(ctx: Ctx, consumer: Consumer) -> None:
    """Remove a consumer with all that it was given: the tokens that it has are void."""

    def remove(tx: Connection) -> None:
        for name in ("identity_request_token", "identity_access_token"):
            table = metadata.tables[name]
            tx.execute(delete(table).where(table.c.consumer_id == consumer.id))
        db.remove(tx, Consumer, consumer.id)

    await ctx.service.write(remove)


# ---- signed requests ----------------------------------------------------------------------------------------------------


class Keys(Struct, frozen=True):
    """Whose secrets sign a request: the consumer's, and those of a token of his. Both are sealed."""

    consumer: str
    token: str = ""


async def read_signed(ctx: Ctx, *wanted: str) -> oauth1.Signed:
    """The caller's request, which must be signed and have the parameters that are wanted; Invalid where it is not."""
    request = ctx.request
    body, kind = await request.read(), request.headers.get("Content-Type", "")
    form = body.decode() if kind.partition(";")[0].strip().lower() == oauth1.FORM else ""
    try:
        signed = oauth1.read(
            request.method,
            f"{request.base_url}{request.path}",
            request.headers.get("Authorization", ""),
            request.query.raw,
            form,
        )
    except oauth1.Malformed as error:
        raise Invalid(f"Validation failed with errors: invalid_request, detail message is: {error}.") from None
    for name in wanted:
        if not signed.get(name):
            raise Invalid(f"Expecting to find {name} in request. The server could not comply with the request.")
    return signed


def verify(ctx: Ctx, signed: oauth1.Signed, keys: Keys, failure: str = "Invalid signature") -> None:
    """Invalid where a signed request cannot be, Unauthorized where it was not signed by who has the secrets."""
    try:
        oauth1.check(signed)
    except oauth1.Malformed as error:
        raise Invalid(f"Validation failed with errors: invalid_request, detail message is: {error}.") from None
    vault = ctx.service.vault
    secret = vault.open(keys.token) if keys.token else ""
    if not oauth1.verifies(signed, vault.open(keys.consumer), secret) or not ctx.service.nonces.take(signed):
        raise Unauthorized(failure)


def consumer_of(tx: Connection, id: str) -> Consumer:
    found = db.first(tx, Consumer, Consumer.table.c.id == id)
    if found is None:
        raise NotFound(message="Consumer not found")
    return found


endpoints = calls(Consumer, create=create_consumer, update=update_consumer, delete=delete_consumer)
