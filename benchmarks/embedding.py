"""Embedding speech: ours against SONAR's own pipeline, same weights, same device, same segments, in the same run.

Segments of 3 to 20 s lie one after the other in recordings of ten minutes, and are given in that order.

1. from files: ours decodes each recording once and slices it; the pipeline's documented use reads one file a segment.
2. from memory: ours gets spans, the pipeline tensors.

The pipeline batches in the order given, 3 at a time unless told otherwise (`--batch-size`). "Ours, SONAR's attention"
shows what feeding alone brings. Rounds alternate, the best of each side counts. The weights are random, of SONAR's
English architecture in a size that two cores finish in minutes; vectors must agree with the pipeline's to 1e-5.

    python -m benchmarks.embedding [--segments 60] [--rounds 2] [--dimension 256] [--layers 6] [--device cpu]
"""

from __future__ import annotations

import argparse
import copy
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
TOLERANCE = 1e-5
CARD = """
name: mid_size
model_family: sonar_speech
model_arch: english
model_config:
  model_dim: {dimension}
  num_decoder_layers: 2
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


def build_model(folder: Path, dimension: int, layers: int) -> None:
    """Write random weights and their card, made by SONAR's own factory."""
    speech_languages()  # sets fairseq2 up with its libraries in the right order
    import torch
    from sonar.models.sonar_speech import get_sonar_speech_encoder_hub

    hub = get_sonar_speech_encoder_hub()
    config: Any = copy.deepcopy(hub.get_arch_config("english"))
    waves = config.w2v2_encoder_config
    waves.model_dim = config.model_dim = dimension
    waves.num_encoder_layers, config.num_decoder_layers = layers, 2
    waves.num_encoder_attn_heads = config.num_decoder_attn_heads = dimension // 64
    waves.ffn_inner_dim = config.ffn_inner_dim = 4 * dimension
    torch.manual_seed(0)
    model = hub.create_new_model(config, device=torch.device("cpu"))
    torch.save(model.state_dict(), folder / "mid_size.pt")
    card = CARD.format(dimension=dimension, layers=layers, heads=dimension // 64, inner=4 * dimension)
    (folder / "mid_size.yaml").write_text(card)
    print(f"model: {sum(each.numel() for each in model.parameters()) / 1e6:.1f} million random parameters")


def draw_speech(count: int, folder: Path) -> Speech:
    """Noise in segments of 3 to 20 s by seed; what is heard changes no time."""
    rng = np.random.default_rng(0)
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


def contenders(speech: Speech, folder: Path, given: argparse.Namespace) -> dict[str, Callable[[], Rows]]:
    """Each side's name and work; each gives float32 (segments, dimension) rows of any length."""
    import torch

    ours, plain = (SonarSpeech({"eng": "mid_size"}, device=given.device, model_dir=folder) for _ in range(2))
    peer = plain.load("eng").pipeline  # SONAR's own, with a model of its own
    restore(peer.model)
    tensors = [torch.tensor(span.samples)[None] for span in speech.spans]

    def predict(items: list[Any]) -> Rows:
        rows: Rows = peer.predict(items, batch_size=given.batch_size).float().cpu().numpy()
        return rows

    def from_files() -> Rows:
        return embed_audiobook(speech.segments, speech.recordings, ours, "eng").vectors.astype(np.float32)

    return {
        "files: ours": from_files,
        "files: SONAR's pipeline": lambda: predict(speech.clips),
        "memory: ours": lambda: ours.embed(speech.spans).vectors.astype(np.float32),
        "memory: ours, SONAR's attention": lambda: plain.embed(speech.spans).vectors.astype(np.float32),
        "memory: SONAR's pipeline": lambda: predict(tensors),
        "unrounded": lambda: ours.load("eng").vectors([span.samples for span in speech.spans[:8]]),
    }


def unit(rows: Rows) -> Rows:
    """Rows of length 1."""
    normed: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed


def check_agreement(found: dict[str, Rows], unrounded: Rows) -> None:
    """Print how far apart the vectors are; stop where they are not the same."""
    expected = unit(found["files: SONAR's pipeline"])
    apart = float(np.abs(unit(unrounded) - expected[: len(unrounded)]).max())
    # Ours are kept as fp16, half a step of which is 2 ** -11 of the value.
    rounding = TOLERANCE + np.abs(expected) * 2**-11
    normed = {name: unit(rows) if "pipeline" in name else rows for name, rows in found.items()}
    beyond: dict[str, int] = {
        name: int(np.count_nonzero(np.abs(rows - expected) > rounding)) for name, rows in normed.items()
    }
    print(f"vectors: unrounded {apart:.0e} apart, elements beyond 1e-5 and fp16's rounding: {sum(beyond.values())}")
    if apart > TOLERANCE or any(beyond.values()):
        raise SystemExit(f"the vectors are not the same: {beyond}")


def print_waste(speech: Speech, batch_size: int) -> None:
    """Padding of both sides."""
    count = len(speech.lengths)
    in_order = np.split(np.arange(count), range(batch_size, count, batch_size))
    for seconds in (60, 240):
        waste = padding_waste(speech.lengths, length_batches(speech.lengths, seconds * SAMPLE_RATE_HZ))
        print(f"padding, ours from memory, batches of {seconds} s: {waste:.1%}")
    print(f"padding, {batch_size} at a time in file order: {padding_waste(speech.lengths, in_order):.1%}")


@dataclass(frozen=True)
class Time:
    """What a side took."""

    wall_s: float
    processor_s: float


def time_rounds(sides: dict[str, Callable[[], Rows]], rounds: int) -> tuple[dict[str, Time], dict[str, Rows]]:
    """Least wall and processor seconds of each side over the rounds, which alternate, and what each gave."""
    taken: dict[str, list[Time]] = {name: [] for name in sides}
    found: dict[str, Rows] = {}
    for _ in range(rounds):
        for name, work in sides.items():
            wall, processor = time.perf_counter(), time.process_time()
            found[name] = work()
            taken[name].append(Time(time.perf_counter() - wall, time.process_time() - processor))
    return {name: _least(times) for name, times in taken.items()}, found


def _least(times: list[Time]) -> Time:
    return Time(min(each.wall_s for each in times), min(each.processor_s for each in times))


def print_rates(best: dict[str, Time], audio_s: float) -> None:
    """One line a side: where others share the machine, processor time is the steadier ratio."""
    for name, took in best.items():
        peer = best[name.split(":")[0] + ": SONAR's pipeline"]
        by_processor = peer.processor_s / took.processor_s
        print(
            f"{name}: {took.wall_s:.1f} s, {audio_s / took.wall_s:.0f} x real time; {took.processor_s:.1f} s of "
            f"processor; {peer.wall_s / took.wall_s:.2f} x the pipeline's rate "
            f"({by_processor:.2f} x by processor time)",
            flush=True,
        )


def main() -> None:
    """Measure, compare the vectors, print machine, data, figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dimension", type=int, default=256, help="a multiple of 64; SONAR's own is 1024")
    parser.add_argument("--layers", type=int, default=6, help="SONAR's own has 24")
    parser.add_argument("--batch-size", type=int, default=3, help="of SONAR's pipeline")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    print("machine:", ", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        build_model(folder, given.dimension, given.layers)
        speech = draw_speech(given.segments, folder)
        audio_s = float(speech.lengths.sum()) / SAMPLE_RATE_HZ
        print(f"data: {given.segments} segments, {audio_s / 60:.1f} min, in {len(speech.recordings)} recordings")
        print_waste(speech, given.batch_size)
        sides = contenders(speech, folder, given)
        unrounded = sides.pop("unrounded")()
        best, found = time_rounds(sides, given.rounds)
    check_agreement(found, unrounded)
    print_rates(best, audio_s)


if __name__ == "__main__":
    main()
