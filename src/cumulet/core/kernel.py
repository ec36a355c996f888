"""What every service is given: the database, durable operations, the bus, background tasks and the settings."""

from msgspec import Struct

from cumulet.config import Settings
from cumulet.core.bus import Bus
from cumulet.core.db import Database
from cumulet.core.operations import Operations
from cumulet.core.tasks import Tasks


class Kernel(Struct, frozen=True):
    settings: Settings
    db: Database
    operations: Operations
    bus: Bus
    tasks: Tasks
