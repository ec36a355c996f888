"""Signed images: what is taken and what is refused, uploaded and imported."""

import base64
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cumulet.services.image.declaration import SERVICE
from cumulet.services.image.runtime import ImageRuntime
from tests.harness import kernel, serve
from tests.services.image.test_image_data import make, put, show
from tests.services.image.test_image_import import Site

DATA = os.urandom(100_000)
HASHES = {
    "SHA-224": hashes.SHA224(), "SHA-256": hashes.SHA256(), "SHA-384": hashes.SHA384(), "SHA-512": hashes.SHA512(),
}  # fmt: skip
MAKERS: dict[str, Any] = {
    "RSA-PSS": lambda: rsa.generate_private_key(65537, 2048),
    "DSA": lambda: dsa.generate_private_key(2048),
    "ECC_SECP384R1": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ECC_SECP521R1": lambda: ec.generate_private_key(ec.SECP521R1()),
}


def certified(directory: Path, key: Any, *, days: int = 1, encoding: Encoding = Encoding.PEM) -> str:
    """The id of a new certificate of `key`, which lies in the directory."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "blue")])
    moment = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(moment - timedelta(days=10))
        .not_valid_after(moment + timedelta(days=days)).sign(key, hashes.SHA256())
    )  # fmt: skip
    certificate = str(uuid.uuid4())
    (directory / f"{certificate}.pem").write_bytes(made.public_bytes(encoding))
    return certificate


def signed(key: Any, kind: str, method: str, certificate: str, data: bytes = DATA) -> dict[str, str]:
    """The properties of an image with this data."""
    how = HASHES[method]
    if kind == "RSA-PSS":
        value = key.sign(data, padding.PSS(mgf=padding.MGF1(how), salt_length=padding.PSS.MAX_LENGTH), how)
    else:
        value = key.sign(data, how) if kind == "DSA" else key.sign(data, ec.ECDSA(how))
    return {
        "img_signature": base64.b64encode(value).decode(), "img_signature_hash_method": method,
        "img_signature_key_type": kind, "img_signature_certificate_uuid": certificate,
    }  # fmt: skip


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    directory = tmp_path / "certificates"
    directory.mkdir()
    return directory


@pytest.fixture
async def site(tmp_path: Path, certificates: Path) -> AsyncIterator[Site]:
    async with kernel(tmp_path, image_signature_certificates=certificates) as parts:
        images = ImageRuntime(parts)
        await images.start()
        await parts.operations.start()
        async with serve(SERVICE, images) as client:
            yield Site(client, images, "")


@pytest.mark.parametrize(
    ("kind", "method"),
    [("RSA-PSS", "SHA-256"), ("RSA-PSS", "SHA-224"), ("DSA", "SHA-256"), ("ECC_SECP384R1", "SHA-384"),
     ("ECC_SECP521R1", "SHA-512")],
)  # fmt: skip
async def test_signed_data_is_taken_and_other_data_is_not(
    site: Site, certificates: Path, kind: str, method: str
) -> None:
    key = MAKERS[kind]()
    properties = signed(key, kind, method, certified(certificates, key))
    for data, status, state in ((DATA + b"x", 400, "queued"), (DATA, 204, "active")):
        image = await make(site.client, **properties)
        reply = await put(site.client, image, data)
        assert reply.status == status and (await show(site.client, image))["status"] == state, reply.data
        imported = await make(site.client, **properties)
        await site.stage(imported, data)
        shown, task = await site.imported(imported, "glance-direct")
        assert (shown["status"], task["status"]) == (state, "success" if state == "active" else "failure")
        assert state == "active" or "not what was signed" in task["message"]


async def test_what_is_no_signature(site: Site, certificates: Path) -> None:
    key, other = MAKERS["RSA-PSS"](), MAKERS["ECC_SECP384R1"]()
    good = signed(key, "RSA-PSS", "SHA-256", certified(certificates, key, encoding=Encoding.DER))
    for wrong, why in (
        ({"img_signature": "%%%"}, "base64"), ({"img_signature": base64.b64encode(b"x").decode()}, "not what was signed"),
        ({"img_signature_hash_method": "MD5"}, "hash method"), ({"img_signature_key_type": "ROT13"}, "key type"),
        ({"img_signature_certificate_uuid": "../../etc/passwd"}, "no UUID"),
        ({"img_signature_certificate_uuid": str(uuid.uuid4())}, "no certificate"),
        ({"img_signature_key_type": "DSA"}, "not for a key"),
        ({"img_signature_certificate_uuid": certified(certificates, other)}, "not for a key"),
        ({"img_signature_certificate_uuid": certified(certificates, key, days=-1)}, "not valid now"),
    ):  # fmt: skip
        image = await make(site.client, **{**good, **wrong})
        reply = await put(site.client, image, DATA)
        assert reply.status == 400 and why in reply.json()["message"], (wrong, reply.data)
    image = await make(site.client, **good)
    assert (await put(site.client, image, DATA)).status == 204
    part = await make(site.client, img_signature="x", img_signature_hash_method="MD5")
    assert (await put(site.client, part, DATA)).status == 204, "not all of a signature is none"


async def test_nothing_is_verified_without_certificates(tmp_path: Path) -> None:
    async with kernel(tmp_path) as parts:
        images = ImageRuntime(parts)
        await images.start()
        async with serve(SERVICE, images) as client:
            key = MAKERS["RSA-PSS"]()
            image = await make(client, **signed(key, "RSA-PSS", "SHA-256", str(uuid.uuid4())))
            assert (await put(client, image, b"other")).status == 204
