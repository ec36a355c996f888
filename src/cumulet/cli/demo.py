"""`cumulet demo`: what a new user would do first, done through the public APIs as an ordinary user."""

import asyncio
import json
import sys

import click

from cumulet import credentials, status
from cumulet.cli.options import with_settings
from cumulet.config import Settings


@click.command("demo")
@with_settings("data")
@click.option("--delete", is_flag=True, help="Remove all that the demo made.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; progress goes to standard error.")
@click.option("--wait", default=0.0, metavar="SECONDS", help="Wait so long for the cloud to be up.  [default: 0]")
@click.option(
    "--timeout", default=300.0, metavar="SECONDS", help="Wait so long for each thing to come.  [default: 300]"
)
def command(settings: Settings, delete: bool, as_json: bool, wait: float, timeout: float) -> None:
    """Boot a server on a network of its own and log in to it.

    Makes, as the user `demo`: a key, a network with a router to the world, a security group that lets SSH in, a server
    and a floating IP; then waits for SSH and prints the command to log in. What is there already is used again.

    \b
    Example: run it, then clean up:
      cumulet demo
      cumulet demo --delete
    """
    from cumulet.cli.cloud import CloudError

    try:
        result = asyncio.run(_run(settings, delete=delete, as_json=as_json, wait=wait, timeout=timeout))
    except (CloudError, credentials.CredentialsError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(result, indent=2))


async def _run(settings: Settings, *, delete: bool, as_json: bool, wait: float, timeout: float) -> dict[str, object]:
    from cumulet.cli.cloud import Cloud, CloudError, wait_for
    from cumulet.cli.progress import Progress
    from cumulet.cli.showcase import Showcase

    async def look() -> status.Status | None:
        found = status.read(settings.data)
        return found if found is not None and found.is_running() else None

    try:
        running = await wait_for("the cloud", look, timeout=wait, interval=0.2)
    except CloudError as error:
        raise CloudError(f"no cloud is up in {settings.data}; start one with `cumulet up` and look at "
                         "`cumulet status`") from error  # fmt: skip
    except OSError as error:
        raise CloudError(
            f"cannot read {settings.data}: {error.strerror}; run it as the user of `cumulet up`"
        ) from error
    login = credentials.read_openrc(settings.data / credentials.DEMO_OPENRC)
    progress = Progress(sys.stderr if as_json else sys.stdout)
    async with Cloud(login) as cloud:
        showcase = Showcase(cloud, settings.data / "demo", progress, simulated=running.simulated, timeout=timeout)
        return await (showcase.remove() if delete else showcase.run())
