"""Network cards of a running machine: plugged in and taken out over QMP.

Each is made of steps that a crash may part: what is left of an earlier attempt is removed before anything is added.
"""

import asyncio
import contextlib
import os

from .. import HypervisorError, Nic, Taps
from .command import nic_arguments, nic_backend, nic_device
from .machine import Machine, Refused

UNPLUG_SECONDS = 30.0
"""How long a guest gets to let go of a card."""
ASK_SECONDS = 3.0
"""How often it is asked again: a guest that is still booting has not heard it."""


async def plug(machine: Machine, nic: Nic, taps: Taps | None) -> None:
    """Give the machine a card, if it does not have it."""
    if nic_device(nic.port_id) in await machine.devices():
        return
    await _remove_backend(machine, nic.port_id)
    await _add_backend(machine, nic, taps)
    try:
        await machine.execute("device_add", dict(nic_arguments(nic)))
    except HypervisorError:
        with contextlib.suppress(HypervisorError):  # the first error is the one to tell
            await _remove_backend(machine, nic.port_id)
        raise


async def unplug(machine: Machine, port_id: str) -> None:
    """Take a card from the machine, if it has it. HypervisorError if the guest does not let go of it."""
    device, clock = nic_device(port_id), asyncio.get_running_loop().time
    deadline = clock() + UNPLUG_SECONDS
    there = device in await machine.devices()
    while there:
        if clock() > deadline:
            raise HypervisorError(f"the guest did not let go of the network card within {UNPLUG_SECONDS:g} s")
        with machine.hear("DEVICE_DELETED") as deleted:
            with contextlib.suppress(Refused):  # it is being unplugged already, or is gone
                await machine.execute("device_del", {"id": device})
            await deleted(ASK_SECONDS)
        there = device in await machine.devices()
    await _remove_backend(machine, port_id)


async def _add_backend(machine: Machine, nic: Nic, taps: Taps | None) -> None:
    backend = nic_backend(nic.port_id)
    if taps is None:
        await machine.execute("netdev_add", {"type": "user", "id": backend})
        return
    tap = await taps.open_tap(nic.network_id, nic.port_id, nic.mac)
    try:
        await machine.send_descriptor(backend, tap)
    finally:
        os.close(tap)  # QEMU's own copy keeps the device
    await machine.execute("netdev_add", {"type": "tap", "id": backend, "fd": backend})


async def _remove_backend(machine: Machine, port_id: str) -> None:
    backend = nic_backend(port_id)
    with contextlib.suppress(Refused):  # there is none
        await machine.execute("netdev_del", {"id": backend})
    with contextlib.suppress(Refused):  # as a rule: only a crash between its way and its use leaves one
        await machine.execute("closefd", {"fdname": backend})
