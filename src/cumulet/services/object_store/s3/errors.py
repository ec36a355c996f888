"""How S3 says no: a code, a status and a sentence, in XML.

Reference: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html (the codes and sentences are its).
"""

from typing import Any

from cumulet.services.object_store.message import Refusal, Response
from cumulet.services.object_store.s3.xml import document, leaf

CODES: dict[str, tuple[int, str]] = {
    "AccessDenied": (403, "Access Denied."),
    "AuthorizationHeaderMalformed": (
        400,
        "The authorization header is malformed; it requires three components: Credential, SignedHeaders, and Signature.",
    ),
    "AuthorizationQueryParametersError": (400, "The query parameters of the signature cannot be used."),
    "BadDigest": (400, "The Content-MD5 you specified did not match what we received."),
    "BrokenMPU": (409, "Parts of this multipart upload are missing or have changed."),
    "BucketAlreadyExists": (409, "The requested bucket name is not available. Please select a different name."),
    "BucketAlreadyOwnedByYou": (409, "You have a bucket of this name already."),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed object size."),
    "IllegalVersioningConfigurationException": (400, "The versioning configuration cannot be used."),
    "IncompleteBody": (400, "You did not provide the number of bytes specified by the Content-Length HTTP header"),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidArgument": (400, "Invalid Argument."),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidChunkSizeError": (403, "Only the last chunk is allowed to have a size less than 8192 bytes"),
    "InvalidDigest": (400, "The Content-MD5 you specified was invalid."),
    "InvalidLocationConstraint": (400, "The specified location constraint is not valid."),
    "InvalidPart": (
        400,
        (
            "One or more of the specified parts could not be found.  The part may not have been uploaded, or the "
            "specified entity tag may not match the part's entity tag."
        ),
    ),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order of their numbers."),
    "InvalidRange": (416, "The requested range cannot be satisfied."),
    "InvalidRequest": (400, "Invalid Request."),
    "InvalidStorageClass": (400, "The storage class you specified is not valid; there is STANDARD."),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "KeyTooLongError": (400, "Your key is too long."),
    "MalformedACLError": (400, "The XML you provided is no access control policy."),
    "MalformedTrailerError": (
        400,
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    ),
    "MalformedXML": (
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingRequestBodyError": (400, "Request body is empty."),
    "MissingSecurityHeader": (400, "Your request was missing a required header."),
    "NoLoggingStatusForKey": (400, "There is no such thing as a logging status sub-resource for a key."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist"),
    "NoSuchUpload": (
        404,
        "The specified multipart upload does not exist: its ID is wrong, or it was completed or aborted.",
    ),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NotImplemented": (501, "Not implemented."),
    "ObjectLockConfigurationNotFoundError": (404, "Object Lock configuration does not exist for this bucket"),
    "PreconditionFailed": (412, "At least one of the preconditions you specified did not hold."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time is too large."),
    "RequestTimeout": (400, "Nothing was read from or written to the connection for too long."),
    "ServiceUnavailable": (503, "Please reduce your request rate."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
    ),
    "SlowDown": (503, "Please reduce your request rate."),
    "UnexpectedContent": (400, "This request does not support content."),
    "UserKeyMustBeSpecified": (400, "Every object to delete must be named."),
    "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
}


class S3Error(Refusal):
    """A request of S3 is refused. `info` are elements of the reply beside the code and the sentence."""

    def __init__(self, code: str, message: str = "", *, headers: Any = None, **info: str) -> None:
        self.code = code
        self.status, usual = CODES[code]
        self.message = message or usual
        self.headers = headers or {}
        self.info = info
        super().__init__(self.reply())

    def reply(self, transaction: str = "") -> Response:
        told = [leaf("Code", self.code), leaf("Message", self.message)]
        told += [leaf("RequestId", transaction)] if transaction else []
        told += [leaf(name, value) for name, value in self.info.items()]
        body = document("Error", *told, namespace="")
        return Response(self.status, body, {"Content-Type": "application/xml", **self.headers})


def invalid_argument(name: str, value: str, message: str = "") -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=value)


def not_implemented(message: str = "The requested resource is not implemented") -> S3Error:
    return S3Error("NotImplemented", message)
