"""The current version of a student: which one embeds, since when, and what it took the place of.

A student is trained as often as one likes; nothing is embedded with it until a version is promoted, and every promotion
is kept. Whether a version is good enough is `speech_mining.evaluation.comparison`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from speech_mining.errors import EncoderError
from speech_mining.lake import Lake
from speech_mining.records import Schema

CURRENT = "current_encoder"
TRAINED = "student_encoder"
TABLE = "promotions.parquet"
PROMOTIONS: Schema = {
    "number": pl.Int32(),  # from 1
    "version": pl.String(),
    "previous": pl.String(),  # null: the first
    "error": pl.Float64(),  # mean over the searches of its evaluation
    "reason": pl.String(),  # why in spite of a worse evaluation, or empty
}


@dataclass(frozen=True)
class Promotion:
    """What becomes current, and why."""

    version: str
    error: float
    reason: str = ""


def weights_file(student: str) -> str:
    """The file of a student's weights, in what is trained and in what is current; an encoder is named after it."""
    return f"{student}.safetensors"


def previous_file(student: str) -> str:
    """The weights that were current before, kept to go back to."""
    return f"{student}.previous.safetensors"


def promoted_weights(lake: Lake, student: str) -> Path:
    """The weights of the current version, as a local file.

    Raises:
        EncoderError: none was promoted yet.
    """
    current = lake.find(CURRENT, student)
    if current is None:
        raise EncoderError(
            f"No version of the student {student} is current.",
            expected="a version that was trained, evaluated and promoted",
            cause="it was not promoted yet: that is always done by hand",
            fix=f"materialize current_encoder, partition {student}",
        )
    return current.local_path(weights_file(student))


def promotions(lake: Lake, student: str) -> pl.DataFrame:
    """`PROMOTIONS` of a student, oldest first."""
    current = lake.find(CURRENT, student)
    return current.read_table(TABLE, PROMOTIONS) if current else pl.DataFrame(schema=dict(PROMOTIONS))


def current_version(lake: Lake, student: str) -> str | None:
    """The version in force; None before the first promotion."""
    known = promotions(lake, student)
    return str(known["version"][-1]) if known.height else None


def promote(lake: Lake, student: str, promotion: Promotion) -> pl.DataFrame:
    """Make the trained version current, or the previous one again, and keep what it takes the place of.

    Returns:
        `PROMOTIONS`, the new one last; unchanged where the version is current already.

    Raises:
        EncoderError: the version is neither the one that was trained last nor the previous one.
    """
    known, current = promotions(lake, student), lake.find(CURRENT, student)
    now = current_version(lake, student)
    if promotion.version == now:
        return known
    trained = lake.partition(TRAINED, student)
    previous = known["previous"][-1] if known.height else None
    if promotion.version not in (trained.read_json("training.json")["version"], previous):
        raise EncoderError(
            f"Version {promotion.version} of the student {student} is not there.",
            expected=f"{trained.read_json('training.json')['version']}, or the previous one, {previous or 'none yet'}",
            cause="it was trained again since, or the version is mistyped",
        )
    row = (known.height + 1, promotion.version, now, promotion.error, promotion.reason)
    told = pl.concat([known, pl.DataFrame([row], schema=dict(PROMOTIONS), orient="row")])
    with lake.replace(CURRENT, student) as new:
        if current is not None:
            new.reuse(current, weights_file(student), previous_file(student))
        if current is not None and promotion.version == previous:
            new.reuse(current, previous_file(student), weights_file(student))
        else:
            new.reuse(trained, weights_file(student))
        new.write_table(TABLE, told, PROMOTIONS)
    return told
