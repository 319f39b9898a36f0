"""Which columns each table of the lake has, by layer and file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from speech_mining.records import RECORDINGS, REJECTIONS, SEGMENTS, Schema


@cache
def schemas() -> Mapping[tuple[str, str], Schema]:
    """(layer, file) → its columns."""
    from speech_mining.corpora.manifest import corpus_of
    from speech_mining.knn.roll import SPEECH, TEXT
    from speech_mining.mining.kinds import KINDS
    from speech_mining.mining.tables import NEIGHBOURS
    from speech_mining.quality.history import HISTORY
    from speech_mining.quality.history import LAYER as HISTORY_LAYER
    from speech_mining.quality.hours import HOURS
    from speech_mining.records import CATALOGUE
    from speech_mining.segmentation.audiobook import RUNS, SECTIONS
    from speech_mining.sources.earlier import LISTING, LISTING_FILE
    from speech_mining.text.known_shards import LAYER as SHARD_LAYER
    from speech_mining.text.known_shards import SHARDS, TABLE

    told: dict[tuple[str, str], Schema] = {
        ("catalogue", "catalogue.parquet"): CATALOGUE,
        ("raw_audio", "recordings.parquet"): RECORDINGS,
        ("raw_audio", "rejections.parquet"): REJECTIONS,
        ("raw_audio", LISTING_FILE): LISTING,
        ("segments", "segments.parquet"): SEGMENTS,
        ("segments", "sections.parquet"): SECTIONS,
        ("segments", "runs.parquet"): RUNS,
        ("segments", "rejections.parquet"): REJECTIONS,
        ("speech_embeddings", "rejections.parquet"): REJECTIONS,
        (HISTORY_LAYER, "history.parquet"): HISTORY,
        (SHARD_LAYER, TABLE): SHARDS,
    }
    for layout in (SPEECH, TEXT):
        told[layout.embeddings, layout.table] = layout.items
        told[layout.index, "roll.parquet"] = layout.roll
        told[layout.index, "rows.parquet"] = layout.rows
    for kind in KINDS:
        told[kind.layer("neighbours"), "forward.parquet"] = NEIGHBOURS
        told[kind.layer("neighbours"), "backward.parquet"] = NEIGHBOURS
        told[kind.layer("pairs"), "pairs.parquet"] = kind.pairs
        told[kind.layer("corpus"), "corpus.parquet"] = corpus_of(kind)
        told[kind.layer("corpus"), "hours.parquet"] = HOURS
    return told


def missing_columns(layer: str, file: str, columns: Mapping[str, object]) -> list[str]:
    """Columns that a table should have and has not, or of another type; none for a table that is not known here."""
    schema = schemas().get((layer, file), {})
    return [name for name, dtype in schema.items() if columns.get(name) != dtype]
