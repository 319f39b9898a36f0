"""SONAR's speech encoder on a GPU: hours of audio an hour by batch, its share of the card's peak, fp16 against fp32.

    python -m benchmarks.embedding_gpu [--budgets 60 120 240 480] [--batch-sizes 3 16] [--segments 400]

The architecture is SONAR's English one with random weights: 24 conformer layers of 1024 values and 3 layers that pool.
Segments of 3 to 20 s in file order, from memory. Ours runs at each budget of `max_batch_seconds`, SONAR's own pipeline
(`SpeechToEmbeddingModelPipeline.predict`) at each batch size; both in float16 on CUDA, where rounds alternate.

The share of the peak counts what the architecture needs for the segments without padding, against one large product
measured in the same run. For N segments of S positions each (one position is 20 ms), width d, inner width f, L layers
and P layers that pool, in floating-point operations, a multiplication with its addition being two:

    frontend   320 d N S
    conformer  L (8 d f + 8 d^2 + 6 d^2 + 62 d) N S    two feed-forwards; q, k, v, out; convolutions (31 wide)
    attention  L (4 S + 2 (2 S - 1)) d N S             scores and sums; scores of positions
    positions  L 2 d^2 (2 S - 1)                       once a batch, whatever N: not in the share
    pooling    P (4 d^2 N S + 4 d N S + (12 d^2 + 4 d f + 4 d) N) + 2 d^2 N

`tests/test_embedding_gpu.py` holds this against torch's own counter. Agreement of float16 with float32: cosines of the
same segment, and how many neighbours of each segment among the others stay, in which order. On random weights all
vectors are near each other (the printed typical cosine), which makes the order harder to keep than on trained ones.

Without a GPU the same steps run at a small size (2 layers of 256), where "float16" is the weights rounded to it: those
figures then say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.embedding import Rows, build_model, draw_speech, unit
from benchmarks.gpu import matrix_peak
from speech_mining.benchmark.machine import describe_machine
from speech_mining.encoders.protocol import SpeechSpan
from speech_mining.encoders.relative_attention import restore
from speech_mining.encoders.sonar import SonarSpeech
from speech_mining.records import SAMPLE_RATE_HZ

NEIGHBOURS = 10
FRONT_VALUES, DEPTHWISE = 160, 31
POSITION_SAMPLES, WINDOW_SAMPLES = 320, 400
SIZES = {
    "cuda": {"dimension": 1024, "layers": 24, "segments": 400},
    "cpu": {"dimension": 256, "layers": 2, "segments": 24},
}


@dataclass(frozen=True)
class Architecture:
    """What the count of operations depends on."""

    dimension: int
    layers: int
    pooling_layers: int = 3

    @property
    def inner(self) -> int:
        """Width of the feed-forward networks."""
        return 4 * self.dimension

    def operations(self, count: int, positions: int) -> int:
        """Floating-point operations of a batch of `count` segments of `positions` positions: see the module."""
        d, f, tokens = self.dimension, self.inner, count * positions
        seen = 2 * positions - 1
        block = (8 * d * f + 14 * d * d + 2 * DEPTHWISE * d) * tokens
        attention = (4 * positions + 2 * seen) * d * tokens
        pooling = 4 * d * d * tokens + 4 * d * tokens + (12 * d * d + 4 * d * f + 4 * d) * count
        front = 2 * FRONT_VALUES * d * tokens + 2 * d * d * count
        return front + self.layers * (block + attention) + self.pooling_layers * pooling

    def shared_operations(self, positions: int) -> int:
        """Operations of a batch that do not depend on how many segments it has: its positions' projections."""
        return self.layers * 2 * self.dimension**2 * (2 * positions - 1)


@dataclass(frozen=True)
class Rate:
    """What a side took for all segments."""

    name: str
    wall_s: float
    peak_gib: float
    """Most GPU memory at once; 0 on the CPU."""


@dataclass(frozen=True)
class Agreement:
    """How far two matrices of the same segments agree; rows are unit vectors."""

    least_cosine: float
    mean_cosine: float
    typical_cosine: float
    """Median cosine of two different segments: how near the vectors are to each other anyway."""
    nearest_kept: float
    """Share of segments whose nearest other segment is the same."""
    neighbours_kept: float
    """Share of the nearest ten others that are among the ten again."""

    @classmethod
    def of(cls, rows: Rows, others: Rows) -> Agreement:
        """Compare two float32 (n, d) matrices, n at least 3."""
        same = (rows * others).sum(1)
        orders = [_order(each) for each in (rows, others)]
        k = min(NEIGHBOURS, len(rows) - 1)
        kept = [len(set(a[:k]) & set(b[:k])) / k for a, b in zip(*orders, strict=True)]
        apart = (rows @ rows.T)[~np.eye(len(rows), dtype=bool)]
        nearest = float((orders[0][:, 0] == orders[1][:, 0]).mean())
        return cls(float(same.min()), float(same.mean()), float(np.median(apart)), nearest, float(np.mean(kept)))


def _order(rows: Rows) -> npt.NDArray[np.int64]:
    """Of each row, the other rows from the nearest: int64 (n, n - 1)."""
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :-1]


def positions_of(samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions of the encoder for segments of so many samples: two frames of 10 ms each, the odd one padded."""
    frames = 1 + (samples - WINDOW_SAMPLES) // (POSITION_SAMPLES // 2)
    positions: npt.NDArray[np.int64] = (frames + 1) // 2
    return positions


def useful_operations(model: Architecture, samples: npt.NDArray[np.int64]) -> int:
    """Operations that the segments need without padding; what a batch shares is left out."""
    return sum(model.operations(1, int(positions)) for positions in positions_of(samples))


def timed(name: str, work: Callable[[], object], device: str) -> Rate:
    """Run once, and wait for the GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    return Rate(name, time.perf_counter() - began, peak)


def sides(spans: Sequence[SpeechSpan], folder: Path, given: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Ours at each budget, the pipeline at each batch size; one model of each kind on the device."""
    plain = SonarSpeech({"eng": "mid_size"}, device=given.device, model_dir=folder)
    pipeline = plain.load("eng").pipeline
    restore(pipeline.model)
    tensors = [torch.tensor(span.samples)[None] for span in spans]
    made: dict[str, Callable[[], object]] = {}
    for seconds in given.budgets:
        ours = SonarSpeech({"eng": "mid_size"}, device=given.device, model_dir=folder, max_batch_seconds=seconds)
        made[f"ours, {seconds:g} s a batch"] = lambda ours=ours: ours.embed(spans)  # type: ignore[misc]
    for size in given.batch_sizes:
        made[f"SONAR's pipeline, {size} at a time"] = lambda size=size: pipeline.predict(tensors, batch_size=size)  # type: ignore[misc]
    return made


def measure(work: dict[str, Callable[[], object]], rounds: int, device: str) -> list[Rate]:
    """The least time of each over the rounds, which alternate; the first round only wakes the device."""
    taken: dict[str, list[Rate]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, embed in work.items():
            taken[name].append(timed(name, embed, device))
    return [min(rates[1:], key=lambda rate: rate.wall_s) for rates in taken.values()]


def compare_precisions(spans: Sequence[SpeechSpan], folder: Path, device: str) -> Agreement:
    """Float16 against float32 on the same device; on the CPU, weights rounded to float16 against those not rounded."""
    exact = SonarSpeech({"eng": "mid_size"}, device=device, dtype="float32", model_dir=folder)
    half = SonarSpeech({"eng": "mid_size"}, device=device, model_dir=folder)
    if device == "cpu":
        model: Any = half.load("eng").pipeline.model
        model.half().float()
    found = [_unrounded(encoder, spans) for encoder in (exact, half)]
    return Agreement.of(*found)


def _unrounded(encoder: SonarSpeech, spans: Sequence[SpeechSpan]) -> Rows:
    """Unit rows in float32, which `embed` would keep as float16; eight segments at a time."""
    model = encoder.load("eng")
    parts = [model.vectors([span.samples for span in spans[at : at + 8]]) for at in range(0, len(spans), 8)]
    return unit(np.concatenate(parts))


def print_rates(rates: list[Rate], audio_s: float, operations: int, peak: float) -> None:
    """One line a side."""
    print(f"peak of one product: {peak / 1e12:.4g} TFLOP/s")
    print(f"{'':<36s}{'seconds':>9s}{'h an hour':>11s}{'of peak':>9s}{'GiB':>7s}")
    for rate in rates:
        share = operations / rate.wall_s / peak
        print(f"{rate.name:<36s}{rate.wall_s:9.2f}{audio_s / rate.wall_s:11.0f}{share:9.1%}{rate.peak_gib:7.1f}")
    ours = min(rate.wall_s for rate in rates if rate.name.startswith("ours"))
    theirs = min(rate.wall_s for rate in rates if rate.name.startswith("SONAR"))
    print(f"best against best: {theirs / ours:.2f} x the pipeline's rate", flush=True)


def print_agreement(found: Agreement, device: str) -> None:
    """What half precision costs."""
    what = "float16" if device == "cuda" else "weights rounded to float16 (there is no float16 on the CPU)"
    print(
        f"{what} against float32: cosine at least {found.least_cosine:.6f}, mean {found.mean_cosine:.6f}; the nearest "
        f"segment is the same for {found.nearest_kept:.1%}, of ten neighbours {found.neighbours_kept:.1%} stay; two "
        f"different segments have the cosine {found.typical_cosine:.4f}"
    )


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default=device)
    parser.add_argument("--budgets", type=float, nargs="+", default=[60.0, 120.0, 240.0, 480.0], help="seconds")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[3, 16], help="of SONAR's pipeline")
    parser.add_argument("--rounds", type=int, default=2)
    for name, told in (("segments", ""), ("dimension", "a multiple of 64"), ("layers", "")):
        parser.add_argument(f"--{name}", type=int, help=f"{told} by default as the module says".strip())
    given = parser.parse_args(words)
    for name, size in SIZES[given.device].items():
        if getattr(given, name) is None:
            setattr(given, name, size)
    return given


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    given = _arguments(words)
    if given.device == "cpu":
        print("The CPU twin: the same steps at a small size; these figures say nothing about a GPU.")
    card = torch.cuda.get_device_name() if given.device == "cuda" else "no GPU"
    print("machine:", ", ".join(f"{name} {value}" for name, value in describe_machine().items()), f", {card}")
    model, peak = Architecture(given.dimension, given.layers), matrix_peak(given.device)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        build_model(folder, model.dimension, model.layers, pooling_layers=model.pooling_layers)
        speech = draw_speech(given.segments, folder, seed=0)
        audio_s = float(speech.lengths.sum()) / SAMPLE_RATE_HZ
        operations = useful_operations(model, speech.lengths)
        print(f"data: {given.segments} segments of 3 to 20 s, {audio_s / 60:.1f} min")
        print(f"needed: {operations / audio_s / 1e9:.1f} GFLOP a second of audio")
        rates = measure(sides(speech.spans, folder, given), given.rounds, given.device)
        peak = max(peak, matrix_peak(given.device))  # before and after: on a busy machine either may be too low
        print_rates(rates, audio_s, operations, peak)
        print_agreement(compare_precisions(speech.spans, folder, given.device), given.device)


if __name__ == "__main__":
    main()
