"""The simulated dataplane: it remembers what it was asked for, and no packet ever flows."""

import socket

from cumulet.services.network.drivers import DataplaneError, Network, Observed, Router


class SimulatedDataplane:
    """Implements `Dataplane` in memory, for using the API without a network (and without root)."""

    def __init__(self) -> None:
        self._networks: dict[str, Network] = {}
        self._routers: dict[str, Router] = {}

    async def start(self) -> None:
        """Nothing to adopt: nothing outlives the program."""

    async def stop(self) -> None:
        """Nothing to let go of."""

    async def ensure_network(self, network: Network) -> None:
        self._networks[network.id] = network

    async def remove_network(self, network_id: str) -> None:
        self._networks.pop(network_id, None)

    async def ensure_router(self, router: Router) -> None:
        legs = [*router.interfaces, *([router.gateway] if router.gateway else [])]
        for leg in legs:
            if leg.network_id not in self._networks:
                raise DataplaneError(f"network {leg.network_id} is not on this host: it was not ensured")
        self._routers[router.id] = router

    async def remove_router(self, router_id: str) -> None:
        self._routers.pop(router_id, None)

    async def open_tap(self, network_id: str, port_id: str, mac: str) -> int:
        raise DataplaneError("the network is simulated: there are no taps (start with --network linux)")

    async def metadata_socket(self, network_id: str) -> socket.socket:
        raise DataplaneError("the network is simulated: nothing can listen in it (start with --network linux)")

    async def observe(self) -> Observed:
        return Observed(frozenset(self._networks), frozenset(self._routers), frozenset())

    async def remove_all(self) -> None:
        self._networks.clear()
        self._routers.clear()
