"""Amazon's signatures, against botocore as the other side, and against the examples of Amazon's own documents."""

import contextlib
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.auth import HmacV1Auth, S3SigV4Auth, SigV2Auth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from cumulet.services.identity import signature
from cumulet.services.identity.signature import Malformed, Signed

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEYS = Credentials("AKIDEXAMPLE", SECRET)
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


def ec2_v2(params: Mapping[str, str], host: str = "ec2.test:8773") -> tuple[Signed, str]:
    """A request that botocore has signed in version 2, and the signature."""
    request = AWSRequest("POST", f"http://{host}/services/Cloud", data=dict(params))
    SigV2Auth(KEYS).add_auth(request)
    sent = {name: str(value) for name, value in request.data.items()}
    made = sent.pop("Signature")
    return Signed(verb="POST", host=host, path="/services/Cloud", params=sent), made


def ec2_v4(verb: str, params: Mapping[str, str], host: str = "ec2.test:8773") -> tuple[Signed, str]:
    """The same in version 4, signed in the headers."""
    body = "&".join(f"{n}={v}" for n, v in params.items()) if verb == "POST" else ""
    request = AWSRequest(verb, f"http://{host}/services/Cloud", data=body, params=None if body else dict(params))
    SigV4Auth(KEYS, "ec2", "RegionOne").add_auth(request)
    headers = {**dict(request.headers.items()), "Host": host}
    hashed = hashlib.sha256(body.encode()).hexdigest()
    signed = Signed(
        verb=verb, host=host, path="/services/Cloud", params=dict(params), headers=headers, body_hash=hashed
    )
    return signed, headers["Authorization"].rpartition("Signature=")[2]


PARAMS = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), st.text(), max_size=5
)


@given(PARAMS.filter(lambda p: not {"Signature", "Timestamp"} & set(p)))
def test_version_2_is_as_botocore_signs_it(params: dict[str, str]) -> None:
    request, made = ec2_v2({"Action": "Test", **params})
    assert signature.verifies_ec2(SECRET, request, made)
    assert not signature.verifies_ec2(SECRET + "x", request, made)


@given(PARAMS, st.sampled_from(["GET", "DELETE"]))
def test_version_4_is_as_botocore_signs_it(params: dict[str, str], verb: str) -> None:
    request, made = ec2_v4(verb, params)
    assert signature.verifies_ec2(SECRET, request, made)
    assert not signature.verifies_ec2(SECRET, request, made[::-1])


def test_version_4_signs_what_is_posted() -> None:
    request, made = ec2_v4("POST", {"Action": "DescribeInstances", "Version": "2012-12-01"})
    assert signature.verifies_ec2(SECRET, request, made)
    other = hashlib.sha256(b"Action=TerminateInstances").hexdigest()
    altered = Signed(
        verb="POST",
        host=request.host,
        path=request.path,
        params=request.params,
        headers=request.headers,
        body_hash=other,
    )
    assert not signature.verifies_ec2(SECRET, altered, made)


def test_version_4_in_the_query_string() -> None:
    request = AWSRequest("GET", "http://ec2.test:8773/services/Cloud?Action=DescribeRegions&Filter=a%20b")
    SigV4QueryAuth(KEYS, "ec2", "RegionOne", expires=60).add_auth(request)
    parts = urlsplit(request.url)
    params = dict(parse_qsl(parts.query))
    made = params["X-Amz-Signature"]
    signed = Signed(
        verb="GET", host=parts.netloc, path=parts.path, params=params, headers={"host": parts.netloc},
        body_hash=signature.NO_BYTES,
    )  # fmt: skip
    assert signature.verifies_ec2(SECRET, signed, made)
    about = signature.authorization(signed)
    assert about.access == "AKIDEXAMPLE" and about.signature == made and about.scope.service == "ec2"


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("0", "9u47mEIQTJy9pu6oAj1mydOB/fc="),
        ("1", "Q/0pwudmDwXTIkHc7zyAQyVbjr4="),
        ("2", "xHDGteqptpxPMw9mp0ZJjPKlrW8="),
    ],
)
def test_with_sha_1_as_openssl_makes_it(version: str, known: str) -> None:
    params = {"SignatureVersion": version, "Action": "Test", "Timestamp": "2007-01-31T23:59:59Z", "AWSAccessKeyId": "a"}
    if version == "2":
        params["SignatureMethod"] = "HmacSHA1"
    request = Signed(verb="GET", host="h", path="/", params=params)
    assert signature.ec2_signature("secret", request) == known
    assert signature.verifies_ec2("secret", request, known) and not signature.verifies_ec2("other", request, known)


def test_a_host_may_be_signed_without_its_port() -> None:
    request, made = ec2_v2({"Action": "Test"}, host="ec2.test")
    with_port = Signed(verb="POST", host="ec2.test:8773", path=request.path, params=request.params)
    assert signature.verifies_ec2(SECRET, with_port, made)
    assert [signature.host_without_port(h) for h in ("a:1", "a", "[::1]:80", "[::1]")] == ["a", "a", "[::1]", "[::1]"]


def test_s3_version_2() -> None:
    signer = HmacV1Auth(KEYS)
    text = "GET\n\n\nTue, 27 Mar 2007 19:36:42 +0000\n/bucket/photos/puppy.jpg"
    assert signature.verifies_s3(SECRET, text.encode(), signer.sign_string(text))
    assert not signature.verifies_s3(SECRET, text.encode() + b"x", signer.sign_string(text))


def test_s3_version_4() -> None:
    request = AWSRequest("PUT", "http://s3.test/bucket/a%20b", data=b"data", headers={"Host": "s3.test"})
    signer = S3SigV4Auth(KEYS, "s3", "RegionOne")
    signer.add_auth(request)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    made = request.headers["Authorization"].rpartition("Signature=")[2]
    again = AWSRequest("PUT", "http://s3.test/bucket/a%20b", data=b"data", headers=_unsigned(request.headers))
    again.context["timestamp"] = request.context["timestamp"]
    text = signer.string_to_sign(again, signer.canonical_request(again))
    assert signature.verifies_s3(SECRET, text.encode(), made)


def _unsigned(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "Authorization"}


def test_chunks_are_signed_as_amazons_example_is() -> None:
    """The example of "Transferring payload in multiple chunks" of Amazon S3."""
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    scope = signature.credential_scope("20130524/us-east-1/s3/aws4_request")
    hashed = "cee3fed04b70f867d036f722359b0b1f2f0e5dc0efadbc082b76c4c60e316455"
    seed = signature.s3_signature(secret, f"AWS4-HMAC-SHA256\n20130524T000000Z\n{scope}\n{hashed}".encode())
    assert seed == "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    key = signature.signing_key(secret, scope)
    last = seed
    for chunk, known in (
        (b"a" * 65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        (b"a" * 1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        (b"", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ):
        last = signature.chunk_signature(key, "20130524T000000Z", scope, last, chunk)
        assert last == known


def test_the_key_of_a_scope_is_amazons_example() -> None:
    """The example of "Deriving the signing key" of the General Reference."""
    scope = signature.CredentialScope("20120215", "us-east-1", "iam")
    known = "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"
    assert signature.signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", scope).hex() == known


def test_when_a_request_was_signed() -> None:
    old = Signed(params={"SignatureVersion": "2", "Timestamp": "2015-08-30T12:36:00Z"})
    assert signature.signed_at(old) == NOW
    assert signature.signed_at(Signed(params={"SignatureVersion": "2"})) is None
    credential = "AKID/20150830/RegionOne/ec2/aws4_request"
    headers = {
        "authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=00",
        "x-amz-date": "20150830T123600Z",
    }
    # The parameters of a POST are not signed as such: what they say of the time is not believed.
    assert signature.signed_at(Signed(headers=headers, params={"Timestamp": "2030-01-01T00:00:00Z"})) == NOW
    assert signature.is_fresh(NOW, 900, NOW + timedelta(seconds=900))
    assert not signature.is_fresh(NOW, 900, NOW + timedelta(seconds=901))
    assert signature.is_fresh(None, 900)
    with pytest.raises(Malformed):
        signature.signed_at(Signed(params={"SignatureVersion": "2", "Timestamp": "yesterday"}))


ANY_TEXTS = st.dictionaries(
    st.sampled_from(["SignatureVersion", "SignatureMethod", "Action", "Timestamp", "X-Amz-Algorithm", "X-Amz-Credential",
                     "X-Amz-SignedHeaders", "X-Amz-Date", "Authorization", "Host"]) | st.text(max_size=9),
    st.sampled_from(["0", "1", "2", "3", "AWS4-HMAC-SHA256", "a/20150830/r/ec2/aws4_request", "20150830T123600Z", "host",
                     "AWS4-HMAC-SHA256 Credential=a/2/r/s/aws4_request, SignedHeaders=host;x, Signature=1"])
    | st.text(st.characters(), max_size=40),
    max_size=8,
)  # fmt: skip


@given(st.text(), st.text(), ANY_TEXTS, ANY_TEXTS, st.text(st.characters()))
def test_whatever_is_sent_is_verified_or_malformed(
    verb: str, host: str, params: dict[str, str], headers: dict[str, str], made: str
) -> None:
    request = Signed(verb=verb, host=host, path=host, params=params, headers=headers, body_hash=made)
    try:
        assert not signature.verifies_ec2(SECRET, request, made)
        signature.signed_at(request)
    except Malformed:
        pass


@given(st.binary() | st.binary().map(lambda b: b"AWS4-HMAC-SHA256\n\n" + b), st.text(st.characters()))
def test_whatever_is_signed_for_s3_is_verified_or_malformed(signed: bytes, made: str) -> None:
    with contextlib.suppress(Malformed):
        assert not signature.verifies_s3(SECRET, signed, made)
