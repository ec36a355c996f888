"""`cumulet openapi`."""

import json
import re

import click

SERVICES = ("identity", "image", "image-registry", "placement", "network", "compute", "object-store")


@click.command("openapi")
@click.argument("service", type=click.Choice(SERVICES))
@click.option("--version", "number", metavar="X.Y", help="The microversion to describe.  [default: the newest]")
def command(service: str, number: str | None) -> None:
    """Print the OpenAPI document of a service.

    Paths, parameters, bodies and policy rules, made from the declarations that the running program checks requests with.

    \b
    Example: compute as it is now; compute as clients of version 2.79 see it:
      cumulet openapi compute
      cumulet openapi compute --version 2.79
    """
    from cumulet import program
    from cumulet.api.openapi import document
    from cumulet.api.version import text

    (found,) = (one for one in program.SERVICES if one.type == service)
    version = None
    if number is not None:
        spoken = found.microversions
        if spoken is None:
            raise click.UsageError(f"{service} has no microversions; leave out --version")
        match = re.fullmatch(r"(\d+)\.(\d+)", number)
        version = (int(match[1]), int(match[2])) if match else None
        if version is None or not spoken.low <= version <= spoken.high:
            wanted = f"one from {text(spoken.low)} to {text(spoken.high)}"
            raise click.UsageError(f"{service} has no version {number!r}; give {wanted}")
    click.echo(json.dumps(document(found, version), indent=2))
