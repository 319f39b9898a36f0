"""`…_export_…`: a corpus in the format that a trainer reads, made anew whenever the corpus changes.

What belongs here is the layer; the formats are `speech_mining.corpora.formats`. There are none unless the settings
name formats: an export holds the corpus' audio again.
"""

from typing import Any

import dagster as dg

from partitions.language_pairs import pair_partitions
from resources.compute import CPU, OWNERS, pod_retries, step_tags
from resources.conditions import eager_and_when_changed
from resources.metadata import counted
from resources.settings import Settings
from resources.storage import Storage, published
from speech_mining.corpora import cutting, formats, splits
from speech_mining.corpora.card import Lineage
from speech_mining.corpora.material import plan
from speech_mining.corpora.splits import Shares
from speech_mining.mining.kinds import KINDS, TEXT_TO_TEXT, Kind
from speech_mining.sources.writer import only_writer

_WAIT_S = 3600.0
"""For the same pair's clips, which another format may be cutting: they are cut once."""


def exports(settings: Settings) -> list[dg.AssetsDefinition]:
    """An asset for each kind with speech and each format of the settings, partitioned by pair."""
    spoken = [kind for kind in KINDS if kind != TEXT_TO_TEXT and settings.pairs_of(kind.name)]
    return [_export(kind, name, settings) for kind in spoken for name in settings.exports.formats]


def layer_of(kind: Kind, name: str) -> str:
    """Where an export is in the lake: `s2s_export_hugging_face`."""
    return kind.layer(f"export_{name.replace('-', '_')}")


def _export(kind: Kind, name: str, settings: Settings) -> dg.AssetsDefinition:
    shares = Shares(settings.exports.dev_share, settings.exports.test_share)

    @dg.asset(
        key=layer_of(kind, name),
        deps=[kind.layer("corpus")],
        partitions_def=pair_partitions(settings.pairs_of(kind.name)),
        automation_condition=eager_and_when_changed(),
        group_name="exports",
        kinds={"parquet"} if name == "hugging-face" else set(),
        owners=OWNERS,
        op_tags=step_tags(CPU, layer_of(kind, name), settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version=f"{formats.VERSION}/{cutting.VERSION}/{splits.VERSION}/{shares.dev}/{shares.test}",
        description=f"The corpus as {name}, with its audio cut, its splits and a card; see docs/exports.md.",
    )
    def _made(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        lineage = _fill(storage, kind, context.partition_key, name, shares, settings.pools.cpu)
        return published(storage.lake, _figures(lineage), layer_of(kind, name), context.partition_key)

    return _made


def _fill(storage: Storage, kind: Kind, pair: str, name: str, shares: Shares, workers: int) -> Lineage:
    lake, store = storage.lake, storage.scratch_of("clips", kind.name, pair)
    planned = plan(lake, kind, pair, shares)
    with only_writer(store.with_suffix(".lock"), wait_s=_WAIT_S), lake.replace(layer_of(kind, name), pair) as new:
        cutting.tidy(planned.recordings, store)
        formats.fill(planned, name, new.folder, store, workers=workers)
    return planned.lineage


def _figures(lineage: Lineage) -> dict[str, Any]:
    kept = sum(lineage.counts[split] for split in splits.SPLITS)
    hours = {f"{split}_hours": dict(sides) for split, sides in lineage.hours.items()}
    return {
        "dagster/row_count": kept,
        "rows": counted(lineage.counts),
        "hours": dg.MetadataValue.json(hours),
        "corpus_version": lineage.corpus_version,
    }
