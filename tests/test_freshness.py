"""Freshness: what is old, what is only long ago, who is told, and how often. On a real instance and a real lake."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.test_utils import freeze_time

from partitions.audiobooks import add_audiobooks
from resources.alerts import Alert
from resources.record_times import RecordTimes
from resources.settings import Settings, load_settings
from resources.storage import Storage
from s2s_assets.definitions import build
from s2s_assets.freshness import (
    LANGUAGES,
    PAIRS,
    ages,
    freshness,
    freshness_checks,
    freshness_sensor,
    language_ages,
    pair_ages,
)
from speech_mining.errors import SettingsError
from speech_mining.knn.roll import SPEECH, TEXT
from tests.asset_checks import offending

BEGIN = datetime(2026, 1, 5, 12, tzinfo=timezone.utc)
HEARD: list[Alert] = []
"""What the hook of these tests was told."""


def hear(alert: Alert) -> None:
    """`alerts.hook` of these tests; deaf where the environment says so."""
    if HEARD and HEARD[-1].text == "deaf":
        raise ConnectionError("nobody listens")
    HEARD.append(alert)


@dataclass
class House:
    """A lake and an instance whose clock a test sets."""

    storage: Storage
    instance: dg.DagsterInstance
    settings: Settings
    day: float = 0.0
    cursor: str | None = None
    versions: dict[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        return BEGIN + timedelta(days=self.day)

    def record(self, key: str, partition: str | None, version: str = "1", **metadata: Any) -> None:
        with freeze_time(self.now):
            tags = {} if metadata else {"dagster/data_version": version}
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(dg.AssetKey(key.split("/")), partition=partition, metadata=metadata, tags=tags)
            )

    def embed(self, language: str, *books: str, content: str = "", layer: str = "speech_embeddings") -> None:
        """Books are embedded: in the lake, and told to Dagster as a batch tells it."""
        for book in books:
            with self.storage.lake.replace(layer, language, book) as new:
                new.write_json("vectors.json", [book, content])
            version = self.storage.lake.partition(layer, language, book).data_version
            self.record(f"{language}/{layer}", book, data_version=version)

    def index(self, language: str, *, suffix: str = "", text: bool = False, recorded: bool = True) -> None:
        """All that is embedded is indexed."""
        layout, lake = TEXT if text else SPEECH, self.storage.lake
        blocks = {book: lake.partition(layout.embeddings, language, book).data_version
                  for book in lake.keys(layout.embeddings, language)}  # fmt: skip
        names = {"block": range(len(blocks)), layout.block: list(blocks), "first_row": 0, "rows": 1}
        roll = pl.DataFrame({**names, "data_version": [version + suffix for version in blocks.values()]})
        with lake.replace(layout.index, language) as new:
            new.write_table("roll.parquet", roll.select(list(layout.roll)).cast(dict(layout.roll)), layout.roll)
        if recorded:
            self.record(f"{language}/{layout.index}", language, lake.partition(layout.index, language).data_version)

    def mine(self, *pairs: str, kind: str = "s2s", layers: tuple[str, ...] = ("neighbours", "pairs", "corpus")) -> None:
        for name in layers:
            for pair in pairs:
                self.record(f"{kind}_{name}", pair)

    def old(self) -> dict[str, tuple[str, int]]:
        """Target → what it lacks, and for how many days."""
        found = ages(RecordTimes(self.instance), self.storage.lake, self.settings)
        return {age.target: (age.lacks, round(age.days(self.now))) for age in found if age.is_old(self.now)}

    def tick(self) -> dg.SensorResult:
        sensor = freshness_sensor(self.settings, clock=lambda: self.now)
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, resources={"storage": self.storage})
        with freeze_time(self.now):
            result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return result

    def heard(self) -> list[tuple[str, tuple[str, ...]]]:
        told = [(alert.kind, alert.subjects) for alert in HEARD]
        HEARD.clear()
        return told


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    HEARD.clear()
    settings = load_settings(
        home=tmp_path,
        languages="deu,eng,fra",
        speech_text_pairs="deu-deu,fra-eng",
        alerts={"log": False, "hook": "tests.test_freshness:hear"},
    )
    storage = Storage(url=str(tmp_path / "lake"), scratch=str(tmp_path / "scratch"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield House(storage, instance, settings)


def mined(house: House) -> None:
    """Three languages embedded, indexed and mined on day 0, two of them with text."""
    for language in house.settings.languages:
        house.embed(language, "1", "2")
        house.index(language)
    for language in ("deu", "eng"):
        house.embed(language, "a", layer="text_embeddings")
        house.index(language, text=True)
    for kind in ("s2s", "s2t"):
        house.mine(*house.settings.pairs_of(kind), kind=kind)


def test_an_index_to_which_nothing_came_is_fresh_for_ever(house: House) -> None:
    mined(house)
    house.day = 1000
    assert house.old() == {}


def test_an_index_is_old_when_it_lacks_a_book_for_longer_than_its_policy(house: House) -> None:
    mined(house)
    house.day = 100
    house.embed("deu", "3")
    house.day = 113
    house.embed("deu", "4")  # a later one makes it no younger
    assert house.old() == {}
    house.day = 115
    assert house.old() == {"deu/speech_index": ("speech_embeddings", 15)}
    house.index("deu")
    house.mine("deu-eng", "deu-fra")
    house.mine("deu-deu", kind="s2t")
    house.day = 1000
    assert house.old() == {}


def test_a_book_that_changed_makes_its_index_old_and_one_that_came_out_the_same_does_not(house: House) -> None:
    mined(house)
    house.day = 1
    house.embed("deu", "1")
    house.embed("eng", "1", content="other")
    house.day = 30
    assert house.old() == {"eng/speech_index": ("speech_embeddings", 29)}


def test_a_language_that_was_never_indexed_is_as_old_as_its_first_book(house: House) -> None:
    house.embed("deu", "1")
    house.day = 13
    house.embed("deu", "2")
    house.day = 15
    assert house.old() == {"deu/speech_index": ("speech_embeddings", 15)}


def test_repeats_of_text_are_no_other_content_and_a_shard_that_is_gone_is_not_missing(house: House) -> None:
    house.embed("deu", "a", "b", layer="text_embeddings")
    house.index("deu", text=True, suffix="-0123456789ab")
    house.day = 1
    house.embed("deu", "a", layer="text_embeddings")
    house.embed("deu", "c", layer="text_embeddings")
    house.storage.lake.remove("text_embeddings", "deu", "c")
    house.day = 30
    assert house.old() == {}
    house.embed("deu", "d", layer="text_embeddings")
    house.day = 60
    assert house.old() == {"deu/text_index": ("text_embeddings", 30)}


def test_what_came_while_the_index_was_made_is_missing_in_it(house: House) -> None:
    """The index is recorded after the book, and read the lake before it."""
    house.embed("deu", "1")
    add_audiobooks(house.instance, "deu", ["1", "2"])

    @dg.asset(key=["deu", "speech_index"], partitions_def=dg.StaticPartitionsDefinition(["deu"]))
    def speech_index() -> None:
        house.index("deu", recorded=False)
        house.day = 0
        house.instance.report_runless_asset_event(_embedded_now(house))

    dg.materialize([speech_index], instance=house.instance, partition_key="deu")
    (age,) = [
        age for age in language_ages(RecordTimes(house.instance), house.storage.lake, house.settings) if age.since
    ]
    assert (age.target, age.lacks) == ("deu/speech_index", "speech_embeddings")


def _embedded_now(house: House) -> dg.AssetMaterialization:
    with house.storage.lake.replace("speech_embeddings", "deu", "2") as new:
        new.write_json("vectors.json", ["2", ""])
    return dg.AssetMaterialization(["deu", "speech_embeddings"], partition="2")


def test_a_pair_is_old_when_either_index_has_moved_on_and_only_the_pairs_of_that_language_are(house: House) -> None:
    mined(house)
    house.day = 7
    house.embed("fra", "3")
    house.index("fra")
    house.day = 22
    old = house.old()
    assert set(old) == {"s2s_corpus deu-fra", "s2s_corpus eng-fra", "s2t_corpus fra-eng"}
    assert set(old.values()) == {("fra/speech_index", 15)}


def test_an_index_made_again_with_the_same_content_leaves_the_pairs_fresh(house: House) -> None:
    mined(house)
    house.day = 7
    house.index("fra")
    house.day = 70
    assert house.old() == {}


def test_a_corpus_behind_a_check_that_blocks_is_old_though_it_was_searched_and_scored(house: House) -> None:
    mined(house)
    house.day = 7
    house.mine("deu-eng", layers=("neighbours", "pairs"))
    house.day = 9
    house.mine("deu-fra", layers=("corpus",))  # chosen anew, of the same pairs: fresh
    house.day = 22
    assert house.old() == {"s2s_corpus deu-eng": ("s2s_pairs", 15)}


def test_a_corpus_selected_again_does_not_hide_that_it_was_not_searched_again(house: House) -> None:
    mined(house)
    house.day = 7
    house.embed("fra", "3")
    house.index("fra")
    house.day = 20
    house.mine("deu-fra", "eng-fra", layers=("pairs", "corpus"))
    house.day = 22
    assert house.old()["s2s_corpus deu-fra"] == ("fra/speech_index", 15)


def test_a_pair_that_was_never_mined_is_as_old_as_the_second_of_its_indexes(house: House) -> None:
    house.embed("deu", "1")
    house.index("deu")
    house.day = 20
    assert house.old() == {}
    house.embed("eng", "1")
    house.index("eng")
    house.day = 35
    assert house.old() == {"s2s_corpus deu-eng": ("eng/speech_index", 15)}


def test_languages_and_pairs_may_have_policies_of_their_own(house: House) -> None:
    house.settings = house.settings.model_copy(
        update={"freshness": load_settings(freshness={"languages": {"deu": 2}, "pairs": {"deu-eng": 60}}).freshness}
    )
    mined(house)
    house.day = 1
    house.embed("deu", "3")
    house.embed("eng", "3")
    house.index("eng")
    house.day = 4
    assert house.old() == {"deu/speech_index": ("speech_embeddings", 3)}
    house.day = 40
    assert "s2s_corpus eng-fra" in house.old()
    assert "s2s_corpus deu-eng" not in house.old()


def test_the_catalogue_has_an_age_only_where_it_is_asked_for(house: House) -> None:
    house.record("catalogue", None)
    house.day = 10
    assert house.old() == {}
    asked = load_settings(freshness={"catalogue_days": 3}).freshness
    house.settings = house.settings.model_copy(update={"freshness": asked})
    assert house.old() == {"catalogue": ("a reading", 10)}
    policies = {days: _policy(days) for days in (None, 3.0)}
    assert policies == {None: None, 3.0: dg.FreshnessPolicy.time_window(timedelta(days=3))}


def _policy(days: float | None) -> dg.FreshnessPolicy | None:
    """Dagster's own, of the catalogue."""
    graph = build(load_settings(languages="deu", freshness={"catalogue_days": days})).resolve_asset_graph()
    return graph.get(dg.AssetKey("catalogue")).freshness_policy


@pytest.mark.parametrize("wrong", [{"languages": {"xho": 3}}, {"pairs": {"deu-xho": 3}}, {"pairs": {"deu-eng": 0}}])
def test_a_policy_of_what_is_not_mined_or_of_no_days_is_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"xho|0 days"):
        load_settings(freshness=wrong)


def test_the_sensor_tells_once_what_became_old_then_daily_and_once_that_it_is_fresh_again(house: House) -> None:
    mined(house)
    house.day = 0.01
    house.embed("deu", "3")
    house.tick()
    assert house.heard() == []
    house.day = 15
    assert "1 of " in str(house.tick().skip_reason)
    assert house.heard() == [("stale", ("deu/speech_index",))]
    for hour in (1, 12, 23):
        house.day = 15 + hour / 24
        house.tick()
    assert house.heard() == []
    house.day = 16
    house.tick()
    assert house.heard() == [("stale", ("deu/speech_index",))]
    house.index("deu")
    house.tick()
    assert house.heard() == [("recovered", ("deu/speech_index",))]
    house.day = 17
    house.tick()
    assert house.heard() == []


def test_many_old_pairs_are_one_message(house: House) -> None:
    mined(house)
    house.day = 1
    for language in house.settings.languages:
        house.embed(language, "3")
        house.index(language)
    house.day = 16
    house.tick()
    ((kind, subjects),) = house.heard()
    assert kind == "stale"
    assert len(subjects) == len(set(subjects)) == len(house.old()) > 3


def test_what_nobody_took_is_told_again_at_the_next_tick(house: House) -> None:
    mined(house)
    house.day = 0.01
    house.embed("deu", "3")
    house.day = 15
    HEARD.append(Alert("stale", (), "deaf", BEGIN))
    house.tick()
    HEARD.clear()
    house.day = 15.1
    house.tick()
    assert house.heard() == [("stale", ("deu/speech_index",))]


def test_the_sensor_shows_the_table_and_both_checks_and_not_at_every_tick(house: House) -> None:
    mined(house)
    house.day = 0.01
    house.embed("deu", "3")
    for hour in range(3):
        house.day = 15 + hour / 24
        house.tick()
    shown = house.instance.fetch_materializations(dg.AssetKey("freshness"), 100).records
    assert len(shown) == 1
    table = shown[0].asset_materialization.metadata["ages"]  # type: ignore[union-attr]
    first = dict(table.value.records[0].data) if hasattr(table, "value") else dict(table.records[0].data)
    assert (first["target"], first["days"], first["old"]) == ("deu/speech_index", 14.99, True)
    keys = {name: dg.AssetCheckKey(dg.AssetKey("freshness"), name) for name in (LANGUAGES, PAIRS)}
    records = house.instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys.values()))
    passed = {name: records[key].event.dagster_event.asset_check_evaluation_data.passed for name, key in keys.items()}  # type: ignore[union-attr]
    assert passed == {LANGUAGES: False, PAIRS: True}


def test_a_person_may_run_the_checks_and_sees_what_is_old(house: House) -> None:
    mined(house)
    house.day = 0.01
    house.embed("deu", "3")
    house.day = 15
    defs = dg.Definitions(
        assets=[freshness(house.settings)],
        asset_checks=freshness_checks(house.settings, clock=lambda: house.now),
        resources={"storage": house.storage},
    )
    keys = [dg.AssetCheckKey(dg.AssetKey("freshness"), name) for name in (LANGUAGES, PAIRS)]
    job = dg.define_asset_job("look", dg.AssetSelection.checks(*keys))
    done = (
        dg.Definitions.merge(defs, dg.Definitions(jobs=[job]))
        .resolve_job_def("look")
        .execute_in_process(instance=house.instance)
    )
    results = {check.check_name: check for check in done.get_asset_check_evaluations()}
    assert not results[LANGUAGES].passed
    assert results[LANGUAGES].severity == dg.AssetCheckSeverity.WARN
    assert "deu/speech_index lacks speech_embeddings since 2026-01-05 (15 d)" in str(results[LANGUAGES].description)
    (row,) = offending(results[LANGUAGES])  # type: ignore[arg-type]
    assert row["target"] == "deu/speech_index"
    assert results[PAIRS].passed


def test_no_backfill_of_books_indexes_or_pairs_carries_these_checks_along(house: House) -> None:
    graph = build(house.settings).resolve_asset_graph()
    assert [key.asset_key.to_user_string() for key in graph.asset_check_keys if key.name in (LANGUAGES, PAIRS)] == [
        "freshness",
        "freshness",
    ]
    assert not graph.get(dg.AssetKey("freshness")).is_materializable


def test_the_questions_to_the_log_do_not_grow_with_the_pairs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    mined(house)
    asked: list[str] = []
    storage = type(house.instance.event_log_storage)
    for name in ("fetch_materializations", "get_latest_storage_id_by_partition"):
        real = getattr(storage, name)
        monkeypatch.setattr(
            storage, name, lambda *a, _real=real, _name=name, **k: (asked.append(_name), _real(*a, **k))[1]
        )
    few = house.settings.model_copy(update={"speech_pairs": ("deu-eng",), "speech_text_pairs": ()})
    all_of_them = house.settings.model_copy(update={"speech_text_pairs": ()})
    assert len(pair_ages(RecordTimes(house.instance), few)) == 1
    for_one = len(asked)
    asked.clear()
    assert len(pair_ages(RecordTimes(house.instance), all_of_them)) == 3
    assert len(asked) == for_one + 1  # the third language's index


def test_the_cursor_can_be_read_by_a_person(house: House) -> None:
    mined(house)
    house.day = 0.01
    house.embed("deu", "3")
    house.day = 15
    house.tick()
    assert set(json.loads(str(house.cursor))["at"]) == {"deu/speech_index"}
