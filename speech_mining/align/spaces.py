"""The form in which two spaces are compared, and the map between them as it is kept on disk.

What belongs here is the arithmetic of a map that is known. How it is found is in `alignment`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.atomic import replacing
from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.knn.vectors import normalised_parts

FORMAT = "speech-mining-map-1"
LEAST_LENGTH = 1e-6
"""Rows shorter than this have no direction: float32 leaves 1e-7 of rows that all lie at their mean."""
STEPS = ("unit", "centre")
"""`unit` divides rows by their length, `centre` takes their mean away."""
USUAL = ("unit", "centre", "unit")
"""Artetxe, Labaka & Agirre, "Learning principled bilingual mappings of word embeddings", 2016; vecmap's choice too."""

Matrix: TypeAlias = npt.NDArray[np.float32]


def read_steps(told: str) -> tuple[str, ...]:
    """Steps as a user writes them: names with commas, or "none".

    Raises:
        SettingsError: another name, or more than one mean to take away.
    """
    steps = tuple(step.strip() for step in told.split(",")) if told != "none" else ()
    if any(step not in STEPS for step in steps) or steps.count("centre") > 1:
        raise SettingsError(
            f"Rows cannot be normalised by {told!r}.",
            expected="'none', or some of 'unit' and 'centre' with commas, 'centre' at most once",
            fix="leave it at 'unit,centre,unit'",
        )
    return steps


@dataclass(frozen=True, eq=False)
class Form:
    """How rows are made alike before they are compared."""

    steps: tuple[str, ...]
    mean: Matrix
    """float32 (d,): what `centre` takes away; of all rows of the side that the map was learned from."""

    @classmethod
    def learned(cls, rows: Any, steps: tuple[str, ...] = USUAL, name: str = "The matrix") -> Form:
        """Take the mean of a side, summed in float64, some rows at a time.

        Args:
            rows: floating point (n, d): an array, a memory map or a `Stack`.
            steps: some of `STEPS`.
            name: what the matrix is called in errors.

        Raises:
            EmbeddingError: not such a matrix; NaN, infinite and zero rows are named.
        """
        total, before = np.zeros(rows.shape[1:], np.float64), _before_centre(steps)
        for _, part in _parts(rows, before, name):
            total += part.sum(axis=0, dtype=np.float64)
        return cls(steps, (total / max(1, len(rows)) * ("centre" in steps)).astype(np.float32))

    def parts(self, rows: Any, name: str = "The matrix") -> Iterator[tuple[slice, Matrix]]:
        """Make rows alike, some at a time: which rows, and float32 (…, d).

        Raises:
            EmbeddingError: rows of another dimension, or that cannot be brought into this form.
        """
        self._check(rows, name)
        before = _before_centre(self.steps)
        for part, made in _parts(rows, before, name):
            for step in self.steps[len(before) :]:
                made = made - self.mean if step == "centre" else unit(made, part.start, name)
            yield part, made

    def apply(self, rows: Any, name: str = "The matrix") -> Matrix:
        """Make rows alike: float32 (n, d)."""
        made = np.empty(rows.shape, np.float32)
        for part, of_part in self.parts(rows, name):
            made[part] = of_part
        return made

    def _check(self, rows: Any, name: str) -> None:
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise EmbeddingError(
                f"{name} has shape {' x '.join(map(str, rows.shape))}, and the map takes rows of {len(self.mean)}.",
                expected=f"a matrix of {len(self.mean)} columns",
                cause="the two sides were exchanged, or embedded by another encoder than the map was learned for",
            )


@dataclass(frozen=True, eq=False)
class Side:
    """How rows of one side come into the common space: made alike, times `weights`, at unit length."""

    form: Form
    weights: Matrix
    """float32 (d, c), c the dimension of the common space."""

    def parts(self, rows: Any, name: str = "The matrix") -> Iterator[tuple[slice, Matrix]]:
        """Map rows some at a time, for matrices larger than memory: which rows, and float32 unit rows (…, c).

        Raises:
            EmbeddingError: rows of another dimension, or without a direction; they are named.
        """
        for part, made in self.form.parts(rows, name):
            yield part, unit(made @ self.weights, part.start, name)

    def apply(self, rows: Any, name: str = "The matrix") -> Matrix:
        """Map rows (n, d) of any length to unit rows float32 (n, c); raises as `parts`."""
        mapped = np.empty((len(rows), self.weights.shape[1]), np.float32)
        for part, of_part in self.parts(rows, name):
            mapped[part] = of_part
        return mapped


@dataclass(frozen=True, eq=False)
class SpaceMap:
    """What brings two spaces together."""

    source: Side
    target: Side
    facts: Mapping[str, str]
    """How it was found: method, seed, criterion."""

    def save(self, path: Path) -> None:
        """Write it as .npz, whole or not at all; equal maps have equal bytes."""
        arrays: dict[str, Any] = {}
        for name, side in (("source", self.source), ("target", self.target)):
            arrays |= {f"{name}_mean": side.form.mean, f"{name}_weights": side.weights}
        steps = ",".join(self.source.form.steps) or "none"
        told = {**self.facts, "format": FORMAT, "normalise": steps}
        arrays["facts"] = np.array([f"{name}={value}" for name, value in sorted(told.items())])
        with replacing(path) as part, part.open("wb") as written:
            np.savez(written, **arrays)

    @classmethod
    def load(cls, path: Path) -> SpaceMap:
        """Read a map.

        Raises:
            EmbeddingError: no such file, or no map in it.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                facts = dict(str(line).split("=", 1) for line in found["facts"])
                steps = read_steps(facts.pop("normalise", "none"))
                names = ("source", "target")
                sides = [Side(Form(steps, found[f"{name}_mean"]), found[f"{name}_weights"]) for name in names]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
            raise EmbeddingError(
                f"{path} holds no map ({error}).",
                expected="a file that `s2s align --out` wrote",
                fix="s2s align SRC.npy TGT.npy --out map.npz",
            ) from None
        if facts.pop("format", "") != FORMAT:
            raise EmbeddingError(f"{path} is no map of this version.", expected=FORMAT, fix="align again")
        return cls(sides[0], sides[1], facts)


def unit(rows: npt.NDArray[Any], first: int = 0, name: str = "The matrix") -> Matrix:
    """Rows at length 1, float32.

    Args:
        rows: finite rows, which have been checked, and then centred or mapped.
        first: number of the first of them, for the error.
        name: what the matrix is called in the error.

    Raises:
        EmbeddingError: rows that have no direction.
    """
    wide = np.asarray(rows, np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    wrong = np.flatnonzero(~((lengths[:, 0] > LEAST_LENGTH) & np.isfinite(lengths[:, 0])))
    if len(wrong):
        raise EmbeddingError(
            f"{name} has {len(wrong)} rows that lie at the mean of their side, the first is row {first + wrong[0]}.",
            expected="rows that differ from each other",
            cause="one input was embedded again and again, or the encoder gives the same for all",
            fix="leave those rows out, or normalise by 'unit' alone",
        )
    made: Matrix = wide / lengths
    return made


def _before_centre(steps: tuple[str, ...]) -> tuple[str, ...]:
    return steps[: steps.index("centre")] if "centre" in steps else steps


def _parts(rows: Any, steps: tuple[str, ...], name: str) -> Iterator[tuple[slice, Matrix]]:
    """Checked rows, at unit length where a step says so."""
    for part, of_unit_length in normalised_parts(rows, name):
        yield part, of_unit_length if "unit" in steps else np.asarray(rows[part], np.float32)
