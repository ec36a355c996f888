"""`cumulet status`."""

import asyncio
import http.client
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import click
import msgspec
from msgspec import Struct

from cumulet import credentials, lock, status
from cumulet.cli.cloud import Cloud, CloudError
from cumulet.cli.options import with_settings
from cumulet.config import TERMINAL, Settings

_TIMEOUT = 3.0


class Probe(Struct, frozen=True):
    """What one service answered: `problem` is empty if it answered as it should."""

    name: str
    url: str
    problem: str
    milliseconds: float


@click.command("status")
@with_settings("data")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(settings: Settings, as_json: bool) -> None:
    """Say what runs, what does not, and why.

    The exit status is 0 if every service answers, 1 if one does not, and 3 if the cloud is not up.

    \b
    Example: for people; for a script that waits for the cloud:
      cumulet status
      until cumulet status --json >/dev/null; do sleep 1; done
    """
    try:
        holder = lock.holder(settings.data)
        written = status.read(settings.data)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise click.ClickException(f"cannot read {settings.data}: {reason}") from error
    if written is None or not written.is_running():
        _say_down(settings, holder, written, as_json)
        sys.exit(3)
    with ThreadPoolExecutor(max_workers=len(written.urls) or 1) as pool:
        probes = list(pool.map(lambda item: probe(*item), written.urls.items()))
    try:
        counts: dict[str, str] | str = asyncio.run(count(settings))
    except (OSError, credentials.CredentialsError, CloudError) as error:
        counts = str(error)
    if as_json:
        document = {"running": True, **msgspec.to_builtins(written), "services": msgspec.to_builtins(probes)}
        click.echo(msgspec.json.format(msgspec.json.encode(document | {"holds": counts})))
    else:
        _show(settings, written, probes, counts)
    sys.exit(1 if any(found.problem for found in probes) else 0)


def probe(name: str, url: str) -> Probe:
    """Ask a service for its version document (`/`), as any client does first; one that has none says so, and answers."""
    began = time.perf_counter()
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        problem = "" if answer.status < 500 else f"answers {answer.status} {answer.reason}"
    except ConnectionRefusedError:
        problem = "nothing listens there"
    except TimeoutError:
        problem = f"no answer within {_TIMEOUT:.0f} s"
    except (OSError, http.client.HTTPException) as error:
        problem = f"no answer: {error}"
    finally:
        connection.close()
    return Probe(name, url, problem, round((time.perf_counter() - began) * 1000, 1))


async def count(settings: Settings) -> dict[str, str]:
    """How much of what the cloud holds, in words, asked of its APIs as the admin.

    Raises CredentialsError where the credentials cannot be read, CloudError where a service does not answer.
    """
    login = credentials.read_openrc(settings.data / credentials.ADMIN_OPENRC)
    async with Cloud(login) as cloud:
        states: Counter[str] = Counter()
        path = "/servers/detail?all_tenants=1"
        while path:
            page = await cloud.get("compute", path)
            states.update(server["status"] for server in page["servers"])
            last = page["servers"][-1]["id"] if page.get("servers_links") else ""
            path = f"/servers/detail?all_tenants=1&marker={last}" if last else ""
        used = (await cloud.get("compute", "/os-hypervisors/statistics"))["hypervisor_statistics"]
        found = {"servers": ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "none"}
        for path in ("networks", "routers", "floatingips"):
            listed = (await cloud.get("network", f"/{path}?fields=id"))[path]
            found["floating IPs" if path == "floatingips" else path] = str(len(listed))
        found["in use"] = (
            f"{used['vcpus_used']} of {used['vcpus']} vCPUs, {used['memory_mb_used']} of {used['memory_mb']} MB memory"
        )
        return found


def _say_down(settings: Settings, holder: int | None, written: status.Status | None, as_json: bool) -> None:
    if holder is not None:
        reason = f"starting, or not ready yet: process {holder} holds {settings.data}"
    elif written is not None:
        reason = f"not up: it ended without stopping in order (it was process {written.pid})"
    else:
        reason = f"not up, or never started with the data directory {settings.data}"
    if as_json:
        click.echo(msgspec.json.encode({"running": False, "reason": reason}))
    else:
        click.echo(f"{reason}\n  way out: cumulet up --data {settings.data}" if holder is None else reason)


def _show(settings: Settings, written: status.Status, probes: list[Probe], counts: dict[str, str] | str) -> None:
    up = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(written.started))
    ready = f"process {written.pid}, ready after {written.ready_seconds:.2f} s"
    click.echo(f"Cumulet {written.version} is up since {up} ({ready})")
    click.echo(f"  data        {settings.data}")
    click.echo(f"  database    {written.database}")
    click.echo(f"  log         {'standard error' if written.log == TERMINAL else written.log}")
    click.echo(f"  hypervisor  {written.engine}")
    click.echo(f"  network     {written.dataplane}")
    click.echo("in the cloud" + (f": cannot be told: {counts}" if isinstance(counts, str) else ""))
    for name, words in counts.items() if isinstance(counts, dict) else ():
        click.echo(f"  {name:<15} {words}")
    click.echo("services")
    for found in probes:
        state = click.style("ok", fg="green") if not found.problem else click.style("DOWN", fg="red", bold=True)
        detail = f"{found.milliseconds:.0f} ms" if not found.problem else found.problem
        click.echo(f"  {found.name:<15} {state:<4} {found.url}  {detail}")
    for text in written.fallbacks:
        click.echo(f"{click.style('FALLBACK', fg='yellow', bold=True)}: {text}")
