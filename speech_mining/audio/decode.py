"""Bytes to samples: any audio container, decoded packet by packet into mono float32 at one rate.

What belongs here is opening a local file safely, skipping and counting what is damaged, downmixing and resampling.
What is *in* the samples (speech, silence, level) belongs to `speech_mining.segmentation`; fetching files belongs to
`speech_mining.sources`.

Resampling is soxr HQ: an alias 144 dB down against libswresample's 62, at 7 300 times real time from 22.05 kHz on one
core, and its stream gives bit-identical samples however the input is cut into chunks.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from speech_mining.errors import AudioError
from speech_mining.records import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]

MAX_BAD_SHARE = 0.2
"""Above this share of undecodable packets, or of their bytes, a recording is damaged; below, they are skipped and
counted. Bytes count because the worse the damage, the fewer the packets: FFmpeg joins what it cannot read, so that a
hole of 60 kB in a minute of MP3 (12 % of its sound) is one bad packet of 2 012."""

# FFmpeg also demuxes playlists and concatenation scripts, which make it open other files or addresses. Only containers
# that hold their own samples are let in, whatever the file is called.
_CONTAINERS = "mp3,wav,w64,flac,ogg,mov,matroska,webm,aac,aiff,caf,au,amr,asf,ac3,wv,nistsphere"
_OPEN_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}

# A header that announces 1 Hz would blow a small file up sixteen thousand times.
_SOURCE_RATES_HZ = range(4_000, 768_001)
# Float formats can carry anything; no real recording comes near this, and squares of it still fit float32.
_LARGEST_SAMPLE = 1e6
_MAX_DEMUX_ERRORS = 100
_ROUNDING_S = 2.0
_PADDING_S = 0.25  # encoders pad both ends, and some headers count it

# Their headers, or their last page, tell the length exactly, and an MP3 whose first frame is a table of contents does.
# For all others FFmpeg divides bytes by a bit rate: 87 s for a minute of VBR.
_TELLING = frozenset({"wav", "w64", "flac", "ogg", "mov", "matroska", "aiff", "caf"})
_TABLES_OF_CONTENTS = (b"Xing", b"Info")

_IMPOSTORS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
    (b"<", "a web page or XML"),
    (b"{", "a JSON document"),
    (b"#EXTM3U", "a playlist"),
    (b"[playlist]", "a playlist"),
    (b"ffconcat", "a list of other files"),
)


@dataclass(frozen=True)
class Held:
    """A recording that lies in memory: bytes out of an archive or of a table's cell."""

    name: str
    """What errors call it."""
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class DecodeReport:
    """What decoding met."""

    samples: int
    """Samples that came out, at `sample_rate_hz`."""
    sample_rate_hz: int
    packets: int
    """Packets of the audio stream."""
    skipped_packets: int
    """Packets that could not be read or decoded; their audio is missing from the samples."""
    lost_s: float
    """Audio that is missing, in seconds: by the bytes of those packets (right to 1 % on blotted MP3s), or by what the
    header says, whichever is more."""
    bad_share: float
    """Share of undecodable packets, or of their bytes, whichever is more, 0..1."""
    container: str
    codec: str
    source_rate_hz: int
    """Of the first frame; 0 when nothing was decoded."""
    channels: int
    """Of the first frame."""
    format_changes: int
    """How often rate, channels or sample format changed on the way."""
    header_s: float | None
    """How long the file itself says it is; None where its container does not say, or only guesses."""
    replaced_samples: int
    """Source samples that were NaN, infinite or absurdly large, and became zero."""

    @property
    def duration_s(self) -> float:
        """Length of what came out, in seconds."""
        return self.samples / self.sample_rate_hz


@dataclass
class _Tally:
    """The figures of a report while they grow."""

    samples: int = 0
    packets: int = 0
    skipped: int = 0
    bytes_decoded: int = 0
    bytes_skipped: int = 0
    container: str = ""
    codec: str = ""
    source_rate_hz: int = 0
    channels: int = 0
    format_changes: int = 0
    replaced: int = 0
    bytes_done: int = 0
    header_s: float | None = None

    @property
    def bad_share(self) -> float:
        """See `DecodeReport`."""
        received = self.bytes_decoded + self.bytes_skipped
        return max(self.skipped / max(self.packets, 1), self.bytes_skipped / max(received, 1))

    def lost_s(self, rate_hz: int) -> float:
        """See `DecodeReport`."""
        decoded_s = self.samples / rate_hz
        by_bytes = decoded_s * self.bytes_skipped / self.bytes_decoded if self.bytes_decoded else 0.0
        by_header = (self.header_s or 0.0) - decoded_s
        return max(by_bytes, by_header if by_header > _PADDING_S else 0.0)


class Decoded:
    """A recording ready to be decoded, as often as its blocks are asked for; nothing is opened before."""

    def __init__(self, path: Path | Held, sample_rate_hz: int, max_bad_share: float) -> None:
        self._path = path
        self._sample_rate_hz = sample_rate_hz
        self._max_bad_share = max_bad_share
        self._tally = _Tally()

    @property
    def bytes_total(self) -> int:
        """Size of the file."""
        return _size(self._path)

    @property
    def bytes_done(self) -> int:
        """How far into the file the latest iteration has read, for a progress bar; never falls while it runs."""
        return self._tally.bytes_done

    @property
    def report(self) -> DecodeReport:
        """What the latest iteration met so far; complete once it is exhausted."""
        tally = self._tally
        return DecodeReport(
            samples=tally.samples,
            sample_rate_hz=self._sample_rate_hz,
            packets=tally.packets,
            skipped_packets=tally.skipped,
            lost_s=tally.lost_s(self._sample_rate_hz),
            bad_share=tally.bad_share,
            container=tally.container,
            codec=tally.codec,
            source_rate_hz=tally.source_rate_hz,
            channels=tally.channels,
            format_changes=tally.format_changes,
            header_s=tally.header_s,
            replaced_samples=tally.replaced,
        )

    def blocks(self, block_samples: int) -> Iterator[Waveform]:
        """Decode from the start, in blocks of equal length.

        Args:
            block_samples: samples a block, at the output rate; the last block may be shorter, none is empty.

        Yields:
            float32 (block_samples,), mono, nominally in [-1, 1].

        Raises:
            AudioError: see `decode`; whether too many packets were bad is known, and raised, at the end.
            ValueError: `block_samples` is not positive.
        """
        if block_samples < 1:
            raise ValueError(f"block_samples is {block_samples}; a block holds at least one sample.")
        self._tally = tally = _Tally()
        for block in _regroup(self._resampled(tally), block_samples):
            tally.samples += len(block)
            yield block
        _check_decoded(self._path, tally, self._max_bad_share)

    def _resampled(self, tally: _Tally) -> Iterator[Waveform]:
        with _opened(self._path) as (container, stream):
            tally.container = container.format.name
            tally.codec = stream.codec_context.name if stream.codec_context else "unknown"
            tally.header_s = _header_s(self._path, container, stream)
            yield from _resample(self._path, _frames(container, stream, tally), tally, self._sample_rate_hz)


def decode(path: Path | Held, *, sample_rate_hz: int = SAMPLE_RATE_HZ, max_bad_share: float = MAX_BAD_SHARE) -> Decoded:
    """Prepare to decode a file, or bytes that are held; blocks are decoded as they are asked for, at flat memory.

    Channels are averaged (a low-frequency effects channel is left out). A packet that cannot be decoded is skipped
    and counted; when the rate changes mid-file the old resampler is flushed and a new one starts.

    Args:
        path: a regular local file, never an address; or bytes that are held.
        sample_rate_hz: output rate.
        max_bad_share: share of undecodable packets or bytes, 0..1, above which the recording is damaged.

    Returns:
        what to iterate with `Decoded.blocks`, which raises `AudioError` with a reason of: "not_found"; "empty_file"
        (no bytes); "not_audio" (no audio container, or one that refers to other files); "no_audio" (no audio stream,
        or no samples in it); "damaged" (more than `max_bad_share` of it cannot be decoded, or an impossible sample
        rate).
    """
    return Decoded(path if isinstance(path, Held) else Path(path), sample_rate_hz, max_bad_share)


def decoded_blocks(
    path: Path | Held, block_samples: int, *, sample_rate_hz: int = SAMPLE_RATE_HZ, max_bad_share: float = MAX_BAD_SHARE
) -> Iterator[Waveform]:
    """Decode a file in blocks of `block_samples`; see `decode` and `Decoded.blocks`."""
    return decode(path, sample_rate_hz=sample_rate_hz, max_bad_share=max_bad_share).blocks(block_samples)


def read_waveform(
    path: Path | Held, *, sample_rate_hz: int = SAMPLE_RATE_HZ, max_bad_share: float = MAX_BAD_SHARE
) -> Waveform:
    """Decode a whole file: the very samples that `decoded_blocks` yields, joined.

    Returns:
        float32 (samples,), mono; 230 MB an hour at 16 kHz.

    Raises:
        AudioError: see `decode`.
    """
    waveform = np.empty(0, dtype=np.float32)
    filled = 0
    for block in decoded_blocks(path, 1 << 20, sample_rate_hz=sample_rate_hz, max_bad_share=max_bad_share):
        # resize() reallocates in place, where np.concatenate would hold everything twice.
        if filled + len(block) > len(waveform):
            waveform.resize(filled + len(block) + len(waveform) // 4, refcheck=False)
        waveform[filled : filled + len(block)] = block
        filled += len(block)
    waveform.resize(filled, refcheck=False)
    return waveform


def measure_s(path: Path | Held) -> float:
    """How long a recording lasts, in seconds, told by its packets: nothing is decoded but the first frame.

    A header that tells exactly is believed where the packets bear it out, since packets count the encoder's padding.
    Measured: 0.6 ms for an MP3 of 5 s without a table of contents, 6 to 10 ms for one of a minute that takes 60 to
    160 ms to decode.

    Raises:
        AudioError: as in `decode`, before anything but the first frame is known to be sound; and "damaged", where
            less is there than the header says.
    """
    tally = _Tally()
    with _opened(path) as (container, stream):
        tally.header_s = _header_s(path, container, stream)
        packets_s = _packets_s(container, stream, tally)
    if packets_s is None:
        return _decoded_s(path)
    if not packets_s:
        _check_decoded(path, tally, MAX_BAD_SHARE)
    if tally.header_s is None or packets_s - tally.header_s > _PADDING_S:
        return packets_s
    if tally.header_s - packets_s > max(_PADDING_S, 0.05 * tally.header_s):
        raise AudioError(
            f"{path} holds {packets_s:.1f} s of sound.",
            reason="damaged",
            expected=f"{tally.header_s:.1f} s, as its own header says",
            cause="the file was cut",
            fix="fetch it again",
        )
    return tally.header_s


def _packets_s(container: Any, stream: Any, tally: _Tally) -> float | None:
    """Seconds by the packets; 0 where no frame can be decoded, None where packets do not tell how long they last."""
    import av

    ticks, heard = 0, False
    for packet in _packets(container, stream, tally):
        if not heard:
            try:
                heard = bool(packet.decode())
            except av.error.FFmpegError:
                tally.skipped += 1
                continue
        if packet.size and not packet.duration:
            return None
        ticks += packet.duration or 0
    return float(ticks * stream.time_base) if heard else 0.0


def _decoded_s(path: Path | Held) -> float:
    decoded = decode(path)
    for _ in decoded.blocks(1 << 20):
        pass
    return decoded.report.duration_s


def check_duration(report: DecodeReport, announced_s: float | None, tolerance: float = 0.05) -> None:
    """Compare what was decoded with what the catalogue announced: a cut download decodes without an error.

    Args:
        report: of a finished decoding.
        announced_s: seconds; None, zero, negative or NaN: nothing was announced, and the file must only hold what its
            own header says, where that is known.
        tolerance: allowed difference as a share of `announced_s`; two seconds are always allowed, since catalogues
            round.

    Raises:
        AudioError: reason "duration_mismatch".
    """
    if announced_s is None or not announced_s > 0:
        _check_header(report, tolerance)
        return
    allowed_s = max(_ROUNDING_S, tolerance * announced_s)
    if abs(report.duration_s - announced_s) <= allowed_s:
        return
    shorter = report.duration_s < announced_s
    raise AudioError(
        f"The recording lasts {report.duration_s:.1f} s.",
        reason="duration_mismatch",
        expected=f"{announced_s:.1f} s as announced, give or take {allowed_s:.1f} s",
        cause="the download was cut" if shorter else "the catalogue describes another file",
        fix="fetch the recording again",
    )


def _check_header(report: DecodeReport, tolerance: float) -> None:
    """Longer than its header is a recording that others were joined to; only what is missing is a fault."""
    allowed_s = max(_ROUNDING_S, tolerance * (report.header_s or 0.0))
    if report.header_s is None or report.header_s - report.duration_s <= allowed_s:
        return
    raise AudioError(
        f"The recording lasts {report.duration_s:.1f} s.",
        reason="duration_mismatch",
        expected=f"{report.header_s:.1f} s as its own header says, give or take {allowed_s:.1f} s",
        cause="the file was cut or damaged",
        fix="fetch the recording again",
    )


def _silence_ffmpeg() -> None:
    import av

    # Every damaged packet would otherwise be a line on stderr; they are counted instead.
    av.logging.set_level(av.logging.PANIC)


def _stream(path: Path | Held) -> BinaryIO:
    return io.BytesIO(path.content) if isinstance(path, Held) else path.open("rb")


def _size(path: Path | Held) -> int:
    return len(path.content) if isinstance(path, Held) else path.stat().st_size


def _check_file(path: Path | Held) -> None:
    if isinstance(path, Path):
        _check_regular(path)
    with _stream(path) as file:
        head = file.read(64)
    if not head:
        raise AudioError(
            f"{path} is empty.", reason="empty_file", cause="its download never began", fix="fetch it again"
        )
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for signature, what in _IMPOSTORS:
        if text.startswith(signature):
            raise AudioError(
                f"{path} is {what}.",
                reason="not_audio",
                expected="audio",
                cause="the server sent something else under the recording's name",
                fix="look at the file, then fetch the recording again",
            )


def _check_regular(path: Path) -> None:
    if not path.exists():
        raise AudioError(f"There is no file {path}.", reason="not_found", fix="check the path")
    if not path.is_file():
        raise AudioError(f"{path} is not a regular file.", reason="not_audio", expected="an audio file")


@contextmanager
def _opened(path: Path | Held) -> Iterator[tuple[Any, Any]]:
    """Yield (container, its first audio stream), with every container that could lead elsewhere refused."""
    import av

    _check_file(path)
    _silence_ffmpeg()
    # "file:" keeps a path such as "concat:a|b" from being read as another protocol.
    source = _stream(path) if isinstance(path, Held) else f"file:{path.absolute()}"
    try:
        container = av.open(source, container_options=_OPEN_OPTIONS, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{path} cannot be opened as audio.",
            reason="not_audio",
            expected=f"one of {_CONTAINERS.replace(',', ', ')}",
            cause="it is something else under an audio file's name, or its beginning is missing",
            fix="look at the file, then fetch the recording again",
        ) from error
    with container:
        if not container.streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise AudioError(f"{path} holds {kinds}.", reason="no_audio", expected="an audio stream")
        yield container, container.streams.audio[0]


def _header_s(path: Path | Held, container: Any, stream: Any) -> float | None:
    formats = set(container.format.name.split(","))
    told = stream.duration is not None and stream.time_base is not None
    if told and (formats & _TELLING or ("mp3" in formats and _has_contents(path))):
        return float(stream.duration * stream.time_base)
    return None


def _has_contents(path: Path | Held) -> bool:
    """Whether an MP3's first frame says how many follow, and nothing was joined to it since.

    Behind a joined one FFmpeg guesses again. `Xing` and `Info` are followed by flags, frames and bytes, 4 each.
    """
    with _stream(path) as file:
        head = file.read(10)
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
        tag = size + 10 if head.startswith(b"ID3") else 0
        file.seek(tag)
        frame = file.read(512)
    place = max(frame.find(name) for name in _TABLES_OF_CONTENTS)
    has_both = place >= 0 and frame[place + 7 : place + 8] and frame[place + 7] & 3 == 3
    told = int.from_bytes(frame[place + 12 : place + 16], "big") if has_both else 0
    return told >= 0.99 * (_size(path) - tag)


def _packets(container: Any, stream: Any, tally: _Tally) -> Iterator[Any]:
    """Read on behind what cannot be read, up to a limit: a container may stop for good, again and again."""
    import av

    errors = 0
    while errors < _MAX_DEMUX_ERRORS:
        try:
            for packet in container.demux(stream):
                tally.packets += packet.size > 0  # the one that flushes the decoder is empty
                tally.bytes_done = max(tally.bytes_done, packet.pos or 0)
                yield packet
            return
        except av.error.FFmpegError:
            errors += 1
            tally.packets += 1
            tally.skipped += 1


def _frames(container: Any, stream: Any, tally: _Tally) -> Iterator[Any]:
    import av

    for packet in _packets(container, stream, tally):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            tally.skipped += 1
            tally.bytes_skipped += packet.size
            continue
        tally.bytes_decoded += packet.size
        yield from frames


def _resample(path: Path | Held, frames: Iterator[Any], tally: _Tally, rate_hz: int) -> Iterator[Waveform]:
    """Bring frames to one rate, about a second at a time: a call a frame would cost more than the resampling."""
    for source_rate_hz, chunks in _stretches(path, frames, tally):
        if source_rate_hz == rate_hz:
            yield from chunks
        else:
            yield from _resample_stretch(chunks, source_rate_hz, rate_hz)


def _resample_stretch(chunks: Iterator[Waveform], source_rate_hz: int, rate_hz: int) -> Iterator[Waveform]:
    import soxr

    resampler = soxr.ResampleStream(source_rate_hz, rate_hz, 1, dtype="float32", quality="HQ")
    for chunk in chunks:
        yield resampler.resample_chunk(chunk)
    yield resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def _stretches(path: Path | Held, frames: Iterator[Any], tally: _Tally) -> Iterator[tuple[int, Iterator[Waveform]]]:
    """Split frames where their rate changes: (source rate, mono chunks); each must be drained before the next."""
    frame = next(frames, None)
    known: tuple[int, str, str] | None = None

    def chunks(rate_hz: int) -> Iterator[Waveform]:
        nonlocal frame, known
        waiting: list[Waveform] = []
        count = 0
        while frame is not None and frame.sample_rate == rate_hz:
            known = _note_format(frame, known, tally)
            waiting.append(mono(frame))
            count += len(waiting[-1])
            if count >= rate_hz:
                yield _clean(np.concatenate(waiting), tally)
                waiting, count = [], 0
            frame = next(frames, None)
        if count:
            yield _clean(np.concatenate(waiting), tally)

    while frame is not None:
        if frame.sample_rate not in _SOURCE_RATES_HZ:
            raise AudioError(
                f"{path} says it has {frame.sample_rate} samples a second.",
                reason="damaged",
                expected=f"{_SOURCE_RATES_HZ.start} to {_SOURCE_RATES_HZ.stop - 1}",
                cause="its header is damaged",
                fix="fetch the recording again",
            )
        yield frame.sample_rate, chunks(frame.sample_rate)


def _note_format(frame: Any, known: tuple[int, str, str] | None, tally: _Tally) -> tuple[int, str, str]:
    seen = (frame.sample_rate, frame.layout.name, frame.format.name)
    if known is None:
        tally.source_rate_hz, tally.channels = frame.sample_rate, len(frame.layout.channels)
    elif seen != known:
        tally.format_changes += 1
    return seen


_FULL_SCALE = {"u8": 128.0, "s16": 32_768.0, "s32": 2_147_483_648.0, "s64": 9_223_372_036_854_775_808.0}


def mono(frame: Any) -> Waveform:
    """Average a frame's channels, the low-frequency one left out.

    FFmpeg's own downmix of float audio raises a centred voice by 3 dB, beyond full scale; a mean cannot.

    Args:
        frame: an `av.AudioFrame` of any sample format.

    Returns:
        float32 (frame.samples,).
    """
    kind = frame.format.name
    channels = frame.layout.channels
    if len(channels) == 1 and kind in ("flt", "fltp"):  # nearly every MP3: read without a copy
        return np.frombuffer(frame.planes[0], dtype=np.float32, count=frame.samples)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(channels)).T
    kept = [place for place, channel in enumerate(channels) if channel.name != "LFE"] or [0]
    mixed = samples[kept].mean(axis=0, dtype=np.float64 if samples.dtype.itemsize > 4 else np.float32)
    kind = kind.removesuffix("p")
    if kind == "u8":
        mixed = mixed - 128.0
    return np.asarray(mixed / _FULL_SCALE.get(kind, 1.0), dtype=np.float32)


def _clean(samples: Waveform, tally: _Tally) -> Waveform:
    """Zero what no recording holds: one NaN would silence the voice activity model for the rest of the file."""
    usable = np.abs(samples) <= _LARGEST_SAMPLE
    if usable.all():
        return samples
    tally.replaced += int(len(samples) - np.count_nonzero(usable))
    return np.where(usable, samples, np.float32(0))


def _regroup(chunks: Iterator[Waveform], size: int) -> Iterator[Waveform]:
    waiting: list[Waveform] = []
    count = 0
    for chunk in chunks:
        waiting.append(chunk)
        count += len(chunk)
        if count < size:
            continue
        joined = np.concatenate(waiting)
        whole = count - count % size
        yield from joined[:whole].reshape(-1, size)
        waiting, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)


def _check_decoded(path: Path | Held, tally: _Tally, max_bad_share: float) -> None:
    if tally.skipped and (not tally.samples or tally.bad_share > max_bad_share):
        raise AudioError(
            f"{tally.skipped} of the {tally.packets} packets of {path} cannot be decoded, "
            f"{tally.bad_share:.0%} of its content.",
            reason="damaged",
            expected=f"at most {max_bad_share:.0%}",
            cause="the file was damaged on its way, or is no audio at all",
            fix="fetch the recording again",
        )
    if not tally.samples:
        raise AudioError(
            f"{path} holds no samples.",
            reason="no_audio",
            expected="at least one",
            cause="its recording was stopped before it began",
            fix="fetch the recording again",
        )
