"""Where somebody speaks: Silero's voice activity model, streamed, and speech runs from its probabilities.

What belongs here is samples -> probability of speech per 32 ms -> runs of speech, and the choice of a detector; the one
without a model is `energy_detector`. Where a run is *cut* belongs to `cut_points`, which spans become candidates to
`candidates`.

The model is the sequence ONNX file that the silero-vad wheel carries, run with its state handed from block to block:
memory stays flat. The wheel's Python is not imported, because it imports torch (4 s and 200 MB for each process); the
hysteresis below gives what its `get_speech_timestamps_from_probs` gives, and a test holds the two together.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from speech_mining.errors import SettingsError, SpeechMiningError
from speech_mining.records import SAMPLES_PER_MS

FRAME_SAMPLES = 512
"""Samples that one probability speaks for: 32 ms at 16 kHz."""

_CONTEXT_SAMPLES = 64
_STATE_SHAPE = (1, 1, 128)
_HYSTERESIS = 0.15
_MODEL_FILE = "silero_vad_16k_sequence.onnx"

Detector = Literal["silero", "energy"]


class SpeechDetector(Protocol):
    """Samples in, probabilities of speech out: one for each `FRAME_SAMPLES`, in order."""

    def __call__(self, block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Take in a block of whole frames (the last may be cut); float32, what is known of the frames so far."""
        ...

    def rest(self) -> npt.NDArray[np.float32]:
        """What was not known before the recording ended: float32."""
        ...


@dataclass(frozen=True)
class VoiceActivity:
    """How probabilities become runs of speech; Silero's own defaults, except that nothing is padded."""

    threshold: float = 0.5
    """A run begins at this probability and ends 0.15 below it."""
    min_silence_ms: int = 100
    """Shorter silences do not end a run."""
    min_speech_ms: int = 250
    """A run that is not longer than this is dropped."""
    pad_ms: int = 0
    """Speech is extended by this on either side, at most to the middle of a silence. Cut points already lie in the
    silence, so that 0 is right unless word edges turn out to be missing."""
    detector: Detector = "silero"
    """Where probabilities come from: Silero's model, or the level over a tracked noise floor (quicker, and deaf to the
    difference between a voice and any other sound)."""

    def __post_init__(self) -> None:
        if self.detector not in get_args(Detector):
            raise SettingsError(
                f"There is no speech detector {self.detector!r}.", expected=f"one of {', '.join(get_args(Detector))}"
            )
        if not 0 < self.threshold < 1:
            raise SettingsError(f"The speech threshold is {self.threshold}.", expected="a probability between 0 and 1")
        for name in ("min_silence_ms", "min_speech_ms", "pad_ms"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is {getattr(self, name)}.", expected="zero or more milliseconds")


class SileroStream:
    """The model with its state: feed it a recording block by block.

    One thread and a fixed summation order: the same samples give the same bytes, wherever the blocks are cut.
    """

    def __init__(self) -> None:
        self._session = _session()
        self.reset()

    def reset(self) -> None:
        """Forget everything: another recording begins."""
        self._hidden = np.zeros(_STATE_SHAPE, dtype=np.float32)
        self._cell = np.zeros(_STATE_SHAPE, dtype=np.float32)
        self._context = np.zeros(_CONTEXT_SAMPLES, dtype=np.float32)

    def __call__(self, block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Give the probability of speech of each frame.

        Args:
            block: float32 (samples,), 16 kHz. Every block but the last holds whole frames of `FRAME_SAMPLES`; the
                last is filled up with zeros.

        Returns:
            float32 (ceil(samples / 512),), in [0, 1].
        """
        count = -(-len(block) // FRAME_SAMPLES)
        if not count:
            return np.empty(0, dtype=np.float32)
        # Each row: the last 64 samples of the frame before, then the frame.
        framed = np.zeros((count, _CONTEXT_SAMPLES + FRAME_SAMPLES), dtype=np.float32)
        whole = len(block) // FRAME_SAMPLES
        framed[:whole, _CONTEXT_SAMPLES:] = block[: whole * FRAME_SAMPLES].reshape(whole, FRAME_SAMPLES)
        if whole < count:
            framed[whole, _CONTEXT_SAMPLES : _CONTEXT_SAMPLES + len(block) % FRAME_SAMPLES] = block[
                whole * FRAME_SAMPLES :
            ]
        framed[0, :_CONTEXT_SAMPLES] = self._context
        framed[1:, :_CONTEXT_SAMPLES] = framed[:-1, -_CONTEXT_SAMPLES:]
        self._context = framed[-1, -_CONTEXT_SAMPLES:].copy()
        inputs = {"input": framed, "h": self._hidden, "c": self._cell}
        probabilities, self._hidden, self._cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
        return np.asarray(probabilities, dtype=np.float32).reshape(-1)

    def rest(self) -> npt.NDArray[np.float32]:
        """Nothing: the model knows a frame as soon as it has heard it."""
        return np.empty(0, dtype=np.float32)


def open_detector(name: Detector) -> SpeechDetector:
    """A detector at the beginning of a recording."""
    from speech_mining.segmentation.energy_detector import EnergyStream

    return EnergyStream() if name == "energy" else SileroStream()


def speech_probabilities(
    blocks: Iterable[npt.NDArray[np.float32]], detector: Detector = "silero"
) -> npt.NDArray[np.float32]:
    """Probabilities of a whole recording: float32 (frames,); see `SileroStream` for what a block is."""
    stream = open_detector(detector)
    found = [stream(block) for block in blocks]
    return np.concatenate([*found, stream.rest()])


def speech_runs(
    probabilities: npt.NDArray[np.float32], samples: int, config: VoiceActivity
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Turn probabilities into runs of speech, as Silero's `get_speech_timestamps_from_probs` does.

    Args:
        probabilities: float32 (frames,), one for each `FRAME_SAMPLES` samples.
        samples: length of the recording.
        config: thresholds and shortest durations.

    Returns:
        starts and ends, int64 (runs,) each, in samples, end exclusive, increasing; runs do not overlap.
    """
    shortest = config.min_speech_ms * SAMPLES_PER_MS
    runs = [(start, end) for start, end in _triggered(probabilities, samples, config) if end - start > shortest]
    starts, ends = np.array(runs, dtype=np.int64).reshape(-1, 2).T
    return _padded(starts, ends, samples, config.pad_ms * SAMPLES_PER_MS)


def _triggered(
    probabilities: npt.NDArray[np.float32], samples: int, config: VoiceActivity
) -> Iterable[tuple[int, int]]:
    """Runs that begin at the threshold and end where enough silence below the lower threshold begins."""
    upper, lower = config.threshold, max(config.threshold - _HYSTERESIS, 0.01)
    min_silence = config.min_silence_ms * SAMPLES_PER_MS
    start = silence = -1
    for frame, probability in enumerate(probabilities.tolist()):  # 60 ms for five hours
        now = frame * FRAME_SAMPLES
        if probability >= upper:
            silence = -1
            start = now if start < 0 else start
        elif probability < lower and start >= 0:
            silence = now if silence < 0 else silence
            if now - silence >= min_silence:
                yield start, silence
                start = silence = -1
    if start >= 0:
        yield start, samples


def _padded(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], samples: int, pad: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if not pad or not len(starts):
        return starts, ends
    gaps = starts[1:] - ends[:-1]
    room = np.where(gaps < 2 * pad, gaps // 2, pad)
    before = np.concatenate(([min(pad, int(starts[0]))], room))
    after = np.concatenate((room, [min(pad, samples - int(ends[-1]))]))
    return starts - before, ends + after


def _model_path() -> Path:
    found = importlib.util.find_spec("silero_vad")  # does not import it
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "data" / _MODEL_FILE
        if path.is_file():
            return path
    raise SpeechMiningError(
        f"The voice activity model {_MODEL_FILE} is not installed.",
        cause="silero-vad is absent, or a release that does not carry it",
        fix="install silero-vad 6.2.3",
    )


@functools.cache  # 40 ms to load, as long as a minute of audio takes; the state is not in it
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(_model_path()), options, providers=["CPUExecutionProvider"])
