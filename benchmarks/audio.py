"""Segmentation end to end, against the recipe that most pipelines use, in the same run and on the same files.

The peer loads the whole file with soundfile, resamples it with torchaudio, and calls silero-vad's
`get_speech_timestamps` with its TorchScript model: the recipe of its README. Each side runs in a process of its own,
single-threaded, so that peak memory is its own too; importing is not timed. Rounds alternate, the best one counts.

    python -m benchmarks.audio [RECORDING...] [--repeat 10] [--rounds 3]

`--repeat` joins each MP3 to itself so often, to make a long recording of a short one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RATE_HZ = 16_000
LIBRARY = Path(__file__).parent.parent / "demo" / "library" / "download"


def ours(path: Path) -> tuple[float, int]:
    """Decode, find speech, place cuts, list candidates: (seconds of audio, speech runs)."""
    from speech_mining.segmentation.segmenter import segment_recording

    report = segment_recording(path, audiobook=path.stem, section=1).report
    return report.duration_s, report.runs


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
    work = ours if side == "ours" else peer()
    if side == "ours":  # what the peer's load_silero_vad did above
        from speech_mining.segmentation.voice_activity import SileroStream

        SileroStream()
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


def main() -> None:
    """Compare the two sides and print machine, data, figures and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path, help="default: six of the miniature library")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.recordings = given.recordings or sorted(LIBRARY.glob("*/*.mp3"))[:6]
    if given.side:
        print(json.dumps(measure(given.side, given.recordings)))
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = repeated(given.recordings, given.repeat, Path(folder))
        rounds = [{side: run_apart(side, paths) for side in ("ours", "peer")} for _ in range(given.rounds)]
    best = {side: min((each[side] for each in rounds), key=lambda row: row["processor_s"]) for side in rounds[0]}
    print(f"machine: {describe_machine()}")
    print(f"data: {len(paths)} recordings x {given.repeat}, {best['ours']['audio_s'] / 3600:.2f} hours")
    for side, row in best.items():
        print(
            f"{side}: {row['audio_s'] / row['processor_s']:.0f} x real time a core "
            f"(wall {row['audio_s'] / row['wall_s']:.0f} x), peak {row['peak_mib']:.0f} MiB, "
            f"{row['audio_s']:.1f} s of audio, {row['runs']:.0f} speech runs"
        )
    faster = best["peer"]["processor_s"] / best["ours"]["processor_s"]
    smaller = best["peer"]["peak_mib"] / best["ours"]["peak_mib"]
    print(f"ratio: {faster:.1f} x as fast a core, 1/{smaller:.1f} of the memory (best of {given.rounds} rounds)")


if __name__ == "__main__":
    main()
