"""What a step of pool `gpu` is given: a device of its own, and its attempt's share of batch and memory.

What belongs here is the frame around a step's body: `resources.devices` holds the device, `resources.budgets` turns a
death by memory into another attempt. A step that stands in this frame sets `retry_policy=memory_retries(settings)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from resources.budgets import retried_with_half, share
from resources.devices import held_device
from resources.settings import Settings
from speech_mining.encoders import choice


@dataclass(frozen=True)
class Means:
    """What one attempt of a step works with."""

    device: str = ""
    """For encoders: 'auto', 'cpu', 'cuda:0'; empty: as the settings say."""
    told: str = ""
    """Which device it is, for metadata."""
    attempt: int = 0

    @property
    def batch_share(self) -> float:
        """Of an encoder's batch."""
        return share(self.attempt)

    @property
    def metadata(self) -> dict[str, Any]:
        """For the events of what is made."""
        return {"device": self.told, **({"attempt": self.attempt + 1} if self.attempt else {})}


@contextmanager
def gpu_step(context: Any, settings: Settings) -> Iterator[Means]:
    """Hold a device while the block runs; a death by memory in it is another attempt with half of everything.

    Args:
        context: of an asset or an op.
        settings: devices, memory and retries.

    Raises:
        dagster.RetryRequested: memory did not suffice.
        SettingsError: no device was free, in time.
    """
    with retried_with_half(context, settings) as attempt, held_device(context, settings) as held:
        if attempt:
            choice.forget()  # where steps share a process, what the attempt before loaded is still there
        yield Means(held.device, held.told, attempt)
