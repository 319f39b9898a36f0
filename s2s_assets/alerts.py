"""Alerts of runs: a run that failed, a blocking check that did, and the first run that makes good again.

What belongs here is what is worth an alert, and what is said once and not five hundred times. The ways out are in
`resources.alerts`; indexes and corpora that are old are `freshness`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from resources.alerts import Alert, Alerts, Kind
from resources.settings import Settings

Clock = Callable[[], datetime]
STATE = "s2s_alert/"
"""Before the keys under which the instance keeps what was told."""
NAMED = 20


@dataclass(frozen=True)
class Trouble:
    """What went wrong with one thing: an asset, or one pair's."""

    subject: str
    """Such as `deu/raw_audio`, or `s2s_corpus deu-eng`: what fails again is the same subject."""
    kind: Kind
    message: str


@dataclass(frozen=True)
class Known:
    """What the instance remembers of a subject."""

    told_at: str = ""
    """When the last alert of its failing went out, ISO 8601."""
    failing: bool = False
    since_then: int = 0
    """Failures since that alert."""

    @classmethod
    def read(cls, instance: dg.DagsterInstance, subject: str) -> Known:
        """From the instance; a subject that was never told of has the defaults."""
        told = instance.daemon_cursor_storage.get_cursor_values({_key(subject)}).get(_key(subject))
        return cls(**json.loads(told)) if told else cls()

    def write(self, instance: dg.DagsterInstance, subject: str) -> None:
        """Into the instance, where every process finds it, and a new one after a restart."""
        instance.daemon_cursor_storage.set_cursor_values({_key(subject): json.dumps(asdict(self), sort_keys=True)})

    def is_due(self, now: datetime, every: timedelta) -> bool:
        """Whether the last alert is long enough ago."""
        return not self.told_at or now - datetime.fromisoformat(self.told_at) >= every


def _key(subject: str) -> str:
    return STATE + hashlib.sha256(subject.encode()).hexdigest()[:32]


def alert_sensors(
    settings: Settings, *, clock: Clock = lambda: datetime.now(timezone.utc)
) -> list[dg.SensorDefinition]:
    """The sensors that follow every run of this code location."""

    @dg.run_failure_sensor(
        name="alert_on_failure",
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Alerts when a run fails, or a blocking check in it: once for an asset (or a pair's), then at most "
        f"every {settings.alerts.repeat_hours:g} hours, with the number of failures since.",
    )
    def _alert_on_failure(context: dg.RunFailureSensorContext) -> None:
        told = Alerts.of(settings, context.log)
        for trouble in troubles(context):
            _tell(context.instance, told, trouble, context.dagster_run, settings, clock())

    @dg.run_status_sensor(
        name="alert_on_recovery",
        run_status=dg.DagsterRunStatus.SUCCESS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Tells once when a run has made again what somebody was told had failed.",
    )
    def _alert_on_recovery(context: dg.RunStatusSensorContext) -> None:
        _recovered(context.instance, Alerts.of(settings, context.log), context.dagster_run, settings, clock())

    return [_alert_on_failure, _alert_on_recovery]


def troubles(context: dg.RunFailureSensorContext) -> list[Trouble]:
    """What failed in a run: its blocking checks, its steps, or the run itself where no step got to fail."""
    run = context.dagster_run
    checks = _blocking_checks(context.instance, run.run_id)
    failed = context.get_step_failure_events()
    steps = [(event.step_key or "", _message(event)) for event in failed if not _is_of(event.step_key, checks)]
    found = [Trouble(_subject(run, check.asset_key), "check_failed", _said(check)) for check in checks]
    found += [Trouble(_subject(run, _key_of(step)), "run_failed", message) for step, message in steps]
    return found or [
        Trouble(_whole(context.instance, run), "run_failed", str(context.failure_event.message or "no message"))
    ]


def _blocking_checks(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetCheckEvaluation]:
    """Checks of the run that failed and block what follows."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    events = [record.event_log_entry.dagster_event for record in records]
    found = [event.asset_check_evaluation_data for event in events if event is not None]
    return [check for check in found if not check.passed and check.blocking]


def _is_of(step: str | None, checks: Iterable[dg.AssetCheckEvaluation]) -> bool:
    """Whether a step failed because a check in it did."""
    return any(step == f"{'__'.join(check.asset_key.path)}_{check.check_name}" for check in checks)


def _said(check: dg.AssetCheckEvaluation) -> str:
    return f"check {check.check_name} failed{f': {check.description}' if check.description else ''}"


def _message(event: dg.DagsterEvent) -> str:
    """What the innermost error says, without its trace: that shows paths and values of variables."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return "no message" if error is None else error.message.strip()


def _key_of(step: str) -> dg.AssetKey:
    """Of an asset's step: `deu__raw_audio` is `deu/raw_audio`; another's step stands for itself."""
    return dg.AssetKey(step.split("__"))


def _subject(run: dg.DagsterRun, key: dg.AssetKey) -> str:
    """An asset; of a pair's, the pair too, but no audiobook: one server that is down would fail hundreds."""
    partition = run.tags.get(PARTITION_NAME_TAG, "")
    return f"{key.to_user_string()} {partition}".strip() if len(key.path) == 1 else key.to_user_string()


def _whole(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """All that a run was to make, for one that died as a whole."""
    return ", ".join(sorted(key.to_user_string() for key in _planned(instance, run))[:NAMED]) or run.job_name


def _planned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[dg.AssetKey]:
    """What a run was to make; one of a whole job names it in its events only."""
    if run.asset_selection:
        return set(run.asset_selection)
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    records = instance.get_records_for_run(run.run_id, of_type=planned).records
    return {record.asset_key for record in records if record.asset_key is not None}


def _tell(
    instance: dg.DagsterInstance,
    alerts: Alerts,
    trouble: Trouble,
    run: dg.DagsterRun,
    settings: Settings,
    now: datetime,
) -> None:
    known = Known.read(instance, trouble.subject)
    told = replace(known, failing=True, since_then=known.since_then + 1)
    if known.is_due(now, timedelta(hours=settings.alerts.repeat_hours)):
        again = f" It failed {known.since_then} times more since {known.told_at}." if known.since_then else ""
        text = f"{trouble.subject} failed: {trouble.message}{again}"
        details: dict[str, str | int | float] = {"run_id": run.run_id, "partitions": _partitions(run)}
        details["failures_since"] = known.since_then
        alert = Alert(trouble.kind, (trouble.subject,), text, now, _url(settings, run), details)
        if alerts.tell(alert):
            told = Known(now.isoformat(), failing=True)
    told.write(instance, trouble.subject)


def _recovered(
    instance: dg.DagsterInstance, alerts: Alerts, run: dg.DagsterRun, settings: Settings, now: datetime
) -> None:
    subjects = {_subject(run, key) for key in _planned(instance, run)} | {_whole(instance, run)}
    again = {subject: known for subject in sorted(subjects) if (known := Known.read(instance, subject)).failing}
    named = [subject for subject, known in again.items() if known.told_at]
    if named:
        text = f"Made again: {', '.join(named[:NAMED])}."
        details = {"run_id": run.run_id, "partitions": _partitions(run)}
        if not alerts.tell(Alert("recovered", tuple(named), text, now, _url(settings, run), details)):
            return
    for subject, known in again.items():
        replace(known, failing=False).write(instance, subject)


def _partitions(run: dg.DagsterRun) -> str:
    """One, or a range."""
    tags = run.tags
    ends = (tags.get(ASSET_PARTITION_RANGE_START_TAG), tags.get(ASSET_PARTITION_RANGE_END_TAG))
    return f"{ends[0]} to {ends[1]}" if ends[0] else tags.get(PARTITION_NAME_TAG, "")


def _url(settings: Settings, run: dg.DagsterRun) -> str:
    return f"{settings.alerts.ui_url.rstrip('/')}/runs/{run.run_id}" if settings.alerts.ui_url else ""
