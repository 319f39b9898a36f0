"""Where a search keeps what is finished, so that a killed one goes on instead of starting again.

After each shard of the source: its exact lists, and the target's running lists. Both are needed and nothing else is.
"""

from __future__ import annotations

from typing import Any, Protocol

from speech_mining.knn.settle import Settled
from speech_mining.knn.toplists import TopLists


class Checkpoint(Protocol):
    """Keeps the state of a search between shards."""

    def restore(self, forward: Settled, backward: TopLists, errors: Any) -> int:
        """Fill in what is kept and tell how many source rows are finished: 0 where nothing fits."""

    def keep(self, done: int, forward: Settled, backward: TopLists, errors: Any) -> None:
        """Keep the state after `done` source rows."""


class Nothing:
    """Keeps nothing."""

    def restore(self, forward: Settled, backward: TopLists, errors: Any) -> int:
        """Nothing fits."""
        return 0

    def keep(self, done: int, forward: Settled, backward: TopLists, errors: Any) -> None:
        """Forget it."""
