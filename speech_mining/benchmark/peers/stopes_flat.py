"""stopes 2.2.1: its Flat index of each side, `compute_distances` with the other, then `mine`, without hydra.

These are the functions that its modules `calculate_distances` and `mine_bitext_indexes` call; the modules themselves
cannot be imported on Python 3.11 (a dataclass with a mutable default). Its Flat index measures squared L2 distance.
Building and reading the index, separate jobs there, is not timed, which favours it by less than a hundredth.
"""

from __future__ import annotations

import logging
import sys
import types
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NAME = "stopes"
INDEX = "Flat"
BATCH_ROWS = 8192
"""Its own default."""
ADDED_ROWS = 1 << 14
"""Rows it adds to an index at a time."""
UNUSED = "stopes.eval.auto_pcp.audio_comparator"
"""What `mine` imports to blend in scores of prosody, which is not asked of it here; it would need librosa, torchaudio
and transformers."""


def version(asked: Any) -> str:
    """Its own and its FAISS's."""
    import faiss

    return f"{installed('stopes')}, faiss {faiss.__version__}"


class Contender:
    """Distances stay float32, where its default would round them to float16."""

    mines = True
    note = "Flat index, float32 distances, union of both directions, best of the k neighbours (sort_neighbors)"

    def __init__(self, asked: Any) -> None:
        import faiss

        faiss.omp_set_num_threads(asked["threads"])
        self._asked, self._folder, self._mine = asked, Path(asked["scratch"]), _mine()
        self._source_index = self._index(Path(asked["source"]), "source")
        self._target_index = self._index(Path(asked["target"]), "target")

    def _index(self, embeddings: Path, side: str) -> Any:
        """Train, populate, write and read again, as its jobs do one after the other."""
        import faiss
        from stopes.modules.bitext.indexing.train_index import train_index  # type: ignore[import-not-found]
        from stopes.modules.bitext.mining.calculate_distances_utils import (  # type: ignore[import-not-found]
            load_index,
        )

        rows = np.load(embeddings)
        index = train_index(embeddings, INDEX, rows.shape[1], gpu=False, dtype=np.float32)
        for first in range(0, len(rows), ADDED_ROWS):
            part = rows[first : first + ADDED_ROWS]
            faiss.normalize_L2(part)
            index.add(part)
        path = str(self._folder / f"{side}.{INDEX}.idx")
        faiss.write_index(index, path)
        return load_index(path, index_type=INDEX, gpu_type="")

    def search(self) -> None:
        """Its search of one index with the file of the other side, in both directions."""
        self._forward = self._distances(self._asked["source"], self._target_index)
        self._backward = self._distances(self._asked["target"], self._source_index)

    def _distances(self, queries: str, index: Any) -> Any:
        from stopes.modules.bitext.mining.calculate_distances_utils import compute_distances

        return compute_distances(
            query_embeddings_file=Path(queries),
            idx=index,
            embedding_dimensions=index.d,
            embedding_dtype=np.float32,
            knn=self._asked["k"],
            normalize_query_embeddings=True,
            batch_size=BATCH_ROWS,
            save_as_fp16=False,
        )

    def mine(self) -> None:
        """Hand over through its files, and mine."""
        from stopes.modules.bitext.mining.calculate_distances_utils import save_to_disk

        forward, backward = (
            save_to_disk(*found, self._folder / name, False)
            for found, name in ((self._forward, "x2y.000"), (self._backward, "y2x.000"))
        )
        try:
            self._mined = self._mine(
                dists_x2y_files=[forward[0]],
                dists_y2x_files=[backward[0]],
                indices_x2y_files=[forward[1]],
                indices_y2x_files=[backward[1]],
                k_src=self._asked["k"],
                k_trg=self._asked["k"],
                k_extract=1,
                threshold=self._asked["threshold"],
                mean_is_last=False,
                margin_type="ratio",
                mine_type="union",
                sort_neighbors=True,
                logger=logging.getLogger("stopes"),
            )
        except TypeError as error:
            if "NoneType.__format__" not in str(error):
                raise
            self._mined = None  # without any pair it fails, on a log line that tells the least and largest margin

    def tables(self) -> dict[str, npt.NDArray[Any]]:
        """Its uint32 rows; with fewer rows than k its lists are shorter."""
        return {"forward_rows": self._rows(self._forward), "backward_rows": self._rows(self._backward)}

    def _rows(self, found: Any) -> npt.NDArray[np.int64]:
        rows = np.full((len(found[1]), self._asked["k"]), -1, np.int64)
        rows[:, : found[1].shape[1]] = found[1]
        return rows

    def pairs(self) -> dict[str, npt.NDArray[Any]]:
        """As it gives them: a pair that is best in both directions comes twice."""
        if self._mined is None:
            return {"score": np.empty(0), "source": np.empty(0, np.int64), "target": np.empty(0, np.int64)}
        mined = self._mined
        return {
            "score": mined.scores,
            "source": mined.src_idx.astype(np.int64),
            "target": mined.tgt_idx.astype(np.int64),
        }


def _mine() -> Any:
    empty = types.ModuleType(UNUSED)
    empty.Comparator = empty.get_model_pred = None  # type: ignore[attr-defined]
    sys.modules.setdefault(UNUSED, empty)
    from stopes.modules.bitext.mining.mine_bitext_indexes_utils import mine  # type: ignore[import-not-found]

    return mine
