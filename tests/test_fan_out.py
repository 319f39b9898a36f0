"""An update cut in blocks, searched apart and put together: the bytes of one search, whatever dies on the way."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.settings import load_settings
from resources.storage import Storage
from s2s_assets.mined_pairs import neighbours
from speech_mining.errors import EmbeddingError, LakeError
from speech_mining.knn.exact import both_directions
from speech_mining.knn.incremental import Request, Updated, update
from speech_mining.knn.incremental_blocks import (
    Agenda,
    Cutting,
    Outcome,
    closed,
    plan_blocks,
    put_together,
    search_block,
)
from speech_mining.knn.incremental_lists import Side, State
from speech_mining.knn.roll import read_roll
from speech_mining.knn.vectors import normalise
from speech_mining.lake import Lake
from speech_mining.mining import blocks
from speech_mining.mining.blocks import Merged, Shared
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, SPEECH_TO_TEXT, Kind
from speech_mining.mining.renewal import renew
from speech_mining.records import SEGMENTS
from tests.fan_out_runner import LANGUAGES, indexes, run
from tests.s3_server import new_bucket, s3_server
from tests.test_incremental import CHANGES, Library, _change, sides, without
from tests.test_renewal import PAIR, embed, index
from tests.test_text_renewal import index_text, write_shard

REQUEST = Request(5)
CUTTING = Cutting(45_000, 50)
TABLES = ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines")


def fanned(state: State | None, source: Side, target: Side, request: Request, cutting: Cutting) -> Updated:
    """Plan, search every block by itself in a random order, put together."""
    agenda = plan_blocks(state, source, target, request.k, cutting)
    order = list(range(len(agenda.blocks)))
    random.Random(5).shuffle(order)
    found = {number: searched(agenda, number, source, target, request) for number in order}
    return put_together(state, source, target, agenda, (found[number] for number in sorted(found)), request)


def searched(agenda: Agenda, number: int, source: Side, target: Side, request: Request) -> Outcome:
    block = agenda.blocks[number]
    own, other = (source, target) if block.side == "source" else (target, source)
    rows, base = agenda.places(block)
    of_base = agenda.pending["target" if block.side == "source" else "source"]
    ends = closed(len(base)) if block.again else of_base.ends[base]
    return search_block(own.vectors[:][rows], other.vectors[:][base], ends, request)


def assert_as_one_search(
    state: State | None, source: Side, target: Side, request: Request, cutting: Cutting
) -> Updated:
    updated = fanned(state, source, target, request, cutting)
    assert_proved(updated, source, target, request.k)
    return updated


def assert_proved(updated: Updated, source: Side, target: Side, k: int) -> None:
    """The tables of a search from nothing, and a state that is proved: each of its lists is that of all rows."""
    n, m = len(source.ids), len(target.ids)
    whole = both_directions(source.vectors, target.vectors, max(n, m, 1), engine="fp32")
    for table in TABLES:
        first = min(k, n, m) if n and m else 1
        np.testing.assert_array_equal(getattr(updated.neighbours, table)[:, :first], getattr(whole, table)[:, :first])
    sides_of = ((updated.state.source, whole.forward_rows, m), (updated.state.target, whole.backward_rows, n))
    for lists, rows, others in sides_of:
        proved = np.arange(lists.rows.shape[1]) < lists.depths[:, None]
        length = min(rows.shape[1], lists.rows.shape[1])
        np.testing.assert_array_equal(lists.rows[proved], rows[:, :length][proved[:, :length]])
        assert (lists.depths >= min(k, others)).all()


@settings(max_examples=25, deadline=None)
@given(
    changes=CHANGES,
    k=st.integers(1, 9),
    engine=st.sampled_from(["fp32", "int8", "faiss"]),
    first=st.integers(0, 300),
    products=st.integers(200, 40_000),
    rows=st.integers(50, 500),
)
def test_any_history_in_blocks_ends_in_the_bytes_of_one_search(
    changes: list[tuple[str, str, int, int]], k: int, engine: str, first: int, products: int, rows: int
) -> None:
    source, target = Library(1, dict.fromkeys(range(first), 0)), Library(2, dict.fromkeys(range(0, 2 * first, 2), 0))
    request, cutting = Request(k, engine), Cutting(products, 9, rows)
    state = assert_as_one_search(None, source.side(), target.side(), request, cutting).state
    for which, what, start, count in changes:
        for library in {"source": [source], "target": [target], "both": [source, target]}[which]:
            _change(library, what, start, count)
        state = assert_as_one_search(state, source.side(), target.side(), request, cutting).state


def test_lists_that_lose_too_much_are_searched_again_in_blocks_of_their_own() -> None:
    source, target = sides(300, 400)
    state = update(None, source, target, Request()).state
    fewer = without(target, state.source.rows[7, : state.source.depths[7]])
    cutting = Cutting(100, 1000)

    updated = assert_as_one_search(state, source, fewer, Request(), cutting)

    again = [block for block in plan_blocks(state, source, fewer, 16, cutting).blocks if block.again]
    assert len(again) > 1 and updated.work.rows_again >= 1
    assert updated.work.products == update(state, source, fewer, Request()).work.products


def test_a_list_is_proved_no_deeper_than_each_of_its_blocks_proves_it() -> None:
    # the first block holds 68 rows that are far, the second 6 near ones and 62 equal ones between: of these more than
    # an engine's lists hold, so that only the near ones are proved there
    rng = np.random.default_rng(0)
    far, near, between = (np.zeros((count, 24)) for count in (68, 6, 62))
    far[:, 0], far[:, 1:] = 0.2, rng.standard_normal((68, 23)) / 5
    near[:, 0], near[:, 1:] = 1.0, rng.standard_normal((6, 23)) / 10
    between[:, 0], between[:, 1] = 1.0, 1.5
    vectors = normalise(np.concatenate([far, near, between])).astype(np.float16)
    target = Side(np.arange(136), np.zeros(136, np.int64), vectors)
    source = Side(np.arange(1), np.zeros(1, np.int64), np.eye(1, 24).astype(np.float16))

    updated = assert_as_one_search(None, source, target, Request(4, "fp32"), Cutting(68, 50))

    assert updated.state.source.depths[0] == 6


def test_what_no_block_can_prove_is_searched_when_they_are_put_together() -> None:
    source, target = sides(300, 400)
    state = update(None, without(source, np.arange(0, 300, 10)), target, Request()).state
    agenda = plan_blocks(state, source, target, 16, Cutting(3000, 50))
    found = [searched(agenda, number, source, target, Request()) for number in range(len(agenda.blocks))]
    unsure = [replace(each, base=replace(each.base, covers=np.zeros_like(each.base.covers))) for each in found]

    sure = put_together(state, source, target, agenda, found, Request())
    updated = put_together(state, source, target, agenda, unsure, Request())

    assert sure.work.rows_again == 0 < updated.work.rows_again
    assert_proved(updated, source, target, 16)


def test_a_block_is_named_by_all_that_it_is_searched_from() -> None:
    source, target = sides(60, 50)
    state = update(None, without(source, np.array([4])), target, Request(4)).state
    plans = {
        "from nothing": (None, source, target, 4),
        "one row came": (state, source, target, 4),
        "another k": (None, source, target, 5),
        "another id": (None, replace(source, ids=source.ids + 1), target, 4),
        "another version": (None, source, replace(target, versions=target.versions + 1), 4),
        "lists end elsewhere": (
            replace(state, target=replace(state.target, depths=state.target.depths - 1)), source, target, 4
        ),
    }  # fmt: skip
    names = {
        why: {block.name for block in plan_blocks(*asked, Cutting(300, 50)).blocks} for why, asked in plans.items()
    }
    assert all(names.values())
    for one, other in itertools.combinations(names, 2):
        assert not names[one] & names[other], (one, other)
    assert {block.name for block in plan_blocks(*plans["from nothing"], Cutting(300, 50)).blocks} == names[
        "from nothing"
    ]


def test_sides_are_cut_so_that_few_lists_are_written() -> None:
    source, target = sides(10, 1000)
    cut = plan_blocks(None, source, target, 4, Cutting(1000, 50)).blocks
    assert [block.rows for block in cut] == [(0, 10)] * 10 and [block.products for block in cut] == [1000] * 10
    assert len(plan_blocks(None, source, target, 4, Cutting(1, 50)).blocks) <= 50 + 10
    short = plan_blocks(None, source, target, 4, Cutting(10_000, 50, rows=300)).blocks
    assert [block.base for block in short] == [(0, 250), (250, 500), (500, 750), (750, 1000)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return library(tmp_path)


def library(root: Path | str, times: int = 1) -> Lake:
    """Two audiobooks a language, embedded and indexed."""
    lake = Lake(root)
    for language, books in (("deu", {3: 300, 20: 250}), ("eng", {7: 280, 11: 310})):
        for book, count in books.items():
            embed(lake, language, book, times * count)
    index(lake, "deu")
    index(lake, "eng", recurring=4)
    return lake


# In the lake: what processes that share nothing else leave for each other


def shared(lake: Lake, plan: str = "plan-1", kind: Kind = SPEECH_TO_SPEECH) -> Shared:
    """As a process of its own would open it."""
    return Shared(Lake(lake.root), kind, PAIR, plan)


def quiet(told: str) -> None:
    pass


def mined(lake: Lake, cutting: Cutting = CUTTING, kind: Kind = SPEECH_TO_SPEECH, plan: str = "plan-1") -> Merged:
    """Plan, search every block, merge, and hold the tables against a search from nothing."""
    for block in blocks.plan(shared(lake, plan, kind), REQUEST, cutting, quiet):
        assert blocks.search(shared(lake, plan, kind), block.name, REQUEST, quiet) is not None
    merged = blocks.merge(shared(lake, plan, kind), REQUEST, cutting, 0, quiet)
    rolls = [read_roll(lake, language, layout) for language, layout in zip(PAIR, kind.layouts, strict=True)]
    source, target = (roll.vectors[~recurs] for roll, recurs in rolls)
    fresh = both_directions(source, target, REQUEST.k)
    for table in TABLES:
        np.testing.assert_array_equal(getattr(merged.renewed.neighbours, table), getattr(fresh, table))
    np.testing.assert_array_equal(merged.renewed.source, rolls[0][0].ids[~rolls[0][1]])
    return merged


def test_blocks_of_the_lake_give_one_searchs_tables_before_and_after_audiobooks_come_and_go(lake: Lake) -> None:
    first = mined(lake)
    assert len(first.blocks) == 8 and "never searched" in first.renewed.began
    assert (first.renewed.work.products, first.renewed.left_out) == (550 * 586, 4)
    assert blocks.discard(lake, SPEECH_TO_SPEECH, PAIR) == 9 and not lake.keys("s2s_neighbour_blocks", "deu-eng")
    embed(lake, "deu", 5, 40)
    lake.remove("speech_embeddings", "eng", "11")
    embed(lake, "eng", 8, 200)
    index(lake, "deu", recurring=3)
    index(lake, "eng", recurring=4)

    second = mined(lake)

    work = second.renewed.work
    assert (work.rows_new, work.rows_gone, second.renewed.began) == (40 + 200, 310 + 3, "")
    assert 40 * 476 + 200 * 547 <= work.products < 587 * 476
    one = renew(lake, PAIR, REQUEST, quiet)  # goes on from the state that was merged
    assert one.work.products == 0
    for table in TABLES:
        np.testing.assert_array_equal(getattr(one.neighbours, table), getattr(second.renewed.neighbours, table))


def test_nothing_new_is_no_block_and_no_product(lake: Lake) -> None:
    mined(lake)
    state = lake.partition("s2s_neighbour_state", "deu-eng").data_version

    again = mined(lake, plan="plan-2")

    assert again.blocks == () and again.renewed.work.products == 0
    assert lake.partition("s2s_neighbour_state", "deu-eng").data_version == state


def test_speech_in_text_is_searched_in_blocks_too(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    embed(lake, "deu", 3, 300)
    index(lake, "deu")
    for number in range(2):
        write_shard(lake, number, 200)
    index_text(lake)
    assert len(mined(lake, Cutting(30_000, 50), SPEECH_TO_TEXT).blocks) == 4
    write_shard(lake, 2, 100)
    index_text(lake)

    assert mined(lake, Cutting(30_000, 50), SPEECH_TO_TEXT, "plan-2").renewed.work.products == 300 * 100


def test_an_object_store_serves_as_well_as_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where copies of its files are kept
    with s3_server() as url:
        lake = library(new_bucket(url))
        assert len(mined(lake, Cutting(200_000, 50)).blocks) == 2
        assert blocks.discard(lake, SPEECH_TO_SPEECH, PAIR) == 3 and not lake.keys("s2s_neighbour_blocks", "deu-eng")


def test_a_block_that_a_run_has_left_is_not_searched_by_the_next(lake: Lake) -> None:
    planned = blocks.plan(shared(lake), REQUEST, CUTTING, quiet)
    for block in planned[:3]:
        blocks.search(shared(lake), block.name, REQUEST, quiet)
    left = {
        block.name: lake.partition("s2s_neighbour_blocks", "deu-eng", block.name).data_version for block in planned[:3]
    }

    missing = blocks.plan(shared(lake, "plan-2"), REQUEST, CUTTING, quiet)
    again = blocks.search(shared(lake, "plan-2"), planned[0].name, REQUEST, quiet)

    assert [block.name for block in missing] == [block.name for block in planned[3:]]
    assert again is not None and again.again
    assert mined(lake, plan="plan-3").reused == 3
    for name, version in left.items():
        assert lake.partition("s2s_neighbour_blocks", "deu-eng", name).data_version == version


def test_blocks_whose_rows_are_the_same_outlive_a_new_index(lake: Lake) -> None:
    for block in blocks.plan(shared(lake), REQUEST, Cutting(550 * 80, 50), quiet):
        blocks.search(shared(lake), block.name, REQUEST, quiet)
    embed(lake, "eng", 7, 280, take=1)  # the first half of the target
    index(lake, "eng", recurring=4)

    missing = blocks.plan(shared(lake, "plan-2"), REQUEST, Cutting(550 * 80, 50), quiet)

    assert 0 < len(missing) < 8


def test_neither_plan_nor_block_opens_audiobooks_whose_vectors_they_do_not_want(lake: Lake) -> None:
    for language, book in (("deu", "20"), ("eng", "11")):
        lake.partition("speech_embeddings", language, book).local_path("vectors.npy").unlink()
    planned = blocks.plan(shared(lake), REQUEST, CUTTING, quiet)
    first = next(block for block in planned if block.rows[0] == 0 and block.base[0] == 0)

    assert blocks.search(shared(lake), first.name, REQUEST, quiet) is not None
    with pytest.raises(LakeError, match=r"has no file vectors\.npy"):
        blocks.search(shared(lake), planned[-1].name, REQUEST, quiet)


@pytest.mark.parametrize("change", ["went", "changed"])
def test_an_index_whose_blocks_are_not_what_they_were_is_not_planned_from(lake: Lake, change: str) -> None:
    if change == "went":
        lake.remove("speech_embeddings", "eng", "7")
    else:
        embed(lake, "eng", 7, 280, take=1)

    with pytest.raises(LakeError, match="The index of eng and its embeddings differ in 1 blocks"):
        blocks.plan(shared(lake), REQUEST, CUTTING, quiet)


def test_missing_blocks_are_searched_by_the_merge_only_if_they_are_few(lake: Lake) -> None:
    planned = blocks.plan(shared(lake), REQUEST, CUTTING, quiet)
    for block in planned[1:]:
        blocks.search(shared(lake), block.name, REQUEST, quiet)

    with pytest.raises(LakeError, match="1 of 8 blocks of deu-eng were not searched"):
        blocks.merge(shared(lake), REQUEST, CUTTING, planned[0].products - 1, quiet)

    assert blocks.merge(shared(lake), REQUEST, CUTTING, planned[0].products, quiet).renewed.work.products == 550 * 586


def test_a_run_whose_pair_another_has_merged_finds_nothing_left_to_do(lake: Lake) -> None:
    planned = blocks.plan(shared(lake), REQUEST, CUTTING, quiet)
    mined(lake, plan="plan-2")
    late = blocks.merge(shared(lake), REQUEST, CUTTING, 0, quiet)
    assert late.blocks == () and late.renewed.work.products == 0
    blocks.discard(lake, SPEECH_TO_SPEECH, PAIR)

    assert blocks.search(shared(lake), planned[0].name, REQUEST, quiet) is None
    assert blocks.merge(shared(lake), REQUEST, CUTTING, 0, quiet).renewed.work.products == 0


def test_an_audiobook_embedded_again_during_the_search_is_refused(lake: Lake) -> None:
    planned = blocks.plan(shared(lake), REQUEST, CUTTING, quiet)
    embed(lake, "deu", 20, 250, take=1)

    with pytest.raises(LakeError, match="1 audiobooks of deu were embedded again while"):
        blocks.search(shared(lake), planned[-1].name, REQUEST, quiet)


def test_a_row_that_is_no_unit_vector_stops_its_block(lake: Lake) -> None:
    embed(lake, "deu", 20, 250)
    kept = lake.partition("speech_embeddings", "deu", "20")
    vectors = kept.read_array("vectors.npy").copy()
    vectors[7] = np.nan
    segments = kept.read_table("segments.parquet", SEGMENTS)
    with lake.replace("speech_embeddings", "deu", "20") as new:
        new.write_table("segments.parquet", segments, SEGMENTS)
        new.write_array("vectors.npy", vectors)
        new.write_json("encoder.json", {"name": "e", "version": "1"})
    index(lake, "deu")
    planned = blocks.plan(shared(lake), REQUEST, CUTTING, quiet)

    assert blocks.search(shared(lake), planned[0].name, REQUEST, quiet) is not None
    with pytest.raises(EmbeddingError, match="The block has 1 of 275 rows that hold NaN or infinity: rows 32"):
        blocks.search(shared(lake), planned[-1].name, REQUEST, quiet)


# Through Dagster: processes that are killed


class Killer(threading.Thread):
    """Kills processes of block steps at seeded moments, as they start or as they search, each step at most once."""

    def __init__(self, instance: dg.DagsterInstance, most: int, searching: float = 0.7) -> None:
        super().__init__(daemon=True)
        self.killed: list[str] = []
        self._instance, self._moments = instance, random.Random(3)
        self._most, self._searching = most, searching
        self._ended = threading.Event()
        self._waits_for_start: dict[str, bool] = {}

    def run(self) -> None:
        while not self._ended.wait(0.02) and len(self.killed) < self._most:
            pids, begun, _ = self._block_steps()
            for step, pid in pids.items():
                waits = self._waits_for_start.setdefault(step, self._moments.random() < self._searching)
                if step not in self.killed and (step in begun or not waits):
                    self._ended.wait(self._moments.uniform(0, 0.3) if waits else 0)
                    self._kill(step, pid)

    def _kill(self, step: str, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if len(self.killed) < self._most and step not in self._block_steps()[2]:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(step)

    def _block_steps(self) -> tuple[dict[str, int], set[str], set[str]]:
        """Pid of every block's process, and the blocks that have begun and ended."""
        runs = self._instance.get_run_records(limit=1)
        pids, begun, ended = {}, set(), set()
        for entry in self._instance.all_logs(runs[0].dagster_run.run_id) if runs else []:
            event = entry.dagster_event
            if event and "search_block" in str(event.step_key):
                if event.event_type is dg.DagsterEventType.STEP_WORKER_STARTED:
                    pids[str(event.step_key)] = int(str(event.engine_event_data.metadata["pid"].value))
                elif event.event_type is dg.DagsterEventType.STEP_START:
                    begun.add(str(event.step_key))
                elif event.event_type is dg.DagsterEventType.STEP_SUCCESS:
                    ended.add(str(event.step_key))
        return pids, begun, ended

    def stop(self) -> None:
        self._ended.set()
        self.join()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def published(home: Path) -> dict[str, bytes]:
    """Every file of the neighbours, by its path: generations are named by their content."""
    layer = home / "lake" / "s2s_neighbours"
    return {str(path.relative_to(layer)): path.read_bytes() for path in layer.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process publishes, in the asset's other shape."""
    home = tmp_path_factory.mktemp("one")
    library(home / "lake", 6)
    assert in_this_process(home, fan_out={"enabled": False}).success
    return published(home)


def in_this_process(home: Path, engine: str = "auto", **asked: Any) -> dg.ExecuteInProcessResult:
    settings = load_settings(home=home, languages=LANGUAGES, mining={"k": 5}, **asked)
    return dg.materialize(
        [neighbours(SPEECH_TO_SPEECH, settings), *indexes()],
        resources={"storage": Storage.of(settings)},
        partition_key="deu-eng",
        run_config={
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            "ops": {"s2s_neighbours": {"config": {"engine": engine}}},
        },
    )


def steps_of(instance: dg.DagsterInstance, run_id: str, event: dg.DagsterEventType) -> list[str]:
    return [
        str(entry.dagster_event.step_key).rpartition(".")[2]
        for entry in instance.all_logs(run_id, of_type=event)
        if entry.dagster_event
    ]


def figures(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Metadata of the last materialization."""
    event = instance.get_latest_materialization_event(dg.AssetKey("s2s_neighbours"))
    assert event is not None and event.asset_materialization is not None
    return {name: entry.value for name, entry in event.asset_materialization.metadata.items()}


PRODUCTS = 3300 * 3536 // 4
"""Four blocks."""


@pytest.mark.slow
def test_blocks_whose_processes_are_killed_are_searched_again_and_the_lake_is_the_same(
    tmp_path: Path, instance: dg.DagsterInstance, expected: dict[str, bytes]
) -> None:
    lake = library(tmp_path / "lake", 6)
    killer = Killer(instance, most=4)
    killer.start()

    done = run(tmp_path, instance, PRODUCTS, retries=3)

    killer.stop()
    assert done.success and killer.killed
    assert published(tmp_path) == expected
    assert steps_of(instance, done.run_id, dg.DagsterEventType.STEP_UP_FOR_RETRY)
    told = figures(instance)
    assert (told["blocks"], told["blocks_of_earlier_runs"], told["products_computed"]) == (4, 0, 3300 * 3536)
    assert (told["engine"], told["why_this_engine"]) == ("fp32", "fp32 was asked for")
    assert not lake.keys("s2s_neighbour_blocks", "deu-eng")
    # nothing passed between the steps but through the lake
    assert not [path for path in (tmp_path / "dagster" / "storage").rglob("*_block*") if path.is_file()]


@pytest.mark.slow
def test_a_run_that_failed_goes_on_with_the_block_that_is_not_there(
    tmp_path: Path, instance: dg.DagsterInstance, expected: dict[str, bytes]
) -> None:
    lake = library(tmp_path / "lake", 6)
    killer = Killer(instance, most=1, searching=0)
    killer.start()
    failed = run(tmp_path, instance, PRODUCTS, retries=0)
    killer.stop()
    assert not failed.success and len(killer.killed) == 1 and not published(tmp_path)
    left = [name for name in lake.keys("s2s_neighbour_blocks", "deu-eng") if not name.startswith("plan")]
    assert len(left) == 3

    options = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
    done = run(tmp_path, instance, PRODUCTS, retries=0, reexecution_options=options)

    assert done.success and published(tmp_path) == expected
    ended = steps_of(instance, done.run_id, dg.DagsterEventType.STEP_SUCCESS)
    assert ended == [killer.killed[0].rpartition(".")[2], "s2s_merge_blocks"]


def test_a_small_pair_is_searched_by_the_merge_and_a_search_by_cells_in_one_step(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    library(tmp_path / "lake", 6)
    small = in_this_process(tmp_path, fan_out={"enabled": True})
    assert published(tmp_path) == expected
    cells = in_this_process(tmp_path, "ivf", fan_out={"enabled": True, "products": 1, "in_place": 0})
    for done, engine in ((small, "fp32"), (cells, "ivf")):
        steps = [event.step_key for event in done.all_events if event.event_type is dg.DagsterEventType.STEP_SUCCESS]
        assert steps == ["s2s_neighbours.s2s_plan_blocks", "s2s_neighbours.s2s_merge_blocks"]
        (made,) = done.asset_materializations_for_node("s2s_neighbours.s2s_merge_blocks")
        assert made.metadata["engine"].value == engine


def test_both_shapes_of_the_asset_look_the_same_from_outside(tmp_path: Path) -> None:
    shapes = {}
    for fans_out in (False, True):
        settings = load_settings(home=tmp_path, languages="deu,eng,fra", fan_out={"enabled": fans_out})
        definitions = dg.Definitions(
            [neighbours(kind, settings) for kind in (SPEECH_TO_SPEECH, SPEECH_TO_TEXT)],
            resources={"storage": Storage.of(settings)},
        )
        nodes = RepositorySnap.from_def(definitions.get_repository_def()).asset_nodes
        shapes[fans_out] = {node.asset_key: node for node in nodes}
    own = {dg.AssetKey("s2s_neighbours"), dg.AssetKey("s2t_neighbours")}
    assert shapes[True].keys() == shapes[False].keys() and own < shapes[True].keys()
    for key in own:
        one, many = shapes[False][key], shapes[True][key]
        for told in ("code_version", "group_name", "owners", "tags", "description", "metadata", "partitions"):
            assert getattr(one, told) == getattr(many, told), told
        assert one.automation_condition == many.automation_condition
        assert {edge.parent_asset_key: edge.partition_mapping for edge in one.parent_edges} == {
            edge.parent_asset_key: edge.partition_mapping for edge in many.parent_edges
        }


def test_pods_fan_out_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    asked = {"home": tmp_path, "languages": "deu,eng"}
    assert not load_settings(**asked).fans_out
    assert load_settings(**asked, execution="k8s").fans_out
    assert not load_settings(**asked, execution="k8s", fan_out={"enabled": False}).fans_out


def test_what_was_embedded_since_the_index_takes_no_part_in_a_plan(lake: Lake) -> None:
    before = [block.name for block in blocks.plan(shared(lake), REQUEST, CUTTING, quiet)]
    embed(lake, "eng", 8, 280, take=1)

    assert [block.name for block in blocks.plan(shared(lake), REQUEST, CUTTING, quiet)] == before
