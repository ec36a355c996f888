"""`cumulet ports explain`."""

import textwrap

import click
import msgspec

from cumulet.portmap.explain import FROM, Explanation, explain
from cumulet.portmap.facts import facts

WIDTH = 110


@click.command("explain")
@click.argument("what", metavar="PORT|COMPONENT|SERVICE")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(what: str, as_json: bool) -> None:
    """Say in plain words what a port is, who connects to it, and whether to expose it.

    \b
    Example: a number; a program; a whole service:
      cumulet ports explain 8774
      cumulet ports explain glance-registry
      cumulet ports explain object-store
    """
    if what.isdecimal() and not 0 < int(what) < 65536:
        raise click.UsageError(f"{what} is no port: they go from 1 to 65535")
    found = explain(facts(), what)
    if not found:
        kind = "nothing of OpenStack listens on" if what.isdecimal() else "no component or service is called"
        raise click.ClickException(f"{kind} {what}; `cumulet ports --dialect upstream` lists what is known")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
        return
    click.echo("\n".join(_words(item) for item in found), nl=False)


def _words(item: Explanation) -> str:
    state = "" if item.state == "listed" else f", {item.state}"
    lines = [click.style(f"{item.port}/{item.protocol}  {item.component}  ({item.service}{state})", bold=True)]
    lines += _wrapped("", item.about)
    for network, components in item.callers.items():
        lines += _wrapped("who", f"{', '.join(components)} - from {FROM[network]}")
    lines += _wrapped("expose", item.exposure)
    for title, texts in (
        ("elsewhere", item.elsewhere), ("collides", item.collisions), ("note", item.notes), ("source", item.sources),
    ):  # fmt: skip
        for text in texts:
            lines += _wrapped(title, text)
    return "".join(line + "\n" for line in lines)


def _wrapped(title: str, text: str) -> list[str]:
    start = f"  {title:<11}" if title else "  "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
        break_long_words=False,
    )
