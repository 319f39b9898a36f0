"""The pace of metadata requests: so many seconds apart, whoever asks.

What belongs here is when the next request may be sent. A run of Dagster is a process, and two of them would ask twice
as often as one: what they share is a file.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where each process keeps its own pace
    fcntl = None  # type: ignore[assignment]

_LONGEST_QUEUE = 600
"""Requests that may wait before us; a file that says more is of a clock that was wrong."""


class Pace:
    """Keeps requests of all threads, and of all processes that name the same file, at least `interval_s` apart.

    Args:
        interval_s: seconds.
        clock: seconds that never go back, for the threads of this process.
        now: seconds since 1970, for what processes tell each other.
        sleep: waits so many seconds.
        shared: the file; None for this process alone. Processes on other machines are not known here.
    """

    def __init__(
        self,
        interval_s: float,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        sleep: Callable[[float], None],
        shared: Path | None = None,
    ) -> None:
        self._interval_s, self._clock, self._now, self._sleep = interval_s, clock, now, sleep
        self._shared = shared if fcntl is not None and interval_s > 0 else None
        self._lock = threading.Lock()
        self._next = float("-inf")

    def wait(self) -> None:
        """Come back when the next request may be sent; each caller has a time of its own."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next, now + self._wait_for_others_s())
            self._next = start + self._interval_s
        if start > now:
            self._sleep(start - now)

    def _wait_for_others_s(self) -> float:
        """Take the next free time among all processes: seconds from now."""
        if self._shared is None:
            return 0.0
        self._shared.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(self._shared, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go of it when the file is closed, or we are killed
            now, free = self._now(), 0.0
            with contextlib.suppress(ValueError):
                free = float(file.read(40) or 0)
            wait_s = free - now
            if not 0 < wait_s <= _LONGEST_QUEUE * self._interval_s:
                wait_s = 0.0
            file.seek(0)
            file.truncate()
            file.write(f"{now + wait_s + self._interval_s:.6f}")
        return wait_s
