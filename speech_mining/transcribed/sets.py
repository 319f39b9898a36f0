"""Transcribed speech, in whichever format it comes: one table of clips, and one of what could not be used.

What belongs here is which format a folder is in, the names of clips and their order. What each format looks like is
the business of the module named after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from speech_mining.errors import SettingsError
from speech_mining.progress import Progress, silent
from speech_mining.records import TRANSCRIBED, conform, natural_order
from speech_mining.transcribed import common_voice, covost, fairseq_s2t, hugging_face, must_c, texts_beside, transcripts
from speech_mining.transcribed.languages import Wanted
from speech_mining.transcribed.listing import (
    REJECTED_CLIPS,
    ListedClip,
    Reading,
    RejectedClip,
    TranscribedSpeechError,
)
from speech_mining.transcribed.measuring import measured

__all__ = ["FORMATS", "REJECTED_CLIPS", "TranscribedSet", "in_order", "read_transcribed", "rejections_frame"]

AUTO = "auto"
_TOLD_EVERY = 100


@dataclass(frozen=True)
class TranscribedSet:
    """A set of clips whose words are known."""

    clips: pl.DataFrame
    """Columns of `records.TRANSCRIBED`, sorted by split, then by name in natural order."""
    rejections: pl.DataFrame
    """Columns of `listing.REJECTED_CLIPS`, sorted."""
    format: str
    notes: tuple[str, ...] = ()
    """What was passed over on purpose."""

    @property
    def rejected(self) -> dict[str, int]:
        """Rejections by reason, most first."""
        counts = self.rejections["reason"].value_counts().sort(["count", "reason"], descending=[True, False])
        return dict(counts.iter_rows())


@dataclass(frozen=True)
class _Format:
    name: str
    seen: Callable[[Path], str]
    """What tells that a folder is in this format; empty where nothing does."""
    read: Callable[[Path, Wanted], Reading]


_FORMATS = (
    _Format("common_voice", common_voice.seen, common_voice.read),
    _Format("covost", covost.seen, covost.read),
    _Format("must_c", must_c.seen, must_c.read),
    _Format("fairseq_s2t", fairseq_s2t.seen, fairseq_s2t.read),
    _Format("transcripts", transcripts.seen, transcripts.read),
    _Format("hugging_face", hugging_face.seen, hugging_face.read),
)
FORMATS = (AUTO, *(known.name for known in _FORMATS))


def read_transcribed(
    address: Path,
    *,
    language: str = "",
    translation_language: str = "",
    format: str = AUTO,
    progress: Progress = silent,
) -> TranscribedSet:
    """Read a folder of transcribed speech, or of speech translation.

    Args:
        address: the folder.
        language: of the speech, by ISO 639 code or English name; empty: the set says it.
        translation_language: likewise; a set that holds translations into several needs it.
        format: one of `FORMATS`.
        progress: told how many clips are done.

    Raises:
        TranscribedSpeechError: the folder is in no format we know, in several, or does not say its language; or it
            holds features in place of audio.
        SettingsError: an unknown format or language.
    """
    folder = Path(address)
    if not folder.is_dir():
        raise TranscribedSpeechError(f"{folder} is no folder.", expected="the folder of a set of transcribed speech")
    chosen = _chosen(folder, format)
    reading = chosen.read(folder, Wanted.told(language, translation_language))
    names = _Names()
    clips, rejections = [], []
    for done, found in enumerate(measured(reading.clips), start=1):
        row = found if isinstance(found, RejectedClip) else names.named(*found)
        if isinstance(row, RejectedClip):
            rejections.append(row)
        else:
            clips.append(row)
        if done % _TOLD_EVERY == 0:
            progress(done, done)
    progress(len(clips) + len(rejections), len(clips) + len(rejections))
    table = conform(pl.DataFrame(clips, schema=dict(TRANSCRIBED), orient="row"), TRANSCRIBED, "transcribed speech")
    return TranscribedSet(in_order(table), rejections_frame(rejections), chosen.name, reading.notes)


def rejections_frame(rejected: Iterable[RejectedClip]) -> pl.DataFrame:
    """A table of `REJECTED_CLIPS`, sorted."""
    rows = [(row.source, row.line, row.clip, row.reason, row.detail) for row in rejected]
    return pl.DataFrame(rows, schema=dict(REJECTED_CLIPS), orient="row").sort(list(REJECTED_CLIPS), nulls_last=False)


def in_order(clips: pl.DataFrame) -> pl.DataFrame:
    """Clips by split (dev, test, train), then by name in natural order: "clip 9" before "clip 10"."""
    splits, names = clips["split"].to_list(), clips["clip"].to_list()
    rows = sorted(range(clips.height), key=lambda row: (splits[row], natural_order(names[row]), names[row]))
    return clips[rows]


def _chosen(folder: Path, name: str) -> _Format:
    if name != AUTO:
        found = next((known for known in _FORMATS if known.name == name), None)
        if found is None:
            raise SettingsError(f"There is no format {name!r}.", expected=f"one of {', '.join(FORMATS)}")
        return found
    seen = {known.name: what for known in _FORMATS if (what := known.seen(folder))}
    if "covost" in seen:  # which lies beside Common Voice's own tables, and has its sentences
        seen.pop("common_voice", None)
    if not seen and (beside := texts_beside.seen(folder)):
        seen["transcripts"] = beside
    if len(seen) == 1:
        return next(known for known in _FORMATS if known.name in seen)
    if seen:
        raise TranscribedSpeechError(
            f"{folder} holds {' and '.join(f'{what} ({name})' for name, what in seen.items())}.",
            expected="one set in one format",
            fix=f"say the format: one of {', '.join(seen)}",
        )
    raise _unknown(folder)


def _unknown(folder: Path) -> TranscribedSpeechError:
    held = sorted(path.name for path in folder.iterdir())
    listed = f"{', '.join(held[:8])}{', …' if len(held) > 8 else ''}" if held else "nothing"
    return TranscribedSpeechError(
        f"{folder} holds {listed}.",
        expected="train.tsv with clips/ (Common Voice), covost_v2.*.tsv, en-de/data (MuST-C), a manifest of "
        "fairseq, metadata.csv, texts beside recordings, or parquet with a column audio",
        cause="it is the folder above the set's, or the set is in another format",
        fix="give the folder of the set, or say its format",
    )


class _Names:
    """Gives every clip a name that is its own in the set."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, str, str, float | None, float | None]] = {}

    def named(self, listed: ListedClip, duration_s: float) -> tuple[Any, ...] | RejectedClip:
        """A row of `records.TRANSCRIBED`, or the rejection of a clip that its split lists twice.

        A clip of another split has that split before its name; one of the same name and other audio, its place.
        """
        audio = (listed.split, str(listed.file), listed.place, listed.start_s, listed.end_s)
        for name in (listed.clip, f"{listed.split}/{listed.clip}", f"{listed.source}:{listed.line}/{listed.clip}"):
            if name not in self._taken:
                self._taken[name] = audio
                return _row(listed, name, duration_s)
            if self._taken[name] == audio:
                break
        return RejectedClip(
            listed.source, listed.line, listed.clip, "duplicate_clip", f"{listed.split} lists the same audio before"
        )


def _row(listed: ListedClip, name: str, duration_s: float) -> tuple[Any, ...]:
    """In the order of `records.TRANSCRIBED`."""
    return (
        name,
        listed.split,
        listed.language,
        str(listed.file),
        listed.place,
        listed.start_s,
        listed.end_s,
        duration_s,
        listed.transcription or None,
        listed.translation or None,
        (listed.translation_language or None) if listed.translation else None,
        listed.speaker or None,
    )
