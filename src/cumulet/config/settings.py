"""All settings together, and the table of them that people and the command line see."""

from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct

from cumulet.config.object_features import ObjectFeatureSettings

ENVIRONMENT_PREFIX = "CUMULET_"


class Settings(ObjectFeatureSettings, frozen=True, kw_only=True):
    """What the program is told. Made by `load`; `docs` and `cumulet up --help` are generated from it."""


class Setting(Struct, frozen=True):
    """One row of the table of settings, as people and the command line see it. `default` is text."""

    name: str
    type: Any
    default: str
    description: str
    choices: tuple[str, ...] = ()
    is_flag: bool = False

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _row(info: msgspec.structs.FieldInfo) -> Setting:
    kind, meta = get_args(info.type)
    default = str(info.default).lower() if kind is bool else str(info.default)
    return Setting(
        name=info.name,
        type=info.type,
        default=(meta.extra or {}).get("default", default),
        description=meta.description,
        choices=get_args(kind) if get_origin(kind) is Literal else (),
        is_flag=kind is bool,
    )


SETTINGS: tuple[Setting, ...] = tuple(_row(info) for info in msgspec.structs.fields(Settings))
