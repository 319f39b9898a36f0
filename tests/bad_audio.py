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
    """A mono VBR MP3 whose length no header tells, as many old archives have them."""
    import av

    with av.open(str(path), "w", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=rate_hz)
        stream.layout, stream.format = "mono", "fltp"
        stream.codec_context.qscale = True
        stream.codec_context.global_quality = 6 * 118  # quality 6, in FFmpeg's units
        resampler = av.AudioResampler("fltp", "mono", rate_hz, frame_size=1152)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
    return path


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


def hollowed(path: Path, whole: Path, start: float, end: float) -> Path:
    """A file whose bytes between two shares of it are zero, as a disk that lost a block gives it back."""
    content = bytearray(whole.read_bytes())
    first, last = round(len(content) * start), round(len(content) * end)
    content[first:last] = bytes(last - first)
    path.write_bytes(content)
    return path


def without_beginning(path: Path, whole: Path, missing: int) -> Path:
    """A file whose first bytes are missing."""
    path.write_bytes(whole.read_bytes()[missing:])
    return path


def renamed(path: Path, whole: Path) -> Path:
    """A file under another name."""
    path.write_bytes(whole.read_bytes())
    return path


def id3_tag(announced: int, *frames: bytes) -> bytes:
    """An ID3v2.3 tag that claims to be `announced` bytes long, whatever it holds."""
    sizes = bytes(announced >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + sizes + b"".join(frames)


def cover_art(size: int, *, claimed: int | None = None, seed: int = 0) -> bytes:
    """An APIC frame with a picture of `size` bytes, which says it has `claimed`."""
    body = b"\x00image/jpeg\x00\x03\x00" + b"\xff\xd8\xff\xe0" + np.random.default_rng(seed).bytes(size)
    return b"APIC" + (claimed or len(body)).to_bytes(4, "big") + b"\x00\x00" + body


def tagged(path: Path, whole: Path, *tags: bytes) -> Path:
    """Tags before a recording that has none of its own."""
    content = whole.read_bytes()
    audio = content[content.index(b"\xff\xfb") if b"\xff\xfb" in content[:4096] else content.index(b"\xff\xf3") :]
    path.write_bytes(b"".join(tags) + audio)
    return path


def patched(path: Path, whole: Path, *changes: tuple[int, bytes]) -> Path:
    """A file with some bytes exchanged: (where, what); a negative place counts from the end."""
    content = bytearray(whole.read_bytes())
    for place, what in changes:
        place %= len(content)
        content[place : place + len(what)] = what
    path.write_bytes(content)
    return path


def picture(path: Path) -> Path:
    """A small PNG."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" + bytes(8) * 8)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def film(path: Path) -> Path:
    """Pictures without sound."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(25):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path
