"""Devices: steps that run at once on one machine take different GPUs, and never two the same.

Each visible device has a lock file; a step holds one while it runs and sees no other device. The kernel gives the lock
back when its holder dies, however it dies. What is visible is what `CUDA_VISIBLE_DEVICES` and, in a container, the
device plugin leave. A pod was given its GPU by the cluster, and takes no lock.

What belongs here is who may use which device. How many steps run at once is the pool `gpu`; which device of those it
sees an encoder takes is `speech_mining.encoders.placement`.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.settings import Settings
from speech_mining.encoders.placement import free_memory
from speech_mining.errors import SettingsError

VISIBLE = "CUDA_VISIBLE_DEVICES"
_LIST = ("nvidia-smi", "-L")
_LIST_TIMEOUT_S = 20
_LOOK_AGAIN_S = 0.25
_GPU = re.compile(r"GPU (\d+): (.+) \(UUID: (GPU-[0-9a-f-]+)\)")
_MIG = re.compile(r"\s+(MIG .+?)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True)
class Device:
    """A GPU, or a slice of one (MIG), that this process may use."""

    place: int
    """Among those that are visible, from 0."""
    token: str
    """What CUDA_VISIBLE_DEVICES calls it: its UUID, or its number."""
    name: str

    @property
    def told(self) -> str:
        """In words, for people."""
        return f"{self.name} ({self.token})"


@dataclass(frozen=True)
class Holder:
    """Who holds a device."""

    pid: int
    node: str
    run_id: str
    step: str
    since: float
    """Seconds since 1970."""

    @property
    def told(self) -> str:
        """In words, for people."""
        return f"process {self.pid} on {self.node}, run {self.run_id or '(none)'}, step {self.step or '(none)'}"


@dataclass(frozen=True)
class Held:
    """What a step was given."""

    device: str
    """For encoders: 'auto', 'cpu', 'cuda:0'."""
    told: str
    """Which device it is, for metadata."""


# What is visible


def visible_devices(environment: Mapping[str, str] | None = None) -> tuple[Device, ...]:
    """The devices that this process may use, in CUDA's order; neither CUDA nor torch is begun for it.

    Args:
        environment: of the process; None reads it.
    """
    given = os.environ if environment is None else environment
    return narrowed(listed_devices(), given.get(VISIBLE))


def listed_devices() -> tuple[Device, ...]:
    """The devices of the machine or container as its driver lists them; none where there is no driver."""
    try:
        asked = subprocess.run(_LIST, capture_output=True, text=True, timeout=_LIST_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return _device_files()
    return read_devices(asked.stdout.splitlines())


def read_devices(lines: Sequence[str]) -> tuple[Device, ...]:
    """Devices from the lines of `nvidia-smi -L`; a GPU that is cut into slices (MIG) stands for its slices."""
    found: list[tuple[str, str]] = []
    whole: tuple[str, str] | None = None
    for line in lines:
        if gpu := _GPU.match(line):
            whole = (gpu[3], gpu[2])
            found.append(whole)
        elif slice_ := _MIG.match(line):
            if found and found[-1] == whole:
                found.pop()
            found.append((slice_[2], f"{whole[1] if whole else 'GPU'} {slice_[1]}"))
    return tuple(Device(place, token, name) for place, (token, name) in enumerate(found))


def narrowed(devices: Sequence[Device], visible: str | None) -> tuple[Device, ...]:
    """What is left of the machine's devices when CUDA_VISIBLE_DEVICES says so.

    CUDA takes numbers and beginnings of UUIDs, and stops at the first that it does not know.

    Args:
        devices: of the machine.
        visible: the variable; None: it is not set.
    """
    if visible is None:
        return tuple(devices)
    left: list[Device] = []
    for token in (part.strip() for part in visible.split(",")):
        named = _named(devices, token)
        if named is None or any(named.token == before.token for before in left):
            break
        left.append(Device(len(left), named.token, named.name))
    return tuple(left)


def _named(devices: Sequence[Device], token: str) -> Device | None:
    if token.isdigit():
        return devices[int(token)] if int(token) < len(devices) else None
    fitting = [device for device in devices if token and device.token.startswith(token)]
    return fitting[0] if len(fitting) == 1 else None


def _device_files() -> tuple[Device, ...]:
    """Numbered by the driver's files, where a container has the driver and not its `nvidia-smi`."""
    numbers = sorted(int(path.name[6:]) for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit())
    return tuple(Device(place, str(place), f"GPU {number}") for place, number in enumerate(numbers))


# Holding one


def lock_folder(settings: Settings) -> Path:
    """Where the lock files are."""
    return settings.devices.locks or settings.home.absolute() / "scratch" / "devices"


@contextmanager
def held_device(context: Any, settings: Settings) -> Iterator[Held]:
    """Hold a device for a step, and let this process see only that one; without a GPU nothing is held.

    Args:
        context: of an asset or an op.
        settings: whose `device` may name one.

    Raises:
        SettingsError: every device is held by others for longer than `devices.wait_s`.
    """
    wanted = _seen_already(_wanted(visible_devices(), settings.device))
    if not wanted:
        yield Held(settings.device, "no GPU" if settings.device != "cpu" else "the CPU was asked for")
        return
    if settings.execution == "k8s":  # the device plugin gave this pod its own, and a shared volume may know no locks
        yield Held(settings.device, wanted[0].told)
        return
    holder = Holder(os.getpid(), platform.node(), context.run.run_id, _step_of(context), time.time())
    with hold_one(wanted, lock_folder(settings), holder, wait_s=settings.devices.wait_s) as device:
        context.log.info(f"holds {device.told}")
        with only_visible(device, settings.device) as name:
            yield Held(name, device.told)


def _step_of(context: Any) -> str:
    return str(getattr(context, "op_execution_context", context).get_step_execution_context().step.key)


def _wanted(devices: Sequence[Device], setting: str) -> list[Device]:
    """The devices that a setting allows, the ones with the most free memory first."""
    kind, _, number = setting.partition(":")
    if kind == "cpu":
        return []
    if number:
        return [device for device in devices if str(device.place) == number]
    free = free_memory() if len(devices) > 1 else {}
    return sorted(devices, key=lambda device: (-free.get(device.token.removeprefix("GPU-"), 0), device.place))


def _seen_already(devices: list[Device]) -> list[Device]:
    """Where CUDA has begun in this process, those that it sees: it will see no other any more."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return devices
    seen = _uuids()
    return [device for device in devices if device.token.removeprefix("GPU-") in seen] or devices


@contextmanager
def hold_one(
    devices: Sequence[Device],
    folder: Path,
    holder: Holder,
    *,
    wait_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Device]:
    """Hold the first device that nobody holds.

    Args:
        devices: in the order of preference.
        folder: of the lock files, one folder for all who share the devices.
        holder: who takes it, for those who look.
        wait_s: how long to wait for one.
        sleep: waits so many seconds.

    Raises:
        SettingsError: all of them are held for all that time; it names the holders.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waited_s = 0.0
    while (taken := _take_one(devices, folder)) is None:
        if waited_s >= wait_s:
            raise _none_free(devices, folder, wait_s)
        sleep(_LOOK_AGAIN_S)
        waited_s += _LOOK_AGAIN_S
    device, handle = taken
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder.__dict__).encode(), 0)
        yield device
    finally:
        os.ftruncate(handle, 0)
        os.close(handle)


def holder_of(device: Device, folder: Path) -> Holder | None:
    """Who holds a device; None: nobody. What a dead holder wrote counts for nothing."""
    file = _lock_file(device, folder)
    if not file.exists():
        return None
    handle = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        told = file.read_text("utf-8")
        return Holder(**json.loads(told)) if told else Holder(0, "(not told yet)", "", "", 0.0)
    finally:
        os.close(handle)
    return None


def _take_one(devices: Sequence[Device], folder: Path) -> tuple[Device, int] | None:
    for device in devices:
        handle = os.open(_lock_file(device, folder), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return device, handle
        except BlockingIOError:
            os.close(handle)
    return None


def _lock_file(device: Device, folder: Path) -> Path:
    """With the machine's name: a number, unlike a UUID, means another device on another machine."""
    return folder / f"{platform.node()}-{device.token.replace('/', '_')}.lock"


def _none_free(devices: Sequence[Device], folder: Path, wait_s: float) -> SettingsError:
    held = [f"{device.told} by {holder.told}" for device in devices if (holder := holder_of(device, folder))]
    return SettingsError(
        f"No device was free within {wait_s:g} s: {'; '.join(held) or 'the last was given back a moment ago'}.",
        expected=f"at most {len(devices)} steps of pool gpu at once on this machine",
        cause="the pool gpu has more slots than there are devices, or another instance uses them",
        fix=f"set pools.gpu to {len(devices)} and run `s2s pools --apply`, or raise devices.wait_s",
    )


# What the process sees


@contextmanager
def only_visible(device: Device, setting: str) -> Iterator[str]:
    """Let CUDA see one device; yields what an encoder calls it then.

    CUDA reads the variable when it is first used in a process. Where a library that may have done so is loaded
    already, as when steps run in one process, the device is named by its number instead.
    """
    if {"torch", "faiss"} & set(sys.modules):
        yield _made_current(device)
        return
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = device.token
    try:
        yield "auto" if setting == "auto" else "cuda:0"
    finally:
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before


def _made_current(device: Device) -> str:
    """The device's name in this process, made the one that is taken where none is named; 'auto' where CUDA is not."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return "auto"
    uuids, bare = _uuids(), device.token.removeprefix("GPU-")
    index = uuids.index(bare) if bare in uuids else min(device.place, count - 1)
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def _uuids() -> list[str]:
    """Of the devices that this process sees, in CUDA's order."""
    import torch

    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [str(getattr(device, "uuid", "")).removeprefix("GPU-") for device in properties]
