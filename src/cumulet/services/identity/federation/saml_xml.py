"""SAML 2.0 in XML: assertions written and signed, and read and verified. Blocking; run off the event loop.

Reference: the OASIS standards saml-core-2.0-os, saml-profiles-2.0-os (4.1.4.2, 4.2 ECP), saml-metadata-2.0-os; XML Signature.
lxml and signxml are read when they are first needed: most clouds never do.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from msgspec import Struct

from cumulet.core.errors import CloudError

SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
DS = "http://www.w3.org/2000/09/xmldsig#"
MD = "urn:oasis:names:tc:SAML:2.0:metadata"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
ECP = "urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp"
ENTITY = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
PASSWORD = "urn:oasis:names:tc:SAML:2.0:ac:classes:Password"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
SOON = "http://schemas.xmlsoap.org/soap/actor/next"
LIFETIME = timedelta(minutes=5)
LEEWAY = timedelta(seconds=30)
LONGEST = timedelta(hours=24)
"""No assertion is taken, or remembered, for longer than this."""


FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class SamlError(CloudError):
    """An assertion that is not to be believed; the message says why."""


class Statement(Struct, frozen=True, kw_only=True):
    """What is to be asserted, by whom and to whom."""

    issuer: str
    recipient: str
    subject: str
    attributes: Mapping[str, Sequence[str]]


class Verified(Struct, frozen=True, kw_only=True):
    """What an assertion says that was found good."""

    id: str
    attributes: dict[str, list[str]]
    ends: float  # in seconds since 1970


def _q(space: str, name: str) -> str:
    return f"{{{space}}}{name}"


def _instant(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# ---- written ------------------------------------------------------------------------------------------------------------


def response(statement: Statement, key: bytes, certificate: str, relay_state: str | None = None) -> bytes:
    """A response with the signed assertion; with a RelayState, in the envelope of ECP."""
    from lxml import etree

    now = datetime.now(UTC)
    signed = _signed(_assertion(statement, now), key, certificate)
    head = {
        "ID": f"_{uuid4().hex}",
        "IssueInstant": _instant(now),
        "Version": "2.0",
        "Destination": statement.recipient,
    }
    root = etree.Element(_q(SAMLP, "Response"), head, nsmap={"samlp": SAMLP, "saml": SAML})
    _add(root, _q(SAML, "Issuer"), statement.issuer, Format=ENTITY)
    _add(_add(root, _q(SAMLP, "Status")), _q(SAMLP, "StatusCode"), Value=SUCCESS)
    root.append(signed)
    if relay_state is None:
        return _bytes(root)
    envelope = etree.Element(_q(SOAP, "Envelope"), nsmap={"soap": SOAP, "ecp": ECP})
    header = _add(envelope, _q(SOAP, "Header"))
    must = {_q(SOAP, "actor"): SOON, _q(SOAP, "mustUnderstand"): "1"}
    _add(header, _q(ECP, "RelayState"), relay_state, **must)
    _add(envelope, _q(SOAP, "Body")).append(root)
    return _bytes(envelope)


def metadata(issuer: str, sign_on: str, certificate: str) -> bytes:
    """What service providers need to know of this cloud as an identity provider."""
    from lxml import etree

    root = etree.Element(_q(MD, "EntityDescriptor"), {"entityID": issuer}, nsmap={"md": MD, "ds": DS})
    descriptor = _add(root, _q(MD, "IDPSSODescriptor"), protocolSupportEnumeration=SAMLP)
    info = _add(_add(descriptor, _q(MD, "KeyDescriptor"), use="signing"), _q(DS, "KeyInfo"))
    body = "".join(line for line in certificate.splitlines() if "-----" not in line)
    _add(_add(info, _q(DS, "X509Data")), _q(DS, "X509Certificate"), body)
    _add(descriptor, _q(MD, "NameIDFormat"), "urn:oasis:names:tc:SAML:2.0:nameid-format:transient")
    binding = "urn:oasis:names:tc:SAML:2.0:bindings:URI"
    _add(descriptor, _q(MD, "SingleSignOnService"), Binding=binding, Location=sign_on)
    return _bytes(root)


def _bytes(root: Any) -> bytes:
    from lxml import etree

    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8"))


def _add(parent: Any, tag: str, text: str | None = None, **attributes: str) -> Any:
    from lxml import etree

    child = etree.SubElement(parent, tag, attributes)
    child.text = None if text is None else _told(text)
    return child


def _told(text: str) -> str:
    """Text as XML can carry it: without control characters, which names here may have and XML may not."""
    return FORBIDDEN.sub("?", text)


def _assertion(statement: Statement, now: datetime) -> Any:
    from lxml import etree

    end = _instant(now + LIFETIME)
    head = {"ID": f"_{uuid4().hex}", "IssueInstant": _instant(now), "Version": "2.0"}
    root = etree.Element(_q(SAML, "Assertion"), head, nsmap={"saml": SAML})
    _add(root, _q(SAML, "Issuer"), statement.issuer, Format=ENTITY)
    etree.SubElement(root, _q(DS, "Signature"), {"Id": "placeholder"}, nsmap={"ds": DS})
    subject = _add(root, _q(SAML, "Subject"))
    _add(subject, _q(SAML, "NameID"), statement.subject)
    confirmation = _add(subject, _q(SAML, "SubjectConfirmation"), Method=BEARER)
    _add(confirmation, _q(SAML, "SubjectConfirmationData"), NotOnOrAfter=end, Recipient=statement.recipient)
    login = _add(
        root, _q(SAML, "AuthnStatement"), AuthnInstant=_instant(now), SessionIndex=uuid4().hex, SessionNotOnOrAfter=end
    )
    context = _add(login, _q(SAML, "AuthnContext"))
    _add(context, _q(SAML, "AuthnContextClassRef"), PASSWORD)
    _add(context, _q(SAML, "AuthenticatingAuthority"), statement.issuer)
    told = _add(root, _q(SAML, "AttributeStatement"))
    for name, values in statement.attributes.items():
        if values:
            attribute = _add(told, _q(SAML, "Attribute"), Name=name)
            for value in values:
                _add(attribute, _q(SAML, "AttributeValue"), value)
    return root


def _signed(assertion: Any, key: bytes, certificate: str) -> Any:
    from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
    from signxml.signer import XMLSigner

    signer = XMLSigner(
        signature_algorithm=SignatureMethod.RSA_SHA256,
        digest_algorithm=DigestAlgorithm.SHA256,
        c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
    )
    return signer.sign(assertion, key=key, cert=certificate, reference_uri=f"#{assertion.get('ID')}", id_attribute="ID")


# ---- read ---------------------------------------------------------------------------------------------------------------


def verified(data: bytes, issuer: str, certificate: str, recipients: Sequence[str]) -> Verified:
    """The one assertion in a response (or in an envelope around it), if `issuer` signed it for one of `recipients` and for now;
    SamlError else. Nothing is believed that is outside of what was signed."""
    assertion = _what_was_signed(_only_assertion(_parsed(data)), certificate)
    if _text(assertion, "Issuer") != issuer:
        raise SamlError("it is another issuer's")
    now = datetime.now(UTC)
    ends = _confirmed(assertion, recipients, now)
    _check_conditions(assertion, recipients, now)
    id = assertion.get("ID")
    if not id or len(id) > 255:
        raise SamlError("it has no ID that could be remembered")
    return Verified(id=id, attributes=_attributes(assertion), ends=ends.timestamp())


def _parsed(data: bytes) -> Any:
    """The document, without entities, comments and anything from elsewhere."""
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise SamlError("it is no XML") from None
    if root.getroottree().docinfo.doctype:
        raise SamlError("it has a document type")
    return root


def _only_assertion(root: Any) -> Any:
    """The assertion, where the standards put it; SamlError where there is another one anywhere."""
    body = root
    if root.tag == _q(SOAP, "Envelope"):
        body = root.find(f"{_q(SOAP, 'Body')}/{_q(SAMLP, 'Response')}")
    if body is None or body.tag != _q(SAMLP, "Response"):
        raise SamlError("it is no response")
    code = body.find(f"{_q(SAMLP, 'Status')}/{_q(SAMLP, 'StatusCode')}")
    if code is None or code.get("Value") != SUCCESS:
        raise SamlError("it tells of no success")
    found = body.findall(_q(SAML, "Assertion"))
    if len(found) != 1 or len(list(root.iter(_q(SAML, "Assertion")))) != 1:
        raise SamlError("it does not hold exactly one assertion in the clear")
    return found[0]


def _what_was_signed(assertion: Any, certificate: str) -> Any:
    """The assertion as the signature covers it."""
    from lxml import etree
    from signxml.algorithms import DigestAlgorithm, SignatureMethod
    from signxml.verifier import SignatureConfiguration, XMLVerifier

    alone = _parsed(etree.tostring(assertion, with_tail=False))
    config = SignatureConfiguration(
        require_x509=True,
        location="./",
        expect_references=1,
        signature_methods=frozenset({
            SignatureMethod.RSA_SHA256, SignatureMethod.RSA_SHA384, SignatureMethod.RSA_SHA512,
            SignatureMethod.ECDSA_SHA256, SignatureMethod.ECDSA_SHA384,
        }),
        digest_algorithms=frozenset({
            DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512,
        }),
        ignore_ambiguous_key_info=True,  # the certificate is the one in the file, whatever stands in the signature
    )  # fmt: skip
    try:
        result = XMLVerifier().verify(alone, x509_cert=certificate, id_attribute="ID", expect_config=config)
    except Exception as error:  # noqa: BLE001 - whatever a hostile document makes the libraries raise, it is not believed
        raise SamlError(f"its signature is not good ({type(error).__name__})") from None
    signed = getattr(result, "signed_xml", None)
    if signed is None or signed.tag != _q(SAML, "Assertion") or signed.get("ID") != alone.get("ID"):
        raise SamlError("what was signed is not the assertion")
    return signed


def _text(parent: Any, *path: str) -> str:
    found = parent.findall("/".join(_q(SAML, name) for name in path))
    return "".join(found[0].itertext()).strip() if len(found) == 1 else ""


def _moment(text: str | None) -> datetime:
    """An instant in UTC; SamlError where it is none."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        raise SamlError("it has a time that is none") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _confirmed(assertion: Any, recipients: Sequence[str], now: datetime) -> datetime:
    """Until when the bearer may use it; SamlError where he may not, or not here."""
    path = f"{_q(SAML, 'Subject')}/{_q(SAML, 'SubjectConfirmation')}"
    for confirmation in assertion.findall(path):
        data = confirmation.find(_q(SAML, "SubjectConfirmationData"))
        if confirmation.get("Method") != BEARER or data is None or data.get("Recipient") not in recipients:
            continue
        if data.get("NotBefore") is not None or data.get("InResponseTo") is not None:
            continue  # the profile forbids the one, and the other answers a request that was never made
        end = _moment(data.get("NotOnOrAfter"))
        if now - LEEWAY < end <= now + LONGEST:
            return end
    raise SamlError("it is not for here and now")


def _check_conditions(assertion: Any, recipients: Sequence[str], now: datetime) -> None:
    for conditions in assertion.findall(_q(SAML, "Conditions")):
        if conditions.get("NotBefore") is not None and _moment(conditions.get("NotBefore")) > now + LEEWAY:
            raise SamlError("it is not valid yet")
        if conditions.get("NotOnOrAfter") is not None and _moment(conditions.get("NotOnOrAfter")) <= now - LEEWAY:
            raise SamlError("it has expired")
        for restriction in conditions.findall(_q(SAML, "AudienceRestriction")):
            named = {"".join(a.itertext()).strip() for a in restriction.findall(_q(SAML, "Audience"))}
            if not named & {*recipients}:
                raise SamlError("it is for another audience")


def _attributes(assertion: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for attribute in assertion.findall(f"{_q(SAML, 'AttributeStatement')}/{_q(SAML, 'Attribute')}"):
        if name := attribute.get("Name"):
            values = ["".join(v.itertext()) for v in attribute.findall(_q(SAML, "AttributeValue"))]
            found.setdefault(name, []).extend(values)
    return found
