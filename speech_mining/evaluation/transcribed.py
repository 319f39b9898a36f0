"""Test sets from transcribed speech: what can be searched in the clips that a set holds out.

Which rows belong together is decided here; embedding them is `test_set`, the searches are `trials`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from speech_mining.encoders.protocol import Sentence, TextEncoder
from speech_mining.errors import LakeError
from speech_mining.evaluation.test_set import Clip, SpeechEncoders, TestSet, embed_test_set
from speech_mining.evaluation.trials import EvaluationConfig, Outcome, evaluate
from speech_mining.evaluation.wording import normalised
from speech_mining.progress import Progress, silent

MOST_DISTRACTORS = 10_000
"""Texts of other splits that are searched too."""
_LEAST_SHARE = 0.5
"""Of the clips must have a text for it to be searched; the rest is then left out of every search."""


@dataclass(frozen=True)
class HeldOut:
    """What a split can be examined by.

    Args:
        written: audio against its texts, with those of the other splits as distractors.
        spoken: audio against the same said by a clip in the translation's language; None where there is none.
        left_out: clips that lack a text which others have.
    """

    written: TestSet
    spoken: TestSet | None
    left_out: int


def held_out(clips: pl.DataFrame, split: str) -> HeldOut:
    """Make the test sets of a split.

    Args:
        clips: `records.TRANSCRIBED`.
        split: such as "test".

    Raises:
        LakeError: the split is empty, or no clip in it has a text.
    """
    rows = clips.filter(pl.col("split") == split).to_dicts()
    sides = [side for side in ("transcription", "translation") if _known(rows, side) >= _LEAST_SHARE * len(rows)]
    whole = [row for row in rows if all(row[side] is not None for side in sides)]
    if not sides or not whole:
        raise LakeError(
            f"The split {split!r} has {len(rows)} clips, {_known(rows, 'transcription')} with a transcription and "
            f"{_known(rows, 'translation')} with a translation.",
            expected="clips, most of them with a text",
            cause="the set holds nothing out, or its texts were lost",
            fix="name a set with a test split, or let `test_share` hold some out",
        )
    written = TestSet(
        tuple(_clip(row, "transcription" in sides) for row in whole),
        tuple(_translation(row) for row in whole) if "translation" in sides else None,
        distractors=_distractors(clips.filter(pl.col("split") != split), sides),
    )
    return HeldOut(written, _spoken(rows), len(rows) - len(whole))


def examine(
    held: HeldOut,
    speech: SpeechEncoders,
    text: TextEncoder,
    config: EvaluationConfig,
    *,
    negatives_each: int = 1,
    progress: Progress = silent,
) -> tuple[list[Outcome], dict[str, int]]:
    """Every figure that the sets give, and the items without a vector by side and reason.

    Raises:
        EncoderError: an encoder does not know a language, or not one row has all its vectors.
    """
    outcomes: list[Outcome] = []
    rejected: dict[str, int] = {}
    for test_set in (held.written, held.spoken):
        if test_set is None:
            continue
        each = negatives_each if test_set is held.written else 0
        embedded = embed_test_set(
            test_set, speech, text, negatives_each=each, seed=config.bootstrap.seed, progress=progress
        )
        outcomes += evaluate(embedded.columns, embedded.distractors, config)
        for reason, count in embedded.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    return outcomes, rejected


def _distractors(others: pl.DataFrame, sides: Sequence[str]) -> tuple[Sentence, ...]:
    """Texts that no clip of the split has to find, to make the search harder: chosen by a hash, so always the same."""
    languages = {"transcription": "language", "translation": "translation_language"}
    texts = pl.concat(
        [others.select(text=pl.col(side), language=pl.col(languages[side])) for side in sides], how="vertical"
    )
    unique = texts.drop_nulls("text").unique().sort(pl.col("text").map_elements(_place, pl.String), "language")
    return tuple(Sentence(text, language) for text, language in unique.head(MOST_DISTRACTORS).iter_rows())


def _place(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _known(rows: Sequence[dict[str, Any]], side: str) -> int:
    return sum(row[side] is not None for row in rows)


def _clip(row: dict[str, Any], with_text: bool) -> Clip:
    text = row["transcription"] if with_text else None
    return Clip(Path(row["file"]), row["language"], row["start_s"] or 0.0, row["end_s"], text, row["place"])


def _translation(row: dict[str, Any]) -> Sentence:
    return Sentence(row["translation"], row["translation_language"])


def _spoken(rows: Sequence[dict[str, Any]]) -> TestSet | None:
    """Clips whose translation another clip says, as pairs; a sentence said several times is taken once."""
    said: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["transcription"] is not None:
            said.setdefault((row["language"], normalised(row["transcription"])), row)
    paired: dict[tuple[str, str, str], tuple[Clip, Clip]] = {}
    for row in rows:
        other = said.get((row["translation_language"] or "", normalised(row["translation"] or "")))
        if row["translation"] is not None and other is not None:
            key = (row["language"], row["translation_language"], normalised(row["translation"]))
            paired.setdefault(key, (_clip(row, False), _clip(other, False)))
    if not paired:
        return None
    return TestSet(tuple(one for one, _ in paired.values()), None, tuple(other for _, other in paired.values()))
