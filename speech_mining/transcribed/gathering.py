"""Several sets of transcribed speech made into one to train on: names distinct, splits dealt, leaks taken out.

How one set is read is `sets`, what is wrong with one is told by `validation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from speech_mining.records import TRANSCRIBED, conform
from speech_mining.transcribed.sets import TranscribedSet, in_order, read_transcribed
from speech_mining.transcribed.splits import split_by_hash
from speech_mining.transcribed.validation import Validation, validate, without_leaks


@dataclass(frozen=True)
class Wish:
    """How sets are read and split; see `sets.read_transcribed` and `splits.split_by_hash`."""

    format: str = "auto"
    language: str = ""
    translation_language: str = ""
    dev_share: float = 0.05
    test_share: float = 0.05
    keep_leaks: bool = False


@dataclass(frozen=True, eq=False)
class Gathered:
    """One set of several.

    Args:
        clips: `records.TRANSCRIBED`.
        rejections: `sets.REJECTED_CLIPS`, leaks taken out among them.
        validation: of the clips before leaks were taken out.
        formats: what each address was found to be.
    """

    clips: pl.DataFrame
    rejections: pl.DataFrame
    validation: Validation
    formats: tuple[str, ...]


def gather(addresses: Sequence[Path], wish: Wish) -> Gathered:
    """Read sets and put them together.

    Where no set has a dev or a test split, clips of train are dealt to it by a hash of their speaker.

    Raises:
        LakeError: a set cannot be read, or is in no format that is known.
    """
    sets = [
        read_transcribed(
            address, language=wish.language, translation_language=wish.translation_language, format=wish.format
        )
        for address in addresses
    ]
    together = _together(sets)
    together = replace(together, clips=_dealt(together.clips, wish))
    kept = together if wish.keep_leaks else without_leaks(together)
    return Gathered(kept.clips, kept.rejections, validate(together), tuple(one.format for one in sets))


def _together(sets: Sequence[TranscribedSet]) -> TranscribedSet:
    """Clips of the second set and later ones are named after their set where there are several."""
    if len(sets) == 1:
        return sets[0]
    named = [
        one.clips.with_columns(pl.format("{}/{}", pl.lit(number), pl.col("clip")).alias("clip"))
        for number, one in enumerate(sets, start=1)
    ]
    return TranscribedSet(
        conform(pl.concat(named), TRANSCRIBED, "clips"),
        pl.concat([one.rejections for one in sets]),
        " + ".join(one.format for one in sets),
    )


def _dealt(clips: pl.DataFrame, wish: Wish) -> pl.DataFrame:
    there = set(clips["split"])
    shares = {
        "dev_share": 0.0 if "dev" in there else wish.dev_share,
        "test_share": 0.0 if "test" in there else wish.test_share,
    }
    if not any(shares.values()):
        return clips
    of_train = clips.filter(pl.col("split") == "train")
    others = clips.filter(pl.col("split") != "train")
    by = "speaker" if not of_train["speaker"].null_count() and of_train["speaker"].n_unique() > 20 else "transcription"
    return in_order(pl.concat([split_by_hash(of_train, by=by, seed=0, **shares), others]))
