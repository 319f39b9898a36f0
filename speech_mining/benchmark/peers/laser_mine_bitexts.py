"""LASER: its `knn` and then the main part of its `source/mine_bitexts.py`, run from a checkout as they stand.

The script imports LASER's encoders at its top, which need fairseq and are of no use to mining; its imports from them
and its check of the environment are left out, its functions and its main part run unchanged. Texts and embeddings are
handed over in memory (loading is not timed), and so are the neighbours it has just found.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NAME = "laser"
SCRIPT = "source/mine_bitexts.py"


def version(asked: Any) -> str:
    """LASER's script carries no number."""
    digest = hashlib.sha256((Path(asked["laser"]) / SCRIPT).read_bytes()).hexdigest()
    return f"mine_bitexts.py sha256 {digest[:12]}"


class Contender:
    """Forward and backward search by its `knn` on the CPU, then `--mode mine --retrieval max --margin ratio`."""

    mines = True
    note = "knnCPU (IndexFlatIP) in both directions, then --mode mine --retrieval max --margin ratio"

    def __init__(self, asked: Any) -> None:
        import faiss

        faiss.omp_set_num_threads(asked["threads"])
        self._asked = asked
        self._names, self._main = _split(Path(asked["laser"]) / SCRIPT)
        self._source, self._target = np.load(asked["source"]), np.load(asked["target"])

    def search(self) -> None:
        """Its `knn`, with the least of k and the rows there are, as its main part calls it."""
        x, y, k, knn = self._source, self._target, self._asked["k"], self._names["knn"]
        self._forward = knn(x, y, min(len(y), k), False)
        self._backward = knn(y, x, min(len(x), k), False)

    def mine(self) -> None:
        """Run its main part; the first call of `knn` there is source against target."""
        sides = {"source": self._source, "target": self._target}
        found = iter([self._forward, self._backward])
        handed = {
            "TextLoadUnify": lambda name, args: (range(len(sides[name])), range(len(sides[name]))),
            "EmbedLoad": lambda name, *_, **__: sides[name].copy(),
            "knn": lambda *_: next(found),
        }
        words, sys.argv = sys.argv, self._words()
        try:
            exec(self._main, {**self._names, **handed})
        finally:
            sys.argv = words

    def _words(self) -> list[str]:
        asked = self._asked
        return [
            *("mine_bitexts.py", "source", "target", "--src-lang", "src", "--trg-lang", "trg", "--mode", "mine"),
            *("--src-embeddings", "source", "--trg-embeddings", "target", "--dim", str(self._source.shape[1])),
            *("--margin", "ratio", "--retrieval", "max", "--neighborhood", str(asked["k"])),
            *("--threshold", str(asked["threshold"]), "--output", str(self._output())),
        ]

    def _output(self) -> Path:
        return Path(self._asked["scratch"]) / "laser.tsv"

    def tables(self) -> dict[str, npt.NDArray[Any]]:
        """With fewer rows than k its lists are shorter."""
        return {"forward_rows": self._rows(self._forward), "backward_rows": self._rows(self._backward)}

    def _rows(self, found: Any) -> npt.NDArray[np.int64]:
        rows = np.full((len(found[1]), self._asked["k"]), -1, np.int64)
        rows[:, : found[1].shape[1]] = found[1]
        return rows

    def pairs(self) -> dict[str, npt.NDArray[Any]]:
        """From the file it wrote: a row's number stood for its text."""
        lines = [line.split("\t") for line in self._output().read_text().splitlines()]
        columns = np.array(lines, dtype=np.float64).reshape(-1, 3).T
        return {"score": columns[0], "source": columns[1].astype(np.int64), "target": columns[2].astype(np.int64)}


def _split(script: Path) -> tuple[dict[str, Any], Any]:
    """Its imports and functions, executed, and its main part, compiled."""
    tree = ast.parse(script.read_text(), str(script))
    kept: list[ast.stmt] = [node for node in tree.body if isinstance(node, (ast.Import, ast.FunctionDef))]
    main: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.If)]
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(ast.Module(kept, []), str(script), "exec"), names)
    return names, compile(ast.Module(main, []), str(script), "exec")
