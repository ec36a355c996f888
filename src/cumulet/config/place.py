"""Where the program stands: its directory, its addresses and names."""

import ipaddress
import os
import socket
from pathlib import Path
from typing import Annotated

from msgspec import Struct, field

from cumulet.config.words import says


def _default_data() -> Path:
    return Path("/var/lib/cumulet") if os.geteuid() == 0 else Path.home() / ".local" / "share" / "cumulet"


class PlaceSettings(Struct, frozen=True, kw_only=True):
    """Where the program keeps its state, and under which addresses and names others reach it."""

    data: Annotated[
        Path,
        says("The directory that holds the cloud's state.", "/var/lib/cumulet as root, else ~/.local/share/cumulet"),
    ] = field(default_factory=_default_data)
    bind: Annotated[str, says("The IP address on which all services listen.")] = "127.0.0.1"
    endpoint_host: Annotated[
        str,
        says(
            "The host name or address in the catalogue's URLs.",
            "`bind`, or this host's own address for a wildcard",
        ),
    ] = ""
    port_offset: Annotated[int, says("A number added to every port.", ge=0, le=30000)] = 0
    region: Annotated[str, says("The region of all endpoints.", min_length=1, max_length=255)] = "RegionOne"
    hostname: Annotated[
        str, says("The name of this host among compute hosts and agents.", "the host's own name", min_length=1)
    ] = field(default_factory=socket.gethostname)

    @property
    def endpoint_address(self) -> str:
        """What stands for this host in URLs, without brackets. May ask the kernel for this host's address."""
        if self.endpoint_host:
            return self.endpoint_host
        if not ipaddress.ip_address(self.bind).is_unspecified:
            return self.bind
        return _own_address(self.bind)


def _own_address(wildcard: str) -> str:
    """This host's address towards the world; loopback where there is no route. Sends nothing."""
    family, far, loopback = (
        (socket.AF_INET6, "2001:db8::1", "::1") if ":" in wildcard else (socket.AF_INET, "192.0.2.1", "127.0.0.1")
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
        except OSError:
            return loopback
        return str(probe.getsockname()[0])
