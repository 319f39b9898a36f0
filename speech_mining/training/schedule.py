"""The learning rate of every update: it rises, stays, and falls. A formula only."""

from __future__ import annotations

from collections.abc import Sequence

from speech_mining.errors import EncoderError


def learning_rate(update: int, updates: int, peak: float, phases: Sequence[float]) -> float:
    """The three-phase schedule of wav2vec 2.0's and SAMU-XLSR's fine-tuning, 10-40-50 % there.

    With W = round(phases[0] n), H = round(phases[1] n), D = n - W - H of n updates, counted from 0: the rate is
    peak (u + 1) / W in the first W updates, peak in the next H, peak (n - u) / D in the last D: never 0.

    Args:
        update: u, from 0 to n - 1.
        updates: n.
        peak: the highest rate.
        phases: the three shares.

    Raises:
        EncoderError: there is no such update.
    """
    if not 0 <= update < updates:
        raise EncoderError(f"The rate of update {update}.", expected=f"0 to {updates - 1}")
    rising = round(phases[0] * updates)
    staying = min(round(phases[1] * updates), updates - rising)
    if update < rising:
        return peak * (update + 1) / rising
    if update < rising + staying:
        return peak
    return peak * (updates - update) / (updates - rising - staying)
