"""Queues of work on a device, and the way of rows to it.

On a GPU a lane is a CUDA stream: what is asked of it runs in order, and beside what is asked of other lanes. On a CPU
work is done when it is asked for, and lanes have nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from speech_mining.knn.engines.protocol import Vectors

PIECE_BYTES = 16_000_000
"""Pinned memory is taken in two pieces of this size. Copies of a megabyte already run at the bus's full rate."""


class Mark:
    """A point in a lane's work that can be waited for."""

    def __init__(self, event: torch.cuda.Event | None = None) -> None:
        self.event = event

    def wait(self) -> None:
        """Hold up the calling thread until the device is past this point."""
        if self.event is not None:
            self.event.synchronize()


class Lane:
    """A queue of work on a device."""

    def __init__(self, device: torch.device) -> None:
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def work(self) -> AbstractContextManager[object]:
        """What is asked of the device inside goes to this lane."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def mark(self) -> Mark:
        """The point behind all that was asked so far."""
        return Mark() if self._stream is None else Mark(self._stream.record_event())

    def after(self, *marks: Mark) -> None:
        """What is asked from now on waits for work of other lanes; nobody else does."""
        for mark in marks:
            if self._stream is not None and mark.event is not None:
                self._stream.wait_event(mark.event)

    def finish(self) -> None:
        """Hold up the calling thread until all that was asked is done."""
        if self._stream is not None:
            self._stream.synchronize()


@dataclass(eq=False)
class Codes:
    """Memory on a device for rows as float16, used again and again."""

    values: torch.Tensor
    """float16 (rows, p): values beyond the dimension are zero, rows beyond those in use whatever was there before."""
    free: Mark
    """Behind the last use."""

    @classmethod
    def empty(cls, rows: int, width: int, device: torch.device) -> Codes:
        """Room for so many rows of so many values."""
        return cls(torch.zeros(rows, width, dtype=torch.float16, device=device), Mark())


@dataclass(frozen=True, eq=False)
class Loaded:
    """Rows on their way to a device."""

    codes: Codes
    rests: torch.Tensor
    """float32 (rows,): length of what rounding to float16 took away."""
    there: Mark
    """Behind the last of them."""


class Loader:
    """Copies rows to a device by way of two pinned buffers: while one is filled, the other is on its way."""

    def __init__(self, lane: Lane, device: torch.device) -> None:
        self._lane, self._device = lane, device
        self._sent = [Mark(), Mark()]
        self._staged: dict[np.dtype[np.generic], list[torch.Tensor]] = {}

    def load(self, rows: Vectors, part: slice, codes: Codes) -> Loaded:
        """Copy rows to the first places of `codes`, once those are free.

        Args:
            rows: float16 or float32 (n, d).
            part: which of them.
            codes: where to.
        """
        staged = self._staging(np.dtype(rows.dtype), rows.shape[1])
        with self._lane.work():
            self._lane.after(codes.free)
            rests = torch.zeros(part.stop - part.start, device=self._device)
            for turn, piece in enumerate(steps(part, len(staged[0]))):
                self._sent[turn % 2].wait()
                own = staged[turn % 2][: piece.stop - piece.start]
                np.copyto(own.numpy(), rows[piece])
                moved = own.to(self._device, non_blocking=True)
                self._sent[turn % 2] = self._lane.mark()
                places = slice(piece.start - part.start, piece.stop - part.start)
                _round(moved, codes.values[places, : rows.shape[1]], rests[places])
            return Loaded(codes, rests, self._lane.mark())

    def _staging(self, dtype: np.dtype[np.generic], dimension: int) -> list[torch.Tensor]:
        if dtype not in self._staged:
            rows, kind = max(1, PIECE_BYTES // (dtype.itemsize * dimension)), getattr(torch, dtype.name)
            pinned = self._device.type == "cuda"
            self._staged[dtype] = [torch.empty(rows, dimension, dtype=kind, pin_memory=pinned) for _ in self._sent]
        return self._staged[dtype]


def _round(rows: torch.Tensor, codes: torch.Tensor, rests: torch.Tensor) -> None:
    """Write rows on the device as float16, and how long their rests are."""
    codes.copy_(rows)
    if rows.dtype != torch.float16:
        rests.copy_(torch.linalg.vector_norm(rows - codes.float(), dim=1))


@contextmanager
def full_accumulation() -> Iterator[None]:
    """Let float16 matrices be multiplied with sums in float32 only, whatever the process has allowed."""
    allowed = torch.backends.cuda.matmul
    before = allowed.allow_fp16_reduced_precision_reduction, allowed.allow_fp16_accumulation
    allowed.allow_fp16_reduced_precision_reduction = allowed.allow_fp16_accumulation = False
    try:
        yield
    finally:
        allowed.allow_fp16_reduced_precision_reduction, allowed.allow_fp16_accumulation = before


def steps(rows: slice, size: int) -> Iterator[slice]:
    """Slices of `size` rows, the last one of what is left."""
    for first in range(rows.start, rows.stop, size):
        yield slice(first, min(first + size, rows.stop))
