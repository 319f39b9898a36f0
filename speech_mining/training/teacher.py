"""What a teacher says: the vectors of transcriptions and translations that a student learns to give for their speech.

Which text belongs to which clip is decided here. How a student learns is `distillation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.encoders.protocol import Sentence, TextEncoder
from speech_mining.errors import EncoderError, LakeError
from speech_mining.progress import Progress, silent
from speech_mining.records import Schema
from speech_mining.training.examples import Examples

Target: TypeAlias = Literal["transcription", "translation", "both"]

TEXTS: Schema = {  # row i is said by row i of the vectors
    "text": pl.String(),
    "language": pl.String(),  # ISO 639-3
}
UNTAUGHT: Schema = {**TEXTS, "reason": pl.String(), "detail": pl.String()}

_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Taught:
    """A teacher's vectors of the texts of a set."""

    texts: pl.DataFrame
    """`TEXTS`: each text of each language once, in their order."""
    vectors: npt.NDArray[np.float16]
    """float16 (texts, dimension), unit rows."""
    rejections: pl.DataFrame
    """`UNTAUGHT`: texts that the teacher has no vector for."""


def teach(clips: pl.DataFrame, target: Target, teacher: TextEncoder, *, progress: Progress = silent) -> Taught:
    """Embed every text that clips are taught by.

    Args:
        clips: `records.TRANSCRIBED`.
        target: which texts.
        teacher: of text.
        progress: told the texts done.

    Raises:
        EncoderError: the teacher does not know a language.
        LakeError: no clip has such a text.
    """
    texts = _texts(clips, target)
    if texts.is_empty():
        raise LakeError(
            f"None of {clips.height} clips has a {' or '.join(_sides(target))}.",
            expected="clips with a text to learn from",
            fix="choose another `target`, or another set",
        )
    unknown = sorted(set(texts["language"]) - teacher.languages) if teacher.languages else []
    if unknown:
        raise EncoderError(
            f"The teacher {teacher.name} does not know {', '.join(unknown)}.",
            expected=f"texts in {', '.join(sorted(teacher.languages))}",
            fix="choose another teacher, or another `target`",
        )
    return _embedded(texts, teacher, progress)


def _embedded(texts: pl.DataFrame, teacher: TextEncoder, progress: Progress) -> Taught:
    kept, vectors, refused = [], [], []
    for start in range(0, texts.height, _AT_ONCE):
        part = texts[start : start + _AT_ONCE]
        embedded = teacher.embed([Sentence(text, language) for text, language in part.iter_rows()])
        kept.append(part[embedded.kept])
        vectors.append(embedded.vectors)
        refused += [(*part.row(one.item), one.reason, one.detail) for one in embedded.rejected]
        progress(start + part.height, texts.height)
    return Taught(pl.concat(kept), np.concatenate(vectors), pl.DataFrame(refused, schema=dict(UNTAUGHT), orient="row"))


def examples_of(
    clips: pl.DataFrame, taught: Taught, target: Target, read: Callable[[Mapping[str, Any]], npt.NDArray[np.float32]]
) -> Examples:
    """What a student learns from some clips; those of which the teacher has no vector are left out.

    Args:
        clips: `records.TRANSCRIBED`, of one split.
        taught: the vectors of their texts.
        target: which texts each clip is taught by.
        read: the waveform of a row of `clips`, float32 at 16 kHz.
    """
    row_of = {key: row for row, key in enumerate(taught.texts.select("language", "text").iter_rows())}
    rows = {row["clip"]: row for row in clips.iter_rows(named=True)}
    found = {clip: _rows_of(row, target, row_of) for clip, row in rows.items()}
    kept = clips.filter(pl.col("clip").is_in([clip for clip, texts in found.items() if texts]))
    return Examples(
        clips=kept.select("clip", "language", "duration_s"),
        targets=taught.vectors,
        target_rows=[found[clip] for clip in kept["clip"]],
        read=lambda clip: read(rows[clip]),
    )


def _rows_of(row: Mapping[str, Any], target: Target, row_of: Mapping[tuple[str, str], int]) -> tuple[int, ...]:
    keys = [(row[language], row[side]) for side, language in _sides(target).items()]
    return tuple(row_of[key] for key in keys if key in row_of)


def _texts(clips: pl.DataFrame, target: Target) -> pl.DataFrame:
    sides = [
        clips.select(pl.col(side).alias("text"), pl.col(language).alias("language"))
        for side, language in _sides(target).items()
    ]
    return pl.concat(sides).drop_nulls("text").unique().sort("language", "text")


def _sides(target: Target) -> dict[str, str]:
    """Columns of texts, and of their languages."""
    sides = {"transcription": "language", "translation": "translation_language"}
    return sides if target == "both" else {target: sides[target]}
