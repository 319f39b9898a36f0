"""`published/…`: manifests of others in the lake, beside ours: hours of both, and what is in both.

What belongs here is the layer; what such a manifest says, and what is not guessed of it, is
`speech_mining.corpora.published`. The manifest itself is an external asset: it comes from elsewhere.
"""

from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from resources.compute import CPU, OWNERS, pod_retries, step_tags
from resources.metadata import rows
from resources.settings import PublishedSettings, Settings
from resources.storage import Storage, published
from speech_mining.corpora.manifest import read_corpus
from speech_mining.corpora.published import Compared, Places, Published, compare, read_published, spans_of
from speech_mining.errors import SettingsError
from speech_mining.lake import Lake
from speech_mining.mining.kinds import SPEECH_TO_SPEECH


def published_manifests(settings: Settings) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """For each manifest of the settings the file itself, and its table with the comparison.

    Raises:
        SettingsError: its pair is not mined.
    """
    made: list[dg.AssetsDefinition | dg.AssetSpec] = []
    for name, told in settings.published.items():
        if told.pair not in settings.mined_pairs:
            raise SettingsError(
                f"published.{name} is of {told.pair}, which is not mined.",
                expected=f"one of {', '.join(settings.mined_pairs)}",
                fix="name its languages as ours are named, in alphabetical order, or mine the pair",
            )
        made += [_file(name, told), _table(name, settings)]
    return made


def _file(name: str, told: PublishedSettings) -> dg.AssetSpec:
    return dg.AssetSpec(
        ["published", name, "manifest"],
        group_name="published",
        description="A manifest of others, as it was downloaded.",
        metadata={"path": str(told.manifest)},
    )


def _table(name: str, settings: Settings) -> dg.AssetsDefinition:
    told = settings.published[name]
    corpus = SPEECH_TO_SPEECH.layer("corpus")

    @dg.asset(
        key=["published", name],
        deps=[
            dg.AssetDep(["published", name, "manifest"]),
            dg.AssetDep(corpus, partition_mapping=dg.SpecificPartitionsPartitionMapping([told.pair])),
        ],
        group_name="published",
        kinds={"parquet"},
        owners=OWNERS,
        op_tags=step_tags(CPU, ["published", name], settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version="1",
        description="A manifest of others as a table, and what it shares with our corpus of the pair.",
    )
    def _published(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        metadata = _bring(storage.lake, name, told)
        return published(storage.lake, metadata, "published", name)

    return _published


def _bring(lake: Lake, name: str, told: PublishedSettings) -> dict[str, Any]:
    theirs = read_published(told.manifest)
    compared = _compared(lake, theirs, told) if told.pattern else None
    with lake.replace("published", name) as new:
        new.write_frame("manifest.parquet", theirs.frame)
        new.write_json("comparison.json", asdict(compared) if compared else {})
    return _figures(theirs, compared)


def _compared(lake: Lake, theirs: Published, told: PublishedSettings) -> Compared:
    corpus = read_corpus(lake.partition(SPEECH_TO_SPEECH.layer("corpus"), told.pair))
    return compare(spans_of(theirs, Places(told.source, told.target, told.pattern, told.unit)), corpus)


def _figures(theirs: Published, compared: Compared | None) -> dict[str, Any]:
    columns = pl.DataFrame({"column": theirs.frame.columns, "first": [str(cell) for cell in theirs.frame.row(0)]})
    plain = {"dagster/row_count": theirs.frame.height, "columns": rows(columns), "sample": rows(theirs.frame)}
    return {**plain, "comparison": dg.MetadataValue.json(asdict(compared))} if compared else plain
