"""Transcribed speech and speech translation, in the formats people have: read, validated, dealt into splits, heard."""

from speech_mining.transcribed.clips import ClipReader
from speech_mining.transcribed.listing import REJECTED_CLIPS, TranscribedSpeechError
from speech_mining.transcribed.sets import FORMATS, TranscribedSet, read_transcribed
from speech_mining.transcribed.splits import split_by_hash
from speech_mining.transcribed.validation import Validation, validate, without_leaks

__all__ = [
    "FORMATS",
    "REJECTED_CLIPS",
    "ClipReader",
    "TranscribedSet",
    "TranscribedSpeechError",
    "Validation",
    "read_transcribed",
    "split_by_hash",
    "validate",
    "without_leaks",
]
