"""Neighbours in a file, with what they were found in: so that margins and thresholds can be tried without searching.

One .npz that `numpy.load` opens: the four tables of `Neighbours`, and `told`, a line of JSON that names the engine and
the fingerprints of both sides.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speech_mining.atomic import replacing
from speech_mining.errors import EmbeddingError
from speech_mining.knn.fingerprint import Origin
from speech_mining.knn.neighbours import Neighbours

FORMAT = 1
TABLES = ("forward_rows", "forward_cosines", "backward_rows", "backward_cosines")


def write_neighbours(found: Neighbours, path: Path, origin: Origin) -> None:
    """Write neighbours with the fingerprints of the two sides; a kill leaves the old file or the new one.

    The same neighbours of the same files give the same bytes.
    """
    told = {"format": FORMAT, "engine": found.engine, "recall": str(found.recall), **origin.fingerprints()}
    tables: dict[str, Any] = {name: getattr(found, name) for name in TABLES}
    tables["told"] = np.frombuffer(json.dumps(told, sort_keys=True).encode(), np.uint8)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **tables)


def read_neighbours(path: Path, origin: Origin, k: int, engine: str = "auto") -> Neighbours:
    """Read neighbours of these two sides.

    More neighbours than asked for are cut: the first k of a longer list are the list of k. The exact engines give the
    same bytes, so those of one serve for all.

    Args:
        path: what `write_neighbours` wrote.
        origin: the two sides at hand.
        k: neighbours wanted in each direction.
        engine: the one asked for. Neighbours of an approximate search serve only who asks for it.

    Raises:
        EmbeddingError: no such file, or it holds other neighbours than those; what differs is named.
    """
    tables, told = _read(path)
    found = _neighbours(tables, told, f"neighbours were read from {path}")
    differing = origin.differences(told)
    if found.k < k:
        differing.append(f"{found.k} neighbours a row were kept and {k} are asked for")
    if (found.engine == "ivf") != (engine == "ivf"):
        differing.append(f"they were found by {found.engine} and {engine} is asked for")
    if differing:
        raise EmbeddingError(
            f"{path} holds neighbours of another search: {', '.join(differing)}.",
            expected="neighbours of these two matrices, at least as many as asked for",
            fix="give another file name, or remove this one to search again",
        )
    cut = {name: np.ascontiguousarray(table[:, :k]) for name, table in tables.items()}
    return _neighbours(cut, told, found.reason)


def _neighbours(tables: Mapping[str, Any], told: Mapping[str, Any], reason: str) -> Neighbours:
    forward, backward = ((tables[f"{side}_rows"], tables[f"{side}_cosines"]) for side in ("forward", "backward"))
    return Neighbours(*forward, *backward, told["engine"], reason, float(told["recall"]))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    expected = "a file that s2s mine --neighbours wrote"
    if not path.is_file():
        raise EmbeddingError(f"There is no file {path}.", expected=expected)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            told = json.loads(kept["told"].tobytes())
            tables = {name: kept[name] for name in TABLES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise EmbeddingError(
            f"{path} does not hold neighbours ({error}).",
            expected=expected,
            cause="it is another kind of file, or was damaged",
            fix="give another file name, or remove this one to search again",
        ) from error
    if told.get("format") != FORMAT:
        raise EmbeddingError(f"{path} is of format {told.get('format')}.", expected=f"format {FORMAT}")
    return tables, told
