"""Clips are the samples that the corpus names, cut once, and the same bytes whenever they are cut."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.audio.decode import read_waveform
from speech_mining.corpora.cutting import Recording, cut, flac, slices, tidy
from speech_mining.errors import AudioError, LakeError

LIBRARY = Path(__file__).parent.parent / "demo" / "library" / "download"
SPANS = ((16_000, 80_000), (90_001, 150_003), (100_000, 120_000), (0, 48_000))


def recordings(count: int = 2) -> list[Recording]:
    paths = sorted(LIBRARY.rglob("*.mp3"))[:count]
    return [Recording(path.stem, path, f"{number:064x}", SPANS) for number, path in enumerate(paths)]


def samples_of(packed: bytes) -> np.ndarray:
    samples, rate_hz = soundfile.read(io.BytesIO(packed), dtype="int16")
    assert rate_hz == 16_000
    return np.asarray(samples)


def test_each_clip_is_the_very_samples_of_its_span(tmp_path: Path) -> None:
    wanted = recordings(1)
    clips = cut(wanted, tmp_path)
    whole = np.clip(np.rint(read_waveform(wanted[0].path) * 32_768), -32_768, 32_767).astype(np.int16)
    for start, end in SPANS:
        clip = clips.of(wanted[0].sha256, start, end)
        assert clip.samples == end - start
        assert np.array_equal(samples_of(clip.read()), whole[start:end])


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    ends=st.lists(st.tuples(st.integers(0, 120), st.integers(1, 50)), max_size=8),
)
def test_slices_are_those_of_the_whole_however_it_comes_in_blocks(
    lengths: list[int], ends: list[tuple[int, int]]
) -> None:
    whole = np.arange(sum(lengths), dtype=np.float32)
    spans = sorted({(start, start + length) for start, length in ends})
    found = dict(slices(np.split(whole, np.cumsum(lengths)[:-1]), spans))
    within = [span for span in spans if span[1] <= len(whole)]
    assert sorted(found) == within
    assert all(np.array_equal(found[start, end], whole[start:end]) for start, end in within)


def test_what_no_span_wants_any_more_is_let_go() -> None:
    block = 100
    held = 0
    blocks = (np.zeros(block, dtype=np.float32) for _ in range(1000))
    for _, waveform in slices(blocks, [(start, start + 150) for start in range(0, 99_000, 500)]):
        held = max(held, len(waveform.base) if waveform.base is not None else 0)
    assert 150 <= held <= 150 + 2 * block


def test_equal_inputs_give_equal_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    wanted = recordings(3)
    for name, workers in (("one", 1), ("three", 3)):
        cut(wanted, tmp_path / name, workers=workers)
    one, three = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "three"))
    assert one == three
    assert len(one) == 3


def test_a_killed_cut_goes_on_behind_what_was_finished(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_AFTER_ONE, str(tmp_path / "store")],
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    finished = {path.name: path.stat().st_ino for path in (tmp_path / "store").glob("*.clips")}
    assert len(finished) == 1
    clips = cut(recordings(3), tmp_path / "store")
    assert {name: (tmp_path / "store" / name).stat().st_ino for name in finished} == finished
    assert cut(recordings(3), tmp_path / "again").of("0" * 64, *SPANS[0]).read() == clips.of("0" * 64, *SPANS[0]).read()


_KILLED_AFTER_ONE = """
import os, signal, sys
from pathlib import Path
from speech_mining.corpora.cutting import cut
from tests.test_export_cutting import recordings
cut(recordings(3), Path(sys.argv[1]), workers=1, progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_clip_beyond_the_end_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    path = recordings(1)[0].path
    beyond = Recording("deu/1, section 1", path, "ab", ((0, 16_000), (10**9, 10**9 + 5)))
    with pytest.raises(LakeError, match="1 clips of deu/1, section 1 lie beyond its end"):
        cut([beyond], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_recording_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"The audio of deu/1 is not there any more.*materialize its raw_audio"):
        cut([Recording("deu/1", tmp_path / "gone.mp3", "ab", ((0, 10),))], tmp_path / "store")


def test_what_is_too_loud_is_clipped_and_not_wrapped() -> None:
    packed = flac(np.array([0.0, 1.5, -1.5, 0.5], dtype=np.float32))
    assert samples_of(packed).tolist() == [0, 32_767, -32_768, 16_384]


def test_other_spans_are_cut_anew_and_the_old_ones_are_tidied_away(tmp_path: Path) -> None:
    first = recordings(1)
    cut(first, tmp_path)
    second = [Recording(first[0].name, first[0].path, first[0].sha256, SPANS[:1])]
    cut(second, tmp_path)
    tidy(second, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [second[0].file]


def test_clips_are_files_of_this_process_only_when_whole(tmp_path: Path) -> None:
    cut(recordings(1), tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".clips"]
    assert (tmp_path / recordings(1)[0].file).stat().st_mode & 0o777 == 0o644
