"""The queue of objects that are to be deleted at a time: where each one's entry lies, and what it is called.

As swift has it: containers of one day each (spread over a hundred) in the account `.expiring_objects`, entries named
`<time>-<account>/<container>/<object>`.
"""

from cumulet.services.object_store.names import HashSalt, Timestamp

ACCOUNT = ".expiring_objects"
DAY = 86400
SPREAD = 100
CONTENT_TYPE = "text/plain"
LAST = 9_999_999_999
"""No entry is due later: names have ten digits."""


def due(seconds: int) -> str:
    """A time as it stands in the names of the queue."""
    return f"{min(max(seconds, 0), LAST):010d}"


def queue_container(salt: HashSalt, seconds: int, account: str, container: str, object: str) -> str:
    """The container of the queue that an object's entry lies in."""
    offset = int.from_bytes(salt.digest(account, container, object), "big") % SPREAD
    return due(seconds // DAY * DAY - offset)


def entry(seconds: int, account: str, container: str, object: str) -> str:
    """The name of an object's entry."""
    return f"{due(seconds)}-{account}/{container}/{object}"


def entry_of_delete(at: Timestamp, account: str, container: str, object: str) -> str:
    """The name of the entry of an object that is to go for what a user said at a time, which then has all its digits."""
    return f"{at.normal}-{account}/{container}/{object}"


def parse(name: str) -> tuple[Timestamp, str, str, str]:
    """The time, account, container and object of an entry; ValueError where it is none."""
    told, _, path = name.partition("-")
    account, container, object = path.split("/", 2)
    return Timestamp.parse(told), account, container, object
