"""Where to cut: the quietest moment of each silence, found from energies every 5 ms, without the waveform.

What belongs here is energies, the search for the quietest 50 ms, and the runs of speech with their cut points. Which
runs are joined into candidate spans belongs to `candidates`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int64]

ENERGY_SAMPLES = 80
"""Samples an energy sums over: 5 ms at 16 kHz. Cut points lie on this grid, so they are whole milliseconds too."""

_QUIET_FRAMES = 10  # 50 ms: shorter ones fall into the closure of a stop consonant


@dataclass(frozen=True, eq=False)
class CutRuns:
    """Runs of speech, and where a span is cut that begins or ends with one. All int64 (runs,), in samples.

    `before <= starts < ends <= after`, and `after[i] <= before[i + 1]`: neighbouring spans share no sample.
    """

    starts: Samples
    ends: Samples
    before: Samples
    """Where a span that begins with the run begins."""
    after: Samples
    """Where a span that ends with the run ends."""

    def __len__(self) -> int:
        return len(self.starts)


def block_energies(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sum of squares of each 5 ms: float32 (ceil(samples / 80),); the last one may sum over fewer samples.

    Args:
        block: float32 (samples,); every block of a recording but the last holds a multiple of `ENERGY_SAMPLES`.
    """
    count = -(-len(block) // ENERGY_SAMPLES)
    if count * ENERGY_SAMPLES != len(block):
        block = np.concatenate((block, np.zeros(count * ENERGY_SAMPLES - len(block), dtype=np.float32)))
    frames = block.reshape(count, ENERGY_SAMPLES)
    return np.asarray(np.einsum("ij,ij->i", frames, frames), dtype=np.float32)


def cut_runs(
    starts: Samples, ends: Samples, energies: npt.NDArray[np.float32], samples: int, max_pad_samples: int
) -> CutRuns:
    """Place the cut points around each run of speech.

    A silence no longer than `max_pad_samples` has one cut point, which both its neighbours share. A longer one has
    two, each in the half that touches its run and at most `max_pad_samples` away from it, so that long pauses are
    part of no span.

    Args:
        starts: int64 (runs,), first samples of the runs, increasing.
        ends: int64 (runs,), exclusive.
        energies: float32, see `block_energies`.
        samples: length of the recording.
        max_pad_samples: how far from speech a cut may lie.
    """
    before, after = np.empty_like(starts), np.empty_like(ends)
    for run in range(len(starts) + 1):
        left = int(ends[run - 1]) if run else 0
        right = int(starts[run]) if run < len(starts) else samples
        if 0 < run < len(starts) and right - left <= max_pad_samples:
            after[run - 1] = before[run] = quietest_point(energies, left, right)
            continue
        middle = (left + right) // 2
        inner = 0 < run < len(starts)  # the silences at either end of the recording have no second half
        if run:
            after[run - 1] = quietest_point(energies, left, min(left + max_pad_samples, middle if inner else right))
        if run < len(starts):
            before[run] = quietest_point(energies, max(right - max_pad_samples, middle if inner else left), right)
    return CutRuns(starts, ends, before, after)


def quietest_point(energies: npt.NDArray[np.float32], low: int, high: int) -> int:
    """Find the middle of the quietest 50 ms between two samples.

    Of equally quiet places (digital silence) the one nearest to the middle is taken; where there is no room for
    50 ms, the quietest shorter stretch, and where there is none at all, the middle.

    Args:
        energies: float32, see `block_energies`.
        low: first sample of the range.
        high: end of the range, at least `low`.

    Returns:
        a sample with `low <= point <= high`.
    """
    first, last = -(-low // ENERGY_SAMPLES), high // ENERGY_SAMPLES
    width = min(_QUIET_FRAMES, last - first)
    if width < 1:
        return (low + high) // 2
    # Summed window by window, not by differences of a running sum, whose rounding would order digital silences.
    sums = np.convolve(energies[first:last].astype(np.float64), np.ones(width), mode="valid")
    quietest = np.flatnonzero(sums == sums.min())
    nearest = quietest[np.argmin(np.abs(2 * quietest - (len(sums) - 1)))]
    return (first + int(nearest) + width // 2) * ENERGY_SAMPLES


def split_long_runs(
    runs: CutRuns, energies: npt.NDArray[np.float32], min_samples: int, max_samples: int
) -> tuple[CutRuns, int]:
    """Split the runs that no span could hold at their quietest inner moments, so that no speech is lost for its length.

    A run that is too long is halved, near its middle, until its pieces fit. No piece is shorter than a quarter of what
    it was cut from, nor than `min_samples` where there is room.

    Args:
        runs: see `cut_runs`; a run with its cuts is what must fit.
        energies: float32, see `block_energies`.
        min_samples: shortest span.
        max_samples: longest span; at least four times the padding inside `runs`.

    Returns:
        the runs, pieces counted as runs of their own, and how many runs were split.
    """
    too_long = runs.after - runs.before > max_samples
    if not too_long.any():
        return runs, 0
    rows: list[tuple[int, int, int, int]] = []
    columns = (runs.starts, runs.ends, runs.before, runs.after)
    for start, end, before, after in zip(*(column.tolist() for column in columns), strict=True):
        cuts = _inner_cuts(energies, before, after, min_samples, max_samples)
        edges = zip([start, *cuts], [*cuts, end], [before, *cuts], [*cuts, after], strict=True)
        rows.extend(edges)
    starts, ends, befores, afters = np.array(rows, dtype=np.int64).T
    return CutRuns(starts, ends, befores, afters), int(np.count_nonzero(too_long))


def _inner_cuts(
    energies: npt.NDArray[np.float32], before: int, after: int, min_samples: int, max_samples: int
) -> list[int]:
    length = after - before
    if length <= max_samples:
        return []
    margin = min(max(length // 4, min_samples), length // 2)
    cut = quietest_point(energies, before + margin, after - margin)
    left = _inner_cuts(energies, before, cut, min_samples, max_samples)
    return [*left, cut, *_inner_cuts(energies, cut, after, min_samples, max_samples)]
