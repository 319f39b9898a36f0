from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.settings import SegmentationSettings, load_settings
from resources.storage import Storage
from speech_mining.audio.decode import decoded_blocks, read_waveform
from speech_mining.errors import AudioError, SettingsError
from speech_mining.lake import Lake
from speech_mining.quality.plots import plot_audiobook, plot_recordings
from speech_mining.records import CATALOGUE, RECORDINGS, REJECTIONS, SEGMENTS, TIMESTAMPS, segment_id
from speech_mining.segmentation.audiobook import RUNS, SECTIONS, Recording, segment_audiobook
from speech_mining.segmentation.candidates import candidate_spans, covered_runs, long_gaps, speech_within
from speech_mining.segmentation.cut_points import (
    ENERGY_SAMPLES,
    CutRuns,
    block_energies,
    cut_runs,
    quietest_point,
    split_long_runs,
)
from speech_mining.segmentation.given_spans import checked_spans, merged_spans, slots, speech_before
from speech_mining.segmentation.limits import covering_spans, limited_spans, span_pauses
from speech_mining.segmentation.segmenter import SegmentationConfig, envelope, segment_recording
from speech_mining.segmentation.voice_activity import (
    FRAME_SAMPLES,
    SileroStream,
    VoiceActivity,
    speech_probabilities,
    speech_runs,
)
from tests import bad_audio

SECOND = 16_000


def real_recordings() -> list[Path]:
    beside = Path(__file__).resolve().parents[2] / "shared" / "real_speech"
    return sorted(Path(os.environ.get("S2S_REAL_SPEECH", beside)).rglob("*.mp3"))


needs_real_speech = pytest.mark.skipif(
    not real_recordings(), reason="no real recordings: set S2S_REAL_SPEECH to a folder with one folder a language"
)


@pytest.fixture(scope="module")
def narration() -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Sentences with pauses of known place and length over a faint hiss: waveform, [(start, end)] of the pauses."""
    pytest.importorskip("espeakng_loader", reason="no speech synthesiser: install speech-mining[narration]")
    from demo.world.narrators import NARRATORS, speak

    said = {
        "eng": ["The old man went slowly to the river", "Nobody had seen the boat since the winter", "Open the door"],
        "deu": ["Der alte Mann ging langsam zum Fluss", "Niemand hatte das Boot seit dem Winter gesehen"],
        "fra": ["Le vieil homme marchait vers la rivière", "Personne ne voyait le bateau"],
        "spa": ["El viejo caminaba despacio hacia el río", "Nadie había visto el barco desde el invierno"],
    }
    rng = np.random.default_rng(0)
    pieces: list[np.ndarray] = [np.zeros(SECOND // 2, dtype=np.float32)]
    pauses: list[tuple[int, int]] = []
    for _ in range(2):
        for language, sentences in said.items():
            for sentence in sentences:
                pieces.append(speak(sentence, NARRATORS[language])[0])  # type: ignore[index]
                start = sum(map(len, pieces))
                pieces.append(np.zeros(int(rng.integers(4_000, 16_000)), dtype=np.float32))
                pauses.append((start, start + len(pieces[-1])))
    waveform = np.concatenate(pieces)
    return waveform + bad_audio.noise(len(waveform) / SECOND, SECOND, level=0.0005), pauses


def blocks_of(waveform: np.ndarray, size: int) -> list[np.ndarray]:
    return [waveform[start : start + size] for start in range(0, len(waveform), size)]


def silero() -> Any:
    return pytest.importorskip("silero_vad")


# --- voice activity ---------------------------------------------------------------------------------------------------


def test_importing_loads_no_model() -> None:
    code = (
        "import sys, speech_mining.segmentation.segmenter, speech_mining.cli.segment\n"
        "print({'av', 'soxr', 'torch', 'onnxruntime', 'silero_vad', 'rich.progress'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_segmenting_never_loads_torch(tmp_path: Path) -> None:
    path = bad_audio.write_wav(tmp_path / "tone.wav", bad_audio.tone(2, SECOND), SECOND)
    code = (
        "import sys; from pathlib import Path; from speech_mining.segmentation.segmenter import segment_recording\n"
        "segment_recording(Path(sys.argv[1]), audiobook='a', section=1); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_stream_gives_what_silero_gives_for_the_whole(narration: tuple[np.ndarray, list[tuple[int, int]]]) -> None:
    waveform = narration[0][: 20 * SECOND + 123]
    whole = silero().load_silero_vad(sequence=True).audio_forward(waveform)
    streamed = speech_probabilities(blocks_of(waveform, 7 * FRAME_SAMPLES))
    assert streamed.shape == np.asarray(whole).reshape(-1).shape
    assert np.abs(streamed - np.asarray(whole).reshape(-1)).max() < 1e-5
    assert (streamed > 0.5).any() and (streamed < 0.5).any()


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(1, 60), size=st.integers(1, 4_000 * 8), seed=st.integers(0, 99))
def test_where_the_blocks_are_cut_changes_no_bit(frames: int, size: int, seed: int) -> None:
    waveform = bad_audio.noise(size / SECOND, SECOND, seed=seed, level=0.3)
    whole = SileroStream()(waveform)
    streamed = speech_probabilities(blocks_of(waveform, frames * FRAME_SAMPLES))
    assert len(whole) == math.ceil(len(waveform) / FRAME_SAMPLES)
    assert np.array_equal(streamed, whole)


def test_a_reset_stream_remembers_nothing() -> None:
    stream, block = SileroStream(), bad_audio.noise(2, SECOND)
    first = stream(block)
    again = stream(block)
    stream.reset()
    assert not np.array_equal(first, again) and np.array_equal(first, stream(block))


def test_no_samples_have_no_probabilities() -> None:
    assert speech_probabilities([]).shape == SileroStream()(np.empty(0, dtype=np.float32)).shape == (0,)


probability_tracks = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 0.36, 0.4, 0.49, 0.5, 0.7, 1.0]), st.integers(1, 12)), max_size=30
).map(lambda stretches: np.array([p for p, count in stretches for _ in range(count)], dtype=np.float32))


@settings(max_examples=200, deadline=None)
@given(
    probabilities=probability_tracks,
    rest=st.integers(1, FRAME_SAMPLES),
    threshold=st.sampled_from([0.1, 0.35, 0.5, 0.7]),
    min_silence_ms=st.sampled_from([0, 32, 64, 100, 300]),
    min_speech_ms=st.sampled_from([0, 32, 250]),
    pad_ms=st.sampled_from([0, 30, 200]),
)
def test_runs_are_those_of_silero(
    probabilities: np.ndarray, rest: int, threshold: float, min_silence_ms: int, min_speech_ms: int, pad_ms: int
) -> None:
    silero()
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    samples = max((len(probabilities) - 1) * FRAME_SAMPLES + rest, 0)
    config = VoiceActivity(threshold, min_silence_ms, min_speech_ms, pad_ms)
    starts, ends = speech_runs(probabilities, samples, config)
    theirs = get_speech_timestamps_from_probs(
        probabilities.tolist(),
        threshold=threshold,
        min_silence_duration_ms=min_silence_ms,
        min_speech_duration_ms=min_speech_ms,
        speech_pad_ms=pad_ms,
        audio_length_samples=samples,
    )
    assert [{"start": a, "end": b} for a, b in zip(starts.tolist(), ends.tolist(), strict=True)] == theirs


def test_a_run_begins_at_the_threshold_and_ends_where_its_silence_begins() -> None:
    track = [0.1] * 5 + [0.9] * 20 + [0.4] * 3 + [0.1] * 2 + [0.9] * 10 + [0.1] * 10
    starts, ends = speech_runs(np.array(track, dtype=np.float32), len(track) * FRAME_SAMPLES, VoiceActivity())
    # The two quiet frames (64 ms) are too short a silence; 0.4 is above the lower threshold.
    assert (starts.tolist(), ends.tolist()) == ([5 * FRAME_SAMPLES], [40 * FRAME_SAMPLES])


@pytest.mark.parametrize(("quiet_frames", "runs"), [(2, 1), (3, 2)])
def test_a_silence_of_exactly_the_shortest_length_ends_a_run(quiet_frames: int, runs: int) -> None:
    # Silero counts to the beginning of a frame: with the third quiet frame, 64 ms have passed.
    track = np.array([0.9] * 20 + [0.1] * quiet_frames + [0.9] * 20, dtype=np.float32)
    assert len(speech_runs(track, len(track) * FRAME_SAMPLES, VoiceActivity(min_silence_ms=64))[0]) == runs


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"min_silence_ms": -1}, "min_silence_ms is -1"),
        ({"min_speech_ms": -5}, "min_speech_ms is -5"),
        ({"pad_ms": -1}, "pad_ms is -1"),
    ],
)
def test_impossible_voice_activity_settings_are_told(options: dict[str, float], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        VoiceActivity(**options)  # type: ignore[arg-type]


# --- cut points -------------------------------------------------------------------------------------------------------


def test_energies_are_sums_of_squares_of_five_milliseconds() -> None:
    energies = block_energies(np.full(200, 0.5, dtype=np.float32))
    assert energies.tolist() == [20.0, 20.0, 10.0]
    assert block_energies(np.empty(0, dtype=np.float32)).shape == (0,)


def energies_of(*stretches: tuple[float, int]) -> np.ndarray:
    return np.concatenate([np.full(count, level, dtype=np.float32) for level, count in stretches])


def test_the_quietest_fifty_milliseconds_are_found() -> None:
    energies = energies_of((1.0, 20), (0.5, 9), (0.6, 4), (0.1, 10), (0.6, 17))
    assert quietest_point(energies, 0, 60 * ENERGY_SAMPLES) == (33 + 5) * ENERGY_SAMPLES


def test_in_digital_silence_the_middle_is_the_quietest() -> None:
    # A loud start first: by differences of a running sum, rounding would put the silences in some order.
    energies = energies_of((1e4 / 3, 20), (0.0, 100), (1e4 / 7, 20))
    assert quietest_point(energies, 20 * ENERGY_SAMPLES, 120 * ENERGY_SAMPLES) == 70 * ENERGY_SAMPLES


@pytest.mark.parametrize(("low", "high"), [(7, 7), (81, 159), (0, 79), (100, 240), (512, 1024)])
def test_in_a_tiny_range_the_point_still_lies_inside(low: int, high: int) -> None:
    assert low <= quietest_point(energies_of((1.0, 50)), low, high) <= high


def cut(runs: list[tuple[int, int]], energies: np.ndarray, max_pad_ms: int = 300) -> CutRuns:
    starts, ends = np.array(runs, dtype=np.int64).reshape(-1, 2).T
    return cut_runs(starts, ends, energies, len(energies) * ENERGY_SAMPLES, max_pad_ms * 16)


def test_a_short_silence_is_cut_once_and_a_long_one_twice() -> None:
    second = SECOND // ENERGY_SAMPLES
    energies = energies_of((0.0, second), (1.0, second), (0.0, second // 5), (1.0, second), (0.0, 3 * second),
                           (1.0, second), (0.0, second))  # fmt: skip
    runs = [(SECOND, 2 * SECOND), (35_200, 51_200), (99_200, 115_200)]
    found = cut(runs, energies)
    # windows of 300 ms beside the speech, cut in their middles
    assert found.before.tolist() == [16_000 - 2_400, 33_600, 99_200 - 2_400]
    assert found.after.tolist() == [33_600, 51_200 + 2_400, 115_200 + 2_400]


def test_speech_from_the_first_to_the_last_sample_is_cut_at_the_ends_of_the_recording() -> None:
    found = cut([(0, 8_000)], energies_of((1.0, 100)))
    assert (found.before.tolist(), found.after.tolist()) == ([0], [8_000])


def test_no_runs_have_no_cuts() -> None:
    assert len(cut([], energies_of((0.0, 100)))) == 0


layouts = st.lists(
    st.tuples(st.integers(1, 120), st.integers(1, 60)), min_size=1, max_size=15
)  # (gap, run) in frames of 512


def laid_out(layout: list[tuple[int, int]], tail: int) -> tuple[np.ndarray, np.ndarray, int]:
    edges = np.cumsum(np.array(layout).reshape(-1)) * FRAME_SAMPLES
    return edges[0::2].astype(np.int64), edges[1::2].astype(np.int64), int(edges[-1]) + tail


@settings(max_examples=100, deadline=None)
@given(layout=layouts, tail=st.integers(0, 30_000), pad_ms=st.integers(0, 1_000), seed=st.integers(0, 99))
def test_cuts_lie_in_the_silences_near_the_speech_and_in_order(
    layout: list[tuple[int, int]], tail: int, pad_ms: int, seed: int
) -> None:
    starts, ends, samples = laid_out(layout, tail)
    energies = np.random.default_rng(seed).random(math.ceil(samples / ENERGY_SAMPLES), dtype=np.float32)
    runs = cut_runs(starts, ends, energies, samples, pad_ms * 16)
    assert (runs.before >= 0).all() and (runs.after <= samples).all()
    assert (runs.before <= starts).all() and (runs.after >= ends).all()
    assert (runs.after[:-1] <= runs.before[1:]).all()
    assert (starts - runs.before <= pad_ms * 16).all() and (runs.after - ends <= pad_ms * 16).all()
    shared = starts[1:] - ends[:-1] <= pad_ms * 16
    middles = (ends[:-1] + starts[1:]) // 2
    assert (runs.after[:-1] == runs.before[1:])[shared].all()
    assert (runs.after[:-1] <= middles)[~shared].all() and (runs.before[1:] >= middles)[~shared].all()


def test_a_run_that_is_too_long_is_split_at_its_quietest_inner_moments() -> None:
    second = SECOND // ENERGY_SAMPLES
    energies = energies_of((1.0, 14 * second), (0.2, 20), (1.0, 16 * second - 20))
    runs = cut([(0, 30 * SECOND)], energies)
    split, count = split_long_runs(runs, energies, 3 * SECOND, 20 * SECOND)
    middle = (14 * second + 5) * ENERGY_SAMPLES
    assert count == 1 and len(split) == 2
    # anywhere in the 20 quiet frames is as good; the place nearest to the run's middle is taken
    assert split.ends[0] == split.starts[1] == split.after[0] == split.before[1]
    assert middle <= split.ends[0] <= middle + 10 * ENERGY_SAMPLES


def test_runs_that_fit_stay_as_they_are() -> None:
    runs = cut([(0, 20 * SECOND)], energies_of((1.0, 4_000)))
    assert split_long_runs(runs, energies_of((1.0, 4_000)), 3 * SECOND, 20 * SECOND) == (runs, 0)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 4_000), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_after_splitting_every_run_fits_and_no_speech_is_lost(lengths: list[int], seed: int) -> None:
    starts, ends, samples = laid_out([(20, length) for length in lengths], 5_000)
    energies = np.random.default_rng(seed).random(math.ceil(samples / ENERGY_SAMPLES), dtype=np.float32)
    runs = cut_runs(starts, ends, energies, samples, 300 * 16)
    split, count = split_long_runs(runs, energies, 3 * SECOND, 20 * SECOND)
    assert (split.after - split.before <= 20 * SECOND).all()
    assert (split.ends - split.starts).sum() == (ends - starts).sum()
    assert count == ((runs.after - runs.before) > 20 * SECOND).sum()
    assert (split.starts[1:] >= split.ends[:-1]).all() and (split.after[:-1] <= split.before[1:]).all()
    pieces = (split.ends == split.after) | (split.starts == split.before)
    assert (split.after - split.before)[pieces].min(initial=5 * SECOND) >= 3 * SECOND


# --- candidates -------------------------------------------------------------------------------------------------------


def brute_force(begins: np.ndarray, finishes: np.ndarray, low: int, high: int, breaks: np.ndarray | None) -> list[Any]:
    found = []
    for first in range(len(begins)):
        for last in range(first, len(begins)):
            if breaks is not None and last > first and breaks[last - 1]:
                break
            if low <= finishes[last] - begins[first] <= high:
                found.append((first, last))
    return found


def test_three_runs_worked_by_hand() -> None:
    begins, finishes = np.array([0, 4, 30]), np.array([2, 9, 32])
    first, last = candidate_spans(begins, finishes, 3, 20)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [(0, 1), (1, 1)]


def test_both_bounds_are_inclusive() -> None:
    begins, finishes = np.array([0, 10]), np.array([3, 20])
    first, last = candidate_spans(begins, finishes, 3, 20)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 1)]
    assert len(candidate_spans(begins, finishes, 4, 19)[0]) == 1


@settings(max_examples=300, deadline=None)
@given(
    layout=st.lists(st.tuples(st.integers(1, 2_500), st.integers(100, 25_000)), max_size=40),
    shortest=st.integers(1, 8_000),
    extra=st.integers(0, 30_000),
    max_gap=st.none() | st.integers(0, 2_500),
)
def test_the_vectorised_spans_are_those_of_brute_force(
    layout: list[tuple[int, int]], shortest: int, extra: int, max_gap: int | None
) -> None:
    edges = np.cumsum(np.array(layout, dtype=np.int64).reshape(-1))
    starts, ends = edges[0::2], edges[1::2]
    breaks = None if max_gap is None else long_gaps(starts, ends, max_gap)
    first, last = candidate_spans(starts, ends, shortest, shortest + extra, breaks)
    expected = brute_force(starts, ends, shortest, shortest + extra, breaks)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == expected
    lengths = ends[last] - starts[first]
    assert ((lengths >= shortest) & (lengths <= shortest + extra)).all()
    assert speech_within(starts, ends, first, last).tolist() == [
        int((ends[a : b + 1] - starts[a : b + 1]).sum()) for a, b in expected
    ]
    held = {run for a, b in expected for run in range(a, b + 1)}
    assert np.flatnonzero(covered_runs(len(starts), first, last)).tolist() == sorted(held)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_pauses_around_spans_are_worked_by_hand() -> None:
    starts, ends = np.array([10, 50, 60]), np.array([40, 60, 90])
    before, after = span_pauses(starts, ends, 100, np.array([0, 0, 1]), np.array([0, 2, 1]))
    # the ends of the recording count as 100; the second run was cut from the third
    assert (before.tolist(), after.tolist()) == ([100, 100, 10], [10, 100, 0])


def test_the_spans_between_the_longest_silences_are_kept() -> None:
    first, last = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 2])
    pauses = np.array([9, 9, 5, 5, 1]), np.array([5, 1, 1, 9, 9])
    kept = limited_spans(first, last, pauses, max_ends=None, most=3)
    # (0, 1) and (1, 2) cover everything with the fewest spans; of the rest (0, 0) has the longest silences
    assert list(zip(first[kept].tolist(), last[kept].tolist(), strict=True)) == [(0, 0), (0, 1), (1, 2)]
    kept = limited_spans(first, last, pauses, max_ends=1, most=None)
    assert list(zip(first[kept].tolist(), last[kept].tolist(), strict=True)) == [(0, 1), (1, 2), (2, 2)]


def test_no_spans_stay_none() -> None:
    none = np.empty(0, dtype=np.int64)
    assert limited_spans(none, none, (none, none), max_ends=1, most=1).shape == covering_spans(none, none).shape == (0,)


span_sets = st.sets(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=40).map(
    lambda spans: np.array(sorted((first, first + more) for first, more in spans), dtype=np.int64).reshape(-1, 2)
)


def held_by(spans: np.ndarray) -> set[int]:
    return {run for first, last in spans.tolist() for run in range(first, last + 1)}


@settings(max_examples=200, deadline=None)
@given(spans=span_sets)
def test_a_cover_holds_what_all_spans_hold_and_loses_it_without_any_of_its_spans(spans: np.ndarray) -> None:
    chosen = covering_spans(spans[:, 0], spans[:, 1])
    assert held_by(spans[chosen]) == held_by(spans)
    assert len(set(spans[chosen, 0].tolist())) == len(chosen)
    for place in range(len(chosen)):
        assert held_by(np.delete(spans[chosen], place, axis=0)) != held_by(spans)


@settings(max_examples=200, deadline=None)
@given(
    spans=span_sets,
    seed=st.integers(0, 99),
    max_ends=st.none() | st.integers(1, 4),
    most=st.none() | st.integers(1, 30),
)
def test_limits_are_kept_and_no_speech_is_lost(
    spans: np.ndarray, seed: int, max_ends: int | None, most: int | None
) -> None:
    rng = np.random.default_rng(seed)
    first, last = spans.T
    gaps = rng.integers(0, 5, (2, len(spans)))
    kept = limited_spans(first, last, (gaps[0], gaps[1]), max_ends=max_ends, most=most)
    assert held_by(spans[kept]) == held_by(spans)
    if max_ends is not None:
        assert np.bincount(first[kept], minlength=1).max() <= max_ends
    if most is not None:
        assert kept.sum() <= max(most, len(covering_spans(first, last)))
    if max_ends is None and most is None:
        assert kept.all()


def test_a_limited_recording_keeps_its_coverage_and_counts_what_it_left_out(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    path = bad_audio.write_audio(tmp_path / "narration.mp3", narration[0], SECOND)
    full = segment_recording(path, audiobook="n", section=1)
    for config in (SegmentationConfig(max_per_hour=1_000), SegmentationConfig(max_ends=2)):
        few = segment_recording(path, audiobook="n", section=1, config=config)
        assert few.report.coverage == full.report.coverage
        assert few.report.candidates + few.report.left_out == full.report.candidates and few.report.left_out > 10
        assert set(few.segments["segment_id"]) < set(full.segments["segment_id"])
        assert_sound(few.segments, read_waveform(path), config)
    hours = full.report.duration_s / 3600
    few = segment_recording(path, audiobook="n", section=1, config=SegmentationConfig(max_per_hour=1_000))
    assert few.report.candidates == math.ceil(1_000 * hours)


# --- spans that a user brings -----------------------------------------------------------------------------------------


def test_spans_are_held_against_the_recording_with_both_figures() -> None:
    spans = [(0, 100), (50, 90), (90, 50), (-1, 5), (10, 101), (None, 5), (50, 90), (7, 7)]
    starts, ends, refused = checked_spans(spans, 100)
    assert (starts.tolist(), ends.tolist()) == ([0, 50], [100, 90])
    assert [(span.start, span.end, span.reason) for span in refused] == [
        (90, 50, "malformed"), (-1, 5, "out_of_range"), (10, 101, "out_of_range"), (None, 5, "malformed"),
        (50, 90, "malformed"), (7, 7, "malformed"),
    ]  # fmt: skip
    assert "10 to 101" in refused[2].detail and "100 samples" in refused[2].detail
    assert "twice" in refused[4].detail


@settings(max_examples=200, deadline=None)
@given(spans=st.sets(st.tuples(st.integers(0, 40), st.integers(1, 30)), max_size=12))
def test_spans_share_a_slot_exactly_where_they_share_a_sample(spans: set[tuple[int, int]]) -> None:
    starts, ends, refused = checked_spans([(start, start + length) for start, length in spans], 1_000)
    boundaries, first, last = slots(starts, ends)
    assert not refused and boundaries[first].tolist() == starts.tolist()
    for a in range(len(starts)):
        assert first[a] <= last[a] and boundaries[last[a] + 1] == ends[a]
        for b in range(len(starts)):
            samples = starts[a] < ends[b] and starts[b] < ends[a]
            assert samples == (first[a] <= last[b] and first[b] <= last[a])
    merged = zip(*merged_spans(starts, ends), strict=True)
    union = {sample for start, end in merged for sample in range(start, end)}
    assert union == {sample for start, end in zip(starts, ends, strict=True) for sample in range(start, end)}


def test_speech_before_a_place_is_worked_by_hand() -> None:
    starts, ends = np.array([10, 30]), np.array([20, 50])
    assert speech_before(starts, ends, np.array([0, 10, 15, 25, 40, 99])).tolist() == [0, 0, 5, 10, 20, 30]
    none = np.empty(0, dtype=np.int64)
    assert speech_before(none, none, np.array([5])).tolist() == [0]


def timestamps(*rows: tuple[str, int, int | None, int | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(TIMESTAMPS), orient="row")


def test_given_spans_become_segments_as_they_are(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    waveform = narration[0]
    path = bad_audio.write_audio(tmp_path / "narration.flac", waveform, SECOND, codec="flac", sample_format="s16")
    samples = len(read_waveform(path))
    brought = timestamps(("7", 1, 16_000, 400_001), ("7", 1, 8_003, 24_000), ("7", 1, 0, samples + 1),
                         ("8", 1, 0, 100), ("7", 3, 0, 100))  # fmt: skip
    found = segment_audiobook("7", [Recording(1, path, None), Recording(2, path, None)], given=brought)
    mine = found.segments.filter(section=1)
    assert mine.select("start_sample", "end_sample").rows() == [(8_003, 24_000), (16_000, 400_001)]
    assert mine.select("first_run", "last_run").rows() == [(0, 1), (1, 2)]
    assert found.runs.filter(section=1).select("start_sample", "end_sample").rows() == [
        (8_003, 16_000), (16_000, 24_000), (24_000, 400_001),
    ]  # fmt: skip
    assert (mine["end_sample"] - mine["start_sample"]).max() > 20 * SECOND  # of whatever length
    assert found.rejections.select("section", "reason").rows() == [(3, "not_found"), (1, "out_of_range")]
    assert f"{samples} samples" in found.rejections["detail"][1]
    assert found.sections["given"].to_list() == [True, False]
    assert found.segments.filter(section=2).height > 30  # nothing is given of it: cut between silences
    assert 0 < found.sections["coverage"][0] < 1 == round(found.sections["coverage"][1], 2)
    spoken = mine["coverage"].to_list()
    assert all(0 < share <= 1 for share in spoken)


# --- audiobooks -------------------------------------------------------------------------------------------------------


def test_a_recording_of_another_length_is_rejected_with_both_figures_and_counted(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    path = bad_audio.write_audio(tmp_path / "narration.mp3", narration[0], SECOND)
    seconds = len(narration[0]) // SECOND
    recordings = [Recording(n, path, announced) for n, announced in enumerate((seconds, 2 * seconds, 5, None), start=1)]
    found = segment_audiobook("7", recordings)
    assert found.rejections.select("section", "reason").rows() == [(2, "duration_mismatch"), (3, "duration_mismatch")]
    assert found.sections["rejected"].to_list() == [False, True, True, False]
    for row in found.sections.filter(rejected=True).iter_rows(named=True):
        assert row["candidates"] == 0 and row["coverage"] == 0
        detail = found.rejections.filter(section=row["section"])["detail"][0]
        assert f"{row['duration_s']:.1f} s" in detail and f"{row['announced_s']}.0 s" in detail
    assert found.segments["section"].unique().sort().to_list() == [1, 4]
    assert dict(found.sections.schema) == dict(SECTIONS) and dict(found.runs.schema) == dict(RUNS)


def test_segments_begin_and_end_where_their_runs_are_cut(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    path = bad_audio.write_audio(tmp_path / "narration.mp3", narration[0], SECOND)
    found = segment_audiobook("7", [Recording(1, path, None)])
    runs = found.runs.select("run", "before_sample", "after_sample")
    joined = found.segments.join(runs, left_on="first_run", right_on="run").join(
        runs, left_on="last_run", right_on="run", suffix="_of_last"
    )
    assert joined.height == found.segments.height > 30
    assert (joined["start_sample"] == joined["before_sample"]).all()
    assert (joined["end_sample"] == joined["after_sample_of_last"]).all()


def test_no_recordings_are_empty_tables() -> None:
    found = segment_audiobook("7", [])
    assert all(frame.is_empty() for frame in (found.segments, found.rejections, found.sections, found.runs))


# --- pictures ---------------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"


def test_an_envelope_keeps_the_loudest_of_each_stretch() -> None:
    energies = np.zeros(3_000, dtype=np.float32)
    energies[1_234] = ENERGY_SAMPLES * 0.25
    drawn = envelope(energies, 1_000)
    assert len(drawn) == 1_000 and drawn[1_234 // 3] == 0.5 and np.count_nonzero(drawn) == 1
    assert envelope(np.empty(0, dtype=np.float32)).shape == (0,)


def test_a_book_of_a_hundred_sections_is_drawn_small_and_the_same_each_time(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    path = bad_audio.write_audio(tmp_path / "narration.mp3", narration[0], SECOND)
    found = segment_audiobook("7", [Recording(1, path, None)])
    tables = [
        pl.concat([table.with_columns(section=pl.lit(n, pl.Int32)) for n in range(1, 101)])
        for table in (found.sections, found.runs, found.segments)
    ]
    drawn = plot_audiobook(*tables, title="a book")
    assert drawn.startswith(PNG) and len(drawn) < 60_000 and drawn == plot_audiobook(*tables, title="a book")
    uncovered = plot_audiobook(found.sections, found.runs, found.segments.clear())
    assert uncovered != plot_audiobook(found.sections, found.runs, found.segments)
    assert uncovered != plot_audiobook(found.sections, found.runs.clear(), found.segments.clear())
    assert plot_audiobook(*(table.clear() for table in tables)).startswith(PNG)


def test_recordings_are_drawn_with_and_without_speech(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    spoken = bad_audio.write_audio(tmp_path / "narration.mp3", narration[0], SECOND)
    tone = bad_audio.write_wav(tmp_path / "tone.wav", bad_audio.tone(0.01, SECOND), SECOND)
    found = {path.name: segment_recording(path, audiobook="a", section=1) for path in (spoken, tone)}
    assert plot_recordings(found).startswith(PNG)


# --- recordings -------------------------------------------------------------------------------------------------------


def assert_sound(segments: pl.DataFrame, waveform: np.ndarray, config: SegmentationConfig) -> None:
    """What must hold of every table of segments."""
    assert dict(segments.schema) == dict(SEGMENTS)
    spans = segments.select("start_sample", "end_sample")
    assert spans.equals(spans.unique().sort("start_sample", "end_sample"))
    for row in segments.iter_rows(named=True):
        start, end = row["start_sample"], row["end_sample"]
        assert 0 <= start < end <= len(waveform)
        assert config.min_s <= (end - start) / SECOND <= config.max_s
        assert row["start_ms"] * 16 <= start < row["start_ms"] * 16 + 16
        assert row["segment_id"] == segment_id(row["audiobook"], row["section"], start, end)
        level = 10 * math.log10(float(np.mean(waveform[start:end].astype(np.float64) ** 2)))
        assert row["level_dbfs"] == pytest.approx(level, abs=0.01)
        assert 0 < row["coverage"] <= 1 and row["first_run"] <= row["last_run"]


def test_cuts_fall_inside_the_true_pauses(narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path) -> None:
    waveform, pauses = narration
    path = bad_audio.write_audio(tmp_path / "narration.mp3", waveform, SECOND)
    segments = segment_recording(path, audiobook="n", section=1).segments
    edges = np.unique(np.concatenate([segments["start_sample"].to_numpy(), segments["end_sample"].to_numpy()]))
    missed = [pause for pause in pauses[:-1] if not ((edges > pause[0]) & (edges < pause[1])).any()]
    assert not missed
    # A cut elsewhere (such as the closure of a stop consonant) must at least be as quiet as a pause: RMS 0.0005.
    inside = [any(low < edge < high for low, high in [(-1, SECOND // 2), *pauses]) for edge in edges.tolist()]
    assert np.mean(inside) >= 0.95
    levels = [np.sqrt(np.mean(waveform[max(edge - 400, 0) : edge + 400] ** 2)) for edge in edges.tolist()]
    assert max(levels) < 0.001


def test_segments_of_a_narration_are_sound(narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path) -> None:
    path = bad_audio.write_audio(tmp_path / "narration.mp3", narration[0], SECOND)
    config = SegmentationConfig()
    found = segment_recording(path, audiobook="n", section=7, config=config)
    assert_sound(found.segments, read_waveform(path), config)
    assert found.report.candidates == len(found.segments) > 30
    assert found.report.coverage > 0.99 and found.rejections.is_empty()
    assert found.segments["section"].unique().to_list() == [7]


def test_the_settings_of_a_segmentation_are_obeyed(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    path = bad_audio.write_audio(tmp_path / "narration.mp3", narration[0], SECOND)
    waveform = read_waveform(path)
    counts = {}
    for name, config in {
        "default": SegmentationConfig(),
        "short": SegmentationConfig(min_s=1, max_s=5),
        "chained": SegmentationConfig(max_gap_ms=500),
        "tight": SegmentationConfig(max_pad_ms=50),
        "deaf": SegmentationConfig(voice_activity=VoiceActivity(min_silence_ms=700)),
    }.items():
        found = segment_recording(path, audiobook="n", section=1, config=config)
        assert_sound(found.segments, waveform, config)
        counts[name] = found
    runs = counts["default"].report.runs
    assert counts["chained"].report.candidates < counts["default"].report.candidates
    assert counts["deaf"].report.runs < runs == counts["tight"].report.runs
    assert counts["tight"].segments["coverage"].mean() > counts["default"].segments["coverage"].mean()  # type: ignore[operator]


def test_speech_without_a_pause_is_split_and_stays_covered(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    path = bad_audio.write_audio(tmp_path / "narration.mp3", narration[0], SECOND)
    # No silence of this recording is long enough to end a run.
    config = SegmentationConfig(voice_activity=VoiceActivity(min_silence_ms=5_000))
    found = segment_recording(path, audiobook="n", section=1, config=config)
    assert found.report.resplit_runs == 1 and found.report.runs > 2
    assert found.report.coverage == 1
    assert_sound(found.segments, read_waveform(path), config)


def test_the_same_recording_gives_the_same_bytes(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    path = bad_audio.write_audio(tmp_path / "narration.mp3", narration[0], SECOND)
    for name in ("first", "second"):
        segment_recording(path, audiobook="n", section=1).segments.write_parquet(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("kind", ["silence", "noise", "tone"])
def test_a_recording_without_speech_is_a_rejection_not_an_error(tmp_path: Path, kind: str) -> None:
    samples = {
        "silence": np.zeros(20 * SECOND, dtype=np.float32),
        "noise": bad_audio.noise(20, SECOND, level=0.05),
        "tone": bad_audio.tone(20, SECOND),
    }[kind]
    found = segment_recording(bad_audio.write_wav(tmp_path / "a.wav", samples, SECOND), audiobook="b", section=2)
    assert found.segments.is_empty() and dict(found.segments.schema) == dict(SEGMENTS)
    assert dict(found.rejections.schema) == dict(REJECTIONS)
    row = found.rejections.row(0, named=True)
    assert (row["audiobook"], row["section"], row["reason"], row["start_sample"]) == ("b", 2, "no_speech", None)
    assert (found.report.runs, found.report.candidates, found.report.coverage) == (0, 0, 1.0)


def test_speech_that_is_too_short_is_a_rejection(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    waveform, pauses = narration
    path = bad_audio.write_wav(tmp_path / "word.wav", waveform[: pauses[0][0] + 1_600], SECOND)
    found = segment_recording(path, audiobook="b", section=1, config=SegmentationConfig(min_s=8))
    assert found.rejections["reason"].to_list() == ["too_short"]
    assert found.report.runs and found.report.coverage == 0


def test_a_recording_shorter_than_a_frame_is_segmented_to_nothing(tmp_path: Path) -> None:
    path = bad_audio.write_wav(tmp_path / "blip.wav", bad_audio.tone(0.01, SECOND), SECOND)
    found = segment_recording(path, audiobook="b", section=1)
    assert found.report.decoding.samples == 160 and found.segments.is_empty()


@pytest.mark.parametrize(
    ("maker", "reason"),
    [(bad_audio.empty, "empty_file"), (bad_audio.web_page, "not_audio"), (bad_audio.zip_archive, "not_audio"),
     (bad_audio.random_bytes, "damaged")],
)  # fmt: skip
def test_what_cannot_be_decoded_is_an_error_with_a_reason(tmp_path: Path, maker: Any, reason: str) -> None:
    with pytest.raises(AudioError) as caught:
        segment_recording(maker(tmp_path / "bad.mp3"), audiobook="b", section=1)
    assert caught.value.reason == reason


def test_a_damaged_narration_keeps_the_segments_of_its_sound_part(
    narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    whole = bad_audio.write_audio(tmp_path / "whole.mp3", narration[0], SECOND)
    half = segment_recording(bad_audio.truncated(tmp_path / "half.mp3", whole, 0.5), audiobook="n", section=1)
    full = segment_recording(whole, audiobook="n", section=1)
    limit = half.report.decoding.samples - SECOND
    kept = full.segments.filter(pl.col("end_sample") < limit)["segment_id"]
    assert len(kept) > 10 and set(kept) <= set(half.segments["segment_id"])


def test_progress_rises_to_the_whole_file(tmp_path: Path) -> None:
    path = bad_audio.write_audio(tmp_path / "noise.mp3", bad_audio.noise(60, SECOND), SECOND)
    told: list[tuple[int, int]] = []
    segment_recording(path, audiobook="a", section=1, progress=lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert told[-1] == (size, size) and told == sorted(told) and len(told) > 5


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"min_s": 20.0, "max_s": 3.0}, "not shorter than the longest"),
        ({"min_s": 3.0, "max_s": 3.0}, "not shorter than the longest"),
        ({"min_s": float("nan")}, "nan to 20"),
        ({"max_s": math.inf}, "3.0 to inf"),
        ({"min_s": -1.0}, "two positive numbers"),
        ({"max_pad_ms": -1}, "max_pad_ms is -1"),
        ({"max_pad_ms": 6_000}, "a quarter of the longest"),
        ({"max_gap_ms": -1}, "max_gap_ms is -1"),
        ({"max_per_hour": 0}, "max_per_hour is 0"),
        ({"max_ends": -1}, "max_ends is -1"),
        ({"max_bad_share": 1.5}, "max_bad_share is 1.5"),
    ],
)
def test_impossible_segmentation_settings_are_told(options: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        SegmentationConfig(**options)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_stays_flat_over_a_long_recording(tmp_path: Path) -> None:
    minute = bad_audio.write_audio(tmp_path / "minute.mp3", bad_audio.noise(60, SECOND), SECOND)
    long = bad_audio.joined(tmp_path / "long.mp3", *([minute] * 20))
    code = (
        "import sys; from pathlib import Path\n"
        "from speech_mining.segmentation.segmenter import segment_recording\n"
        "for path in map(Path, sys.argv[1:]):\n"
        "    segment_recording(path, audiobook='a', section=1)\n"
        "    print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, minute, long], capture_output=True, text=True, check=True)
    first, last = map(int, done.stdout.split())
    assert last - first < 20_000  # KiB; the waveform alone would be 77 MB
    assert last < 350_000


# --- the layer --------------------------------------------------------------------------------------------------------


def blank(schema: Any, **values: object) -> pl.DataFrame:
    """One row of a table, null where nothing is said."""
    return pl.DataFrame([{name: values.get(name) for name in schema}], schema=dict(schema))


def materialised(lake: Lake, book: str, settings_of_it: SegmentationSettings) -> dict[str, dg.MetadataValue[Any]]:
    """Segment a book through the asset itself; its metadata."""
    from s2s_assets.segments import segments

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("audiobooks_eng", [book])
        done = dg.materialize(
            [segments("eng", load_settings(segmentation=settings_of_it))],
            instance=instance,
            partition_key=book,
            resources={"storage": Storage(url=str(lake.root), scratch=str(lake.root / "scratch"))},
        )
        (event,) = done.get_asset_materialization_events()
        return dict(event.materialization.metadata)


@pytest.fixture
def lake(narration: tuple[np.ndarray, list[tuple[int, int]]], tmp_path: Path) -> Lake:
    """Book 7 in English, one recording; and in the catalogue a French section of the same book."""
    found = Lake(tmp_path / "lake")
    with found.replace("raw_audio", "eng", "7") as new:
        bad_audio.write_audio(new.path("a.mp3"), narration[0], SECOND)
        row = blank(RECORDINGS, audiobook="7", section=1, language="eng", file="a.mp3")
        new.write_table("recordings.parquet", row, RECORDINGS)
    return found


def test_the_layer_holds_its_tables_its_parameters_and_a_picture(lake: Lake) -> None:
    told = materialised(lake, "7", SegmentationSettings(max_ends=2))
    made = lake.partition("segments", "eng", "7")
    assert set(made.files) == {
        "segments.parquet", "rejections.parquet", "sections.parquet", "runs.parquet", "segmentation.json",
    }  # fmt: skip
    written = made.read_json("segmentation.json")
    assert written["parameters"]["max_ends"] == 2 and written["parameters"]["voice_activity"]["detector"] == "silero"
    assert "data:image/png;base64," in str(told["plot"].value) and len(str(told["plot"].value)) < 80_000
    assert told["profiles"].value == {"speech": 1} and told["left_out_by_limits"].value > 10
    before = made.data_version
    materialised(lake, "7", SegmentationSettings(max_ends=2))
    assert lake.partition("segments", "eng", "7").data_version == before
    materialised(lake, "7", SegmentationSettings(max_ends=3))
    assert lake.partition("segments", "eng", "7").data_version != before


def test_spans_that_the_catalogue_brings_are_used_and_those_of_other_languages_are_not(lake: Lake) -> None:
    brought = timestamps(("7", 1, 0, 5 * SECOND), ("7", 2, 0, SECOND), ("9", 1, 0, SECOND))
    with lake.replace("catalogue") as new:
        known = pl.concat([
            blank(CATALOGUE, audiobook="7", section=1, language="eng"),
            blank(CATALOGUE, audiobook="7", section=2, language="fra"),
        ])  # fmt: skip
        new.write_table("catalogue.parquet", known, CATALOGUE)
        new.write_table("timestamps.parquet", brought, TIMESTAMPS)
    materialised(lake, "7", SegmentationSettings())
    made = lake.partition("segments", "eng", "7")
    spans = made.read_table("segments.parquet", SEGMENTS).select("section", "start_sample", "end_sample")
    assert spans.rows() == [(1, 0, 5 * SECOND)]
    assert made.read_table("rejections.parquet", REJECTIONS).is_empty()


def test_sections_that_are_no_speech_are_named_by_a_warning(lake: Lake) -> None:
    from s2s_assets.segments import sounds_like_speech

    check = sounds_like_speech()
    materialised(lake, "7", SegmentationSettings())
    assert check.judge(Storage(url=str(lake.root), scratch=""), "eng").passed
    with lake.replace("raw_audio", "eng", "8") as new:
        bad_audio.write_audio(new.path("a.mp3"), bad_audio.tone(10, SECOND), SECOND)
        row = blank(RECORDINGS, audiobook="8", section=4, language="eng", file="a.mp3")
        new.write_table("recordings.parquet", row, RECORDINGS)
    materialised(lake, "8", SegmentationSettings())
    result = check.judge(Storage(url=str(lake.root), scratch=""), "eng")
    assert not result.passed and result.severity == dg.AssetCheckSeverity.WARN
    (offending,) = result.metadata["offending_rows"].records
    assert (offending.data["audiobook"], offending.data["section"], offending.data["profile"]) == (
        "8", 4, "music_or_noise")  # fmt: skip


# --- real speech ------------------------------------------------------------------------------------------------------


@needs_real_speech
def test_real_readings_are_covered_and_cut_as_often_as_measured() -> None:
    seconds = candidates = runs = 0.0
    for path in real_recordings():
        report = segment_recording(path, audiobook=path.stem, section=1).report
        assert report.coverage > 0.99, path.name
        assert 0.65 < report.speech_s / report.duration_s < 0.9, path.name
        assert report.decoding.skipped_packets == 0
        seconds += report.duration_s
        candidates += report.candidates
        runs += report.runs
    # 16 minutes in four languages: 1 271 runs and 7 178 candidates an hour.
    assert 1_100 < runs / seconds * 3600 < 1_450
    assert 5_500 < candidates / seconds * 3600 < 9_000


@needs_real_speech
def test_segments_of_a_real_reading_are_sound() -> None:
    path = real_recordings()[0]
    found = segment_recording(path, audiobook=path.stem, section=1)
    assert_sound(found.segments, read_waveform(path), SegmentationConfig())


@needs_real_speech
def test_streaming_a_real_reading_gives_the_batch_probabilities() -> None:
    path = real_recordings()[-1]
    streamed = speech_probabilities(decoded_blocks(path, 100 * FRAME_SAMPLES))
    assert np.array_equal(streamed, SileroStream()(read_waveform(path)))
