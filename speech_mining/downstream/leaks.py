"""What training may not have heard or read: whatever is in the test set, by recording and by words.

A test sentence that training has seen makes every score too good, and mined data finds such sentences by itself. So
they are taken out of what is added, counted, and looked for once more before anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from speech_mining.downstream.examples import word_keys, words_of
from speech_mining.errors import SettingsError

SHOWN = 3
_SIDES = ("source", "target")
REASONS = ("recording_in_test", "source_words_in_test", "target_words_in_test")


@dataclass(frozen=True, eq=False)
class Kept:
    """Examples that share nothing with the test set, and how many were dropped by reason."""

    examples: pl.DataFrame
    dropped: Mapping[str, int]


def without_test(examples: pl.DataFrame, test: pl.DataFrame) -> Kept:
    """Drop what the test set holds too; an example is counted under the first reason that fits."""
    reasons = _reasons(examples, test)
    counts = {reason: int((reasons == reason).sum()) for reason in REASONS}
    return Kept(examples.filter(reasons == ""), {reason: count for reason, count in counts.items() if count})


def refuse_leaks(examples: pl.DataFrame, test: pl.DataFrame, what: str) -> None:
    """Stop where training would hear or read anything of the test set.

    Raises:
        SettingsError: it would; the first few examples are named.
    """
    reasons = _reasons(examples, test)
    leaked = examples.filter(reasons != "")
    if leaked.is_empty():
        return
    told = [f"{name} ({why})" for name, why in zip(leaked["example"], reasons.filter(reasons != ""), strict=True)]
    more = ", …" if len(told) > SHOWN else ""
    raise SettingsError(
        f"{leaked.height} of {examples.height} examples of {what} are in the test set too: "
        f"{', '.join(told[:SHOWN])}{more}.",
        expected="no recording and no sentence in both",
        cause="the splits were dealt without looking at what is said, or one set is named twice",
        fix="name a set whose splits share nothing, or drop from train what the test set has",
    )


def _reasons(examples: pl.DataFrame, test: pl.DataFrame) -> pl.Series:
    """Of each example why it may not be trained on; "" where it may."""
    recordings = {one for side in _SIDES for one in test[f"{side}_recording"] if one is not None}
    words = words_of(test)
    heard = [
        any(one in recordings for one in both)
        for both in zip(*(examples[f"{side}_recording"] for side in _SIDES), strict=True)
    ]
    said = {side: [key in words[side] for key in word_keys(examples, side)] for side in _SIDES}
    fits = zip(heard, said["source"], said["target"], strict=True)
    return pl.Series(
        [next((reason for reason, yes in zip(REASONS, row, strict=True) if yes), "") for row in fits],
        dtype=pl.String(),
    )
