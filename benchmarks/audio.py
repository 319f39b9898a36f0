"""Segmentation, against the recipe that most pipelines use, in the same run and on the same files; four figures.

1. end to end: the peer loads the whole file with soundfile, resamples it with torchaudio, and calls silero-vad's
   `get_speech_timestamps` with its TorchScript model: the recipe of its README. Each side runs in a process of its
   own, single-threaded, so that peak memory is its own too; importing is not timed. Rounds alternate, the best counts.
2. one recording of five hours (`--long-hours`): speed and peak memory, ours only: the peer would hold 3 GB.
3. candidates: two binary searches for all spans at once, against a loop with two pointers, on ten hours of runs.
4. many chapters through one call of Silero's frame-by-frame model, against its sequence model one chapter at a time.

    python -m benchmarks.audio [RECORDING...] [--repeat 10] [--rounds 3] [--long-hours 5]

`--repeat` joins each MP3 to itself so often, to make a long recording of a short one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

RATE_HZ = 16_000
LIBRARY = Path(__file__).parent.parent / "demo" / "library" / "download"


def ours(path: Path, detector: Literal["silero", "energy"] = "silero") -> tuple[float, int]:
    """Decode, find speech, place cuts, list candidates: (seconds of audio, speech runs)."""
    from speech_mining.segmentation.segmenter import SegmentationConfig, segment_recording
    from speech_mining.segmentation.voice_activity import VoiceActivity

    config = SegmentationConfig(voice_activity=VoiceActivity(detector=detector))
    report = segment_recording(path, audiobook=path.stem, section=1, config=config).report
    return report.duration_s, report.runs


def ours_by_energy(path: Path) -> tuple[float, int]:
    """The same with the detector that has no model."""
    return ours(path, "energy")


def peer() -> Callable[[Path], tuple[float, int]]:
    """The recipe; it stops at speech runs, and lists no candidates."""
    import soundfile
    import torch
    from silero_vad import get_speech_timestamps, load_silero_vad
    from torchaudio.functional import resample

    torch.set_num_threads(1)
    model = load_silero_vad()

    def segment(path: Path) -> tuple[float, int]:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        waveform = resample(torch.from_numpy(samples.mean(axis=1)), rate_hz, RATE_HZ)
        return len(waveform) / RATE_HZ, len(get_speech_timestamps(waveform, model, speech_pad_ms=0))

    return segment


def measure(side: str, paths: list[Path]) -> dict[str, float]:
    """Run one side in this process: seconds of audio, wall and processor seconds, runs, peak MiB."""
    work = {"ours": lambda: ours, "ours, energy": lambda: ours_by_energy, "peer": peer}[side]()
    if side != "peer":  # what the peer's load_silero_vad did above: loading is not timed
        import numpy as np

        from speech_mining.segmentation.voice_activity import FRAME_SAMPLES, speech_probabilities

        speech_probabilities([np.zeros(FRAME_SAMPLES, dtype=np.float32)], "energy" if "energy" in side else "silero")
    wall, processor = time.perf_counter(), time.process_time()
    found = [work(path) for path in paths]
    status = Path("/proc/self/status").read_text()
    return {
        "wall_s": time.perf_counter() - wall,
        "processor_s": time.process_time() - processor,
        "audio_s": sum(duration for duration, _ in found),
        "runs": sum(runs for _, runs in found),
        "peak_mib": int(status.split("VmHWM:")[1].split()[0]) / 1024,
    }


def run_apart(side: str, paths: list[Path]) -> dict[str, float]:
    """Run one side in a fresh process."""
    words = [sys.executable, __file__, "--side", side, *map(str, paths)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def repeated(paths: list[Path], times: int, folder: Path) -> list[Path]:
    """Each file joined to itself."""
    if times == 1:
        return paths
    made = []
    for path in paths:
        made.append(folder / path.name)
        made[-1].write_bytes(path.read_bytes() * times)
    return made


def describe_machine() -> str:
    """Processor and cores."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].split(":")[1].strip() if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def two_pointers(begins: list[int], finishes: list[int], shortest: int, longest: int) -> tuple[list[int], list[int]]:
    """The loop that comes to mind: for each first run, walk on to the last one that fits."""
    first, last, low = [], [], 0
    for start, begin in enumerate(begins):
        low = max(low, start)
        while low < len(finishes) and finishes[low] - begin < shortest:
            low += 1
        end = low
        while end < len(finishes) and finishes[end] - begin <= longest:
            first.append(start)
            last.append(end)
            end += 1
    return first, last


def time_of(work: Callable[[], object], rounds: int = 7) -> float:
    """Least processor time of several calls, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def compare_candidates(hours: float = 10.0) -> None:
    """Candidates of runs drawn by seed, as dense as in real readings: 1 270 an hour."""
    import numpy as np

    from speech_mining.segmentation.candidates import candidate_spans

    rng = np.random.default_rng(0)
    runs = round(1_270 * hours)
    edges = np.cumsum(rng.gamma(2.0, (1.06 * RATE_HZ, 0.36 * RATE_HZ), (runs, 2)).astype(np.int64).reshape(-1))
    begins, finishes = edges[0::2], edges[1::2]
    bounds = 3 * RATE_HZ, 20 * RATE_HZ
    first, last = candidate_spans(begins, finishes, *bounds)
    as_lists = begins.tolist(), finishes.tolist()
    if [first.tolist(), last.tolist()] != list(two_pointers(*as_lists, *bounds)):
        raise SystemExit("the two ways to list candidates disagree")
    fast = time_of(lambda: candidate_spans(begins, finishes, *bounds))
    slow = time_of(lambda: two_pointers(*as_lists, *bounds))
    print(
        f"candidates: {len(first)} of {runs} runs ({hours:g} hours) in {fast * 1e3:.1f} ms, two pointers "
        f"{slow * 1e3:.1f} ms; ratio {slow / fast:.0f} x"
    )


def compare_batching(chapters: int = 32, frames: int = 250) -> None:
    """The same frames of many chapters: side by side through the frame model, one after the other in sequence."""
    import numpy as np
    import onnxruntime

    from speech_mining.segmentation.voice_activity import FRAME_SAMPLES, SileroStream, _model_path

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = onnxruntime.InferenceSession(str(_model_path().with_name("silero_vad_16k_op15.onnx")), options)
    sound = np.random.default_rng(0).normal(0, 0.1, (chapters, frames * FRAME_SAMPLES)).astype(np.float32)
    framed = np.zeros((frames, chapters, 64 + FRAME_SAMPLES), dtype=np.float32)
    framed[:, :, 64:] = sound.reshape(chapters, frames, FRAME_SAMPLES).transpose(1, 0, 2)
    framed[1:, :, :64] = framed[:-1, :, -64:]

    def batched() -> Any:
        state, found = np.zeros((2, chapters, 128), dtype=np.float32), []
        for frame in framed:
            inputs = {"input": frame, "state": state, "sr": np.array(RATE_HZ)}
            probabilities, state = model.run(None, inputs)
            found.append(probabilities[:, 0])
        return np.stack(found, axis=1)

    def in_sequence() -> Any:
        return np.stack([SileroStream()(chapter) for chapter in sound])

    apart = float(np.abs(batched() - in_sequence()).max())
    many, one = time_of(batched), time_of(in_sequence)
    audio_s = sound.size / RATE_HZ
    print(
        f"batching: {chapters} chapters side by side {audio_s / many:.0f} x real time, one at a time in sequence "
        f"{audio_s / one:.0f} x; ratio {one / many:.2f} x (detector alone; differ by {apart:.0e})"
    )


def compare_sides(paths: list[Path], rounds: int) -> None:
    """Ours with either detector, and the peer."""
    sides = ("ours", "ours, energy", "peer")
    measured = [{side: run_apart(side, paths) for side in sides} for _ in range(rounds)]
    best = {side: min((each[side] for each in measured), key=lambda row: row["processor_s"]) for side in sides}
    for side, row in best.items():
        print_side(side, row)
    faster = best["peer"]["processor_s"] / best["ours"]["processor_s"]
    smaller = best["peer"]["peak_mib"] / best["ours"]["peak_mib"]
    print(f"ratio: {faster:.1f} x as fast a core, 1/{smaller:.1f} of the memory (best of {rounds} rounds)")


def print_side(side: str, row: dict[str, float]) -> None:
    """One line of figures."""
    print(
        f"{side}: {row['audio_s'] / row['processor_s']:.0f} x real time a core "
        f"(wall {row['audio_s'] / row['wall_s']:.0f} x), peak {row['peak_mib']:.0f} MiB, "
        f"{row['audio_s'] / 3600:.2f} hours of audio, {row['runs']:.0f} speech runs"
    )


def main() -> None:
    """Compare the two sides and print machine, data, figures and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path, help="default: six of the miniature library")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long-hours", type=float, default=5.0, help="0: leave the long recording out")
    parser.add_argument("--side", choices=("ours", "ours, energy", "peer"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.recordings = given.recordings or sorted(LIBRARY.glob("*/*.mp3"))[:6]
    if given.side:
        print(json.dumps(measure(given.side, given.recordings)))
        return
    print(f"machine: {describe_machine()}")
    with tempfile.TemporaryDirectory() as folder:
        paths = repeated(given.recordings, given.repeat, Path(folder))
        print(f"data: {len(paths)} recordings x {given.repeat}")
        compare_sides(paths, given.rounds)
        if given.long_hours:
            print_side(f"one recording of {given.long_hours:g} hours", run_apart("ours", [long_one(given, folder)]))
    compare_candidates()
    compare_batching()


def long_one(given: argparse.Namespace, folder: str) -> Path:
    """The first recording, joined to itself until it is long enough."""
    path = Path(folder) / "long.mp3"
    once_s, _ = ours(given.recordings[0])
    path.write_bytes(given.recordings[0].read_bytes() * math.ceil(given.long_hours * 3600 / once_s))
    return path


if __name__ == "__main__":
    main()
