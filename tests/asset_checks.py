"""Asset checks as their runs evaluate them, without a run, and evaluations as runs record them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from resources.storage import Storage

Evaluated: TypeAlias = dg.AssetCheckResult | dg.AssetCheckEvaluation


def evaluated(
    checks: Iterable[dg.AssetChecksDefinition], storage: Storage, asset: str, partition: str | None
) -> dict[str, Evaluated]:
    """Run every check of an asset, as its run does after the asset is materialized."""
    found: dict[str, Evaluated] = {}
    for definition in checks:
        keys = [key for key in definition.check_keys if key.asset_key.to_user_string() == asset]
        if keys and partition is None:  # the checks of a layer are one step, which only a run can make
            found |= {told.check_name: told for told in _run(definition, keys, storage)}
        elif keys:
            context = dg.build_op_context(partition_key=partition)
            found[keys[0].name] = definition.op.compute_fn.decorated_fn(context, storage=storage)  # type: ignore[union-attr]
    return found


def _run(
    definition: dg.AssetChecksDefinition, keys: Sequence[dg.AssetCheckKey], storage: Storage
) -> list[dg.AssetCheckEvaluation]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = dg.materialize(
            [definition],
            selection=dg.AssetSelection.checks(*keys),
            instance=instance,
            resources={"storage": storage},
        )
        return made.get_asset_check_evaluations()


def offending(result: Evaluated) -> list[dict[str, Any]]:
    """The rows that a check shows."""
    table = result.metadata["offending_rows"]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def passing(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, check: str, *, whole: bool = False
) -> dg.AssetCheckEvaluation:
    """That a check passed of what was made last of a partition.

    Args:
        instance: that remembers it.
        key: of the asset.
        partition: of the asset; None where it has none.
        check: its name.
        whole: the check is of the whole asset, not of a partition.
    """
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
    record = instance.fetch_materializations(wanted, 1).records[0]
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=check,
        passed=True,
        metadata={},
        partition=None if whole else partition,
        target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        ),
    )
