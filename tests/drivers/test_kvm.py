"""The choice between KVM and TCG: measured, and never longer than its limit."""

import asyncio
import os
from pathlib import Path

import pytest

from cumulet.services.compute.drivers import kvm
from cumulet.services.compute.drivers.qemu import virtualization


async def test_override() -> None:
    assert (await kvm.choose("kvm")).virt_type == "kvm"
    assert (await kvm.choose("tcg")).virt_type == "qemu"
    with pytest.raises(ValueError, match="auto, kvm or tcg"):
        await kvm.choose("fast")


async def test_no_device(tmp_path: Path) -> None:
    probe = await kvm.choose(device=str(tmp_path / "kvm"))
    assert probe.virt_type == "qemu" and "has no" in probe.reason


async def test_a_device_that_is_not_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "LIMIT_SECONDS", 60.0)  # what is asked is what the kernel says, not how soon
    (tmp_path / "kvm").touch()
    probe = await kvm.choose(device=str(tmp_path / "kvm"))
    assert probe.virt_type == "qemu" and "cannot be used (" in probe.reason


async def test_a_device_that_hangs_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "__file__", str(tmp_path / "hangs.py"))
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(60)\n")
    async with asyncio.timeout(kvm.LIMIT_SECONDS + 30):
        probe = await kvm.choose(device=os.devnull)
    assert probe.virt_type == "qemu" and "within 1 s" in probe.reason


def test_the_verdict() -> None:
    assert kvm.judge(0, "0.0004\n", "") == ("kvm", "KVM is there and fast (60000 loops in 0.40 ms).", 0.0004)
    assert kvm.judge(0, "0.055", "").virt_type == "qemu"
    assert "permission denied" in kvm.judge(1, "", "Traceback\nOSError: permission denied\n").reason


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no usable /dev/kvm here")
async def test_this_host() -> None:
    """Whatever the verdict here is, it agrees with the measurement."""
    probe = await kvm.choose()
    assert probe.reason.endswith(".")
    if probe.seconds is not None:
        assert (probe.virt_type == "kvm") == (probe.seconds <= kvm.FAST_SECONDS)


async def test_a_clear_measurement_is_kept_until_the_device_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, memory = tmp_path / "kvm", tmp_path / "driver" / "kvm.json"
    device.touch()
    seconds = [0.02, 0.2, 0.0004, 0.3, 0.3]  # the first is neither fast nor clearly slow
    measured: list[str] = []

    async def measure(override: str, *, device: str) -> kvm.Probe:
        measured.append(override)
        return kvm.judge(0, str(seconds[len(measured) - 1]), "")

    monkeypatch.setattr(virtualization, "measure", measure)

    async def choose(override: str = "auto") -> kvm.Probe:
        return await virtualization.choose(override, memory, device=str(device))

    assert (await choose()).seconds == 0.02
    assert [(await choose()).seconds for _ in range(3)] == [0.2] * 3
    assert measured == ["auto"] * 2
    device.unlink()
    device.touch()
    os.utime(device)
    assert (await choose()).virt_type == "kvm"
    memory.write_text("{")
    assert (await choose()).seconds == 0.3
    await choose("tcg")
    assert measured == ["auto"] * 4 + ["tcg"]
