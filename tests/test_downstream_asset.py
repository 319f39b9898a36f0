"""`s2t_benchmark` and `s2s_benchmark`, materialized for real over a lake of chords."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from resources.settings import load_settings
from s2s_assets.definitions import build
from speech_mining.downstream.tables import COMPARED, OUTPUTS, RUNS
from speech_mining.errors import SettingsError
from speech_mining.filters.limits import pair_key
from speech_mining.filters.pair_scores import MADE_BY, SCORES
from tests.downstream_world import LEARNING, SENTENCES, MinedLake, write_set

PAIR = "deu-eng"
FEW = {**LEARNING, "updates": 6, "checkpoint_every": 3}


class Platform:
    """A home over a mined lake, and the assets."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, **settings: Any) -> None:
        self.instance = instance
        self.mined = MinedLake(home, list(SENTENCES[:40]))
        self.lake = self.mined.lake
        self.settings = load_settings(
            home=home,
            languages="deu,eng",
            catalogue_url="https://librivox.org",
            text={"shards": {"eng": [str(home / "text")]}},
            speech_text_pairs=PAIR,
            device="cpu",
            **settings,
        )
        self.job = build(self.settings).resolve_implicit_global_asset_job_def()

    def make(self, asset: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        """Materialize a benchmark; its metadata.

        Raises:
            SpeechMiningError: what the step raised.
        """
        ops = {asset: {"config": config}} if config else {}
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset)],
            partition_key=PAIR,
            run_config={"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        assert result.success
        made = result.asset_materializations_for_node(asset)[-1]
        return {name: value.value for name, value in made.metadata.items()}

    def table(self, asset: str) -> Any:
        return self.lake.partition(asset, PAIR).read_table("compared.parquet", COMPARED)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def of_sets(home: Path) -> dict[str, Any]:
    """A base of six clips, a test set of eight, none of them told in the audiobooks; the same in both languages."""
    parts = {"train": list(SENTENCES[40:46]), "test": list(SENTENCES[46:54])}
    for language, other in (("deu", "eng"), ("eng", "deu")):
        write_set(home / "sets" / language, parts, language, other)
    return {PAIR: {"data": [str(home / "sets" / "deu")], "target_data": [str(home / "sets" / "eng")]}}


def test_mined_pairs_help_a_translator_and_the_lake_tells_by_how_much(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    text_truth, _ = MinedLake(tmp_path / "only_for_its_truth", list(SENTENCES[:40])).truth(tmp_path)
    downstream = {"sets": of_sets(tmp_path), "training": LEARNING, "seeds": [0], "thresholds": [1.0]}
    platform = Platform(tmp_path / "home", instance, downstream=downstream, text_truth=str(text_truth))
    metadata = platform.make("s2t_benchmark")
    compared = platform.table("s2t_benchmark").filter(metric="chrF")
    told = compared.select("condition", "threshold", "pairs").rows()
    assert told == [
        ("base", None, 0),
        ("mined", 1.0, 40),
        ("mined", 1.07, 36),
        ("true", None, 40),
        ("random", 1.07, 36),
    ]
    base, _, mined, true, of_random = compared["mean"].to_list()
    assert mined > base + 10 and true > base + 10 and of_random < mined - 10
    assert metadata["runs"] == metadata["runs_trained_now"] == 5
    assert metadata["gain_chrF"] > metadata["gain_chrF_random"] + 10
    assert metadata["share_of_gap_closed_chrF"] == pytest.approx(compared["share_of_gap"][2], abs=1e-4)
    assert "tok:13a" in metadata["signatures"]["BLEU"]
    assert metadata["by_threshold_and_hours"].startswith("![plot](data:image/png;base64,")
    partition = platform.lake.partition("s2t_benchmark", PAIR)
    assert partition.read_table("runs.parquet", RUNS).height == 5 * 2
    assert partition.read_table("outputs.parquet", OUTPUTS).height == 5 * 8


def test_materialized_again_nothing_is_trained_and_not_a_byte_differs(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    downstream = {"sets": of_sets(tmp_path), "training": FEW, "seeds": [0, 1]}
    platform = Platform(tmp_path / "home", instance, downstream=downstream)
    first = platform.make("s2t_benchmark")
    version = platform.lake.partition("s2t_benchmark", PAIR).data_version
    again = platform.make("s2t_benchmark")
    assert (first["runs_trained_now"], again["runs_trained_now"]) == (6, 0)
    assert platform.lake.partition("s2t_benchmark", PAIR).data_version == version
    assert not [name for name in first if name.startswith("share_of_gap")]  # no truth is known here
    more = platform.make("s2t_benchmark", {"seeds": [0, 1, 2]})
    assert more["runs_trained_now"] == 3


def test_speech_with_speech_is_searched_and_its_limits_are_told(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    downstream = {"sets": of_sets(tmp_path), "training": FEW, "retrieval": {"batch_seconds": 20.0}, "seeds": [0]}
    platform = Platform(tmp_path / "home", instance, downstream=downstream)
    metadata = platform.make("s2s_benchmark")
    compared = platform.table("s2s_benchmark")
    assert compared["metric"].unique(maintain_order=True).to_list() == ["R@1", "R@5", "R@10"]
    assert compared.filter(metric="R@10")["mean"].min() == 100  # of eight
    assert metadata["blaser"].startswith("not measured: filters.blaser names no card")
    assert "ASR-BLEU is not measured" in metadata["limits"]
    study = platform.lake.partition("s2s_benchmark", PAIR).read_json("study.json")
    assert study["config"]["batch_seconds"] == 20.0 and study["threshold"] == 1.06


def test_scores_of_blaser_are_told_by_threshold(tmp_path: Path, models: Path, instance: dg.DagsterInstance) -> None:
    downstream = {"sets": of_sets(tmp_path), "training": FEW, "retrieval": {"batch_seconds": 20.0}, "seeds": [0]}
    by_blaser = {"encoder": "sonar", "model_dir": models, "filters": {"blaser": "tiny_blaser"}}
    platform = Platform(tmp_path / "home", instance, downstream={**downstream, "thresholds": [1.0]}, **by_blaser)
    pairs = platform.lake.partition("s2s_pairs", PAIR).read_frame("pairs.parquet")
    given = pairs.select(*pair_key(pairs.columns), blaser_qe=pl.int_range(pl.len()).cast(pl.Float32) / 10)
    with platform.lake.replace("s2s_pair_quality", PAIR) as new:
        new.write_frame(SCORES, given)
        new.write_json(MADE_BY, {"pairs": platform.lake.partition("s2s_pairs", PAIR).data_version})
    told = platform.make("s2s_benchmark")["blaser"]
    told = [row.data for row in told.records]
    assert [(row["threshold"], row["pairs"]) for row in told] == [(1.0, 40), (1.06, 36)]  # the last four are wrong
    assert [row["blaser_qe"] for row in told] == pytest.approx([1.95, 1.75])


def test_without_sets_the_known_truth_is_dealt_and_nothing_of_the_test_is_trained_on(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    text_truth, _ = MinedLake(tmp_path / "only_for_its_truth", list(SENTENCES[:40])).truth(tmp_path)
    platform = Platform(
        tmp_path / "home", instance, downstream={"training": FEW, "seeds": [0]}, text_truth=str(text_truth)
    )
    metadata = platform.make("s2t_benchmark")
    # four recordings of ten: two to mine, one to train on, one to examine on
    assert (metadata["base_examples"], metadata["test_examples"]) == (10, 10)
    pairs = dict(platform.table("s2t_benchmark").filter(metric="BLEU").select("condition", "pairs").rows())
    assert pairs["true"] == 20
    # all but four of the 40 reach the threshold, and what was mined from the two other recordings takes no part
    assert metadata["dropped"]["mined from 1.07"] == {"not_of_the_pool": 36 - pairs["mined"]}
    assert pairs["mined"] in {16, 20} and pairs["random"] == pairs["mined"]


def test_a_pair_of_which_nothing_is_known_is_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    platform = Platform(tmp_path / "home", instance)
    with pytest.raises(SettingsError, match=r"Nothing says what deu-eng.*\[downstream\.sets\.deu-eng\]"):
        platform.make("s2t_benchmark")


def test_a_threshold_below_the_floor_of_the_pairs_is_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    platform = Platform(tmp_path / "home", instance, downstream={"sets": of_sets(tmp_path), "thresholds": [0.9]})
    with pytest.raises(SettingsError, match=r"Pairs from 0\.9 were asked of pairs that are kept from 1\.0"):
        platform.make("s2t_benchmark")


def test_a_step_that_ran_out_of_time_goes_on_when_it_is_materialized_again(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    downstream = {"sets": of_sets(tmp_path), "training": FEW, "seeds": [0], "time_limit_hours": 1e-9}
    platform = Platform(tmp_path / "home", instance, downstream=downstream)
    with pytest.raises(Exception, match="it goes on from here"):
        platform.make("s2t_benchmark")
    assert platform.lake.find("s2t_benchmark", PAIR) is None
    kept = list((tmp_path / "home" / "scratch" / "downstream" / "s2t" / PAIR / "checkpoints").rglob("state.json"))
    assert len(kept) == 1 and json.loads(kept[0].read_text())["update"] >= 1


def test_both_benchmarks_are_in_the_code_location_and_wait_for_a_person() -> None:
    graph = build(load_settings()).resolve_asset_graph()
    for name in ("s2t_benchmark", "s2s_benchmark"):
        node = graph.get(dg.AssetKey(name))
        assert node.automation_condition is None
        assert PAIR in node.partitions_def.get_partition_keys()
