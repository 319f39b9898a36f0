"""A segment as a sound file of its own: cut to the sample from its recording, as WAV or as a small MP3.

What belongs here is cutting and packing. Who may ask for which segment is in `server`.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from speech_mining.audio.decode import Waveform, decoded_blocks
from speech_mining.errors import AudioError, LakeError
from speech_mining.lake import Lake
from speech_mining.records import RECORDINGS, SAMPLE_RATE_HZ

BLOCK_SAMPLES = 30 * SAMPLE_RATE_HZ
CACHE_BYTES = 64 * 2**20
"""About 200 clips of ten seconds: what a judge hears in an hour."""
MP3_BITS_PER_S = 32_000


@dataclass(frozen=True, order=True)
class Span:
    """A place in a recording."""

    language: str
    audiobook: str
    section: int
    start_sample: int
    """At 16 kHz."""
    end_sample: int
    """Exclusive."""

    @property
    def recording(self) -> tuple[str, str, int]:
        """Language, audiobook and section."""
        return self.language, self.audiobook, self.section


def spans_of(frame: pl.DataFrame, side: str) -> dict[str, Span]:
    """Id of each segment of a side of a corpus → where it lies."""
    names = ("segment", "language", "audiobook", "section", "start_sample", "end_sample")
    rows = frame.select(f"{side}_{name}" for name in names).unique()
    return {str(segment): Span(*place) for segment, *place in rows.iter_rows()}


def cut(lake: Lake, spans: Iterable[Span]) -> dict[Span, Waveform | LakeError | AudioError]:
    """Decode each recording once, as far as its last span, and take the spans out of it.

    Returns:
        float32 (end - start,) at 16 kHz of each span; or why it cannot be heard: the recording is gone from the lake,
        damaged, or ends before the span does.
    """
    by_recording: dict[tuple[str, str, int], list[Span]] = {}
    for span in sorted(set(spans)):
        by_recording.setdefault(span.recording, []).append(span)
    found: dict[Span, Waveform | LakeError | AudioError] = {}
    for wanted in by_recording.values():
        found |= _cut_recording(lake, wanted)
    return found


def _cut_recording(lake: Lake, wanted: list[Span]) -> dict[Span, Waveform | LakeError | AudioError]:
    last = max(span.end_sample for span in wanted)
    try:
        waveform = _decoded_until(lake, wanted[0], last)
    except (LakeError, AudioError) as problem:
        return dict.fromkeys(wanted, problem)
    return {span: _slice(waveform, span) for span in wanted}


def _decoded_until(lake: Lake, span: Span, last: int) -> Waveform:
    book = lake.partition("raw_audio", span.language, span.audiobook)
    listed = book.read_table("recordings.parquet", RECORDINGS).filter(pl.col("section") == span.section)
    if listed.is_empty():
        raise LakeError(
            f"Section {span.section} of audiobook {span.audiobook} is not in the lake any more.",
            cause="the book was fetched again without it",
            fix=f"mine {span.language} again",
        )
    blocks, filled = [], 0
    for block in decoded_blocks(book.local_path(listed["file"][0]), BLOCK_SAMPLES):
        blocks.append(block)
        filled += len(block)
        if filled >= last:
            break
    return np.concatenate(blocks)


def _slice(waveform: Waveform, span: Span) -> Waveform | AudioError:
    if span.end_sample <= len(waveform):
        return waveform[span.start_sample : span.end_sample]
    return AudioError(
        f"The recording lasts {len(waveform) / SAMPLE_RATE_HZ:.1f} s.",
        reason="out_of_range",
        expected=f"a span that ends at {span.end_sample / SAMPLE_RATE_HZ:.1f} s to be in it",
        cause="the recording was fetched again and is shorter",
        fix=f"mine {span.language} again",
    )


def as_wav(waveform: Waveform) -> bytes:
    """16-bit mono WAV: what any browser plays, seeks and holds to the sample.

    Args:
        waveform: float32 (n,), 16 kHz; beyond full scale it is clipped.
    """
    import soundfile

    packed = io.BytesIO()
    soundfile.write(packed, np.clip(waveform, -1, 1), SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return packed.getvalue()


def peaks_of(wav: bytes, places: int = 120) -> list[float]:
    """The outline of a WAV: the loudest sample of each of so many stretches, as a share of the loudest of all."""
    import soundfile

    samples, _ = soundfile.read(io.BytesIO(wav), dtype="float32")
    loudest = [float(np.abs(stretch).max(initial=0)) for stretch in np.array_split(samples, places)]
    most = max(loudest) or 1.0
    return [round(peak / most, 3) for peak in loudest]


def as_mp3(waveform: Waveform) -> bytes:
    """Mono MP3 at 32 kbit/s, 4 kB a second, the same bytes for the same samples and the same LAME.

    Args:
        waveform: float32 (n,), 16 kHz.
    """
    import av

    packed = io.BytesIO()
    # no tags and no table of contents: they would carry the writer's version
    options = {"id3v2_version": "0", "write_xing": "0"}
    with av.open(packed, "w", format="mp3", options=options) as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE_HZ, layout="mono")
        stream.bit_rate = MP3_BITS_PER_S
        samples = (np.clip(waveform, -1, 1) * 32767).astype(np.int16)[None, :]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        resampler = av.AudioResampler(format="s16p", layout="mono", rate=SAMPLE_RATE_HZ)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return packed.getvalue()


@dataclass
class Clips:
    """WAV files of the segments that may be heard, by id; those heard last are kept."""

    lake: Lake
    spans: Mapping[str, Span]
    cache_bytes: int = CACHE_BYTES
    pack: Callable[[Waveform], bytes] = as_wav
    _kept: OrderedDict[str, bytes] = field(default_factory=OrderedDict, repr=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def wav(self, segment: str) -> bytes:
        """A segment.

        Raises:
            KeyError: no segment of that id may be heard.
            LakeError: its recording is gone.
            AudioError: its recording cannot be decoded, or is too short.
        """
        span = self.spans[segment]
        with self._turn:  # one decoder at a time: two of the same recording would cost twice
            if segment not in self._kept:
                self._keep(segment, self._cut(span))
            self._kept.move_to_end(segment)
            return self._kept[segment]

    def _cut(self, span: Span) -> bytes:
        found = cut(self.lake, [span])[span]
        if isinstance(found, LakeError | AudioError):
            raise found
        return self.pack(found)

    def _keep(self, segment: str, content: bytes) -> None:
        self._kept[segment] = content
        while len(self._kept) > 1 and sum(map(len, self._kept.values())) > self.cache_bytes:
            self._kept.popitem(last=False)
