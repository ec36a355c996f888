"""The dataplane of a Linux host: namespaces, bridges, veth pairs, nftables and dnsmasq.

Each network has a namespace (`{prefix}-n-<id>`) with `br0`, the taps of its machines and its dnsmasq; each router has
one (`{prefix}-r-<id>`) with a leg per network. So equal addresses on two networks never meet, and nothing is enabled in
the namespace the program runs in, which holds the external bridge alone. `docs/dataplane.md` shows it in a picture.
"""

import asyncio
import os
import shutil
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec

from cumulet.services.network.drivers import DataplaneError, Network, Observed, Router, Subnet
from cumulet.services.network.drivers.linux import bridge, dhcp, external, metadata, namespace, nat, router
from cumulet.services.network.drivers.linux.command import PACKAGES, forget_flows, nft
from cumulet.services.network.drivers.linux.filter import FORGETTABLE, narrowed, ruleset

T = TypeVar("T")
Spec = TypeVar("Spec", Network, Router)

THREADS = 16
"""Objects worked on at once."""

UUID_LENGTH = 36


class LinuxDataplane:
    """Implements `Dataplane` on this host. `prefix` is this cloud's alone on the host (at most 12 characters).

    With `masquerade`, external networks reach the world behind the host's addresses, where the host forwards packets.
    """

    def __init__(
        self, directory: Path, prefix: str, external_bridge: str = "cumulet-ext", *, masquerade: bool = False
    ) -> None:
        if not 0 < len(prefix) <= 12 or not prefix.replace("-", "").replace("_", "").isalnum():
            raise DataplaneError(f"the prefix '{prefix}' is not 1 to 12 letters, digits, '-' or '_'")
        self._directory = directory.absolute()
        self._prefix = prefix
        self._bridge = external_bridge
        self._masquerade = masquerade
        self._networks: dict[str, tuple[Network, int]] = {}
        self._routers: dict[str, tuple[Router, tuple[int | None, ...]]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._threads = asyncio.Semaphore(THREADS)
        self._work: set[asyncio.Task[object]] = set()

    # -- the Protocol ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self._exclusive("start", self._start)

    async def stop(self) -> None:
        while self._work:
            await asyncio.wait(self._work)

    async def ensure_network(self, network: Network) -> None:
        if network.external:
            await self._exclusive("external", partial(self._ensure_external, network))
        else:
            await self._exclusive(network.id, partial(self._ensure_network, network))

    async def remove_network(self, network_id: str) -> None:
        await self._exclusive("external", partial(self._remove_external, network_id))
        await self._exclusive(network_id, partial(self._remove_network, network_id))

    async def ensure_router(self, router: Router) -> None:
        await self._exclusive(router.id, partial(self._ensure_router, router))

    async def remove_router(self, router_id: str) -> None:
        await self._exclusive(router_id, partial(self._remove_router, router_id))

    async def open_tap(self, network_id: str, port_id: str, mac: str) -> int:
        return await self._exclusive(network_id, partial(self._open_tap, network_id, port_id, mac), os.close)

    async def metadata_socket(self, network_id: str) -> socket.socket:
        return await self._exclusive(network_id, partial(self._metadata_socket, network_id), socket.socket.close)

    async def observe(self) -> Observed:
        return await self._exclusive("observe", self._observe)

    async def remove_all(self) -> None:
        await self.stop()
        await self._exclusive("all", self._remove_all)

    # -- how work is run ---------------------------------------------------------------------------------------------

    async def _exclusive(self, key: str, work: Callable[[], T], discard: Callable[[T], object] | None = None) -> T:
        """Run work in a thread, one at a time per key. A caller that is cancelled does not stop it halfway: it goes on
        to its end, still holding the lock, and `discard` is given its result."""

        async def locked() -> T:
            lock = self._locks.setdefault(key, asyncio.Lock())
            async with lock, self._threads:
                return await namespace.in_thread(work)

        task = asyncio.create_task(locked())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(partial(_discard, discard))
            raise

    def _start(self) -> None:
        for tool in ("ip", "nft", "conntrack", "dnsmasq", "setpriv"):
            if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
                raise DataplaneError(f"'{tool}' is not installed (package {PACKAGES[tool]})")
        if os.geteuid() != 0:
            raise DataplaneError("a real network needs root (or --network simulated)")
        if not Path("/dev/net/tun").exists():
            raise DataplaneError("a real network needs /dev/net/tun, which this machine lacks (or --network simulated)")
        bridge.load_modules()
        for kind in ("networks", "routers", "external"):
            (self._directory / kind).mkdir(parents=True, exist_ok=True)
        for name in [*map(self._network_name, self._ids("n")), *map(self._router_name, self._ids("r"))]:
            if namespace.identity(name) is None:
                namespace.remove(name)
        # What was left of a removal that was cut short, or of the time before the host was started anew.
        dhcp.adopt(self._directory)
        for directory in [*(self._directory / "networks").iterdir(), *(self._directory / "routers").iterdir()]:
            named = self._network_name if directory.parent.name == "networks" else self._router_name
            if namespace.identity(named(directory.name)) is None:
                dhcp.end_all(directory)
                shutil.rmtree(directory)

    # -- names and records -------------------------------------------------------------------------------------------

    def _network_name(self, network_id: str) -> str:
        return f"{self._prefix}-n-{network_id}"

    def _router_name(self, router_id: str) -> str:
        return f"{self._prefix}-r-{router_id}"

    def _network_directory(self, network_id: str) -> Path:
        return self._directory / "networks" / network_id

    def _router_directory(self, router_id: str) -> Path:
        return self._directory / "routers" / router_id

    def _live_network(self, network_id: str) -> str:
        name = self._network_name(network_id)
        if (self._directory / "external" / f"{network_id}.json").exists():
            raise DataplaneError(f"network {network_id} is external: it is reached through a router, not joined")
        if namespace.identity(name) is None:
            raise DataplaneError(f"network {network_id} is not on this host: it was not ensured")
        return name

    def _read(self, path: Path, kind: type[Spec]) -> Spec | None:
        """What was last made of an object; None if unknown, or if written by a program that knew other fields."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _write(self, path: Path, spec: Network | Router) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_bytes(msgspec.json.encode(spec))
        fresh.replace(path)

    # -- networks ----------------------------------------------------------------------------------------------------

    def _ensure_network(self, network: Network) -> None:
        name, directory = self._network_name(network.id), self._network_directory(network.id)
        number = namespace.identity(name)
        known, made = self._networks.get(network.id, (None, None))
        if number is None or made != number:
            known = None
        if known == network and (not dhcp.configuration(network, directory) or dhcp.running(directory)):
            return
        # What follows may fail halfway: until all is done nothing is known.
        self._networks.pop(network.id, None)
        record = directory / "network.json"
        before = known or self._read(record, Network)
        new, number = number is None, namespace.ensure(name)
        with namespace.inside(name):
            if known is None or (known.subnets, known.mtu) != (network.subnets, network.mtu):
                bridge.ensure_bridge(network)
            nft(ruleset(network))
            if not new and (before is None or narrowed(before, network)):
                forget_flows("--mark", str(FORGETTABLE))
            dhcp.ensure(network, directory, first=known is None)
        self._write(record, network)
        self._networks[network.id] = (network, number)

    def _remove_network(self, network_id: str) -> None:
        self._networks.pop(network_id, None)
        name = self._network_name(network_id)
        directory = self._network_directory(network_id)
        dhcp.remove(directory)
        self._empty(name)
        shutil.rmtree(directory, ignore_errors=True)

    def _empty(self, name: str) -> None:
        """Remove a namespace and first, at once and not when the kernel finds the time, what leads out of it."""
        if namespace.identity(name) is not None:
            with namespace.inside(name):
                bridge.remove_plugs()
        namespace.remove(name)

    def _open_tap(self, network_id: str, port_id: str, mac: str) -> int:
        name = self._live_network(network_id)
        known = self._networks[network_id][0] if network_id in self._networks else None
        known = known or self._read(self._network_directory(network_id) / "network.json", Network)
        port = next((port for port in known.ports if port.id == port_id), None) if known else None
        if known is None or port is None:
            raise DataplaneError(f"port {port_id} is not on network {network_id}: the network was not ensured with it")
        if port.mac.lower() != mac.lower():
            raise DataplaneError(f"port {port_id} has the MAC {port.mac}, not {mac}")
        with namespace.inside(name):
            return bridge.open_tap(port_id, known.mtu)

    def _metadata_socket(self, network_id: str) -> socket.socket:
        with namespace.inside(self._live_network(network_id)):
            return metadata.listen()

    # -- external networks -------------------------------------------------------------------------------------------

    def _externals(self) -> dict[str, Network]:
        paths = (self._directory / "external").glob("*.json")
        found = ((path.stem, self._read(path, Network)) for path in paths)
        return {network_id: network for network_id, network in found if network is not None}

    def _ensure_external(self, network: Network) -> None:
        others = self._externals()
        old = others.pop(network.id, None)
        # Recorded first: whatever happens next, it is known what may be on the bridge.
        self._write(self._directory / "external" / f"{network.id}.json", network)
        held = external.gateway_addresses(old) if old else set[str]()
        external.ensure(network, [*others.values()], held, self._bridge, self._prefix)
        if self._masquerade:
            external.ensure_masquerade([network, *others.values()], self._bridge, self._prefix)

    def _remove_external(self, network_id: str) -> None:
        known = self._externals()
        network = known.pop(network_id, None)
        if network is None:
            return
        external.remove(external.gateway_addresses(network), self._bridge, self._prefix, last=not known)
        if self._masquerade:
            external.ensure_masquerade([*known.values()], self._bridge, self._prefix)
        (self._directory / "external" / f"{network_id}.json").unlink(missing_ok=True)

    # -- routers -----------------------------------------------------------------------------------------------------

    def _footing(self, spec: Router) -> tuple[int | None, ...]:
        """The identities of all namespaces a router stands on: if one was made anew, so must its legs be."""
        inner = [self._network_name(leg.network_id) for leg in spec.interfaces]
        return tuple(namespace.identity(name) for name in (self._router_name(spec.id), *inner))

    def _ensure_router(self, spec: Router) -> None:
        known, footing = self._routers.get(spec.id, (None, ()))
        if known == spec and None not in footing and footing == self._footing(spec):
            return
        self._routers.pop(spec.id, None)
        directory = self._router_directory(spec.id)
        before = known or self._read(directory / "router.json", Router)
        names = {leg.network_id: self._live_network(leg.network_id) for leg in spec.interfaces}
        name = self._router_name(spec.id)
        namespace.ensure(name)
        router.ensure(spec, name, router.legs(spec, self._prefix, names), self._bridge)
        with namespace.inside(name):
            if before is not None:
                router.forget_lost(before, spec)
            dhcp.ensure_advertisements(self._announced(spec), directory, first=known is None)
        self._write(directory / "router.json", spec)
        self._routers[spec.id] = (spec, self._footing(spec))

    def _announced(self, spec: Router) -> list[tuple[str, int, Subnet]]:
        """The legs by which a router is the gateway of an IPv6 subnet whose guests learn so by advertisement."""
        found = []
        for leg in spec.interfaces if spec.admin_state_up else ():
            known = self._read(self._network_directory(leg.network_id) / "network.json", Network)
            own = {address.split("/")[0] for address in leg.addresses}
            for subnet in known.subnets if known else ():
                if subnet.ipv6_mode and subnet.gateway_ip in own:
                    found.append((nat.leg_device(leg.port_id), leg.mtu, subnet))
        return found

    def _remove_router(self, router_id: str) -> None:
        self._routers.pop(router_id, None)
        dhcp.remove(self._router_directory(router_id))
        self._empty(self._router_name(router_id))
        shutil.rmtree(self._router_directory(router_id), ignore_errors=True)

    # -- the whole host ----------------------------------------------------------------------------------------------

    def _ids(self, kind: str) -> list[str]:
        start = f"{self._prefix}-{kind}-"
        found = (name.removeprefix(start) for name in namespace.names(start))
        return [name for name in found if len(name) == UUID_LENGTH]  # else of a cloud whose prefix begins like ours

    def _observe(self) -> Observed:
        taps: set[str] = set()
        networks = self._ids("n")
        for network_id in networks:
            name = self._network_name(network_id)
            if namespace.identity(name) is not None:
                with namespace.inside(name):
                    taps.update(bridge.taps())
        held = {path.stem for path in (self._directory / "external").glob("*.json")}
        return Observed(frozenset(networks) | held, frozenset(self._ids("r")), frozenset(taps))

    def _remove_all(self) -> None:
        for router_id in self._ids("r"):
            self._remove_router(router_id)
        dhcp.end_all(self._directory)
        for network_id in self._ids("n"):
            self._remove_network(network_id)
        for network_id in self._externals():
            self._remove_external(network_id)
        if external.is_ours(self._bridge, self._prefix):
            bridge.remove_device(self._bridge)
        for kind in ("networks", "routers", "external"):
            shutil.rmtree(self._directory / kind, ignore_errors=True)


def _discard(discard: Callable[[T], object] | None, task: "asyncio.Task[T]") -> None:
    """Let go of the result of work whose caller has gone; its error, if any, is nobody's."""
    if not task.cancelled() and task.exception() is None and discard is not None:
        discard(task.result())
