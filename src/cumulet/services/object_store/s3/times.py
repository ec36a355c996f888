"""Times as S3 tells them."""

from datetime import UTC, datetime, timedelta

from cumulet.services.object_store.conditional import parse_date


def in_xml(listed: str) -> str:
    """A time of a listing (2014-06-10T22:47:32.054580) in whole seconds, rounded up as Last-Modified is."""
    moment = datetime.fromisoformat(listed).replace(tzinfo=UTC)
    if moment.microsecond:
        moment = moment.replace(microsecond=0) + timedelta(seconds=1)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def of_header(told: str | None) -> str:
    """A Last-Modified as it stands in XML."""
    return datetime.fromtimestamp(parse_date(told) or 0, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
