"""Assets that are listed and not made here: how Dagster is told that one is new, or changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG


def report_listed(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str, version: str, metadata: Mapping[str, Any]
) -> None:
    """Tell of a partition that is new or changed: what it leads to is stale then, and nothing else.

    What is stale follows from observations; the page of a partition shows materializations only. The two take 5 to
    20 ms.
    """
    for kind in (dg.AssetObservation, dg.AssetMaterialization):
        instance.report_runless_asset_event(
            kind(key, partition=partition, metadata=dict(metadata), tags={DATA_VERSION_TAG: version})
        )
