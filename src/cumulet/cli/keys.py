"""`cumulet keys`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cumulet.cli.options import with_settings
from cumulet.config import Settings

if TYPE_CHECKING:
    from cumulet.services.identity.fernet import KeyRing

UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@click.group("keys", invoke_without_command=True)
@with_settings("data")
@click.option("--list", "listed", is_flag=True, help="List the keys and their ages; so does the command alone.")
@click.pass_context
def command(context: click.Context, settings: Settings, listed: bool) -> None:
    """List and rotate the keys of tokens and credentials.

    The newest key of each kind seals, all of them open. The running program makes a new key for tokens by itself every day,
    and drops those that no token needs any more; rotate them by hand if one may have become known.

    \b
    Example: show the keys; make a new one for tokens; one for stored credentials, which are sealed anew with it:
      cumulet keys --list
      cumulet keys rotate
      cumulet keys rotate --credentials
    """
    if context.invoked_subcommand is None or listed:
        from cumulet.services.identity.fernet import KeyRing

        directory = _directory(settings)
        _list("tokens", KeyRing(directory / "keys"))
        _list("credentials", KeyRing(directory / "credential_keys", directory / "credential_key"))


@command.command("rotate")
@with_settings("data", "database", "object_rings")
@click.option("--credentials", is_flag=True, help="Rotate the key of stored credentials instead, and seal all anew.")
@click.option("--objects", is_flag=True, help="Add a root secret for encrypted objects instead.")
def rotate(settings: Settings, credentials: bool, objects: bool) -> None:
    """Make a new key to seal with.

    A running program takes it up at once, and tokens that are valid stay so. If this is cut off, nothing is lost: run it
    again. With --credentials the key before the new one is kept until the next rotation. With --objects new objects are
    encrypted with the new root secret, and the old ones are kept, since what is there is not encrypted anew.

    \b
    Example: rotate the keys of the cloud in a directory:
      cumulet keys rotate --data /var/lib/cumulet
      cumulet keys rotate --data /var/lib/cumulet --credentials
      cumulet keys rotate --data /var/lib/cumulet --objects
    """
    if objects:
        click.echo(_rotate_root_secret(settings))
        return
    directory = _directory(settings)
    if credentials:
        click.echo(_rotate_credentials(settings, directory))
        return
    from cumulet.services.identity.fernet import KeyRing

    number = KeyRing(directory / "keys").add()
    click.echo(f"tokens are sealed with key {number} from now on; those of before stay valid")


def _rotate_root_secret(settings: Settings) -> str:
    from cumulet.services.object_store.cluster import directory
    from cumulet.services.object_store.encryption import keymaster

    path = directory(settings) / keymaster.FILE
    if not path.parent.is_dir():
        raise click.ClickException(f"there are no rings in {path.parent}; name their directory with --object-rings")
    if not path.exists():
        keymaster.make(path)
        return f"{path} holds the first root secret; copy it to every node"
    number = keymaster.rotate(path)
    return f"new objects are encrypted with root secret {number} from now on; copy {path} to every node"


def _rotate_credentials(settings: Settings, directory: Path) -> str:
    from cumulet.core.db import Database
    from cumulet.services.identity.declaration import SERVICE  # noqa: F401 - declares the tables
    from cumulet.services.identity.fernet import Vault
    from cumulet.services.identity.reseal import rotate_vault

    vault = Vault(directory / "credential_key")
    engine = Database(settings.database_url).engine
    try:
        count = rotate_vault(engine, vault)
    except ValueError as error:
        raise click.ClickException(
            f"{error}; is a file of {vault.ring.directory} missing? No key was dropped"
        ) from error
    finally:
        engine.dispose()
    return f"{count} stored secrets are sealed with key {vault.ring.numbers()[-1]} now"


def _directory(settings: Settings) -> Path:
    directory: Path = settings.data / "identity"
    if not directory.is_dir():
        raise click.ClickException(f"there is no cloud in {settings.data}; name its directory with --data")
    return directory


def _list(title: str, ring: "KeyRing") -> None:
    click.echo(f"{title}: {ring.directory}")
    for key in ring.listed():
        click.echo(f"  key {key.number}, {_age(key.age)} old{', seals' if key.seals else ''}")


def _age(seconds: float) -> str:
    size, unit = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    number = int(max(seconds, 0) // size)
    return f"{number} {unit}{'' if number == 1 else 's'}"
