"""The stores of this cloud, as its settings name them, and which of them hold an image's data."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from cumulet.config import Settings, SettingsError
from cumulet.core.errors import Conflict, Unavailable
from cumulet.services.image.drivers import Store
from cumulet.services.image.drivers.file import FileStore
from cumulet.services.image.drivers.http import HttpStore
from cumulet.services.image.drivers.object_store import ObjectStore
from cumulet.services.image.place import Location, Places
from cumulet.services.object_store.interface import ObjectStorage

if TYPE_CHECKING:
    from cumulet.services.image.image import Image

log = logging.getLogger("cumulet.image")

FIRST = "file"
"""The store that lies in the data directory's `image`; data of images that name no store is there."""
OWN = "store:"
"""How the places of data in stores of this cloud are kept: `store:NAME`."""
OBJECTS = "object-store"
"""What stands for this cloud's object storage where a directory would: `NAME=object-store`. A store of this name is one."""
WEB = "web"
"""The store of what lies at web servers."""
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")


class Held(Struct, frozen=True):
    """Data of an image in a store."""

    store: Store
    url: str
    metadata: dict[str, Any]

    @property
    def own(self) -> bool:
        """Whether the store is this cloud's, to put data in and to remove it from."""
        return not self.store.read_only

    @property
    def file(self) -> Path | None:
        return self.store.file(self.url)


class Stores:
    """All stores, by name. `default` takes data for which no store was named."""

    def __init__(self, settings: Settings, web: Places, objects: ObjectStorage | None) -> None:
        """SettingsError where `image_stores` makes no sense. `objects` is object storage, where there is any."""
        self.own: dict[str, Store] = {}
        for part in settings.image_stores.split(","):
            name, _, directory = part.strip().partition("=")
            if not NAME.match(name) or name in self.own or name == WEB:
                raise SettingsError(
                    f"`image_stores` names {name!r}: a store has a name of its own, of letters, digits, `_`, `.` and `-`, "
                    f"other than {WEB!r}"
                )
            self.own[name] = _store(settings, objects, name, directory)
        self.default = next(iter(self.own.values()))
        self.web = HttpStore(WEB, web)
        self.all: Mapping[str, Store] = {**self.own, WEB: self.web} if settings.image_web else self.own

    @property
    def several(self) -> bool:
        """Whether clients are told of stores at all, as upstream does where more than one is configured."""
        return len(self.all) > 1

    def writable(self, name: str) -> Store:
        """The store that data is to be put in. Conflict where there is none of this name, or it is read only."""
        if name not in self.all:
            raise Conflict(f"There is no store {name}; there are {', '.join(self.all)}.")
        if self.all[name].read_only:
            raise Conflict(f"The store {name} is read only: data cannot be put there.")
        return self.all[name]

    def place(self, name: str, image_id: str) -> Location:
        """Where the data of an image lies once it was put in the store, as it is kept: by the store's name, since the URL is
        where the store lies today."""
        return Location(f"{OWN}{name}", {})

    def holding(self, image: "Image") -> list[Held]:
        """What holds the image's data, in the order in which it is looked for."""
        if image.places is None:
            there = image.size is not None and image.status in ("active", "deactivated")
            store = self.own.get(FIRST, self.default)
            return [Held(store, store.url(image.id), {})] if there else []
        return [self._held(image.id, place) for place in image.places]

    def _held(self, image_id: str, place: Location) -> Held:
        if not place.url.startswith(OWN):
            return Held(self.web, place.url, place.metadata)
        name = place.url.removeprefix(OWN)
        store = self.own.get(name) or FileStore(name, Path("/nonexistent"))
        return Held(store, store.url(image_id), place.metadata)

    def locations(self, image: "Image") -> list[Location]:
        """The places where the image's data lies, as they are shown."""
        return [
            Location(held.url, {**held.metadata, "store": held.store.name} if held.own else held.metadata)
            for held in self.holding(image)
        ]

    def kept(self, image_id: str, shown: Sequence[Location]) -> list[Location]:
        """Places that were shown, as they are kept."""
        own = {store.url(image_id): self.place(name, image_id) for name, store in self.own.items()}
        return [
            Location(own[place.url].url, {key: value for key, value in place.metadata.items() if key != "store"})
            if place.url in own
            else place
            for place in shown
        ]

    def names(self, image: "Image") -> str:
        """The stores that hold the image's data, with commas."""
        return ",".join(dict.fromkeys(held.store.name for held in self.holding(image)))


async def discard(store: Store, image_id: str) -> None:
    """Remove data that no image has any more. Where the store does not answer it goes at the next start."""
    try:
        await store.remove(image_id)
    except Unavailable as error:
        log.warning("the data of image %s stays in the store %s until the next start: %s", image_id, store.name, error)


def _store(settings: Settings, objects: ObjectStorage | None, name: str, place: str) -> Store:
    """The store that a part of `image_stores` names."""
    usual = settings.data / ("image" if name == FIRST else f"image-{name}")
    if (place or name) != OBJECTS:
        return FileStore(name, Path(place).expanduser() if place else usual)
    if objects is None:
        raise SettingsError(f"`image_stores` has the store {name!r} in object storage, which is not there")
    segment = settings.image_segment_size << 20
    return ObjectStore(name, objects.area("image", segment), usual, segment)
