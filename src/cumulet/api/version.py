"""Microversions: which version a request asks for, in both header forms, and how the reply says which was used.

Reference: the API working group's guideline "Microversion Specification".
"""

import re
from dataclasses import dataclass

from cumulet.api.http import Request
from cumulet.api.resource import ANY, Version
from cumulet.core.errors import Invalid, NotAcceptable

NUMBER = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")


@dataclass(frozen=True)
class Microversions:
    """The range a service speaks. `service` is its name in `OpenStack-API-Version`; `legacy` an older header of its own."""

    service: str
    low: Version
    high: Version
    legacy: str = ""

    def settle(self, request: Request) -> Version:
        """The version in force for this request; NotAcceptable (406) where it is out of range."""
        asked = self._asked(request)
        if asked is None:
            return self.low
        if asked == "latest":
            return self.high
        match = NUMBER.fullmatch(asked)
        if match is None:
            raise Invalid(f"API Version String {asked} is of invalid format. Must be of format MajorNum.MinorNum.")
        version = int(match[1]), int(match[2])
        if not self.low <= version <= self.high:
            raise NotAcceptable(
                f"Version {asked} is not supported by the API. Minimum is {text(self.low)} and maximum is {text(self.high)}.",
                headers=self.headers(self.high),
            )
        return version

    def _asked(self, request: Request) -> str | None:
        header = request.headers.get("OpenStack-API-Version")
        if header:
            for part in header.split(","):
                name, _, number = part.strip().partition(" ")
                if name.lower() == self.service:
                    return number.strip()
        return request.headers.get(self.legacy) if self.legacy else None

    def headers(self, version: Version) -> dict[str, str]:
        """What the reply says of the version in force."""
        number = text(version)
        headers = {"OpenStack-API-Version": f"{self.service} {number}", "Vary": "OpenStack-API-Version"}
        if self.legacy:
            headers[self.legacy] = number
            headers["Vary"] += f", {self.legacy}"
        return headers


def text(version: Version) -> str:
    return "" if version == ANY else f"{version[0]}.{version[1]}"
