"""Cutting a corpus' clips, against one program call a clip, in the same run and of the same recordings.

The peer is what most recipes do: a loop that starts ffmpeg for each clip. In two ways: `-ss` before `-i` seeks, which
trusts the container's table; `-ss` behind `-i` decodes up to the clip, as one must where there is none (every tenth
clip is timed, since it takes long). Where there is no ffmpeg (a wheel, `imageio-ffmpeg`, holds one: put it on the
path), PyAV stands in for it, and the report says so: a process a clip that opens the recording, seeks and decodes,
whose start is slower than ffmpeg's; and the same in one process, which leaves out every start. Ours decodes each
recording once and slices.

    python -m benchmarks.cutting [RECORDING...] [--clips 360] [--repeat 20] [--workers 2] [--rounds 3]

`--repeat` joins each MP3 to itself so often, to make a long recording of a short one: LibriVox's sections last about
twenty minutes. Clips last 3 to 20 s, evenly over each recording. Both seconds and seconds of all cores are told: the
second hold on a machine that others use too. Ratios are against ours with one worker.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from speech_mining.audio.decode import measure_s
from speech_mining.corpora.cutting import Recording, cut

RATE_HZ = 16_000
LIBRARY = Path(__file__).parent.parent / "demo" / "library" / "download"


def by_ffmpeg(recordings: Sequence[Recording], folder: Path) -> None:
    """One ffmpeg a clip, which seeks."""
    _by_ffmpeg(_clips(recordings), folder, exact=False)


def by_exact_ffmpeg(recordings: Sequence[Recording], folder: Path) -> None:
    """One ffmpeg for every tenth clip, which decodes up to it."""
    _by_ffmpeg(_clips(recordings)[::10], folder, exact=True)


def _by_ffmpeg(clips: Sequence[tuple[Recording, tuple[int, int]]], folder: Path, *, exact: bool) -> None:
    for number, (recording, (start, end)) in enumerate(clips):
        place = ["-ss", f"{start / RATE_HZ:.6f}", "-t", f"{(end - start) / RATE_HZ:.6f}"]
        sound = ["-ac", "1", "-ar", str(RATE_HZ), "-sample_fmt", "s16"]
        source = ["-i", str(recording.path)]
        words = ["ffmpeg", "-nostdin", "-loglevel", "fatal", *(source + place if exact else place + source), *sound]
        subprocess.run([*words, str(folder / f"{number}.flac")], check=True)


def by_process(recordings: Sequence[Recording], folder: Path) -> None:
    """One process a clip, which opens, seeks and decodes with PyAV."""
    for number, (recording, (start, end)) in enumerate(_clips(recordings)):
        words = [sys.executable, "-m", "benchmarks.cutting", "--one", str(recording.path), str(start), str(end)]
        subprocess.run([*words, str(folder / f"{number}.flac")], check=True)


def by_opening(recordings: Sequence[Recording], folder: Path) -> None:
    """The recording opened anew for each clip, in this process."""
    for number, (recording, (start, end)) in enumerate(_clips(recordings)):
        cut_one(recording.path, start, end, folder / f"{number}.flac")


def cut_one(path: Path, start: int, end: int, out: Path) -> None:
    """What one call of ffmpeg does: open, seek, decode and resample until the clip is full, write."""
    import av
    import soundfile

    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        container.seek(int(start / RATE_HZ / stream.time_base), stream=stream)
        resampler = av.AudioResampler("s16", "mono", RATE_HZ)
        pieces, wanted = [], end - start
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # the place of a seek, or of a join, as ffmpeg passes over it too
                continue
            pieces += [piece.to_ndarray()[0] for frame in frames for piece in resampler.resample(frame)]
            if sum(map(len, pieces)) >= wanted:
                break
    soundfile.write(out, np.concatenate(pieces)[:wanted], RATE_HZ, format="FLAC", subtype="PCM_16")


def _clips(recordings: Sequence[Recording]) -> list[tuple[Recording, tuple[int, int]]]:
    return [(recording, span) for recording in recordings for span in recording.spans]


def prepare(paths: Sequence[Path], folder: Path, repeat: int, clips: int) -> list[Recording]:
    """Long recordings, and spans of 3 to 20 s in them, none over another."""
    each = max(1, clips // len(paths))
    found = []
    for number, path in enumerate(paths):
        long = folder / f"{number}{path.suffix}"
        long.write_bytes(path.read_bytes() * repeat)
        step = measure_s(long) * RATE_HZ / each
        lengths = np.random.default_rng(number).uniform(3, min(20, 0.9 * step / RATE_HZ), each) * RATE_HZ
        spans = tuple((int(at * step), int(at * step + length)) for at, length in enumerate(lengths))
        found.append(Recording(path.name, long, hashlib.sha256(long.read_bytes()).hexdigest(), spans))
    return found


def best_s(work: Callable[[Path], object], rounds: int) -> tuple[float, float]:
    """Of some rounds the quickest, each in a folder of its own: seconds, and seconds of all cores with children."""
    times = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            began, before = time.perf_counter(), sum(os.times()[:4])
            work(Path(folder))
            times.append((time.perf_counter() - began, sum(os.times()[:4]) - before))
    return min(times)


def main() -> None:
    """Print the machine, the data, seconds and ratios."""
    if sys.argv[1:2] == ["--one"]:
        path, start, end, out = sys.argv[2:]
        cut_one(Path(path), int(start), int(end), Path(out))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path)
    parser.add_argument("--clips", type=int, default=360)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    paths = asked.recordings or sorted(LIBRARY.rglob("*.mp3"))[:2]
    with tempfile.TemporaryDirectory() as folder:
        report(prepare(paths, Path(folder), asked.repeat, asked.clips), asked.workers, asked.rounds)


def _ours(recordings: Sequence[Recording], workers: int, folder: Path) -> None:
    cut(recordings, folder, workers=workers)


def report(recordings: Sequence[Recording], workers: int, rounds: int) -> None:
    """Time ours and the peers."""
    clips = _clips(recordings)
    seconds = sum(end - start for _, (start, end) in clips) / RATE_HZ
    minutes = sum(measure_s(recording.path) for recording in recordings) / 60
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"{len(clips)} clips, {seconds / 60:.1f} min, of {len(recordings)} recordings, {minutes:.1f} min")
    ours = {f"ours, {count} workers": count for count in sorted({1, workers})}
    times = {name: best_s(partial(_ours, recordings, count), rounds) for name, count in ours.items()}
    if shutil.which("ffmpeg"):
        times["one ffmpeg a clip, which seeks"] = best_s(partial(by_ffmpeg, recordings), 1)
        took, of_cores = best_s(partial(by_exact_ffmpeg, recordings), 1)
        share = len(clips) / len(clips[::10])
        times["one ffmpeg a clip, which decodes up to it"] = (took * share, of_cores * share)
    else:
        print("ffmpeg is not installed: PyAV stands in for it")
        times["one process a clip (PyAV)"] = best_s(partial(by_process, recordings), 1)
        times["opened anew a clip, one process (PyAV)"] = best_s(partial(by_opening, recordings), rounds)
    first = times[next(iter(ours))]
    for name, (took, of_cores) in times.items():
        ratios = f"{took:8.2f} s {took / first[0]:6.1f} ×   {of_cores:8.2f} core s {of_cores / first[1]:6.1f} ×"
        print(f"{name:42} {ratios} {1000 * took / len(clips):8.1f} ms a clip")


if __name__ == "__main__":
    main()
