"""`cumulet firewall`."""

import sys
from pathlib import Path

import click

from cumulet.cli.options import with_settings
from cumulet.config import Settings
from cumulet.portmap.facts import DIALECTS, ERAS, OWN, facts
from cumulet.portmap.firewall import apply as live
from cumulet.portmap.firewall.plan import HOST_ROLES, NAMED, Plan, PlanError, make
from cumulet.portmap.firewall.render import FORMS

STATE = "firewall"
"""The folder of the data directory that holds what --rollback needs."""
MEANING = {
    "public": "clients: people, SDKs, browsers",
    "internal": "the hosts of the cloud among themselves",
    "storage": "hosts and storage",
    "tenant": "hosts that carry tenants' networks (VXLAN, Geneve)",
    "admin": "who administers the hosts over SSH; `internal` where not given",
}


def _networks(command: click.Command) -> click.Command:
    """An option for each network."""
    for name in reversed(NAMED):
        text = f"A CIDR of the {name} network: {MEANING[name]}. May be given several times."
        command.params.insert(0, click.Option([f"--{name}"], multiple=True, metavar="CIDR", help=text))
    return command


@click.command("firewall")
@with_settings("data", "port_offset")
@click.option("--role", "roles", multiple=True, type=click.Choice(HOST_ROLES), help="What the host is; may be given several "
              "times.  [default: all-in-one]")  # fmt: skip
@click.option("--format", "form", type=click.Choice(list(FORMS)), default="nftables", help="For which firewall.  "
              "[default: nftables]")  # fmt: skip
@click.option("--dialect", type=click.Choice(DIALECTS), default=OWN, help="Whose ports: this program's, upstream's, or those "
              "of a deployment tool.  [default: cumulet]")  # fmt: skip
@click.option("--era", type=click.Choice(ERAS), default="current", help="Of which time.  [default: current]")
@click.option("--service", "services", multiple=True, metavar="TYPE", help="Only this service (compute, image, ...).")
@click.option("--apply", "do_apply", is_flag=True, help="Put the rules into force on this host, with nftables.")
@click.option("--rollback", type=click.FloatRange(0, 86400), default=60, metavar="SECONDS",
              help="With --apply: take them back after this time unless confirmed; 0 keeps them.  [default: 60]")  # fmt: skip
@click.option("--confirm", is_flag=True, help="Keep the rules that wait to be confirmed.")
@click.option("--remove", is_flag=True, help="Take away what --apply made.")
def command(
    settings: Settings, roles: tuple[str, ...], form: str, dialect: str, era: str, services: tuple[str, ...],
    do_apply: bool, rollback: float, confirm: bool, remove: bool, **networks: tuple[str, ...],
) -> None:  # fmt: skip
    """Make firewall rules for a host, and apply them.

    They let in what must reach the host, from the networks it comes from, and nothing else: that follows from who connects to
    whom (`cumulet ports graph`). A network that is not given lets nothing in, and the command says what that closes.

    \b
    Example: print the rules of this host; put them into force, and keep them if you still get in:
      cumulet firewall --public 198.51.100.0/24 --internal 10.0.0.0/24
      cumulet firewall --public 198.51.100.0/24 --internal 10.0.0.0/24 --apply --rollback 60
      cumulet firewall --confirm

    \b
    Example: for a compute host of a cloud that Kolla-Ansible deployed:
      cumulet firewall --role compute --dialect kolla-ansible --internal 10.0.0.0/24 --tenant 10.0.2.0/24
    """
    try:
        if confirm:
            live.confirm(settings.data / STATE)
            click.echo("kept")
        elif remove:
            click.echo("removed" if live.remove() else "there was nothing to remove")
        else:
            given = {name: values for name, values in networks.items() if values}
            plan = make(
                facts(), roles or ("all-in-one",), given, era=era, dialect=dialect, services=services,
                offset=settings.port_offset,
            )  # fmt: skip
            _warn(plan)
            if do_apply:
                _apply(plan, rollback, settings.data / STATE)
            else:
                click.echo(FORMS[form](plan), nl=False)
    except (PlanError, live.ApplyError) as error:
        raise click.ClickException(str(error)) from error


def _warn(plan: Plan) -> None:
    """Say what the networks that were not given close."""
    for network, ports in plan.left_out.items():
        shown = ", ".join(ports[:8]) + (f" and {len(ports) - 8} more" if len(ports) > 8 else "")
        click.echo(f"note: no --{network} network was given, so nothing from there reaches {shown}", err=True)


def _apply(plan: Plan, rollback: float, state: Path) -> None:
    if not any(rule.network == "admin" for rule in plan.rules):
        click.echo("note: no --admin or --internal network was given: nobody will reach this host over SSH", err=True)
    if not live.apply(plan, rollback, state):
        click.echo("in force already: nothing was changed")
        return
    click.echo(f"in force: {len(plan.rules)} rules in the table inet cumulet_firewall")
    if not rollback:
        return
    click.echo(
        f"They go again in {rollback:g} s, unless you confirm that you still get in:\n  cumulet firewall --confirm"
    )
    if sys.stdin.isatty() and click.confirm("Keep them?", default=False):
        live.confirm(state)
        click.echo("kept")


command = _networks(command)
