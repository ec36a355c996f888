"""All settings: name, type, default and one sentence each.

A setting has one name everywhere: `port_offset` in the TOML file, `CUMULET_PORT_OFFSET` in the environment and
`--port-offset` on the command line. A flag wins over the environment, the environment over the file, the file over
the default.

It is described in one place: as a field of the struct of its topic, one file each. A struct of msgspec can have only one
base, so each topic's stands on that of the topic before, and `Settings` on the last; this is also the order in which
settings are listed: `place`, `backends`, `identity`, `image`, `object_store`, `program`, `object_features`.
"""

from cumulet.config.program import TERMINAL
from cumulet.config.settings import ENVIRONMENT_PREFIX, SETTINGS, Setting, Settings
from cumulet.config.sources import CONFIG_VARIABLE, SettingsError, load

__all__ = [
    "CONFIG_VARIABLE",
    "ENVIRONMENT_PREFIX",
    "SETTINGS",
    "TERMINAL",
    "Setting",
    "Settings",
    "SettingsError",
    "load",
]
