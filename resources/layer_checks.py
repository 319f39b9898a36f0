"""The checks of a layer, in one step for all languages.

A check alone in its step cost a pod, and 2 ms whenever code loads: half a second in forty languages. A run is of the
audiobooks of one language, so a step seldom waits for more than one. What belongs here is how such a step is made. What
must hold of a layer is said where the layer is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import getdoc

import dagster as dg

from resources.compute import CHECK, pod_retries, step_tags
from resources.settings import Settings
from resources.storage import Storage


@dataclass(frozen=True)
class LayerCheck:
    """What must hold of a layer."""

    layer: str
    name: str
    judge: Callable[[Storage, str], dg.AssetCheckResult]
    """Of the lake and a language; its docstring says what must hold."""


def layer_checks(
    name: str, keys: Mapping[str, dg.AssetKey], asked: Sequence[LayerCheck], settings: Settings
) -> dg.AssetChecksDefinition:
    """One step for all checks of a layer; the UI still shows and runs each by itself.

    Args:
        name: of the layer.
        keys: language → its asset.
        asked: the layer's checks, in the order in which they are made.
        settings: what the step's pod gets; `kubernetes.assets` names it `<layer>_checks`.
    """
    step = f"{name}_checks"
    planned = {
        dg.AssetCheckKey(key, check.name): (language, check) for language, key in keys.items() for check in asked
    }

    @dg.multi_asset_check(
        name=step,
        specs=[
            dg.AssetCheckSpec(key.name, asset=key.asset_key, description=getdoc(check.judge))
            for key, (_, check) in planned.items()
        ],
        can_subset=True,
        op_tags=step_tags(CHECK, step, settings),
        retry_policy=pod_retries(settings),
    )
    def _checks(context: dg.AssetCheckExecutionContext, storage: Storage) -> Iterator[dg.AssetCheckResult]:
        selected = context.selected_asset_check_keys
        for key, (language, check) in planned.items():
            if key in selected:
                yield check.judge(storage, language)._replace(asset_key=key.asset_key, check_name=key.name)

    return _checks
