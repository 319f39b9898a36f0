"""The sensor `audiobooks`: which runs it asks for, and what a changed book makes stale."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from partitions.batches import Batch, batches
from resources.settings import Settings, load_settings
from resources.storage import Storage
from s2s_assets.catalogue import observe
from s2s_assets.definitions import build
from s2s_assets.discovery import TAGS, Position, discovery
from speech_mining.lake import Lake
from speech_mining.records import CATALOGUE, REJECTIONS, TIMESTAMPS
from speech_mining.sources import renewal
from speech_mining.sources.protocol import Catalogue
from speech_mining.sources.renewal import Wish
from speech_mining.sources.retries import mark

BEGIN = datetime(2026, 1, 5, 12, tzinfo=timezone.utc)
WISH = Wish("https://librivox.org", ("deu", "eng"))


@dataclass
class Listed:
    """A source whose books a test changes."""

    books: dict[str, dict[str, str]] = field(default_factory=lambda: {"deu": {}, "eng": {}})
    """Language → book → address of its one recording."""
    at: datetime = BEGIN

    def read(self, *, since: datetime | None = None, **_: Any) -> Catalogue:
        rows = [
            {**dict.fromkeys(CATALOGUE), "audiobook": book, "section": 1, "language": language, "title": book}
            | {"readers": "R", "duration_s": 60, "listen_url": url, "url_librivox": "", "authors": "", "licence": "PD"}
            for language, books in self.books.items()
            for book, url in books.items()
        ]
        sections = pl.DataFrame(rows, schema=dict(CATALOGUE), orient="row")
        nothing = pl.DataFrame(schema=dict(REJECTIONS)), pl.DataFrame(schema=dict(TIMESTAMPS))
        return Catalogue(sections, *nothing, len(rows), self.at, whole=True)


@dataclass
class House:
    """A lake, an instance, and the sensor on them."""

    lake: Lake
    instance: dg.DagsterInstance
    settings: Settings
    source: Listed = field(default_factory=Listed)
    now: datetime = BEGIN
    cursor: str | None = None

    def read_catalogue(self) -> renewal.RenewedCatalogue:
        self.source.at = self.now
        found = renewal.read_again(self.lake, self.source, WISH, now=self.now)
        observe(self.instance, found)
        renewal.keep(self.lake, found, WISH)
        return found

    def tick(self) -> Sequence[dg.RunRequest] | dg.SkipReason:
        """As the daemon does: the cursor of the last tick goes into the next."""
        sensor = discovery(self.settings, clock=lambda: self.now)
        storage = Storage(url=str(self.lake.root), scratch=str(self.lake.root / "scratch"))
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, resources={"storage": storage})
        told = sensor(context)
        if isinstance(told, dg.SkipReason):
            return told
        assert isinstance(told, dg.SensorResult)
        self.cursor = told.cursor
        return told.run_requests or []

    def books(self) -> list[str]:
        asked = self.tick()
        assert not isinstance(asked, dg.SkipReason), asked
        return [f"{request.tags['s2s/language']} {'-'.join(_range(request))}" for request in asked]

    def make(self, language: str, *books: str) -> None:
        for book in books:
            for layer in ("raw_audio", "segments"):
                with self.lake.replace(layer, language, book) as new:
                    new.write_json("made.json", book)


def _range(request: dg.RunRequest) -> tuple[str, str]:
    return (
        request.tags["dagster/asset_partition_range_start"],
        request.tags["dagster/asset_partition_range_end"],
    )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    settings = load_settings(
        home=tmp_path, languages=("deu", "eng"), ingest={"books_a_run": 3, "most_runs": 2, "retry_hours": 6}
    )
    with dg.DagsterInstance.ephemeral() as instance:
        yield House(Lake(tmp_path / "lake"), instance, settings)


def _named(*books: str) -> dict[str, str]:
    return {book: f"https://archive.org/download/x/{book}.mp3" for book in books}


def test_batches_are_neighbours_that_are_all_wanted() -> None:
    known = ["1", "2", "3", "5", "4"]
    assert batches(known, ["1", "2", "3"], 2) == [Batch("1", "2", ("1", "2")), Batch("3", "3", ("3",))]
    assert batches(known, ["1", "3", "5"], 9) == [Batch("1", "1", ("1",)), Batch("3", "5", ("3", "5"))]
    assert batches(known, ["4", "5"], 9) == [Batch("4", "4", ("4",)), Batch("5", "5", ("5",))]
    assert batches(known, [], 9) == []


def test_before_the_catalogue_was_read_nothing_is_asked_for(house: House) -> None:
    told = house.tick()
    assert isinstance(told, dg.SkipReason)
    assert "materialize" in str(told.skip_message)


def test_new_audiobooks_are_asked_for_once_in_bounded_batches_and_languages_take_turns(house: House) -> None:
    house.source.books = {"deu": _named("1", "2", "3", "10", "20"), "eng": _named("7")}
    house.read_catalogue()

    assert house.books() == ["deu 1-3", "eng 7-7"]
    assert house.instance.get_dynamic_partitions("audiobooks_deu") == ["1", "2", "3", "10", "20"]
    assert house.books() == ["deu 10-20"]
    assert house.books() == []


def test_no_more_is_asked_for_than_may_be_under_way(house: House) -> None:
    house.source.books["deu"] = _named(*(str(number) for number in range(1, 20)))
    house.read_catalogue()
    runs = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    for status in runs:
        house.instance.create_run_for_job(job_def=_job(), tags=TAGS, status=status)
    told = house.tick()
    assert isinstance(told, dg.SkipReason)
    house.instance.report_run_failed(next(iter(house.instance.get_runs(dg.RunsFilter(statuses=[runs[1]])))))
    assert house.books() == ["deu 1-3"]


def _job() -> dg.JobDefinition:
    @dg.job
    def waits() -> None:
        pass

    return waits


def test_a_changed_audiobook_is_asked_for_again_and_no_other(house: House) -> None:
    house.source.books["deu"] = _named("1", "2", "3")
    house.read_catalogue()
    keys = [request.run_key for request in house.tick()]  # type: ignore[union-attr]
    house.make("deu", "1", "2", "3")
    house.now += timedelta(hours=1)
    house.source.books["deu"]["2"] += "?changed"
    assert house.read_catalogue().changed["audiobook"].to_list() == ["2"]

    asked = house.tick()

    assert [_range(request) for request in asked] == [("2", "2")]  # type: ignore[union-attr]
    assert asked[0].run_key not in keys  # type: ignore[index]
    assert house.read_catalogue().changed.is_empty()
    assert house.books() == []


def test_a_book_that_changed_after_the_clock_was_set_back_is_asked_for(house: House) -> None:
    house.source.books["deu"] = _named("1", "2", "3")
    house.read_catalogue()
    assert [_range(request) for request in house.tick()] == [("1", "3")]  # type: ignore[union-attr]
    house.make("deu", "1", "2", "3")
    house.now -= timedelta(days=400)
    house.source.books["deu"]["1"] += "?changed"
    house.read_catalogue()
    assert [_range(request) for request in house.tick()] == [("1", "1")]  # type: ignore[union-attr]


def test_the_cursor_survives_a_restart_and_a_tick_that_was_lost_asks_for_the_same_runs(house: House) -> None:
    house.source.books["deu"] = _named("1", "2", "3", "4", "5", "6", "7")
    house.read_catalogue()
    before = house.cursor
    first = house.tick()
    house.cursor = before  # the daemon was killed before it kept the cursor
    again = house.tick()
    assert [request.run_key for request in first] == [request.run_key for request in again]  # type: ignore[union-attr]

    house.cursor = json.dumps(json.loads(str(house.cursor)))  # nothing but the text is left
    assert house.books() == ["deu 7-7"]
    assert Position.read(house.cursor).seen["deu"][1] == "7"


def test_what_is_missing_or_incomplete_is_tried_again_after_a_while(house: House) -> None:
    house.source.books["deu"] = _named("1", "2", "3", "4")
    house.read_catalogue()
    assert house.books() == ["deu 1-3", "deu 4-4"]
    house.make("deu", "1", "2", "4")
    refused = {**dict.fromkeys(REJECTIONS), "audiobook": "4", "section": 1, "reason": "server_error", "detail": "503"}
    mark(house.lake, "deu", "4", pl.DataFrame([refused], schema=dict(REJECTIONS), orient="row"))
    house.now += timedelta(hours=5)
    assert house.books() == []

    house.now += timedelta(hours=2)

    assert house.books() == ["deu 3-4"]
    assert house.books() == []
    mark(house.lake, "deu", "4", pl.DataFrame(schema=dict(REJECTIONS)))
    house.make("deu", "3")
    house.now += timedelta(hours=7)
    assert house.books() == []


def test_what_will_never_be_had_is_not_tried_again(house: House) -> None:
    house.source.books["deu"] = _named("1")
    house.read_catalogue()
    house.books()
    house.make("deu", "1")
    refused = {**dict.fromkeys(REJECTIONS), "audiobook": "1", "section": 1, "reason": "gone", "detail": ""}
    mark(house.lake, "deu", "1", pl.DataFrame([refused], schema=dict(REJECTIONS), orient="row"))
    house.now += timedelta(days=1)
    assert house.books() == []


def test_a_library_of_fourteen_thousand_books_is_discovered_in_one_tick_and_does_not_flood_the_queue(
    house: House,
) -> None:
    house.source.books["deu"] = _named(*(str(number) for number in range(14_500)))
    found = renewal.read_again(house.lake, house.source, WISH, now=house.now)
    renewal.keep(house.lake, found, WISH)

    assert house.books() == ["deu 0-2", "deu 3-5"]

    assert len(house.instance.get_dynamic_partitions("audiobooks_deu")) == 14_500
    assert len(str(house.cursor)) < 500


def test_a_changed_audiobook_makes_its_own_recordings_stale_and_nothing_else(house: House) -> None:
    house.source.books["deu"] = _named("1", "2", "3")
    house.read_catalogue()
    graph = build(house.settings).get_repository_def().asset_graph
    house.tick()
    made = _stand_ins(house.settings)
    for key in ("raw_audio", "segments"):
        tags = {"dagster/asset_partition_range_start": "1", "dagster/asset_partition_range_end": "3"}
        selection = dg.AssetSelection.assets(["deu", key])
        assert dg.materialize(made, instance=house.instance, selection=selection, tags=tags).success

    def stale() -> list[str]:
        resolver = CachingStaleStatusResolver(house.instance, graph, LoadingContextForTest(house.instance))
        keys = [dg.AssetKey(["deu", layer]) for layer in ("raw_audio", "segments")]
        return [
            f"{key.path[1]} {book}" for key in keys for book in "123" if resolver.get_status(key, book).value == "STALE"
        ]

    assert stale() == []
    house.now += timedelta(hours=1)
    house.read_catalogue()
    assert stale() == []
    house.source.books["deu"]["2"] += "?changed"
    house.read_catalogue()
    assert stale() == ["raw_audio 2"]


def _stand_ins(settings: Settings) -> list[Any]:
    """The layers with their real keys, edges, partitions and versions, and bodies that do nothing."""
    graph = build(settings).resolve_asset_graph()
    specs = {key.path[1]: graph.get(key).to_asset_spec() for key in graph.get_all_asset_keys() if key.path[0] == "deu"}
    return [specs["listing"], _empty_body(specs["raw_audio"]), _empty_body(specs["segments"])]


def _empty_body(spec: dg.AssetSpec) -> dg.AssetsDefinition:
    @dg.multi_asset(
        specs=[spec.replace_attributes(automation_condition=None)],
        name=spec.key.path[1],
        backfill_policy=dg.BackfillPolicy.multi_run(50),
    )
    def made() -> None:
        pass

    return made


def test_a_reading_that_was_killed_before_it_was_kept_tells_dagster_again(house: House) -> None:
    house.source.books["deu"] = _named("1")
    found = renewal.read_again(house.lake, house.source, WISH, now=house.now)
    observe(house.instance, found)
    again = renewal.read_again(house.lake, house.source, replace(WISH), now=house.now)
    assert again.changed["audiobook"].to_list() == ["1"]
