"""From scored pairs to a corpus: of whatever overlaps, the best is kept, on both sides.

What belongs here is the choice between pairs that claim the same speech. How a pair is scored is in `margin`, which
speech is never offered (preambles) in `recurring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import LakeError, SettingsError
from speech_mining.records import Schema, conform, item_column, modality_of, pairs_schema

if TYPE_CHECKING:
    from speech_mining.mining.occupancy import Slots

VERSION = "1"

SELECTIONS = ("greedy", "optimal")
DEFAULT_SELECTION = "greedy"
"""The paper's rule."""
SIDES = ("source", "target")

Numbers: TypeAlias = npt.NDArray[np.int64]
Outcome: TypeAlias = npt.NDArray[np.int8]
"""For each pair, best first, `occupancy.FITS` or which side was in the way."""


@dataclass(frozen=True, eq=False)
class Selected:
    """What is left after selection, and what became of the rest."""

    frame: pl.DataFrame
    """The kept pairs (columns as given), by decreasing score, then source and target item."""
    counts: Mapping[str, int]
    """`candidates`, `kept`, and a number for each reason a pair was dropped: `duplicate_source`, `duplicate_target`
    (a kept pair has the very same segment), `overlapping_source`, `overlapping_target`, `overlapping_both`."""


def select_non_overlapping(
    pairs: pl.DataFrame, selection: str = DEFAULT_SELECTION, side: str = "source", *, floor: float | None = None
) -> Selected:
    """Keep pairs of which no two overlap, on either side.

    `greedy` takes pairs by decreasing score wherever they overlap nothing kept before: Duquenne, Gong & Schwenk 2021,
    "Multimodal and Multilingual Embeddings for Large-Scale Speech Mining", section 4.1, with their rule for one side
    applied to both. Their connected components need not be built: pairs of different components cannot block each
    other, so one walk over all of them by score takes the same pairs. A segment overlaps itself, so the same walk keeps
    the best pair of duplicates; the one difference from removing duplicates first is that a segment whose best pair
    loses to an overlap may still be kept with its next best. Which pairs are kept at scores >= t depends on pairs at
    scores >= t alone: selecting and then cutting at t equals cutting and then selecting. A dropped pair overlaps a kept
    one of at least its score.

    `optimal` looks for the greatest sum of score - floor. On `side` alone it finds it (`scheduling.heaviest`); of that
    set it keeps the part worth most without overlap on the other side, found the same way; then whatever still fits is
    added by decreasing score. On both sides at once the problem is NP-hard (independent sets of 2-union graphs;
    Bar-Yehuda et al. 2006, "Scheduling split intervals"), so where `greedy` comes to more, its choice is returned: the
    sum is never below greedy's. None of greedy's other properties hold: cutting does not commute with selecting, the
    best pair of all may be dropped for two that are worth more together, and one pair more or a floor a little higher
    may change the choice throughout a recording.

    Args:
        pairs: columns `records.pairs_schema` of two modalities, in any order. A recording is (audiobook, section);
            spans are half-open. Sentences are single things: two of them overlap when they are the same.
        selection: "greedy" or "optimal".
        side: "source" or "target": where `optimal` begins; `greedy` treats both alike.
        floor: the score at which a pair is worth nothing to `optimal`, such as the threshold of the corpus; None takes
            the least score there is. `greedy` has no use for it.

    Returns:
        The kept pairs; ties in score go to the smaller source id, then the smaller target id.

    Raises:
        LakeError: other columns than those, nulls, a score that is not a number, an empty span.
        SettingsError: an unknown selection or side; a score below the floor.
    """
    if selection not in SELECTIONS or side not in SIDES:
        raise SettingsError(
            f"There is no selection {selection!r} beginning on side {side!r}.",
            expected=f"one of {', '.join(SELECTIONS)}; one of {', '.join(SIDES)}",
        )
    pairs = conform(pairs, _schema(pairs), "pairs")
    _refuse_holes(pairs)
    from speech_mining.mining import occupancy

    order = _best_first(pairs)
    spans = _spans(pairs, order)
    if selection == "greedy":
        outcome = occupancy.take_in_order(np.arange(len(order)), spans["source"], spans["target"])
    else:
        outcome = _optimal(spans, side, _weights(pairs["score"].to_numpy()[order], floor))
    kept = pairs[order[outcome == occupancy.FITS]]
    return Selected(kept, _counted(pairs, kept, order, outcome))


def _optimal(spans: Mapping[str, Slots], side: str, weight: Numbers) -> Outcome:
    """What begins with the heaviest set of a side, or the greedy choice where that is worth as much."""
    from speech_mining.mining import occupancy

    with ThreadPoolExecutor(1) as aside:
        best_first = np.arange(len(weight))
        by_score = aside.submit(occupancy.take_in_order, best_first, spans["source"], spans["target"])
        heavy = occupancy.take_in_order(_heaviest_first(spans, side, weight), spans["source"], spans["target"])
    greedy = by_score.result()
    gained = weight[heavy == occupancy.FITS].sum() - weight[greedy == occupancy.FITS].sum()
    return heavy if gained > 0 else greedy


def _heaviest_first(spans: Mapping[str, Slots], side: str, weight: Numbers) -> Numbers:
    """The heaviest set of a side, as much of it as fits on the other; behind it all the rest, both best first."""
    from speech_mining.mining import scheduling

    chosen = np.ones(len(weight), np.bool_)
    for each in (side, *(other for other in SIDES if other != side)):
        chosen = scheduling.heaviest(np.flatnonzero(chosen), spans[each], weight)
    return np.concatenate([np.flatnonzero(chosen), np.flatnonzero(~chosen)])


def _weights(score: npt.NDArray[np.float64], floor: float | None) -> Numbers:
    """What a score exceeds the floor by.

    On the miniature library from 1.00, beginning on the source side, precision and recall are .710 and .978. With the
    score itself as weight (two fragments beat any sentence) .668 and .943, with the excess times the duration (two
    sentences run together beat either) .703 and .925, with the score times the duration .384 and .386.
    """
    from speech_mining.mining import scheduling

    return scheduling.weights(score - (score.min(initial=np.inf) if floor is None else floor))


def _schema(pairs: pl.DataFrame) -> Schema:
    return pairs_schema(modality_of(pairs.columns, "source"), modality_of(pairs.columns, "target"))


def recordings(pairs: pl.DataFrame, side: str) -> Numbers:
    """Number the recordings of a side by audiobook and section: int64 (n,), below audiobooks times sections.

    Of text, the shards.
    """
    if modality_of(pairs.columns, side) == "text":
        shard = pairs[f"{side}_shard"]
        shards: Numbers = shard.cast(pl.Enum(shard.unique().sort())).to_physical().to_numpy().astype(np.int64)
        return shards
    book, section = pairs[f"{side}_audiobook"], pairs[f"{side}_section"]
    books, sections = book.unique().sort(), section.unique().sort()
    # through an Enum: 0.6 s of processor for 10⁷ rows, a join on both columns takes 1.5 s and more
    number: Numbers = book.cast(pl.Enum(books)).to_physical().to_numpy().astype(np.int64) * len(sections)
    number += np.searchsorted(sections.to_numpy(), section.to_numpy())
    return number


def _spans(pairs: pl.DataFrame, order: Numbers) -> dict[str, Slots]:
    """Both sides at once, each on a core: what they do outside Python's lock is nearly all they do."""
    with ThreadPoolExecutor(len(SIDES)) as pool:
        return dict(zip(SIDES, pool.map(lambda side: _spans_of(pairs, side, order), SIDES), strict=True))


def _spans_of(pairs: pl.DataFrame, side: str, order: Numbers) -> Slots:
    """In the given order: read in turn, the spans of 10⁷ pairs are walked in 0.4 s, read here and there in 1.7 s."""
    from speech_mining.mining import occupancy

    found = occupancy.slots(recordings(pairs, side), *_ends(pairs, side))
    return occupancy.Slots(found.first[order], found.stop[order], found.count)


def _ends(pairs: pl.DataFrame, side: str) -> tuple[Numbers, Numbers]:
    """Where spans begin and end; a sentence is a span of one, its row in the shard."""
    if modality_of(pairs.columns, side) == "text":
        row = pairs[f"{side}_shard_row"].to_numpy()
        return row, row + 1
    return pairs[f"{side}_start_sample"].to_numpy(), pairs[f"{side}_end_sample"].to_numpy()


def _best_first(pairs: pl.DataFrame) -> Numbers:
    """By decreasing score, then source segment, then target segment.

    Scores are sorted alone and only ties by all three: 1.1 s of processor for 10⁷ rows, a sort by three keys 2.9 s.
    """
    score = pairs["score"].to_numpy()
    order = np.argsort(-score)
    equal_to_next = score[order[1:]] == score[order[:-1]]
    tied = np.flatnonzero(np.append(equal_to_next, False) | np.append(False, equal_to_next)[: len(order)])
    rows = order[tied]
    source, target = (pairs[item_column(pairs.columns, side)].to_numpy()[rows] for side in SIDES)
    order[tied] = rows[np.lexsort((rows, target, source, -score[rows]))]
    return order.astype(np.int64)


def _refuse_holes(pairs: pl.DataFrame) -> None:
    holes = {name: count for name, count in pairs.null_count().row(0, named=True).items() if count}
    not_numbers = int(pairs["score"].is_nan().sum())
    if holes or not_numbers:
        raise LakeError(
            f"Pairs with nothing in {holes or 'score'} ({not_numbers} scores are not a number).",
            expected="every column filled",
            cause="a margin was computed where the neighbours' mean is not positive",
            fix="drop candidates without a score before selecting",
        )


def _counted(pairs: pl.DataFrame, kept: pl.DataFrame, order: Numbers, outcome: Outcome) -> dict[str, int]:
    items = (item_column(pairs.columns, side) for side in SIDES)
    same_source, same_target = (pairs[item].is_in(kept[item].implode()).to_numpy()[order] for item in items)
    dropped = outcome != 0
    overlapping = np.where(same_source | same_target, 0, outcome)
    return {
        "candidates": pairs.height,
        "kept": kept.height,
        "duplicate_source": int((dropped & same_source).sum()),
        "duplicate_target": int((dropped & ~same_source & same_target).sum()),
        "overlapping_source": int((overlapping == 1).sum()),
        "overlapping_target": int((overlapping == 2).sum()),
        "overlapping_both": int((overlapping == 3).sum()),
    }
