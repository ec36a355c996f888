"""Compute, running: what its handlers find as `ctx.service`, and the parts that work behind them."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy import Connection

from cumulet.api.http import Request, Response
from cumulet.core.kernel import Kernel
from cumulet.services.compute import flavor
from cumulet.services.compute.console import Screens
from cumulet.services.compute.drivers import HostInfo, Hypervisor
from cumulet.services.compute.metadata import Metadata
from cumulet.services.compute.reconcile import EVERY, Reconciler
from cumulet.services.compute.server.addresses import AddressBook
from cumulet.services.compute.server.build import Builder
from cumulet.services.compute.server.delete import Remover
from cumulet.services.compute.server.interface import Cards
from cumulet.services.compute.server.power import Power
from cumulet.services.compute.server.rebuild import Rebuilder
from cumulet.services.compute.server.resize import Resizer
from cumulet.services.compute.server.snapshot import Snapshots
from cumulet.services.compute.server.state import break_down, give_up
from cumulet.services.image.interface import Images
from cumulet.services.network.interface import Networking
from cumulet.services.placement.interface import Inventory, Placement

Handler = Callable[[Request], Awaitable[Response]]

RESERVED_MB = 512
"""Memory of a host that servers do not get."""
CPU_RATIO = 4.0


class ComputeRuntime:
    """The compute service of this host's cloud."""

    def __init__(
        self,
        kernel: Kernel,
        hypervisor: Hypervisor,
        *,
        images: Images,
        network: Networking,
        placement: Placement,
        console_url: str,
    ) -> None:
        self.kernel = kernel
        self.hypervisor = hypervisor
        self.images = images
        self.network = network
        self.placement = placement
        self.console_url = console_url
        self.host: HostInfo | None = None
        self.apis: Mapping[str, Handler] = {}
        """Other services' APIs by type, for calls that are passed on (`passing_on.py`); the composition root fills it."""
        self.builder = Builder(self)
        self.remover = Remover(self)
        self.addresses = AddressBook(self)
        self.reconciler = Reconciler(self)
        self.snapshots = Snapshots(self)
        self.metadata = Metadata(self)
        self.screens = Screens(self)
        self._register(Power(self), Cards(self))

    @property
    def hostname(self) -> str:
        """The name under which this host is known to placement and to admins."""
        return self.kernel.settings.hostname

    @property
    def provider_id(self) -> str:
        """The id of this host as a resource provider, and as a hypervisor."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.hostname}.compute"))

    def _register(self, power: Power, cards: Cards) -> None:
        add = self.kernel.operations.register
        add("server.create", self.builder.build, on_failure=self.builder.failed, attempts=3)
        add("server.delete", self.remover.delete, on_failure=break_down)
        add("server.abandon", self.remover.abandon)
        add("server.start", power.start, on_failure=break_down, attempts=3)
        add("server.reboot", power.reboot, on_failure=break_down, attempts=3)
        add("server.stop", power.stop, on_failure=give_up, attempts=3)
        add("server.pause", power.pause, on_failure=give_up, attempts=3)
        add("server.unpause", power.unpause, on_failure=give_up, attempts=3)
        add("server.snapshot", self.snapshots.take, on_failure=self.snapshots.failed, attempts=3)
        add("server.discard_image", self.snapshots.discard)
        add("server.rebuild", Rebuilder(self).rebuild, on_failure=break_down, attempts=3)
        Resizer(self).register()
        add("server.attach_port", cards.attach, on_failure=cards.attach_failed, attempts=2)
        add("server.detach_port", cards.detach, on_failure=cards.detach_failed, attempts=3)

    async def start(self) -> None:
        """Reconnect to what runs, offer the host to placement, and mend what changed while the program was away."""
        await self.hypervisor.start(self.reconciler.hear)
        self.host = await self.hypervisor.host_info()
        await self.placement.ensure_provider(self.provider_id, self.hostname, _inventories(self.host))
        self.kernel.bus.subscribe("network", self.addresses.hear)
        await self.reconciler.compare()
        await self.addresses.refresh_all()
        self.kernel.tasks.every("compute: compare with the host", EVERY, self.reconciler.compare)
        self.kernel.tasks.every("compute: addresses", 5 * EVERY, self.addresses.refresh_all)

    async def stop(self) -> None:
        """Let go of the host; servers run on."""
        await self.hypervisor.stop()

    async def ensure_flavors(self) -> None:
        """Make the default flavors."""

        def unit(tx: Connection) -> None:
            flavor.ensure_defaults(tx)

        await self.kernel.db.run(unit)

    async def stop_all_servers(self) -> None:
        """Shut down every server that runs, all at once; the database follows at the next start."""
        running = [s.id for s in (await self.hypervisor.observe()).values() if s.power in ("running", "paused")]
        await asyncio.gather(*(self.hypervisor.ensure_stopped(server_id) for server_id in running))

    async def answer_metadata(self, network_id: str, request: Request) -> Response:
        """Answer a guest's request to 169.254.169.254, who is told by his network and `request.remote`."""
        return await self.metadata.answer(network_id, request)

    async def answer_console(self, request: Request) -> Response:
        """Answer on the port of the consoles' URLs: the pages of noVNC, and their websocket."""
        return await self.screens.answer(request)


def _inventories(host: HostInfo) -> dict[str, Inventory]:
    return {
        "VCPU": Inventory(host.vcpus, max_unit=host.vcpus, allocation_ratio=CPU_RATIO),
        "MEMORY_MB": Inventory(host.memory_mb, reserved=min(RESERVED_MB, host.memory_mb // 2), max_unit=host.memory_mb),
        "DISK_GB": Inventory(host.disk_gb, max_unit=host.disk_gb),
    }
