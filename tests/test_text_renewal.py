"""Speech sought in shards of text: by cells or exactly, stopped and gone on, and what a new shard costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from speech_mining.corpora.manifest import read_corpus
from speech_mining.knn.exact import both_directions
from speech_mining.knn.incremental import Request
from speech_mining.knn.roll import TEXT, call_the_roll, kept_file, read_blocks, read_roll
from speech_mining.knn.vectors import normalise
from speech_mining.lake import Lake
from speech_mining.mining import renewal
from speech_mining.mining.kinds import SPEECH_TO_TEXT
from speech_mining.mining.renewal import Renewed, renew
from speech_mining.mining.strategies import mine
from speech_mining.records import EMBEDDED_SENTENCES, SEGMENTS
from tests.test_renewal import DIMENSION, PAIR, embed, index
from tests.test_text_assets import BOTH, FIRST, SECOND, Platform, _speech

SHARDS, ROWS, UNSAID = 3, 700, 300
SPOKEN = SHARDS * ROWS - UNSAID


def meanings(first: int, count: int) -> npt.NDArray[np.float32]:
    """float32 (count, DIMENSION): what is meant, the same for a number wherever it is asked for."""
    rows = [np.random.default_rng([99, number]).standard_normal(DIMENSION) for number in range(first, first + count)]
    found: npt.NDArray[np.float32] = normalise(np.array(rows))
    return found


def write_speech(lake: Lake) -> None:
    """A German book whose row n means 300 + n, though no vector is quite that of its meaning."""
    embed(lake, "deu", 3, SPOKEN)
    kept = lake.partition("speech_embeddings", "deu", "3")
    segments = kept.read_table("segments.parquet", SEGMENTS)
    noise = np.random.default_rng(0).normal(0, 0.3 / np.sqrt(DIMENSION), (SPOKEN, DIMENSION))
    with lake.replace("speech_embeddings", "deu", "3") as new:
        new.write_table("segments.parquet", segments, SEGMENTS)
        new.write_array("vectors.npy", normalise(meanings(UNSAID, SPOKEN) + noise).astype(np.float16))
        new.write_json("encoder.json", {"name": "e", "version": "1"})
    index(lake, "deu")


def write_shard(lake: Lake, number: int, rows: int = ROWS) -> None:
    """A shard of English text, of which the row n of all means n, and none repeats another."""
    first, name = ROWS * number, f"s{number}"
    table = [(first + place + 1, name, place) for place in range(rows)]
    with lake.replace("text_embeddings", "eng", name) as new:
        sentences = pl.DataFrame(table, schema=dict(EMBEDDED_SENTENCES), orient="row")
        new.write_table("sentences.parquet", sentences, EMBEDDED_SENTENCES)
        new.write_array("vectors.npy", meanings(first, rows).astype(np.float16))
        new.write_json("encoder.json", {"name": "t", "version": "1"})


def index_text(lake: Lake) -> None:
    """Say that nothing repeats, and call the roll of the shards that are there."""
    with lake.replace("text_duplicates", "eng") as new:
        for name in lake.keys("text_embeddings", "eng"):
            rows = lake.partition("text_embeddings", "eng", name).read_frame("sentences.parquet").height
            new.write_array(kept_file(name), np.ones(rows, np.bool_))
    roll = call_the_roll(read_blocks(lake, "eng", TEXT), layout=TEXT)
    with lake.replace("text_index", "eng") as new:
        new.write_table("roll.parquet", roll.blocks, TEXT.roll)
        table = roll.items.with_row_index("row").with_columns(recurring=pl.lit(False))
        new.write_table("rows.parquet", table, TEXT.rows)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    write_speech(lake)
    for number in range(SHARDS):
        write_shard(lake, number)
    index_text(lake)
    return lake


def sought(lake: Lake, engine: str = "auto", tell: Callable[[str], None] = lambda told: None) -> Renewed:
    return renew(lake, PAIR, Request(4, engine), tell, SPEECH_TO_TEXT)


def as_from_nothing(lake: Lake, found: Renewed) -> None:
    """Hold what was found against one search of the whole text."""
    source, target = read_roll(lake, "deu")[0].vectors, read_roll(lake, "eng", TEXT)[0].vectors
    fresh = both_directions(source, target, 4)
    for table in ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines"):
        np.testing.assert_array_equal(getattr(found.neighbours, table), getattr(fresh, table), err_msg=table)


def pairs_of(found: Renewed) -> set[tuple[int, int]]:
    mined = mine(found.neighbours, threshold=1.06)
    return set(zip(mined.source.tolist(), mined.target.tolist(), strict=True))


TRUE = {(row, UNSAID + row) for row in range(SPOKEN)}


def test_a_search_by_cells_finds_the_pairs_of_the_exact_one_over_all_shards(lake: Lake) -> None:
    exact, cells = sought(lake), sought(lake, "ivf")
    as_from_nothing(lake, exact)
    assert cells.neighbours.engine == "ivf" and cells.neighbours.recall >= 0.95
    for found in (exact, cells):
        assert len(pairs_of(found) & TRUE) >= 0.95 * SPOKEN
        assert len(pairs_of(found) & TRUE) >= 0.95 * len(pairs_of(found))
    assert "keeps no state" in cells.began
    assert sought(lake).began == ""  # what was kept of the exact search is left as it was


def test_an_exact_search_of_speech_in_text_that_was_stopped_goes_on_where_it_kept_its_state(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "FIRST_PRODUCTS", 1)  # the least step: 1 024 rows
    monkeypatch.setattr(renewal, "KEPT_EVERY_S", 0.0)

    def stop(told: str) -> None:
        raise KeyboardInterrupt(told)

    with pytest.raises(KeyboardInterrupt, match=f"1024 of {SPOKEN} source rows"):
        sought(lake, tell=stop)

    found = sought(lake)
    assert found.began == "" and found.work.rows_new == SPOKEN - 1024
    rest = (SPOKEN - 1024) * SHARDS * ROWS
    assert rest <= found.work.products < SPOKEN * SHARDS * ROWS
    as_from_nothing(lake, found)


def test_a_shard_that_comes_or_goes_costs_its_own_products_and_leaves_what_one_search_would_find(lake: Lake) -> None:
    sought(lake)
    write_shard(lake, SHARDS, rows=50)
    index_text(lake)
    more = sought(lake)
    assert (more.work.products, more.work.rows_new, more.work.rows_gone) == (SPOKEN * 50, 50, 0)
    as_from_nothing(lake, more)
    lake.remove("text_embeddings", "eng", "s1")
    index_text(lake)
    less = sought(lake)
    assert less.work.rows_gone == ROWS and less.work.rows_new == 0
    as_from_nothing(lake, less)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Platform(tmp_path, instance)
        _speech(made.lake)
        yield made


def test_the_asset_seeks_by_cells_where_a_run_asks_for_it(platform: Platform) -> None:
    platform.write("a.txt", FIRST)
    platform.write("b.txt", SECOND)
    platform.take_in()
    done = platform.job.execute_in_process(
        instance=platform.instance,
        asset_selection=[dg.AssetKey(f"s2t_{layer}") for layer in ("neighbours", "pairs", "corpus")],
        partition_key="deu-eng",
        run_config={
            "ops": {"s2t_neighbours": {"config": {"engine": "ivf"}}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )
    told = done.asset_materializations_for_node("s2t_neighbours")[0].metadata
    assert told["engine"].value == "ivf" and "no state" in str(told["began"].value)
    assert platform.lake.find("s2t_neighbour_state", "deu-eng") is None
    corpus = read_corpus(platform.lake.partition("s2t_corpus", "deu-eng"))
    english = BOTH.select(
        pl.col("audiobook", "section", "start_ms").name.prefix("source_"), pl.col("english").alias("target_text")
    )
    right = corpus.join(english, on=english.columns, how="semi")
    assert right.height >= 0.85 * BOTH.height and right.height >= 0.95 * corpus.height
