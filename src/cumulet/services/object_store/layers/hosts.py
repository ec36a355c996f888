"""What the host's name of a request says: the part of the layers of domains that they share.

Where a layer has another path or host in a request, the reply's Location speaks of that one; the client is told of his own.
"""

import re

from cumulet.services.object_store.message import Request, Response
from cumulet.services.object_store.words import listed

LOCATIONS = ("Location", "Content-Location")


def storage_domains(setting: str) -> tuple[str, ...]:
    """The domains under which accounts and containers have names, each with a dot before it."""
    return tuple(domain if domain.startswith(".") else f".{domain}" for domain in listed(setting.lower()))


def host_of(request: Request) -> tuple[str, str]:
    """(name, port or "") of Host."""
    host = request.headers.get("Host", "")
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name, rest.removeprefix(":")
    name, _, port = host.partition(":")
    return name, port


def told_again(response: Response, pattern: str, replacement: str) -> Response:
    """The reply with the client's own words in Location."""
    for name in LOCATIONS:
        if (value := response.headers.get(name)) is not None:
            response.headers[name] = re.sub(pattern, lambda match: _filled(match, replacement), value)
    return response


def _filled(match: "re.Match[str]", replacement: str) -> str:
    return f"{match.group(1)}{replacement}{match.group(2) or ''}"
