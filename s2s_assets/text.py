"""Text on its way to an index: listed, cleaned, freed of repeats, embedded; a partition a shard, a set a language.

What belongs here is the layers; formats, cleaning and repeats are `speech_mining.text`, the index `speech_mining.knn`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from partitions.batches import BATCH, each_partition
from partitions.languages import language_partition, layer
from partitions.text_shards import set_text_shards, text_shards
from resources.budgets import memory_of, memory_retries, repeats_budget, retried_with_half
from resources.compute import CPU, DOWNLOAD, GPU, OWNERS, pod_retries, step_tags
from resources.conditions import eager_with_what_is_there, on_schedule, once_after
from resources.encoders import Encoders
from resources.external import report_listed
from resources.gpu_steps import gpu_step
from resources.metadata import column_schema, counted, index_figures, listed, rows
from resources.settings import Settings, TextSettings
from resources.storage import Lake, Storage, published
from speech_mining.errors import SpeechMiningError
from speech_mining.knn.roll import TEXT, kept_file, kept_rows
from speech_mining.records import EMBEDDED_SENTENCES

if TYPE_CHECKING:
    from speech_mining.encoders.protocol import TextEncoder
    from speech_mining.knn.roll import Roll
    from speech_mining.text.embedding import Earlier
    from speech_mining.text.sentences import Wording

SHARDS, LISTING, SENTENCES, DUPLICATES = "text_shards", "text_listing", "text_sentences", TEXT.repeats
LENGTHS = "lengths.npy"
FILE, DROPPED_FILE, RECORD = "sentences.parquet", "dropped.parquet", "shard.json"
VERSION = "1"
_ERRORS = (SpeechMiningError, OSError)


def text(settings: Settings) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The layers of every language that has text; none where none has."""
    if not settings.text_languages:
        return []
    of_languages = [
        made
        for language in settings.text_languages
        for made in (
            _listing(language),
            text_sentences(language, settings),
            text_duplicates(language, settings),
            text_embeddings(language, settings),
            text_index(language, settings),
        )
    ]
    return [shards(settings), *of_languages]


def shards(settings: Settings) -> dg.AssetsDefinition:
    """What text there is."""

    @dg.asset(
        key=SHARDS,
        group_name="text",
        kinds={"parquet"},
        owners=OWNERS,
        op_tags=step_tags(DOWNLOAD, SHARDS, settings),
        retry_policy=pod_retries(settings),
        pool=DOWNLOAD,
        code_version="1",
    )
    def _text_shards(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        """Every file of text that the settings name, by language, with its size and version.

        New ones become partitions, those that are gone cease to be; what is new or changed is cleaned next.
        """
        from speech_mining.text.known_shards import keep, list_again

        found = list_again(storage.lake, settings.text_shards, settings.text.format, settings.text.meta)
        changes = {}
        for language in settings.text_languages:
            of_language = found.shards.filter(language=language)
            new, gone = set_text_shards(context.instance, language, of_language["shard"])
            _forget(storage.lake, language, gone)
            _observe(context.instance, of_language.filter(pl.col("shard").is_in(found.changed[language])))
            changes[language] = f"{len(new)} new, {len(found.changed[language])} new or changed, {len(gone)} gone"
        keep(storage.lake, found)
        by_language = found.shards.group_by("language").agg(pl.len().alias("shards"), pl.col("bytes").sum())
        figures = {
            "dagster/row_count": found.shards.height,
            "by_language": rows(by_language.sort("language"), limit=300),
            "changes": listed([f"{language}: {told}" for language, told in changes.items()]),
            "sample": rows(found.shards, limit=10),
        }
        return published(storage.lake, figures, SHARDS)

    return _text_shards


def _listing(language: str) -> dg.AssetSpec:
    """The shards as they were listed: what the sentences of each depend on."""
    return dg.AssetSpec(
        layer(language, LISTING),
        deps=[SHARDS],
        partitions_def=text_shards(language),
        group_name=language,
        kinds={"parquet"},
        owners=OWNERS,
        tags={"language": language},
        code_version="1",
        description="A shard of text as it was listed: observed when it is new and whenever its file changed.",
    )


def text_sentences(language: str, settings: Settings) -> dg.AssetsDefinition:
    """The sentences of each shard."""
    from speech_mining.text.sentences import SENTENCES as COLUMNS

    text = settings.text

    @dg.asset(
        key=layer(language, SENTENCES),
        deps=[layer(language, LISTING)],
        partitions_def=text_shards(language),
        backfill_policy=BATCH,
        automation_condition=dg.AutomationCondition.eager(),
        group_name=language,
        kinds={"polars", "parquet"},
        owners=OWNERS,
        tags={"language": language},
        op_tags=step_tags(CPU, layer(language, SENTENCES), settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version=f"{VERSION}/{text.format}/{sorted(text.cleaning.items())}",
        metadata={"dagster/column_schema": column_schema(COLUMNS)},
    )
    def _text_sentences(context: dg.AssetExecutionContext, storage: Storage) -> None:
        """Clean sentences of one language, each with the document, line and offset it comes from.

        Paragraphs are split, control characters and quotes around sentences removed, boilerplate, other languages and
        what is too short or long dropped: every drop has a counted reason. A shard that an earlier run cleaned by the
        same rules, such as one that was killed later on, is not read again.
        """
        each_partition(context, lambda shard: _clean(storage.lake, language, shard, text), _ERRORS, "shards")

    return _text_sentences


def text_duplicates(language: str, settings: Settings) -> dg.AssetsDefinition:
    """Which sentences an earlier shard has too."""
    from speech_mining.text.sentence_keys import KEY_VERSION

    @dg.asset(
        key=layer(language, DUPLICATES),
        deps=[dg.AssetDep(layer(language, SENTENCES), partition_mapping=dg.AllPartitionMapping())],
        partitions_def=language_partition(language),
        automation_condition=eager_with_what_is_there(),
        group_name=language,
        kinds={"numpy"},
        owners=OWNERS,
        tags={"language": language},
        op_tags=step_tags(CPU, layer(language, DUPLICATES), settings),
        pool=CPU,
        retry_policy=memory_retries(settings),
        code_version=f"{VERSION}/{KEY_VERSION}",
    )
    def _text_duplicates(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        """Of each sentence that stands in several places, the first is kept: shards in the order they are listed.

        Exact and out of core. Nothing that is repeated is embedded, indexed or mined.
        """
        with retried_with_half(context, settings) as attempt:
            memory_gb = repeats_budget(settings, attempt).memory_gb
            figures = _find_repeats(storage, language, memory_gb, context.log.info)
        return published(storage.lake, figures, DUPLICATES, language)

    return _text_duplicates


def text_embeddings(language: str, settings: Settings) -> dg.AssetsDefinition:
    """The vectors of each shard's sentences."""
    text = settings.text

    @dg.asset(
        key=layer(language, TEXT.embeddings),
        deps=[
            layer(language, SENTENCES),
            dg.AssetDep(
                layer(language, DUPLICATES), partition_mapping=dg.SpecificPartitionsPartitionMapping([language])
            ),
        ],
        partitions_def=text_shards(language),
        backfill_policy=BATCH,
        automation_condition=once_after(layer(language, SENTENCES), layer(language, DUPLICATES)),
        group_name=language,
        kinds={"pytorch", "numpy"},
        owners=OWNERS,
        tags={"language": language},
        op_tags=step_tags(GPU, layer(language, TEXT.embeddings), settings),
        pool=GPU,
        retry_policy=memory_retries(settings),
        code_version=f"{VERSION}/{settings.text_encoder_of(language)}/{text.lower_case}/{text.strip_quotes}",
        metadata={"dagster/column_schema": column_schema(EMBEDDED_SENTENCES)},
    )
    def _text_embeddings(context: dg.AssetExecutionContext, storage: Storage, encoders: Encoders) -> None:
        """One unit vector (fp16) a sentence that is no repeat, in the space that speech and all languages share.

        Sentences that were embedded before keep their vectors. Those that the encoder refuses are counted.
        """
        from speech_mining.text.sentences import Wording

        wording = Wording(text.lower_case, text.strip_quotes)
        with gpu_step(context, settings) as means:
            encoder = encoders.given(means).text(language)
            each_partition(
                context,
                lambda shard: {**_embed(storage.lake, language, shard, encoder, wording), **means.metadata},
                _ERRORS,
                "shards",
            )

    return _text_embeddings


def text_index(language: str, settings: Settings) -> dg.AssetsDefinition:
    """The roll of a language's sentences, and the FAISS index over it."""

    @dg.asset(
        key=layer(language, TEXT.index),
        deps=[
            dg.AssetDep(layer(language, TEXT.embeddings), partition_mapping=dg.AllPartitionMapping()),
            layer(language, DUPLICATES),
        ],
        partitions_def=language_partition(language),
        automation_condition=on_schedule(settings.remine_cron),
        group_name=language,
        kinds={"faiss"},
        owners=OWNERS,
        tags={"language": language},
        op_tags=step_tags(GPU, layer(language, TEXT.index), settings),
        pool=GPU,
        retry_policy=memory_retries(settings),
        code_version=f"{VERSION}/{settings.index_factory or 'by size'}",
        metadata={"dagster/column_schema": column_schema(TEXT.rows)},
    )
    def _text_index(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        """All sentences of a language in one order, each once, searchable under their ids."""
        with gpu_step(context, settings) as means:
            figures = _index(storage.lake, language, settings)
        return published(storage.lake, {**figures, **means.metadata}, TEXT.index, language)

    return _text_index


# Listing


def _observe(instance: dg.DagsterInstance, changed: pl.DataFrame) -> None:
    """Tell Dagster of every shard that is new or changed."""
    for shard in changed.iter_rows(named=True):
        told = {name: shard[name] for name in ("address", "bytes", "version")}
        report_listed(instance, layer(shard["language"], LISTING), shard["shard"], shard["version"], told)


def _forget(lake: Lake, language: str, gone: list[str]) -> None:
    """Shards whose files are gone leave the language's roll with the next index."""
    for shard in gone:
        for name in (SENTENCES, TEXT.embeddings):
            lake.remove(name, language, shard)


# Sentences


def _clean(lake: Lake, language: str, name: str, text: TextSettings) -> Mapping[str, Any]:
    from speech_mining.text.known_shards import known_shard
    from speech_mining.text.listing import refuse_changed
    from speech_mining.text.rules import Cleaning
    from speech_mining.text.shard import DROPPED, made_with, write_clean_shard

    shard, config = known_shard(lake, language, name), Cleaning(**text.cleaning)
    refuse_changed(shard, "since it was listed")  # also where an earlier run cleaned what was listed
    made_by = {**asdict(shard), "cleaning": asdict(config), "made_with": made_with()}
    kept = lake.find(SENTENCES, language, name)
    there = kept is not None and kept.read_json(RECORD).get("made_by") == made_by
    if not there:
        with lake.replace(SENTENCES, language, name) as new:
            cleaned = write_clean_shard(shard, language, config, out=new.path(FILE))
            new.write_table(DROPPED_FILE, cleaned.dropped, DROPPED)
            counts = {"kept": cleaned.kept, "characters": cleaned.characters}
            new.write_json(RECORD, {"address": shard.address, "made_by": made_by, **counts})
    return {**_sentence_figures(lake, language, name), "cleaned": "by an earlier run" if there else "now"}


def _sentence_figures(lake: Lake, language: str, name: str) -> dict[str, Any]:
    partition = lake.partition(SENTENCES, language, name)
    record, dropped = partition.read_json(RECORD), partition.read_frame(DROPPED_FILE)
    return {
        "dagster/row_count": record["kept"],
        "characters": record["characters"],
        "address": record["address"],
        "dropped": int(dropped["sentences"].sum()),
        "dropped_by_reason": counted(dict(dropped.select("reason", "sentences").iter_rows())),
        "dropped_examples": rows(dropped, limit=40),
        "data_version": partition.data_version,
    }


# Repeats


def _find_repeats(storage: Storage, language: str, memory_gb: float, tell: Callable[[str], None]) -> dict[str, Any]:
    import numpy as np

    from speech_mining.text.duplicates import SentenceShard, first_occurrences

    lake = storage.lake
    partitions = {name: lake.partition(SENTENCES, language, name) for name in lake.keys(SENTENCES, language)}
    files = {name: part.local_path(FILE) for name, part in partitions.items()}
    given = [SentenceShard(files[name], partitions[name].data_version) for name in files]
    kept: dict[str, tuple[int, int]] = {}
    began = time.perf_counter()
    masks = first_occurrences(given, scratch=storage.scratch_of(DUPLICATES, language), memory_gb=memory_gb)
    with lake.replace(DUPLICATES, language) as new:
        for name, (_, mask) in zip(files, masks, strict=True):
            new.write_array(kept_file(name), mask.astype(np.bool_))
            kept[name] = (len(mask), int(mask.sum()))
        new.write_json("shards.json", {name: part.data_version for name, part in partitions.items()})
    sentences, first = (sum(counts[side] for counts in kept.values()) for side in (0, 1))
    seconds = time.perf_counter() - began
    tell(f"{sentences} sentences of {len(kept)} shards, {first} of them different, in {seconds:.1f} s")
    by_shard = pl.DataFrame(
        [(name, *counts) for name, counts in kept.items()], schema=["shard", "sentences", "kept"], orient="row"
    )
    return {
        "dagster/row_count": first,
        "sentences": sentences,
        "repeats": sentences - first,
        "shards": len(kept),
        "seconds": round(seconds, 3),
        "by_shard": rows(by_shard, limit=100),
    }


# Embeddings


def _embed(lake: Lake, language: str, name: str, encoder: "TextEncoder", wording: "Wording") -> Mapping[str, Any]:
    from speech_mining.text.embedding import REFUSED, embed_shard

    sentences, waited = _to_embed(lake, language, name)
    identity = {
        "name": encoder.name,
        "version": encoder.version,
        "dimension": encoder.dimension,
        "lower_case": wording.lower_case,
        "strip_quotes": wording.strip_quotes,
    }
    earlier = _earlier(lake, language, name, identity)
    embedded = embed_shard(name, sentences, language, encoder, wording, earlier=earlier)
    with lake.replace(TEXT.embeddings, language, name) as new:
        new.write_table(TEXT.table, embedded.sentences, EMBEDDED_SENTENCES)
        new.write_table("rejections.parquet", embedded.refused, REFUSED)
        new.write_array("vectors.npy", embedded.vectors)
        if embedded.lengths is not None:
            new.write_array(LENGTHS, embedded.lengths)
        new.write_json("encoder.json", identity)
    return {
        "dagster/row_count": embedded.sentences.height,
        "taken_over": embedded.taken_over,
        "freed_of_repeats": "in this shard only: materialize text_duplicates first" if waited else "in all shards",
        "dimension": encoder.dimension,
        "encoder": encoder.name,
        "encoder_version": encoder.version,
        "rejected": embedded.refused.height,
        "rejected_by_reason": counted(dict(embedded.refused.group_by("reason").len().iter_rows())),
        "data_version": lake.partition(TEXT.embeddings, language, name).data_version,
    }


def _to_embed(lake: Lake, language: str, name: str) -> tuple[pl.DataFrame, bool]:
    """The sentences that are no repeats; where repeats were not looked for yet, all that differ within the shard.

    More is embedded then than need be, and the index leaves out what repeats another shard: nothing is mined twice.
    """
    import numpy as np

    from speech_mining.text.sentence_keys import sentence_hash

    partition = lake.partition(SENTENCES, language, name)
    table = pl.read_parquet(partition.local_path(FILE), columns=["sentence_id", "text"]).with_row_index("shard_row")
    table = table.with_columns(pl.col("shard_row").cast(pl.Int64))
    repeats = lake.find(DUPLICATES, language)
    looked_at = {} if repeats is None else repeats.read_json("shards.json")
    if repeats is not None and looked_at.get(name) == partition.data_version:
        return table.filter(pl.Series(np.asarray(kept_rows(repeats, name, TEXT)))), False
    return table.filter(sentence_hash(table["text"]).is_first_distinct()), True


def _earlier(lake: Lake, language: str, name: str, identity: Mapping[str, Any]) -> "Earlier | None":
    from speech_mining.text.embedding import Earlier

    partition = lake.find(TEXT.embeddings, language, name)
    if partition is None or partition.read_json("encoder.json") != identity:
        return None
    lengths = partition.read_array(LENGTHS) if LENGTHS in partition.files else None
    return Earlier(partition.read_table(TEXT.table, EMBEDDED_SENTENCES), partition.read_array("vectors.npy"), lengths)


# Index


def _index(lake: Lake, language: str, settings: Settings) -> dict[str, Any]:
    from speech_mining.knn.index_renewal import INDEX, Wish, renew_index
    from speech_mining.knn.roll import call_the_roll, read_blocks

    roll = call_the_roll(read_blocks(lake, language, TEXT), layout=TEXT)
    began = time.perf_counter()
    wish = Wish(settings.index_factory, memory_bytes=memory_of(settings).total_bytes)
    renewal = renew_index(roll, lake.find(TEXT.index, language), wish)
    seconds = time.perf_counter() - began
    table = roll.items.with_row_index("row").with_columns(pl.lit(False).alias("recurring"))
    with lake.replace(TEXT.index, language) as new:
        renewal.write(new)
        new.write_table("roll.parquet", roll.blocks, TEXT.roll)
        new.write_table("rows.parquet", table, TEXT.rows)
        new.write_json("encoder.json", {"encoder": roll.encoder})
    return {
        "dagster/row_count": roll.items.height,
        "shards": roll.blocks.height,
        "dimension": int(roll.stack.shape[1]),
        "encoder": roll.encoder,
        "not_embedded": _not_embedded(lake, language, roll),
        **index_figures(renewal),
        "index_build_seconds": round(seconds, 3),
        "index_bytes": lake.partition(TEXT.index, language).files[INDEX]["bytes"],
        "roll": rows(roll.blocks, limit=100),
    }


def _not_embedded(lake: Lake, language: str, roll: "Roll") -> int:
    """Sentences that should be in the index and were not embedded: a shard that repeated them first is gone since."""
    repeats = lake.partition(DUPLICATES, language)
    shards = roll.blocks["shard"]
    wanted = sum(int(kept_rows(repeats, name, TEXT).sum()) for name in shards)
    refused = sum(
        lake.partition(TEXT.embeddings, language, name).read_frame("rejections.parquet").height for name in shards
    )
    return max(0, wanted - refused - roll.items.height)
