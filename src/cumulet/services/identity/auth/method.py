"""What a method of authentication is: from what the client sent under its name to a proof of who he is."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from cumulet.core.errors import Invalid, Unauthorized
from cumulet.services.identity.calls import Ctx
from cumulet.services.identity.claims import Claims, Federation

T = TypeVar("T")


class Proof(Struct, frozen=True, kw_only=True):
    """Who has shown that he is who, by which methods. Times are microseconds since 1970.

    `since` is the token that is continued: its end, its chain of audit ids. `expires_at` is the latest end that the proof
    allows. A proof that is itself a delegation (`via`, `via_id`) comes with the only `scope` that it is good for.
    """

    user_id: str
    methods: tuple[str, ...]
    issued_at: int
    since: Claims | None = None
    expires_at: int | None = None
    via: str = ""
    via_id: str = ""
    scope: tuple[str, str] | None = None
    federation: Federation | None = None
    thumbprint: str = ""


class Method(Protocol):
    """One method. `payload` is the JSON that stands under the method's name in `auth.identity`."""

    async def __call__(self, ctx: Ctx, payload: msgspec.Raw) -> Proof:
        """The proof; Unauthorized where it is none, Invalid where the payload is not what this method takes."""
        ...


def decoded(payload: msgspec.Raw, model: type[T], name: str) -> T:
    """The payload of method `name` as `model`; Invalid where it is something else."""
    try:
        return msgspec.json.decode(payload, type=model)
    except msgspec.DecodeError as error:
        raise Invalid(f"Invalid input for {name} in identity: {error}") from None


def combined(proofs: Sequence[Proof]) -> Proof:
    """Several proofs as one; Unauthorized unless all tell of the same user."""
    if len({proof.user_id for proof in proofs}) != 1:
        raise Unauthorized()

    def stated(name: str) -> Any:
        return next((value for value in (getattr(p, name) for p in proofs) if value), None)

    ends = [p.expires_at for p in proofs if p.expires_at is not None]
    return Proof(
        user_id=proofs[0].user_id,
        methods=tuple(dict.fromkeys(m for proof in proofs for m in proof.methods)),
        issued_at=min(proof.issued_at for proof in proofs),
        since=stated("since"),
        expires_at=min(ends, default=None),
        via=stated("via") or "",
        via_id=stated("via_id") or "",
        scope=stated("scope"),
        federation=stated("federation"),
        thumbprint=stated("thumbprint") or "",
    )
