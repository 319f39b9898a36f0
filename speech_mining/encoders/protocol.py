"""The one interface behind which every encoder stands: SONAR, our students, the demo's small one.

What belongs here is what an encoder promises. How one keeps the promise is in the module named for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EncoderError
from speech_mining.progress import Progress, silent
from speech_mining.records import RejectionReason


@dataclass(frozen=True, eq=False)
class SpeechSpan:
    """A span of a recording to embed. Spans of one recording share its waveform: nothing is copied or decoded twice.

    An encoder may compute what overlapping spans share once per `waveform` (compare by identity).
    """

    waveform: npt.NDArray[np.float32]
    """The whole recording: float32 (samples,), 16 kHz mono, nominally in [-1, 1]."""
    start_sample: int
    end_sample: int
    language: str
    """ISO 639-3."""

    @property
    def samples(self) -> npt.NDArray[np.float32]:
        """The span's own samples, a view."""
        return self.waveform[self.start_sample : self.end_sample]


@dataclass(frozen=True)
class Sentence:
    """A sentence to embed."""

    text: str
    language: str
    """ISO 639-3."""


@dataclass(frozen=True)
class Rejected:
    """An item that has no vector, and why."""

    item: int
    """Position in the sequence given to `embed`."""
    reason: RejectionReason
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Embedded:
    """The vectors of the items that were accepted, in the order they were given."""

    vectors: npt.NDArray[np.float16]
    """float16 (accepted, dimension), rows of unit length (to fp16's precision), no NaN, no zero row."""
    kept: npt.NDArray[np.int64]
    """int64 (accepted,): position of each row's item in the input, increasing."""
    rejected: tuple[Rejected, ...]
    lengths: npt.NDArray[np.float32] | None = None
    """float32 (accepted,): how long each row was before it was made a unit vector, where that means something: MuTox
    reads SONAR's vectors as they are."""


def refuse_stranger(span: SpeechSpan, encoder: SpeechEncoder, cause: str) -> None:
    """Hold a span against what an encoder was trained for.

    Raises:
        EncoderError: its language is not among the encoder's, or its waveform is not one-dimensional.
    """
    if span.language not in encoder.languages:
        raise EncoderError(
            f"The encoder {encoder.name} does not know the language {span.language!r}.",
            expected=f"one of {', '.join(sorted(encoder.languages))}",
            cause=cause,
            fix="choose another encoder for this language, or train one",
        )
    if span.waveform.ndim != 1:
        raise EncoderError(
            f"A waveform has shape {span.waveform.shape}.", expected="(samples,), mono", fix="mix the channels"
        )


class SpeechEncoder(Protocol):
    """Maps spoken spans to unit vectors."""

    @property
    def name(self) -> str:
        """What it is called in settings and metadata."""

    @property
    def version(self) -> str:
        """Changes whenever the vectors would; part of every embedding's data version."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-3 codes it was trained for."""

    def embed(self, items: Sequence[SpeechSpan], *, progress: Progress = silent) -> Embedded:
        """Embed spans; silent, NaN, too long or too short ones are rejected with a reason, never a crash."""


class TextEncoder(Protocol):
    """Maps sentences to unit vectors in the same space."""

    @property
    def name(self) -> str:
        """What it is called in settings and metadata."""

    @property
    def version(self) -> str:
        """Changes whenever the vectors would."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-3 codes it knows."""

    def embed(self, items: Sequence[Sentence], *, progress: Progress = silent) -> Embedded:
        """Embed sentences; empty ones and those with no known content are rejected with a reason."""
