"""Asset checks as their runs evaluate them, without a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg

from resources.storage import Storage


def evaluated(
    checks: Iterable[dg.AssetChecksDefinition], storage: Storage, asset: str, partition: str | None
) -> dict[str, dg.AssetCheckResult]:
    """Run every check of an asset, as its run does after the asset is materialized."""
    context = [dg.build_op_context(partition_key=partition)] if partition else []
    return {
        key.name: definition.op.compute_fn.decorated_fn(*context, storage=storage)  # type: ignore[union-attr]
        for definition in checks
        for key in definition.check_keys
        if key.asset_key.to_user_string() == asset
    }


def offending(result: dg.AssetCheckResult) -> list[dict[str, Any]]:
    """The rows that a check shows."""
    table = result.metadata["offending_rows"]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]
