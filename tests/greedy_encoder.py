"""The miniature library's encoder, which runs out of memory when told to; made by name, as a user's own would be."""

from __future__ import annotations

from collections.abc import Sequence

from speech_mining.encoders.protocol import Embedded, SpeechSpan
from speech_mining.encoders.student import Student
from speech_mining.progress import Progress, silent

fails_at: list[int] = []
"""Calls, counted from 1 over all encoders of this process, that find no memory."""
calls: list[int] = []
"""Spans of every call."""


class Greedy:
    """Embeds as the miniature encoder does, under its name and version."""

    def __init__(self) -> None:
        self._student = Student.load(None)
        self.name, self.version = self._student.name, self._student.version
        self.languages, self.dimension = self._student.languages, self._student.dimension

    def embed(self, items: Sequence[SpeechSpan], *, progress: Progress = silent) -> Embedded:
        """Embed spans, or find no memory."""
        calls.append(len(items))
        if len(calls) in fails_at:
            raise MemoryError(f"no room for {len(items)} spans")
        return self._student.embed(items, progress=progress)
