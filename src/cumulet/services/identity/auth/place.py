"""Where a token is good for."""

from collections.abc import Callable

from msgspec import Struct
from sqlalchemy import Connection


class Place(Struct, frozen=True):
    """What a token is for: `scope` is project, domain, system or nothing; `via` a delegation that it speaks by there.

    `user_id` is whom the token speaks for, where that is not who asks for it. `spend` takes what the token costs, once it is
    known to be good; Forbidden where nothing is left.
    """

    scope: str = ""
    scope_id: str = ""
    via: str = ""
    via_id: str = ""
    user_id: str = ""
    spend: Callable[[Connection], None] | None = None


NOWHERE = Place()
