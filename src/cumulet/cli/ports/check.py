"""`cumulet ports check`."""

import asyncio
import ipaddress
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec

from cumulet import credentials, ports, status
from cumulet.cli.options import with_settings
from cumulet.cli.tables import table
from cumulet.config import Settings
from cumulet.listeners import Listener, listeners
from cumulet.portmap import clouds
from cumulet.portmap.check import Result, Target, catalogue_targets, check, targets
from cumulet.portmap.facts import DIALECTS, ERAS, ROLES, UPSTREAM, facts

HEADER = ("", "component", "address", "listens", "answers", "catalogue", "what is wrong")


@click.command("check")
@click.argument("hosts", nargs=-1, metavar="[HOST|ROLE=HOST]...")
@with_settings("data")
@click.option("--cloud", metavar="NAME", help="The ports that the catalogue of this cloud of clouds.yaml names.")
@click.option("--clouds-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The clouds.yaml; otherwise where the clients look.")  # fmt: skip
@click.option("--dialect", type=click.Choice(DIALECTS), default=UPSTREAM,
              help="With hosts: whose ports they should have.  [default: upstream]")  # fmt: skip
@click.option(
    "--era", type=click.Choice(ERAS), default="current", help="With hosts: of which time.  [default: current]"
)
@click.option("--timeout", type=click.FloatRange(0.1, 60), default=2.0, metavar="SECONDS",
              help="How long to wait for an answer.  [default: 2]")  # fmt: skip
@click.option("--all", "show_all", is_flag=True, help="Show also the ports that need not be there, and are not.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(
    settings: Settings, hosts: tuple[str, ...], cloud: str | None, clouds_file: Path | None, dialect: str, era: str,
    timeout: float, show_all: bool, as_json: bool,
) -> None:  # fmt: skip
    """Look whether each port listens, answers as it should, and agrees with the catalogue.

    Without arguments, the cloud of the data directory. Otherwise any OpenStack: hosts, with their role where it is known, or
    a cloud of clouds.yaml. The exit status is 0 if all is well, 1 if something is not or nothing answers, 2 if the question
    makes no sense. What is asked changes nothing on the other side. A UDP port that does not answer is told as `open|filtered`.

    \b
    Example: this cloud; a host of another one; two hosts with their roles; a cloud by its catalogue:
      cumulet ports check
      cumulet ports check 192.0.2.10
      cumulet ports check controller=192.0.2.10 compute=192.0.2.11 --dialect kolla-ansible
      cumulet ports check --cloud production --json
    """
    if cloud and hosts:
        raise click.UsageError("name hosts or a cloud, not both")
    local: list[Listener] | None = None
    urls: list[str] = []
    if cloud:
        wanted = _of_cloud(cloud, clouds_file, timeout)
    elif hosts:
        wanted = [target for host in hosts for target in _of_host(host, era, dialect)]
    else:
        wanted, urls = _of_this(settings, timeout)
        local = listeners()
    results = asyncio.run(check(wanted, timeout=timeout, local=local, urls=urls))
    shown = [r for r in results if show_all or r.problem or r.state == "open"]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(results)))
    else:
        click.echo(table(HEADER, [_row(r) for r in shown]), nl=False)
        bad = sum(bool(r.problem) for r in results)
        answering = sum(r.state == "open" for r in results)
        says = f"{bad} not as they should be" if bad else "nothing wrong with them"
        click.echo(f"{answering} of {len(results)} ports answer; {says}")
    sys.exit(1 if any(r.problem for r in results) or not any(r.state == "open" for r in results) else 0)


def _of_cloud(name: str, file: Path | None, timeout: float) -> list[Target]:
    """The ports of a cloud's catalogue."""
    try:
        rows = asyncio.run(clouds.catalogue(clouds.find(name, file), max(timeout, 10)))
    except clouds.CloudsError as error:
        raise click.ClickException(str(error)) from error
    components = {row.service: row.component for row in facts().table("current", UPSTREAM) if "public" in row.endpoint}
    return catalogue_targets(rows, components)


def _of_host(text: str, era: str, dialect: str) -> list[Target]:
    """The ports that a host should have; without a role, those that any may have."""
    role, _, host = text.rpartition("=")
    if role and role not in ROLES and role != "all-in-one":
        raise click.UsageError(f"there is no role {role!r}; the roles are all-in-one, {', '.join(ROLES)}")
    known = facts()
    wanted = ROLES if role in ("", "all-in-one") else (role,)
    rows = [
        row for row in known.table(era, dialect)
        if (component := known.by_name.get(row.component)) is not None and {*component.roles} & {*wanted}
    ]  # fmt: skip
    return targets(_resolved(host), rows, required=False)


def _resolved(host: str) -> str:
    """The host, if it has an address."""
    try:
        ipaddress.ip_address(host.strip("[]"))
        return host.strip("[]")
    except ValueError:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            raise click.ClickException(f"{host!r} is neither an address nor a name that resolves: {error}") from error
    return host


def _of_this(settings: Settings, timeout: float) -> tuple[list[Target], list[str]]:
    """The ports of the cloud that runs here, and the URLs of its catalogue."""
    written = status.read(settings.data)
    if written is None or not written.is_running():
        raise click.ClickException(
            f"no cloud of {settings.data} is up; start one with `cumulet up`, or name a host: `cumulet ports check HOST`"
        )
    try:
        login = credentials.read_openrc(settings.data / credentials.ADMIN_OPENRC)
        auth = {"auth_url": login.auth_url, "username": login.username, "password": login.password,
                "project_name": login.project}  # fmt: skip
        rows = asyncio.run(clouds.catalogue({"auth": auth}, max(timeout, 10)))
    except (credentials.CredentialsError, clouds.CloudsError) as error:
        raise click.ClickException(str(error)) from error
    urls = [endpoint["url"] for service in rows for endpoint in service["endpoints"]]
    wanted = []
    for name, url in written.urls.items():
        row, address = ports.port(name), urlsplit(url)
        wanted.append(
            Target(host=address.hostname or "", port=address.port or 0, protocol=row.protocol, component=row.component,
                   service=row.service_type)
        )  # fmt: skip
    return wanted, urls


def _row(result: Result) -> tuple[str, ...]:
    mark = click.style("ok", fg="green") if not result.problem else click.style("!!", fg="red", bold=True)
    finding = result.finding
    if result.problem == "" and result.state != "open":
        mark = "--"
    spoken = " ".join(filter(None, (finding.speaks, finding.detail))) if finding.state == "open" else finding.state
    if finding.certificate is not None:
        spoken += f", certificate until {finding.certificate.expires[:10]}"
    listens = result.process if result.listening else ("" if result.listening is None else "no")
    agrees = "agrees" if result.catalogue else ""
    address = f"[{result.host}]" if ":" in result.host else result.host
    return mark, result.component, f"{address}:{result.port}/{result.protocol}", listens, spoken, agrees, result.problem
