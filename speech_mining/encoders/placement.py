"""Which device a model is put on: one, and the same for every encoder of a process.

What belongs here is the choice. `auto` is, in this order: what `S2S_DEVICE` names; the CPU where CUDA shows no device;
the only one that it shows (`CUDA_VISIBLE_DEVICES` narrows them); of several the one with the most free memory. The
free memory is the driver's word, through `nvidia-smi`: CUDA itself would tell it only after making a context, hundreds
of MB, on each device asked. The choice is made once in a process, so that a speech and a text encoder share a device.

Two processes that start at the same moment may choose the same device: give each its own in `CUDA_VISIBLE_DEVICES`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from speech_mining.errors import EncoderError

Precision: TypeAlias = Literal["auto", "float16", "float32"]
_ASK = ("nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits")
_ASK_TIMEOUT_S = 20
_MIB = 1 << 20


@dataclass(frozen=True)
class Choice:
    """The device that `auto` means here."""

    device: str
    why: str


def placement(device: str, dtype: Precision) -> tuple[Any, Any]:
    """The torch device and dtype meant by a setting; float16 on CUDA and float32 on the CPU unless one is named.

    Raises:
        EncoderError: float16 on the CPU, or a device that does not exist here.
    """
    import torch

    placed = _existing(chosen_device().device if device == "auto" else device)
    if placed.type == "cpu" and dtype == "float16":
        raise EncoderError("An encoder in float16 on the CPU.", expected="float32 there", fix='set dtype to "auto"')
    half = dtype == "float16" or (dtype == "auto" and placed.type == "cuda")
    return placed, torch.float16 if half else torch.float32


@lru_cache(maxsize=1)
def chosen_device() -> Choice:
    """What `auto` means in this process; chosen at the first call."""
    import torch

    named = os.environ.get("S2S_DEVICE", "")
    if named and named != "auto":
        return Choice(named, "S2S_DEVICE names it")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        return Choice("cpu", "CUDA shows no device")
    if count == 1:
        return Choice("cuda:0", "the only device that CUDA shows")
    told = free_memory()
    return choose([(index, told.get(_uuid(index))) for index in range(count)])


def choose(devices: Sequence[tuple[int, int | None]]) -> Choice:
    """The device with the most free memory, the first of equals; the first where not all tell theirs.

    Args:
        devices: index as CUDA counts them, and free bytes; None: not known.

    Raises:
        EncoderError: there is none.
    """
    if not devices:
        raise EncoderError("There is no CUDA device to choose from.", fix="set S2S_DEVICE=cpu")
    known = [(free, -index) for index, free in devices if free is not None]
    if len(known) < len(devices):
        first = min(index for index, _ in devices)
        return Choice(f"cuda:{first}", f"the first of {len(devices)}, whose free memory nvidia-smi does not tell")
    free, negative = max(known)
    return Choice(f"cuda:{-negative}", f"the most free memory of {len(devices)} devices, {free / 2**30:.1f} GiB")


def free_memory() -> dict[str, int]:
    """Free bytes of every GPU by its UUID, as nvidia-smi tells them; empty where it cannot be asked."""
    try:
        asked = subprocess.run(_ASK, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return read_free_memory(asked.stdout.splitlines())


def read_free_memory(lines: Iterable[str]) -> dict[str, int]:
    """Bytes by UUID from lines of `GPU-<uuid>, <MiB>`; a line of another kind (`[N/A]`) is left out."""
    told: dict[str, int] = {}
    for line in lines:
        uuid, _, mebibytes = (part.strip() for part in line.partition(","))
        if mebibytes.isdigit():
            told[uuid.removeprefix("GPU-")] = int(mebibytes) * _MIB
    return told


def visible_in(environment: Mapping[str, str]) -> str:
    """How the environment narrows the devices, for people."""
    narrowed = environment.get("CUDA_VISIBLE_DEVICES")
    return "all devices are visible" if narrowed is None else f"CUDA_VISIBLE_DEVICES={narrowed}"


def _uuid(index: int) -> str:
    import torch

    return str(getattr(torch.cuda.get_device_properties(index), "uuid", "")).removeprefix("GPU-")


def _existing(device: str) -> Any:
    import torch

    try:
        placed = torch.device(device)
    except RuntimeError as error:
        raise EncoderError(
            f"The device {device!r}.", expected="auto, cpu, cuda or cuda:<number>", fix="correct S2S_DEVICE"
        ) from error
    count = torch.cuda.device_count() if placed.type == "cuda" and torch.cuda.is_available() else 0
    if placed.type == "cuda" and (placed.index or 0) >= count:
        raise EncoderError(
            f"The device {device!r} is asked for, and CUDA shows {count} here.",
            expected="auto, cpu, or a device that `s2s doctor` lists",
            cause="no driver, PyTorch built for the CPU, or CUDA_VISIBLE_DEVICES hides it: it counts from 0 again",
            fix="set S2S_DEVICE=auto",
        )
    return placed
