"""What object storage costs here and in upstream's swift: the same load on both, in turn, in one run on this machine.

usage: python -m bench.beside_swift [--only objects,large,listings] [--rounds N] [--wait SECONDS] [--directory DIR] [--venv DIR]

swift comes from PyPI into a virtual environment (--venv), which the first run makes and later ones find. It is set up as an
installation of one machine: four servers with their default workers, the sample's pipeline with authtoken and keystoneauth,
memcached, one copy of everything, all else at its defaults, no daemons, and nothing but errors logged. A Cumulet with simulated
drivers is the other side, and the identity service of both. What both store is on one file system, below --directory.
Everything is ended and removed at the end. memcached is the one program that has to be there before.

The load is that of bench.objects and bench.listings. Each operation is done by one side and then by the other, --rounds times;
while one is measured the other is idle, and nothing of what was written before is still on its way to the disk. The names of
the listings are told to the container servers of both by the same requests (UPDATE), and no objects lie behind them.

What the columns are:
  ours, swift   requests a second in the best round of each side; of a large object MiB a second
  ratio         the one by the other, and in brackets the lowest and the highest of the rounds
  goal          what the ratio shall be; of a large object, its share of cp (made durable) or of the loopback; below it stands
                its share of a cp, too, that makes the MD5 meanwhile on another core, as a server has to
  CPU ms        what all processes of a side used for each request of that round: swift's servers and memcached; all of Cumulet
  cores         how many cores the side used then
  others        CPU that neither the side nor its client used in that round, in percent of a core

Others' work does not slow both alike: Cumulet is one process, and swift's twelve use every core (1.9 of two, when left alone),
so a neighbour that takes one of two flatters Cumulet. A row counts where `others` is small, and one with more than 15 is marked
`not quiet`; CPU for each request can be compared there still. --wait has each measurement wait for a quiet moment. swift's
connections fall to its workers by chance: give it several rounds. A round in which a side answers an error, as swift does on a
machine that is too busy, is said and done again. A line of JSON with every round's figures comes last.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from bench import listings
from bench.images import PIECE, Site, download, loopback, timed
from bench.measure import TICK, cpu_of
from bench.objects import SMALL, Figure, Work, call, copy_beside, copy_hashed, make_file, run, small_works, upload
from bench.upstream_swift import DEVICE, VERSION, Login, Missing, Swift, check, prepare
from tests.cloud import ProcessCloud

PARTS = ("objects", "large", "listings")
GOALS = {"PUT 4 KiB": 5.0, "GET 4 KiB": 10.0}
LISTING_GOAL = 10.0
"""Of the listings of 10,000 names in one reply."""
SHARE_GOAL = "80 %"
TRANSFERS = 5
"""Large transfers of a round, of each side and by hand. One takes some hundredths of a second: others' work spoils many."""
CONTAINER = "/bench"
QUIET = 15.0
"""Percent of a core that others may use while something is measured."""
TRIES = 5
"""Rounds in a row that may go wrong."""
RECOVERY = 120.0
"""Seconds after which a side is given up that answers nothing but errors."""
T = TypeVar("T")
Plain = dict[str, Callable[[], object]]
"""What is done by hand to compare with."""
LOOK = 0.5
"""Seconds for which the machine is watched before it is called quiet."""


class Side(Struct):
    """One of the two."""

    name: str
    site: Site
    devices: Path
    rings: Path

    def put_off(self) -> int:
        """How many updates of containers it answered without, to do them later."""
        return sum(file.is_file() for file in (self.devices / DEVICE).glob("async_pending*/*/*"))


class Taken(Struct):
    """One side's figure of one round."""

    figure: Figure
    others_cpu: float
    client_cpu_ms: float

    @property
    def cores(self) -> float:
        """How many the side used."""
        return self.figure.cpu_ms * self.figure.per_second / 1000


class Row(Struct):
    """An operation on both sides: in each round what one took, then the other."""

    what: str
    unit: str
    goal: str
    rounds: list[list[Taken]] = []

    def rate(self, taken: Taken) -> float:
        return taken.figure.mib_per_second if self.unit == "MiB/s" else taken.figure.per_second

    def rates(self, side: int) -> list[float]:
        return [self.rate(pair[side]) for pair in self.rounds]

    def best(self, side: int) -> Taken:
        return max((pair[side] for pair in self.rounds), key=self.rate)


class Spoilt(Exception):
    """A round in which a side answered with an error."""


def machine_cpu() -> float:
    """CPU seconds that the machine has used."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICK


def watched(site: Site, work: Callable[[Site], Figure]) -> Taken:
    """Do something that a side is measured by, and see who used the machine meanwhile."""
    machine, own, client = machine_cpu(), cpu_of(site.pids), time.process_time()
    begun = time.perf_counter()
    figure = work(site)
    took = time.perf_counter() - begun
    client = time.process_time() - client
    others = machine_cpu() - machine - (cpu_of(site.pids) - own) - client
    return Taken(figure, round(max(0.0, others) / took * 100, 1), round(client * 1000 / figure.requests, 3))


def wait_for_quiet(longest: float) -> None:
    """Until others leave the machine alone for a moment, but no longer than so many seconds."""
    until = time.perf_counter() + longest
    while time.perf_counter() < until:
        before, begun = machine_cpu(), time.perf_counter()
        time.sleep(LOOK)
        if (machine_cpu() - before) / (time.perf_counter() - begun) * 100 < QUIET:
            return


class Comparison:
    """Rows as they are measured; each is printed when it is whole."""

    def __init__(self, sides: Sequence[Side], rounds: int, clients: int, wait: float) -> None:
        self.sides = sides
        self.rounds = rounds
        self.clients = clients
        self.wait = wait
        self.rows: list[Row] = []
        self.attempts = 0
        cpu = f"{'CPU ms: ours':>12}{'swift':>9}  {'cores':<10}others"
        say(f"{'operation':<34}{'ours':>9}{'swift':>9}  {'ratio':<18}{'goal':<6}{cpu}")

    def objects(self, count: int) -> None:
        """Small objects, new names in each round. They are deleted when all have been written: for minutes after that, ext4
        without a journal looks at each inode that became free before it gives one to a new file."""
        self._make(CONTAINER)
        rounds: dict[int, list[int]] = {}
        for size in SMALL:
            rows: dict[str, Row] = {}
            for _ in range(self.rounds):
                number, taken = self._whole(partial(self._work, size, count, slice(0, 2)))
                rounds.setdefault(size, []).append(number)
                for what, pair in taken:
                    row = rows.setdefault(what, Row(what, "/s", f"{GOALS[what]:.0f}" if what in GOALS else ""))
                    row.rounds.append(pair)
            for row in rows.values():
                self._finish(row)
        for size, numbers in rounds.items():
            self._deleted(size, count, numbers)
        put_off = ", ".join(f"{side.name} {side.put_off()}" for side in self.sides)
        say(f"  (updates of containers that were put off: {put_off})")

    def large(self, directory: Path, mib: int) -> None:
        """A large object, one client, beside cp and the loopback."""
        file = directory / "data"
        make_file(file, mib)
        self._make(CONTAINER)
        up: Plain = {"cp": lambda: copy_beside(file), "cp and its MD5": lambda: copy_hashed(file)}
        down: Plain = {"loopback": lambda: loopback(file)}
        works: tuple[tuple[str, Plain, Callable[[Site], object]], ...] = (
            ("PUT", up, lambda site: upload(site, file)),
            ("GET", down, lambda site: download(site, "/bench/large", mib * PIECE)),
        )
        for method, plain, work in works:
            row = Row(f"{method} {mib} MiB", "MiB/s", SHARE_GOAL)
            pair = [partial(several, row.what, mib, work)] * len(self.sides)
            took: dict[str, float] = {}
            for _ in range(self.rounds):
                for what, by_hand in plain.items():
                    self._settle()
                    took[what] = min(took.get(what, inf), shortest(by_hand))
                row.rounds.append(self._whole(lambda _, pair=pair: self._turn(pair)))  # type: ignore[misc]
            self._finish(row)
            for what, seconds in took.items():
                speed = mib / seconds
                shares = (f"{side.name} {max(row.rates(n)) / speed:.0%} of it" for n, side in enumerate(self.sides))
                say(f"  ({what}: {speed:.0f} MiB/s; {', '.join(shares)})")

    def listings(self, count: int, requests: int) -> None:
        """A container of so many names."""
        container = f"names-{count}"
        self._make(f"/{container}")
        for side in self.sides:
            begun = time.perf_counter()
            asyncio.run(listings.fill(side.site, container, count, side.rings))
            say(f"  ({side.name} was told {count:,} names in {time.perf_counter() - begun:.0f} s)")
        kinds = [listings.works(side.site, container, count, requests) for side in self.sides]
        for pair in zip(*kinds, strict=True):
            in_one_reply = ": 10,000 " in pair[0].what
            row = Row(pair[0].what, "/s", f"{LISTING_GOAL:.0f}" if in_one_reply else "")
            for _ in range(self.rounds):
                row.rounds.append(self._whole(lambda _, pair=pair: self._turn(map(self._load, pair))))  # type: ignore[misc]
            self._finish(row)
        row = Row(f"{count:,}: all, page by page", "/s", "")
        read = [lambda site: asyncio.run(listings.pages(site, container, count))] * len(self.sides)
        row.rounds.append(self._whole(lambda _: self._turn(read)))
        self._finish(row)

    def _deleted(self, size: int, count: int, numbers: Sequence[int]) -> None:
        """What was written is deleted. Where that went wrong in the middle it cannot be done again."""
        row = Row(f"DELETE {size >> 10} KiB", "/s", "")
        for number in numbers:
            try:
                row.rounds.append(self._work(size, count, slice(2, 3), number)[1][0][1])
            except Spoilt as error:
                say(f"  (a round is left out, since it had an error; {error})")
                self._recover()
        if row.rounds:
            self._finish(row)

    def _work(self, size: int, count: int, which: slice, number: int) -> tuple[int, list[tuple[str, list[Taken]]]]:
        """Some of what is done with objects of one size; new names for each number."""
        works = [small_works(side.site, count, size, number * count)[which] for side in self.sides]
        return number, [(pair[0].what, self._turn(map(self._load, pair))) for pair in zip(*works, strict=True)]

    def _turn(self, works: Iterable[Callable[[Site], Figure]]) -> list[Taken]:
        """Each side does its work once."""
        taken = []
        for side, work in zip(self.sides, works, strict=True):
            self._settle()
            try:
                taken.append(watched(side.site, work))
            except (AssertionError, OSError) as error:
                raise Spoilt(f"{side.name}: {str(error)[:100]}") from error
        return taken

    def _settle(self) -> None:
        """What was done before has left nothing to be written, and others leave the machine alone."""
        os.sync()
        wait_for_quiet(self.wait)

    def _whole(self, work: Callable[[int], T]) -> T:
        """What a round gave that no side answered with an error, as an overloaded one does. Each attempt has a number."""
        for _ in range(TRIES):
            self.attempts += 1
            try:
                return work(self.attempts)
            except Spoilt as error:
                say(f"  (a round is done again, since it had an error; {error})")
                self._recover()
        raise SystemExit(f"{TRIES} rounds in a row had errors: this machine is too busy to measure anything")

    def _recover(self) -> None:
        """Wait until each side stores objects again: swift shuns a device that failed for a minute."""
        for side in self.sides:
            until = time.monotonic() + RECOVERY
            while True:
                try:
                    call(side.site, "PUT", CONTAINER, listings.OK)
                    call(side.site, "PUT", f"{CONTAINER}/again", listings.OK)
                    break
                except (AssertionError, OSError):
                    if time.monotonic() > until:
                        raise
                    time.sleep(1)

    def _make(self, container: str) -> None:
        for side in self.sides:
            call(side.site, "PUT", container, listings.OK)

    def _load(self, work: Work) -> Callable[[Site], Figure]:
        return lambda site: run(site, work, self.clients)

    def _finish(self, row: Row) -> None:
        self.rows.append(row)
        ours, swift = row.best(0), row.best(1)
        rates = [row.rate(ours), row.rate(swift)]
        ratios = [mine / theirs for mine, theirs in zip(row.rates(0), row.rates(1), strict=True)]
        spread = f" ({min(ratios):.1f}-{max(ratios):.1f})" if len(ratios) > 1 else ""
        quiet = max(ours.others_cpu, swift.others_cpu) <= QUIET
        cores = f"{ours.cores:.1f}, {swift.cores:.1f}"
        cpu = f"{ours.figure.cpu_ms:>12.3f}{swift.figure.cpu_ms:>9.3f}  {cores:<10}"
        ratio = f"{rates[0] / rates[1]:.1f}{spread}"
        others = f"{ours.others_cpu:.0f}, {swift.others_cpu:.0f} %" + ("" if quiet else "  not quiet")
        say(f"{row.what:<34}{rates[0]:>9.1f}{rates[1]:>9.1f}  {ratio:<18}{row.goal:<6}{cpu}{others}")


def several(what: str, mib: int, work: Callable[[Site], object], site: Site) -> Figure:
    """Large transfers: the shortest counts."""
    before = cpu_of(site.pids)
    seconds = shortest(lambda: work(site))
    cpu, took = (cpu_of(site.pids) - before) * 1000 / TRANSFERS, round(seconds * 1000, 1)
    return Figure(what, TRANSFERS, round(1 / seconds, 2), took, took, round(cpu, 1), round(mib / seconds, 1))


def shortest(work: Callable[[], object]) -> float:
    return min(timed(work) for _ in range(TRANSFERS))


@contextmanager
def both(directory: Path, programs: Path) -> Iterator[list[Side]]:
    """Cumulet, and swift that asks it who holds a token."""
    cloud = ProcessCloud(directory / "cumulet", "--hypervisor", "simulated", "--network", "simulated")
    cloud.start()
    try:
        assert cloud.process is not None
        connection = cloud.connect()
        who, project = connection.config.get_auth_args(), connection.current_project_id or ""
        login = Login(cloud.url("identity"), who["username"], who["password"], who["project_name"])
        data = directory / "cumulet" / "object-store"
        ours = Site(f"{cloud.url('object-store')}/v1/AUTH_{project}", cloud.token(), [cloud.process.pid])
        with Swift(programs, directory / "swift", login).running() as swift:
            theirs = Site(swift.url(project), cloud.token(), swift.pids)
            try:
                yield [
                    Side("ours", ours, data / "devices", data / "rings"),
                    Side("swift", theirs, swift.devices, swift.directory),
                ]
            finally:
                if complaints := swift.errors():
                    say(f"  (swift logged {len(complaints)} errors, of which the last:)")
                    say("".join(f"    {line[:300]}\n" for line in complaints[-5:]).rstrip())
    finally:
        cloud.destroy()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def load_average() -> float:
    return round(os.getloadavg()[0], 1)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="of %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is measured (%(default)s)")
    parser.add_argument(
        "--wait", type=float, default=0, help="seconds to wait for a quiet moment before each measurement (%(default)s)"
    )
    parser.add_argument("--clients", type=int, default=8, help="connections at a time (%(default)s)")
    parser.add_argument("--count", type=int, default=1000, help="small objects of each size in a round (%(default)s)")
    parser.add_argument("--mib", type=int, default=64, help="the size of a large object (%(default)s)")
    parser.add_argument("--names", default="10000,1000000", help="containers that are listed (%(default)s)")
    parser.add_argument(
        "--requests", type=int, default=40, help="listings in a round, short ones ten times (%(default)s)"
    )
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()), help="where data goes (%(default)s)"
    )
    home = Path.home() / ".cache/cumulet-bench" / f"swift-{VERSION}"
    parser.add_argument("--venv", type=Path, default=home, help="swift's virtual environment (%(default)s)")
    asked = parser.parse_args()
    if unknown := set(asked.only.split(",")) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    return asked


def measure(comparison: Comparison, asked: argparse.Namespace, directory: Path) -> None:
    parts = asked.only.split(",")
    if "objects" in parts:
        comparison.objects(asked.count)
    if "large" in parts:
        comparison.large(directory, asked.mib)
    if "listings" in parts:
        for count in (int(part) for part in asked.names.split(",")):
            comparison.listings(count, asked.requests)


def main() -> None:
    asked = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that what was started is ended, too
    try:
        programs = prepare(asked.venv)
        with tempfile.TemporaryDirectory(prefix="beside-swift-", dir=asked.directory) as name:
            directory = Path(name)
            check(directory)
            with both(directory, programs) as sides:
                before = load_average()
                comparison = Comparison(sides, asked.rounds, asked.clients, asked.wait)
                measure(comparison, asked, directory)
                load = [before, load_average()]
    except Missing as error:
        sys.exit(str(error))
    say(f"load average of the machine: {load[0]} before, {load[1]} after, this load included")
    told = {"swift": VERSION, "load_average": load, "clients": asked.clients, "rows": comparison.rows}
    say(msgspec.json.encode(told).decode())


if __name__ == "__main__":
    main()
