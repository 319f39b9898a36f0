"""Keeping a model busy: what it needs next is made in threads while it runs, and a batch that does not fit is halved.

What belongs here knows no model and no file: items, a function that prepares one, a function that uses it. Which items
share a batch is `speech_mining.encoders.batches`. Results never depend on threads: they come in the order given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from speech_mining.encoders.batches import Positions

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_Used = TypeVar("_Used")
Vectors = npt.NDArray[np.float32]

_FULL = ("out of memory", "not enough memory", "can't allocate memory", "cublas_status_alloc_failed")
"""How torch words it in a RuntimeError: CUDA's allocator, the CPU's on Windows and elsewhere, cuBLAS."""


def feed(
    items: Iterable[_Item], make: Callable[[_Item], _Made], use: Callable[[_Made], _Used], *, ahead: int = 1
) -> Iterator[_Used]:
    """Use what is made of each item, in order, while the next ones are being made in threads.

    At most `ahead + 1` made things exist at once: the one in use, and those made or being made for later.

    Args:
        items: taken one by one, as there is room.
        make: called in `ahead` threads, or in the caller's where `ahead` is 0.
        use: called in the caller's thread only.
        ahead: how many to make in advance.

    Raises:
        What `make` or `use` raises, when the item's turn comes; nothing after it is used.
    """
    if ahead < 1:
        yield from (use(make(item)) for item in items)
        return
    source = iter(items)
    with ThreadPoolExecutor(ahead, thread_name_prefix="feeding") as pool:
        try:
            waiting = deque(pool.submit(make, item) for item in islice(source, ahead + 1))
            while waiting:
                yield use(waiting.popleft().result())  # no name holds it: it is freed before the next is begun
                waiting.extend(pool.submit(make, item) for item in islice(source, 1))
        finally:
            pool.shutdown(cancel_futures=True)


class Room:
    """What fits into memory, learnt from what did not.

    Args:
        padded_size: of a batch: how much it takes, in any unit; of two batches the larger one needs more memory.
    """

    def __init__(self, padded_size: Callable[[Positions], int]) -> None:
        self._padded_size = padded_size
        self._too_much: int | None = None

    def run(self, batch: Positions, run: Callable[[Positions], Vectors]) -> Iterator[tuple[Positions, Vectors | None]]:
        """Run a batch, or its halves where it does not fit, in order.

        A batch as large as one that did not fit before is halved untried: trying costs a failed pass each time.

        Yields:
            Parts of the batch, in its order, with their vectors; None for a single item that does not fit.
        """
        parts = [batch]
        while parts:
            part = parts.pop()
            vectors = _if_it_fits(run, part) if part.size == 1 or self._may_fit(part) else None
            if vectors is not None or part.size == 1:
                yield part, vectors
                continue
            self._note(part)
            half = (part.size + 1) // 2
            parts += [part[half:], part[:half]]

    def _may_fit(self, part: Positions) -> bool:
        return self._too_much is None or self._padded_size(part) < self._too_much

    def _note(self, part: Positions) -> None:
        size = self._padded_size(part)
        self._too_much = size if self._too_much is None else min(size, self._too_much)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on the GPU or on the CPU; anything else is a crash."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(told in str(error).lower() for told in _FULL)


def _if_it_fits(run: Callable[[Positions], Vectors], part: Positions) -> Vectors | None:
    try:
        return run(part)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # Only here, where the error and the frames it held are gone, is the failed pass's memory free again.
    _release_cached()
    return None


def _release_cached() -> None:
    """Give back what torch keeps of the GPU's memory: pieces too small for the next try."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
