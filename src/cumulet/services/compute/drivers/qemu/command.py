"""The QEMU command line of a server: a pure function of its spec, its files and its open descriptors."""

from collections.abc import Sequence
from pathlib import Path

from .. import Nic, ServerSpec

PROGRAM = "qemu-system-x86_64"
TRANSLATION_CACHE_MB = 64
"""TCG's cache. QEMU's own default grows to hundreds of MB per server and makes a guest's reset seconds slower."""


def command_line(
    spec: ServerSpec, folder: Path, short: Path, *, virt_type: str, qmp: int, taps: Sequence[int] | None
) -> list[str]:
    """Arguments of the process. `folder` holds the server's files; `short` is the same folder by a path that is short
    enough for unix sockets; `qmp` is a listening socket; `taps` match `spec.nics` (None: user-mode networking)."""
    return [
        PROGRAM,
        *("-name", f"guest={spec.id},debug-threads=on", "-uuid", spec.id, "-pidfile", str(pid_file(folder))),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", "pc,usb=off,vmport=off", *_accelerator(virt_type)),
        *("-smp", f"cpus={spec.vcpus},sockets={spec.vcpus},cores=1,threads=1", "-m", f"size={spec.memory_mb}M"),
        *("-rtc", "base=utc,driftfix=slew", "-msg", "timestamp=on"),
        # What unmodified cloud images look at to see that they run in an OpenStack cloud.
        *("-smbios", f"type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova,serial={spec.id},uuid={spec.id}"),
        *("-chardev", f"socket,id=qmp,fd={qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", _serial(folder / "console.log", short / "serial.sock"), "-device", "isa-serial,chardev=serial0"),
        *("-device", "VGA,vgamem_mb=8", "-vnc", f"unix:{_quote(short / 'vnc.sock')}"),
        *("-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0"),
        *("-device", "virtio-balloon-pci,free-page-reporting=on"),
        *_disk("root", folder / "disk.qcow2", "qcow2", bootindex=1),
        *(_disk("config", folder / "config.iso", "raw", readonly=True) if spec.config_drive is not None else ()),
        *(word for index, nic in enumerate(spec.nics) for word in _nic(nic, None if taps is None else taps[index])),
    ]  # fmt: skip


def pid_file(folder: Path) -> Path:
    """QEMU's own pid file. Its path among a process's arguments is also what tells that the process is this server's."""
    return folder / "qemu.pid"


def _accelerator(virt_type: str) -> tuple[str, ...]:
    if virt_type == "kvm":
        return "-accel", "kvm", "-cpu", "host,migratable=on"
    return "-accel", f"tcg,thread=multi,tb-size={TRANSLATION_CACHE_MB}", "-cpu", "max"


def _serial(log: Path, console: Path) -> str:
    """Output goes to the log, and to whoever is connected to the socket at that time."""
    return f"socket,id=serial0,path={_quote(console)},server=on,wait=off,logfile={_quote(log)},logappend=on"


def _disk(name: str, file: Path, form: str, *, readonly: bool = False, bootindex: int | None = None) -> tuple[str, ...]:
    flags = ",read-only=on" if readonly else ",discard=unmap"
    device = f"virtio-blk-pci,drive={name},id=disk-{name}"
    if bootindex is not None:
        device += f",bootindex={bootindex}"
    return (
        *("-blockdev", f"driver=file,node-name={name}-file,filename={_quote(file)}{flags}"),
        *("-blockdev", f"driver={form},node-name={name},file={name}-file{flags}"),
        *("-device", device),
    )


def nic_device(port_id: str) -> str:
    """The id of a card among the machine's devices."""
    return f"nic-{port_id}"


def nic_backend(port_id: str) -> str:
    """The id of what is behind a card: its tap."""
    return f"net-{port_id}"


def nic_arguments(nic: Nic) -> dict[str, str | int]:
    """The card itself, as `-device` and `device_add` take it."""
    return {
        "driver": "virtio-net-pci", "netdev": nic_backend(nic.port_id), "id": nic_device(nic.port_id), "mac": nic.mac,
        "host_mtu": nic.mtu, "romfile": "",
    }  # fmt: skip


def _nic(nic: Nic, tap: int | None) -> tuple[str, ...]:
    backend = f"id={nic_backend(nic.port_id)}"
    values = nic_arguments(nic)
    device = ",".join([str(values.pop("driver")), *(f"{name}={value}" for name, value in values.items())])
    return "-netdev", f"user,{backend}" if tap is None else f"tap,{backend},fd={tap}", "-device", device


def _quote(path: Path) -> str:
    """A path as a value in QEMU's comma-separated options."""
    return str(path).replace(",", ",,")
