"""Automation: the sensors and schedules that keep the lake up to date when they are turned on.

The conditions themselves stand at each asset. All of it is off until a person turns it on in the UI.
"""

from __future__ import annotations

import dagster as dg

from resources.settings import Settings


def automation(settings: Settings) -> tuple[list[dg.SensorDefinition], list[dg.ScheduleDefinition]]:
    """The sensor that evaluates every asset's condition, and the schedule that reads the catalogue again."""
    conditions = dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=30,
        description="New recordings lead to their audiobook's layers, their language's index at the next tick of "
        "S2S_REMINE_CRON, and exactly that language's pairs; a changed threshold to corpora alone. What was there "
        "before it was first turned on wants one backfill by hand. The sensor `audiobooks` brings the recordings.",
    )
    read_catalogue = dg.ScheduleDefinition(
        name="read_catalogue",
        target=dg.AssetSelection.assets("catalogue"),
        cron_schedule=settings.catalogue_cron,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Reads the catalogue; audiobooks it did not know become partitions.",
    )
    return [conditions], [read_catalogue]
