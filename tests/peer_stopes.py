"""Run by an interpreter that has stopes, never by ours: its own functions on files, without hydra or submitit.

    python peer_stopes.py FOLDER...

Each folder holds source.npy, target.npy and asked.json: k, and ways to mine by name. Each way gives <name>.npz, or
<name>.error with the name of the exception.
"""

from __future__ import annotations

import ast
import json
import logging
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import faiss
import numpy as np

# `mine` imports it to blend in scores of prosody, which are not asked for; it needs transformers and librosa
UNUSED = types.ModuleType("stopes.eval.auto_pcp.audio_comparator")
UNUSED.Comparator = UNUSED.get_model_pred = None  # type: ignore[attr-defined]
sys.modules[UNUSED.__name__] = UNUSED

from stopes.modules.bitext.indexing.train_index import train_index  # type: ignore[import-not-found] # noqa: E402
from stopes.modules.bitext.mining import calculate_distances_utils as distances  # type: ignore # noqa: E402
from stopes.modules.bitext.mining.mine_bitext_indexes_utils import mine  # type: ignore # noqa: E402
from stopes.modules.bitext.mining.mine_bitext_sentences_utils import Alignments  # type: ignore # noqa: E402

LAST_STAGE = "stopes.modules.bitext.mining.mine_bitext_sentences"


def search(folder: Path, queries: str, base: str, k: int, as_fp16: bool) -> tuple[Path, Path]:
    """Its Flat index of one side, searched with the other: files of squared distances and of rows."""
    rows = np.load(folder / f"{base}.npy")
    index = train_index(folder / f"{base}.npy", "Flat", rows.shape[1], gpu=False, dtype=np.float32)
    faiss.normalize_L2(rows)
    index.add(rows)
    file = folder / f"{queries}.npy"
    found = distances.compute_distances(file, index, rows.shape[1], np.float32, k, True, 512, as_fp16)
    files: tuple[Path, Path] = distances.save_to_disk(*found, folder / f"{queries}.{as_fp16}", as_fp16)
    return files


def lose_a_neighbour(files: tuple[Path, Path]) -> None:
    """What FAISS answers where an inverted list has too few rows, as `compute_distances` would store it."""
    found, rows = np.load(files[0]), np.load(files[1])
    found[0, -1], rows[0, -1] = np.finfo(np.float32).max, np.int64(-1).astype(np.uint32)
    np.save(files[0], found)
    np.save(files[1], rows)


def mined(folder: Path, k: int, way: dict[str, Any]) -> Any:
    """Its `mine` with its default of one pair a row."""
    forward, backward = (
        search(folder, *sides, k, way["fp16"]) for sides in (("source", "target"), ("target", "source"))
    )
    if way["lose"]:
        lose_a_neighbour(forward)
    files = [forward[0]], [backward[0]], [forward[1]], [backward[1]]
    log = logging.getLogger("stopes")
    return mine(*files, k, k, 1, way["threshold"], False, way["margin"], way["type"], way["sort"], log)


def score_max() -> float:
    """The default in the text of its module, which Python 3.11 refuses to import."""
    spec = find_spec(LAST_STAGE)
    assert spec is not None and spec.origin is not None
    fields = [node for node in ast.walk(ast.parse(Path(spec.origin).read_text())) if isinstance(node, ast.AnnAssign)]
    (default,) = [f.value for f in fields if isinstance(f.target, ast.Name) and f.target.id == "score_max"]
    return float(ast.literal_eval(default))  # type: ignore[arg-type]


def main(folder: Path) -> None:
    """Mine in each of the ways asked for."""
    asked = json.loads((folder / "asked.json").read_text())
    for name, way in asked["ways"].items():
        try:
            found = mined(folder, asked["k"], way)
        except Exception as error:
            (folder / f"{name}.error").write_text(type(error).__name__)
            continue
        np.savez(folder / "mined.npz", scores=found.scores, src_idx=found.src_idx, trg_idx=found.tgt_idx, bwd_pos=[])
        left = len(Alignments.from_npz(folder / "mined.npz", way["threshold"], score_max()).scores)
        arrays = {"score": found.scores, "source": found.src_idx, "target": found.tgt_idx}
        np.savez(folder / f"{name}.npz", **arrays, score_max=score_max(), after_last_stage=left)


for asked_folder in sys.argv[1:]:
    main(Path(asked_folder))
