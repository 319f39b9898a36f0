"""`speech_embeddings`: a unit vector for every segment of an audiobook, in one multilingual space.

What belongs here is the layer; encoders are in `speech_mining.encoders`, their choice in `resources.encoders`.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import dagster as dg
import polars as pl

from partitions.audiobooks import audiobooks
from partitions.batches import BATCH, each_partition
from partitions.languages import layer
from partitions.students import of_student
from resources.budgets import memory_retries
from resources.compute import GPU, OWNERS, step_tags
from resources.conditions import eager_but_for
from resources.encoders import Encoders
from resources.gpu_steps import Means, gpu_step
from resources.metadata import column_schema, rejected
from resources.settings import MINIATURE, STUDENT, Settings
from resources.storage import Lake, Storage
from speech_mining.encoders import audiobook as embedding
from speech_mining.encoders.promoted import CURRENT
from speech_mining.encoders.protocol import SpeechEncoder
from speech_mining.errors import SpeechMiningError
from speech_mining.records import RECORDINGS, REJECTIONS, SEGMENTS

KEPT, REJECTED = "segments.parquet", "rejections.parquet"
_Tables: TypeAlias = tuple[pl.DataFrame, pl.DataFrame]
"""Segments that have a vector, and those that have none."""

NOT_FOR_REAL_SPEECH = (
    "The encoder 'miniature' knows the narrators of the miniature library and nothing else; its vectors of real speech "
    "mean nothing. Set S2S_ENCODER=sonar, or S2S_ENCODER to the path of a student's weights."
)


def speech_embeddings(language: str, settings: Settings) -> dg.AssetsDefinition:
    """The layer of one language."""
    chosen = settings.encoder_of(language)
    strange = chosen == MINIATURE and settings.catalogue_url != MINIATURE
    student = _promoted(chosen.removeprefix(STUDENT)) if chosen.startswith(STUDENT) else []

    @dg.asset(
        key=layer(language, "speech_embeddings"),
        deps=[layer(language, "segments"), *student],
        partitions_def=audiobooks(language),
        backfill_policy=BATCH,
        automation_condition=eager_but_for(CURRENT),
        group_name=language,
        kinds={"pytorch", "numpy"},
        owners=OWNERS,
        tags={"language": language},
        op_tags=step_tags(GPU, layer(language, "speech_embeddings"), settings),
        pool=GPU,
        retry_policy=memory_retries(settings),
        code_version=f"{embedding.VERSION}/{chosen}",
        metadata={"dagster/column_schema": column_schema(SEGMENTS)},
    )
    def _speech_embeddings(context: dg.AssetExecutionContext, storage: Storage, encoders: Encoders) -> None:
        """One unit vector (fp16) a segment, in the space that all languages share.

        Segments that cannot be embedded (silent, not a number, too long) are counted rejections, never zero rows.
        """
        if strange:
            context.log.warning(NOT_FOR_REAL_SPEECH)
        with gpu_step(context, settings) as means:
            encoder = encoders.given(means).speech(language, storage.lake)
            each_partition(
                context, lambda book: _embed(storage.lake, language, book, encoder, means), (SpeechMiningError, OSError)
            )

    return _speech_embeddings


def _promoted(student: str) -> list[dg.AssetDep]:
    return [dg.AssetDep(CURRENT, partition_mapping=of_student(student))]


def _embed(lake: Lake, language: str, book: str, encoder: SpeechEncoder, means: Means) -> Mapping[str, Any]:
    segments = lake.partition("segments", language, book).read_table("segments.parquet", SEGMENTS)
    identity = {"name": encoder.name, "version": encoder.version, "dimension": encoder.dimension}
    made = _of_an_attempt_before(lake, language, book, segments, identity) if means.attempt else None
    kept, rejections = made or _write(lake, language, book, segments, encoder, identity)
    return {
        "dagster/row_count": kept.height,
        "dimension": encoder.dimension,
        "encoder": encoder.name,
        "encoder_version": encoder.version,
        "data_version": lake.partition("speech_embeddings", language, book).data_version,
        **rejected(rejections),
        **means.metadata,
    }


def _of_an_attempt_before(
    lake: Lake, language: str, book: str, segments: pl.DataFrame, identity: Mapping[str, Any]
) -> _Tables | None:
    """What an attempt that died later in its batch made of just these segments, with just this encoder."""
    there = lake.find("speech_embeddings", language, book)
    if there is None or there.read_json("encoder.json") != identity:
        return None
    kept, rejections = there.read_table(KEPT, SEGMENTS), there.read_table(REJECTED, REJECTIONS)
    place = ["audiobook", "section", "start_sample", "end_sample"]
    seen = pl.concat([kept.select(place), rejections.select(place)]).sort(place)
    return (kept, rejections) if seen.equals(segments.select(place).sort(place)) else None


def _write(
    lake: Lake, language: str, book: str, segments: pl.DataFrame, encoder: SpeechEncoder, identity: Mapping[str, Any]
) -> _Tables:
    audio = lake.partition("raw_audio", language, book)
    recordings = audio.read_table("recordings.parquet", RECORDINGS)
    paths = {
        section: audio.local_path(file)
        for section, file in recordings.select("section", "file").iter_rows()
        if section in set(segments["section"])
    }
    embedded = embedding.embed_audiobook(segments, paths, encoder, language)
    with lake.replace("speech_embeddings", language, book) as new:
        new.write_table(KEPT, embedded.segments, SEGMENTS)
        new.write_table(REJECTED, embedded.rejections, REJECTIONS)
        new.write_array("vectors.npy", embedded.vectors)
        if embedded.lengths is not None:
            new.write_array("lengths.npy", embedded.lengths)
        new.write_json("encoder.json", identity)
    return embedded.segments, embedded.rejections
