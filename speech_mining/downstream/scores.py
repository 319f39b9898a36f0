"""How good what a model gives is: BLEU and chrF as sacrebleu computes them, recall of a search; with intervals.

Post 2018, "A call for clarity in reporting BLEU scores"; Popović 2015, "chrF". The intervals are sacrebleu's own
bootstrap over the test sentences (Koehn 2004), of recall `evaluation.intervals`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError, LakeError
from speech_mining.evaluation.intervals import Bootstrap, estimate

RESAMPLES = 1000
DEPTHS = (1, 5, 10)
_SEED_NAME, _SEED = "SACREBLEU_SEED", "12345"


@dataclass(frozen=True)
class Score:
    """A figure, the 95 % interval that the test sentences give it, and what says how it was computed.

    sacrebleu's interval lies evenly about the mean of the resampled scores, which the figure itself may be off by a
    little.
    """

    metric: str
    value: float
    low: float
    high: float
    signature: str


def translation_scores(hypotheses: Sequence[str], references: Sequence[str], *, character: bool = False) -> list[Score]:
    """Score translations: BLEU and chrF, 0 to 100, higher is better.

    Args:
        hypotheses: what the model said, detokenised.
        references: one for each.
        character: whether BLEU counts characters (Chinese, Japanese, Korean, Thai), for want of spaces.

    Raises:
        LakeError: none, or not as many of both.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.significance import PairedTest

    if not references or len(hypotheses) != len(references):
        raise LakeError(
            f"{len(hypotheses)} translations and {len(references)} references.", expected="one for each, at least one"
        )
    bleu: Any = BLEU(tokenize="char") if character else BLEU()
    chrf: Any = CHRF()
    with _seeded():
        # not corpus_score, which stops where some resample of float32 scores 0
        test = PairedTest(
            [("model", list(hypotheses))], {"BLEU": bleu, "chrF": chrf}, [list(references)], "bs", RESAMPLES
        )
        signatures, results = test()
    return [_scored(name, results[metric][0], signatures[metric]) for name, metric in _names(results)]


def _names(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Our name of each metric and sacrebleu's, which tells its parameters (chrF2)."""
    return [(one, next(name for name in results if name.startswith(one))) for one in ("BLEU", "chrF")]


def _scored(name: str, found: Any, signature: Any) -> Score:
    """Low and high are the mean of the resampled scores and half the width of their interval to either side."""
    score, mean, half = float(found.score), float(found.mean), float(found.ci)
    return Score(name, score, mean - half, mean + half, str(signature))


@contextmanager
def _seeded() -> Iterator[None]:
    """Resample with sacrebleu's usual seed, whatever the environment says: equal inputs, equal intervals."""
    before = os.environ.get(_SEED_NAME)
    os.environ[_SEED_NAME] = _SEED
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SEED_NAME]
        else:
            os.environ[_SEED_NAME] = before


def retrieval_scores(source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]) -> list[Score]:
    """Score a search of each source row among all target rows by cosine: R@1, R@5, R@10 in percent.

    A target as near as the right one counts as nearer.

    Args:
        source: float (n, d), unit rows.
        target: the same, row by row the right ones.

    Raises:
        EmbeddingError: no row, or another shape.
    """
    if source.shape != target.shape or source.ndim != 2 or not len(source):
        raise EmbeddingError(f"Vectors of {source.shape} and {target.shape}.", expected="twice (n, d), n at least 1")
    cosines = source.astype(np.float64) @ target.astype(np.float64).T
    ranks = (cosines >= np.diag(cosines)[:, None]).sum(axis=1)
    return [_recall(ranks, depth) for depth in DEPTHS]


def _recall(ranks: npt.NDArray[np.int64], depth: int) -> Score:
    found = estimate(100.0 * (ranks <= depth), bootstrap=Bootstrap(resamples=RESAMPLES))
    told = f"of:{len(ranks)}|by:cosine|bs:{RESAMPLES}"
    return Score(f"R@{depth}", found.value, found.low, found.high, told)
