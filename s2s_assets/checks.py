"""Asset checks: what must hold of every layer, with the rows that break it shown as evidence.

What belongs here is where a check hangs and whether it blocks. The checks themselves are SQL over the lake's parquet,
in `speech_mining.quality.checks`. Checks of pairs and corpora are partitioned and blocking, so that nothing broken goes
downstream; those of the book layers tell of a whole language, since a batched run has no one partition to check, and
look at the audiobooks of their run only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import getdoc
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from partitions.batches import books_of_run
from partitions.language_pairs import pair_partitions, split
from partitions.languages import layer
from resources.findings import Findings
from resources.layer_checks import LayerCheck, layer_checks
from resources.metadata import plot, rows
from resources.pair_checks import PairCheck, pair_check
from resources.settings import Settings
from resources.storage import Lake, Storage
from speech_mining.knn.index_recall import LEAST_RECALL
from speech_mining.knn.index_renewal import RECORD
from speech_mining.mining.kinds import KINDS, Kind
from speech_mining.quality.checks import (
    CheckOutcome,
    hours_fall_with_threshold,
    no_overlap,
    one_to_one,
    pair_durations_within,
    scores_sorted,
    segment_durations_within,
    vectors_are_unit,
)
from speech_mining.quality.hours import HOURS
from speech_mining.records import REJECTIONS
from speech_mining.segmentation.audiobook import SECTIONS
from speech_mining.sources.renewal import books_with_spans

LEAST_COVERAGE = 0.95
"""Share of a section's speech that must lie in some candidate; the rest is speech too short to be a segment alone."""

LONGEST_BROUGHT_S = 86_400.0
"""No recording is longer than a day."""

OfPartition = Callable[[Lake, str], CheckOutcome]
OfBook = Callable[[str], CheckOutcome]
OfBooks = Callable[[Sequence[str]], CheckOutcome]

_NOTHING = CheckOutcome(True, pl.DataFrame(), {})


def checks(settings: Settings, of_layers: Sequence[LayerCheck] = ()) -> list[dg.AssetChecksDefinition]:
    """Every check of this module, and what else must hold of the layers of languages."""
    asked = [*_of_layers(settings), *of_layers]
    of_languages = [
        layer_checks(
            name,
            {language: layer(language, name) for language in settings.languages},
            [check for check in asked if check.layer == name],
            settings,
        )
        for name in dict.fromkeys(check.layer for check in asked)
    ]
    of_kinds = [
        check
        for kind in KINDS
        if settings.pairs_of(kind.name)
        for check in (*_of_pairs(kind, settings), *_of_corpora(kind, settings))
    ]
    return [*of_languages, *of_kinds]


def _of_layers(settings: Settings) -> list[LayerCheck]:
    bounds = settings.segmentation

    def arrived(lake: Lake, language: str) -> OfBook:
        """Every recording of every audiobook could be fetched."""
        return lambda book: _none_rejected(lake, language, book)

    def durations(lake: Lake, language: str) -> OfBook:
        """Every segment is as long as the settings say, and its milliseconds agree with its samples.

        Audiobooks that bring their own segments are passed over: those are as long as somebody wanted them.
        """
        at_once = all_durations(lake, language)
        return lambda book: at_once([book])

    def all_durations(lake: Lake, language: str) -> OfBooks:
        own = books_with_spans(lake, language)

        def judged(books: Sequence[str]) -> CheckOutcome:
            found = [_segments(lake, language, book) for book in books if book not in own]
            return segment_durations_within(found, bounds.min_s, bounds.max_s) if found else _NOTHING

        return judged

    def coverage(lake: Lake, language: str) -> OfBook:
        """The speech that was heard lies in some segment: nothing is lost in segmentation."""
        return lambda book: _covered(lake, language, book)

    def unit(lake: Lake, language: str) -> OfBook:
        """Every vector has unit length and holds only numbers."""
        return lambda book: vectors_are_unit(_vectors(lake, language, book))

    def recall(storage: Storage, language: str) -> dg.AssetCheckResult:
        """The FAISS index finds 98 of 100 exact neighbours. Pairs do not depend on it: they are mined exactly."""
        return _result(_finds_enough(storage.lake, language), warn)

    warn, error = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
    return [
        _OfBooks("raw_audio", "every_recording_arrived", arrived, warn).as_check(),
        _OfBooks("segments", "durations_within_bounds", durations, error, all_durations).as_check(),
        _OfBooks("segments", "speech_is_covered", coverage, warn).as_check(),
        _OfBooks("speech_embeddings", "vectors_are_unit", unit, error).as_check(),
        # A warning that blocks nothing: pairs are mined from the embeddings themselves, and an index of low recall was
        # asked for by its factory string. It is for whoever loads the index elsewhere.
        LayerCheck("speech_index", "recall_at_16", recall),
    ]


def _of_pairs(kind: Kind, settings: Settings) -> list[dg.AssetChecksDefinition]:
    bounds, name = settings.segmentation, kind.layer("pairs")

    def durations(lake: Lake, pair: str) -> CheckOutcome:
        """The spoken sides of every pair are as long as a segment may be; any length where segments were brought."""
        brought = any(books_with_spans(lake, language) for language in _spoken(kind, pair))
        least, most = (0.0, LONGEST_BROUGHT_S) if brought else (bounds.min_s, bounds.max_s)
        return pair_durations_within(_file(lake, name, pair, "pairs.parquet"), least, most)

    def scored(lake: Lake, pair: str) -> CheckOutcome:
        """Pairs stand by decreasing score, none below the floor."""
        floor = lake.partition(name, pair).read_json("scoring.json")["threshold"]
        return scores_sorted(_file(lake, name, pair, "pairs.parquet"), floor)

    found: dict[str, OfPartition] = {"durations_within_bounds": durations, "scores_reach_the_floor": scored}
    if not kind.spoken:
        del found["durations_within_bounds"]
    return [_pair_check(kind, settings, name, check, outcome) for check, outcome in found.items()]


def _spoken(kind: Kind, pair: str) -> list[str]:
    """The languages of a pair's sides of speech."""
    sides = zip((kind.source, kind.target), split(pair), strict=True)
    return [language for modality, language in sides if modality == "speech"]


def _of_corpora(kind: Kind, settings: Settings) -> list[dg.AssetChecksDefinition]:
    name = kind.layer("corpus")

    def overlap(lake: Lake, pair: str) -> CheckOutcome:
        """No two pairs overlap in a recording, on either side."""
        return no_overlap(_file(lake, name, pair, "corpus.parquet"))

    def unique(lake: Lake, pair: str) -> CheckOutcome:
        """Every segment, and every sentence, stands in one pair at most."""
        return one_to_one(_file(lake, name, pair, "corpus.parquet"))

    def sorted_above(lake: Lake, pair: str) -> CheckOutcome:
        """The best pair comes first, and none is below the threshold."""
        threshold = lake.partition(name, pair).read_json("selection.json")["threshold"]
        return scores_sorted(_file(lake, name, pair, "corpus.parquet"), threshold)

    found: dict[str, OfPartition] = {
        "no_overlap": overlap,
        "one_to_one": unique,
        "scores_reach_the_threshold": sorted_above,
    }
    partitioned = [_pair_check(kind, settings, name, check, outcome) for check, outcome in found.items()]
    return [*partitioned, *([_hours_check(kind, settings)] if kind.spoken else [])]


@dataclass(frozen=True)
class _OfBooks:
    """A check of a language's audiobooks."""

    layer: str
    name: str
    look: Callable[[Lake, str], OfBook]
    severity: dg.AssetCheckSeverity
    look_at_all: Callable[[Lake, str], OfBooks] | None = None
    """One question for many; None: there is none."""

    def as_check(self) -> LayerCheck:
        """As the step of its layer makes it."""

        def judged(storage: Storage, language: str) -> dg.AssetCheckResult:
            return _result(self.judge(storage.lake, language), self.severity)

        judged.__doc__ = self.look.__doc__
        return LayerCheck(self.layer, self.name, judged)

    def judge(self, lake: Lake, language: str) -> CheckOutcome:
        """Look at the audiobooks of the run, or at all of them in a run of the check alone."""
        findings = Findings(lake, language, self.name)
        books = findings.to_look_at(layer(language, self.layer), books_of_run(language))
        at_once = None if self.look_at_all is None else self.look_at_all(lake, language)
        return findings.judge(self.layer, books, self.look(lake, language), look_at_all=at_once)


def _pair_check(
    kind: Kind, settings: Settings, name: str, check: str, outcome: OfPartition
) -> dg.AssetChecksDefinition:
    def judged(lake: Lake, pair: str) -> dg.AssetCheckResult:
        return _result(outcome(lake, pair), dg.AssetCheckSeverity.ERROR)

    asked = PairCheck(name, check, getdoc(outcome), judged, blocking=True)
    return pair_check(asked, pair_partitions(settings.pairs_of(kind.name)), settings)


def _hours_check(kind: Kind, settings: Settings) -> dg.AssetChecksDefinition:
    asked = PairCheck(
        kind.layer("corpus"),
        "hours_per_threshold",
        "Hours at thresholds 1.00 to 1.20 (sum, union, post-processed, of every spoken side) fall as the threshold "
        "rises, and the corpus is not empty.",
        lambda lake, pair: _hours_result(lake, kind, pair),
    )
    return pair_check(asked, pair_partitions(settings.pairs_of(kind.name)), settings)


def _hours_result(lake: Lake, kind: Kind, pair: str) -> dg.AssetCheckResult:
    from speech_mining.quality.plots import as_markdown_image, plot_hours

    partition = lake.partition(kind.layer("corpus"), pair)
    hours, threshold = partition.read_table("hours.parquet", HOURS), partition.read_json("selection.json")["threshold"]
    outcome = hours_fall_with_threshold(hours)
    kept = hours.filter(pl.col("threshold") >= threshold)["postprocessed_pairs"].head(1).sum()
    return dg.AssetCheckResult(
        passed=outcome.passed and kept > 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{kept} pairs at {threshold}" if outcome.passed else "hours do not fall as the threshold rises",
        metadata={
            "plot": plot(as_markdown_image(plot_hours(hours, threshold, title=pair))),
            "hours": rows(hours, limit=60),
        },
    )


def _result(outcome: CheckOutcome, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    evidence: dict[str, Any] = {} if outcome.passed else {"offending_rows": rows(outcome.offending)}
    return dg.AssetCheckResult(passed=outcome.passed, severity=severity, metadata={**dict(outcome.figures), **evidence})


def _file(lake: Lake, name: str, pair: str, file: str) -> Path:
    return lake.partition(name, pair).local_path(file)


def _segments(lake: Lake, language: str, book: str) -> Path:
    return lake.partition("segments", language, book).local_path("segments.parquet")


def _vectors(lake: Lake, language: str, book: str) -> Path:
    return lake.partition("speech_embeddings", language, book).local_path("vectors.npy")


def _none_rejected(lake: Lake, language: str, book: str) -> CheckOutcome:
    rejections = lake.partition("raw_audio", language, book).read_table("rejections.parquet", REJECTIONS)
    return CheckOutcome(rejections.is_empty(), rejections, {"rejected": rejections.height})


def _covered(lake: Lake, language: str, book: str) -> CheckOutcome:
    sections = lake.partition("segments", language, book).read_table("sections.parquet", SECTIONS)
    lost = sections.filter((pl.col("coverage") < LEAST_COVERAGE) & ~pl.col("given") & ~pl.col("rejected"))
    least = sections["coverage"].min()
    return CheckOutcome(
        lost.is_empty(),
        lost,
        {"sections": sections.height, "least_coverage": 1.0 if least is None else float(least)},  # type: ignore[arg-type]
    )


def _finds_enough(lake: Lake, language: str) -> CheckOutcome:
    """An index with nothing to find, one row or none, finds it all."""
    record = lake.partition("speech_index", language).read_json(RECORD)
    found = 1.0 if record["recall_at_16"] is None else float(record["recall_at_16"])
    shown = ("factory", "rows", "trained_rows", "probes", "refine_factor", "recall_at_16")
    passed = found >= LEAST_RECALL
    return CheckOutcome(
        passed,
        pl.DataFrame() if passed else pl.DataFrame([{name: record[name] for name in shown}]),
        {"recall_at_16": found, "least": LEAST_RECALL, "queries": record["recall_queries"]},
    )
