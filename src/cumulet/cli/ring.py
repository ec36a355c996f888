"""`cumulet ring`: the rings of object storage, built, balanced and shown."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cumulet import ports
from cumulet.cli.options import with_settings
from cumulet.cli.tables import table
from cumulet.config import Settings

if TYPE_CHECKING:
    from cumulet.services.object_store.ring.builder import Builder

NAMES = re.compile(r"account|container|object(-[1-9][0-9]*)?")


class RingName(click.ParamType[str]):
    """The name of a ring."""

    name = "ring"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if NAMES.fullmatch(value) is None:
            self.fail(
                f"{value} is no ring: they are account, container, object, and object-N of storage policy N", param, ctx
            )
        return value


RINGS = click.argument("rings", nargs=-1, required=True, metavar="RING...", type=RingName())
WHERE = with_settings("data", "object_rings")
SELECTORS = ("id", "address", "device", "region", "zone")


@click.group("ring", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Say which devices of object storage hold what.

    There is a ring of accounts, one of containers and one of objects (further storage policies have object-1, object-2 ...).
    Each splits all names into partitions and gives every partition to as many devices as there are copies. What is changed
    here comes into force with `rebalance`, which writes the files that running programs follow: copy the directory (*.ring.gz
    and swift.conf) to every host, and nothing needs to be started anew. swift-ring-builder reads the same files.

    \b
    Example: three copies on three hosts; see what came of it:
      cumulet ring create account container object --replicas 3
      cumulet ring add account container object --zone 1 --address 10.0.0.1 --device sdb --weight 100
      cumulet ring add account container object --zone 2 --address 10.0.0.2 --device sdb --weight 100
      cumulet ring add account container object --zone 3 --address 10.0.0.3 --device sdb --weight 100
      cumulet ring rebalance account container object
      cumulet ring show object
    """


def _selected(function: Callable[..., None]) -> Callable[..., None]:
    """The options that choose devices of a ring."""
    for name, kind, says in (
        ("--zone", int, "All in this zone."),
        ("--region", int, "All in this region."),
        ("--device", str, "By name."),
        ("--address", str, "All at this IP address."),
        ("--id", int, "By number."),
    ):
        function = click.option(name, type=kind, help=says)(function)
    return function


@command.command("create")
@RINGS
@WHERE
@click.option("--power", type=click.IntRange(1, 24), default=10, show_default=True,
              help="There are 2^POWER partitions, which stays so: about 100 for each disk there may ever be.")  # fmt: skip
@click.option("--replicas", type=float, default=3, show_default=True, help="Copies of everything.")
@click.option("--min-part-hours", type=click.IntRange(0, 255), default=1, show_default=True,
              help="How long a partition stays where it is before its next copy may move.")  # fmt: skip
def create(settings: Settings, rings: tuple[str, ...], power: int, replicas: float, min_part_hours: int) -> None:
    """Make new rings without devices.

    A directory without swift.conf gets one, with a salt of its own.

    \b
    Example: for a cluster that may grow to 100 disks:
      cumulet ring create account container object --power 14 --replicas 3
    """
    from cumulet.services.object_store import policies
    from cumulet.services.object_store.ring.builder import Builder

    directory = _directory(settings)
    with _errors():
        for ring in rings:
            file = directory / f"{ring}.builder"
            if file.exists():
                raise click.ClickException(f"{file} is there already; remove it first if all it holds may go")
            _save(Builder(power, replicas, min_part_hours), file)
            click.echo(f"{ring}: {1 << power} partitions, {replicas:g} copies, no devices yet")
        if not (directory / policies.FILE).exists():
            policies.make(directory / policies.FILE)
            click.echo(f"{directory / policies.FILE} has the cluster's salt: keep it, and copy it to every host")


@command.command("add")
@RINGS
@WHERE
@click.option("--address", required=True, help="The IP address of the host (its --object-bind).")
@click.option("--device", required=True, help="The name of the device's directory below --object-devices.")
@click.option("--weight", type=float, default=100.0, show_default=True, help="Its share, such as its size in GB.")
@click.option("--region", type=int, default=1, show_default=True, help="Where it is: copies go to different regions,")
@click.option("--zone", type=int, default=1, show_default=True, help="in those to different zones, then hosts.")
@click.option("--port", type=int, help="The port of its server.  [default: 6000, 6001, 6002 by the ring]")
@click.option("--replication-address", help="The address for copies between hosts.  [default: --address]")
@click.option("--replication-port", type=int, help="The port of its server there.  [default: --port]")
@click.option("--meta", default="", help="A note.")
def add(settings: Settings, rings: tuple[str, ...], **told: Any) -> None:
    """Add a device to rings.

    It holds nothing until they are balanced.

    \b
    Example: a disk of 4 TB on a further host:
      cumulet ring add account container object --zone 4 --address 10.0.0.4 --device sdb --weight 4000
    """
    for ring in rings:
        with _changed(settings, ring) as builder:
            port = told["port"] or ports.port(ring.partition("-")[0]).number
            device = {
                "region": told["region"],
                "zone": told["zone"],
                "ip": told["address"],
                "port": port,
                "device": told["device"],
                "weight": told["weight"],
                "meta": told["meta"],
                "replication_ip": told["replication_address"] or told["address"],
                "replication_port": told["replication_port"] or port,
            }
            id = builder.add(device)
            click.echo(f"{ring}: {told['device']} at {told['address']} port {port} is device {id}")


@command.command("remove")
@RINGS
@WHERE
@_selected
def remove(settings: Settings, rings: tuple[str, ...], **chosen: Any) -> None:
    """Take devices out of rings.

    What they hold goes to others with the next rebalance. A device that still works is better emptied first: set its weight
    to 0, balance, and remove it when the copies have moved.

    \b
    Example: a disk that has failed; a whole host:
      cumulet ring remove object --address 10.0.0.2 --device sdb
      cumulet ring remove account container object --address 10.0.0.2
    """
    for ring in rings:
        with _changed(settings, ring) as builder:
            for device in _chosen(builder, chosen):
                builder.remove(device["id"])
                click.echo(
                    f"{ring}: device {device['id']} ({device['device']} at {device['ip']}) goes at the next rebalance"
                )


@command.command("set-weight")
@RINGS
@click.argument("weight", type=float)
@WHERE
@_selected
def set_weight(settings: Settings, rings: tuple[str, ...], weight: float, **chosen: Any) -> None:
    """Give devices another share.

    \b
    Example: empty a disk before it is taken out:
      cumulet ring set-weight object 0 --address 10.0.0.2 --device sdb
    """
    for ring in rings:
        with _changed(settings, ring) as builder:
            for device in _chosen(builder, chosen):
                builder.set_weight(device["id"], weight)
                click.echo(
                    f"{ring}: device {device['id']} ({device['device']} at {device['ip']}) has weight {weight:g}"
                )


@command.command("set")
@RINGS
@WHERE
@click.option("--replicas", type=float, help="Copies of everything.")
@click.option("--overload", type=click.FloatRange(0), help="By which fraction a device may hold more than its weight says so "
              "that copies lie further apart; 0.1 is 10 %.")  # fmt: skip
@click.option(
    "--min-part-hours", type=click.IntRange(0, 255), help="How long a partition stays before its next copy may move."
)
def set_all(
    settings: Settings,
    rings: tuple[str, ...],
    replicas: float | None,
    overload: float | None,
    min_part_hours: int | None,
) -> None:
    """Change what holds for whole rings.

    \b
    Example: from one copy to three, once there are three devices:
      cumulet ring set account container object --replicas 3
    """
    for ring in rings:
        with _changed(settings, ring) as builder:
            if replicas is not None:
                builder.set_replicas(replicas)
            if overload is not None:
                builder.overload = overload
            if min_part_hours is not None:
                builder.min_part_hours = min_part_hours
            click.echo(
                f"{ring}: {builder.replicas:g} copies, overload {builder.overload:g}, "
                f"{builder.min_part_hours} hours between moves"
            )


@command.command("rebalance")
@RINGS
@WHERE
@click.option("--seed", help="Makes the outcome repeatable.")
@click.option(
    "--force", is_flag=True, help="Move partitions again that have just moved: only when their copies have arrived."
)
def rebalance(settings: Settings, rings: tuple[str, ...], seed: str | None, force: bool) -> None:
    """Give the partitions to the devices, and write the rings.

    As few copies move as that takes, and of one partition only one at a time. Running programs take up the new files in some
    seconds; replicators then bring the copies to their places.

    \b
    Example: after any change:
      cumulet ring rebalance account container object
    """
    from cumulet.services.object_store.ring import data

    for ring in rings:
        with _changed(settings, ring) as builder:
            if force:
                builder.pretend_hours_passed()
            moved, balance, gone = builder.rebalance(seed)
            data.save(builder.ring(), _directory(settings) / f"{ring}.ring.gz")
            removed = f", {gone} devices removed" if gone else ""
            click.echo(
                f"{ring}: {moved} copies of partitions got another device{removed}; balance {balance:.2f}, "
                f"dispersion {builder.dispersion:.2f}"
            )
            if not moved and builder.seconds_left and balance > 1:
                click.echo(f"  partitions that moved last may move again in {builder.seconds_left} s")


@command.command("show")
@RINGS
@WHERE
def show(settings: Settings, rings: tuple[str, ...]) -> None:
    """Show devices and how well rings are balanced.

    Balance: by how many percent the device that is furthest off holds more or less than its weight says. Dispersion: how many
    percent of the copies lie nearer to another one of the same partition than they need to.

    \b
    Example: the devices that hold objects, and how many partitions each has:
      cumulet ring show object
    """
    header = ("id", "region", "zone", "address", "port", "device", "weight", "partitions", "balance", "note")
    for ring in rings:
        with _errors():
            builder = _load(settings, ring)
            balances = builder.balances()
        click.echo(
            f"{ring}: {builder.parts} partitions, {builder.replicas:g} copies, "
            f"{sum(1 for _ in builder.every())} devices, balance {builder.balance:.2f}, dispersion {builder.dispersion:.2f}, "
            f"version {builder.version}{', to be balanced' if builder.changed else ''}"
        )
        rows = [
            (
                *(str(device[name]) for name in ("id", "region", "zone", "ip", "port", "device")),
                f"{device['weight']:g}",
                str(device["parts"]),
                f"{balances[device['id']]:.2f}",
                "is being removed" if device in builder.removed else device["meta"],
            )
            for device in builder.every()
        ]
        click.echo(table(header, rows), nl=False)


@command.command("nodes")
@click.argument("ring", type=RingName())
@click.argument("account", required=False)
@click.argument("container", required=False)
@click.argument("object", required=False)
@WHERE
@click.option("--partition", type=int, help="Of a partition, instead of a name.")
@click.option("--all", "every", is_flag=True, help="All handoffs, not only as many as there are copies.")
def nodes(
    settings: Settings,
    ring: str,
    account: str | None,
    container: str | None,
    object: str | None,
    partition: int | None,
    every: bool,
) -> None:
    """Say where something lies.

    The devices that hold it, and those that stand in for them (handoffs), with the path below each.

    \b
    Example: where an object is; where a container's listing is:
      cumulet ring nodes object AUTH_d13459b5 photos summer/beach.jpg
      cumulet ring nodes container AUTH_d13459b5 photos
    """
    from cumulet.services.object_store import names, policies
    from cumulet.services.object_store.ring.ring import FileRing

    directory = _directory(settings)
    with _errors():
        found = FileRing(directory / f"{ring}.ring.gz")
        path = ""
        if account is not None:
            salt = policies.read(directory / policies.FILE).salt
            digest = salt.digest(account, container or "", object or "")
            partition = names.partition(digest, found.power)
            path = f"/{digest.hex()[-3:]}/{digest.hex()}"
    if partition is None or not 0 <= partition < 1 << found.power:
        raise click.UsageError(f"name an account, or a partition from 0 to {(1 << found.power) - 1}")
    kind, _, index = ring.partition("-")
    place = f"{kind}s{f'-{index}' if index else ''}/{partition}{path}"
    handoffs = found.handoffs(partition)
    if not every:
        handoffs = handoffs[: found.replicas]
    rows = [(f"copy {number + 1}", d) for number, d in enumerate(found.devices(partition))]
    rows += [(f"handoff {number + 1}", d) for number, d in enumerate(handoffs)]
    click.echo(f"{ring}: partition {partition}")
    header = ("what", "address", "port", "device", "path below the device")
    click.echo(table(header, [(what, d.address, str(d.port), d.name, place) for what, d in rows]), nl=False)


def _directory(settings: Settings) -> Path:
    return settings.object_rings or settings.data / "object-store" / "rings"


def _load(settings: Settings, ring: str) -> "Builder":
    from cumulet.services.object_store.ring import builder_file

    return builder_file.load(_directory(settings) / f"{ring}.builder")


def _save(builder: "Builder", file: Path) -> None:
    from cumulet.services.object_store.ring import builder_file

    builder_file.save(builder, file)


@contextmanager
def _changed(settings: Settings, ring: str) -> "Iterator[Builder]":
    """A builder, saved when what is done to it has gone well."""
    with _errors():
        builder = _load(settings, ring)
        yield builder
        _save(builder, _directory(settings) / f"{ring}.builder")


@contextmanager
def _errors() -> Iterator[None]:
    from cumulet.services.object_store.ring.data import RingError

    try:
        yield
    except RingError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error


def _chosen(builder: "Builder", chosen: dict[str, Any]) -> list[dict[str, Any]]:
    """The devices that the options name."""
    told = {"ip" if name == "address" else name: value for name, value in chosen.items() if value is not None}
    if not told:
        raise click.UsageError(f"say which devices: {', '.join(f'--{name}' for name in SELECTORS)}")
    found = [device for device in builder.every() if all(device[name] == value for name, value in told.items())]
    if not found:
        raise click.ClickException("no device of the ring is that; `cumulet ring show` lists them")
    return found
