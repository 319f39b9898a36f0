"""What a neural student's network is given for a waveform: one array (length, channels) a clip, and its padding.

What belongs here is features only; the networks that hear them are `speech_mining.encoders.neural_network`. A clip's
features depend on the clip alone, never on what shares its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.encoders.features import BANDS, HOP, log_mel
from speech_mining.records import SAMPLE_RATE_HZ

Floats: TypeAlias = npt.NDArray[np.float32]

SHORTEST_S = 0.1
"""Every architecture has at least two frames of that; below, wav2vec 2.0 has none."""
_KALDI_BANDS, _STACKED = 80, 2
_TINY = 1e-7  # what `transformers` adds to a variance before it divides by its root


def normalised_waveform(waveform: Floats) -> Floats:
    """float32 (samples, 1), zero mean and unit variance, as wav2vec 2.0's feature extractor makes it."""
    wide = waveform.astype(np.float64)
    scaled: Floats = ((wide - wide.mean()) / np.sqrt(wide.var() + _TINY)).astype(np.float32)
    return scaled[:, None]


def kaldi_bands(waveform: Floats) -> Floats:
    """float32 (frames / 2, 160): Kaldi's 80 log-mel bands, each standardised over the clip, two frames side by side.

    What w2v-BERT was trained on: `transformers.SeamlessM4TFeatureExtractor` gives the same to 1e-4, and an odd last
    frame is left out as it is there. That one loops over frames in Python, this one does not.
    """
    import torch
    from torchaudio.compliance import kaldi

    with torch.inference_mode():
        scaled = torch.from_numpy(np.ascontiguousarray(waveform, np.float32))[None] * 2**15
        bands = kaldi.fbank(scaled, num_mel_bins=_KALDI_BANDS, sample_frequency=SAMPLE_RATE_HZ, dither=0.0)
        centred = (bands - bands.mean(0)) / torch.sqrt(bands.var(0) + _TINY)
        rows: Floats = centred.numpy()
    pairs = len(rows) // _STACKED
    return rows[: pairs * _STACKED].reshape(pairs, _STACKED * _KALDI_BANDS)


def log_mel_frames(waveform: Floats) -> Floats:
    """float32 (frames, 40), 100 a second: `speech_mining.encoders.features.log_mel` of the whole clip."""
    return log_mel(waveform, 0, max(1, len(waveform) // HOP))


INPUTS: Mapping[str, Callable[[Floats], Floats]] = MappingProxyType(
    {"wav2vec2": normalised_waveform, "w2v-bert": kaldi_bands, "convolutions": log_mel_frames}
)
"""By architecture."""
CHANNELS: Mapping[str, int] = MappingProxyType(
    {"wav2vec2": 1, "w2v-bert": _STACKED * _KALDI_BANDS, "convolutions": BANDS}
)


def pad(inputs: Sequence[Floats]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Put clips side by side, zeros after the shorter ones: float32 (n, longest, channels) and int64 (n,) lengths."""
    lengths = np.array([len(one) for one in inputs], np.int64)
    padded = np.zeros((len(inputs), int(lengths.max()), inputs[0].shape[1]), np.float32)
    for row, one in enumerate(inputs):
        padded[row, : len(one)] = one
    return padded, lengths
