"""The settings of the program itself: requests, operations, its end, its log."""

from pathlib import Path
from typing import Annotated, Literal

from cumulet.config.object_store import ObjectStoreSettings
from cumulet.config.words import says

TERMINAL = "-"
"""As `log_file`: no file, all lines go to standard error."""


class ProgramSettings(ObjectStoreSettings, frozen=True, kw_only=True):
    """How the program runs."""

    max_body: Annotated[
        int, says("The largest request body accepted, in bytes; uploads of image data are not bound by it.", ge=4096)
    ] = 1024 * 1024
    operation_workers: Annotated[
        int, says("How many long operations (building a server, and the like) run at once.", ge=1, le=1024)
    ] = 16
    stop_servers: Annotated[
        bool, says("Shut all servers down when the program stops; otherwise they keep running.")
    ] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], says("The least serious messages that are logged.")
    ] = "info"
    log_format: Annotated[Literal["text", "json"], says("How log lines are written.")] = "text"
    log_file: Annotated[
        str,
        says(
            "The file for log lines, the access log among them; warnings are shown on the terminal too. `-` writes all to "
            "standard error instead.",
            "cumulet.log in the data directory",
        ),
    ] = ""

    @property
    def log_path(self) -> Path:
        """The log file, the default filled in. Not for `log_file = "-"`."""
        return Path(self.log_file).expanduser() if self.log_file else self.data.absolute() / "cumulet.log"
