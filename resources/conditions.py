"""When assets ask for themselves, where that is more than "as soon as something they are made of is new".

Nothing here does anything before the sensor `automation` is turned on.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

Condition = dg.AutomationCondition[Any]


def on_schedule(cron: str) -> Condition:
    """When blocks were embedded since the last index, and the schedule has ticked since."""
    updated: Condition = dg.AutomationCondition.any_deps_updated()
    ticked: Condition = dg.AutomationCondition.cron_tick_passed(cron)
    idle = ~dg.AutomationCondition.in_progress() & ~dg.AutomationCondition.any_deps_in_progress()
    wanted = updated.since_last_handled() & ticked.since_last_handled() & idle
    return wanted.with_label("new embeddings since the last index, and the schedule has ticked")


def eager_but_for(key: str) -> Condition:
    """As soon as anything but `key` is new.

    A promoted encoder makes every embedding of its languages stale; embedding all of them again is asked for by hand.
    """
    condition: Condition = dg.AutomationCondition.eager().ignore(dg.AssetSelection.assets(key))
    return condition


def once_after(first: dg.AssetKey, second: dg.AssetKey) -> Condition:
    """When `first` is new, as soon as `second` was made since: once for each time that `first` is.

    `second` is of the whole language and is new whenever any shard is: by itself it asks for nothing.
    """
    deps_updated = dg.AutomationCondition.any_deps_updated
    came: Condition = deps_updated().allow(dg.AssetSelection.assets(first))
    freed: Condition = deps_updated().allow(dg.AssetSelection.assets(second))
    absent: Condition = dg.AutomationCondition.missing().newly_true()
    either: Condition = came | absent
    wanted = either.since_last_handled()
    idle = ~dg.AutomationCondition.in_progress() & ~dg.AutomationCondition.any_deps_in_progress()
    ready = freed.since(came) & ~dg.AutomationCondition.any_deps_missing()
    return (wanted & ready & idle).with_label(f"{first.path[-1]} is new, and {second.path[-1]} was made since")
