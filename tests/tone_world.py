"""A language of chords, three words and a strange sound: training tests that need no synthesiser and take seconds."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from speech_mining.encoders.student import StudentWeights
from speech_mining.training.student import (
    Framed,
    Heard,
    TrainingConfig,
    TrainingRecording,
    frame_recordings,
    train_detector,
    unknown_room,
)

RATE_HZ = 16_000
WORD_S = 0.3
CHORDS_HZ = ((300, 900), (500, 1700), (800, 2600))
UNKNOWN = len(CHORDS_HZ)
MEANINGS = UNKNOWN + 1
ROOM = 4
DIMENSION = MEANINGS - 1 + ROOM + 1
CONFIG = TrainingConfig(width=24, epochs=6, crops=8, crop_frames=100, peak_rate=1e-2)


def word(meaning: int, chance: np.random.Generator) -> npt.NDArray[np.float32]:
    """A chord of 0.3 s; a strange word is a chord of any two frequencies."""
    pair = CHORDS_HZ[meaning] if meaning < UNKNOWN else tuple(chance.uniform(1000, 4000, 2))
    at = np.arange(round(WORD_S * RATE_HZ)) / RATE_HZ
    swell = np.sin(np.pi * at / WORD_S) ** 0.3
    return (0.1 * swell * sum(np.sin(2 * np.pi * hz * at) for hz in pair)).astype(np.float32)


def sentence(meanings: list[int], seed: int, pause_s: float = 0.5) -> TrainingRecording:
    """Words one after the other, 0.5 s of faint noise before, between every third, and after."""
    chance = np.random.default_rng(seed)
    pause = np.zeros(round(pause_s * RATE_HZ), np.float32)
    parts, heard, at = [pause], [], len(pause)
    for place, meaning in enumerate(meanings):
        spoken = word(meaning, chance)
        heard.append(Heard(at, at + len(spoken), (meaning,)))
        parts += [spoken, pause] if place % 3 == 2 else [spoken]
        at += len(spoken) + (len(pause) if place % 3 == 2 else 0)
    waveform = np.concatenate([*parts, pause])
    return TrainingRecording(waveform + chance.normal(0, 3e-4, len(waveform)).astype(np.float32), tuple(heard))


def speech(count: int = 60, seed: int = 0) -> Framed:
    """Training speech: sentences of nine random words."""
    chance = np.random.default_rng(seed)
    return frame_recordings(sentence(chance.integers(0, MEANINGS, 9).tolist(), index) for index in range(count))


@cache
def trained(config: TrainingConfig = CONFIG) -> tuple[StudentWeights, list[float]]:
    """A student of the chords, and the loss at each of its steps."""
    framed = speech()
    network, losses = train_detector(framed, MEANINGS, config)
    arrays = {**network, **unknown_room(network, framed, UNKNOWN, ROOM)}
    axes = np.eye(DIMENSION)
    weights = StudentWeights(
        {"ton": arrays}, axes[:-1], 0.5 * axes[-1], 0.5, ("low", "middle", "high"), {"steps": len(losses)}
    )
    return weights, losses
