"""Mined pairs of speech and text held against a known truth, sentence by sentence.

What belongs here is which text is whose, and how much of the truth one-to-one selection could find. Spans of speech
with spans of speech are `truth`; where a truth comes from (the demo writes one) is its maker's affair.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from speech_mining.errors import LakeError
from speech_mining.evaluation.truth import Comparison
from speech_mining.records import Schema
from speech_mining.text.sentence_keys import normalised_key

VERSION = "1"

TEXT_TRUTH: Schema = {
    "language_pair": pl.String(),  # of the speech, then of the text: deu-eng is German speech with English text
    "audiobook": pl.String(),
    "section": pl.Int32(),
    "start_ms": pl.Int64(),  # of the spoken sentence in its recording
    "end_ms": pl.Int64(),
    "text": pl.String(),  # what means the same, as it is kept after cleaning
    "spoken": pl.String(),  # what is said
}
"""One row a spoken sentence and a text of it."""

_SPAN = ("audiobook", "section", "start_ms", "end_ms")
_SPOKEN = [f"source_{name}" for name in _SPAN]
_SHARED_COLUMNS = ("source_audiobook", "source_section", "key", "language_pair")


def compare_with_texts(mined: pl.DataFrame, truth: pl.DataFrame) -> Comparison:
    """Call a pair right when its span overlaps a true sentence's by more than half of their union and has its text.

    Texts are the same when their words are (`text.sentence_keys.normalised_key`): of near-duplicates, only one is left
    to be mined, whichever came first.

    Selection pairs a segment with one text and a text with one segment, so a sentence that is narrated in two books
    cannot be found twice if its text stands there once. `truths` is therefore the most rows of the truth of which no
    two share a spoken sentence or a text (a maximum matching), and `found` the same of those rows that a right pair
    matches. A row is `missed` when neither its spoken sentence nor its text was found in any.

    Args:
        mined: at least `source_audiobook, source_section, source_start_ms, source_end_ms, text`.
        truth: columns `TEXT_TRUTH`, of one language pair; of several if the mined pairs have a `language_pair` too.

    Returns:
        The same figures as `compare_with_truth`; `best_iou` is the overlap with the nearest sentence that has the
        text, 0 where none has.

    Raises:
        LakeError: a column is missing, a span is empty, a true text has no word, or it is not told which of the
            truth's language pairs was mined.
    """
    _refuse_misfits(mined, [*_SPOKEN, "text"], "mined pairs")
    _refuse_misfits(truth, [name for name in TEXT_TRUTH if name != "spoken"], "truth")
    _refuse_mixture(mined, truth)
    told = truth.rename({name: f"source_{name}" for name in _SPAN})
    apart = "language_pair" in mined.columns
    pairs, keyed = _keyed(mined, "mined_row", apart), _keyed(told, "truth_row", apart)
    if "" in keyed["key"]:
        raise LakeError("A text of the truth has no word.", expected="sentences", cause="a column of another table")
    near = _overlapping(pairs, keyed)
    right, matched = (near.filter("right").get_column(row).unique() for row in ("mined_row", "truth_row"))
    found = keyed.filter(pl.col("truth_row").is_in(matched.implode()))
    wrong = pairs.filter(~pl.col("mined_row").is_in(right.implode()))["mined_row"]
    reached, possible = _most_one_to_one(found), _most_one_to_one(keyed)
    return Comparison(
        precision=len(right) / mined.height if mined.height else 0.0,
        recall=reached / possible if possible else 0.0,
        true_positives=len(right),
        found=reached,
        mined=mined.height,
        truths=possible,
        wrong=_with_best(mined, near, "mined_row", wrong),
        missed=_with_best(truth, near, "truth_row", _missed(keyed, found)),
    )


def _keyed(frame: pl.DataFrame, row: str, by_language_pair: bool) -> pl.DataFrame:
    """Numbered rows with their spans and what their texts have in common with those that are the same."""
    pair = pl.col("language_pair") if by_language_pair else pl.lit("")
    keys = {text: normalised_key(text) for text in frame["text"].unique().to_list()}
    return frame.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias(row),
        pl.col("source_audiobook").cast(pl.String),
        *(pl.col(name).cast(pl.Int64) for name in _SPOKEN[1:]),
        pl.col("text").replace_strict(keys, return_dtype=pl.String).alias("key"),
        pair.alias("language_pair"),
    )


def _overlapping(mined: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """Every mined pair and truth of the same text whose spans overlap, and how much."""
    both = mined.join(truth, on=_SHARED_COLUMNS, suffix="_true")
    first, last = ((f"source_{end}_ms", f"source_{end}_ms_true") for end in ("start", "end"))
    shared = pl.min_horizontal(last) - pl.max_horizontal(first)
    union = pl.max_horizontal(last) - pl.min_horizontal(first)
    return both.filter(shared > 0).select("mined_row", "truth_row", right=2 * shared > union, iou=shared / union)


def _most_one_to_one(truth: pl.DataFrame) -> int:
    """How many rows can be chosen so that no two have a spoken sentence or a text in common."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if truth.is_empty():
        return 0
    spoken = truth.select(pl.struct(*_SPOKEN, "language_pair").rank("dense")).to_series().to_numpy() - 1
    text = truth.select(pl.struct("key", "language_pair").rank("dense")).to_series().to_numpy() - 1
    graph = csr_array((np.ones(truth.height, np.int8), (spoken, text)))
    return int((maximum_bipartite_matching(graph) >= 0).sum())


def _missed(truth: pl.DataFrame, found: pl.DataFrame) -> pl.Series:
    """The numbers of the rows that share neither a spoken sentence nor a text with one that was found."""
    unheard = truth.join(found, on=[*_SPOKEN, "language_pair"], how="anti")
    return unheard.join(found, on=["key", "language_pair"], how="anti")["truth_row"]


def _with_best(frame: pl.DataFrame, near: pl.DataFrame, number: str, wanted: pl.Series) -> pl.DataFrame:
    """The rows of these numbers, with `best_iou`."""
    best: dict[int, float] = dict(near.group_by(number).agg(pl.col("iou").max()).iter_rows())
    rows = wanted.sort().to_list()
    chosen: pl.DataFrame = frame[rows]
    return chosen.with_columns(best_iou=pl.Series([best.get(row, 0.0) for row in rows], dtype=pl.Float64()))


def _refuse_misfits(frame: pl.DataFrame, columns: list[str], name: str) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise LakeError(f"A table of {name} has no {missing}.", expected=f"at least the columns {columns}")
    start, end = (next(column for column in columns if column.endswith(f"{which}_ms")) for which in ("start", "end"))
    empty = frame.filter(pl.col(end) <= pl.col(start))
    if empty.height:
        raise LakeError(
            f"{empty.height} rows of {name} have an empty span, the first {empty.select(columns).row(0)}.",
            expected="start_ms before end_ms",
            cause="seconds were written where milliseconds are expected, and rounded",
        )
    nothing = {
        column: count for column, count in frame.select(columns).null_count().row(0, named=True).items() if count
    }
    if nothing:
        raise LakeError(f"A table of {name} holds nothing in {nothing}.", expected="every column filled")


def _refuse_mixture(mined: pl.DataFrame, truth: pl.DataFrame) -> None:
    pairs = truth["language_pair"].unique().sort().to_list()
    if "language_pair" not in mined.columns and len(pairs) > 1:
        raise LakeError(
            f"The truth is of {len(pairs)} language pairs, {pairs[0]} and others; the mined pairs do not tell theirs.",
            expected="the truth of the one pair that was mined, or a column language_pair on both sides",
            cause="a whole truth was handed over: everything of the other pairs would count as missed",
            fix="filter the truth by its language_pair",
        )
