"""When assets ask for themselves: Dagster's own conditions put together, since the daemon knows no others.

Nothing here does anything before the sensor `automation` is turned on. Dagster forgets that something is wanted as soon
as the asset is made, though what made it may have begun before: a search that goes on from three to five would hide an
index of four. Where runs take hours a wish is forgotten only when it is asked for, or when a person makes the asset.
What failed is asked for once more a day: by the next a server, a disk or a person may have helped.
"""

from __future__ import annotations

from typing import Any

import dagster as dg
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG

Condition = dg.AutomationCondition[Any]

AGAIN = "0 5 * * *"
"""When what failed is asked for once more, UTC."""


def eager() -> Condition:
    """As soon as anything it is made of is new and none of it is under way or held back."""
    return (_until_asked_for(_news()) & _ready() & ~_made_of_what_is_held()).with_label(
        "something it is made of is new, and nothing of it is held back"
    )


def eager_and_when_changed() -> Condition:
    """As soon as anything it is made of is new, or its code version changed: for layers that cost seconds.

    A threshold is part of a code version. Partitions that were never made are no matter of it.
    """
    wanted = _news().since_last_handled() | _changed_since_asked_for()
    checked = dg.AutomationCondition.all_deps_blocking_checks_passed()
    return (wanted & _ready() & checked).with_label("something it is made of is new, or its code version changed")


def eager_with_what_is_there() -> Condition:
    """As soon as anything it is made of is new, though others of it are missing: one that fails never stops it."""
    return (_until_asked_for(_news()) & _idle()).with_label("something it sums up is new")


def eager_with_what_is_there_and_when_changed() -> Condition:
    """The same, and when its code version changed: for what costs seconds."""
    wanted = _until_asked_for(_news()) | _changed_since_asked_for()
    return (wanted & _idle()).with_label("something it sums up is new, or its code version changed")


def on_schedule(cron: str) -> Condition:
    """When blocks were embedded since the last index, and the schedule ticks.

    Not while a blocking check of the index fails: it is made at the first tick after it passes.
    """
    held = _held()
    news: Condition = dg.AutomationCondition.any_deps_updated()
    ticked: Condition = dg.AutomationCondition.cron_tick_passed(cron)
    due = (_until_asked_for(news) & ticked & ~held) | _failed_before_today()
    return (_until_asked_for(due) & ~held & _idle()).with_label(
        "new embeddings since the last index, and the schedule ticked"
    )


def when_updated() -> Condition:
    """As soon as what it is made of is new; the sensor `audiobooks` asks for what is missing, and tries it again."""
    updated: Condition = dg.AutomationCondition.any_deps_updated()
    return (updated.since_last_handled() & _ready()).with_label("something it is made of is new")


def eager_but_for(key: str) -> Condition:
    """As soon as anything but `key` is new, and once more a day where it failed and was never made.

    A promoted encoder makes every embedding of its languages stale; those are embedded again in a budget, by the sensor
    `reembedding`, which tries its failures again itself.
    """
    came: Condition = dg.AutomationCondition.newly_missing() | dg.AutomationCondition.any_deps_updated()
    wanted = came.since_last_handled() | _never_made_since_asked_for()
    ready: Any = wanted & _ready()
    condition: Condition = ready.ignore(dg.AssetSelection.assets(key)).with_label(f"anything but {key} is new")
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
    wanted = either.since_last_handled() | _never_made_since_asked_for()
    ready = freed.since(came) & ~dg.AutomationCondition.any_deps_missing()
    return (wanted & ready & _idle()).with_label(f"{first.path[-1]} is new, and {second.path[-1]} was made since")


def _news() -> Condition:
    news: Condition = dg.AutomationCondition.newly_missing() | dg.AutomationCondition.any_deps_updated()
    return news | _failed_before_today()


def _failed_before_today() -> Condition:
    failed: Condition = dg.AutomationCondition.execution_failed()
    ticked: Condition = dg.AutomationCondition.cron_tick_passed(AGAIN)
    return (failed & ticked).with_label("it failed on another day")


def _never_made_since_asked_for() -> Condition:
    """For partitions by the thousand: no run is looked up for any of them."""
    trigger = dg.AutomationCondition.missing() & _failed_before_today()
    return trigger.since(dg.AutomationCondition.newly_requested())


def _until_asked_for(trigger: Condition) -> Condition:
    """From when `trigger` was true until the asset is asked for, or made by a person; not at the first evaluation.

    What becomes true between the asking and the next evaluation is wanted once more.
    """
    asked = dg.AutomationCondition.newly_requested() & ~trigger
    # not executed_with_tags, which knows the run of the partition alone that was made last
    by_automation: Condition = dg.AutomationCondition.all_new_updates_have_run_tags(tag_keys={AUTOMATION_CONDITION_TAG})
    by_hand = dg.AutomationCondition.newly_updated() & ~by_automation
    handled = asked | by_hand | dg.AutomationCondition.initial_evaluation()
    return trigger.since(handled.with_label("asked for, or made by hand"))


def _changed_since_asked_for() -> Condition:
    """From when the code version changed until the asset is asked for, also where the old code made it meanwhile."""
    version: Condition = dg.AutomationCondition.code_version_changed()
    changed = version & ~dg.AutomationCondition.missing()
    asked: Condition = dg.AutomationCondition.newly_requested() & ~version
    return changed.since(asked).with_label("its code version changed")


def _idle() -> Condition:
    idle: Condition = ~dg.AutomationCondition.in_progress() & ~dg.AutomationCondition.any_deps_in_progress()
    return idle


def _ready() -> Condition:
    ready: Condition = ~dg.AutomationCondition.any_deps_missing() & _idle()
    return ready


def _held() -> Condition:
    """A blocking check of the asset failed, as `one_encoder` of an index does while a language is embedded again."""
    failed: Condition = dg.AutomationCondition.check_failed()
    return dg.AutomationCondition.any_checks_match(failed, blocking_only=True).with_label("held back")


def _made_of_what_is_held() -> Condition:
    """Something it is made of is held back, or was and is not made again yet: its vectors are not those it names."""
    return dg.AutomationCondition.any_deps_match(_held().since(dg.AutomationCondition.newly_updated()))
