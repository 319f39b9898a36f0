"""What is wrong with a set of transcribed speech: hours, what is missing, and what is in two splits.

A clip of dev or test that training has heard, or whose words it has read, makes every score too good. What belongs here
compares clips and drops those of train that dev or test hold too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from speech_mining.errors import SettingsError
from speech_mining.evaluation.wording import normalised
from speech_mining.records import Schema
from speech_mining.transcribed.clips import ClipReader
from speech_mining.transcribed.hugging_face import sounds_of
from speech_mining.transcribed.listing import RejectedClip, UnusableClipError
from speech_mining.transcribed.measuring import THREADS
from speech_mining.transcribed.places import row_of, row_place
from speech_mining.transcribed.sets import TranscribedSet, rejections_frame

KINDS = ("audio", "text", "speaker")
HOURS: Schema = {"split": pl.String(), "language": pl.String(), "clips": pl.Int64(), "hours": pl.Float64()}
SHARED: Schema = {
    "kind": pl.String(),  # audio, text or speaker
    "split": pl.String(),
    "other_split": pl.String(),  # the same split: what it holds twice
    "groups": pl.Int64(),  # distinct sounds, texts or speakers that both hold
    "clips": pl.Int64(),  # of `split` that have them; within a split, less one for each group
}
LEAKS: Schema = {
    "kind": pl.String(),
    "split": pl.String(),
    "clip": pl.String(),
    "other_split": pl.String(),
    "other_clip": pl.String(),
    "shared": pl.String(),  # the text or the speaker; of audio its hash
}
EXAMPLES = 20
"""Leaks that are listed of each kind and pair of splits."""

_ACROSS = (("train", "dev"), ("train", "test"), ("dev", "test"))
_SAID = {"audio": "the same audio as", "text": "the same text as", "speaker": "a speaker of"}
_MANY_REJECTED = 0.01


@dataclass(frozen=True)
class Validation:
    """What a set holds and what is wrong with it."""

    clips: int
    hours: pl.DataFrame
    """`HOURS`: by split and language."""
    rejected: Mapping[str, int]
    """Listed and not usable, by reason, most first."""
    shared: pl.DataFrame
    """`SHARED`: duplicates within splits and across."""
    leaks: pl.DataFrame
    """`LEAKS`: examples of what two splits share."""
    unreadable: int
    """Clips whose bytes are gone since the set was read."""

    def problems(self) -> tuple[str, ...]:
        """What a person should act on, the gravest first; nothing where all is well."""
        if not self.clips:
            return (f"No clip is usable{self._rejections()}: look at the rejections.",)
        told = [*self._across(), *self._gone(), *self._lost(), *self._without_split(), *self._within()]
        return tuple(told)

    def _across(self) -> list[str]:
        across = self.shared.filter(pl.col("split") != pl.col("other_split"))
        return [
            _told_across(row, self._example(row["kind"], row["split"], row["other_split"])) for row in across.to_dicts()
        ]

    def _example(self, kind: str, split: str, other_split: str) -> str:
        of_pair = (pl.col("kind") == kind) & (pl.col("split") == split) & (pl.col("other_split") == other_split)
        first = self.leaks.filter(of_pair).row(0, named=True)
        return f"{first['clip']} and {first['other_clip']}"

    def _gone(self) -> list[str]:
        return [f"{_clips(self.unreadable)} can be read no more: read the set again."] if self.unreadable else []

    def _lost(self) -> list[str]:
        lost = sum(self.rejected.values())
        if not lost:
            return []
        share = lost / (lost + self.clips)
        advice = "look at the rejections" if share > _MANY_REJECTED else "few, but look at the rejections"
        return [f"{_clips(lost)} of {lost + self.clips} cannot be used{self._rejections()}: {advice}."]

    def _rejections(self) -> str:
        return (
            f" ({', '.join(f'{count} {reason}' for reason, count in self.rejected.items())})" if self.rejected else ""
        )

    def _without_split(self) -> list[str]:
        there = set(self.hours["split"])
        advice = {
            "train": "there is nothing to train on",
            "dev": "training cannot tell when to stop: deal one from train (split_by_hash)",
            "test": "no student can be examined: deal one from train (split_by_hash)",
        }
        return [f"There is no {split}: {why}." for split, why in advice.items() if split not in there]

    def _within(self) -> list[str]:
        repeated = self.shared.filter((pl.col("split") == pl.col("other_split")) & (pl.col("kind") == "audio"))
        return [
            f"{_clips(row['clips'])} of {row['split']} repeat the audio of another clip of it: they count twice."
            for row in repeated.to_dicts()
        ]


def validate(speech: TranscribedSet) -> Validation:
    """Look at all of a set: every clip's bytes are read once, at 4 500 clips of 5 s a second on two cores.

    The same audio is the same bytes and span; the same text is the same language and words, as
    `evaluation.wording.normalised` has them, of the transcription, or of the translation where there is none.
    """
    clips = speech.clips
    keyed = {kind: _keyed(clips, kind) for kind in KINDS}
    return Validation(
        clips=clips.height,
        hours=_hours(clips),
        rejected=speech.rejected,
        shared=_shared(keyed),
        leaks=pl.concat([_leaks(keyed[kind], kind) for kind in KINDS]),
        unreadable=clips.height - keyed["audio"].height,
    )


def without_leaks(speech: TranscribedSet, *, by: Sequence[str] = ("audio", "text")) -> TranscribedSet:
    """Drop from train what dev or test hold too; each clip dropped is a rejection, `in_another_split`.

    Raises:
        SettingsError: `by` names what cannot be compared.
    """
    unknown = [kind for kind in by if kind not in KINDS]
    if unknown or isinstance(by, str):
        raise SettingsError(f"Leaks are looked for by {by!r}.", expected=f"some of {', '.join(KINDS)}")
    dropped: dict[str, str] = {}
    for kind in by:
        for clip, split, other in _in_both(_keyed(speech.clips, kind)):
            dropped.setdefault(clip, f"{_SAID[kind]} {other} of {split}")
    gone = speech.clips.filter(pl.col("split") == "train", pl.col("clip").is_in(list(dropped)))
    told = [
        RejectedClip(Path(file).name, None, clip, "in_another_split", dropped[clip])
        for clip, file in gone.select("clip", "file").iter_rows()
    ]
    rejections = pl.concat([speech.rejections, rejections_frame(told)])
    kept = speech.clips.join(gone.select("clip"), on="clip", how="anti", maintain_order="left")
    return replace(speech, clips=kept, rejections=rejections.sort(rejections.columns, nulls_last=False))


def _in_both(keyed: pl.DataFrame) -> list[tuple[str, str, str]]:
    """Clips of train, and the first clip of dev or test that has what they have."""
    examined = keyed.filter(pl.col("split") != "train").sort("split", "clip").unique("key", keep="first")
    train = keyed.filter(pl.col("split") == "train")
    found = train.join(examined, on="key", suffix="_other").select("clip", "split_other", "clip_other")
    return list(found.iter_rows())


def _keyed(clips: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Clip, split and `key`, equal where two have the same audio, text or speaker; clips without one are left out."""
    if kind == "audio":
        key = _sounds(clips)
    elif kind == "text":
        key = pl.Series([_text(*row) for row in clips.select(_TEXTS).iter_rows()], dtype=pl.String())
    else:
        key = clips["speaker"]
    return clips.select("clip", "split", key.alias("key")).drop_nulls("key")


_TEXTS = ("language", "transcription", "translation_language", "translation")


def _text(language: str, transcription: str | None, into: str | None, translation: str | None) -> str | None:
    if transcription:
        return f"{language}: {normalised(transcription)}"
    return f"{into}: {normalised(translation)}" if translation else None


def _sounds(clips: pl.DataFrame) -> pl.Series:
    """A hash of every clip's bytes, with its span; null where they cannot be read."""
    places = [(file, place) for file, place in clips.select("file", "place").unique(maintain_order=True).iter_rows()]
    tables: dict[str, list[int]] = {}
    for file, place in places:
        row = row_of(place)
        if row is not None:
            tables.setdefault(file, []).append(row)
    single = [(file, place) for file, place in places if row_of(place) is None]
    with ThreadPoolExecutor(THREADS) as threads:
        hashed = dict(zip(single, threads.map(_hash_of, single), strict=True))
    for file, rows in tables.items():
        hashed.update(_hashes_of_rows(file, frozenset(rows)))
    columns = clips.select("file", "place", "start_s", "end_s")
    return pl.Series(
        [_with_span(hashed.get((file, place)), *span) for file, place, *span in columns.iter_rows()], dtype=pl.String()
    )


def _hash_of(place: tuple[str, str]) -> str | None:
    try:
        return _digest(ClipReader().content(Path(place[0]), place[1]))
    except (OSError, UnusableClipError):
        return None


def _hashes_of_rows(file: str, rows: frozenset[int]) -> dict[tuple[str, str], str | None]:
    """Of one parquet, in one pass."""
    import pyarrow as pa

    found: dict[tuple[str, str], str | None] = {}
    try:
        for row, content in enumerate(sounds_of(Path(file))):
            if row in rows and content is not None:
                found[file, row_place(row)] = _digest(content)
    except (OSError, pa.ArrowException):
        pass  # what was not reached has no hash, and is counted as unreadable
    return found


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _with_span(digest: str | None, start_s: float | None, end_s: float | None) -> str | None:
    return digest if digest is None or (start_s is None and end_s is None) else f"{digest}@{start_s}-{end_s}"


def _hours(clips: pl.DataFrame) -> pl.DataFrame:
    grouped = clips.group_by("split", "language").agg(
        pl.len().cast(pl.Int64).alias("clips"), (pl.col("duration_s").sum() / 3600).alias("hours")
    )
    return grouped.select(list(HOURS)).sort("split", "language")


def _shared(keyed: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    rows = [row for kind in KINDS for row in _shared_by(keyed[kind], kind)]
    return pl.DataFrame(rows, schema=dict(SHARED), orient="row")


def _shared_by(keyed: pl.DataFrame, kind: str) -> list[tuple[str, str, str, int, int]]:
    counts = keyed.group_by("key").agg(
        [(pl.col("split") == split).sum().cast(pl.Int64).alias(split) for split in ("train", "dev", "test")]
    )
    rows = []
    for split, other in _ACROSS:
        both = counts.filter(pl.col(split) > 0, pl.col(other) > 0)
        rows.append((kind, split, other, both.height, int(both[split].sum())))
    for split in ("train", "dev", "test") if kind != "speaker" else ():  # who speaks twice in a split is no fault
        repeated = counts.filter(pl.col(split) > 1)
        rows.append((kind, split, split, repeated.height, int((repeated[split] - 1).sum())))
    return [row for row in rows if row[3]]


def _leaks(keyed: pl.DataFrame, kind: str) -> pl.DataFrame:
    """The first clips that two splits share something with, one pair for each thing shared."""
    found = [pl.DataFrame(schema=dict(LEAKS))]
    firsts = keyed.unique(["key", "split"], keep="first", maintain_order=True)
    for split, other in _ACROSS:
        one, two = (firsts.filter(pl.col("split") == name) for name in (split, other))
        both = one.join(two, on="key", suffix="_two", maintain_order="left").head(EXAMPLES)
        found.append(
            both.select(
                pl.lit(kind).alias("kind"),
                pl.col("split"),
                pl.col("clip"),
                pl.col("split_two").alias("other_split"),
                pl.col("clip_two").alias("other_clip"),
                pl.col("key").alias("shared"),
            )
        )
    return pl.concat(found)


def _told_across(row: Mapping[str, object], example: str) -> str:
    kind, split, other = str(row["kind"]), row["split"], row["other_split"]
    if kind == "speaker":
        return (
            f"{row['groups']} speakers are heard in {split} and in {other} (as in {example}): deal the set by speaker."
        )
    advice = "drop them with without_leaks" if split == "train" else f"take them out of {split}"
    return f"{row['clips']} clips of {split} have {_SAID[kind]} clips of {other} (as {example}): {advice}."


def _clips(count: int) -> str:
    return "1 clip" if count == 1 else f"{count} clips"
