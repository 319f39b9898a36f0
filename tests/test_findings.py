"""Checks of a language after a batch: the batch is looked at, the language is told of, and nothing is forgotten."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from partitions.audiobooks import add_audiobooks, audiobooks
from partitions.batches import BATCH, each_partition, keys_of_run
from resources.findings import LAYER, Findings
from resources.settings import load_settings
from resources.storage import Storage
from s2s_assets.checks import checks
from speech_mining.lake import Lake
from speech_mining.quality.checks import CheckOutcome
from tests.asset_checks import offending

CHECK = "vectors_are_unit"


@dataclass
class House:
    """Embeddings of German audiobooks that are made in batches, and the real check of them."""

    storage: Storage
    instance: dg.DagsterInstance
    bad: set[str] = field(default_factory=set)
    unmakeable: set[str] = field(default_factory=set)

    def make(self, first: str, last: str) -> dg.AssetCheckEvaluation | None:
        """A batch; what the check said, if it came to be evaluated."""
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return self._run(tags, "all")

    def look(self) -> dg.AssetCheckEvaluation:
        """The check by itself."""
        found = self._run({}, "look")
        assert found is not None
        return found

    def _run(self, tags: dict[str, str], job: str) -> dg.AssetCheckEvaluation | None:
        result = (
            self._definitions()
            .resolve_job_def(job)
            .execute_in_process(
                instance=self.instance, tags=tags, raise_on_error=False, resources={"storage": self.storage}
            )
        )
        return next(iter(result.get_asset_check_evaluations()), None)

    def _definitions(self) -> dg.Definitions:
        settings = load_settings(languages="deu")
        own = [each for each in checks(settings) for key in each.check_keys if key.name == CHECK]
        asked = [key for each in own for key in each.check_keys if key.name == CHECK]

        @dg.asset(key=["deu", "speech_embeddings"], partitions_def=audiobooks("deu"), backfill_policy=BATCH)
        def embeddings(context: dg.AssetExecutionContext) -> None:
            each_partition(context, self._embed, (OSError,))

        everything = dg.AssetSelection.assets(["deu", "speech_embeddings"])
        jobs = [
            dg.define_asset_job("all", everything),
            dg.define_asset_job("look", dg.AssetSelection.checks(*asked)),
        ]
        return dg.Definitions(assets=[embeddings], asset_checks=own, jobs=jobs, resources={"storage": self.storage})

    def _embed(self, book: str) -> dict[str, int]:
        if book in self.unmakeable:
            raise OSError("no such tape")
        with self.storage.lake.replace("speech_embeddings", "deu", book) as new:
            new.write_array("vectors.npy", np.array([[0.5 if book in self.bad else 1.0, 0.0]], np.float16))
        return {}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with dg.DagsterInstance.ephemeral() as instance:
        add_audiobooks(instance, "deu", [str(number) for number in range(1, 10)])
        yield House(Storage(url=str(tmp_path / "lake"), scratch=str(tmp_path / "scratch")), instance)


def _told(found: dg.AssetCheckEvaluation | None) -> tuple[bool, int, int]:
    """Passed, audiobooks looked at, audiobooks that break it."""
    assert found is not None
    return found.passed, int(found.metadata["audiobooks"].value), int(found.metadata["offending_audiobooks"].value)  # type: ignore[arg-type]


def test_a_batch_is_looked_at_by_itself_and_what_was_wrong_before_stays_wrong(house: House) -> None:
    house.bad = {"2"}
    assert _told(house.make("1", "3")) == (False, 3, 1)
    found = house.make("7", "9")
    assert _told(found) == (False, 6, 1)  # its own three, and those made since the last evaluation's run began
    assert len(offending(found)) == 1  # type: ignore[arg-type]
    assert _told(house.make("5", "5")) == (False, 4, 1)  # 2 was not looked at, and is wrong as before
    house.bad = set()
    assert _told(house.make("2", "2"))[0] is True


def test_a_hundred_batches_later_a_batch_costs_its_own(house: House) -> None:
    for book in ("1", "2", "3", "4"):
        house.make(book, book)
    assert _told(house.make("5", "5")) == (True, 2, 0)


def test_audiobooks_of_a_batch_of_which_one_failed_are_looked_at_by_the_next(house: House) -> None:
    house.make("1", "1")
    house.bad, house.unmakeable = {"4"}, {"3"}
    assert house.make("2", "4") is None  # Dagster skips the checks of a step that failed
    found = house.make("8", "8")
    assert found is not None and not found.passed
    assert found.metadata["offending_audiobooks"].value == 1


def test_run_by_itself_a_check_looks_at_everything_and_forgets_what_is_gone(house: House) -> None:
    house.bad = {"2", "3"}
    house.make("1", "4")
    house.storage.lake.remove("speech_embeddings", "deu", "2")
    assert _told(house.look()) == (False, 3, 1)


def test_one_question_is_asked_for_all_and_where_it_fails_each_is_looked_at(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    for book in ("1", "2", "3"):
        with lake.replace("segments", "deu", book) as new:
            new.write_json("x.json", book)
    asked: list[str] = []

    def look(book: str, broken: str = "") -> CheckOutcome:
        asked.append(book)
        return CheckOutcome(book != broken, pl.DataFrame({"book": [book]}), {})

    def of_all(*broken: str) -> CheckOutcome:
        return Findings(lake, "deu", "tests").judge(
            "segments",
            ["1", "2", "3"],
            lambda book: look(book, *broken),
            look_at_all=lambda books: CheckOutcome(not set(broken) & set(books), pl.DataFrame(), {}),
        )

    assert of_all().passed and asked == []
    assert of_all("2").offending["book"].to_list() == ["2"] and asked == ["1", "2", "3"]
    assert of_all().passed and lake.keys(LAYER, "deu", "tests") == []


def test_the_keys_of_a_run_are_those_of_its_range_in_the_order_of_the_set() -> None:
    known = ["3", "20", "100", "21"]
    tags = {"dagster/asset_partition_range_start": "20", "dagster/asset_partition_range_end": "21"}
    assert keys_of_run(known, tags) == ["20", "100", "21"]
    assert keys_of_run(known, {"dagster/partition": "3"}) == ["3"]
    assert keys_of_run(known, {}) is None


def test_a_batch_reads_the_set_of_audiobooks_no_oftener_for_every_book_of_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    storage = type(house.instance.event_log_storage)
    real = storage.get_dynamic_partitions
    monkeypatch.setattr(storage, "get_dynamic_partitions", lambda self, name: (read.append(name), real(self, name))[1])
    house.make("1", "3")
    for_three = len(read)
    read.clear()
    house.make("1", "9")
    assert len(read) == for_three
