"""What Dagster remembers of the lake's partitions, held against the files.

A run that is killed between publishing a partition and telling Dagster leaves files that are newer than the record; one
whose files were lost leaves a record of what is not there. What belongs here is the comparison, and how the first is
mended; the files by themselves are `speech_mining.upkeep`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from resources.run_history import INSTANCE
from resources.settings import Settings
from speech_mining.lake import Lake
from speech_mining.upkeep.findings import Finding
from speech_mining.upkeep.partitions import asset_of
from speech_mining.upkeep.places import Key

if TYPE_CHECKING:
    import dagster as dg


ELSEWHERE = frozenset({"listing", "text_listing"})
"""Assets that are observed and have no partitions in the lake."""
HISTORIES = "quality_history"
PAGE = 1_000

Recorded = Mapping[str | None, str | None]
"""Partition of an asset → the data version of its last materialization; None: it tells none."""


def instance_of(settings: Settings) -> dg.DagsterInstance | None:
    """The instance that DAGSTER_HOME names, else the one of the home; None where there is none."""
    import os

    import dagster as dg
    from dagster._core.instance import InstanceRef

    folder = Path(os.environ.get("DAGSTER_HOME") or settings.home / INSTANCE)
    if not (folder / "dagster.yaml").is_file() and not (folder / "history").is_dir():
        return None
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder.absolute())))


def disagreements(
    instance: dg.DagsterInstance, lake: Lake, places: Collection[tuple[str, Key]], layers: frozenset[str] = frozenset()
) -> list[Finding]:
    """Where Dagster's record and the files differ, for every asset that the instance knows.

    Args:
        instance: remembers.
        lake: has the files.
        places: layer and key of the partitions that readers see.
        layers: to compare; empty for all.
    """
    by_layer: dict[str, list[Key]] = {}
    for layer, key in places:
        by_layer.setdefault(layer, []).append(key)
    found: list[Finding] = []
    for asset in sorted(instance.all_asset_keys()):
        layer = _layer_of(asset)
        if layer not in ELSEWHERE and (not layers or layer in layers):
            found += _of_asset(asset, last_versions(instance, asset), lake, by_layer.get(layer, []))
    return found


def last_versions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str | None, str | None]:
    """Partition → data version of the content, as the asset's last materialization of it told."""
    return {made.partition: _version(made) for made in _last(instance, asset)}


def record(instance: dg.DagsterInstance, lake: Lake, finding: Finding) -> str:
    """Tell Dagster of a partition whose files are newer than its record; returns what was done.

    It is a materialization that no run of Dagster's reported, and says so.
    """
    import dagster as dg
    from dagster._core.definitions.data_version import DATA_VERSION_TAG

    current = lake.find(finding.layer, *finding.key)
    if current is None or current.data_version != finding.target:
        return ""
    asset, partition = _asset_of(finding.layer, finding.key)
    told = {"data_version": finding.target, "told_by": "s2s verify --repair", "why": finding.found}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset, partition=partition, metadata=dict(told), tags={DATA_VERSION_TAG: finding.target}
        )
    )
    return "told to Dagster"


def busy(instance: dg.DagsterInstance) -> set[str]:
    """Partitions that runs under way were asked for; of a run of several, the languages that it is at."""
    import dagster as dg
    from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

    names: set[str] = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=list(NOT_FINISHED_STATUSES))):
        names |= {value for tag, value in run.tags.items() if tag == "dagster/partition"}
        if any(tag.startswith("dagster/asset_partition_range") for tag in run.tags):
            names |= {asset.path[0] for asset in run.asset_selection or ()}
    return names


def _layer_of(asset: dg.AssetKey) -> str:
    """`deu/segments` is of the layer segments, `published/x` of published, `s2s_history` of the histories."""
    if len(asset.path) == 2:
        return asset.path[0] if asset.path[0] == "published" else asset.path[1]
    return HISTORIES if asset.path[0].endswith("_history") else asset.path[0]


def _key_of(asset: dg.AssetKey, partition: str | None) -> Key:
    """The key of a partition of an asset in the lake."""
    layer, first = _layer_of(asset), asset.path[0]
    if len(asset.path) == 2:
        language = asset.path[1] if layer == "published" else first
        return (language,) if partition in (None, language) else (language, partition)
    kind = (first.partition("_")[0],) if layer == HISTORIES else ()
    return kind if partition is None else (*kind, partition)


def _asset_of(layer: str, key: Key) -> tuple[dg.AssetKey, str | None]:
    """The asset and partition of a partition of the lake: `_key_of`, the other way."""
    import dagster as dg

    if layer == HISTORIES:
        return dg.AssetKey(f"{key[0]}_history"), key[1]
    if layer == "published":
        return dg.AssetKey([layer, key[0]]), None
    if len(key) == 2:
        return dg.AssetKey([key[0], layer]), key[1]
    of_language = layer in {"speech_index", "text_index", "text_duplicates"}
    return dg.AssetKey([key[0], layer] if of_language else [layer]), key[0] if key else None


def _of_asset(asset: dg.AssetKey, recorded: Recorded, lake: Lake, keys: list[Key]) -> Iterator[Finding]:
    layer = _layer_of(asset)
    known = {_key_of(asset, partition): version for partition, version in recorded.items()}
    for key in keys:
        current = lake.find(layer, *key) if _asset_of(layer, key)[0] == asset else None
        if current is not None and known.get(key, "") != current.data_version:
            yield _unrecorded(layer, key, known.get(key, ""), current.data_version)
    for key in sorted(set(known) - set(keys)):
        yield _lost(layer, key)


def _last(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Iterator[dg.AssetMaterialization]:
    """The last materialization of every partition of an asset, a thousand records at a time."""
    import dagster as dg
    from dagster._core.events import DagsterEventType

    materialized = DagsterEventType.ASSET_MATERIALIZATION
    latest = instance.event_log_storage.get_latest_storage_id_by_partition(asset, materialized)
    ids = iter(sorted(latest.values()))
    while page := _page(ids):
        records = dg.AssetRecordsFilter(asset_key=asset, storage_ids=page)
        for found in instance.fetch_materializations(records, limit=PAGE).records:
            if found.asset_materialization is not None:
                yield found.asset_materialization
    whole = None if latest else instance.get_latest_materialization_event(asset)
    if whole is not None and whole.asset_materialization is not None:
        yield whole.asset_materialization


def _page(ids: Iterator[int]) -> list[int]:
    return [number for number, _ in zip(ids, range(PAGE), strict=False)]


def _version(made: dg.AssetMaterialization) -> str | None:
    """The content's; a batch tells it in its metadata, since Dagster's own version is of code and inputs there."""
    told = made.metadata.get("data_version")
    return str(told.value) if told is not None else (made.tags or {}).get("dagster/data_version")


def _unrecorded(layer: str, key: Key, recorded: str | None, current: str) -> Finding:
    before = f"Dagster remembers {recorded}" if recorded else "Dagster remembers none"
    return Finding(
        "unrecorded",
        layer,
        key,
        f"the files are {current}, and {before}",
        "nothing that is made of it is asked for by itself",
        "told to Dagster as materialized",
        "record",
        current,
    )


def _lost(layer: str, key: Key) -> Finding:
    return Finding(
        "lost",
        layer,
        key,
        "Dagster remembers a materialization, and the lake has no such partition",
        "what is made of it fails, and nothing asks for it by itself",
        f"materialize {asset_of(layer, key)}; or wipe the asset in Dagster, which forgets all of its partitions",
    )
