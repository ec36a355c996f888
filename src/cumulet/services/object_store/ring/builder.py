"""Builds rings: devices come, go and change weight, and `rebalance` moves as few copies as that takes.

What a rebalance keeps to: of one partition at most one copy moves, and not before `min_part_hours` have passed since the last
one did (so that while it is on its way the others are where requests look for them) - except from devices that are removed;
copies lie as far apart as the plan (`plan.py`) says; each device gets the number of partitions that the plan gives it.
"""

import math
import random
import time
import uuid
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from cumulet.services.object_store.ring.data import MOST_DEVICES, RingData, RingError
from cumulet.services.object_store.ring.plan import (
    Places,
    Plan,
    Tier,
    allowed,
    dispersed,
    plan,
    required_overload,
    tiers,
    weighted,
)

ROUNDS = 10
"""How often copies are picked up and put down, at most, until every device has its number."""
LONGEST = 255
"""Hours since a move are counted up to this."""
WORST = 999.99
"""The balance of a device that should hold nothing and does."""

Moves = dict[int, list[int]]
"""By partition, which of its copies look for a device."""


class Builder:
    """A ring in the making. `devices` are swift's dictionaries by id."""

    def __init__(self, power: int, replicas: float, min_part_hours: int) -> None:
        if not 0 <= power <= 32:
            raise RingError(f"the partition power is from 0 to 32, and not {power}")
        if replicas < 1:
            raise RingError(f"there is at least 1 copy, and not {replicas:g}")
        self.power = power
        self.next_power: int | None = None
        self.replicas = float(replicas)
        self.min_part_hours = min_part_hours
        self.overload = 0.0
        self.devices: list[dict[str, Any] | None] = []
        self.removed: list[dict[str, Any]] = []
        self.changed = False
        self.version = 0
        self.id = uuid.uuid4().hex
        self.table: list[array[int]] = []
        self.hours = array("B", bytes(1 << power))  # since a copy of each partition last moved
        self.hours_of = 0  # the time at which that was so
        self.start = 0
        self.dispersion = 0.0
        self.graph: dict[Tier, list[int]] = {}
        self._moved: set[int] = set()
        self._random = random.Random()  # noqa: S311 - any spread will do

    # ---- what devices there are

    def every(self) -> Iterator[dict[str, Any]]:
        return (device for device in self.devices if device is not None)

    def find(self, id: int) -> dict[str, Any]:
        device = self.devices[id] if 0 <= id < len(self.devices) else None
        if device is None:
            raise RingError(f"there is no device {id} in this ring")
        return device

    def add(self, told: Mapping[str, Any]) -> int:
        """Add a device; its id. It gets partitions with the next rebalance."""
        for other in self.every():
            if (other["ip"], other["port"], other["device"]) == (told["ip"], told["port"], told["device"]):
                raise RingError(
                    f"device {told['device']} at {told['ip']} port {told['port']} is in the ring as {other['id']}"
                )
        if told["weight"] < 0:
            raise RingError("a weight is 0 or more")
        id = len(self.devices)
        if id >= MOST_DEVICES - 1:
            raise RingError(f"a ring holds at most {MOST_DEVICES - 1} devices")
        device = {"meta": "", "replication_ip": told["ip"], "replication_port": told["port"]}
        self.devices.append({**device, **told, "id": id, "parts": 0, "parts_wanted": 0})
        self._change()
        return id

    def remove(self, id: int) -> None:
        """Take a device out; its copies go elsewhere with the next rebalance, however short ago others moved."""
        device = self.find(id)
        device["weight"] = 0.0
        if device not in self.removed:
            self.removed.append(device)
        self._change()

    def set_weight(self, id: int, weight: float) -> None:
        if weight < 0:
            raise RingError("a weight is 0 or more")
        device = self.find(id)
        if device in self.removed:
            raise RingError(f"device {id} is being removed; its weight stays 0")
        device["weight"] = float(weight)
        self._change()

    def set_place(self, id: int, **told: Any) -> None:
        """Change where a device is: region, zone, ip, port, replication_ip, replication_port, device, meta."""
        self.find(id).update(told)
        self._change()

    def set_replicas(self, replicas: float) -> None:
        if replicas < 1:
            raise RingError(f"there is at least 1 copy, and not {replicas:g}")
        self.replicas = float(replicas)
        self._change()

    def _change(self) -> None:
        self.changed = True
        self.version += 1

    # ---- how well it is balanced

    @property
    def parts(self) -> int:
        return 1 << self.power

    @property
    def seconds_left(self) -> int:
        """How long partitions that moved last stay where they are."""
        return max(self.min_part_hours * 3600 - int(time.time() - self.hours_of), 0)

    @property
    def required_overload(self) -> float:
        places = Places(self.every())
        return required_overload(weighted(places, self.replicas), dispersed(places, self.replicas))

    def balances(self) -> dict[int, float]:
        """By device, how many percent more partitions it has than its weight says."""
        whole = sum(device["weight"] for device in self.every())
        result = {}
        for device in self.every():
            if device["weight"]:
                share = self.parts * self.replicas * device["weight"] / whole
                result[device["id"]] = 100.0 * device["parts"] / share - 100.0
            else:
                result[device["id"]] = WORST if device["parts"] else 0.0
        return result

    @property
    def balance(self) -> float:
        """Of the device that is furthest from what its weight says."""
        return max(map(abs, self.balances().values()), default=0.0)

    def ring(self) -> RingData:
        """The ring as requests use it. RingError before the first rebalance."""
        if not self.table:
            raise RingError("this ring has not been balanced yet: its partitions have no devices")
        shown = [
            None if device is None else {k: v for k, v in device.items() if k not in ("parts", "parts_wanted", "tiers")}
            for device in self.devices
        ]
        return RingData([array("H", row) for row in self.table], shown, self.power, self.version, self.next_power)

    def pretend_hours_passed(self) -> None:
        """Let every partition move, however short ago it did."""
        self.hours_of = 0
        self.hours = array("B", [LONGEST]) * self.parts

    # ---- the rebalance

    def rebalance(self, seed: str | None = None) -> tuple[int, float, int]:
        """Assign all copies anew where that is needed: (copies that moved, the balance, devices that are gone)."""
        self._random = random.Random(seed)  # noqa: S311 - any spread will do
        before = [array("H", row) for row in self.table]
        self._age()
        steps = plan(list(self.every()), self.replicas, self.overload)
        self._moved = set()
        self._want(steps)
        moves = self._resize()
        gone = self._empty_removed(moves)
        self._disperse(moves, steps)
        for round in range(ROUNDS):
            self._lighten(moves, steps, apart=round == 0)
            if not moves:
                break
            self._assign(moves, steps)
            moves = {}
            if all(device["parts_wanted"] >= 0 for device in self.every()):
                break
        for device in gone:
            self.devices[device["id"]] = None
        self.removed, self.changed = [], False
        self.version += 1
        self._measure()
        return self._count_moved(before), self.balance, len(gone)

    def _age(self) -> None:
        """Count the hours since the last rebalance to those since each partition moved."""
        now = int(time.time())
        passed = (now - self.hours_of) // 3600
        if passed:
            self.hours = array("B", [min(hours + passed, LONGEST) for hours in self.hours])
            self.hours_of = now

    def _want(self, steps: Plan) -> None:
        """How many partitions more (or fewer) than it has each device is to have."""
        places = Places(self.every())
        wanted: dict[Tier, int] = {}

        def place(tier: Tier, parts: int) -> None:
            wanted[tier] = parts
            below = places.children[tier]
            exact = {child: steps.target[child] * self.parts for child in below}
            left = parts
            for child in below:
                exact[child] = min(exact[child], places.count[child] * self.parts)
                left -= int(exact[child] + 1e-6)
            by_rest = sorted(below, key=lambda child: (int(exact[child] + 1e-6) - exact[child], child))
            for position, child in enumerate(by_rest):
                place(child, int(exact[child] + 1e-6) + left // len(below) + (position < left % len(below)))

        place((), int(self.replicas * self.parts))
        for device in self.every():
            device["parts_wanted"] = wanted.get(tiers(device)[-1], 0) - device["parts"]

    def _resize(self) -> Moves:
        """Make the table as long as there are copies; what is new has no device yet."""
        moves: Moves = {}
        fraction, whole = math.modf(self.replicas)
        lengths = [self.parts] * int(whole) + ([int(self.parts * fraction)] if fraction else [])
        for row in self.table[len(lengths) :]:
            for id in row:
                self._take(id)
        self.table = self.table[: len(lengths)]
        for copy, length in enumerate(lengths):
            if copy == len(self.table):
                self.table.append(array("H"))
            row = self.table[copy]
            for id in row[length:]:
                self._take(id)
            del row[length:]
            for partition in range(len(row), length):
                moves.setdefault(partition, []).append(copy)
                row.append(NOWHERE)
        return moves

    def _take(self, id: int) -> None:
        if id != NOWHERE and (device := self.devices[id]) is not None:
            device["parts"] -= 1
            device["parts_wanted"] += 1

    def _pick_up(self, moves: Moves, partition: int, copy: int) -> None:
        self._take(self.table[copy][partition])
        self.table[copy][partition] = NOWHERE
        moves.setdefault(partition, []).append(copy)
        self._moved.add(partition)

    def _empty_removed(self, moves: Moves) -> list[dict[str, Any]]:
        gone = {device["id"] for device in self.removed}
        if gone:
            for copy, row in enumerate(self.table):
                for partition, id in enumerate(row):
                    if id in gone:
                        self._pick_up(moves, partition, copy)
        return list(self.removed)

    def _may_move(self, partition: int) -> bool:
        return self.hours[partition] >= self.min_part_hours and partition not in self._moved

    def _holders(self, partition: int) -> list[tuple[int, dict[str, Any]]]:
        """(copy, device) of the copies of a partition that have one."""
        found = []
        for copy, row in enumerate(self.table):
            if (
                partition < len(row)
                and row[partition] != NOWHERE
                and (device := self.devices[row[partition]]) is not None
            ):
                found.append((copy, device))
        return found

    def _tiers(self) -> dict[int, tuple[Tier, ...]]:
        return {device["id"]: tiers(device) for device in self.every()}

    def _disperse(self, moves: Moves, steps: Plan) -> None:
        """Pick up copies that lie nearer to each other than the plan has it."""
        of = self._tiers()
        most = {tier: steps.most(tier) for path in of.values() for tier in path}
        for partition in range(self.parts):
            if not self._may_move(partition):
                continue
            holders = self._holders(partition)
            held = _count(of[device["id"]] for _, device in holders)
            crowded = [(copy, d) for copy, d in holders if any(held[t] > most[t] for t in of[d["id"]])]
            if crowded:
                copy, _ = min(crowded, key=lambda pair: pair[1]["parts_wanted"])
                self._pick_up(moves, partition, copy)

    def _lighten(self, moves: Moves, steps: Plan, *, apart: bool) -> None:
        """Pick up copies from devices that have too many. `apart`: first those that some other place may take without coming
        nearer to another copy."""
        self.start = (self.start + self.parts // 4 + self._random.randint(0, self.parts // 2)) % self.parts
        if apart:
            self._lighten_where(moves, steps)
        self._lighten_where(moves, None)

    def _lighten_where(self, moves: Moves, steps: Plan | None) -> None:
        if all(device["parts_wanted"] >= 0 for device in self.every()):
            return
        of = self._tiers()
        room: dict[Tier, int] = defaultdict(int)
        for device in self.every():
            for tier in ((), *of[device["id"]]):
                room[tier] += max(device["parts_wanted"], 0)
        bounds = {} if steps is None else {t: (steps.least(t), steps.most(t)) for path in of.values() for t in path}
        for offset in range(self.parts):
            partition = (self.start + offset) % self.parts
            if not self._may_move(partition):
                continue
            holders = self._holders(partition)
            heavy = sorted((p for p in holders if p[1]["parts_wanted"] < 0), key=lambda p: p[1]["parts_wanted"])
            if not heavy:
                continue
            if steps is None:
                self._pick_up(moves, partition, heavy[0][0])
                continue
            held = _count(of[device["id"]] for _, device in holders)
            for copy, device in heavy:
                if _has_place(of[device["id"]], held, bounds, room):
                    self._pick_up(moves, partition, copy)
                    break

    def _assign(self, moves: Moves, steps: Plan) -> None:
        """Put down what was picked up: at each tier where there is most room, of those that may hold one more."""
        of, places = self._tiers(), Places(self.every())
        most = {tier: steps.most(tier) for tier in places.weight}
        room = dict.fromkeys(places.weight, 0)
        for device in self.every():
            if device["weight"] > 0:
                for tier in of[device["id"]]:
                    room[tier] += max(device["parts_wanted"], 0)
        order = list(moves.items())
        self._random.shuffle(order)
        for partition, copies in order:
            self.hours[partition] = 0
            held = _count(of[device["id"]] for _, device in self._holders(partition))
            for copy in copies:
                chosen: Tier = ()
                while below := places.children[chosen]:
                    able = [t for t in below if held[t] < most[t]] or _least_full(below, held, places)
                    chosen = max(able, key=lambda t: (room[t], self._random.random()))
                device = self.find(chosen[-1])
                device["parts"] += 1
                device["parts_wanted"] -= 1
                self.table[copy][partition] = device["id"]
                for inner in of[device["id"]]:
                    held[inner] += 1
                    room[inner] -= 1

    def _count_moved(self, before: list["array[int]"]) -> int:
        moved = 0
        for copy, row in enumerate(self.table):
            old = before[copy] if copy < len(before) else array("H")
            moved += len(row) - sum(map(int.__eq__, row, old))
        return moved

    def _measure(self) -> None:
        """How many copies, in percent, lie nearer to another one than they need to."""
        of, limit = self._tiers(), allowed(self.every(), self.replicas)
        graph: dict[Tier, list[int]] = {}
        risky = 0
        size = math.ceil(self.replicas) + 1
        for partition in range(self.parts):
            held = _count(of[device["id"]] for _, device in self._holders(partition))
            worst: dict[int, int] = defaultdict(int)
            for tier, count in held.items():
                row = graph.setdefault(tier, [self.parts] + [0] * (size - 1))
                row[0] -= 1
                row[count] += 1
                worst[len(tier)] += max(count - limit.get(tier, 0), 0)
            risky += max(worst.values(), default=0)
        self.graph = graph
        self.dispersion = 100.0 * risky / (self.parts * self.replicas)


NOWHERE = MOST_DEVICES - 1
"""The device of a copy that looks for one."""


def _count(paths: Iterator[tuple[Tier, ...]]) -> dict[Tier, int]:
    held: dict[Tier, int] = defaultdict(int)
    for path in paths:
        for tier in path:
            held[tier] += 1
    return held


def _has_place(
    path: tuple[Tier, ...], held: Mapping[Tier, int], bounds: Mapping[Tier, tuple[int, int]], room: Mapping[Tier, int]
) -> bool:
    """Whether a copy may leave its device, as the plan has it, and there is room where it may go: beside the widest tier that
    it may not leave."""
    stays: Tier = ()
    for tier in path:
        least, _ = bounds[tier]
        if held[tier] - 1 < least:
            stays = tier
    if len(stays) == 4:
        return False
    inner = path[len(stays)]
    return room[stays] - room[inner] > 0 if inner in room else room[stays] > 0


def _least_full(below: list[Tier], held: Mapping[Tier, int], places: Places) -> list[Tier]:
    """Where the plan has no place left (it may be full of copies that may not move yet): a device without one comes first."""
    free = [tier for tier in below if held[tier] < places.count[tier]] or below
    fewest = min(held[tier] for tier in free)
    return [tier for tier in free if held[tier] == fewest]
