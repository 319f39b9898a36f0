"""Freshness: which language's index and which pair's corpus lacks something that was there for too long.

An index that was made a year ago is fresh as long as nothing was embedded since; one that was made yesterday is old if
it lacks what was embedded a month ago. So age is counted from the first thing that is missing, never from the last
run. What belongs here is that judgement, and how it is shown; where alerts go is `resources.alerts`.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import polars as pl

from partitions.language_pairs import split
from partitions.languages import layer
from resources.alerts import Alert, Alerts
from resources.compute import CHECK, OWNERS, pod_retries, step_tags
from resources.metadata import rows
from resources.record_times import Made, RecordTimes
from resources.settings import Settings
from resources.storage import Lake, Storage
from speech_mining.knn.roll import SPEECH, TEXT, Layout
from speech_mining.mining.kinds import KINDS, Kind
from speech_mining.records import Schema

KEY = "freshness"
LANGUAGES, PAIRS = "languages_hold_what_was_embedded", "pairs_hold_what_was_indexed"
CHAIN = ("neighbours", "pairs", "corpus")
NAMED = 20
"""Subjects that a text names; the table has them all."""

Clock = Callable[[], datetime]
AGES: Schema = {
    "target": pl.String(),
    "lacks": pl.String(),
    "since": pl.Datetime("us", "UTC"),
    "days": pl.Float64(),
    "limit_days": pl.Float64(),
    "old": pl.Boolean(),
}


@dataclass(frozen=True)
class Age:
    """How far an index, a corpus or the catalogue is behind."""

    target: str
    """Such as `deu/speech_index`, `s2s_corpus deu-eng`, `catalogue`."""
    limit_days: float
    lacks: str = ""
    """The layer whose first news is missing; empty where nothing is."""
    since: datetime | None = None
    """When that was made."""

    def days(self, now: datetime) -> float:
        """For how long something is missing; 0 where nothing is."""
        return 0.0 if self.since is None else (now - self.since) / timedelta(days=1)

    def is_old(self, now: datetime) -> bool:
        """Whether it is missing for longer than the policy allows."""
        return self.days(now) > self.limit_days


def ages(records: RecordTimes, lake: Lake, settings: Settings) -> list[Age]:
    """Of everything that has a policy: the catalogue, every index, every pair of every kind."""
    return [*_catalogue(records, settings), *language_ages(records, lake, settings), *pair_ages(records, settings)]


# Languages


def language_ages(records: RecordTimes, lake: Lake, settings: Settings) -> list[Age]:
    """Of every index of speech and of text."""
    policy = settings.freshness
    sides = [(SPEECH, language) for language in settings.languages]
    sides += [(TEXT, language) for language in settings.text_languages]
    return [
        replace(
            _of_index(records, lake, layout, language), limit_days=policy.languages.get(language, policy.index_days)
        )
        for layout, language in sides
    ]


def _of_index(records: RecordTimes, lake: Lake, layout: Layout, language: str) -> Age:
    """What the index lacks, by the log first; what the log cannot tell is looked up in the roll and the lake."""
    age = Age(layer(language, layout.index).to_user_string(), 0.0)
    place = records.latest(layer(language, layout.index)).get(language)
    began = None if place is None else records.began(layer(language, layout.index), place)
    came = records.since(layer(language, layout.embeddings), after=began)
    missing = next(_missing(came, lake, layout, language), None)
    return age if missing is None else replace(age, lacks=layout.embeddings, since=missing.at)


def _missing(came: Iterator[Made], lake: Lake, layout: Layout, language: str) -> Iterator[Made]:
    """Those whose content the index does not hold; the roll is read when the first one came, a book at most once."""
    held: Mapping[str, str] | None = None
    for made in came:
        if held is None:
            held = _held(lake, layout, language)
        block = str(made.partition)
        there = lake.find(layout.embeddings, language, block)
        if there is not None and held.get(block) != there.data_version:
            yield made


def _held(lake: Lake, layout: Layout, language: str) -> Mapping[str, str]:
    """Block → the version of its embeddings in the index; a block of text has what repeats in it behind a dash."""
    index = lake.find(layout.index, language)
    if index is None:
        return {}
    blocks = index.read_table("roll.parquet", layout.roll).select(layout.block, "data_version")
    return {name: version.partition("-")[0] for name, version in blocks.iter_rows()}


# Pairs


def pair_ages(records: RecordTimes, settings: Settings) -> list[Age]:
    """Of every pair of every kind: six questions to the log for each kind and language, however many pairs there are.

    A link of the chain index → neighbours → pairs → corpus that lags costs one more.
    """
    policy = settings.freshness
    return [
        replace(_of_pair(records, kind, pair), limit_days=policy.pairs.get(pair, policy.pair_days))
        for kind in KINDS
        for pair in settings.pairs_of(kind.name)
    ]


def _of_pair(records: RecordTimes, kind: Kind, pair: str) -> Age:
    lags = [*_behind_indexes(records, kind, pair), *_behind_itself(records, kind, pair)]
    age = Age(f"{kind.layer('corpus')} {pair}", 0.0)
    if not lags:
        return age
    lacks, since = min(lags, key=lambda lag: lag[1])
    return replace(age, lacks=lacks, since=since)


def _behind_indexes(records: RecordTimes, kind: Kind, pair: str) -> Iterator[tuple[str, datetime]]:
    """Indexes that were made anew, with other content, since the neighbours were searched."""
    keys = [
        (layer(language, layout.index), language) for layout, language in zip(kind.layouts, split(pair), strict=True)
    ]
    if any(language not in records.latest(key) for key, language in keys):
        return  # nothing to search yet
    place = records.latest(dg.AssetKey(kind.layer("neighbours"))).get(pair)
    if place is None:  # there is something to search since the second of the two came
        first = [next(records.since(key)).at for key, _ in keys]
        yield keys[first.index(max(first))][0].to_user_string(), max(first)
        return
    for key, language in keys:
        if records.latest(key)[language] > place and (changed := _changed(records, key, place)) is not None:
            yield key.to_user_string(), changed.at


def _changed(records: RecordTimes, key: dg.AssetKey, place: int) -> Made | None:
    """The first materialization after a place whose content is other than what was there then."""
    before = records.last_before(key, place)
    known = None if before is None else before.data_version
    return next((made for made in records.since(key, place) if known is None or made.data_version != known), None)


def _behind_itself(records: RecordTimes, kind: Kind, pair: str) -> Iterator[tuple[str, datetime]]:
    """Layers of the pair that were made anew since what is made of them."""
    for name, following in itertools.pairwise(CHAIN):
        key, after = dg.AssetKey(kind.layer(name)), dg.AssetKey(kind.layer(following))
        place = records.latest(after).get(pair, 0)
        if records.latest(key).get(pair, 0) > place:
            yield key.to_user_string(), next(records.since(key, place, partition=pair)).at


def _catalogue(records: RecordTimes, settings: Settings) -> Iterator[Age]:
    """Nothing says what the catalogue lacks before it is read again: its age is the last reading's."""
    limit = settings.freshness.catalogue_days
    if limit is not None:
        read_at = records.last_at(dg.AssetKey("catalogue"))
        yield Age("catalogue", limit, "a reading" if read_at else "", read_at)


# What Dagster is shown


def freshness(settings: Settings) -> dg.AssetSpec:
    """The table of ages, told by the sensor; no run makes it, so that no backfill of pairs carries it along."""
    return dg.AssetSpec(
        KEY,
        group_name="operations",
        kinds={"table"},
        code_version="1",
        owners=OWNERS,
        description="What every language's index and every pair's corpus lacks, and since when: told by the sensor "
        f"`freshness`. Old is what lacks something for longer than {settings.freshness.index_days:g} days (an index) "
        f"or {settings.freshness.pair_days:g} (a pair), unless freshness.languages or freshness.pairs say otherwise.",
    )


def with_policy(catalogue: dg.AssetsDefinition, settings: Settings) -> dg.AssetsDefinition:
    """The catalogue with Dagster's own freshness policy, and so a badge, where its age matters.

    Only here: that policy compares the last materialization, of whatever partition, with the clock.
    """
    days = settings.freshness.catalogue_days
    if days is None:
        return catalogue
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=days))
    return catalogue.map_asset_specs(lambda spec: dg.apply_freshness_policy(spec, policy))


def freshness_checks(
    settings: Settings, *, clock: Clock = lambda: datetime.now(timezone.utc)
) -> list[dg.AssetChecksDefinition]:
    """The judgement as two checks; the sensor records their outcome, and a person may run them at any time."""

    @dg.asset_check(
        asset=KEY, name=LANGUAGES, op_tags=step_tags(CHECK, LANGUAGES, settings), retry_policy=pod_retries(settings)
    )
    def _languages(context: dg.AssetCheckExecutionContext, storage: Storage) -> dg.AssetCheckResult:
        """No index lacks for longer than its policy allows what was embedded."""
        found = language_ages(RecordTimes(context.instance), storage.lake, settings)
        return dg.AssetCheckResult(**_outcome(found, clock()))

    @dg.asset_check(
        asset=KEY, name=PAIRS, op_tags=step_tags(CHECK, PAIRS, settings), retry_policy=pod_retries(settings)
    )
    def _pairs(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """No corpus lacks for longer than its policy allows what was indexed, searched or scored."""
        return dg.AssetCheckResult(**_outcome(pair_ages(RecordTimes(context.instance), settings), clock()))

    return [_languages, _pairs]


def _outcome(found: Sequence[Age], now: datetime) -> dict[str, Any]:
    """Arguments of a check's result: a warning, with the rows that are old."""
    old = [age for age in found if age.is_old(now)]
    evidence = {"offending_rows": rows(_table(old, now), limit=1000)} if old else {}
    return {
        "passed": not old,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": _named(old, now) or "None is old",
        "metadata": {"judged": len(found), "old": len(old), **evidence},
    }


def _table(found: Sequence[Age], now: datetime) -> pl.DataFrame:
    """`AGES`, the oldest first."""
    told = [
        (age.target, age.lacks, age.since, round(age.days(now), 2), age.limit_days, age.is_old(now)) for age in found
    ]
    return pl.DataFrame(told, schema=AGES, orient="row").sort("old", "days", "target", descending=[True, True, False])


def _named(found: Sequence[Age], now: datetime) -> str:
    """In words, the oldest first."""
    oldest = sorted(found, key=lambda age: (-age.days(now), age.target))
    told = [f"{age.target} lacks {age.lacks} since {age.since:%Y-%m-%d} ({age.days(now):.0f} d)" for age in oldest]
    more = [f"and {len(told) - NAMED} more"] if len(told) > NAMED else []
    return "; ".join([*told[:NAMED], *more])


# The sensor


@dataclass(frozen=True)
class Told:
    """What is known to be old, and when somebody was told of it last: the sensor's cursor."""

    at: Mapping[str, str]
    """Target → when it was told, ISO 8601; empty for one that nobody took."""
    shown_at: str = ""
    """When the table was shown last."""

    @classmethod
    def read(cls, cursor: str | None) -> "Told":
        """From the cursor; none is the beginning."""
        return cls(**json.loads(cursor)) if cursor else cls({})

    def written(self) -> str:
        """As a cursor."""
        return json.dumps({"at": self.at, "shown_at": self.shown_at}, sort_keys=True)

    def due(self, old: Iterable[Age], now: datetime, every: timedelta) -> list[Age]:
        """Of what is old, that of which nobody was told, or long enough ago."""
        return [age for age in old if not (at := self.at.get(age.target)) or now - datetime.fromisoformat(at) >= every]

    def recovered(self, found: Iterable[Age], now: datetime) -> list[str]:
        """Of what somebody was told is old, that which is so no more."""
        return [age.target for age in found if self.at.get(age.target) and not age.is_old(now)]


def freshness_sensor(settings: Settings, *, clock: Clock = lambda: datetime.now(timezone.utc)) -> dg.SensorDefinition:
    """The sensor that looks although nothing runs."""
    policy = settings.freshness

    @dg.sensor(
        name="freshness",
        minimum_interval_seconds=round(60 * policy.every_minutes),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Looks for indexes and corpora that lack something for longer than their policy allows, shows them "
        "as the asset `freshness`, and alerts: once when one becomes old, then at most every "
        f"{settings.alerts.repeat_hours:g} hours, and once when it is fresh again. It starts no run.",
    )
    def _freshness(context: dg.SensorEvaluationContext, storage: Storage) -> dg.SensorResult:
        now, records = clock(), RecordTimes(context.instance)
        found = ages(records, storage.lake, settings)
        before = Told.read(context.cursor)
        after = _tell(
            Alerts.of(settings, context.log), before, found, now, timedelta(hours=settings.alerts.repeat_hours)
        )
        if _worth_showing(before, after, now):
            _show(context.instance, found, now)
            after = replace(after, shown_at=now.isoformat())
        old = [age for age in found if age.is_old(now)]
        return dg.SensorResult(
            cursor=after.written(), skip_reason=f"{len(old)} of {len(found)} are old. {_named(old, now)}".strip()
        )

    return _freshness


def _tell(alerts: Alerts, before: Told, found: Sequence[Age], now: datetime, every: timedelta) -> Told:
    """Alert of what became old and of what is fresh again; one message for all of a kind."""
    old = [age for age in found if age.is_old(now)]
    told_at = {age.target: before.at.get(age.target, "") for age in old}
    if due := before.due(old, now, every):
        text = f"{len(due)} of {len(found)} are older than they may be: {_named(due, now)}."
        days = {age.target: round(age.days(now), 2) for age in due}
        if alerts.tell(Alert("stale", tuple(age.target for age in due), text, now, details=days)):
            told_at |= dict.fromkeys(days, now.isoformat())
    if fresh := before.recovered(found, now):
        text = f"Fresh again: {', '.join(fresh[:NAMED])}{' …' if len(fresh) > NAMED else ''}."
        if not alerts.tell(Alert("recovered", tuple(fresh), text, now)):
            told_at |= {target: before.at[target] for target in fresh}
    return replace(before, at=told_at)


def _worth_showing(before: Told, after: Told, now: datetime) -> bool:
    """Something became old or fresh, or a day has passed: a row an hour would bury what changed."""
    if not before.shown_at or set(before.at) != set(after.at):
        return True
    return now - datetime.fromisoformat(before.shown_at) >= timedelta(days=1)


def _show(instance: dg.DagsterInstance, found: Sequence[Age], now: datetime) -> None:
    """Record the table and the outcome of both checks, as a run would."""
    old = sum(age.is_old(now) for age in found)
    shown: dict[str, Any] = {"judged": len(found), "old": old, "ages": rows(_table(found, now), limit=1000)}
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY, metadata=shown))
    languages = [age for age in found if age.target.endswith("_index")]
    pairs = [age for age in found if " " in age.target]
    for name, judged in ((LANGUAGES, languages), (PAIRS, pairs)):
        outcome = _outcome(judged, now)
        metadata = {key: _entry(value) for key, value in outcome.pop("metadata").items()}
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=dg.AssetKey(KEY), check_name=name, metadata=metadata, **outcome)
        )


def _entry(value: Any) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.int(value) if isinstance(value, int) else value
