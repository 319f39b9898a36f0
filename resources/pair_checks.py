"""A check of one layer of language pairs: a partition a pair, a step of its own.

What belongs here is how such a step is made. What must hold is said where the check is; those of the layers of
languages are `layer_checks`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from resources.compute import CHECK, pod_retries, step_tags
from resources.settings import Settings
from resources.storage import Lake, Storage


@dataclass(frozen=True)
class PairCheck:
    """What must hold of a pair."""

    layer: str
    name: str
    must_hold: str | None
    """As the UI shows it."""
    judge: Callable[[Lake, str], dg.AssetCheckResult]
    """Of the lake and a pair."""
    blocking: bool = False
    """Whether nothing broken goes downstream."""


def pair_check(check: PairCheck, pairs: dg.PartitionsDefinition[str], settings: Settings) -> dg.AssetChecksDefinition:
    """The step that makes a check of each pair.

    Args:
        check: what must hold.
        pairs: the layer's partitions.
        settings: what the step's pod gets.
    """

    @dg.asset_check(
        asset=check.layer,
        name=check.name,
        op_tags=step_tags(CHECK, check.name, settings),
        retry_policy=pod_retries(settings),
        description=check.must_hold,
        partitions_def=pairs,
        blocking=check.blocking,
    )
    def _check(context: dg.AssetCheckExecutionContext, storage: Storage) -> dg.AssetCheckResult:
        return check.judge(storage.lake, context.partition_key)

    return _check
