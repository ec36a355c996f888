"""What carries the cloud: hypervisor, networks, guest image and database."""

from pathlib import Path
from typing import Annotated, Literal

from cumulet.config.place import PlaceSettings
from cumulet.config.words import says


class BackendSettings(PlaceSettings, frozen=True, kw_only=True):
    """What the program makes a cloud of."""

    hypervisor: Annotated[
        Literal["auto", "qemu", "simulated"],
        says("What runs servers: `auto` takes QEMU where it can be used, and says so where it cannot."),
    ] = "auto"
    virt_type: Annotated[
        Literal["auto", "kvm", "tcg"],
        says("How QEMU runs guests: `auto` measures KVM and takes it only if it is fast."),
    ] = "auto"
    network: Annotated[
        Literal["auto", "linux", "simulated"],
        says("What carries tenant networks: `auto` takes Linux namespaces and nftables where it may."),
    ] = "auto"
    public_cidr: Annotated[str, says("The subnet of the external network `public`, made at the first start.")] = (
        "172.24.4.0/24"
    )
    public_bridge: Annotated[
        str, says("The host's bridge to the external network.", pattern="^[a-zA-Z0-9_.-]{1,15}$")
    ] = "cumulet-ext"
    guest_image: Annotated[
        Path | None,
        says(
            "The qcow2 file registered as image `cumulet-guest` at the first start.",
            "guest.qcow2 in the data directory, in /usr/share/cumulet or in the source checkout",
        ),
    ] = None
    database: Annotated[str, says("The database, as an SQLAlchemy URL.", "an SQLite file in the data directory")] = ""

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL to connect to, the default filled in."""
        return self.database or f"sqlite:///{self.data.absolute() / 'cumulet.sqlite'}"

    def find_guest_image(self) -> Path | None:
        """The guest image to register: the one set, else the first that exists of the usual places."""
        if self.guest_image is not None:
            return self.guest_image
        places = [self.data / "guest.qcow2", Path("/usr/share/cumulet/guest.qcow2")]
        checkout = Path(__file__).resolve().parents[3]
        if (checkout / "pyproject.toml").is_file():
            places.append(checkout / "guest.qcow2")
        return next((place for place in places if place.is_file()), None)
