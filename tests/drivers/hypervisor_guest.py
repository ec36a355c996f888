"""Guests of 512 bytes: boot sectors that speak on the serial port and know the power button, so that no image is needed.

They run in real mode on the `pc` machine, whose power management registers lie at port 0x600 (status), 0x602 (enable) and
0x604 (control), and those of PCI hot-plug at 0xae00.
"""

from pathlib import Path

HELLO = b"guest up\r\n"
_START = 0x7C00
_POWER_OFF = bytes.fromhex("ba0406 b80020 ef f4 ebfd")  # out 0x604, 0x2000; then halt for ever
_BUTTON_ENABLE = bytes.fromhex("ba0206 b80001 ef")  # out 0x602, 0x100
_EJECT = bytes.fromhex("ba04ae 66ed b208 6685c0 7402 66ef")  # what is asked back (in 0xae04) is let go of (out 0xae08)
_WAIT_BUTTON = bytes.fromhex("fb f4") + _EJECT + bytes.fromhex("ba0006 ed f6c401 74e8")
# sti; do { hlt; eject } while not (in 0x600) & 0x100
_WAIT_FOREVER = bytes.fromhex("fb f4 ebfd")

OBEYS = _WAIT_BUTTON + _POWER_OFF
"""Powers off when the button is pressed, and lets go of cards that are taken out."""
DEAF = _WAIT_FOREVER
"""Does nothing, whatever is pressed."""


def boot_sector(behaviour: bytes) -> bytes:
    """The smallest raw disk image that boots to one of the behaviours above, having said HELLO: from then on it hears."""
    program = bytes.fromhex("31c0 8ed8")  # ds = 0
    if behaviour == OBEYS:
        program += _BUTTON_ENABLE
    print_loop = bytes.fromhex("ac 84c0 7406 baf803 ee ebf5")  # out 0x3f8 until a zero byte
    message = _START + len(program) + 3 + len(print_loop) + len(behaviour)
    sector = program + b"\xbe" + message.to_bytes(2, "little") + print_loop + behaviour + HELLO + b"\0"
    assert len(sector) <= 510
    return sector.ljust(510, b"\0") + b"\x55\xaa"


def write_guest(file: Path, behaviour: bytes, size: int = 1024**2) -> Path:
    """A raw disk image of `size` bytes that begins with a boot sector."""
    with file.open("wb") as disk:
        disk.write(boot_sector(behaviour))
        disk.truncate(size)
    return file
