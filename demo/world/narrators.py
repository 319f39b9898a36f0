"""The four narrators of the miniature library, and the synthesiser that speaks for them.

espeak-ng runs inside this process, from the shared library and the data that the `espeakng_loader` wheel carries: no
system package is needed. What is said is not decided here, nor how speech is laid out in a recording.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from demo.world.lexicon import Language
from speech_mining.errors import SpeechMiningError

Samples: TypeAlias = npt.NDArray[np.float32]
WordEvent: TypeAlias = tuple[int, int, float]
"""Where a word stands in the text (first character, number of characters) and when it starts, in seconds."""

NATIVE_RATE_HZ = 22_050
SPEAK_RATE_HZ = 16_000
# The quietest phoneme onsets of these voices lie near 0.004; what espeak-ng calls silence is exactly 0.
AUDIBLE = 0.003

_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _CHARACTERS = 2, 1 << 15, 1, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_WORD = 1
_SEED = 1


class NarrationError(SpeechMiningError):
    """The synthesiser is absent, or refuses a voice."""


@dataclass(frozen=True)
class Narrator:
    """One reader: who LibriVox says they are, and how espeak-ng speaks as them.

    Args:
        name: as the catalogue shows it.
        reader_id: LibriVox's number for the reader.
        language: ISO 639-3.
        voice: espeak-ng voice, with a variant after a plus sign.
        speed_wpm: words a minute.
        pitch: 0 to 100, 50 is the voice's own.
        pitch_range: 0 to 100, 50 is the voice's own liveliness.
    """

    name: str
    reader_id: str
    language: Language
    voice: str
    speed_wpm: int
    pitch: int
    pitch_range: int


# One narrator a language, and no other: the shipped encoder is trained for these four.
NARRATORS: Mapping[Language, Narrator] = {
    "deu": Narrator("Hedwig Lautmann", "90101", "deu", "de+f2", 148, 52, 45),
    "eng": Narrator("Edgar Plainspoken", "90102", "eng", "en-us", 150, 42, 50),
    "fra": Narrator("Fernand Clairevoix", "90103", "fra", "fr+m3", 150, 36, 50),
    "spa": Narrator("Sara Vozalta", "90104", "spa", "es+f4", 152, 60, 45),
}


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_one_at_a_time = threading.Lock()


def synthesise(text: str, narrator: Narrator) -> tuple[Samples, list[WordEvent]]:
    """Say `text` at the synthesiser's own rate, from the first to the last audible sample.

    What stands between commas is said in one breath, with the melody of a comma; the narrator then pauses for 140 to
    300 ms (`pause_s`). espeak-ng's own pause at a comma is 60 ms in Spanish and German, which no listener calls one.

    Returns:
        float32 (n,) mono samples in [-1, 1) at 22 050 Hz, and the words in order of time.

    Raises:
        NarrationError: espeakng_loader is not installed, or the voice is unknown, or nothing was said.
    """
    pieces: list[Samples] = []
    events: list[WordEvent] = []
    position, length = 0, 0
    for index, breath in enumerate(text.split(",")):
        if index:
            pieces.append(np.zeros(round(pause_s(text, index) * NATIVE_RATE_HZ), dtype=np.float32))
            length += len(pieces[-1])
        said = breath + "," if position + len(breath) < len(text) else breath
        samples, words = _breath(said, narrator)
        events += [(position + first, count, length / NATIVE_RATE_HZ + at) for first, count, at in words]
        pieces.append(samples)
        length += len(samples)
        position += len(breath) + 1
    return np.concatenate(pieces), events


def pause_s(text: str, comma: int) -> float:
    """How long a narrator pauses at the `comma`-th comma of a text (from 1): 0.14 to 0.30 s, always the same."""
    digest = hashlib.blake2b(f"{comma}:{text}".encode(), digest_size=2).digest()
    return 0.14 + 0.16 * int.from_bytes(digest, "big") / 0xFFFF


def _breath(text: str, narrator: Narrator) -> tuple[Samples, list[WordEvent]]:
    with _one_at_a_time, _espeak() as library:
        _set_voice(library, narrator)
        blocks, events = _spoken(library, text)
    said = np.concatenate(blocks).astype(np.float32) / np.float32(32768) if blocks else np.zeros(0, dtype=np.float32)
    first, last = audible_span(said)
    if last == 0:
        raise NarrationError(f"Nothing was said for the text {text!r}.", expected="at least one word")
    lead_s = first / NATIVE_RATE_HZ
    return said[first:last], [(start, length, max(0.0, at - lead_s)) for start, length, at in _in_order(events)]


def speak(text: str, narrator: Narrator) -> tuple[Samples, list[WordEvent]]:
    """Say `text` as the encoder hears it: at 16 kHz, from the first to the last audible sample.

    The same text gives the same bytes, whatever was said before.

    Returns:
        float32 (n,) mono samples at 16 000 Hz; the words as (first character, characters, start in seconds).

    Raises:
        NarrationError: as `synthesise`.
    """
    import soxr

    native, events = synthesise(text, narrator)
    samples: Samples = soxr.resample(native, NATIVE_RATE_HZ, SPEAK_RATE_HZ, quality="HQ")
    return samples, events


def audible_span(samples: Samples) -> tuple[int, int]:
    """The first sample louder than `AUDIBLE`, and one past the last; (0, 0) where there is none."""
    loud = np.flatnonzero(np.abs(samples) > AUDIBLE)
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, 0)


@contextmanager
def _espeak() -> Iterator[ctypes.CDLL]:
    """A freshly loaded espeak-ng.

    Its waveform generator keeps its phase and its noise from one text to the next, through espeak_Terminate too, so
    the library is unloaded after every text: 6 ms each, and the samples no longer depend on what was said before.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise NarrationError(
            "The speech synthesiser espeakng_loader is not installed.",
            cause="it is only needed to make the miniature library or its encoder again",
            fix="pip install speech-mining[narration]",
        ) from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        data = str(espeakng_loader.get_data_path()).encode()
        rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT)
        if rate_hz != NATIVE_RATE_HZ:
            raise NarrationError(
                f"espeak-ng starts at {rate_hz} Hz.",
                expected=f"{NATIVE_RATE_HZ} Hz",
                cause="its data folder is missing or of another version",
                fix="pip install --force-reinstall espeakng-loader",
            )
        library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))  # the breath in voices such as f2, else seeded by the clock
        yield library
        library.espeak_Terminate()
    finally:
        _unload(library)


def _unload(library: ctypes.CDLL) -> None:
    close = ctypes.CDLL(None).dlclose
    close.argtypes = (ctypes.c_void_p,)
    close(library._handle)


def _set_voice(library: ctypes.CDLL, narrator: Narrator) -> None:
    if library.espeak_SetVoiceByName(narrator.voice.encode()) != 0:
        raise NarrationError(
            f"espeak-ng knows no voice {narrator.voice!r}.",
            expected="a voice such as de, en-us+f3 or es-419",
            fix="correct the narrator",
        )
    settings = {
        _RATE: narrator.speed_wpm,
        _VOLUME: 90,
        _PITCH: narrator.pitch,
        _RANGE: narrator.pitch_range,
    }
    for parameter, value in settings.items():
        library.espeak_SetParameter(parameter, value, 0)


def _spoken(library: ctypes.CDLL, text: str) -> tuple[list[npt.NDArray[np.int16]], list[WordEvent]]:
    blocks: list[npt.NDArray[np.int16]] = []
    events: list[WordEvent] = []
    callback = _Callback(_collector(blocks, events))
    library.espeak_SetSynthCallback(callback)
    said = text.encode()
    library.espeak_Synth(said, ctypes.c_size_t(len(said) + 1), 0, _CHARACTERS, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return blocks, events


def _collector(blocks: list[npt.NDArray[np.int16]], events: list[WordEvent]) -> Callable[[Any, int, Any], int]:
    def collect(samples: Any, count: int, told: Any) -> int:
        if samples and count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while told[index].type:
            event = told[index]
            if event.type == _WORD:
                events.append((event.text_position - 1, event.length, event.audio_position / 1000))
            index += 1
        return 0

    return collect


def _in_order(events: list[WordEvent]) -> list[WordEvent]:
    """Drop the pseudo-words that espeak-ng reports at clause ends: positions and times must rise."""
    kept: list[WordEvent] = []
    for event in events:
        if event[0] >= 0 and (not kept or (event[0] > kept[-1][0] and event[2] >= kept[-1][2])):
            kept.append(event)
    return kept
