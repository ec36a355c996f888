"""How many copies of each partition go where: to every region, zone, host and device of a ring.

Two wishes pull: each device holds as much as its weight says, and the copies of one partition lie as far apart as there are
places. What weights alone give is *weighted*, what keeps copies apart is *dispersed*; the overload of a ring says by which
fraction a device may be given more than its weight for the sake of the second.
A tier is a tuple: () is the whole ring, (region,), (region, zone), (region, zone, address), (region, zone, address, id).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cumulet.services.object_store.ring.data import RingError

Tier = tuple[Any, ...]
NEAR = 1e-9
"""Fractions of a copy below this are none: they come from adding numbers up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """By tier, how many copies of a partition it holds on average (`target`), and so at least and at most of any one."""

    target: Mapping[Tier, float]

    def least(self, tier: Tier) -> int:
        return math.floor(self.target.get(tier, 0) + NEAR)

    def most(self, tier: Tier) -> int:
        return math.ceil(self.target.get(tier, 0) - NEAR)


class Places:
    """The devices of a ring that have a weight, by tier."""

    def __init__(self, devices: Iterable[Mapping[str, Any]]) -> None:
        self.weight: dict[Tier, float] = {(): 0.0}
        self.count: dict[Tier, int] = {(): 0}
        self.children: dict[Tier, list[Tier]] = {(): []}
        for device in devices:
            if device["weight"] <= 0:
                continue
            path = tiers(device)
            for above, tier in zip(((), *path), path, strict=False):
                if tier not in self.weight:
                    self.children[above].append(tier)
                    self.weight[tier], self.count[tier], self.children[tier] = 0.0, 0, []
            for tier in ((), *path):
                self.weight[tier] += device["weight"]
                self.count[tier] += 1
        for below in self.children.values():
            below.sort()


def tiers(device: Mapping[str, Any]) -> tuple[Tier, ...]:
    """The tiers that a device lies in, the widest first."""
    full = (device["region"], device["zone"], device["ip"], device["id"])
    return tuple(full[:depth] for depth in range(1, 5))


def plan(devices: Sequence[Mapping[str, Any]], replicas: float, overload: float) -> Plan:
    """RingError where there are fewer devices than copies."""
    places = Places(devices)
    by_weight, apart = weighted(places, replicas), dispersed(places, replicas)
    needed = required_overload(by_weight, apart)
    share = 1.0 if needed <= NEAR else min(overload / needed, 1.0)
    return Plan({tier: by_weight[tier] + (apart[tier] - by_weight[tier]) * share for tier in by_weight})


def weighted(places: Places, replicas: float) -> dict[Tier, float]:
    """By weight alone; only no device holds two copies of one partition."""
    if places.count[()] < replicas:
        raise RingError(f"{replicas:g} copies need as many devices with a weight, and there are {places.count[()]}")
    leaves = [tier for tier in places.weight if len(tier) == 4]
    shares = _share(replicas, [(places.weight[leaf], 0.0, 1.0) for leaf in leaves])
    result = dict.fromkeys(places.weight, 0.0)
    for leaf, share in zip(leaves, shares, strict=True):
        for depth in range(5):
            result[leaf[:depth]] += share
    return result


def dispersed(places: Places, replicas: float) -> dict[Tier, float]:
    """As far apart as there are places: every tier's children hold as nearly as many copies as whole numbers allow, and
    within that by weight."""
    by_weight = weighted(places, replicas)
    even = _even(places, replicas)
    result: dict[Tier, float] = {}

    def place(tier: Tier, copies: float) -> None:
        result[tier] = copies
        below = places.children[tier]
        if not below:
            return
        bounds = [
            (
                by_weight[t],
                min(math.floor(even[t] + NEAR), places.count[t]),
                min(math.ceil(even[t] - NEAR), places.count[t]),
            )
            for t in below
        ]
        if sum(high for _, _, high in bounds) < copies - NEAR:  # some have too few devices: the others hold more
            bounds = [(w, low, places.count[t]) for t, (w, low, _) in zip(below, bounds, strict=True)]
        if sum(low for _, low, _ in bounds) > copies + NEAR:
            bounds = [(w, 0, high) for w, _, high in bounds]
        for child, share in zip(below, _share(copies, bounds), strict=True):
            place(child, share)

    place((), replicas)
    return result


def required_overload(by_weight: Mapping[Tier, float], apart: Mapping[Tier, float]) -> float:
    """By which fraction the device that has to give most for dispersion would hold more than its weight."""
    return max(0.0, *(apart[tier] / share - 1 for tier, share in by_weight.items() if len(tier) == 4 and share))


def allowed(devices: Iterable[Mapping[str, Any]], replicas: float) -> dict[Tier, int]:
    """The most copies of a partition that a tier may hold without being a risk: what is not avoidable."""
    places = Places(devices)
    result: dict[Tier, int] = {}

    def walk(tier: Tier, copies: float) -> None:
        result[tier] = math.ceil(min(1, copies) if len(tier) == 4 else copies)
        for child in places.children[tier]:
            walk(child, math.ceil(copies / len(places.children[tier])))

    walk((), replicas)
    return result


def _even(places: Places, replicas: float) -> dict[Tier, float]:
    """What each tier would hold if all children of a tier were alike."""
    result = {(): replicas}

    def walk(tier: Tier) -> None:
        for child in places.children[tier]:
            result[child] = result[tier] / len(places.children[tier])
            walk(child)

    walk(())
    return {tier: min(1.0, share) if len(tier) == 4 else share for tier, share in result.items()}


def _share(total: float, bounds: Sequence[tuple[float, float, float]]) -> list[float]:
    """`total` split by weight, each share within its bounds: (weight, least, most). There is one factor of the weights at
    which the shares add up, and it is found by halving."""

    def at(factor: float) -> list[float]:
        return [min(max(weight * factor, low), high) for weight, low, high in bounds]

    low, high = 0.0, 1.0
    most = sum(bound[2] for bound in bounds)
    while sum(at(high)) < min(total, most) - NEAR:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if sum(at(middle)) < total:
            low = middle
        else:
            high = middle
    return at(high)
