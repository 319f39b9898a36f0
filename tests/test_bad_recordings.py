"""Bad recordings, each through `segment_audiobook`: segments or a named rejection; never a crash, a hang, a flood of
memory, or sound that is lost without being told."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest

from resources.settings import LIBRARY
from speech_mining.audio.decode import read_waveform
from speech_mining.records import REJECTIONS, SEGMENTS, RejectionReason
from speech_mining.segmentation.audiobook import Recording, SegmentedAudiobook, segment_audiobook
from tests import bad_audio as bad

SECONDS = 30
RATE_HZ = 22_050
TOLERANCE_S = 2.0
"""What `check_duration` always allows; 5 % of 30 s is less."""
MOST_MEMORY_KIB = 150_000

KEPT = "kept"


@dataclass(frozen=True)
class Sound:
    """A sound recording to damage: 30 s of the miniature library."""

    folder: Path
    speech: npt.NDArray[np.float32]
    mp3: Path

    def encoded(self, suffix: str, codec: str, sample_format: str, rate_hz: int = RATE_HZ, channels: int = 1) -> Path:
        """The same speech in another container, nominally at another rate."""
        moments = np.linspace(0, len(self.speech) - 1, SECONDS * rate_hz)
        samples = np.interp(moments, np.arange(len(self.speech)), self.speech).astype(np.float32)
        path = self.folder / f"{codec}-{rate_hz}-{channels}.{suffix}"
        tiled = np.tile(samples, (channels, 1))
        return bad.write_audio(path, tiled, rate_hz, codec=codec, sample_format=sample_format)

    def wav(self, rate_hz: int = RATE_HZ, channels: int = 1) -> Path:
        return self.encoded("wav", "pcm_s16le", "s16", rate_hz, channels)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    folder = tmp_path_factory.mktemp("sound")
    recording = min(LIBRARY.rglob("*.mp3"))
    speech = read_waveform(recording, sample_rate_hz=RATE_HZ)[: SECONDS * RATE_HZ]
    return Sound(folder, speech, bad.write_audio(folder / "sound.mp3", speech, RATE_HZ))


def text_frame(number: int) -> bytes:
    """An ID3 frame of 31 bytes."""
    return b"TXXX\0\0\0\x15\0\0\0a%05d\0" % number + b"x" * 13


Maker = Callable[[Path, Sound], object]

# name of the file, how it is made, what may come of it
CASES: dict[str, tuple[str, Maker, str]] = {
    # cut
    "a tenth of it": ("a.mp3", lambda path, sound: bad.truncated(path, sound.mp3, 0.1), "duration_mismatch"),
    "half of it": ("a.mp3", lambda path, sound: bad.truncated(path, sound.mp3, 0.5), "duration_mismatch"),
    "nearly all of it": ("a.mp3", lambda path, sound: bad.truncated(path, sound.mp3, 0.98), KEPT),
    "its first hundred bytes": (
        "a.mp3", lambda path, sound: path.write_bytes(sound.mp3.read_bytes()[:100]), "not_audio|no_audio|damaged"),
    "without its beginning": ("a.mp3", lambda path, sound: bad.without_beginning(path, sound.mp3, 4_000), KEPT),
    "half a FLAC": (
        "a.flac", lambda path, sound: bad.truncated(path, sound.encoded("flac", "flac", "s16"), 0.5),
        "duration_mismatch"),
    "half an M4A": (
        "a.m4a", lambda path, sound: bad.truncated(path, sound.encoded("m4a", "aac", "fltp"), 0.5), "not_audio"),
    "half an Ogg": (
        "a.ogg", lambda path, sound: bad.truncated(path, sound.encoded("ogg", "libopus", "flt", 48_000), 0.5),
        "duration_mismatch"),
    "half a WAV": ("a.wav", lambda path, sound: bad.truncated(path, sound.wav(), 0.5), "duration_mismatch"),
    # spliced
    "twice the same": ("a.mp3", lambda path, sound: bad.joined(path, sound.mp3, sound.mp3), "duration_mismatch"),
    "a second at another rate, in stereo": (
        "a.mp3",
        lambda path, sound: bad.joined(
            path,
            sound.mp3,
            bad.write_audio(sound.folder / "b.mp3", np.tile(bad.tone(1, 48_000), (2, 1)), 48_000)),
        KEPT),
    "a web page behind it": (
        "a.mp3", lambda path, sound: bad.joined(path, sound.mp3, bad.web_page(sound.folder / "page")), KEPT),
    "a WAV behind it": ("a.mp3", lambda path, sound: bad.joined(path, sound.mp3, sound.wav()), "damaged"),
    # flipped, blotted, hollowed
    **{
        f"sixty bits flipped, seed {seed}": (
            "a.mp3", lambda path, sound, seed=seed: bad.flipped(path, sound.mp3, 60, seed=seed), KEPT)  # type: ignore[misc]
        for seed in range(4)
    },
    "five thousand bits flipped": ("a.mp3", lambda path, sound: bad.flipped(path, sound.mp3, 5_000), ""),
    "a bit in each kilobyte of a FLAC flipped": (
        "a.flac", lambda path, sound: bad.flipped(path, sound.encoded("flac", "flac", "s16"), 600), ""),
    "bits of an M4A flipped": (
        "a.m4a", lambda path, sound: bad.flipped(path, sound.encoded("m4a", "aac", "fltp"), 40), ""),
    "bits of an Ogg flipped": (
        "a.ogg", lambda path, sound: bad.flipped(path, sound.encoded("ogg", "libopus", "flt", 48_000), 40), ""),
    "a twentieth random": ("a.mp3", lambda path, sound: bad.blotted(path, sound.mp3, 0.05, stretch=512), ""),
    "half of it random": ("a.mp3", lambda path, sound: bad.blotted(path, sound.mp3, 0.5, stretch=512), "damaged"),
    "a small hole": ("a.mp3", lambda path, sound: bad.hollowed(path, sound.mp3, 0.5, 0.53), KEPT),
    "a hole beyond what was announced": (
        "a.mp3", lambda path, sound: bad.hollowed(path, sound.mp3, 0.5, 0.65), "duration_mismatch"),
    "a large hole": ("a.mp3", lambda path, sound: bad.hollowed(path, sound.mp3, 0.4, 0.9), "damaged"),
    # under another name
    "a WAV called MP3": ("a.mp3", lambda path, sound: bad.renamed(path, sound.wav()), KEPT),
    "an MP3 called WAV": ("a.wav", lambda path, sound: bad.renamed(path, sound.mp3), KEPT),
    "a FLAC called Ogg": (
        "a.ogg", lambda path, sound: bad.renamed(path, sound.encoded("flac", "flac", "s16")), KEPT),
    "an M4A called MP3": (
        "a.mp3", lambda path, sound: bad.renamed(path, sound.encoded("m4a", "aac", "fltp")), KEPT),
    "no name at all": ("noname", lambda path, sound: bad.renamed(path, sound.mp3), KEPT),
    # unusual, and good
    "8 bit": ("a.wav", lambda path, sound: bad.renamed(path, sound.encoded("wav", "pcm_u8", "u8")), KEPT),
    "8 kHz mu-law": (
        "a.wav", lambda path, sound: bad.renamed(path, sound.encoded("wav", "pcm_mulaw", "s16", 8_000)), KEPT),
    "192 kHz": ("a.wav", lambda path, sound: bad.renamed(path, sound.wav(192_000)), KEPT),
    "six channels": ("a.wav", lambda path, sound: bad.renamed(path, sound.wav(48_000, 6)), KEPT),
    "VBR without a header": (
        "a.mp3", lambda path, sound: bad.vbr_without_header(path, sound.speech, RATE_HZ), KEPT),
    "one sample is no number": (
        "a.wav",
        lambda path, sound: bad.write_float_wav(path, np.append(sound.speech, np.float32("nan")), RATE_HZ), KEPT),
    # tags
    "a cover of two megabytes": (
        "a.mp3",
        lambda path, sound: bad.tagged(path, sound.mp3, bad.id3_tag(2_000_028, bad.cover_art(2_000_000))), KEPT),
    "a tag that claims a quarter of a gigabyte": (
        "a.mp3", lambda path, sound: bad.tagged(path, sound.mp3, bad.id3_tag((1 << 28) - 1, bad.cover_art(1_000))),
        "not_audio|no_audio|damaged|duration_mismatch"),
    "a picture that claims four gigabytes": (
        "a.mp3",
        lambda path, sound: bad.tagged(
            path, sound.mp3, bad.id3_tag(1_028, bad.cover_art(1_000, claimed=(1 << 32) - 1))), KEPT),
    "a thousand tags": (
        "a.mp3", lambda path, sound: bad.tagged(path, sound.mp3, bad.id3_tag(1_028, bad.cover_art(1_000)) * 1_000), ""),
    "a tag of ten thousand frames": (
        "a.mp3",
        lambda path, sound: bad.tagged(
            path, sound.mp3, bad.id3_tag(10_000 * 31, *map(text_frame, range(10_000)))),
        KEPT),
    # headers that lie
    "four gigabytes of samples": (
        "a.wav", lambda path, sound: bad.patched(path, sound.wav(), (4, b"\xff" * 4), (74, b"\xff" * 4)), KEPT),
    "one sample a second": (
        "a.wav", lambda path, sound: bad.patched(path, sound.wav(), (24, (1).to_bytes(4, "little"))), "damaged"),
    "four billion samples a second": (
        "a.wav", lambda path, sound: bad.patched(path, sound.wav(), (24, b"\xff" * 4)), "not_audio|damaged|no_audio"),
    "no channels": (
        "a.wav", lambda path, sound: bad.patched(path, sound.wav(), (22, b"\0\0")), "not_audio|damaged|no_audio"),
    "sixty-five thousand channels": (
        "a.wav", lambda path, sound: bad.patched(path, sound.wav(), (22, b"\xff\xff")), "not_audio|damaged|no_audio"),
    "half the rate in its header": (
        "a.wav",
        lambda path, sound: bad.patched(path, sound.wav(), (24, (RATE_HZ // 2).to_bytes(4, "little"))),
        "duration_mismatch"),
    # nothing in it
    "no bytes": ("a.mp3", lambda path, sound: bad.empty(path), "empty_file"),
    "one byte": ("a.mp3", lambda path, sound: path.write_bytes(b"\xff"), "not_audio"),
    "no samples": (
        "a.wav", lambda path, sound: path.write_bytes(sound.wav().read_bytes()[:74] + bytes(4)), "no_audio"),
    "nothing but a tag": (
        "a.mp3", lambda path, sound: path.write_bytes(bad.id3_tag(1_028, bad.cover_art(1_000))), "not_audio|no_audio"),
    "thirty seconds of silence": (
        "a.mp3", lambda path, sound: bad.write_audio(path, np.zeros(SECONDS * RATE_HZ, np.float32), RATE_HZ),
        "no_speech"),
    "zeros": ("a.mp3", lambda path, sound: path.write_bytes(bytes(200_000)), "not_audio|no_audio|damaged"),
    # something else
    "a web page": ("a.mp3", lambda path, sound: bad.web_page(path), "not_audio"),
    "a zip": ("a.mp3", lambda path, sound: bad.zip_archive(path, sound.mp3), "not_audio"),
    "a gzip": ("a.mp3", lambda path, sound: path.write_bytes(gzip.compress(sound.mp3.read_bytes())), "not_audio"),
    "a PDF": ("a.mp3", lambda path, sound: path.write_bytes(b"%PDF-1.7\n" + bytes(3_000)), "not_audio"),
    "a playlist": ("a.mp3", lambda path, sound: path.write_text(f"#EXTM3U\n{sound.mp3}\n"), "not_audio"),
    "a PNG": ("a.mp3", lambda path, sound: bad.picture(path), "not_audio|no_audio"),
    "a film without sound": ("a.mp4", lambda path, sound: bad.film(path), "no_audio"),
    "random bytes": ("a.mp3", lambda path, sound: bad.random_bytes(path), "not_audio|damaged"),
    # no file
    "no file": ("a.mp3", lambda path, sound: None, "not_found"),
    "a folder": ("a.mp3", lambda path, sound: path.mkdir(), "not_audio"),
    "a link to nowhere": ("a.mp3", lambda path, sound: path.symlink_to(path.with_name("b.mp3")), "not_found"),
    "a pipe": ("a.mp3", lambda path, sound: os.mkfifo(path), "not_audio"),
}  # fmt: skip


def peak_kib() -> int:
    """The most memory this process has held since `forget_peak`."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def forget_peak() -> int:
    """Start counting the peak again from what is held now, where the kernel allows."""
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_kib()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES)
def test_a_bad_recording_gives_segments_or_a_named_rejection(sound: Sound, tmp_path: Path, case: str) -> None:
    name, maker, expected = CASES[case]
    maker(tmp_path / name, sound)
    before = forget_peak() if Path("/proc/self/status").exists() else None
    found = segment_audiobook("1", [Recording(1, tmp_path / name, SECONDS)])
    if before is not None:
        assert peak_kib() - before < MOST_MEMORY_KIB
    assert dict(found.segments.schema) == dict(SEGMENTS) and dict(found.rejections.schema) == dict(REJECTIONS)
    if found.rejections.is_empty():
        assert_nothing_is_lost_unseen(found)
        assert expected in (KEPT, "")
    else:
        assert found.segments.is_empty()
        assert_named(found, expected)


def assert_nothing_is_lost_unseen(found: SegmentedAudiobook) -> None:
    """All 30 seconds are there, or are told as lost; and the speech in them lies in segments."""
    section = found.sections.row(0, named=True)
    assert section["candidates"] == found.segments.height > 5
    assert abs(section["duration_s"] - SECONDS) <= TOLERANCE_S
    assert section["duration_s"] + section["lost_s"] >= SECONDS - 0.75
    assert section["coverage"] > 0.9 and section["profile"] == "speech"


def assert_named(found: SegmentedAudiobook, expected: str) -> None:
    """One rejection of the whole recording, with a reason of the list and a sentence."""
    (rejection,) = found.rejections.to_dicts()
    assert rejection["reason"] in get_args(RejectionReason)
    assert expected == "" or rejection["reason"] in expected.split("|"), rejection
    assert len(rejection["detail"]) > 15 and rejection["start_sample"] is None
    if rejection["reason"] == "duration_mismatch":
        section = found.sections.row(0, named=True)
        assert section["rejected"] and section["candidates"] == 0 and section["announced_s"] == SECONDS
        assert f"{section['duration_s']:.1f} s" in rejection["detail"] and f"{SECONDS}.0 s" in rejection["detail"]


def test_a_bad_recording_costs_the_others_nothing(sound: Sound, tmp_path: Path) -> None:
    bad.random_bytes(tmp_path / "2.mp3")
    recordings = [
        Recording(1, sound.mp3, SECONDS),
        Recording(2, tmp_path / "2.mp3", SECONDS),
        Recording(3, sound.mp3, SECONDS),
    ]
    found = segment_audiobook("1", recordings)
    alone = segment_audiobook("1", recordings[:1])
    assert found.rejections["section"].to_list() == [2]
    assert found.segments["section"].unique().sort().to_list() == [1, 3]
    assert found.segments.filter(section=1).equals(alone.segments)


def test_the_lengths_that_are_patched_are_lengths(sound: Sound) -> None:
    head = sound.wav().read_bytes()[:80]
    assert head[70:74] == b"data" and head[12:16] == b"fmt "  # so 22 is channels, 24 the rate, 74 the bytes of sound


def test_there_are_forty_bad_recordings_and_more() -> None:
    assert len(CASES) >= 40
