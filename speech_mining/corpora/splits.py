"""Train, dev and test: nobody is heard in two of them.

What belongs here is which split a row of a corpus is in. What a row is, is said by `manifest`.

The rule. An audiobook and a reader each have a place, which is a hash of their name and nothing else. A row is in a
split when all that it hangs on has that place: the audiobooks and the readers of every spoken side. A row whose parts
have different places is in none, and counted as `between`: it may not be trained on, since the test would be heard in
it, and not be tested on, since it was trained on.

Why not whole connected components, each in one split. A reader reads many books and a book has many readers, so that
nearly everything is one component (in the miniature library everything is), which leaves no dev and no test. And a new
book that joins two components would move one of them. By this rule

- growth moves nothing: the split of a row depends on the row alone, not on what else is in the corpus;
- no component of what is kept crosses splits, in any pair of languages and through any pivot: an English audiobook is
  in the same split in deu-eng and eng-fra, so that corpora of several pairs may be trained on together.

The price is the rows between. Of two sides, each with a share d held out, (1-d)² are for training and about 2d(1-d)
are between: with 5 % dev and 5 % test of solo readings, 81 % train, 0.25 % dev, 0.25 % test, 18.5 % between.
An audiobook is placed by its readers where it has one, so that a solo reading is one choice and not two; an audiobook
of many is placed by its own name, and its sections whose readers are placed elsewhere are between. When the first
section by a second reader arrives, rows of that audiobook may become `between`; none comes into another split.
A written side is not held apart: a sentence stands in one row of a corpus only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from speech_mining.errors import SettingsError

VERSION = "1"
SPLITS = ("train", "dev", "test")
BETWEEN = "between"
"""Of rows that are in no split, since their parts are in different ones."""
_OUT_OF = 2**32


@dataclass(frozen=True)
class Shares:
    """How much is held out: shares of audiobooks and readers, each side for itself."""

    dev: float = 0.05
    test: float = 0.05

    def __post_init__(self) -> None:
        if not (0 <= self.dev and 0 <= self.test and self.dev + self.test < 1):
            raise SettingsError(
                f"Shares of {self.dev} for dev and {self.test} for test cannot be.",
                expected="both from 0 upward, together less than 1",
            )


def place(name: str, shares: Shares) -> str:
    """The split of an audiobook or a reader, for ever: test where its hash is smallest, then dev, then train.

    A larger share only adds: what was held out stays so.
    """
    drawn = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") / _OUT_OF
    if drawn < shares.test:
        return "test"
    return "dev" if drawn > 1 - shares.dev else "train"


def with_splits(rows: pl.DataFrame, readers: Mapping[str, Sequence[str]], shares: Shares) -> pl.DataFrame:
    """Say of every row which split it is in.

    Args:
        rows: of a corpus: of each spoken side the columns `…_audiobook` and `…_readers`.
        readers: audiobook → what `readers` says of each of its sections, in any order.
        shares: what is held out.

    Returns:
        the rows in their order, and a column `split`: train, dev, test or between.
    """
    spoken = [side for side in ("source", "target") if f"{side}_audiobook" in rows.columns]
    keys = [f"{side}_{name}" for side in spoken for name in ("audiobook", "readers")]
    known = rows.select(keys).unique()
    splits = [_split_of(row, readers, shares) for row in known.iter_rows(named=True)]
    named = known.with_columns(pl.Series("split", splits, dtype=pl.String))
    return rows.join(named, on=keys, how="left", maintain_order="left", nulls_equal=True)


def counted(rows: pl.DataFrame) -> dict[str, int]:
    """Rows of each split, and those between."""
    counts = dict(rows.group_by("split").len().iter_rows())
    return {split: counts.get(split, 0) for split in (*SPLITS, BETWEEN)}


def reader_names(told: str) -> list[str]:
    """The readers that a section names: `Ann, Bob` are two."""
    return sorted({name.strip().casefold() for name in told.split(",") if name.strip()})


def _split_of(row: Mapping[str, str], readers: Mapping[str, Sequence[str]], shares: Shares) -> str:
    names: set[str] = set()
    for key, book in row.items():
        if key.endswith("_audiobook"):
            heard = reader_names(row[key.replace("_audiobook", "_readers")] or "")
            everyone = sorted({name for told in readers.get(book, ()) for name in reader_names(told)} | set(heard))
            names |= {f"reader/{name}" for name in heard}
            names |= set() if len(everyone) == 1 else {f"audiobook/{book}"}
    places = {place(name, shares) for name in names}
    return places.pop() if len(places) == 1 else BETWEEN
