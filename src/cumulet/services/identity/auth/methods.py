"""Every method of authentication, by the name that clients call it by."""

from collections.abc import Mapping

from cumulet.services.identity.auth.by_application_credential import prove_application_credential
from cumulet.services.identity.auth.by_oauth1 import prove_oauth1
from cumulet.services.identity.auth.by_password import prove_password
from cumulet.services.identity.auth.by_token import prove_token
from cumulet.services.identity.auth.by_totp import prove_totp
from cumulet.services.identity.auth.method import Method
from cumulet.services.identity.federation.external import prove_external
from cumulet.services.identity.federation.login import prove_mapped

METHODS: Mapping[str, Method] = {
    "password": prove_password,
    "token": prove_token,
    "oauth1": prove_oauth1,
    "application_credential": prove_application_credential,
    "totp": prove_totp,
    "mapped": prove_mapped,
    "openid": prove_mapped,
    "saml2": prove_mapped,
    "external": prove_external,
}
