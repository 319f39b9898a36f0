"""Re-embedding: the sensor that embeds a language again after another version of its student was promoted.

What belongs here is which audiobooks are asked for, how many a day, and what waits meanwhile: vectors of two versions
cannot be compared, so a language that is half embedded again is neither indexed nor mined. The check `one_encoder` of
its index fails until the last book is done; the index follows at the next tick of its schedule.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from partitions.audiobooks import known_audiobooks
from partitions.batches import Batch, batches, runs_under_way
from partitions.languages import layer
from resources.compute import CHECK as OF_CHECKS
from resources.compute import pod_retries, step_tags
from resources.metadata import rows
from resources.operation_settings import ReembeddingSettings
from resources.settings import STUDENT, Settings
from resources.storage import Lake, Storage
from speech_mining.encoders.promoted import current_version
from speech_mining.errors import LakeError

NAME, CHECK, LAYER = "reembedding", "one_encoder", "speech_embeddings"
TAGS = {"s2s/asked_by": NAME, "dagster/priority": "-1"}
"""On every run that is asked for here. New audiobooks, of priority 0, go first."""
READS_A_TICK = 1000
"""Partitions whose version is read in one tick: 0.3 s on a disk, half a minute on an object store."""
LATE_EVENTS = 200
"""Events that are looked at again: on Postgres one may become visible after another of a higher number."""


@dataclass(frozen=True)
class Renewal:
    """How far a language is with the version in force."""

    version: str
    unread: Sequence[str]
    """Audiobooks whose embeddings are to be looked at."""
    left: Sequence[str] = ()
    """Those of another version that were not asked for."""
    tried: Mapping[str, str] = field(default_factory=dict)
    """Those of another version that were → the day on which they were last."""
    begun: bool = False
    """Whether any is of the version in force, or may be."""
    held: bool = False
    """Whether its index was last said to wait."""
    told_on: str = ""
    """The day on which that was said."""

    @property
    def outstanding(self) -> int:
        """Audiobooks that are known to be of another version."""
        return len(self.left) + len(self.tried)

    @property
    def mixed(self) -> bool:
        """Whether its vectors are of two versions; what is not read yet leaves it at what was said."""
        return self.begun and bool(self.outstanding or (self.unread and self.held))

    def following(self, version: str, known: Sequence[str], changed: set[str]) -> Renewal:
        """After what happened since: books embedded anew are looked at, after a promotion all are."""
        if version != self.version:
            return replace(Renewal(version, tuple(known)), begun=self.mixed, held=self.held, told_on=self.told_on)
        waiting = set(self.unread)
        news = [book for book in known if book in changed and book not in waiting]
        return replace(self, unread=[*self.unread, *news])

    def having_read(self, found: Mapping[str, str | None], known: Sequence[str]) -> Renewal:
        """After the versions of some books were read; None: the book is not embedded."""
        other = {book for book, version in found.items() if version not in (None, self.version)}
        settled = set(found) - other
        left = (set(self.left) | (other - set(self.tried))) - settled
        return replace(
            self,
            unread=[book for book in self.unread if book not in found],
            left=[book for book in known if book in left],
            tried={book: day for book, day in self.tried.items() if book not in settled and book in set(known)},
            begun=self.begun or self.version in found.values(),
        )

    def having_asked(self, books: Sequence[str], day: str) -> Renewal:
        """After some books were asked for."""
        left = [book for book in self.left if book not in set(books)]
        return replace(self, left=left, tried={**self.tried, **dict.fromkeys(books, day)}, begun=True)


@dataclass(frozen=True)
class Position:
    """What was seen and asked for so far: the sensor's cursor."""

    renewals: Mapping[str, Renewal] = field(default_factory=dict)
    event: int = 0
    """Number of the last event that was seen."""
    day: str = ""
    asked: int = 0
    """Audiobooks that were asked for on that day."""

    @classmethod
    def read(cls, cursor: str | None) -> Position:
        """From the cursor; none is the beginning."""
        if not cursor:
            return cls()
        told = json.loads(zlib.decompress(base64.b64decode(cursor)))
        renewals = {language: Renewal(**renewal) for language, renewal in told.pop("renewals").items()}
        return cls(renewals, **told)

    def written(self) -> str:
        """As a cursor: 14 500 books that are left take 40 kB."""
        return base64.b64encode(zlib.compress(json.dumps(asdict(self), sort_keys=True).encode())).decode()

    def on(self, day: str) -> Position:
        """With the budget of a day."""
        return self if day == self.day else replace(self, day=day, asked=0)

    def having(self, language: str, renewal: Renewal) -> Position:
        """With a language's renewal replaced."""
        return replace(self, renewals={**self.renewals, language: renewal})

    def after(self, asked: Wanted) -> Position:
        """Once a run is asked for."""
        renewal = self.renewals[asked.language].having_asked(asked.batch.books, self.day)
        return replace(self.having(asked.language, renewal), asked=self.asked + len(asked.batch.books))


@dataclass(frozen=True)
class Wanted:
    """A run that may be asked for."""

    language: str
    batch: Batch
    version: str
    day: str

    def request(self) -> dg.RunRequest:
        """To Dagster; the same books on the same day for the same version are one run, however often asked for."""
        return self.batch.request(
            [NAME, self.language, self.version, self.day, *self.batch.books],
            [layer(self.language, LAYER)],
            {**TAGS, "s2s/language": self.language, "s2s/encoder_version": self.version},
        )


def students_of(settings: Settings) -> dict[str, str]:
    """Language → the student that embeds its speech, for those that one embeds."""
    chosen = {language: settings.encoder_of(language) for language in settings.languages}
    return {language: name.removeprefix(STUDENT) for language, name in chosen.items() if name.startswith(STUDENT)}


def reembedding(
    settings: Settings, *, clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
) -> list[dg.SensorDefinition]:
    """The sensor; none where no language is embedded by a student."""
    students, budget = students_of(settings), settings.reembedding
    if not students:
        return []

    @dg.sensor(
        name=NAME,
        asset_selection=dg.AssetSelection.assets(*(layer(language, LAYER) for language in students)),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="After a promotion the audiobooks of the languages that use the student are embedded again, at "
        f"most {budget.books_a_day} a day and {budget.most_runs} runs at once. Until the last of a language is done, "
        "its index and its pairs wait.",
    )
    def _reembedding(context: dg.SensorEvaluationContext, storage: Storage) -> dg.SensorResult:
        position = Position.read(context.cursor).on(clock().date().isoformat())
        known = {language: known_audiobooks(context.instance, language) for language in students}
        position = _looked_around(position, context.instance, storage.lake, students, known)
        wanted = list(_affordable(position, context.instance, budget, known))
        for each in wanted:
            position = position.after(each)
        told = _progress(position, context.instance, budget)
        position = _tell_indexes(position, context.instance, told)
        for line in told.values():
            context.log.info(line)
        if wanted:
            return dg.SensorResult(run_requests=[each.request() for each in wanted], cursor=position.written())
        reason = "; ".join(told.values()) or "Every audiobook is of the version in force."
        return dg.SensorResult(skip_reason=reason, cursor=position.written())

    return [_reembedding]


def one_encoder(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """The check that an index waits for, of each language that a student embeds."""
    return [_one_encoder(language, settings) for language in students_of(settings)]


def _one_encoder(language: str, settings: Settings) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=layer(language, "speech_index"),
        name=CHECK,
        blocking=True,
        op_tags=step_tags(OF_CHECKS, CHECK, settings),
        retry_policy=pod_retries(settings),
    )
    def _check(storage: Storage) -> dg.AssetCheckResult:
        """All audiobooks of the language are embedded by one version of one encoder; else its index and pairs wait.

        The sensor `reembedding` says so too while it embeds a language again.
        """
        lake = storage.lake
        found = Counter(_made_by(lake, language, book) for book in lake.keys(LAYER, language))
        table = [{"encoder": made_by, "audiobooks": books} for made_by, books in sorted(found.items(), key=str)]
        return dg.AssetCheckResult(
            passed=len(found) <= 1,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"encoders": rows(pl.DataFrame(table))},
        )

    return _check


# What there is


def _looked_around(
    position: Position,
    instance: dg.DagsterInstance,
    lake: Lake,
    students: Mapping[str, str],
    known: Mapping[str, Sequence[str]],
) -> Position:
    """The position after what was promoted and embedded since; a tick reads so much and no more."""
    until = instance.event_log_storage.get_maximum_record_id() or 0
    room, renewals = READS_A_TICK, {}
    for language, student in students.items():
        version = current_version(lake, student)
        if version is None:  # nothing can be embedded yet
            continue
        earlier = position.renewals.get(language) or Renewal(version, tuple(known[language]))
        changed = _embedded_since(instance, language, position.event)
        renewal = earlier.following(version, known[language], changed)
        found = {book: _version(lake, language, book) for book in islice(renewal.unread, room)}
        room -= len(found)
        renewals[language] = renewal.having_read(found, known[language])
    return replace(position, renewals=renewals, event=until)


def _embedded_since(instance: dg.DagsterInstance, language: str, event: int) -> set[str]:
    after = max(1, event - LATE_EVENTS)
    return set(instance.get_materialized_partitions(layer(language, LAYER), after_cursor=after)) if event else set()


def _version(lake: Lake, language: str, book: str) -> str | None:
    """The version that embedded a book; None where none did, none of any name where it cannot be read."""
    for _ in range(2):  # a run may replace it between two files
        found = lake.find(LAYER, language, book)
        if found is None:
            return None
        try:
            return str(found.read_json("encoder.json")["version"])
        except (LakeError, ValueError):
            continue
    return ""


def _made_by(lake: Lake, language: str, book: str) -> str:
    encoder = lake.partition(LAYER, language, book).read_json("encoder.json")
    return f"{encoder['name']} {encoder['version']}"


# What is asked for


def _affordable(
    position: Position,
    instance: dg.DagsterInstance,
    budget: ReembeddingSettings,
    known: Mapping[str, Sequence[str]],
) -> Iterator[Wanted]:
    """Runs within the day's budget and the runs that may be under way."""
    books = budget.books_a_day - position.asked
    runs = budget.most_runs - runs_under_way(instance, TAGS)
    for language, renewal in _in_turn(position):
        due = _due(renewal, position.day, instance, language)[: max(0, books)]
        for batch in batches(known[language], due, budget.books_a_run)[: max(0, runs)]:
            books, runs = books - len(batch.books), runs - 1
            yield Wanted(language, batch, renewal.version, position.day)


def _in_turn(position: Position) -> list[tuple[str, Renewal]]:
    """The language that is done soonest first, since each waits until its last book."""
    return sorted(position.renewals.items(), key=lambda each: (each[1].outstanding, each[0]))


def _due(renewal: Renewal, day: str, instance: dg.DagsterInstance, language: str) -> list[str]:
    """Books not asked for; when there are none, those that were on another day, and no run is at them any more."""
    if renewal.left:
        return list(renewal.left)
    again = [book for book, tried_on in renewal.tried.items() if tried_on < day]
    return [] if not again or runs_under_way(instance, {**TAGS, "s2s/language": language}) else again


# What is told


def _progress(position: Position, instance: dg.DagsterInstance, budget: ReembeddingSettings) -> dict[str, str]:
    """Language → how far it is, for those that are not done."""
    told, before = {}, 0
    for language, renewal in _in_turn(position):
        if not renewal.outstanding:
            continue
        before += renewal.outstanding
        embedded = len(instance.get_materialized_partitions(layer(language, LAYER)))
        done = max(0, embedded - renewal.outstanding)
        told[language] = (
            f"{_spaced(done)} of {_spaced(embedded)} audiobooks of {language} are embedded by version "
            f"{renewal.version}, {_days(before, budget)}{_failing(renewal, position.day)}"
        )
    return told


def _days(books: int, budget: ReembeddingSettings) -> str:
    if not budget.books_a_day:
        return "the rest is to be asked for by hand (reembedding.books_a_day is 0)"
    days = -(-books // budget.books_a_day)
    return f"about {_spaced(days)} {'day' if days == 1 else 'days'} left"


def _failing(renewal: Renewal, day: str) -> str:
    """The books that were asked for on another day and are not done; the first ten by name."""
    again = [book for book, tried_on in renewal.tried.items() if tried_on < day]
    if not again:
        return ""
    return f"; {_spaced(len(again))} asked for and not done: {', '.join(again[:10])}{' …' if again[10:] else ''}"


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _tell_indexes(position: Position, instance: dg.DagsterInstance, told: Mapping[str, str]) -> Position:
    """Say at each index whether it waits: when that changes, and once a day while it does."""
    for language, renewal in position.renewals.items():
        mixed = renewal.mixed
        if mixed == renewal.held and (not mixed or renewal.told_on == position.day):
            continue
        instance.report_runless_asset_event(_evaluation(instance, language, renewal, told.get(language, "")))
        position = position.having(language, replace(renewal, held=mixed, told_on=position.day))
    return position


def _evaluation(
    instance: dg.DagsterInstance, language: str, renewal: Renewal, progress: str
) -> dg.AssetCheckEvaluation:
    index = layer(language, "speech_index")
    metadata: dict[str, Any] = {"version": renewal.version, "outstanding": renewal.outstanding}
    return dg.AssetCheckEvaluation(
        asset_key=index,
        check_name=CHECK,
        passed=not renewal.mixed,
        severity=dg.AssetCheckSeverity.WARN,
        description=progress or f"every audiobook of {language} is embedded by version {renewal.version}",
        metadata=metadata,
        target_materialization_data=_made_last(instance, index),
    )


def _made_last(
    instance: dg.DagsterInstance, asset: dg.AssetKey
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """What an evaluation is of.

    Unnamed, Dagster compares the database's clock, in whole seconds on SQLite, with that of the run: an index that was
    made in the same second, or by a machine whose clock is ahead, would not be held.
    """
    made = instance.fetch_materializations(asset, 1).records
    if not made:
        return None
    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=made[0].storage_id, run_id=made[0].run_id, timestamp=made[0].timestamp
    )
