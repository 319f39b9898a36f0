"""The benchmark of the speech encoder on a GPU: its count of operations, and its twin on the CPU."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import embedding_gpu
from benchmarks.embedding import build_model
from benchmarks.embedding_gpu import Agreement, Architecture, positions_of, useful_operations
from speech_mining.encoders.relative_attention import restore
from speech_mining.encoders.sonar import SonarSpeech


@pytest.mark.parametrize(("count", "frames"), [(1, 120), (3, 200)])
def test_the_formula_counts_what_torch_counts(tmp_path: Path, count: int, frames: int) -> None:
    import torch
    from fairseq2.nn import BatchLayout
    from torch.utils.flop_counter import FlopCounterMode

    shape = Architecture(dimension=128, layers=2, pooling_layers=3)
    build_model(tmp_path, shape.dimension, shape.layers, pooling_layers=shape.pooling_layers)
    model = SonarSpeech({"eng": "mid_size"}, device="cpu", model_dir=tmp_path).load("eng").pipeline.model
    restore(model)
    batch = torch.randn(count, frames, 80)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch, BatchLayout.of(batch, [frames] * count))
    # torch does not count the fused attention of the pooling on the CPU: one query a segment
    uncounted = shape.pooling_layers * (4 * shape.dimension * count * frames // 2 + 4 * shape.dimension * count)
    told = shape.operations(count, frames // 2) + shape.shared_operations(frames // 2)
    assert told == counter.get_total_flops() + uncounted


def test_the_english_encoder_needs_63_gflop_a_second_of_audio() -> None:
    english = Architecture(1024, 24)
    ten_seconds = np.full(1, 10 * 16_000)
    assert positions_of(ten_seconds).tolist() == [499]
    assert useful_operations(english, ten_seconds) / 10 == pytest.approx(63.4e9, rel=0.01)


def test_positions_are_those_of_the_model(tmp_path: Path) -> None:
    build_model(tmp_path, 64, 1)
    loaded = SonarSpeech({"eng": "mid_size"}, device="cpu", model_dir=tmp_path).load("eng")
    for samples in (560, 16_000, 48_001, 48_159, 48_160):
        noise = (np.random.default_rng(0).standard_normal(samples) / 10).astype(np.float32)
        collated = loaded.prepare(np.arange(1), [noise]).collated
        assert collated["seqs"].shape[1] // 2 == positions_of(np.array([samples]))[0], samples


def test_agreement_is_one_for_the_same_and_falls_where_neighbours_change_places() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    same = Agreement.of(rows, rows)
    assert (same.nearest_kept, same.neighbours_kept) == (1, 1)
    assert same.least_cosine == pytest.approx(1, abs=1e-6)
    other = Agreement.of(rows, rows[::-1])
    assert other.least_cosine < 0.9 and other.neighbours_kept < 0.7 and other.nearest_kept < 0.5


def test_the_twin_on_the_cpu_runs_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--device cpu --layers 2 --dimension 64 --segments 6 --rounds 1 --budgets 20 60 --batch-sizes 3"
    embedding_gpu.main(words.split())
    told = capsys.readouterr().out
    for part in (
        "CPU twin",
        "GFLOP a second",
        "ours, 20 s a batch",
        "ours, 60 s a batch",
        "3 at a time",
        "best against",
    ):
        assert part in told
    assert re.search(r"cosine at least (0\.99|1\.00)", told) and "h an hour" in told
