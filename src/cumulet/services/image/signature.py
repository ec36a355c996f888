"""Signed images (upstream: cursive): whether data is what its owner signed.

An image whose custom properties tell a signature (`img_signature` in base64, its hash, the kind of key and the certificate's
id) is taken only with data that the signature is of. Certificates are files in the directory that the setting
`image_signature_certificates` names, `<id>.pem` in PEM or DER; without the setting nothing is verified.
References: RFC 8017, section 8.1 (RSASSA-PSS), FIPS 186-4 (DSA, ECDSA).
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from msgspec import Struct

from cumulet.core.types import is_uuid
from cumulet.services.image.inspect import Refused

VALUE, METHOD, KEY, CERTIFICATE = (
    f"img_signature{tail}" for tail in ("", "_hash_method", "_key_type", "_certificate_uuid")
)
METHODS: Mapping[str, tuple[str, hashes.HashAlgorithm]] = {
    "SHA-224": ("sha224", hashes.SHA224()),
    "SHA-256": ("sha256", hashes.SHA256()),
    "SHA-384": ("sha384", hashes.SHA384()),
    "SHA-512": ("sha512", hashes.SHA512()),
}
CURVES = {
    "ECC_SECT571K1": "sect571k1",
    "ECC_SECT409K1": "sect409k1",
    "ECC_SECT571R1": "sect571r1",
    "ECC_SECT409R1": "sect409r1",
    "ECC_SECP521R1": "secp521r1",
    "ECC_SECP384R1": "secp384r1",
}
KEYS = ("RSA-PSS", "DSA", *CURVES)


class Rejected(Refused):
    """The signature cannot be one, or is not of the data."""


class Signature(Struct, frozen=True):
    """A signature that an image's properties tell. `algorithm` is the digest's name that it is of."""

    value: bytes
    method: str
    key: str
    certificate: str

    @property
    def algorithm(self) -> str:
        return METHODS[self.method][0]


def told(properties: Mapping[str, str]) -> Signature | None:
    """The signature of an image, if all of it is told; Rejected where it cannot be one."""
    if not all(name in properties for name in (VALUE, METHOD, KEY, CERTIFICATE)):
        return None
    method, key, certificate = (properties[name] for name in (METHOD, KEY, CERTIFICATE))
    if method not in METHODS:
        raise Rejected(f"The signature's hash method is {method}; it can be {', '.join(METHODS)}")
    if key not in KEYS:
        raise Rejected(f"The signature's key type is {key}; it can be {', '.join(KEYS)}")
    if not is_uuid(certificate):
        raise Rejected("The id of the signature's certificate is no UUID")
    try:
        return Signature(base64.b64decode(properties[VALUE], validate=True), method, key, certificate.lower())
    except (binascii.Error, ValueError):
        raise Rejected("The signature is no base64") from None


def verify(signature: Signature, digest: bytes, directory: Path) -> None:
    """Rejected unless the signature is of data with this digest. Reads the certificate."""
    key, hashed = _public_key(signature, directory), Prehashed(METHODS[signature.method][1])
    try:
        if isinstance(key, rsa.RSAPublicKey):
            salted = padding.PSS(mgf=padding.MGF1(METHODS[signature.method][1]), salt_length=padding.PSS.AUTO)
            key.verify(signature.value, digest, salted, hashed)
        elif isinstance(key, dsa.DSAPublicKey):
            key.verify(signature.value, digest, hashed)
        else:
            key.verify(signature.value, digest, ec.ECDSA(hashed))
    except InvalidSignature:
        raise Rejected("Signature verification for the image failed: the data is not what was signed") from None


def _public_key(
    signature: Signature, directory: Path
) -> rsa.RSAPublicKey | dsa.DSAPublicKey | ec.EllipticCurvePublicKey:
    """The key of the certificate, which has to be of the kind that was told."""
    try:
        data = (directory / f"{signature.certificate}.pem").read_bytes()
        pem = b"-----BEGIN" in data
        certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        key = certificate.public_key()
    except (OSError, ValueError, UnsupportedAlgorithm):
        raise Rejected(f"There is no certificate {signature.certificate} here to verify the signature with") from None
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        raise Rejected(f"The certificate {signature.certificate} is not valid now")
    if isinstance(key, rsa.RSAPublicKey) and signature.key == "RSA-PSS":
        return key
    if isinstance(key, dsa.DSAPublicKey) and signature.key == "DSA":
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == CURVES.get(signature.key):
        return key
    raise Rejected(f"The certificate {signature.certificate} is not for a key of type {signature.key}")
