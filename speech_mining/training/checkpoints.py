"""Checkpoints of a training: whole or not there, and never a pickle.

What belongs here is files: `weights.safetensors`, `optimiser.safetensors` and `state.json` in one folder that appears
under its name only when all three are on the disk. What they mean is `speech_mining.training.trainer`'s.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speech_mining.atomic import sync
from speech_mining.object_store import digest

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, OPTIMISER, STATE = "weights.safetensors", "optimiser.safetensors", "state.json"
_PREFIX = "checkpoint-"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is known after an update."""

    update: int
    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and delete the ones before it; a kill at any moment leaves one of them whole."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder, prefix=".part-"))
    try:
        for name, tensors in ((WEIGHTS, checkpoint.weights), (OPTIMISER, checkpoint.optimiser)):
            save_file({one: tensor.detach().cpu().contiguous() for one, tensor in sorted(tensors.items())}, part / name)
        digests = {name: digest(part / name) for name in (WEIGHTS, OPTIMISER)}
        told = {"update": checkpoint.update, "state": dict(checkpoint.state), "sha256": digests}
        (part / STATE).write_text(json.dumps(told, sort_keys=True), "utf-8")
        for name in (WEIGHTS, OPTIMISER, STATE, "."):
            sync(part / name)
        whole = folder / f"{_PREFIX}{checkpoint.update:08d}"
        shutil.rmtree(whole, ignore_errors=True)
        part.rename(whole)
        sync(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    _delete_but(folder, whole)
    return whole


def last_checkpoint(folder: Path, tell: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is as it was written; damaged ones are told and passed over."""
    for place in sorted(folder.glob(f"{_PREFIX}*"), reverse=True):
        try:
            return _read(place)
        except _DamagedError as error:
            tell(f"The checkpoint {place.name} is damaged and was passed over: {error}.")
    return None


class _DamagedError(Exception):
    """A checkpoint that is not as it was written."""


def _read(place: Path) -> Checkpoint:
    from safetensors.torch import load_file

    try:
        told = json.loads((place / STATE).read_text("utf-8"))
        for name, written in told["sha256"].items():
            if digest(place / name) != written:
                raise _DamagedError(f"{name} is not what was written")
        return Checkpoint(told["update"], load_file(place / WEIGHTS), load_file(place / OPTIMISER), told["state"])
    except (OSError, ValueError, KeyError) as error:
        raise _DamagedError(str(error)) from error


def _delete_but(folder: Path, kept: Path) -> None:
    for other in (*folder.glob(f"{_PREFIX}*"), *folder.glob(".part-*")):
        if other != kept:
            shutil.rmtree(other, ignore_errors=True)
