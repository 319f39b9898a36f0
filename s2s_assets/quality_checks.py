"""Checks that look across layers: drift, odd lengths, preambles, duplicates, silent and clipped audio.

Their evidence is the rows and the SQL that found them, to be asked again with `s2s sql`. What belongs here is where a
check hangs, whether it blocks, and what it shows; the judging is in `speech_mining.quality`.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import getdoc
from typing import Any

import dagster as dg
import polars as pl

from partitions.language_pairs import pair_partitions, split
from resources.layer_checks import LayerCheck
from resources.metadata import counted, rows
from resources.pair_checks import PairCheck, pair_check
from resources.settings import Settings
from resources.storage import Lake, Storage
from speech_mining.mining.kinds import KINDS, SPEECH_TO_SPEECH, Kind
from speech_mining.quality.drift import DriftTolerance, comparable, drift
from speech_mining.quality.history import corpus_figures, last_figures, last_version, read_history

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
SHOWN = 30

OfPair = Callable[[Lake, str], dg.AssetCheckResult]
Only = Mapping[str, Sequence[str]]
Asked = tuple[str, Mapping[str, str | float]]
"""A query, and the values of its `$names`."""


def quality_checks(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """Every check of corpora of this module."""
    return [check for kind in KINDS if settings.pairs_of(kind.name) for check in _of_corpora(kind, settings)]


def _of_corpora(kind: Kind, settings: Settings) -> list[dg.AssetChecksDefinition]:
    limits = settings.quality
    tolerance = DriftTolerance(limits.score_shift, limits.lost_share)

    def steady(lake: Lake, pair: str) -> dg.AssetCheckResult:
        """Scores, pairs and hours are about what they were when the corpus was last accepted.

        Materialize the history of the pair to accept a corpus that is meant to be other than it was.
        """
        return _drifted(lake, kind, pair, tolerance)

    def sound(lake: Lake, pair: str) -> dg.AssetCheckResult:
        """No span is silent, and none is clipped in the recordings that are listened to."""
        return _sound(lake, kind, pair, settings)

    def no_preamble(lake: Lake, pair: str) -> dg.AssetCheckResult:
        """No speech that recurs in many recordings, such as a preamble, stands in the corpus."""
        return _nothing_found(lake, (_PREAMBLES, _bound(kind, pair)), ERROR, _only(kind, pair))

    def lengths(lake: Lake, pair: str) -> dg.AssetCheckResult:
        """Few pairs are much longer on one side than is usual between the two languages."""
        return _lengths(lake, pair, settings)

    found = [_check(kind, settings, "corpus_is_steady", steady, blocking=True)]
    if kind.spoken:
        found.append(_check(kind, settings, "no_preambles", no_preamble, blocking=True))
        found.append(_check(kind, settings, "audio_is_sound", sound))
    if kind == SPEECH_TO_SPEECH:
        found.append(_check(kind, settings, "lengths_agree", lengths))
    return found


def _check(
    kind: Kind, settings: Settings, name: str, outcome: OfPair, *, blocking: bool = False
) -> dg.AssetChecksDefinition:
    asked = PairCheck(kind.layer("corpus"), name, getdoc(outcome), outcome, blocking)
    return pair_check(asked, pair_partitions(settings.pairs_of(kind.name)), settings)


def recordings_are_distinct() -> LayerCheck:
    """A warning that names recordings that came twice."""

    def judge(storage: Storage, language: str) -> dg.AssetCheckResult:
        """No recording is there twice: byte for byte the same under two audiobooks or sections."""
        asked = (_DUPLICATES, {"language": language})
        return _nothing_found(storage.lake, asked, WARN, {"language": [language]})

    return LayerCheck("raw_audio", "recordings_are_distinct", judge)


def _drifted(lake: Lake, kind: Kind, pair: str, tolerance: DriftTolerance) -> dg.AssetCheckResult:
    corpus, history = lake.partition(kind.layer("corpus"), pair), read_history(lake, kind.name, pair)
    before, now = last_figures(history), corpus_figures(corpus, kind)
    moved = drift(before, now, tolerance)
    exceeded = moved.filter(pl.col("exceeded"))
    return dg.AssetCheckResult(
        passed=exceeded.is_empty(),
        severity=ERROR,
        description=_told(before, now, exceeded, accepted=last_version(history) == corpus.data_version),
        metadata={
            "compared_with": last_version(history) or "nothing",
            "drift": rows(moved),
            "sql": _sql((_BEFORE, _bound(kind, pair))),
        },
    )


def _told(before: Mapping[str, float], now: Mapping[str, float], exceeded: pl.DataFrame, *, accepted: bool) -> str:
    if accepted:
        return "This corpus is the last accepted one"
    if not before:
        return "Nothing to compare with: no earlier corpus was accepted"
    if not comparable(before, now):
        return f"Not compared: the threshold was {before['threshold']:g} and is {now['threshold']:g}"
    moved = [f"{row['figure']} moved by {row['moved']:.4g}, allowed {row['allowed']:g}" for row in exceeded.to_dicts()]
    return "; ".join(moved) or "Within the tolerance"


def _only(kind: Kind, pair: str) -> Only:
    """The partitions that a check of one pair has to do with."""
    return {"kind": [kind.name], "language_pair": [pair], "language": list(split(pair))}


def _nothing_found(lake: Lake, asked: Asked, severity: dg.AssetCheckSeverity, only: Only) -> dg.AssetCheckResult:
    from speech_mining.quality.catalogue import ask

    query, bound = asked
    found = ask(lake, query, bound=bound, only=only)
    return dg.AssetCheckResult(
        passed=found.is_empty(),
        severity=severity,
        metadata={"offending": found.height, "sql": _sql(asked), **_evidence(found)},
    )


def _lengths(lake: Lake, pair: str, settings: Settings) -> dg.AssetCheckResult:
    from speech_mining.quality.catalogue import ask

    bound: Mapping[str, str | float] = {"pair": pair, "factor": settings.quality.length_factor}
    odd = ask(lake, _LENGTHS, bound=bound, only=_only(SPEECH_TO_SPEECH, pair))
    pairs = ask(lake, "SELECT count(*) AS pairs FROM corpora", only=_only(SPEECH_TO_SPEECH, pair))
    share = odd.height / max(int(pairs["pairs"][0]), 1)
    return dg.AssetCheckResult(
        passed=share <= settings.quality.odd_lengths_share,
        severity=WARN,
        description=f"{odd.height} of {pairs['pairs'][0]} pairs have odd lengths",
        metadata={"odd": odd.height, "odd_share": round(share, 4), "sql": _sql((_LENGTHS, bound)), **_evidence(odd)},
    )


def _sound(lake: Lake, kind: Kind, pair: str, settings: Settings) -> dg.AssetCheckResult:
    from speech_mining.quality.audio_faults import FaultLimits, audio_faults

    quality = settings.quality
    limits = FaultLimits(quality.least_level_dbfs, quality.clipped_share, quality.heard_recordings)
    found = audio_faults(lake, kind, pair, limits)
    by_fault = dict(found.faults.group_by("fault").len().iter_rows())
    return dg.AssetCheckResult(
        passed=found.faults.is_empty(),
        severity=WARN,
        metadata={
            "spans": found.spans,
            "heard_recordings": found.heard_recordings,
            "heard_spans": found.heard_spans,
            "faults": counted(by_fault),
            "sql": _sql((found.sql, {})),
            **_evidence(found.faults),
        },
    )


def _evidence(found: pl.DataFrame) -> dict[str, Any]:
    return {} if found.is_empty() else {"offending_rows": rows(found, limit=SHOWN)}


def _bound(kind: Kind, pair: str) -> Mapping[str, str | float]:
    return {"kind": kind.name, "pair": pair}


def _sql(asked: Asked) -> dg.MarkdownMetadataValue:
    """To be asked again: what ran had its values bound, here they are written in."""
    from speech_mining.quality.catalogue import filled

    return dg.MetadataValue.md(f"```sql\n{filled(*asked).strip()}\n```")


_PREAMBLES = """
SELECT spans.side, spans.language, spans.audiobook, spans.section, spans.segment, spans.start_sample, spans.score
FROM spans
JOIN indexed ON indexed.segment_id = spans.segment AND indexed.language = spans.language
WHERE kind = $kind AND language_pair = $pair AND recurring
ORDER BY score DESC, side, segment
"""
_DUPLICATES = """
SELECT sha256, count(*) AS copies, list(audiobook || '/' || section ORDER BY audiobook, section) AS places
FROM recordings
WHERE language = $language
GROUP BY sha256
HAVING count(*) > 1
ORDER BY copies DESC, sha256
"""
_LENGTHS = """
WITH lengths AS (
    SELECT *, source_end_sample - source_start_sample AS source_samples,
           target_end_sample - target_start_sample AS target_samples
    FROM corpora
    WHERE kind = 's2s' AND language_pair = $pair
),
usual AS (
    SELECT *, target_samples / source_samples AS ratio, median(target_samples / source_samples) OVER () AS usual_ratio
    FROM lengths
)
SELECT score, source_audiobook, source_section, source_samples / 16000 AS source_s,
       target_audiobook, target_section, target_samples / 16000 AS target_s, ratio, usual_ratio
FROM usual
WHERE greatest(ratio / usual_ratio, usual_ratio / ratio) > $factor
ORDER BY abs(ln(ratio / usual_ratio)) DESC, source_segment
"""
_BEFORE = """
SELECT materialization, recorded_at, data_version, figure, value
FROM history
WHERE kind = $kind AND language_pair = $pair
ORDER BY materialization DESC, figure
"""
