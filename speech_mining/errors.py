"""The errors a user meets: what was found, what was expected, the likely cause, the fix.

Only conditions that a caller or a user can act on belong here. Something wrong with one segment or one recording of
many is not an error but a `Rejection` (see `speech_mining.records`): it has a reason and it is counted.
"""

from __future__ import annotations


class SpeechMiningError(Exception):
    """Base of every error this project raises on purpose; the command shows it as one paragraph, exit code 2.

    Args:
        found: what was met, with the figure or the name.
        expected: what would have been right.
        cause: the likely cause.
        fix: what to do about it.
    """

    def __init__(self, found: str, *, expected: str = "", cause: str = "", fix: str = "") -> None:
        self.found, self.expected, self.cause, self.fix = found, expected, cause, fix
        told = [found]
        if expected:
            told.append(f"Expected: {expected}.")
        if cause:
            told.append(f"Likely cause: {cause}.")
        if fix:
            told.append(f"Fix: {fix}.")
        super().__init__(" ".join(told))


class AudioError(SpeechMiningError):
    """A recording that holds no usable audio; `reason` is one of `speech_mining.records.RejectionReason`."""

    def __init__(self, found: str, *, reason: str, expected: str = "", cause: str = "", fix: str = "") -> None:
        super().__init__(found, expected=expected, cause=cause, fix=fix)
        self.reason = reason


class CatalogueError(SpeechMiningError):
    """A catalogue that cannot be read as LibriVox's API describes it."""


class DownloadError(SpeechMiningError):
    """A file that could not be fetched whole and verified; `reason` as in `AudioError`."""

    def __init__(self, found: str, *, reason: str, expected: str = "", cause: str = "", fix: str = "") -> None:
        super().__init__(found, expected=expected, cause=cause, fix=fix)
        self.reason = reason


class EmbeddingError(SpeechMiningError):
    """Vectors that cannot be searched or compared: wrong shape, NaN, zero rows."""


class EncoderError(SpeechMiningError):
    """An encoder that cannot be loaded, or does not know a language."""


class LakeError(SpeechMiningError):
    """A partition of the lake that is absent, damaged or written by another schema."""


class SettingsError(SpeechMiningError):
    """Settings that contradict themselves or name what does not exist."""
