"""How much memory a piece of work took, sampled while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")
SAMPLED_EVERY_S = 0.05


@dataclass
class Peak:
    """The most memory that was seen, in bytes; 0 where the system does not say."""

    before: int = 0
    """Anonymous memory when the work began: the interpreter and its libraries."""
    anonymous: int = 0
    """Anonymous memory at most: what no file stands behind."""
    resident: int = 0
    """All memory at most, mapped files included: the system's own figure (VmHWM)."""

    def begin(self) -> None:
        """Take what is held now for what was held before."""
        self.before = _bytes("RssAnon")

    def look(self) -> None:
        """Take a sample."""
        self.anonymous, self.resident = max(self.anonymous, _bytes("RssAnon")), _bytes("VmHWM")

    def told(self) -> str:
        """In words, for a person."""
        if not self.anonymous:
            return "This system does not tell how much memory was used."
        grown = max(0, self.anonymous - self.before)
        return (
            f"Peak memory {self.anonymous / 1e9:.2f} GB (RssAnon, sampled), {grown / 1e9:.2f} of it for the work; "
            f"{self.resident / 1e9:.2f} GB with mapped files (VmHWM)."
        )


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch this process's memory while the block runs."""
    peak = Peak()
    peak.begin()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLED_EVERY_S):
            peak.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.look()


def _bytes(name: str) -> int:
    if not STATUS.exists():
        return 0
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == f"{name}:"), 0)
