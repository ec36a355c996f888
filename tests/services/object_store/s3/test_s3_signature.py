"""Signatures: Amazon's published examples, and what a request says of its own."""

import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cumulet.api.http import Query
from cumulet.core.context import Caller
from cumulet.services.identity.access_key import SigningKey
from cumulet.services.object_store.message import Headers, Request
from cumulet.services.object_store.s3 import authorization
from cumulet.services.object_store.s3.authorization import Signed, access_key, signed
from cumulet.services.object_store.s3.body import Chunks, hashed, held_back
from cumulet.services.object_store.s3.checksum import Checksum, announced
from cumulet.services.object_store.s3.errors import S3Error

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ACCESS = "AKIAIOSFODNN7EXAMPLE"
KEY = SigningKey(SECRET, Caller(user_id="somebody"), 0)
AT = 1369353600
"""2013-05-24, the day of the examples of version 4."""
EMPTY = hashlib.sha256(b"").hexdigest()


def request(method: str, path: str, query: str = "", **headers: str) -> Request:
    told = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return Request(method, "", headers=told, query=Query(query), raw_path=path)


def signed_by_header(names: str, signature: str) -> str:
    return (
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/20130524/us-east-1/s3/aws4_request,SignedHeaders={names},"
        f"Signature={signature}"
    )


@pytest.fixture
def then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: AT + 60.0)


@pytest.mark.usefixtures("then")
@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "names", "signature"),
    [
        (
            "GET", "/test.txt", "", {"Range": "bytes=0-9", "x_amz_content_sha256": EMPTY},
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT", "/test%24file.text", "",
            {
                "Date": "Fri, 24 May 2013 00:00:00 GMT",
                "x_amz_storage_class": "REDUCED_REDUNDANCY",
                "x_amz_content_sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
            },
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET", "/", "lifecycle", {"x_amz_content_sha256": EMPTY}, "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET", "/", "max-keys=2&prefix=J", {"x_amz_content_sha256": EMPTY}, "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)  # fmt: skip
def test_published_examples_of_version_4(
    method: str, path: str, query: str, headers: dict[str, str], names: str, signature: str
) -> None:
    """ "Signature Calculations for the Authorization Header", of Amazon S3's reference."""
    asked = request(
        method, path, query, Host="examplebucket.s3.amazonaws.com", x_amz_date="20130524T000000Z",
        Authorization=signed_by_header(names, signature), **headers,
    )  # fmt: skip
    found = signed(asked, "", "us-east-1")
    assert (access_key(asked), found.access, found.version, found.in_query) == (ACCESS, ACCESS, 4, False)
    assert found.verified(KEY)
    assert not found.verified(SigningKey(SECRET[:-1], Caller(user_id="x"), 0))


PRESIGNED = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
)


@pytest.mark.usefixtures("then")
def test_the_published_example_of_a_signed_url() -> None:
    asked = request("GET", "/test.txt", PRESIGNED, Host="examplebucket.s3.amazonaws.com")
    found = signed(asked, "", "us-east-1")
    assert found.in_query
    assert found.verified(KEY)


@pytest.mark.usefixtures("then")
@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("Expires=86400", "Expires=30", "AccessDenied"),
        ("Expires=86400", "Expires=604801", "AuthorizationQueryParametersError"),
        ("Expires=86400", "Expires=-1", "AuthorizationQueryParametersError"),
        ("Expires=86400", "Expires=soon", "AuthorizationQueryParametersError"),
        ("&X-Amz-Expires=86400", "", "AccessDenied"),
        ("us-east-1", "eu-west-1", "AuthorizationQueryParametersError"),
        ("%2Fs3%2F", "%2Fec2%2F", "AuthorizationQueryParametersError"),
        ("20130524%2F", "20130525%2F", "AuthorizationQueryParametersError"),
        ("aws4_request", "aws5_request", "AuthorizationQueryParametersError"),
        ("Algorithm=AWS4", "Algorithm=AWS5", "InvalidArgument"),
        ("X-Amz-Date=20130524T000000Z", "X-Amz-Date=yesterday", "AccessDenied"),
        ("&X-Amz-SignedHeaders=host", "", "AuthorizationHeaderMalformed"),
        ("SignedHeaders=host", "SignedHeaders=host%3Bx-other", "SignatureDoesNotMatch"),
    ],
)
def test_signed_urls_that_are_not_good(before: str, after: str, code: str) -> None:
    assert before in PRESIGNED
    asked = request("GET", "/test.txt", PRESIGNED.replace(before, after), Host="examplebucket.s3.amazonaws.com")
    with pytest.raises(S3Error) as refused:
        signed(asked, "", "us-east-1")
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "signature"),
    [
        (
            "GET", "/photos/puppy.jpg", "", {"Date": "Tue, 27 Mar 2007 19:36:42 +0000"},
            "bWq2s1WEIj+Ydj0vQ697zp+IXMU=",
        ),
        (
            "PUT", "/photos/puppy.jpg", "",
            {"Content_Type": "image/jpeg", "Content_Length": "94328", "Date": "Tue, 27 Mar 2007 21:15:45 +0000"},
            "MyyxeRY7whkBe+bq8fHCL/2kKUg=",
        ),
        ("GET", "/", "prefix=photos&max-keys=50&marker=puppy", {"Date": "Tue, 27 Mar 2007 19:42:41 +0000"},
         "htDYFYduRNen8P9ZfE/s9SuKy0U="),
        ("GET", "/", "acl", {"Date": "Tue, 27 Mar 2007 19:44:46 +0000"}, "c2WLPFtWHVgbEmeEG93a4cG37dM="),
    ],
)  # fmt: skip
def test_published_examples_of_version_2(
    method: str, path: str, query: str, headers: dict[str, str], signature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "Signing and Authenticating REST Requests"; their bucket, johnsmith, is named by the host (awsexamplebucket1 later)."""
    monkeypatch.setattr(time, "time", lambda: 1175024202.0)
    monkeypatch.setattr(authorization, "SKEW", 10_000)
    asked = request(method, path, query, Authorization=f"AWS {ACCESS}:{signature}", **headers)
    assert signed(asked, "johnsmith", "us-east-1").verified(KEY)
    assert not signed(asked, "johnsmiths", "us-east-1").verified(KEY)


def test_old_and_future_requests_are_refused() -> None:
    for moment in (time.time() - 1000, time.time() + 1000):
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(moment))
        with pytest.raises(S3Error) as refused:
            signed(request("GET", "/", Date=date, Authorization="AWS a:b"), "", "us-east-1")
        assert refused.value.code == "RequestTimeTooSkewed"


# ---- uploads in chunks --------------------------------------------------------------------------------------------------

DATE, SCOPE = "20130524T000000Z", "20130524/us-east-1/s3/aws4_request"
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
CHUNKS = (
    (b"a" * 65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (b"a" * 1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (b"", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)


def seed() -> Signed:
    return Signed(4, ACCESS, SEED, b"", False, DATE, SCOPE)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def encoded(chunks: Any = CHUNKS) -> bytes:
    return b"".join(
        b"%x;chunk-signature=%s\r\n%s\r\n" % (len(data), signature.encode(), data) for data, signature in chunks
    )


async def collect(stream: AsyncIterator[bytes], got: list[bytes]) -> None:
    async for piece in stream:
        got.append(piece)


async def read(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


@pytest.mark.parametrize("size", [1, 7, 65536, 10**6])
async def test_the_published_example_of_an_upload_in_chunks(size: int) -> None:
    """ "Signature Calculations ... Transferring Payload in Multiple Chunks"."""
    size = max(size, 3) if size == 1 else size
    stream = Chunks(pieces(encoded(), size), 66560, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", seed(), KEY, None)
    assert await read(stream.pieces()) == b"a" * 66560


@pytest.mark.parametrize(
    ("data", "length", "code"),
    [
        (encoded().replace(b"aaaa\r\n400", b"aaab\r\n400"), 66560, "SignatureDoesNotMatch"),
        (encoded().replace(b"b6c6ea8a", b"b6c6ea8b"), 66560, "SignatureDoesNotMatch"),
        (encoded(CHUNKS[:2]), 66560, "IncompleteBody"),
        (encoded()[:66000], 66560, "IncompleteBody"),
        (encoded((CHUNKS[0], CHUNKS[2])), 66560, "SignatureDoesNotMatch"),
        (encoded(), 66559, "IncompleteBody"),
        (encoded(), 66561, "IncompleteBody"),
        (encoded().replace(b"chunk-signature", b"chunk-signaturf"), 66560, "SignatureDoesNotMatch"),
        (encoded().replace(b"10000;", b"1000x;"), 66560, "IncompleteBody"),
        (encoded().replace(b"10000;", b"-1000;"), 66560, "IncompleteBody"),
        (b"x" * 100_000, 66560, "IncompleteBody"),
        (b"", 66560, "IncompleteBody"),
    ],
)
async def test_chunks_that_are_wrong_are_never_whole(data: bytes, length: int, code: str) -> None:
    stream = Chunks(pieces(data, 1000), length, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", seed(), KEY, None)
    got: list[bytes] = []
    with pytest.raises(S3Error) as refused:
        await collect(held_back(stream.pieces()), got)
    assert refused.value.code == code
    assert len(b"".join(got)) < length


async def test_trailers_are_signed() -> None:
    """The signature of a trailer follows that of the last chunk."""
    told = "x-amz-checksum-crc32c:sOO8/Q==\n"
    text = f"AWS4-HMAC-SHA256-TRAILER\n{DATE}\n{SCOPE}\n{CHUNKS[-1][1]}\n{hashlib.sha256(told.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in SCOPE.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    head = encoded()[:-2]
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    for sent, code in ((signature, ""), (signature[:-1] + "x", "SignatureDoesNotMatch"), ("", "IncompleteBody")):
        last = f"x-amz-trailer-signature:{sent}\r\n" if sent else ""
        data = head + f"x-amz-checksum-crc32c:sOO8/Q==\r\n{last}\r\n".encode()
        stream = Chunks(pieces(data, 100), 66560, kind, seed(), KEY, Checksum("crc32c"))
        if code:
            with pytest.raises(S3Error) as refused:
                await read(stream.pieces())
            assert refused.value.code == code
        else:
            assert await read(stream.pieces()) == b"a" * 66560
            assert stream.trailers["x-amz-checksum-crc32c"] == "sOO8/Q=="


async def test_a_body_that_is_not_what_was_signed() -> None:
    wanted = hashlib.sha256(b"hello").hexdigest()
    assert await read(hashed(pieces(b"hello", 2), 5, wanted)) == b"hello"
    got: list[bytes] = []
    with pytest.raises(S3Error) as refused:
        await collect(held_back(hashed(pieces(b"hallo", 2), 5, wanted)), got)
    assert (refused.value.code, got) == ("XAmzContentSHA256Mismatch", [b"ha", b"ll"])


# ---- checksums ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("crc32", "cbf43926"),
        ("crc32c", "e3069283"),
        ("crc64nvme", "ae8b14860a799888"),
        ("sha1", "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
        ("sha256", "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
    ],
)
def test_check_values_of_all_algorithms(algorithm: str, value: str) -> None:
    """Of the digits 1 to 9, as catalogues of such algorithms list them."""
    told = base64.b64encode(bytes.fromhex(value)).decode()
    found = announced(Headers({f"x-amz-checksum-{algorithm}": told}))
    assert found is not None
    found.sum.update(b"1234")
    found.sum.update(b"56789")
    found.check()
    found.sum.update(b"0")
    with pytest.raises(S3Error) as refused:
        found.check()
    assert refused.value.code == "BadDigest"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-md5": "AAAA"},
        {"x-amz-checksum-crc32": "AAAA"},
        {"x-amz-checksum-crc32": "ä"},
        {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-sha1": "AAAA"},
        {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-trailer": "x-amz-checksum-crc32"},
        {"x-amz-trailer": "x-amz-checksum-crc32, x-amz-checksum-sha1"},
        {"x-amz-trailer": "x-other"},
        {"x-amz-sdk-checksum-algorithm": "CRC32"},
        {"x-amz-sdk-checksum-algorithm": "SHA1", "x-amz-checksum-crc32": "AAAAAA=="},
    ],
)
def test_announcements_that_cannot_be(headers: dict[str, str]) -> None:
    with pytest.raises(S3Error) as refused:
        announced(Headers(headers))
    assert refused.value.code == "InvalidRequest"
