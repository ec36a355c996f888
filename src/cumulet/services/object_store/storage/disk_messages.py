"""What the program and its disk process (`disk_process.py`, `disk_worker.py`) say to each other: one message a packet."""

import msgspec
from msgspec import Struct

from cumulet.services.object_store.names import Timestamp
from cumulet.services.object_store.storage.object_changes import Change, Deleted, Written

LARGEST = 128 << 10
"""Bytes of a message. What needs a larger one is done by threads."""


class Asked(Struct, array_like=True):
    """A change to be made; the reply has the same number."""

    number: int
    change: Change


class Ready(Struct, tag=True, array_like=True):
    """The process is there: its first message."""


class Refusal(Struct, tag=True, array_like=True):
    """It may not be: `object_changes.Refused`."""

    status: int
    last: Timestamp
    text: str


class Torn(Struct, tag=True, array_like=True):
    """What is there is damaged: nothing was done."""


class Failed(Struct, tag=True, array_like=True):
    """The device failed (`number` is its errno) or is full, or else the program has a fault, of which this is the traceback."""

    number: int
    text: str


class Reply(Struct, array_like=True):
    """What became of the change of this number."""

    number: int
    outcome: Ready | Written | Deleted | Refusal | Torn | Failed


encode = msgspec.msgpack.Encoder().encode
decode_asked = msgspec.msgpack.Decoder(Asked).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
