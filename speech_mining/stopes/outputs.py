"""Mined pairs in the shapes that stopes' later stages read.

    PREFIX.align.npz        scores float32, src_idx and trg_idx uint32, bwd_pos int64: places of pairs that only the
                            backward direction found (`mine_bitext_indexes`)
    PREFIX.bitext.tsv.gz    score, source text, target text; best first (`mine_bitext_sentences`)
    PREFIX.bimeta.tsv.gz    score, source metadata, target metadata, fwd or bwd; line by line with the bitext

The tables are written by Python's `csv` as stopes does: fields with quotes or tabs are quoted, lines end in CRLF. A
pair of texts is written once, with its best score. Unlike stopes, no pair is left out for a score that is too good.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speech_mining.atomic import replacing
from speech_mining.errors import EmbeddingError, SettingsError

if TYPE_CHECKING:
    from speech_mining.knn.neighbours import Neighbours
    from speech_mining.mining.strategies import Mined

SUFFIX = ".align.npz"
MOST_ROWS = 1 << 32
"""What its uint32 row numbers can tell."""


@dataclass(frozen=True)
class Texts:
    """Files whose lines belong to the rows of a side, end to end; plain, `.gz` or `.xz`."""

    source: tuple[Path, ...]
    target: tuple[Path, ...]
    source_meta: tuple[Path, ...] = ()
    target_meta: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not self.source or not self.target:
            raise SettingsError("Texts of one side only.", expected="those of both, or none")
        if bool(self.source_meta) != bool(self.target_meta):
            raise SettingsError("Metadata of one side only.", expected="those of both, or none")


def only_backward(mined: Mined, found: Neighbours, *, margin: str, best: str) -> npt.NDArray[np.bool_]:
    """Which pairs are not the best of their source row: bool (pairs,)."""
    from speech_mining.mining import strategies

    forward = strategies.mine(found, margin=margin, strategy="forward", best=best, threshold=-np.inf)
    partner = np.full(found.source_count, -1, np.int64)
    partner[forward.source] = forward.target
    return np.asarray(partner[mined.source] != mined.target)


def write_alignments(mined: Mined, backward: npt.NDArray[np.bool_], path: Path) -> None:
    """Write `PREFIX.align.npz`.

    Raises:
        EmbeddingError: a row beyond what 32 bits number.
    """
    last = max((int(rows.max(initial=-1)) for rows in (mined.source, mined.target)), default=-1)
    if last >= MOST_ROWS:
        raise EmbeddingError(f"Row {last} was mined.", expected=f"rows below {MOST_ROWS}, as stopes numbers them")
    with replacing(path) as part, part.open("wb") as file:
        np.savez(
            file,
            scores=mined.score.astype(np.float32),
            src_idx=mined.source.astype(np.uint32),
            trg_idx=mined.target.astype(np.uint32),
            bwd_pos=np.flatnonzero(backward).astype(np.int64),
        )


def write_bitext(
    mined: Mined, backward: npt.NDArray[np.bool_], texts: Texts, rows: tuple[int, int], prefix: Path
) -> dict[str, int]:
    """Write `PREFIX.bitext.tsv.gz` and `PREFIX.bimeta.tsv.gz`; only mined lines are held.

    Args:
        mined: best first.
        backward: bool (pairs,), as `only_backward` tells.
        texts: of both sides.
        rows: of the source and of the target; so many lines the texts must have.
        prefix: of the two files; given with its folder.

    Returns:
        `written`, and `repeated`: pairs whose texts were written already.

    Raises:
        SettingsError: a file cannot be read, or is no UTF-8.
        EmbeddingError: texts of another number of lines than there are rows.
    """
    source, target = (
        _lines(files, wanted, count)
        for files, wanted, count in ((texts.source, mined.source, rows[0]), (texts.target, mined.target, rows[1]))
    )
    metas = {
        side: _lines(files, wanted, count) if files else {}
        for side, files, wanted, count in (
            ("source", texts.source_meta, mined.source, rows[0]),
            ("target", texts.target_meta, mined.target, rows[1]),
        )
    }
    seen: set[tuple[str, str]] = set()
    bitext_path, bimeta_path = (prefix.with_name(f"{prefix.name}.{kind}.tsv.gz") for kind in ("bitext", "bimeta"))
    with _table(bitext_path) as bitext, _table(bimeta_path) as bimeta:
        pairs = zip(mined.score.astype(np.float32), mined.source.tolist(), mined.target.tolist(), backward, strict=True)
        for score, left, right, is_backward in pairs:
            pair = source[left], target[right]
            if pair in seen:
                continue
            seen.add(pair)
            bitext.writerow([str(score), *pair])
            meta = metas["source"].get(left, ""), metas["target"].get(right, "")
            bimeta.writerow([str(score), *meta, "bwd" if is_backward else "fwd"])
    return {"written": len(seen), "repeated": len(mined.score) - len(seen)}


def _lines(files: Sequence[Path], wanted: npt.NDArray[np.int64], rows: int) -> dict[int, str]:
    """The lines of the rows that are wanted."""
    ids = set(wanted.tolist())
    kept: dict[int, str] = {}
    count = 0
    for path in files:
        for line in _read(path):
            if count in ids:
                kept[count] = line.rstrip("\n")
            count += 1
    if count != rows:
        raise EmbeddingError(
            f"{', '.join(path.name for path in files[:3])}{', …' if len(files) > 3 else ''} have {count} lines in all.",
            expected=f"{rows}, one for each row of the embeddings",
            cause="other shards, or shards that are missing",
        )
    return kept


def _read(path: Path) -> Iterator[str]:
    opened: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise SettingsError(
            f"{path} cannot be read ({error}).",
            expected="lines of UTF-8, plain or packed as its suffix says (.gz, .xz)",
        ) from error


@contextmanager
def _table(path: Path) -> Iterator[Any]:
    """A packed table without a time or a name in it, so that equal rows have equal bytes."""
    with replacing(path) as part, part.open("wb") as file:
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            text = io.TextIOWrapper(packed, encoding="utf-8", newline="")
            yield csv.writer(text, delimiter="\t")
            text.flush()
            text.detach()
