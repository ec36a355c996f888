"""The kinds of delegation that a token can speak by, and who reads each of them."""

from collections.abc import Mapping

from cumulet.services.identity.session import Lender

LENDERS: Mapping[str, Lender] = {}
"""By the kind that claims name in `via`."""
