"""Embedding speech: ours against SONAR's own pipeline, same weights, same device, same segments, in the same run.

Segments of 3 to 20 s lie one after the other in recordings of ten minutes, and are given in that order.

1. from files: ours decodes each recording once and slices it; the pipeline's documented use reads one file a segment.
2. from memory: ours gets spans, the pipeline tensors.

The pipeline batches in the order given, 3 at a time unless told otherwise (`--batch-size`). The segments come in rounds
of 200: in each round every side embeds the same new segments, and which side is first changes from round to round, so
that a busy moment of the machine meets all of them. Each ratio is told for each round, for the sums, and as the median
of the rounds. "Ours, SONAR's attention" (`--attention`) shows what feeding alone brings. The weights are random, of
SONAR's English architecture in a size that two cores finish in minutes; all vectors are compared with the pipeline's,
to 1e-5.

    python -m benchmarks.embedding [--segments 2000] [--dimension 256] [--layers 2] [--device cpu] [--attention]
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import tempfile
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.benchmark.machine import describe_machine
from speech_mining.encoders.audiobook import embed_audiobook
from speech_mining.encoders.batches import length_batches, padding_waste
from speech_mining.encoders.protocol import SpeechSpan
from speech_mining.encoders.relative_attention import restore
from speech_mining.encoders.sonar import SonarSpeech, speech_languages
from speech_mining.records import SAMPLE_RATE_HZ, SEGMENTS

Rows = npt.NDArray[np.float32]
RECORDING_S = 600
ROUND = 200
"""Segments that every side embeds before the next are drawn: 38 minutes, four recordings, 150 MB as float32."""
TOLERANCE = 1e-5
KINDS = ("files", "memory")
CARD = """
name: mid_size
model_family: sonar_speech
model_arch: english
model_config:
  model_dim: {dimension}
  num_decoder_layers: {pooling_layers}
  num_decoder_attn_heads: {heads}
  ffn_inner_dim: {inner}
  w2v2_encoder_config:
    model_dim: {dimension}
    num_encoder_layers: {layers}
    num_encoder_attn_heads: {heads}
    ffn_inner_dim: {inner}
checkpoint: mid_size.pt
"""


@dataclass(frozen=True)
class Speech:
    """Segments of recordings, on disk in both shapes and in memory."""

    segments: pl.DataFrame
    recordings: dict[int, Path]
    clips: list[str]
    """One file a segment."""
    spans: list[SpeechSpan]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Samples of each segment."""
        return np.array([span.end_sample - span.start_sample for span in self.spans], dtype=np.int64)


def build_model(folder: Path, dimension: int, layers: int, *, pooling_layers: int = 2) -> None:
    """Write random weights and their card, made by SONAR's own factory."""
    speech_languages()  # sets fairseq2 up with its libraries in the right order
    import torch
    from sonar.models.sonar_speech import get_sonar_speech_encoder_hub

    hub = get_sonar_speech_encoder_hub()
    config: Any = copy.deepcopy(hub.get_arch_config("english"))
    waves = config.w2v2_encoder_config
    waves.model_dim = config.model_dim = dimension
    waves.num_encoder_layers, config.num_decoder_layers = layers, pooling_layers
    waves.num_encoder_attn_heads = config.num_decoder_attn_heads = dimension // 64
    waves.ffn_inner_dim = config.ffn_inner_dim = 4 * dimension
    torch.manual_seed(0)
    model = hub.create_new_model(config, device=torch.device("cpu"))
    torch.save(model.state_dict(), folder / "mid_size.pt")
    sizes = {"dimension": dimension, "heads": dimension // 64, "inner": 4 * dimension}
    card = CARD.format(layers=layers, pooling_layers=pooling_layers, **sizes)
    (folder / "mid_size.yaml").write_text(card)
    print(f"model: {sum(each.numel() for each in model.parameters()) / 1e6:.1f} million random parameters")


def draw_speech(count: int, folder: Path, seed: int) -> Speech:
    """Noise in segments of 3 to 20 s by seed; what is heard changes no time."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3 * SAMPLE_RATE_HZ, 20 * SAMPLE_RATE_HZ + 1, count)
    sections = np.cumsum(lengths) // (RECORDING_S * SAMPLE_RATE_HZ) + 1
    frames: list[pl.DataFrame] = []
    recordings: dict[int, Path] = {}
    clips: list[str] = []
    spans: list[SpeechSpan] = []
    for section in np.unique(sections).tolist():
        sizes = lengths[sections == section]
        stops = np.cumsum(sizes)
        sound = rng.normal(0, 3000, stops[-1]).astype(np.int16)
        recordings[section] = _write_wav(folder / f"recording_{section}.wav", sound)
        waveform = sound.astype(np.float32) / 32_768
        for start, stop in zip((stops - sizes).tolist(), stops.tolist(), strict=True):
            clips.append(str(_write_wav(folder / f"clip_{len(clips)}.wav", sound[start:stop])))
            spans.append(SpeechSpan(waveform, start, stop, "eng"))
        frames.append(_segments(section, stops - sizes, stops))
    return Speech(pl.concat(frames), recordings, clips, spans)


def _segments(section: int, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> pl.DataFrame:
    known = {"audiobook": "noise", "section": section, "start_sample": starts, "end_sample": stops}
    missing = [pl.lit(0).cast(dtype).alias(name) for name, dtype in SEGMENTS.items() if name not in known]
    return pl.DataFrame(known).with_columns(missing).select([pl.col(name).cast(of) for name, of in SEGMENTS.items()])


def _write_wav(path: Path, sound: npt.NDArray[np.int16]) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(sound.tobytes())
    return path


@dataclass(frozen=True)
class Encoders:
    """The same weights three times: ours, ours with SONAR's own attention, and SONAR's pipeline."""

    ours: SonarSpeech
    plain: SonarSpeech
    pipeline: Any
    batch_size: int

    @classmethod
    def of(cls, folder: Path, given: argparse.Namespace) -> Encoders:
        """Load them."""
        ours, plain = (SonarSpeech({"eng": "mid_size"}, device=given.device, model_dir=folder) for _ in range(2))
        ours.load("eng")
        pipeline = plain.load("eng").pipeline
        restore(pipeline.model)
        return cls(ours, plain, pipeline, given.batch_size)

    def predict(self, items: list[Any]) -> Rows:
        """SONAR's pipeline on paths or tensors."""
        rows: Rows = self.pipeline.predict(items, batch_size=self.batch_size).float().cpu().numpy()
        return rows

    def sides(self, speech: Speech, attention: bool) -> dict[str, Callable[[], Rows]]:
        """Each side's name and work; each gives float32 (segments, dimension) rows of any length."""
        import torch

        tensors = [torch.tensor(span.samples)[None] for span in speech.spans]
        sides: dict[str, Callable[[], Rows]] = {
            "files: ours": lambda: embed_audiobook(speech.segments, speech.recordings, self.ours, "eng").vectors.astype(
                np.float32
            ),
            "files: SONAR's pipeline": lambda: self.predict(speech.clips),
            "memory: ours": lambda: self.ours.embed(speech.spans).vectors.astype(np.float32),
            "memory: SONAR's pipeline": lambda: self.predict(tensors),
        }
        if attention:
            sides["memory: ours, SONAR's attention"] = lambda: self.plain.embed(speech.spans).vectors.astype(np.float32)
        return sides


def unit(rows: Rows) -> Rows:
    """Rows of length 1."""
    normed: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed


def check_agreement(found: dict[str, Rows], unrounded: Rows) -> float:
    """How far unrounded vectors are apart; stops where vectors are not the same."""
    expected = unit(found["files: SONAR's pipeline"])
    apart = float(np.abs(unit(unrounded) - expected[: len(unrounded)]).max())
    # Ours are kept as fp16, half a step of which is 2 ** -11 of the value.
    rounding = TOLERANCE + np.abs(expected) * 2**-11
    normed = {name: unit(rows) if "pipeline" in name else rows for name, rows in found.items()}
    beyond: dict[str, int] = {
        name: int(np.count_nonzero(np.abs(rows - expected) > rounding)) for name, rows in normed.items()
    }
    if apart > TOLERANCE or any(beyond.values()):
        raise SystemExit(f"the vectors are not the same: unrounded {apart:.0e} apart, elements beyond: {beyond}")
    return apart


def print_waste(lengths: npt.NDArray[np.int64], batch_size: int) -> None:
    """Padding of both sides."""
    in_order = np.split(np.arange(len(lengths)), range(batch_size, len(lengths), batch_size))
    for seconds in (60, 240):
        waste = padding_waste(lengths, length_batches(lengths, seconds * SAMPLE_RATE_HZ))
        print(f"padding, ours, batches of {seconds} s: {waste:.1%}")
    print(f"padding, {batch_size} at a time in file order: {padding_waste(lengths, in_order):.1%}")


@dataclass(frozen=True)
class Time:
    """What a side took in one round."""

    wall_s: float
    processor_s: float


def timed(sides: dict[str, Callable[[], Rows]], first: int) -> tuple[dict[str, Time], dict[str, Rows]]:
    """Each side once, beginning with the one at `first`: its time, and the rows it gave."""
    names = list(sides)
    taken: dict[str, Time] = {}
    found: dict[str, Rows] = {}
    for name in names[first % len(names) :] + names[: first % len(names)]:
        wall, processor = time.perf_counter(), time.process_time()
        found[name] = sides[name]()
        taken[name] = Time(time.perf_counter() - wall, time.process_time() - processor)
    return taken, found


def print_rates(rounds: list[dict[str, Time]], audio_s: float) -> None:
    """One line a side: where others share the machine, the median and processor time are the steadier ratios."""
    for name in rounds[0]:
        peer = name.split(":")[0] + ": SONAR's pipeline"
        ratios = sorted(taken[peer].wall_s / taken[name].wall_s for taken in rounds)
        wall_s, processor_s = _sums(rounds, name)
        peer_wall_s, peer_processor_s = _sums(rounds, peer)
        print(
            f"{name}: {wall_s:.1f} s, {audio_s / wall_s:.0f} x real time, {processor_s:.1f} s of processor; "
            f"{peer_wall_s / wall_s:.2f} x the pipeline's rate (median of rounds {statistics.median(ratios):.2f}, from "
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}; by processor time {peer_processor_s / processor_s:.2f})",
            flush=True,
        )


def _sums(rounds: list[dict[str, Time]], name: str) -> tuple[float, float]:
    return sum(taken[name].wall_s for taken in rounds), sum(taken[name].processor_s for taken in rounds)


def measure_round(encoders: Encoders, speech: Speech, given: argparse.Namespace, first: int) -> dict[str, Time]:
    """Every side on the same segments, its vectors compared; prints the round's ratios."""
    taken, found = timed(encoders.sides(speech, given.attention), first)
    unrounded = encoders.ours.load("eng").vectors([span.samples for span in speech.spans[:8]])
    apart = check_agreement(found, unrounded)
    ratios = {kind: taken[f"{kind}: SONAR's pipeline"].wall_s / taken[f"{kind}: ours"].wall_s for kind in KINDS}
    told = ", ".join(f"{kind} {ratio:.2f} x" for kind, ratio in ratios.items())
    print(f"round {first + 1}, {len(speech.spans)} segments: {told}; vectors {apart:.0e} apart", flush=True)
    return taken


def main() -> None:
    """Measure, compare the vectors, print machine, data, figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=2_000)
    parser.add_argument("--dimension", type=int, default=256, help="a multiple of 64; SONAR's own is 1024")
    parser.add_argument("--layers", type=int, default=2, help="SONAR's own has 24")
    parser.add_argument("--batch-size", type=int, default=3, help="of SONAR's pipeline")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--attention", action="store_true", help="also ours with SONAR's own attention")
    given = parser.parse_args()
    print("machine:", ", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    rounds: list[dict[str, Time]] = []
    lengths: list[npt.NDArray[np.int64]] = []
    with tempfile.TemporaryDirectory() as made:
        build_model(Path(made), given.dimension, given.layers)
        encoders = Encoders.of(Path(made), given)
        _wake(encoders, given)
        for number in range(math.ceil(given.segments / ROUND)):
            with tempfile.TemporaryDirectory() as of_round:
                count = min(ROUND, given.segments - number * ROUND)
                speech = draw_speech(count, Path(of_round), seed=number)
                lengths.append(speech.lengths)
                rounds.append(measure_round(encoders, speech, given, number))
    together = np.concatenate(lengths)
    audio_s = float(together.sum()) / SAMPLE_RATE_HZ
    print(f"data: {len(together)} segments of 3 to 20 s, {audio_s / 3600:.2f} h, in recordings of {RECORDING_S} s")
    print_waste(together, given.batch_size)
    print_rates(rounds, audio_s)


def _wake(encoders: Encoders, given: argparse.Namespace) -> None:
    """One small untimed pass of each side: compiled code is loaded, caches are filled."""
    with tempfile.TemporaryDirectory() as made:
        timed(encoders.sides(draw_speech(6, Path(made), seed=0), given.attention), 0)


if __name__ == "__main__":
    main()
