"""`cumulet object-node`."""

import sys

import click

from cumulet import lock
from cumulet.cli.options import with_settings
from cumulet.cli.serving import announce, serve
from cumulet.config import SETTINGS, Settings

MINE = ("data", "port_offset", "log_level", "log_format", "log_file")
NAMES = (*MINE, *(row.name for row in SETTINGS if row.name.startswith("object_")))


@click.command("object-node")
@with_settings(*NAMES)
def command(settings: Settings) -> None:
    """Run only the storage of object storage on this host.

    Serves this host's devices to the proxies (`cumulet up`) and the other nodes of the cluster: objects on port 6000,
    containers on 6001, accounts on 6002, and rsync on 873 for copies. Nodes trust whoever reaches these ports, so give
    --object-bind an address of a network of their own. Which device holds what is in the rings (`cumulet ring`): they and
    swift.conf lie in one directory that is the same on every host, and are read anew when they change.

    \b
    Example: a node on 10.0.0.2; another one; the proxy that asks them:
      cumulet object-node --object-bind 10.0.0.2 --object-devices /srv/node --object-rings /etc/cumulet/rings
      cumulet object-node --object-bind 10.0.0.3 --object-devices /srv/node --object-rings /etc/cumulet/rings
      cumulet up --bind 192.0.2.10 --object-bind 10.0.0.1 --object-rings /etc/cumulet/rings
    """
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with lock.hold(settings.data):
            sys.exit(_serve(settings))
    except lock.DataLockedError as error:
        raise click.ClickException(f"{error}; stop that one, or give this one its own --data") from error


def _serve(settings: Settings) -> int:
    from cumulet import object_node

    return serve(object_node.run(settings, announce))
