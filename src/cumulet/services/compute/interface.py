"""What other parts of the program may ask of compute."""

from typing import Protocol

from cumulet.api.http import Request, Response


class Metadata(Protocol):
    async def answer_metadata(self, network_id: str, request: Request) -> Response:
        """Answer a guest's request to 169.254.169.254, who is told by his network and `request.remote`."""
        ...
