"""`cumulet status`."""

import http.client
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import click
import msgspec
from msgspec import Struct

from cumulet import lock, status
from cumulet.cli.options import with_settings
from cumulet.config import Settings

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
    if as_json:
        document = {"running": True, **msgspec.to_builtins(written), "services": msgspec.to_builtins(probes)}
        click.echo(msgspec.json.format(msgspec.json.encode(document)))
    else:
        _show(settings, written, probes)
    sys.exit(1 if any(found.problem for found in probes) else 0)


def probe(name: str, url: str) -> Probe:
    """Ask a service for its version document (`/`), as any client does first."""
    began = time.perf_counter()
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        problem = "" if answer.status < 400 else f"answers {answer.status} {answer.reason}"
    except ConnectionRefusedError:
        problem = "nothing listens there"
    except TimeoutError:
        problem = f"no answer within {_TIMEOUT:.0f} s"
    except (OSError, http.client.HTTPException) as error:
        problem = f"no answer: {error}"
    finally:
        connection.close()
    return Probe(name, url, problem, round((time.perf_counter() - began) * 1000, 1))


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


def _show(settings: Settings, written: status.Status, probes: list[Probe]) -> None:
    up = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(written.started))
    ready = f"process {written.pid}, ready after {written.ready_seconds:.2f} s"
    click.echo(f"Cumulet {written.version} is up since {up} ({ready})")
    click.echo(f"  data        {settings.data}")
    click.echo(f"  database    {written.database}")
    click.echo(f"  servers     {written.hypervisor}, {written.virt_type}: {written.virt_reason}")
    click.echo(f"  networks    {written.network}")
    for found in probes:
        state = click.style("ok", fg="green") if not found.problem else click.style("DOWN", fg="red", bold=True)
        detail = f"{found.milliseconds:.0f} ms" if not found.problem else found.problem
        click.echo(f"  {found.name:<16} {state:<4} {found.url}  {detail}")
    for text in written.fallbacks:
        click.echo(f"{click.style('FALLBACK', fg='yellow', bold=True)}: {text}")
