"""`cumulet up`."""

import gc
import sys
from itertools import zip_longest

import click

from cumulet import lock, preflight
from cumulet.cli.options import with_settings
from cumulet.cli.serving import announce, serve
from cumulet.config import Settings

COLLECT = (20_000, 20, 20)
"""When cyclic garbage is looked for. A list of a thousand servers makes a hundred thousand objects that live until it is
sent: with Python's own 700 they were gone through over and over, which took longer than making them."""
_STYLES = {"note": ("note", "blue"), "fallback": ("FALLBACK", "yellow"), "fatal": ("cannot start", "red")}


@click.command("up")
@with_settings()
def command(settings: Settings) -> None:
    """Start the cloud in the foreground.

    Checks the machine first and says what stands in the way. Ctrl-C stops the program; servers keep running, and the
    next `cumulet up` finds them again (--stop-servers shuts them down). The line "ready in X s" means that every API
    answers.

    \b
    Example, as root for real servers; then as any user, simulated, beside another cloud on the same ports:
      cumulet up --data /var/lib/cumulet --bind 192.0.2.10
      cumulet up --data /tmp/cloud --hypervisor simulated --port-offset 10000
    """
    plan = preflight.examine(settings)
    _show(plan)
    if plan.fatal:
        sys.exit(1)
    try:
        with lock.hold(settings.data):
            sys.exit(_serve(settings, plan))
    except lock.DataLockedError as error:
        raise click.ClickException(f"{error}; stop that one, or give this one its own --data") from error


def _show(plan: preflight.Plan) -> None:
    """Print what the user should know: only the obstacles if there are any; what is as it should be needs no line."""
    shown = plan.fatal or [finding for finding in plan.findings if finding.level != "ok"]
    for finding, following in zip_longest(shown, shown[1:]):
        word, colour = _STYLES[finding.level]
        fatal = finding.level == "fatal"
        click.echo(f"{click.style(word, fg=colour, bold=True)}: {finding.text}", err=fatal)
        if finding.way_out and (following is None or following.way_out != finding.way_out):
            click.echo(f"  way out: {finding.way_out}", err=fatal)


def _serve(settings: Settings, plan: preflight.Plan) -> int:
    """Run the program until it is told to stop; its exit status."""
    gc.disable()  # importing makes a hundred thousand objects, and hardly one is garbage
    from cumulet import program

    gc.freeze()
    gc.set_threshold(*COLLECT)
    gc.enable()
    return serve(program.run(settings, plan=plan, announce=announce))
