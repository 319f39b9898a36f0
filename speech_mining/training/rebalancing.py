"""Which clips a pass over the data takes, in which batches: languages re-balanced, lengths alike, by seed.

Pure arithmetic: a pass is a function of the seed and its number, so that a training can go on in its middle. What a
batch is made of is read elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speech_mining.training.masking import chance_of

Rows = npt.NDArray[np.int64]

_ORDER, _LENGTHS, _BATCHES = 1, 2, 3  # what a number is drawn for, so that no two draws are alike
# Lengths are compared with up to this much added: batches of one length would always hold the same clips.
_JITTER = 0.1


def balanced_shares(counts: Mapping[str, int], alpha: float) -> dict[str, float]:
    """Each language's share of a re-balanced pass.

    q_i = p_i^alpha / sum_j p_j^alpha with p_i = n_i / sum_k n_k: Duquenne et al. 2021, eq. 2 (alpha 0.2); SAMU-XLSR's
    eq. 3 states the same as a rate of sampling, q_i / p_i (alpha 0.05). A language of no clips has no share.
    """
    total = sum(counts.values())
    powers = {language: (count / total) ** alpha for language, count in sorted(counts.items()) if count}
    return {language: power / sum(powers.values()) for language, power in powers.items()}


def balanced_counts(counts: Mapping[str, int], alpha: float) -> dict[str, int]:
    """How many clips of each language a pass takes: the shares of as many clips as there are, at least one each."""
    total = sum(counts.values())
    return {language: max(1, round(share * total)) for language, share in balanced_shares(counts, alpha).items()}


@dataclass(frozen=True)
class Draw:
    """A clip taken in a pass."""

    row: int
    turn: int
    """How often passes have taken it before this time, as far as that can be known from the pass's number alone."""


def pass_draws(languages: Sequence[str], alpha: float, seed: int, number: int) -> list[Draw]:
    """The clips of a pass: a language that is small is repeated, one that is large is sampled.

    A language of n clips that is to give m gives each clip m // n times, and a random m % n once more.

    Args:
        languages: of each clip.
        alpha: of the re-balancing.
        seed: of the training.
        number: of the pass, from 0.
    """
    named = np.array(languages)
    rows_of = {str(language): np.flatnonzero(named == language) for language in np.unique(named)}
    wanted = balanced_counts({language: len(rows) for language, rows in rows_of.items()}, alpha)
    draws: list[Draw] = []
    for place, (language, rows) in enumerate(sorted(rows_of.items())):
        times, rest = divmod(wanted[language], len(rows))
        once_more = chance_of(seed, _ORDER, number, place).permutation(len(rows))[:rest]
        a_pass = times + (rest > 0)
        draws += [Draw(int(row), number * a_pass + time) for time in range(times) for row in rows]
        draws += [Draw(int(rows[one]), number * a_pass + times) for one in sorted(once_more)]
    return draws


def pass_batches(
    durations_s: npt.NDArray[np.float64], draws: Sequence[Draw], budget_s: float, seed: int, number: int
) -> list[list[Draw]]:
    """Put the clips of a pass into batches of like length, in random order.

    Clips are sorted by length, blurred by up to a tenth so that neighbours differ from pass to pass, and cut wherever
    one more would make the batch, padded to its longest clip, larger than the budget.

    Args:
        durations_s: of every clip.
        draws: the pass.
        budget_s: the largest padded size; a clip that is longer has a batch of its own.
        seed: of the training.
        number: of the pass.
    """
    lengths = durations_s[[draw.row for draw in draws]]
    blurred = lengths * (1 + _JITTER * chance_of(seed, _LENGTHS, number).random(len(draws)))
    batches: list[list[Draw]] = []
    batch: list[Draw] = []
    longest = 0.0
    for place in np.argsort(-blurred, kind="stable"):
        longest = max(longest, float(lengths[place]))
        if batch and longest * (len(batch) + 1) > budget_s:
            batches.append(batch)
            batch, longest = [], float(lengths[place])
        batch.append(draws[place])
    if batch:
        batches.append(batch)
    return [batches[place] for place in chance_of(seed, _BATCHES, number).permutation(len(batches))]
