"""Where words begin and end, where nobody says so: places at which the frames change.

What belongs here is frames -> spans. It finds syllable- to word-sized pieces, not words: an audiobook's own timings
(`s2s_assets` reads them where a user has them) are better, and `docs/words.md` says by how much.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.errors import SettingsError
from speech_mining.words.cepstra import LEAST_FRAMES, Frames

Span = tuple[int, int]
"""First frame, and one past the last."""


@dataclass(frozen=True)
class BoundaryConfig:
    """How pieces are cut; in frames of 10 ms."""

    reach: int = 6
    """Frames on either side that are compared."""
    shortest: int = 8
    longest: int = 80

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        if self.reach < 1 or not LEAST_FRAMES <= self.shortest <= self.longest // 2:
            raise SettingsError(
                f"Pieces of {self.shortest} to {self.longest} frames, {self.reach} compared, cannot be cut.",
                expected=f"reach from 1, shortest from {LEAST_FRAMES}, longest at least twice that",
            )


def word_spans(frames: Frames, config: BoundaryConfig) -> list[Span]:
    """Cut one stretch of speech into pieces, at the greatest changes first.

    Args:
        frames: float32 (n, d), any representation: cepstra, or what an encoder makes of each frame.
        config: lengths.

    Returns:
        Spans that cover all frames, in order; none for a stretch that is shorter than a word.
    """
    if len(frames) < LEAST_FRAMES:
        return []
    change = novelty(frames, config.reach)
    cuts = [0, len(frames)]
    for at in np.argsort(-change, kind="stable"):
        far = min(abs(int(at) - cut) for cut in cuts) >= config.shortest
        if far and change[at] > 0 and change[at] == change[max(0, at - config.reach) : at + config.reach + 1].max():
            cuts.append(int(at))
    return [piece for span in _between(cuts) for piece in within_length(span, config.longest)]


def novelty(frames: Frames, reach: int) -> npt.NDArray[np.float64]:
    """float64 (n,): distance between the means of the frames before and from each frame on, in spreads of the stretch.

    Foote, "Automatic audio segmentation using a measure of audio novelty", 2000, with means in place of a kernel.
    """
    spread = frames.std(axis=0, dtype=np.float64) + 1e-6
    total = np.concatenate([np.zeros((1, frames.shape[1])), np.cumsum(frames / spread, axis=0, dtype=np.float64)])
    at = np.arange(len(frames))
    begin, end = np.maximum(at - reach, 0), np.minimum(at + reach, len(frames))
    before = (total[at] - total[begin]) / np.maximum(at - begin, 1)[:, None]
    after = (total[end] - total[at]) / (end - at)[:, None]
    distance: npt.NDArray[np.float64] = np.linalg.norm(after - before, axis=1)
    distance[0] = 0.0
    return distance


def _between(cuts: list[int]) -> list[Span]:
    ordered = sorted(cuts)
    return list(itertools.pairwise(ordered))


def within_length(span: Span, longest: int) -> list[Span]:
    """A piece that is too long, in equal parts; another as it is."""
    parts = -(-(span[1] - span[0]) // longest)
    edges = np.linspace(*span, parts + 1).round().astype(int).tolist()
    return list(itertools.pairwise(edges))
