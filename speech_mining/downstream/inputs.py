"""From the sound of a clip to what a network reads: log-mel frames, stacked; and batches of them.

The features are `encoders.features`, what a frozen student makes of them, or those of a `transformers` folder. They are
kept as float16 while memory allows: a pass over 3 400 clips computes them in 8 s, reads them in none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.audio.decode import Waveform
from speech_mining.downstream.configuration import LearningConfig
from speech_mining.downstream.examples import Side, sound_of
from speech_mining.encoders.features import BANDS, HOP, log_mel
from speech_mining.encoders.student import REACH, SHIPPED, STRIDE, hidden_frames
from speech_mining.errors import EncoderError
from speech_mining.training.masking import span_mask
from speech_mining.transcribed.clips import ClipReader

Features = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

OWN_FEATURES = "preprocessor_config.json"
MOST_MEASURED = 200
"""Examples over which features are standardised."""
LEAST_SPREAD = 1e-3
KEPT_BYTES = 2 << 30
"""Of features in memory: 70 hours."""
_TIME, _FEATURES = 21, 22  # what a mask is drawn for; the trainer of students draws for smaller numbers


@dataclass(frozen=True)
class Extractor:
    """How features are computed.

    Args:
        width: numbers of an input.
        extract: float32 (samples,) → (inputs, width).
    """

    width: int
    extract: Callable[[Waveform], npt.NDArray[Any]]


def extractor_of(config: LearningConfig, language: str = "") -> Extractor:
    """The features that a configuration asks for: its start's own, a student's frames, or log-mel.

    Args:
        config: which.
        language: of the speech; a student has a network for each.

    Raises:
        EncoderError: the start's or the student's file cannot be used.
    """
    if config.start and (Path(config.start) / OWN_FEATURES).is_file():
        return _extractor_in(Path(config.start))
    count = config.stacked_frames
    if not config.frames:
        return Extractor(BANDS * count, lambda waveform: stacked(_log_mel(waveform), count))
    network = _network_in(student_file(config.frames), language)
    width = len(network["head.weight"][0])
    return Extractor(width * count, lambda waveform: stacked(_hidden(network, waveform), count))


def stacked(frames: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Frames (n, width), `count` of them side by side: (n / count, count width), at least one; the last are padded."""
    wanted = max(1, len(frames) // count) * count
    filled = np.zeros((wanted, frames.shape[1]), frames.dtype)
    filled[: len(frames)] = frames[:wanted]
    return filled.reshape(wanted // count, -1)


def standardised(extractor: Extractor, examples: pl.DataFrame, side: Side) -> Extractor:
    """The same features, each with mean 0 and standard deviation 1 over the first examples of a table.

    A translator of frozen frames as they came stood at BLEU 0.2 after 400 updates, of standardised ones at 51
    (`benchmarks.downstream`, pairs mined from 1.05, seed 0).

    Args:
        extractor: whose features.
        examples: in their order; `MOST_MEASURED` are heard.
        side: of them.
    """
    reader = ClipReader()
    heard = [extractor.extract(sound_of(row, side, reader)) for row in examples.head(MOST_MEASURED).to_dicts()]
    frames = np.concatenate(heard).astype(np.float64)
    mean, spread = frames.mean(axis=0).astype(np.float32), (frames.std(axis=0) + LEAST_SPREAD).astype(np.float32)
    return Extractor(extractor.width, lambda waveform: (extractor.extract(waveform) - mean) / spread)


def student_file(name: str) -> Path:
    """The weights that a configuration's `frames` names."""
    return SHIPPED if name == "miniature" else Path(name)


def _log_mel(waveform: Waveform) -> Floats:
    return log_mel(waveform, 0, max(1, len(waveform) // HOP))


def _hidden(network: Mapping[str, npt.NDArray[Any]], waveform: Waveform) -> Floats:
    frames = max(1, len(waveform) // (HOP * STRIDE)) * STRIDE
    return hidden_frames(network, log_mel(waveform, -REACH, frames + 2 * REACH))


def _network_in(file: Path, language: str) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(file)
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"The student {file} cannot be read: {error}.", expected="its weights, safetensors"
        ) from error
    network = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{language}.")}
    if "head.weight" not in network:
        known = sorted({name.partition(".")[0] for name in arrays if name.endswith("head.weight")})
        raise EncoderError(
            f"The student {file} does not hear {language or 'speech of an unknown language'}.",
            expected=f"one of {', '.join(known) or 'a convolutional student of this project'}",
            fix="name another student in `frames`, or leave it empty",
        )
    return network


def _extractor_in(folder: Path) -> Extractor:
    from transformers import Speech2TextFeatureExtractor

    try:
        given: Any = Speech2TextFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise EncoderError(
            f"{folder / OWN_FEATURES} cannot be used: {error}.",
            expected="what Speech2TextFeatureExtractor of transformers wrote",
        ) from error

    def extract(waveform: Waveform) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = given(waveform, sampling_rate=16_000, return_tensors="np").input_features[0]
        return found

    return Extractor(int(given.num_mel_bins), extract)


@dataclass
class Sounds:
    """The features of clips, computed once each while there is room; several threads may ask.

    Args:
        extractor: how; of the target too, unless another is named for it.
        target: how that of the target is.
        kept_bytes: how much is kept.
    """

    extractor: Extractor
    target: Extractor | None = None
    kept_bytes: int = KEPT_BYTES
    _reader: ClipReader = field(default_factory=ClipReader)
    _kept: dict[tuple[Any, ...], Features] = field(default_factory=dict)
    _size: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, row: dict[str, Any], side: Side) -> Features:
        """Features of a side of an example: float16 (inputs, width).

        Raises:
            AudioError: its sound cannot be read.
        """
        key = tuple(row[f"{side}_{name}"] for name in ("file", "place", "start_s", "end_s"))
        found = self._kept.get(key)
        if found is None:
            extractor = self.target if side == "target" and self.target else self.extractor
            found = extractor.extract(sound_of(row, side, self._reader)).astype(np.float16)
            with self._lock:
                if key not in self._kept and self._size + found.nbytes <= self.kept_bytes:
                    self._kept[key] = found
                    self._size += found.nbytes
        return found

    def of_rows(self, examples: pl.DataFrame, rows: Sequence[int], side: Side) -> list[Features]:
        """Of several examples, by row."""
        return [self.of(examples.row(row, named=True), side) for row in rows]


def padded(features: Sequence[npt.NDArray[Any]]) -> tuple[Floats, Ints]:
    """Clips in one array: float32 (clips, longest, width), zeros behind each; int64 (clips,), their lengths."""
    lengths = np.array([len(one) for one in features], np.int64)
    whole = np.zeros((len(features), int(lengths.max()), features[0].shape[1]), np.float32)
    for place, one in enumerate(features):
        whole[place, : len(one)] = one
    return whole, lengths


def masked(inputs: Floats, lengths: Ints, config: LearningConfig, seed: int, number: int) -> Floats:
    """The same with SpecAugment's masks, drawn from the seed and the batch's number alone."""
    for axis, kind, probability, span in (
        (1, _TIME, config.mask_time_probability, config.mask_time_length),
        (2, _FEATURES, config.mask_feature_probability, config.mask_feature_length),
    ):
        if probability:
            of_rows = lengths.tolist() if axis == 1 else [inputs.shape[2]] * len(inputs)
            mask = span_mask(of_rows, inputs.shape[axis], probability, span, (seed, kind, number))
            inputs = np.where(np.expand_dims(mask, 3 - axis), np.float32(0), inputs)
    return inputs
