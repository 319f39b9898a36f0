"""Recordings whose samples can be sought: their length, and a span of them, without decoding what comes before.

MuST-C and mTEDx are talks of 16 bit mono WAV or FLAC at 16 kHz, and training draws their spans at random. Of a talk of
20 minutes: decoding it takes 0.9 s, seeking a span of 5 s 0.15 ms in WAV and 2 ms in FLAC; counting its packets 170 ms,
reading the header of a WAV 0.05 ms.
"""

from __future__ import annotations

import wave
from pathlib import Path

from speech_mining.audio.decode import Waveform
from speech_mining.records import SAMPLE_RATE_HZ

_SUFFIXES = (".wav", ".flac")
_FORM = (SAMPLE_RATE_HZ, 1, "PCM_16")
_HEADER_BYTES = 44
"""The least that a WAV has before its samples."""


def samples_between(path: Path, start: int, end: int | None) -> Waveform | None:
    """The very samples that `audio.decode` has there.

    Args:
        path: the recording.
        start: first sample, at 16 kHz.
        end: the one after the last; None: to the recording's end.

    Returns:
        float32 (samples,), fewer where the recording ends before; None where samples cannot be sought.
    """
    if path.suffix.lower() not in _SUFFIXES:
        return None
    import soundfile as sf

    try:
        with sf.SoundFile(path) as sound:
            if (sound.samplerate, sound.channels, sound.subtype) != _FORM:
                return None
            sound.seek(min(start, sound.frames))
            heard: Waveform = sound.read(-1 if end is None else end - start, dtype="float32")
            return heard
    except sf.LibsndfileError:  # what is broken is told by the decoder that counts what it skips
        return None


def length_s(path: Path) -> float | None:
    """Seconds of a WAV by its header, where all that it announces is there; None for any other file."""
    if path.suffix.lower() != ".wav":
        return None
    try:
        with wave.open(str(path), "rb") as sound:
            samples, rate_hz = sound.getnframes(), sound.getframerate()
            needed = samples * sound.getnchannels() * sound.getsampwidth() + _HEADER_BYTES
        return samples / rate_hz if samples and rate_hz and path.stat().st_size >= needed else None
    except (OSError, EOFError, wave.Error):
        return None
