"""`cumulet clouds-yaml`."""

import shlex

import click

from cumulet import credentials
from cumulet.cli.options import with_settings
from cumulet.config import Settings


@click.command("clouds-yaml")
@with_settings("data")
@click.option("--export", is_flag=True, help="Print shell commands that point the clients to the file instead.")
@click.option("--cloud", type=click.Choice((credentials.ADMIN_CLOUD, credentials.DEMO_CLOUD)),
              default=credentials.ADMIN_CLOUD, help="The cloud that --export chooses.  [default: cumulet]")  # fmt: skip
def command(settings: Settings, export: bool, cloud: str) -> None:
    """Print the credentials for OpenStack clients.

    The file holds two clouds: `cumulet` (the admin) and `cumulet-demo` (an ordinary user in a project of its own).

    \b
    Example: set up this shell, then use the official client:
      eval "$(cumulet clouds-yaml --export)"
      openstack --os-cloud cumulet-demo image list
    """
    file = (settings.data / credentials.CLOUDS_YAML).absolute()
    try:
        content = file.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        text = f"cannot read {file}: {reason}; has `cumulet up` been started with this --data?"
        raise click.ClickException(text) from error
    if export:
        click.echo(f"export OS_CLIENT_CONFIG_FILE={shlex.quote(str(file))}")
        click.echo(f"export OS_CLOUD={cloud}")
    else:
        click.echo(content, nl=False)
