"""What a stranger learns from the time of a failed login, and what a flood of them costs everybody else.

usage: python -m bench.logins [timing] [flood]      (no name: both)

`timing` prints the distribution of each kind of failed login, and how often one of them takes longer than a wrong password of a
usual user: 50 % is what chance gives, so that nothing can be told. `flood` prints the latency of validating tokens alone, and
beside a flood of wrong passwords.
"""

import asyncio
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from bench.measure import Bench, line
from tests.cloud import ProcessCloud

ROUNDS = 100
FLOOD = 32
"""How many clients try wrong passwords without a pause."""
SECONDS = 5.0
BCRYPT = "$2b$12$lzWTOpIm4yPA8n9UVzPrWOMp1S2fRGdUXMqbUGWHVnIu9DkHyzBvC"
"""A hash as a cloud that is moved here may bring it."""
USUAL = "wrong password"
KINDS = ("unknown user", USUAL, "locked", "disabled", "no password", "unknown id", "imported hash")


def body(name: str) -> Any:
    who = {"id": name} if len(name) == 32 else {"name": name, "domain": {"id": "default"}}
    password = {"user": {**who, "password": "wrong"}}
    return {"auth": {"identity": {"methods": ["password"], "password": password}}}


async def attempt(session: aiohttp.ClientSession, url: str, name: str) -> tuple[float, int]:
    """(seconds, status) of one failed login."""
    started = time.perf_counter()
    async with session.post(url, json=body(name)) as reply:
        await reply.read()
        return time.perf_counter() - started, reply.status


async def make_users(bench: Bench, database: Path) -> dict[str, str]:
    """A user for each kind of failed login; what to log in as."""
    names = {kind: kind.replace(" ", "-") for kind in KINDS}
    names["unknown id"] = "0" * 32
    for kind in (USUAL, "locked", "disabled", "no password", "imported hash"):
        user = {"name": names[kind], "enabled": kind != "disabled"}
        if kind != "no password":
            user["password"] = "right"
        made = (await bench.call("POST", "identity", "/v3/users", {"user": user}))["user"]
        with sqlite3.connect(database) as connection:
            if kind == "locked":
                row = (made["id"], 1_000_000, time.time_ns() // 1000)
                connection.execute("INSERT INTO identity_failed_login VALUES (?, ?, ?)", row)
            if kind == "imported hash":
                connection.execute("UPDATE identity_user SET password_hash = ? WHERE id = ?", (BCRYPT, made["id"]))
    return names


def longer(ours: Sequence[float], others: Sequence[float]) -> float:
    """How often one of ours is larger than one of the others (Mann and Whitney's statistic, as a share)."""
    ranked = sorted([(value, True) for value in ours] + [(value, False) for value in others])
    below, wins = 0, 0
    for _, mine in ranked:
        wins += below if mine else 0
        below += not mine
    return wins / (len(ours) * len(others))


async def measure_timing(bench: Bench, names: dict[str, str]) -> None:
    url = f"{bench.cloud.url('identity')}/v3/auth/tokens"
    times: dict[str, list[float]] = {kind: [] for kind in names}
    for _ in range(ROUNDS):
        order = list(names)
        random.shuffle(order)
        for kind in order:
            took, status = await attempt(bench.session, url, names[kind])
            assert status == 401, (kind, status)
            times[kind].append(took * 1000)
    for kind, found in times.items():
        cuts = statistics.quantiles(found, n=20)
        figures = f"p5 {cuts[0]:6.1f}  p50 {statistics.median(found):6.1f}  p95 {cuts[-1]:6.1f} ms"
        line(f"failed login: {kind}", f"{figures}   longer than usual: {longer(found, times[USUAL]):4.0%}")


async def validations(bench: Bench, seconds: float) -> list[float]:
    """Latencies in milliseconds of one client that validates a token over and over."""
    token = bench.session.headers["X-Auth-Token"]
    url = f"{bench.cloud.url('identity')}/v3/auth/tokens?nocatalog"
    times = []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        async with bench.session.get(url, headers={"X-Subject-Token": token}) as reply:
            await reply.read()
            assert reply.status == 200
        times.append((time.perf_counter() - started) * 1000)
    return times


async def measure_flood(bench: Bench) -> None:
    url = f"{bench.cloud.url('identity')}/v3/auth/tokens"
    statuses: dict[int, int] = {}

    async def tries() -> None:
        while True:
            _, status = await attempt(bench.session, url, "admin")
            statuses[status] = statuses.get(status, 0) + 1

    alone = await validations(bench, SECONDS)
    clients = [asyncio.ensure_future(tries()) for _ in range(FLOOD)]
    beside = await validations(bench, SECONDS)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    for what, found in (("alone", alone), (f"beside {FLOOD} clients with wrong passwords", beside)):
        cuts = statistics.quantiles(found, n=100)
        line(f"validate a token, {what}", f"p50 {cuts[49]:.2f}  p95 {cuts[94]:.2f}  p99 {cuts[98]:.2f} ms")
    answered = ", ".join(f"{count / SECONDS:.0f} /s with {status}" for status, count in sorted(statuses.items()))
    line("wrong passwords answered meanwhile", answered)
    ratio = statistics.median(beside) / statistics.median(alone)
    line("validation beside the flood", f"{ratio:.1f} times its median alone")


async def measure(directory: Path, names: list[str]) -> None:
    for more in ((), ("--lockout-failure-attempts", "1000000", "--lockout-duration", "0")):
        data = directory / ("lockout" if more else "plain")
        line("lockout", "on" if more else "off")
        cloud = ProcessCloud(data, "--hypervisor", "simulated", "--network", "simulated", *more)
        cloud.start()
        try:
            async with aiohttp.ClientSession(headers={"X-Auth-Token": cloud.token()}) as session:
                bench = Bench(cloud, session)
                if "timing" in names:
                    await measure_timing(bench, await make_users(bench, data / "cumulet.sqlite"))
                if "flood" in names:
                    await measure_flood(bench)
        finally:
            cloud.stop()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as directory:
        asyncio.run(measure(Path(directory), sys.argv[1:] or ["timing", "flood"]))


if __name__ == "__main__":
    main()
