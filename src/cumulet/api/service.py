"""A service: what `services/<type>/__init__.py` states of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cumulet.api.dialect import Dialect
from cumulet.api.http import Endpoint
from cumulet.api.version import Microversions


@dataclass(frozen=True)
class Service:
    """One service of the cloud.

    `type` is its name in the catalogue and, with `-` as `_`, its folder; `upstream` the project whose API it speaks;
    `aliases` are further names of the type that users may know (`volumev3` for `block-storage`);
    `ports` its keys in the port registry; `needs` the services whose interfaces it imports;
    `rules` its policy defaults by upstream's names; `free_names` the beginnings of names of headers that need be no tokens
    (`field_names.py`), in small letters.
    """

    type: str
    upstream: str
    ports: tuple[str, ...]
    dialect: Dialect
    endpoints: Sequence[Endpoint]
    needs: tuple[str, ...] = ()
    microversions: Microversions | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    request_id_header: str = ""  # a header of its own beside X-Openstack-Request-Id
    within: str = ""  # the folder of the service that this one is another face of
    listed: bool = True  # whether the catalogue names it
    free_names: tuple[str, ...] = ()
    whole: bool = False  # its runtime answers requests as they are (`answer`), `endpoints` only tell of them

    @property
    def folder(self) -> str:
        """The folder it lives in."""
        return (self.within or self.type).replace("-", "_")
