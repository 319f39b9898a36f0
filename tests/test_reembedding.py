"""The sensor `reembedding`: which audiobooks are embedded again after a promotion, how many a day, and what waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus

from partitions.audiobooks import add_audiobooks
from resources.settings import load_settings
from resources.storage import Storage
from s2s_assets import reembedding as module
from s2s_assets.definitions import build
from s2s_assets.reembedding import CHECK, Position, Renewal, one_encoder, reembedding
from tests.simulated_weeks import STUDENT, Location, Weeks, embedded_by, settings_of

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
BUDGET = {"books_a_day": 3, "books_a_run": 2, "most_runs": 2}
OF_STUDENT = {"deu": f"student:{STUDENT}", "eng": f"student:{STUDENT}"}


def house(weeks: Weeks, books: int = 7, **changed: Any) -> Weeks:
    """German books embedded by the first version, the sensor alone turned on, and nothing to do yet."""
    weeks.reload(**{"reembedding": BUDGET, **changed})
    weeks.on = set()
    weeks.promote("v1")
    embed(weeks, "deu", *(str(book) for book in range(1, books + 1)))
    weeks.on = {"reembedding"}
    weeks.tick()
    assert weeks.ledger == [] and weeks.skipped[-1] == "Every audiobook is of the version in force."
    return weeks


def embed(weeks: Weeks, language: str, *books: str) -> None:
    """Embed books by the version in force, as their own conditions have it done."""
    add_audiobooks(weeks.instance, language, books)
    for book in books:
        weeks.source.books[language][book] = book
        weeks.make(f"{language}/speech_embeddings", book)


def by_day(weeks: Weeks, days: int) -> list[list[str]]:
    """What is asked for on each of some days, with a tick every eight hours."""
    return [[one.partition for one in weeks.until(weeks.now + DAY, every=8 * HOUR)] for _ in range(days)]


def waits(weeks: Weeks, language: str = "deu") -> bool | None:
    """Whether the index was last said to wait; None: it was never spoken of."""
    key = dg.AssetCheckKey(dg.AssetKey([language, "speech_index"]), CHECK)
    found = weeks.instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
    return None if found is None or found.evaluation is None else not found.evaluation.passed


@pytest.fixture
def weeks(tmp_path: Path) -> Iterator[Weeks]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Weeks(tmp_path, instance)


def test_a_promotion_embeds_so_many_books_a_day_in_the_order_of_their_set(weeks: Weeks) -> None:
    house(weeks)
    weeks.now = weeks.now.replace(hour=20)
    weeks.promote("v2")
    assert by_day(weeks, 4) == [["1", "2", "3"], ["4", "5", "6"], ["7"], []]
    assert set(embedded_by(weeks.lake, "deu").values()) == {"v2"}


def test_so_many_runs_are_under_way_at_once(weeks: Weeks) -> None:
    house(weeks, reembedding={"books_a_day": 7, "books_a_run": 1, "most_runs": 2})
    weeks.promote("v2")
    asked = weeks.until(weeks.now + HOUR / 2, every=HOUR / 2)
    assert [one.partition for one in asked] == ["1", "2"]
    assert weeks.until(weeks.now + HOUR / 2, every=HOUR / 2) == []  # both take an hour
    assert [one.partition for one in weeks.until(weeks.now + HOUR, every=HOUR)] == ["3", "4"]


def test_runs_are_told_from_those_of_new_audiobooks_and_go_after_them(weeks: Weeks) -> None:
    house(weeks)
    weeks.promote("v2")
    weeks.tick()
    tags = weeks.instance.get_runs(dg.RunsFilter(tags={"s2s/asked_by": "reembedding"}))[0].tags
    assert (tags["dagster/priority"], tags["s2s/encoder_version"], tags["s2s/language"]) == ("-1", "v2", "deu")


def test_books_embedded_by_the_version_in_force_are_not_asked_for(weeks: Weeks) -> None:
    house(weeks)
    weeks.now = weeks.now.replace(hour=20)
    weeks.promote("v2")
    embed(weeks, "deu", "2", "8")  # the second changed, the eighth is new
    assert by_day(weeks, 3) == [["1", "3", "4"], ["5", "6", "7"], []]


def test_a_promotion_in_between_begins_again_with_what_is_not_of_the_newest(weeks: Weeks) -> None:
    house(weeks, books=4)
    weeks.now = weeks.now.replace(hour=20)
    weeks.promote("v2")
    assert by_day(weeks, 1) == [["1", "2", "3"]]
    weeks.promote("v3")
    assert by_day(weeks, 1) == [["1", "2", "3"]]
    weeks.promote("v2")  # back: what v3 made is asked for, and the fourth, which is still of the first
    assert by_day(weeks, 3) == [["1", "2", "3"], ["4"], []]


def test_an_index_goes_on_waiting_when_another_version_is_promoted_after_the_budget_is_spent(weeks: Weeks) -> None:
    house(weeks)
    weeks.promote("v2")
    weeks.until(weeks.now + 2 * HOUR, every=HOUR)
    weeks.promote("v3")
    assert weeks.until(weeks.now + 2 * HOUR, every=HOUR) == []
    assert waits(weeks) is True


def test_going_back_asks_for_what_the_other_version_made_and_nothing_else(weeks: Weeks) -> None:
    house(weeks)
    weeks.now = weeks.now.replace(hour=20)
    weeks.promote("v2")
    assert by_day(weeks, 1) == [["1", "2", "3"]]
    weeks.promote("v1")
    assert by_day(weeks, 2) == [["1", "2", "3"], []]
    assert waits(weeks) is False


def test_what_fails_is_tried_again_on_another_day_after_all_others(weeks: Weeks) -> None:
    house(weeks, books=5)
    weeks.now = weeks.now.replace(hour=20)
    weeks.failing = {("deu/speech_embeddings", "1")}
    weeks.promote("v2")
    assert by_day(weeks, 4) == [["1", "2", "3"], ["4", "5", "1"], ["1"], ["1"]]
    assert weeks.skipped[-1].startswith("4 of 5 audiobooks of deu are embedded by version v2, about 1 day left")
    assert waits(weeks) is True
    weeks.failing = set()
    assert by_day(weeks, 2) == [["1"], []]
    assert waits(weeks) is False


def test_a_tick_whose_cursor_was_lost_asks_for_the_same_runs(weeks: Weeks) -> None:
    house(weeks)
    weeks.promote("v2")
    (sensor,) = reembedding(weeks.location.settings, clock=lambda: weeks.now)
    keys = []
    for _ in range(2):
        storage = Storage(url=str(weeks.lake.root), scratch=str(weeks.home))
        cursor = weeks.instance.daemon_cursor_storage.get_cursor_values({"reembedding"})["reembedding"]
        told = sensor(dg.build_sensor_context(weeks.instance, cursor=cursor, resources={"storage": storage}))
        assert isinstance(told, dg.SensorResult) and told.run_requests
        keys.append([request.run_key for request in told.run_requests])
    assert keys[0] == keys[1] and len(set(keys[0])) == 2


def test_a_tick_reads_so_many_partitions_and_no_more(weeks: Weeks, monkeypatch: pytest.MonkeyPatch) -> None:
    house(weeks, reembedding={"books_a_day": 0})
    monkeypatch.setattr(module, "READS_A_TICK", 3)
    weeks.promote("v2")
    found = []
    for _ in range(4):
        weeks.tick()
        cursor = weeks.instance.daemon_cursor_storage.get_cursor_values({"reembedding"})["reembedding"]
        found.append(Position.read(cursor).renewals["deu"].outstanding)
    assert found == [3, 6, 7, 7]


def test_an_index_waits_from_the_first_book_asked_for_to_the_last_one_made(weeks: Weeks) -> None:
    house(weeks)
    weeks.now = weeks.now.replace(hour=20)
    assert waits(weeks) is None
    weeks.promote("v2")
    weeks.tick()
    assert waits(weeks) is True
    by_day(weeks, 1)
    assert waits(weeks) is True
    by_day(weeks, 1)
    assert waits(weeks) is False


def test_an_index_that_a_machine_made_whose_clock_is_ahead_waits_all_the_same(weeks: Weeks) -> None:
    index = dg.AssetKey(["deu", "speech_index"])
    house(weeks)
    made = DagsterEvent(
        DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name="__ASSET_JOB",
        event_specific_data=StepMaterializationData(dg.AssetMaterialization(index)),
    )
    ahead = weeks.start((index,), (None,), {}, DAY, {index: None})
    log = EventLogEntry(
        error_info=None, level=10, user_message="", run_id=ahead.id, timestamp=time.time() + 60, dagster_event=made
    )
    weeks.instance.event_log_storage.store_event(log)
    weeks.promote("v2")
    weeks.tick()
    key = dg.AssetCheckKey(index, CHECK)
    told = weeks.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    context = LoadingContextForTest(weeks.instance)
    assert asyncio.run(told.resolve_status(context)) == AssetCheckExecutionResolvedStatus.FAILED
    assert asyncio.run(told.targets_latest_materialization(context))


def test_with_no_budget_nothing_is_asked_for_and_a_mixture_is_told(weeks: Weeks) -> None:
    house(weeks, books=3, reembedding={"books_a_day": 0})
    weeks.promote("v2")
    weeks.tick()
    assert waits(weeks) is None  # all are of the old version, and can be mined
    embed(weeks, "deu", "4")
    weeks.tick()
    assert weeks.ledger == [] and waits(weeks) is True
    assert weeks.skipped[-1].startswith("1 of 4 audiobooks of deu") and "by hand" in weeks.skipped[-1]
    embed(weeks, "deu", "1", "2", "3")
    weeks.tick()
    assert waits(weeks) is False


def test_the_language_that_is_done_soonest_goes_first(weeks: Weeks) -> None:
    house(weeks, books=4, encoders=OF_STUDENT)
    embed_english(weeks, "1", "2")
    weeks.tick()
    weeks.now = weeks.now.replace(hour=20)
    weeks.promote("v2")
    asked = weeks.until(weeks.now + 3 * DAY, every=8 * HOUR)
    assert [f"{one.asset[:3]} {one.partition}" for one in asked] == [
        "eng 1",
        "eng 2",
        "deu 1",
        "deu 2",
        "deu 3",
        "deu 4",
    ]


def embed_english(weeks: Weeks, *books: str) -> None:
    """As the harness embeds German."""
    weeks.students = {"deu", "eng"}
    embed(weeks, "eng", *books)


def test_the_check_of_an_index_counts_versions(weeks: Weeks) -> None:
    house(weeks, books=2)
    storage = Storage(url=str(weeks.lake.root), scratch=str(weeks.home))
    (check,) = one_encoder(weeks.location.settings)
    assert _result(check, storage).passed
    weeks.promote("v2")
    embed(weeks, "deu", "1")
    assert not _result(check, storage).passed


def _result(check: dg.AssetChecksDefinition, storage: Storage) -> dg.AssetCheckResult:
    found = check(storage=storage)
    assert isinstance(found, dg.AssetCheckResult)
    return found


def test_there_is_no_sensor_where_no_student_embeds_and_it_is_off_where_one_does(tmp_path: Path) -> None:
    assert reembedding(load_settings(home=tmp_path)) == []
    assert "reembedding" not in {sensor.name for sensor in build(load_settings(home=tmp_path)).sensors or ()}
    settings = settings_of(tmp_path)
    (sensor,) = [one for one in Location(settings).definitions.sensors or () if one.name == "reembedding"]
    assert isinstance(sensor, dg.SensorDefinition)
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


def test_a_cursor_says_again_what_was_written() -> None:
    books = [str(10_000 + 3 * book) for book in range(14_500)]
    position = Position(
        {"deu": Renewal("v2", books[:5], books, {"7": "2026-01-05"}, True, True, "2026-01-05")}, 9, "d", 4
    )
    assert Position.read(position.written()) == position
    assert len(position.written()) < 60_000


def test_a_book_that_is_no_partition_any_more_is_forgotten(weeks: Weeks) -> None:
    house(weeks, books=5)
    weeks.now = weeks.now.replace(hour=20)
    weeks.promote("v2")
    assert by_day(weeks, 1) == [["1", "2", "3"]]
    weeks.instance.delete_dynamic_partition("audiobooks_deu", "4")
    assert by_day(weeks, 2) == [["5"], []]
    assert waits(weeks) is False


def test_a_book_whose_version_cannot_be_read_is_embedded_again(weeks: Weeks) -> None:
    house(weeks, books=3)
    Path(str(weeks.lake.partition("speech_embeddings", "deu", "2").path("encoder.json"))).write_text("{")
    weeks.instance.report_runless_asset_event(
        dg.AssetMaterialization("deu/speech_embeddings".split("/"), partition="2")
    )
    weeks.tick()
    assert [one.partition for one in weeks.ledger] == ["2"]
