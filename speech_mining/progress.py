"""How long work tells how far it is, without knowing who listens.

A function that takes long accepts a `Progress` and calls it with (done, total) as it goes. The command hangs a rich
bar on it, an asset writes it to Dagster's log, a test counts the calls.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how much of the work is done, in the work's own unit."""

    def __call__(self, done: int, total: int, /) -> None:
        """`done` of `total` units are finished; `total` may grow, `done` never falls."""


def silent(done: int, total: int, /) -> None:
    """Tell nobody."""
