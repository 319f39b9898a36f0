"""Makers of recordings for tests: good ones in many shapes, and every kind of bad one. All are deterministic."""

from __future__ import annotations

import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def tone(seconds: float, rate_hz: int, *, frequency_hz: float = 440.0, level: float = 0.5) -> npt.NDArray[np.float32]:
    """A sine: float32 (samples,)."""
    moments = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * frequency_hz * moments)).astype(np.float32)


def noise(seconds: float, rate_hz: int, *, seed: int = 0, level: float = 0.1) -> npt.NDArray[np.float32]:
    """White noise: float32 (samples,)."""
    drawn = np.random.default_rng(seed).standard_normal(round(seconds * rate_hz))
    return (level * drawn).astype(np.float32)


def write_audio(
    path: Path,
    samples: npt.NDArray[np.float32],
    rate_hz: int,
    *,
    codec: str = "libmp3lame",
    sample_format: str = "fltp",
    options: dict[str, str] | None = None,
) -> Path:
    """Encode float32 (samples,) or (channels, samples); the suffix of `path` chooses the container."""
    import av

    channels = np.atleast_2d(samples)
    layout = LAYOUTS[len(channels)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, options=options or {})
        stream.layout, stream.format = layout, sample_format
        if codec == "libmp3lame" and not options:
            stream.bit_rate = 64_000
        resampler = av.AudioResampler(sample_format, layout, rate_hz, frame_size=stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
    return path


def write_wav(path: Path, samples: npt.NDArray[np.float32], rate_hz: int) -> Path:
    """16 bit PCM."""
    return write_audio(path, samples, rate_hz, codec="pcm_s16le", sample_format="s16")


def write_float_wav(path: Path, samples: npt.NDArray[np.float32], rate_hz: int) -> Path:
    """Float PCM, which can carry NaN and more than full scale."""
    return write_audio(path, samples, rate_hz, codec="pcm_f32le", sample_format="flt")


def vbr_without_header(path: Path, samples: npt.NDArray[np.float32], rate_hz: int) -> Path:
    """A VBR MP3 whose length no header tells, as many old archives have them."""
    return write_audio(path, samples, rate_hz, options={"q": "6", "write_xing": "0", "id3v2_version": "0"})


def joined(path: Path, *parts: Path) -> Path:
    """Files one after the other, as careless editors make them: the format may change in the middle."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def truncated(path: Path, whole: Path, share: float) -> Path:
    """The first `share` of a file."""
    content = whole.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    return path


def flipped(path: Path, whole: Path, flips: int, *, seed: int = 0) -> Path:
    """A file with `flips` random bits turned over, its first kilobyte spared."""
    content = np.frombuffer(whole.read_bytes(), dtype=np.uint8).copy()
    rng = np.random.default_rng(seed)
    places = rng.integers(1024, len(content), flips)
    np.bitwise_xor.at(content, places, (1 << rng.integers(0, 8, flips)).astype(np.uint8))
    path.write_bytes(content.tobytes())
    return path


def blotted(path: Path, whole: Path, share: float, *, seed: int = 0, stretch: int = 4096) -> Path:
    """A file in which `share` of all stretches of bytes are random, its first kilobyte spared."""
    content = bytearray(whole.read_bytes())
    rng = np.random.default_rng(seed)
    for start in range(1024, len(content) - stretch, stretch):
        if rng.random() < share:
            content[start : start + stretch] = rng.bytes(stretch)
    path.write_bytes(bytes(content))
    return path


def empty(path: Path) -> Path:
    """No bytes at all."""
    path.write_bytes(b"")
    return path


def web_page(path: Path) -> Path:
    """What a server sends instead of a recording that is gone."""
    path.write_text("<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>\n" * 40)
    return path


def zip_archive(path: Path, *members: Path) -> Path:
    """A zip of recordings, stored, under a recording's name: FFmpeg finds MP3 frames inside, or nothing."""
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.write(member, member.name)
        archive.writestr("notes.txt", "read by a volunteer\n" * 200)
    return path


def random_bytes(path: Path, size: int = 200_000, *, seed: int = 0) -> Path:
    """Bytes that mean nothing."""
    path.write_bytes(np.random.default_rng(seed).bytes(size))
    return path
