"""Dealing clips to train, dev and test, where a set comes without.

A clip's place depends on its group's name and the seed alone, so that growth of the set moves nobody.
"""

from __future__ import annotations

import hashlib

import polars as pl

from speech_mining.errors import SettingsError
from speech_mining.evaluation.wording import normalised
from speech_mining.transcribed.sets import in_order

GROUPS = ("speaker", "transcription", "clip")


def split_by_hash(
    clips: pl.DataFrame, *, dev_share: float, test_share: float, by: str = "speaker", seed: int = 0
) -> pl.DataFrame:
    """Deal every clip anew, whatever split it is in; no group is in two splits.

    Shares are of groups, and met on average: of ten speakers, a share of 0.1 may be none or three. Clips of no speaker
    are each a group of their own, and those without transcription are grouped by their translation.

    Args:
        clips: columns of `records.TRANSCRIBED`.
        dev_share: of the groups, in [0, 1).
        test_share: likewise; together less than 1.
        by: what must not be in two splits; transcriptions are compared as `evaluation.wording.normalised`.
        seed: another deals otherwise.

    Returns:
        the same clips, sorted as in `sets`.

    Raises:
        SettingsError: shares that leave nothing to train on, or an unknown group.
    """
    if by not in GROUPS:
        raise SettingsError(f"There is no group {by!r}.", expected=f"one of {', '.join(GROUPS)}")
    if not (dev_share >= 0 and test_share >= 0 and dev_share + test_share < 1):
        raise SettingsError(
            f"Shares of dev and test are {dev_share} and {test_share}.", expected="none negative, together less than 1"
        )
    names = [_group(row, by) for row in clips.iter_rows(named=True)]
    dealt = {name: _split(_fraction(seed, by, name), dev_share, test_share) for name in set(names)}
    return in_order(clips.with_columns(pl.Series("split", [dealt[name] for name in names], pl.String())))


def _group(row: dict[str, str | None], by: str) -> str:
    """The group's name; what stands in for it where it is not known cannot be mistaken for one."""
    text = row["transcription"] or row["translation"]
    if by == "speaker" and row["speaker"]:
        return f"speaker {row['speaker']}"
    if by == "transcription" and text:
        return f"text {normalised(text)}"
    return f"clip {row['clip']}"


def _fraction(seed: int, by: str, name: str) -> float:
    """Uniform in [0, 1), the same on any machine."""
    digest = hashlib.blake2b(f"{seed}/{by}/{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def _split(fraction: float, dev_share: float, test_share: float) -> str:
    if fraction < test_share:
        return "test"
    return "dev" if fraction < test_share + dev_share else "train"
