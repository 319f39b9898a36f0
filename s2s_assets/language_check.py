"""The check of all languages together: does a recording's speech suit the language it is declared in?

It hangs on `quality_report`, the one asset that looks at everything, and blocks nothing. What belongs here is what is
read and shown; the judging is in `speech_mining.quality.spoken_language`.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from resources.compute import CPU, pod_retries, step_tags
from resources.metadata import counted, rows
from resources.settings import Settings
from resources.storage import Lake, Storage
from speech_mining.knn.roll import Block, read_blocks
from speech_mining.knn.vectors import Stack
from speech_mining.quality.spoken_language import FOLDS, JUDGEMENTS, judge_recordings

SEED = 0
SHOWN = 100


def recordings_speak_their_language(settings: Settings) -> dg.AssetChecksDefinition:
    """The check over the speech embeddings of every language."""
    name = "recordings_speak_their_language"

    @dg.asset_check(
        asset="quality_report", name=name, op_tags=step_tags(CPU, name, settings), retry_policy=pod_retries(settings)
    )
    def _recordings_speak_their_language(storage: Storage) -> dg.AssetCheckResult:
        """No recording sounds like another language than the one it is declared in.

        Classifiers that have learned from other audiobooks hear every recording. What cannot be judged is counted by
        reason: a pass says nothing of it.
        """
        return _result(_judged(storage.lake, settings.languages))

    return _recordings_speak_their_language


def _judged(lake: Lake, languages: Sequence[str]) -> pl.DataFrame:
    """`JUDGEMENTS` of all recordings; the vectors of two encoders are never held against each other."""
    by_encoder: dict[str, list[tuple[str, Block]]] = {}
    for language in sorted(languages):
        for block in read_blocks(lake, language):
            by_encoder.setdefault(block.encoder, []).append((language, block))
    judged = [_of_one_encoder(blocks) for _, blocks in sorted(by_encoder.items())]
    return pl.concat([pl.DataFrame(schema=dict(JUDGEMENTS)), *judged])


def _of_one_encoder(blocks: list[tuple[str, Block]]) -> pl.DataFrame:
    segments = pl.concat(
        block.items.select(pl.lit(language).alias("language"), "audiobook", "section") for language, block in blocks
    )
    vectors = Stack([block.vectors for _, block in blocks])
    return judge_recordings(
        vectors, segments["language"], segments["audiobook"], segments["section"], folds=FOLDS, seed=SEED
    )


def _result(judged: pl.DataFrame) -> dg.AssetCheckResult:
    suspicious = judged.filter(pl.col("suspicious")).sort("own_share", "language", "audiobook", "section")
    unjudged = judged.filter(pl.col("not_judged").is_not_null())
    figures: dict[str, Any] = {
        "recordings": judged.height,
        "judged": judged.height - unjudged.height,
        "suspicious": suspicious.height,
        "not_judged": unjudged.height,
        "by_language": rows(_by_language(judged), limit=SHOWN),
    }
    if unjudged.height:
        reasons = unjudged.group_by("not_judged").len().sort("not_judged")
        figures["not_judged_by_reason"] = counted(dict(reasons.iter_rows()))
    if suspicious.height:
        figures["suspicious_recordings"] = rows(suspicious.drop("suspicious", "not_judged"), limit=SHOWN)
    return dg.AssetCheckResult(
        passed=suspicious.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description=_told(figures["judged"], suspicious.height, unjudged.height),
        metadata=figures,
    )


def _by_language(judged: pl.DataFrame) -> pl.DataFrame:
    return (
        judged.group_by("language")
        .agg(
            recordings=pl.len(),
            judged=pl.col("suspicious").count(),
            heard_as_declared=(pl.col("heard") == pl.col("language")).mean(),
            suspicious=pl.col("suspicious").sum(),
        )
        .sort("language")
    )


def _told(judged: int, suspicious: int, unjudged: int) -> str:
    if not judged:
        return f"Nothing is known: none of {unjudged} recordings could be judged"
    return f"{suspicious} of {judged} judged recordings sound like another language; {unjudged} could not be judged"
