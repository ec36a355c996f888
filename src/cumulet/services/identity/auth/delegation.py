"""The kinds of delegation that a token can speak by, and who reads each of them."""

from collections.abc import Mapping

from cumulet.services.identity.access_token import lend_by_access_token
from cumulet.services.identity.auth.by_application_credential import lend_by_application_credential
from cumulet.services.identity.auth.by_trust import lend_by_trust
from cumulet.services.identity.claims import ACCESS_TOKEN, APPLICATION_CREDENTIAL, TRUST
from cumulet.services.identity.session import Lender

LENDERS: Mapping[str, Lender] = {
    TRUST: lend_by_trust,
    APPLICATION_CREDENTIAL: lend_by_application_credential,
    ACCESS_TOKEN: lend_by_access_token,
}
"""By the kind that claims name in `via`."""
