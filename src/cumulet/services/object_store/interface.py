"""What other services may ask of object storage: to keep data for them, where no client gets at it."""

from collections.abc import AsyncIterator
from typing import Protocol


class Area(Protocol):
    """Objects of one service, in an account of its own: no project's, and no other service's. Containers are made when
    something is put in them; their names have no `+` and no `/`. Of all of it: Unavailable where too few nodes answer."""

    async def put(self, container: str, name: str, pieces: AsyncIterator[bytes], size: int) -> None:
        """Keep `size` bytes under a name, in place of what it named. The object is there when this returns, or nothing of it:
        what a put that ends otherwise has written goes at once, or with `tidy` where the program died. TooLarge (there is no
        room), Invalid (other than `size` bytes come); whatever `pieces` raises."""
        ...

    async def size(self, container: str, name: str) -> int:
        """How many bytes an object has. NotFound."""
        ...

    def read(self, container: str, name: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """An object, or a part of it that begins in it, in pieces of bounded size. NotFound, RangeNotSatisfiable."""
        ...

    async def delete(self, container: str, name: str) -> None:
        """Remove an object. Nothing there: no effect."""
        ...

    def names(self, container: str, prefix: str = "") -> AsyncIterator[str]:
        """The names of the objects that begin with `prefix`, in order."""
        ...

    async def tidy(self, container: str) -> None:
        """Remove what puts and deletes have left that the end of the program cut off."""
        ...


class ObjectStorage(Protocol):
    def area(self, owner: str, segment: int) -> Area:
        """What the service `owner` keeps. Objects of more than `segment` bytes lie in pieces of that size, or of larger ones
        where those would be too many."""
        ...
