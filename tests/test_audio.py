from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speech_mining.audio import decode as decode_module
from speech_mining.audio.decode import (
    Decoded,
    DecodeReport,
    check_duration,
    decode,
    decoded_blocks,
    read_waveform,
)
from speech_mining.errors import AudioError
from tests import bad_audio

BLOCK = 16_000


def report_of(path: Path, **options: float) -> DecodeReport:
    decoded = decode(path, **options)  # type: ignore[arg-type]
    for _ in decoded.blocks(BLOCK):
        pass
    return decoded.report


def peak_hz(samples: np.ndarray, rate_hz: int = 16_000) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate_hz / len(samples))


def assert_refused(path: Path, reason: str, match: str) -> None:
    with pytest.raises(AudioError, match=match) as caught:
        read_waveform(path)
    assert caught.value.reason == reason


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of a tone under noise: a 22.05 kHz MP3 as archive.org makes them."""
    samples = bad_audio.tone(60, 22_050) + bad_audio.noise(60, 22_050, level=0.02)
    return bad_audio.write_audio(tmp_path_factory.mktemp("audio") / "minute.mp3", samples, 22_050)


def test_importing_loads_neither_ffmpeg_nor_the_resampler() -> None:
    code = "import sys, speech_mining.audio.decode; print({'av', 'soxr', 'torch', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count_becomes_mono_16_khz(tmp_path: Path, rate_hz: int, channels: int) -> None:
    samples = np.tile(bad_audio.tone(2, rate_hz), (channels, 1))
    path = bad_audio.write_wav(tmp_path / "tone.wav", samples, rate_hz)
    waveform = read_waveform(path)
    assert waveform.dtype == np.float32 and waveform.shape == (32_000,)
    assert peak_hz(waveform) == pytest.approx(440, abs=0.6)
    # away from the edges, where the resampler's filter meets nothing
    expected = bad_audio.tone(2, 16_000)
    assert np.abs(waveform - expected)[1000:-1000].max() < 2e-4
    report = report_of(path)
    assert (report.source_rate_hz, report.channels, report.codec) == (rate_hz, channels, "pcm_s16le")


@pytest.mark.parametrize(
    ("suffix", "codec", "sample_format"),
    [
        ("wav", "pcm_u8", "u8"),
        ("wav", "pcm_s16le", "s16"),
        ("wav", "pcm_s32le", "s32"),
        ("wav", "pcm_f32le", "flt"),
        ("wav", "pcm_f64le", "dbl"),
        ("flac", "flac", "s16"),
        ("m4a", "aac", "fltp"),
        ("ogg", "libopus", "flt"),
        ("mka", "flac", "s16"),
        ("mp3", "libmp3lame", "fltp"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_sample_format_keeps_the_level(
    tmp_path: Path, suffix: str, codec: str, sample_format: str, channels: int
) -> None:
    samples = np.tile(bad_audio.tone(2, 48_000, level=0.5), (channels, 1))
    path = bad_audio.write_audio(tmp_path / f"a.{suffix}", samples, 48_000, codec=codec, sample_format=sample_format)
    middle = read_waveform(path)[8_000:24_000]
    assert peak_hz(middle) == pytest.approx(440, abs=1.1)
    # LAME scales what it encodes to 95 %; a channel too many or too few would be 41 % off.
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.06)
    assert abs(middle.mean()) < 0.005


def test_the_low_frequency_channel_is_left_out_and_the_rest_averaged(tmp_path: Path) -> None:
    channels = np.zeros((6, 32_000), dtype=np.float32)
    channels[2] = 0.5  # front centre
    channels[3] = 0.9  # low-frequency effects
    waveform = read_waveform(bad_audio.write_float_wav(tmp_path / "six.wav", channels, 16_000))
    assert np.allclose(waveform, 0.1, atol=1e-6)


def test_what_lies_above_eight_kilohertz_does_not_fold_back(tmp_path: Path) -> None:
    path = bad_audio.write_float_wav(tmp_path / "high.wav", bad_audio.tone(2, 44_100, frequency_hz=10_000), 44_100)
    middle = read_waveform(path)[2_000:-2_000]
    assert 20 * np.log10(np.sqrt(np.mean(middle**2)) / (0.5 / np.sqrt(2))) < -120


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block=st.integers(1, 200_000).filter(lambda size: size > 500))
def test_blocks_joined_are_the_whole_waveform_whatever_their_length(minute: Path, block: int) -> None:
    whole = read_waveform(minute)
    blocks = list(decoded_blocks(minute, block))
    assert all(len(found) == block for found in blocks[:-1]) and 0 < len(blocks[-1]) <= block
    assert np.array_equal(np.concatenate(blocks), whole)


def test_a_block_holds_at_least_one_sample(minute: Path) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        next(decoded_blocks(minute, 0))


def test_decoding_again_starts_again(minute: Path) -> None:
    decoded = decode(minute)
    next(decoded.blocks(BLOCK))
    first = np.concatenate(list(decoded.blocks(BLOCK)))
    assert decoded.report.samples == len(first) == len(read_waveform(minute))


def test_bytes_done_rises_to_the_size_of_the_file(minute: Path) -> None:
    decoded = decode(minute)
    seen = [decoded.bytes_done for _ in decoded.blocks(BLOCK)]
    assert seen == sorted(seen) and seen[0] < seen[-1]
    assert 0.9 * decoded.bytes_total < seen[-1] <= decoded.bytes_total


def test_another_output_rate_gives_as_many_samples(minute: Path) -> None:
    assert len(read_waveform(minute, sample_rate_hz=8_000)) == pytest.approx(len(read_waveform(minute)) / 2, abs=1)


def test_a_vbr_file_without_a_header_is_decoded_whole(tmp_path: Path) -> None:
    # Half digital silence, half noise: the bit rate of the first frames says nothing about the rest.
    samples = np.concatenate([np.zeros(22_050 * 40, dtype=np.float32), bad_audio.noise(20, 22_050)])
    path = bad_audio.vbr_without_header(tmp_path / "vbr.mp3", samples, 22_050)
    assert not any(name in path.read_bytes()[:4096] for name in (b"Xing", b"Info", b"VBRI"))
    report = report_of(path)
    assert report.duration_s == pytest.approx(60, abs=0.2) and report.skipped_packets == 0


def test_a_change_of_rate_and_channels_mid_file_is_followed(tmp_path: Path) -> None:
    parts = [
        bad_audio.write_audio(tmp_path / "a.mp3", bad_audio.tone(5, 22_050, frequency_hz=400), 22_050),
        bad_audio.write_audio(
            tmp_path / "b.mp3", np.tile(bad_audio.tone(5, 44_100, frequency_hz=1_000), (2, 1)), 44_100
        ),
        bad_audio.write_audio(tmp_path / "c.mp3", bad_audio.tone(5, 48_000, frequency_hz=2_000), 48_000),
    ]
    path = bad_audio.joined(tmp_path / "joined.mp3", *parts)
    waveform = read_waveform(path)
    report = report_of(path)
    # FFmpeg may change the channels one packet before the rate.
    assert 2 <= report.format_changes <= 4 and report.source_rate_hz == 22_050
    assert len(waveform) / 16_000 == pytest.approx(15, abs=0.3)
    for start_s, frequency_hz in ((1, 400), (6, 1_000), (11, 2_000)):
        assert peak_hz(waveform[start_s * 16_000 : (start_s + 3) * 16_000]) == pytest.approx(frequency_hz, abs=2)
    # The old resampler is flushed: nothing of a part is lost but what its encoder marks as padding.
    assert abs(len(waveform) - sum(len(read_waveform(part)) for part in parts)) < 0.2 * 16_000


def test_a_truncated_recording_is_decoded_as_far_as_it_goes(minute: Path, tmp_path: Path) -> None:
    path = bad_audio.truncated(tmp_path / "cut.mp3", minute, 0.5)
    waveform, whole = read_waveform(path), read_waveform(minute)
    assert len(waveform) / 16_000 == pytest.approx(30, abs=0.3)
    assert np.array_equal(waveform[: 29 * 16_000], whole[: 29 * 16_000])


def test_a_truncated_recording_is_told_by_its_announced_length(minute: Path, tmp_path: Path) -> None:
    report = report_of(bad_audio.truncated(tmp_path / "cut.mp3", minute, 0.5))
    with pytest.raises(AudioError, match=r"lasts 30\.\d s.*60\.0 s as announced.*cut") as caught:
        check_duration(report, 60)
    assert caught.value.reason == "duration_mismatch"
    with pytest.raises(AudioError, match="another file"):
        check_duration(report, 20)


@pytest.mark.parametrize(
    ("suffix", "codec", "sample_format"),
    [("mp3", "libmp3lame", "fltp"), ("flac", "flac", "s16"), ("wav", "pcm_s16le", "s16"), ("ogg", "libopus", "flt")],
)
def test_a_file_that_holds_less_than_its_header_says_is_told_without_an_announcement(
    tmp_path: Path, suffix: str, codec: str, sample_format: str
) -> None:
    samples = bad_audio.noise(20, 48_000, level=0.05)
    whole = bad_audio.write_audio(tmp_path / f"a.{suffix}", samples, 48_000, codec=codec, sample_format=sample_format)
    report = report_of(whole)
    assert report.header_s == pytest.approx(20, abs=0.25) and report.lost_s == 0
    check_duration(report, None)
    if suffix in ("mp3", "flac"):  # the others tell by what is there
        cut = report_of(bad_audio.truncated(tmp_path / f"cut.{suffix}", whole, 0.5))
        assert cut.lost_s == pytest.approx(10, abs=1)
        with pytest.raises(AudioError, match=r"lasts \d+\.\d s.*20\.\d s as its own header says") as caught:
            check_duration(cut, None)
        assert caught.value.reason == "duration_mismatch"


def test_a_hole_in_an_ogg_is_told_by_its_last_page(tmp_path: Path) -> None:
    samples = bad_audio.noise(30, 48_000, level=0.05)
    whole = bad_audio.write_audio(tmp_path / "a.ogg", samples, 48_000, codec="libopus", sample_format="flt")
    report = report_of(bad_audio.flipped(tmp_path / "b.ogg", whole, 40))
    assert report.skipped_packets == 0 and report.lost_s > 2  # FFmpeg drops whole pages without a word
    with pytest.raises(AudioError, match="as its own header says"):
        check_duration(report, None)


def test_no_length_is_believed_that_is_only_a_guess(minute: Path, tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros(22_050 * 20, dtype=np.float32), bad_audio.noise(5, 22_050)])
    assert report_of(bad_audio.vbr_without_header(tmp_path / "vbr.mp3", samples, 22_050)).header_s is None
    joined = report_of(bad_audio.joined(tmp_path / "joined.mp3", minute, minute))
    assert joined.header_s is None and joined.duration_s > 119
    check_duration(joined, None)


@pytest.mark.parametrize("announced_s", [60, 58.5, 61.9, None, 0, -1, float("nan")])
def test_a_small_difference_or_no_announcement_is_accepted(minute: Path, announced_s: float | None) -> None:
    check_duration(report_of(minute), announced_s)


def test_the_tolerance_is_a_share_of_what_was_announced(minute: Path) -> None:
    report = report_of(minute)
    check_duration(report, 75, tolerance=0.21)
    with pytest.raises(AudioError, match="give or take"):
        check_duration(report, 75, tolerance=0.19)


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits_lose_little_and_never_crash(minute: Path, tmp_path: Path, seed: int) -> None:
    report = report_of(bad_audio.flipped(tmp_path / "flipped.mp3", minute, 60, seed=seed), max_bad_share=0.5)
    assert report.duration_s == pytest.approx(60, abs=6)


def test_a_few_bad_packets_are_skipped_and_counted(minute: Path, tmp_path: Path) -> None:
    path = bad_audio.blotted(tmp_path / "blotted.mp3", minute, 0.05, stretch=1024)
    report = report_of(path)
    assert 0 < report.skipped_packets < 0.2 * report.packets
    assert 50 < report.duration_s < 60.2
    assert np.isfinite(read_waveform(path)).all()


def test_too_many_bad_packets_are_damage_and_the_share_is_the_callers(minute: Path, tmp_path: Path) -> None:
    path = bad_audio.blotted(tmp_path / "blotted.mp3", minute, 0.05, stretch=1024)
    report = report_of(path)
    share = report.bad_share
    assert share > report.skipped_packets / report.packets  # FFmpeg joins what it cannot read into few large packets
    assert report_of(path, max_bad_share=share * 1.01).skipped_packets == report.skipped_packets
    with pytest.raises(AudioError, match=f"{report.skipped_packets} of the {report.packets} packets") as caught:
        report_of(path, max_bad_share=share * 0.99)
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize("stretch", [256, 1024, 4096, 16_384])
def test_the_sound_that_damage_cost_is_told_in_seconds(minute: Path, tmp_path: Path, stretch: int) -> None:
    path = bad_audio.blotted(tmp_path / "blotted.mp3", minute, 0.15, stretch=stretch)
    report = report_of(path, max_bad_share=1.0)
    assert report.lost_s > 4 and report.duration_s + report.lost_s == pytest.approx(60, abs=0.5)


def test_one_large_hole_is_not_hidden_in_one_bad_packet(minute: Path, tmp_path: Path) -> None:
    content = bytearray(minute.read_bytes())
    content[100_000:240_000] = bytes(140_000)  # 29 % of the file
    path = tmp_path / "hole.mp3"
    path.write_bytes(content)
    assert report_of(path, max_bad_share=0.5).skipped_packets < 5
    assert_refused(path, "damaged", "29% of its content")


def test_a_sound_recording_lost_nothing(minute: Path) -> None:
    report = report_of(minute)
    assert (report.skipped_packets, report.lost_s, report.bad_share) == (0, 0.0, 0.0)


def test_damage_prints_nothing(minute: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    read_waveform(bad_audio.blotted(tmp_path / "blotted.mp3", minute, 0.05, stretch=1024))
    assert capfd.readouterr() == ("", "")


def test_random_bytes_are_damaged(tmp_path: Path) -> None:
    assert_refused(bad_audio.random_bytes(tmp_path / "random.mp3"), "damaged", "cannot be decoded")


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    assert_refused(bad_audio.empty(tmp_path / "empty.mp3"), "empty_file", "is empty")


def test_a_web_page_is_told(tmp_path: Path) -> None:
    assert_refused(bad_audio.web_page(tmp_path / "page.mp3"), "not_audio", "web page")


def test_a_zip_archive_is_told_even_with_recordings_inside(minute: Path, tmp_path: Path) -> None:
    assert_refused(bad_audio.zip_archive(tmp_path / "text.mp3"), "not_audio", "zip archive")
    assert_refused(bad_audio.zip_archive(tmp_path / "book.mp3", minute), "not_audio", "zip archive")


def test_text_is_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "text.mp3"
    path.write_text("Call me Ishmael. " * 1000)
    assert_refused(path, "not_audio", "cannot be opened as audio")


def test_a_recording_of_length_zero_has_no_audio(tmp_path: Path) -> None:
    path = bad_audio.write_wav(tmp_path / "second.wav", bad_audio.tone(1, 16_000), 16_000)
    head = path.read_bytes()
    start = head.index(b"data") + 4
    path.write_bytes(head[:start] + bytes(4))
    assert_refused(path, "no_audio", "no samples")


def test_a_film_without_sound_has_no_audio(tmp_path: Path) -> None:
    import av

    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert_refused(path, "no_audio", "holds video")


def test_a_missing_file_a_folder_and_a_pipe_are_told(tmp_path: Path) -> None:
    assert_refused(tmp_path / "absent.mp3", "not_found", "no file")
    assert_refused(tmp_path, "not_audio", "not a regular file")
    os.mkfifo(tmp_path / "pipe.mp3")
    assert_refused(tmp_path / "pipe.mp3", "not_audio", "not a regular file")


def test_an_impossible_sample_rate_is_damage(tmp_path: Path) -> None:
    path = bad_audio.write_wav(tmp_path / "slow.wav", bad_audio.tone(1, 16_000), 16_000)
    content = bytearray(path.read_bytes())
    content[24:28] = (1).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    assert_refused(path, "damaged", "1 samples a second")


def test_not_a_number_becomes_silence_and_is_counted(tmp_path: Path) -> None:
    samples = bad_audio.tone(2, 16_000)
    samples[1_000:1_010] = np.nan
    samples[2_000] = np.inf
    samples[3_000] = 1e30
    path = bad_audio.write_float_wav(tmp_path / "nan.wav", samples, 16_000)
    waveform = read_waveform(path)
    assert np.isfinite(waveform).all() and (waveform[1_000:1_010] == 0).all()
    assert np.array_equal(waveform[4_000:], samples[4_000:])
    assert report_of(path).replaced_samples == 12


def smuggled(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def playlists(folder: Path) -> list[Path]:
    """Text that makes FFmpeg, asked to open it, open `secret.wav` beside it."""
    bad_audio.write_wav(folder / "secret.wav", bad_audio.tone(3, 16_000), 16_000)
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.wav\n#EXT-X-ENDLIST\n"
    return [
        smuggled(folder, "list.mp3", "ffconcat version 1.0\nfile secret.wav\n"),
        smuggled(folder, "hls.mp3", hls),
        smuggled(folder, "hls.m3u8", hls),
    ]


def test_a_list_of_other_files_is_refused(tmp_path: Path) -> None:
    for path in playlists(tmp_path):
        assert_refused(path, "not_audio", "a playlist|a list of other files")


def test_a_list_of_other_files_is_refused_by_its_container_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "_IMPOSTORS", ())
    for path in playlists(tmp_path):
        assert_refused(path, "not_audio", "cannot be opened as audio")


def test_without_the_whitelist_the_other_file_would_have_been_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_module, "_IMPOSTORS", ())
    monkeypatch.setattr(decode_module, "_OPEN_OPTIONS", {})
    assert len(read_waveform(playlists(tmp_path)[0])) == 48_000


def test_a_path_is_never_read_as_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # FFmpeg reads "concat:a|b" and "http://…" as protocols; as a file's name they mean that file.
    monkeypatch.chdir(tmp_path)
    bad_audio.write_wav(tmp_path / "secret.wav", bad_audio.tone(3, 16_000), 16_000)
    assert_refused(Path("concat:secret.wav|secret.wav"), "not_found", "no file")
    assert_refused(Path("http://localhost/secret.wav"), "not_found", "no file")
    named = tmp_path / "concat:secret.wav|x.wav"
    bad_audio.write_wav(tmp_path / "x.wav", bad_audio.tone(1, 16_000), 16_000).rename(named)
    assert len(read_waveform(Path("concat:secret.wav|x.wav"))) == 16_000


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.sampled_from([b"", b"ID3\x04", b"RIFF\x10\x00\x00\x00WAVEfmt ", b"OggS", b"fLaC", b"\xff\xfb\x90"]),
       tail=st.binary(max_size=3000))  # fmt: skip
def test_whatever_the_bytes_the_answer_is_samples_or_a_reason(tmp_path: Path, head: bytes, tail: bytes) -> None:
    path = tmp_path / "any.mp3"
    path.write_bytes(head + tail)
    try:
        waveform = read_waveform(path)
    except AudioError as error:
        assert error.reason in {"empty_file", "not_audio", "no_audio", "damaged"}
    else:
        assert len(waveform) and np.isfinite(waveform).all()


def test_a_container_that_stops_for_good_does_not_loop(minute: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    class Stuck:
        def demux(self, stream: object) -> object:
            raise av.error.InvalidDataError(1, "stuck")

    tally = decode_module._Tally()
    assert list(itertools.islice(decode_module._packets(Stuck(), None, tally), 1000)) == []
    assert tally.skipped == tally.packets == 100


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_stays_flat(minute: Path, tmp_path: Path) -> None:
    hour = bad_audio.joined(tmp_path / "hour.mp3", *([minute] * 60))
    code = (
        "import sys; from pathlib import Path; from speech_mining.audio.decode import decoded_blocks\n"
        "for path in map(Path, sys.argv[1:]):\n"
        "    total = sum(len(block) for block in decoded_blocks(path, 16000))\n"
        "    print(total, Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, minute, hour], capture_output=True, text=True, check=True)
    _, before_kib, samples, after_kib = map(int, done.stdout.split())
    assert samples == pytest.approx(3600 * 16_000, rel=0.01)
    assert after_kib - before_kib < 8_000  # the hour itself is 230 MB


def test_a_decoded_recording_opens_nothing_until_asked(tmp_path: Path) -> None:
    assert isinstance(decode(tmp_path / "absent.mp3"), Decoded)
