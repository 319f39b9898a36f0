"""A lake, an instance and the clock of weeks: what the sensors and conditions ask for is made, and written down.

Dagster's own evaluation runs on the graph that the daemon sees: read back from a snapshot of the code location, where
whatever the daemon does not know is gone. Runs take their time on the simulated clock; the lake holds what the sensors
read of it, and no vectors.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.remote_representation.external import RemoteRepository
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._core.remote_representation.handle import RepositoryHandle
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    AUTOMATION_CONDITION_TAG,
    PARTITION_NAME_TAG,
)
from dagster._core.utils import make_new_run_id
from dagster._daemon.asset_daemon import (
    asset_daemon_cursor_from_instigator_serialized_cursor,
    asset_daemon_cursor_to_instigator_serialized_cursor,
)
from dagster_shared.serdes import deserialize_value, serialize_value

from partitions.audiobooks import known_audiobooks
from partitions.languages import layer
from partitions.text_shards import set_text_shards
from resources.external import report_listed
from resources.settings import Settings, load_settings
from resources.storage import Storage
from s2s_assets.catalogue import observe
from s2s_assets.definitions import build
from s2s_assets.discovery import discovery
from s2s_assets.reembedding import reembedding
from speech_mining.encoders.promoted import TRAINED, Promotion, current_version, promote, weights_file
from speech_mining.lake import Lake
from speech_mining.records import CATALOGUE, REJECTIONS, TIMESTAMPS
from speech_mining.sources import renewal
from speech_mining.sources.protocol import Catalogue
from speech_mining.sources.renewal import Wish
from tests.asset_checks import passing

MONDAY = datetime(2026, 1, 5, 12, 10, tzinfo=timezone.utc)
"""Nine hours after the weekly tick of `remine_cron`; no evaluation falls on the very minute of a schedule."""
LANGUAGES = ("deu", "eng", "fra")
STUDENT = "little"
HOURS = {"s2s_neighbours": 12, "s2t_neighbours": 12}
"""What a run takes; all others are done before the next tick."""


def settings_of(home: Path, **changed: Any) -> Settings:
    """Three languages, German embedded by a student, English text."""
    told: dict[str, Any] = {
        "home": home,
        "catalogue_url": "https://librivox.org",
        "languages": LANGUAGES,
        "encoder": "sonar",
        "encoders": {"deu": f"student:{STUDENT}"},
        "students": {STUDENT: {"data": ("clips",)}},
        "text": {"shards": {"eng": ("/texts",)}},
        "ingest": {"books_a_run": 3, "most_runs": 4, "retry_hours": 20},
        "reembedding": {"books_a_day": 2, "books_a_run": 2, "most_runs": 2},
    }
    return load_settings(**{**told, **changed})


@dataclass(frozen=True, order=True)
class Asked:
    """One partition of one asset that was asked for."""

    at: datetime
    by: str
    asset: str
    partition: str


@dataclass(frozen=True)
class Run:
    """A run under way."""

    id: str
    assets: tuple[dg.AssetKey, ...]
    partitions: tuple[str | None, ...]
    ends: datetime
    code: Mapping[dg.AssetKey, str | None]


@dataclass
class Listing:
    """A source of audiobooks that a test changes."""

    books: dict[str, dict[str, str]] = field(default_factory=lambda: {language: {} for language in LANGUAGES})
    """Language → book → address of its one recording."""
    at: datetime = MONDAY

    def read(self, *, since: datetime | None = None, **_: Any) -> Catalogue:
        plain = dict.fromkeys(CATALOGUE) | {"section": 1, "readers": "R", "duration_s": 60, "url_librivox": ""}
        rows = [
            {**plain, "audiobook": book, "language": language, "title": book, "listen_url": url}
            | {"authors": "", "licence": "PD"}
            for language, books in self.books.items()
            for book, url in books.items()
        ]
        sections = pl.DataFrame(rows, schema=dict(CATALOGUE), orient="row")
        nothing = pl.DataFrame(schema=dict(REJECTIONS)), pl.DataFrame(schema=dict(TIMESTAMPS))
        return Catalogue(sections, *nothing, len(rows), self.at, whole=True)


class Location:
    """The code location for some settings, and its graph as the daemon reads it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.definitions = build(settings)
        self.own = self.definitions.resolve_asset_graph()
        self.order = {key: place for place, key in enumerate(self.own.toposorted_asset_keys)}

    @cached_property
    def graph(self) -> BaseAssetGraph[Any]:
        """As a daemon has it that loaded nothing of ours."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Dagster's own snapshot of schedules
            snap = RepositorySnap.from_def(self.definitions.get_repository_def())
        sent = deserialize_value(serialize_value(snap), RepositorySnap)
        return RemoteRepository(sent, RepositoryHandle.for_test(), True).asset_graph


class Weeks:
    """Everything, and the time."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, settings: Settings | None = None) -> None:
        self.home, self.instance = home, instance
        self.location = Location(settings or settings_of(home))
        self.lake = Lake(self.location.settings.lake_url)
        self.source, self.now = Listing(), MONDAY
        self.on = {"audiobooks", "automation", "reembedding"}
        """What is turned on."""
        self.failing: set[tuple[str, str]] = set()
        """Assets and partitions whose runs fail."""
        self.students = {"deu"}
        """Languages whose vectors are of the version that is promoted."""
        self.ledger: list[Asked] = []
        self.runs: list[Run] = []
        self.refused: list[str] = []
        """What a run found that it cannot work with."""
        self.skipped: list[str] = []
        """Why the sensor `reembedding` asked for nothing."""

    # What people and the world do

    def reload(self, **changed: Any) -> None:
        """The code location with other settings; the daemon and every cursor start from what is stored."""
        self.location = Location(settings_of(self.home, **changed))

    def read_catalogue(self) -> None:
        """As the asset does."""
        self.source.at = self.now
        wish = Wish("https://librivox.org", LANGUAGES)
        found = renewal.read_again(self.lake, self.source, wish, now=self.now)
        observe(self.instance, found)
        renewal.keep(self.lake, found, wish)

    def list_books(self, language: str, *books: str, version: str = "") -> None:
        """The catalogue lists some books, or another version of them."""
        for book in books:
            self.source.books[language][book] = f"https://archive.org/download/x/{book}{version}.mp3"
        self.read_catalogue()

    def list_shards(self, language: str, *shards: str) -> None:
        """Text arrives."""
        known = self.instance.get_dynamic_partitions(f"text_shards_{language}")
        set_text_shards(self.instance, language, [*known, *shards])
        for shard in shards:
            report_listed(self.instance, layer(language, "text_listing"), shard, "1", {})

    def promote(self, version: str) -> None:
        """A version is trained and promoted."""
        with self.lake.replace(TRAINED, STUDENT) as new:
            new.path(weights_file(STUDENT)).write_text(version)
            new.write_json("training.json", {"version": version})
        promote(self.lake, STUDENT, Promotion(version, 0.1))
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization("current_encoder", partition=STUDENT, tags={DATA_VERSION_TAG: version})
        )

    def make(self, asset: str, partition: str) -> None:
        """A person materializes one partition, and waits for it."""
        key = dg.AssetKey.from_user_string(asset)
        code = {key: self.location.own.get(key).code_version}
        self._end(self.start((key,), (partition or None,), {}, timedelta(0), code))

    # The clock

    def until(self, end: datetime, every: timedelta = timedelta(hours=8)) -> list[Asked]:
        """Let time pass; what was asked for in it."""
        before = len(self.ledger)
        while self.now < end:
            self.now += every
            self.tick()
        return self.ledger[before:]

    def tick(self) -> None:
        """Runs that are over end; then each sensor has its turn."""
        for run in [run for run in self.runs if run.ends <= self.now]:
            self._end(run)
        for name, sensor in self._sensors().items():
            if name in self.on:
                self._ask(name, sensor)
        if "automation" in self.on:
            self._evaluate()

    def _sensors(self) -> dict[str, dg.SensorDefinition]:
        settings = self.location.settings
        made = [discovery(settings, clock=lambda: self.now), *reembedding(settings, clock=lambda: self.now)]
        return {sensor.name: sensor for sensor in made}

    def _ask(self, name: str, sensor: dg.SensorDefinition) -> None:
        storage = Storage(url=str(self.lake.root), scratch=str(self.home / "scratch"))
        context = dg.build_sensor_context(self.instance, cursor=self._cursor(name), resources={"storage": storage})
        told = sensor(context)
        if not isinstance(told, dg.SensorResult):
            return
        self._keep(name, told.cursor or "")
        if told.skip_reason and name == "reembedding":
            self.skipped.append(str(told.skip_reason.skip_message))
        for request in told.run_requests or []:
            self._begin(name, request)

    def _evaluate(self) -> None:
        stored = self._cursor("automation")
        cursor = (
            asset_daemon_cursor_from_instigator_serialized_cursor(stored, self.location.graph)
            if stored
            else AssetDaemonCursor.empty()
        )
        context = AutomationTickEvaluationContext(
            evaluation_id=cursor.evaluation_id + 1,
            instance=self.instance,
            asset_graph=self.location.graph,
            cursor=cursor,
            materialize_run_tags={},
            observe_run_tags={},
            auto_observe_asset_keys=set(),
            asset_selection=dg.AssetSelection.all(),
            logger=logging.getLogger("test"),
            emit_backfills=False,
            evaluation_time=self.now,
        )
        requests, moved, _ = context.evaluate()
        self._keep("automation", asset_daemon_cursor_to_instigator_serialized_cursor(moved))
        for request in requests:
            self._begin("automation", request)

    def _cursor(self, name: str) -> str | None:
        return self.instance.daemon_cursor_storage.get_cursor_values({name}).get(name)

    def _keep(self, name: str, cursor: str) -> None:
        self.instance.daemon_cursor_storage.set_cursor_values({name: cursor})

    # Runs

    def _begin(self, by: str, request: dg.RunRequest) -> None:
        assets = tuple(sorted(request.asset_selection or (), key=self.location.order.__getitem__))
        partitions = self._partitions(assets, request)
        self.ledger += [
            Asked(self.now, by, asset.to_user_string(), partition or "") for asset in assets for partition in partitions
        ]
        tags = {**request.tags, **({AUTOMATION_CONDITION_TAG: "true"} if by == "automation" else {})}
        hours = max(HOURS.get(asset.path[-1], 1) for asset in assets)
        code = {asset: self.location.own.get(asset).code_version for asset in assets}
        self.start(assets, partitions, tags, timedelta(hours=hours), code)

    def _partitions(self, assets: Sequence[dg.AssetKey], request: dg.RunRequest) -> tuple[str | None, ...]:
        tags = request.tags
        if ASSET_PARTITION_RANGE_START_TAG not in tags:
            return (request.partition_key or tags.get(PARTITION_NAME_TAG),)
        known = known_audiobooks(self.instance, assets[0].path[0])
        first, last = tags[ASSET_PARTITION_RANGE_START_TAG], tags[ASSET_PARTITION_RANGE_END_TAG]
        return tuple(known[known.index(first) : known.index(last) + 1])

    def start(
        self,
        assets: tuple[dg.AssetKey, ...],
        partitions: tuple[str | None, ...],
        tags: Mapping[str, str],
        takes: timedelta,
        code: Mapping[dg.AssetKey, str | None],
    ) -> Run:
        """A run of these, under way."""
        run = Run(make_new_run_id(), assets, partitions, self.now + takes, code)
        self.runs.append(run)
        self.instance.add_run(
            dg.DagsterRun(
                job_name="__ASSET_JOB",
                run_id=run.id,
                status=dg.DagsterRunStatus.STARTED,
                tags=dict(tags),
                asset_selection=frozenset(assets),
            )
        )
        for asset in assets:
            for partition in partitions:
                planned = AssetMaterializationPlannedData(asset, partition=partition)
                self._log(run.id, DagsterEventType.ASSET_MATERIALIZATION_PLANNED, planned)
        return run

    def _end(self, run: Run) -> None:
        self.runs.remove(run)
        failed = {
            (asset, partition)
            for asset in run.assets
            for partition in run.partitions
            if (asset.to_user_string(), partition or "") in self.failing
        }
        spoilt: set[str | None] = set()
        for asset in run.assets:
            spoilt |= {partition for one, partition in failed if one == asset}
            for partition in run.partitions:
                if partition not in spoilt:
                    self._made(run, asset, partition)
        ended = DagsterEventType.RUN_FAILURE if failed else DagsterEventType.RUN_SUCCESS
        self._log(run.id, ended, None)

    def _made(self, run: Run, asset: dg.AssetKey, partition: str | None) -> None:
        makes = MAKES.get(asset.path[-1])
        if makes is not None:
            makes(self, asset, partition)
        version = run.code[asset] or ""
        materialization = dg.AssetMaterialization(asset, partition=partition, tags={DATA_VERSION_TAG: version})
        self._log(run.id, DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(materialization))
        for check in self.location.own.get(asset).check_keys:
            whole = self.location.own.get(check).partitions_def is None
            told = passing(self.instance, asset, partition, check.name, whole=whole)
            self._log(run.id, DagsterEventType.ASSET_CHECK_EVALUATION, told)

    def _log(self, run: str, kind: DagsterEventType, told: Any) -> None:
        event = DagsterEvent(kind.value, job_name="__ASSET_JOB", event_specific_data=told)
        self.instance.report_dagster_event(event, run_id=run)


def _recordings(weeks: Weeks, asset: dg.AssetKey, book: str | None) -> None:
    with weeks.lake.replace(asset.path[-1], asset.path[0], str(book)) as new:
        new.write_json("made.json", weeks.source.books[asset.path[0]][str(book)])


def _vectors(weeks: Weeks, asset: dg.AssetKey, book: str | None) -> None:
    language = asset.path[0]
    version = current_version(weeks.lake, STUDENT) if language in weeks.students else "1"
    with weeks.lake.replace("speech_embeddings", language, str(book)) as new:
        new.write_json("encoder.json", {"name": "encoder", "version": version, "dimension": 2})
        new.write_json("made.json", weeks.source.books[language][str(book)])


def embedded_by(lake: Lake, language: str) -> dict[str, str]:
    """Book → version, as the lake has it."""
    keys = lake.keys("speech_embeddings", language)
    return {
        key: lake.partition("speech_embeddings", language, key).read_json("encoder.json")["version"] for key in keys
    }


def _index(weeks: Weeks, asset: dg.AssetKey, language: str | None) -> None:
    found = embedded_by(weeks.lake, str(language))
    if len(set(found.values())) > 1:
        weeks.refused.append(f"{weeks.now:%m-%d %H:%M} index of {language}: {sorted(set(found.values()))}")
    with weeks.lake.replace("speech_index", str(language)) as new:
        new.write_json("roll.json", found)


def _neighbours(weeks: Weeks, asset: dg.AssetKey, pair: str | None) -> None:
    """A block that the index names must be of the version it was indexed with."""
    modality = asset.path[-1][0], asset.path[-1][2]
    for language, of in zip(str(pair).split("-"), modality, strict=True):
        if of == "s":
            roll = weeks.lake.partition("speech_index", language).read_json("roll.json")
            now = embedded_by(weeks.lake, language)
            if any(now[book] != version for book, version in roll.items()):
                weeks.refused.append(f"{weeks.now:%m-%d %H:%M} neighbours of {pair}: {language} was embedded again")


MAKES: dict[str, Callable[[Weeks, dg.AssetKey, str | None], None]] = {
    "raw_audio": _recordings,
    "segments": _recordings,
    "speech_embeddings": _vectors,
    "speech_index": _index,
    "s2s_neighbours": _neighbours,
    "s2t_neighbours": _neighbours,
}


def partitions_asked(asked: Iterable[Asked]) -> dict[str, list[str]]:
    """Asset → partitions, each as often as it was asked for."""
    found: dict[str, list[str]] = {}
    for one in sorted(asked, key=lambda each: (each.asset, each.partition)):
        found.setdefault(one.asset, []).append(one.partition)
    return found


def told(asked: Iterable[Asked]) -> str:
    """For a failing test: when, by whom, what."""
    return json.dumps([f"{one.at:%a %d %H:%M} {one.by} {one.asset} {one.partition}" for one in asked], indent=1)
