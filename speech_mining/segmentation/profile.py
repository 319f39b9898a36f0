"""What a recording sounds like as a whole: speech, something else, or nothing.

What belongs here is a verdict on a section from its energies and its runs of speech. Whether the speech is in the
language that the catalogue says, nobody can tell from these; the encoders can.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from speech_mining.records import SAMPLE_RATE_HZ
from speech_mining.segmentation.cut_points import ENERGY_SAMPLES

Profile = Literal["speech", "music_or_noise", "silence"]

Samples = npt.NDArray[np.int64]

SOUNDING_DBFS = -50.0
"""Above this level something is heard: the pauses of a noisy reading are, those of a clean one are not."""
LEAST_SOUNDING = 0.01
LEAST_SPOKEN = 0.5
JUDGED_SPEECH_S = 10.0
SHORT_RUN_S, LONG_RUN_S = 0.6, 30.0


def profile_of(energies: npt.NDArray[np.float32], samples: int, starts: Samples, ends: Samples) -> Profile:
    """Judge a recording by how much of what sounds is speech, and by the length of its runs.

    - "silence": no speech, and less than 1 % of the time above -50 dBFS;
    - "music_or_noise": speech is less than half of what sounds; or, given 10 s of it, its median run is shorter than
      0.6 s or longer than 30 s, which no reader's is;
    - "speech": everything else.

    Measured, speech as a share of what sounds: eleven LibriVox readings 0.84 to 1.17 (median runs 1.3 to 3.6 s), a
    reading over music 20 dB down 0.84; half reading, half piano 0.42; white, brown and pulsed noise, tones, chords and
    synthesised piano, organ and strings 0.00. With the detector "energy" the piano gives 0.65 and is told by its runs
    (0.3 s), pulsed noise by its one run of a minute; a quick étude (0.87, 1.3 s) is taken for speech.

    Args:
        energies: float32, see `cut_points.block_energies`.
        samples: length of the recording.
        starts: int64 (runs,), first samples of the runs as the detector gave them, before any is split.
        ends: int64 (runs,), exclusive.
    """
    loud = ENERGY_SAMPLES * 10 ** (SOUNDING_DBFS / 10)
    sounding = int(np.count_nonzero(energies > loud)) * ENERGY_SAMPLES
    lengths = ends - starts
    speech = int(lengths.sum())
    if not speech and sounding < LEAST_SOUNDING * samples:
        return "silence"
    if speech < LEAST_SPOKEN * sounding:
        return "music_or_noise"
    if speech >= JUDGED_SPEECH_S * SAMPLE_RATE_HZ:
        median_s = float(np.median(lengths)) / SAMPLE_RATE_HZ
        return "speech" if SHORT_RUN_S <= median_s <= LONG_RUN_S else "music_or_noise"
    return "speech"
