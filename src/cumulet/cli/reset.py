"""`cumulet reset`."""

import asyncio
import shutil

import click

from cumulet import lock
from cumulet.cli.options import with_settings
from cumulet.config import Settings


@click.command("reset")
@with_settings()
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(settings: Settings, yes: bool) -> None:
    """Remove the cloud: servers, networks, all data.

    Refuses while the cloud is up. Only what belongs to the data directory's cloud is touched.

    \b
    Example: throw a cloud away after a question; without one, in a script:
      cumulet reset --data /tmp/cloud
      cumulet reset --data /tmp/cloud --yes
    """
    data = settings.data
    if not data.is_dir() or not any(data.iterdir()):
        click.echo(f"nothing to remove: {data} is not there or empty")
        return
    if not (data / lock.LOCK_FILE).is_file():
        raise click.ClickException(f"{data} was not made by `cumulet up` (it has no lock file); it is left alone")
    if not yes:
        click.confirm(f"Remove all servers and networks of this cloud, and everything in {data}?", abort=True)
    from cumulet.services.compute.drivers import HypervisorError
    from cumulet.services.network.drivers import DataplaneError

    try:
        with lock.hold(data):
            from cumulet import program

            asyncio.run(program.reset(settings))
            shutil.rmtree(data)
    except (HypervisorError, DataplaneError) as error:
        raise click.ClickException(f"not all was removed: {error}; run it again once that is mended") from error
    except lock.DataLockedError as error:
        raise click.ClickException(f"{error}; stop it first") from error
    except PermissionError as error:
        raise click.ClickException(f"not permitted: {error}; run it as the user that ran `cumulet up`") from error
    click.echo(f"removed the cloud of {data}")
