"""`cumulet ports verify`."""

import asyncio
import sys
from pathlib import Path

import click
import msgspec

from cumulet.cli.tables import table
from cumulet.portmap.facts import DIALECTS, ERAS, UPSTREAM, facts
from cumulet.portmap.verify.inventory import InventoryError, read
from cumulet.portmap.verify.prove import Proof, VerifyError, prove

HEADER = ("", "from", "to", "port", "declared", "listening", "reachable", "what for; what stops it")


@click.command("verify")
@click.argument("inventory", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dialect", type=click.Choice(DIALECTS), default=UPSTREAM,
              help="Whose ports the hosts have.  [default: upstream]")  # fmt: skip
@click.option("--era", type=click.Choice(ERAS), default="current", help="Of which time.  [default: current]")
@click.option("--timeout", type=click.FloatRange(0.1, 60), default=2.0, metavar="SECONDS",
              help="How long to wait for an answer.  [default: 2]")  # fmt: skip
@click.option("--all", "show_all", is_flag=True, help="Show also what gets through.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(inventory: Path, dialect: str, era: str, timeout: float, show_all: bool, as_json: bool) -> None:
    """Prove between hosts that every connection of the cloud gets through, and show what stops one.

    The hosts are in a TOML file with their roles and addresses. On each, a small Python program is run over SSH that answers
    on the ports where nothing listens yet, and tries the others' ports; it leaves nothing behind. For a connection that is
    stopped, nftables is asked which rule dropped the packet (as root). What listens and is reachable although no flow needs it
    is told as well. The exit status is 0 if every declared connection gets through, 1 if one does not.

    \b
    Example: the file, and two ways to use it:
      [[host]]
      name = "controller1"
      roles = ["controller"]
      addresses = { internal = "10.0.0.11" }
      connect = ["ssh", "root@10.0.0.11"]

      cumulet ports verify hosts.toml
      cumulet ports verify hosts.toml --dialect kolla-ansible --json
    """
    try:
        hosts = read(inventory)
        if len(hosts) < 2:
            raise InventoryError(f"{inventory} has {len(hosts)} hosts; a connection has two ends")
        proofs = asyncio.run(prove(facts(), hosts, era=era, dialect=dialect, timeout=timeout))
    except (InventoryError, VerifyError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(proofs)))
    else:
        shown = [proof for proof in proofs if show_all or not proof.good]
        if shown:
            click.echo(table(HEADER, [_row(proof) for proof in shown]), nl=False)
        through = sum(proof.good for proof in proofs)
        declared = sum(proof.declared for proof in proofs)
        click.echo(f"{through} of {declared} declared connections get through")
    sys.exit(1 if any(proof.declared and proof.reachable not in ("open", "open|filtered") for proof in proofs) else 0)


def _row(proof: Proof) -> tuple[str, ...]:
    mark = click.style("ok", fg="green") if proof.good else click.style("!!", fg="red", bold=True)
    words = f"{proof.flow}" + (f"; {proof.blocked}" if proof.blocked else "")
    return (
        mark, proof.source, proof.destination, f"{proof.port}/{proof.protocol}", "yes" if proof.declared else "no",
        proof.listening, proof.reachable, words,
    )  # fmt: skip
