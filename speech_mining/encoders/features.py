"""Log-mel features on an absolute grid, so that a recording cut into chunks gives the features of the whole.

Only what turns samples into frames belongs here. What a network makes of them is `speech_mining.encoders.student`.

Frame i is centred on sample 160 i and looks 200 samples to either side; what lies beyond the recording is silence.
There is no normalisation by recording or by span: a span's features do not depend on what else was recorded.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from speech_mining.records import SAMPLE_RATE_HZ

HOP = 160
"""Samples from one frame to the next: 10 ms."""
WINDOW = 400
"""Samples a frame looks at: 25 ms."""
BANDS = 40
_FFT = 512
_LOW_HZ, _HIGH_HZ = 60.0, 7200.0
# A floor near what noise at -60 dBFS leaves in a band: below it, MP3 coding decides what is heard, not the speaker.
_FLOOR = 3e-4
# Rounded mean and spread of log-mel speech at -20 dBFS: features come out near zero mean and unit variance.
_CENTRE, _SPREAD = -2.5, 3.0


def _to_mel(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mel: npt.NDArray[np.float64] = 2595.0 * np.log10(1.0 + hz / 700.0)
    return mel


@lru_cache(maxsize=1)
def mel_filters() -> npt.NDArray[np.float32]:
    """Triangular filters, evenly spaced on the mel scale between 60 and 7200 Hz: float32 (257, 40), peak 1.

    Mel scale of O'Shaughnessy 1987: 2595 log10(1 + f / 700).
    """
    low, high = _to_mel(np.array([_LOW_HZ, _HIGH_HZ]))
    corners = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, _FFT // 2 + 1)[:, None]
    rising = (hz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hz) / (corners[2:] - corners[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


@lru_cache(maxsize=1)
def _taper() -> npt.NDArray[np.float32]:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def samples_between(waveform: npt.NDArray[np.float32], first: int, last: int) -> npt.NDArray[np.float32]:
    """Samples [first, last) of a recording, float32 (last - first,), with silence where it has none.

    NaN and infinite samples are silence too: a span that holds one is rejected, its neighbours must not be lost.
    """
    inside = np.nan_to_num(waveform[max(first, 0) : max(last, 0)], nan=0.0, posinf=0.0, neginf=0.0)
    before = min(max(-first, 0), last - first)
    padded = np.zeros(last - first, np.float32)
    padded[before : before + len(inside)] = inside
    return padded


def log_mel(waveform: npt.NDArray[np.float32], first: int, frames: int) -> npt.NDArray[np.float32]:
    """Features of frames first .. first + frames - 1.

    Args:
        waveform: float32 (samples,), 16 kHz mono.
        first: index of the first frame; it may be negative (silence before the recording).
        frames: how many, at least one; they may reach beyond the end.

    Returns:
        float32 (frames, 40), log mel energies, shifted and scaled by constants.
    """
    reach = WINDOW // 2
    samples = samples_between(waveform, first * HOP - reach, (first + frames - 1) * HOP + reach)
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectrum = np.fft.rfft(windows * _taper(), _FFT, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    scaled: npt.NDArray[np.float32] = (np.log(power @ mel_filters() + np.float32(_FLOOR)) - _CENTRE) / _SPREAD
    return scaled.astype(np.float32)


def louder(features: npt.NDArray[np.float32], decibels: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float32]:
    """Features of the same speech at another level, the floor staying where it is.

    Args:
        features: float32, as `log_mel` gives them.
        decibels: gain; anything that broadcasts against `features`.
    """
    energy = np.exp(features * _SPREAD + _CENTRE) - np.float32(_FLOOR)
    gain = np.float32(10.0) ** (np.asarray(decibels, np.float32) / np.float32(10.0))
    scaled: npt.NDArray[np.float32] = (np.log(np.maximum(energy, 0.0) * gain + np.float32(_FLOOR)) - _CENTRE) / _SPREAD
    return scaled.astype(np.float32)
