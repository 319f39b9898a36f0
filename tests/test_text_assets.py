"""Text from its files to a corpus with speech, in a real Dagster instance: repeats, arrivals, departures, lineage."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from demo.world.concepts import ConceptTeacher
from resources.settings import LIBRARY, load_settings
from s2s_assets.definitions import build
from speech_mining.corpora.manifest import read_corpus, read_manifest
from speech_mining.encoders.protocol import Sentence
from speech_mining.knn.roll import ROLL, ROWS, TEXT, call_the_roll, read_blocks, read_roll
from speech_mining.lake import Lake
from speech_mining.records import RECORDINGS, SEGMENTS, segment_id

SPOKEN = pl.read_parquet(LIBRARY / "sentences.parquet").filter(pl.col("kind") == "story")
GERMAN = SPOKEN.filter(language="deu").unique("sentence", maintain_order=True)
ENGLISH = SPOKEN.filter(language="eng").unique("sentence", maintain_order=True)
BOTH = GERMAN.join(ENGLISH.select("sentence", english=pl.col("text")), on="sentence").sort("sentence")


class Platform:
    """A lake with German speech, folders of English text, and the assets over them."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.shards = folder / "shards"
        self.shards.mkdir()
        self.settings = load_settings(
            home=folder / "home",
            languages="deu",
            speech_pairs="",
            text={"shards": {"eng": [str(self.shards)]}, "cleaning": {"least_boilerplate_sentences": 1000}},
            text_encoder="miniature",
            catalogue_url="https://librivox.org",
        )
        self.lake = Lake(self.settings.lake_url)
        self.job = build(self.settings).resolve_implicit_global_asset_job_def()

    def write(self, name: str, lines: list[str]) -> None:
        content = ("\n".join(lines) + "\n").encode()
        (self.shards / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)

    def make(self, *keys: str, partition: str | None = None) -> dg.ExecuteInProcessResult:
        assets = [dg.AssetKey.from_user_string(key) for key in keys]
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=assets,
            partition_key=partition,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
        failed = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
        assert result.success, [(error.message, error.cause and error.cause.message) for error in failed if error]
        return result

    def names(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions("text_shards_eng"))

    def shard(self, file: str) -> str:
        return next(name for name in self.names() if name.startswith(file.partition(".")[0]))

    def take_in(self, *files: str) -> None:
        """List, clean, free of repeats, embed and index; of the shards named, or of all."""
        self.make("text_shards")
        shards = [self.shard(file) for file in files] or self.names()
        for shard in shards:
            self.make("eng/text_sentences", partition=shard)
        self.make("eng/text_duplicates", partition="eng")
        for shard in shards:
            self.make("eng/text_embeddings", partition=shard)
        self.make("eng/text_index", partition="eng")

    def mine(self) -> dict[str, Any]:
        made = self.make("s2t_neighbours", "s2t_pairs", "s2t_corpus", partition="deu-eng")
        checks = made.get_asset_check_evaluations()
        # a warning is right: nobody can hear these recordings
        assert checks and all(check.passed or check.severity is dg.AssetCheckSeverity.WARN for check in checks)
        return {name: entry.value for name, entry in _materialized(made, "s2t_neighbours").items()}

    def corpus(self) -> pl.DataFrame:
        return read_corpus(self.lake.partition("s2t_corpus", "deu-eng"))

    def texts(self) -> list[str]:
        """Of the index, in the order of its rows."""
        roll, _ = read_roll(self.lake, "eng", TEXT)
        found = []
        for shard, row in roll.items.select("shard", "shard_row").iter_rows():
            found.append(
                self.lake.partition("text_sentences", "eng", shard).read_frame("sentences.parquet")["text"][row]
            )
        return found


def _materialized(made: dg.ExecuteInProcessResult, asset: str) -> dict[str, dg.MetadataValue]:  # type: ignore[type-arg]
    return dict(made.asset_materializations_for_node(asset.replace("/", "__"))[0].metadata)


def _speech(lake: Lake) -> None:
    """German speech whose vectors are those of its words, and a little noise: what a good encoder would give."""
    rows = [
        {
            "segment_id": segment_id(row["audiobook"], row["section"], 16 * row["start_ms"], 16 * row["end_ms"]),
            "audiobook": row["audiobook"],
            "section": row["section"],
            "start_sample": 16 * row["start_ms"],
            "end_sample": 16 * row["end_ms"],
            "start_ms": row["start_ms"],
            "end_ms": row["end_ms"],
            "first_run": place,
            "last_run": place,
            "level_dbfs": -20.0,
            "coverage": 1.0,
        }
        for place, row in enumerate(BOTH.iter_rows(named=True))
    ]
    vectors = ConceptTeacher().embed([Sentence(text, "deu") for text in BOTH["text"]]).vectors.astype(np.float32)
    vectors += np.random.default_rng(0).normal(0, 0.2 / np.sqrt(vectors.shape[1]), vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    segments = pl.DataFrame(rows, schema=dict(SEGMENTS))
    for book in segments["audiobook"].unique():
        own = (segments["audiobook"] == book).to_numpy()
        with lake.replace("speech_embeddings", "deu", book) as new:
            new.write_table("segments.parquet", segments.filter(pl.Series(own)), SEGMENTS)
            new.write_array("vectors.npy", vectors[own].astype(np.float16))
            new.write_json("encoder.json", {"name": "e", "version": "1"})
        sections = segments.filter(pl.Series(own))["section"].unique().sort()
        recordings = [
            {**{name: "x" if dtype == pl.String else 0 for name, dtype in RECORDINGS.items()}, "section": section}
            | {"audiobook": book, "language": "deu"}
            for section in sections
        ]
        with lake.replace("raw_audio", "deu", book) as new:
            new.write_table("recordings.parquet", pl.DataFrame(recordings, schema=dict(RECORDINGS)), RECORDINGS)
    roll = call_the_roll(read_blocks(lake, "deu"))
    with lake.replace("speech_index", "deu") as new:
        new.write_table("roll.parquet", roll.blocks, ROLL)
        rows_table = roll.items.with_row_index("row").with_columns(recurring=pl.lit(False))
        new.write_table("rows.parquet", rows_table, ROWS)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Platform(tmp_path, instance)
        _speech(made.lake)
        yield made


HALF = BOTH.height // 2
FIRST, SECOND = BOTH["english"].to_list()[:HALF], BOTH["english"].to_list()[HALF:]


def test_speech_is_mined_in_text_and_a_row_of_the_corpus_leads_back_to_its_line(platform: Platform) -> None:
    platform.write("a.txt.gz", ["A line that no one says at all, on page 7 of 9.", *FIRST])
    platform.write("b.txt", ["https://example.org/menu", *reversed(SECOND)])
    platform.take_in()
    platform.mine()
    corpus = platform.corpus()
    right = [_english_of(row) == row["target_text"] for row in corpus.iter_rows(named=True)]
    assert np.mean(right) >= 0.95 and sum(right) >= 0.85 * BOTH.height
    for row in corpus.iter_rows(named=True):
        content = Path(row["target_address"]).read_bytes()
        lines = (gzip.decompress(content) if row["target_address"].endswith(".gz") else content).decode().split("\n")
        start = row["target_offset"]
        assert lines[row["target_line"] - 1][start : start + row["target_length"]].strip() == row["target_text"]
    partition = platform.lake.partition("s2t_corpus", "deu-eng")
    assert read_manifest(partition.local_path("manifest.tsv.gz")).equals(corpus)
    hours = partition.read_frame("hours.parquet")
    assert hours["target_sum_h"].null_count() == hours.height and hours["source_sum_h"][0] > 0


def _english_of(row: dict[str, Any]) -> str:
    here = BOTH.filter(
        audiobook=row["source_audiobook"], section=row["source_section"], start_ms=row["source_start_ms"]
    )
    return str(here["english"][0])


def test_a_repeat_is_embedded_and_mined_once_and_the_first_shard_in_order_keeps_it(platform: Platform) -> None:
    platform.write("b.txt", [*FIRST, f"  «{FIRST[0].upper()}»"])
    platform.write("c.txt", SECOND)
    platform.take_in()
    before = platform.texts()
    assert sorted(before) == sorted({*FIRST, *SECOND})
    # a shard arrives that stands before the others, and repeats half of what they say
    platform.write("a.txt", SECOND[:5] + FIRST[:5])
    platform.take_in("a.txt")
    assert platform.texts()[:10] == SECOND[:5] + FIRST[:5]
    assert sorted(platform.texts()) == sorted(before)
    # and goes again: what it repeated is back, with the vectors it had
    (platform.shards / "a.txt").unlink()
    made = platform.make("text_shards")
    assert "1 gone" in str(_materialized(made, "text_shards")["changes"].value)
    platform.make("eng/text_duplicates", partition="eng")
    made = platform.make("eng/text_index", partition="eng")
    assert _materialized(made, "eng/text_index")["not_embedded"].value == 0
    assert platform.texts() == before


def test_what_was_never_embedded_because_a_shard_that_is_gone_had_it_is_counted_and_embedded_next(
    platform: Platform,
) -> None:
    platform.write("a.txt", FIRST)
    platform.write("b.txt", [*FIRST, *SECOND])
    platform.take_in()
    (platform.shards / "a.txt").unlink()
    platform.make("text_shards")
    platform.make("eng/text_duplicates", partition="eng")
    made = platform.make("eng/text_index", partition="eng")
    assert _materialized(made, "eng/text_index")["not_embedded"].value == len(FIRST)
    made = platform.make("eng/text_embeddings", partition=platform.shard("b.txt"))
    told = platform.lake.partition("text_embeddings", "eng", platform.shard("b.txt"))
    assert told.read_frame("sentences.parquet").height == len(FIRST) + len(SECOND)
    made = platform.make("eng/text_index", partition="eng")
    assert _materialized(made, "eng/text_index")["not_embedded"].value == 0
    assert sorted(platform.texts()) == sorted([*FIRST, *SECOND])


def test_margins_are_the_same_however_a_text_is_cut_into_shards(platform: Platform, tmp_path: Path) -> None:
    # stopes warns that mining shards apart changes margins: the neighbourhood is then that of a shard
    platform.write("all.txt", [*FIRST, *SECOND])
    platform.take_in()
    platform.mine()
    columns = ["score", "cosine", "source_segment", "target_sentence", "target_text"]
    whole = platform.corpus().select(columns)
    (platform.shards / "all.txt").unlink()
    for number in range(4):
        platform.write(f"part{number}.txt", [*FIRST, *SECOND][number::4])
    platform.take_in()
    platform.mine()
    assert platform.corpus().select(columns).equals(whole)


def test_a_shard_that_arrives_costs_its_own_products(platform: Platform) -> None:
    platform.write("a.txt", FIRST)
    platform.take_in()
    assert platform.mine()["products_computed"] == BOTH.height * len(FIRST)
    platform.write("b.txt", SECOND)
    platform.take_in("b.txt")
    told = platform.mine()
    assert told["products_computed"] == BOTH.height * len(SECOND)
    assert told["products_saved"] == BOTH.height * len(FIRST)
    again = platform.mine()
    assert again["products_computed"] == 0


def test_a_shard_embedded_before_repeats_were_looked_for_is_freed_of_them_in_the_index(platform: Platform) -> None:
    platform.write("a.txt", FIRST)
    platform.write("b.txt", [*FIRST, *SECOND])
    platform.make("text_shards")
    for shard in platform.names():
        platform.make("eng/text_sentences", partition=shard)
        made = platform.make("eng/text_embeddings", partition=shard)
    assert "in this shard only" in str(_materialized(made, "eng/text_embeddings")["freed_of_repeats"].value)
    platform.make("eng/text_duplicates", partition="eng")
    platform.make("eng/text_index", partition="eng")
    assert platform.texts() == [*FIRST, *SECOND]


def test_a_file_that_changed_makes_its_shard_new_and_no_other(platform: Platform) -> None:
    platform.write("a.txt", FIRST)
    platform.write("b.txt", SECOND)
    platform.take_in()
    assert "0 new or changed" in str(_materialized(platform.make("text_shards"), "text_shards")["changes"].value)
    platform.write("b.txt", SECOND[:-1])
    assert "0 new, 1 new or changed" in str(_materialized(platform.make("text_shards"), "text_shards")["changes"].value)
    versions = {name: platform.lake.partition("text_embeddings", "eng", name).data_version for name in platform.names()}
    platform.take_in("b.txt")
    after = {name: platform.lake.partition("text_embeddings", "eng", name).data_version for name in platform.names()}
    assert {name for name in versions if versions[name] != after[name]} == {platform.shard("b.txt")}
    assert sorted(platform.texts()) == sorted([*FIRST, *SECOND[:-1]])
