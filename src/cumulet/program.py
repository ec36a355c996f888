"""The composition root: the only file that knows every service and every driver, and wires them.

`run` is `cumulet up` after the start-up checks: start, serve until told to stop, stop in order.
"""

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy.exc import ArgumentError, DBAPIError

import cumulet
from cumulet import credentials, ports, preflight, status
from cumulet.api.app import App
from cumulet.api.policy import Policy
from cumulet.api.policy_file import PolicyFileError, policies, read
from cumulet.api.server import Handler, Server, bind, is_taken
from cumulet.api.service import Service
from cumulet.audit import AuditLog
from cumulet.config import TERMINAL, Settings, SettingsError
from cumulet.core import flag
from cumulet.core.bus.local import LocalBus
from cumulet.core.db import Database
from cumulet.core.db.migrate import SchemaError
from cumulet.core.kernel import Kernel
from cumulet.core.operations import Operations
from cumulet.core.tasks import Tasks
from cumulet.files import write_atomic
from cumulet.logs import configure_logging
from cumulet.services.compute.declaration import SERVICE as COMPUTE
from cumulet.services.compute.drivers import Hypervisor, HypervisorError
from cumulet.services.compute.runtime import ComputeRuntime
from cumulet.services.identity.declaration import SERVICE as IDENTITY
from cumulet.services.identity.interface import Accounts, Bootstrap, CatalogEntry
from cumulet.services.identity.runtime import IdentityRuntime
from cumulet.services.image.declaration import REGISTRY as IMAGE_REGISTRY
from cumulet.services.image.declaration import SERVICE as IMAGE
from cumulet.services.image.runtime import ImageRuntime
from cumulet.services.network.declaration import SERVICE as NETWORK
from cumulet.services.network.drivers import Dataplane, DataplaneError
from cumulet.services.network.runtime import NetworkRuntime
from cumulet.services.object_store.declaration import SERVICE as OBJECT_STORE
from cumulet.services.object_store.ring.data import RingError
from cumulet.services.object_store.runtime import ObjectStoreRuntime
from cumulet.services.placement.declaration import SERVICE as PLACEMENT
from cumulet.services.placement.runtime import PlacementRuntime

log = logging.getLogger("cumulet.program")

SERVICES: tuple[Service, ...] = (IDENTITY, IMAGE, IMAGE_REGISTRY, PLACEMENT, NETWORK, COMPUTE, OBJECT_STORE)
NAMES = {service.type: service.upstream for service in SERVICES}
FREE_NAMES = {port: service.free_names for service in SERVICES for port in service.ports}

FURNISHED = "furnished"
"""The flag of a cloud that has had all that a new one is given."""


class StartError(Exception):
    """The program cannot start; the text says why and what to do."""


class Secrets(Struct):
    """What the first start makes up and every later one needs: the cloud's own short name and the first passwords."""

    cloud: str
    admin_password: str
    demo_password: str


class Program:
    """One running cloud."""

    def __init__(self, settings: Settings, plan: preflight.Plan) -> None:
        self.settings = settings
        self.plan = plan
        self.policies = _policies(settings)
        self.secrets = _secrets(settings)
        self.server = Server()
        self.tasks = Tasks()
        self.kernel = _kernel(settings, self.tasks)
        self.dataplane = _dataplane(self.settings, plan, self.secrets.cloud)
        self.hypervisor = _hypervisor(self.settings, plan, self.dataplane)
        self.identity = IdentityRuntime(self.kernel)
        self.object_store = ObjectStoreRuntime(self.kernel, self.identity)
        self.image = ImageRuntime(
            self.kernel, self.identity, frozenset(self.policies["image"].texts), self.object_store
        )
        self.placement = PlacementRuntime(self.kernel)
        self.network = NetworkRuntime(self.kernel, self.dataplane, self.server)
        self.compute = ComputeRuntime(
            self.kernel,
            self.hypervisor,
            images=self.image,
            network=self.network,
            placement=self.placement,
            console_url=_url(settings, "novnc"),
        )
        self.network.metadata = self.compute.answer_metadata
        self.accounts: Accounts | None = None
        self._began = AsyncExitStack()

    async def start(self) -> None:
        """Listen, bring everything up and answer. What began is let go again if this raises (StartError), or is cancelled."""
        async with AsyncExitStack() as began:
            sockets = _bind_all(self.settings)
            for sock in sockets.values():
                began.callback(sock.close)
            began.push_async_callback(self.kernel.db.stop)
            await self._open_database()
            if self.settings.audit_log is not None:
                began.callback(AuditLog(self.settings.audit_log.absolute(), self.kernel.bus).stop)
            began.push_async_callback(self.kernel.bus.stop)
            await self.kernel.bus.start()
            began.push_async_callback(self.tasks.stop)
            self.accounts = await self.identity.ensure_bootstrap(self._bootstrap())
            self._write_credentials()
            for service in (self.identity, self.object_store, self.image, self.placement, self.network, self.compute):
                began.push_async_callback(service.stop)
                await service.start()
            await self._first_start(self.accounts)
            began.push_async_callback(self._stop_servers)
            began.push_async_callback(self.kernel.operations.stop)
            await self.kernel.operations.start()
            handlers = self._handlers()
            self.compute.apis = handlers  # compute's API of old passes some calls on to the others
            began.push_async_callback(self.server.stop)
            for name, handler in handlers.items():
                await self.server.listen(handler, sockets[name], FREE_NAMES.get(name, ()))
            self._began = began.pop_all()

    async def _open_database(self) -> None:
        try:
            await self.kernel.db.start()
        except SchemaError as error:
            raise StartError(str(error)) from error
        except DBAPIError as error:
            url = self.kernel.db.url.render_as_string(hide_password=True)
            raise StartError(f"cannot use the database {url}: {error.orig}") from error

    async def stop(self) -> None:
        """Stop answering, end what is under way where it can be taken up again, let go of the host."""
        await self._began.aclose()

    async def _stop_servers(self) -> None:
        if self.settings.stop_servers:
            await self.compute.stop_all_servers()

    def _handlers(self) -> dict[str, Handler]:
        """Who answers on each served port of the registry."""
        runtimes: dict[str, Any] = {
            "identity": self.identity,
            "image": self.image,
            "image-registry": self.image,
            "placement": self.placement,
            "network": self.network,
            "compute": self.compute,
            "object-store": self.object_store,
        }
        handlers: dict[str, Handler] = {"novnc": self.compute.answer_console}
        for service in SERVICES:
            runtime = runtimes[service.type]
            app = App(service, runtime, self.identity.authenticate, self.policies[service.type])
            handlers.update(dict.fromkeys(service.ports, runtime.answer if service.whole else app))
        handlers.update((name, face.answer) for name, face in self.object_store.host.faces.items())
        return handlers

    def _bootstrap(self) -> Bootstrap:
        return Bootstrap(
            region=self.settings.region,
            admin_password=self.secrets.admin_password,
            demo_password=self.secrets.demo_password,
            endpoints=[
                CatalogEntry(
                    row.service_type, NAMES[row.service_type], interface, _url(self.settings, row.name) + row.path
                )
                for row, interface in _catalogue()
            ],
        )

    def _write_credentials(self) -> None:
        credentials.write(
            self.settings.data,
            auth_url=_url(self.settings, "identity") + "/v3",
            region=self.settings.region,
            admin_password=self.secrets.admin_password,
            demo_password=self.secrets.demo_password,
        )

    async def _first_start(self, accounts: Accounts) -> None:
        """What a new cloud has beside its accounts: flavors, the external network, the guest image.

        One that was cut off is begun again, step by step; once all is there it is the admin's to change and to delete.
        """
        if await self.kernel.db.read(flag.is_set, FURNISHED):
            return
        await self.compute.ensure_flavors()
        await self.network.ensure_public(accounts.admin_project_id, self.settings.public_cidr)
        image = self.settings.find_guest_image()
        if image is not None:
            await self.image.ensure_guest_image(accounts.admin_project_id, image)
        await self.kernel.db.run(flag.put, FURNISHED)

    async def status(self, started: float, ready: float) -> status.Status:
        host = await self.hypervisor.host_info()
        return status.Status(
            started=started,
            ready_seconds=ready,
            version=cumulet.__version__,
            region=self.settings.region,
            urls={name: _url(self.settings, name) for name in self._handlers()},
            hypervisor=self.plan.hypervisor,
            virt_type=host.virt_type,
            virt_reason=host.reason,
            network=self.plan.network,
            database=self.kernel.db.url.get_backend_name(),
            log=TERMINAL if self.settings.log_file == TERMINAL else str(self.settings.log_path),
            fallbacks=self.plan.fallbacks,
        )


async def run(settings: Settings, *, plan: preflight.Plan, announce: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    os.umask(0o077)  # whatever this process and its children write is their owner's alone
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _told_to_stop, stopped, announce)
    try:
        configure_logging(settings)
        program = Program(settings, plan)
        if not await _finished(program.start(), stopped):
            announce("stopped before it was ready")
            return 1
    except StartError as error:
        announce(f"cannot start: {error}")
        return 1
    except Exception as error:
        log.info("the start failed", exc_info=error)
        announce(f"cannot start: {_explain(settings, error)}")
        return 1
    ready = status.seconds_since_start()
    status.announce_ready(settings.data, await program.status(time.time(), ready), announce)
    await stopped.wait()
    announce("stopping, and shutting servers down" if settings.stop_servers else "stopping; servers keep running")
    await program.stop()
    status.remove(settings.data)
    return 0


def _told_to_stop(stopped: asyncio.Event, announce: Callable[[str], None]) -> None:
    """Stop in order; told again, end at once: nothing is lost by that, the next start takes up what was under way."""
    if stopped.is_set():
        announce("ended at once; the next start takes up what was under way")
        os._exit(130)
    stopped.set()


async def _finished(work: Coroutine[Any, Any, None], stopped: asyncio.Event) -> bool:
    """Run `work` to its end; False, and cancelled in order, if the program is told to stop before."""
    task, wait = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    await asyncio.wait((task, wait), return_when=asyncio.FIRST_COMPLETED)
    wait.cancel()
    if not task.done():
        task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


def _explain(settings: Settings, error: Exception) -> str:
    """What went wrong at the start, in a sentence, and where to look."""
    if isinstance(error, DBAPIError):
        return f"the database failed: {error.orig}"
    words = str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or words}{f': {error.filename}' if error.filename else ''}"
    if isinstance(error, (SettingsError, DataplaneError, HypervisorError, RingError)):
        return words
    more = "" if settings.log_file == TERMINAL else f"; {settings.log_path} says more"
    return f"{type(error).__name__}: {words}{more}"


async def reset(settings: Settings) -> None:
    """Remove every trace of this cloud from the host: servers, networks, and the state under the data directory."""
    plan = preflight.choose(settings)
    made_up = _secrets(settings)
    dataplane = _dataplane(settings, plan, made_up.cloud)
    hypervisor = _hypervisor(settings, plan, dataplane)
    await hypervisor.start()
    for server_id in await hypervisor.observe():
        await hypervisor.remove_server(server_id)
    await hypervisor.stop()
    await dataplane.start()
    await dataplane.remove_all()


def _kernel(settings: Settings, tasks: Tasks) -> Kernel:
    try:
        db = Database(settings.database_url)
    except ArgumentError as error:
        raise StartError(
            "the setting `database` is no SQLAlchemy URL; sqlite:////var/lib/cloud.sqlite is one"
        ) from error
    except ModuleNotFoundError as error:
        raise StartError(f"the database's driver is not installed: pip install {error.name}") from error
    operations = Operations(db, settings.hostname, workers=settings.operation_workers)
    return Kernel(settings, db, operations, LocalBus(), tasks)


def _dataplane(settings: Settings, plan: preflight.Plan, cloud: str) -> Dataplane:
    if plan.network == "simulated":
        from cumulet.services.network.drivers.simulated import SimulatedDataplane

        return SimulatedDataplane()
    from cumulet.services.network.drivers.linux import LinuxDataplane

    return LinuxDataplane(settings.data / "network", prefix=cloud, external_bridge=settings.public_bridge)


def _hypervisor(settings: Settings, plan: preflight.Plan, dataplane: Dataplane) -> Hypervisor:
    if plan.hypervisor == "simulated":
        from cumulet.services.compute.drivers.simulated import SimulatedHypervisor

        return SimulatedHypervisor(settings.data / "compute", hostname=settings.hostname)
    from cumulet.services.compute.drivers.qemu import QemuHypervisor

    taps = None if plan.network == "simulated" else dataplane
    return QemuHypervisor(settings.data / "compute", taps, virt_type=settings.virt_type, hostname=settings.hostname)


def _url(settings: Settings, name: str) -> str:
    """The root URL of a port of the registry, as clients reach it."""
    row = ports.port(name, settings.port_offset)
    return ports.root_url(settings.endpoint_address if row.address == "bind" else settings.object_bind, row)


def _catalogue() -> list[tuple[ports.Port, str]]:
    """The endpoints that clients find: every API that is served, under each interface (identity's admin one has a port of
    its own)."""
    entries = []
    for service in SERVICES:
        if not service.listed:
            continue
        admin = ports.port(service.ports[-1])
        entries += [(ports.port(service.ports[0]), interface) for interface in ("public", "internal")]
        entries.append((admin, "admin"))
    return entries


def _policies(settings: Settings) -> dict[str, Policy]:
    """Each service's policy, with what the operator's file overrides."""
    file = settings.find_policy_file()
    try:
        return policies(SERVICES) if file is None else policies(SERVICES, read(file))
    except PolicyFileError as error:
        raise StartError(str(error)) from error


def _secrets(settings: Settings) -> Secrets:
    """The cloud's secrets, made and stored before anything uses them."""
    path: Path = settings.data / "secrets.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Secrets)
    except msgspec.DecodeError as error:
        raise StartError(
            f"{path} is damaged ({error}); put a copy of it back, or remove the cloud's data directory"
        ) from error
    except FileNotFoundError:
        made = Secrets(
            f"cu{secrets.token_hex(3)}", settings.admin_password or secrets.token_urlsafe(12), secrets.token_urlsafe(12)
        )
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, msgspec.json.encode(made), mode=0o600)
        return made


def _bind_all(settings: Settings) -> dict[str, socket.socket]:
    """A listening socket for each served port, or none at all."""
    bound: dict[str, socket.socket] = {}
    for row in ports.served(settings.port_offset):
        address: str = getattr(settings, row.address)
        try:
            bound[row.name] = bind(address, row.number)
        except OSError as error:
            for sock in bound.values():
                sock.close()
            if is_taken(error):
                raise StartError(preflight.explain_port_taken(address, row)) from error
            raise StartError(f"cannot listen on {address} port {row.number}: {error.strerror}") from error
    return bound
