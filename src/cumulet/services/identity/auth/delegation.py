"""The kinds of delegation that a token can speak by, and who reads each of them."""

from collections.abc import Mapping

from cumulet.services.identity.access_token import lend_by_access_token
from cumulet.services.identity.claims import ACCESS_TOKEN
from cumulet.services.identity.session import Lender

LENDERS: Mapping[str, Lender] = {
    ACCESS_TOKEN: lend_by_access_token,
}
"""By the kind that claims name in `via`."""
