"""Run by an interpreter that has stopes: its `mine` on files of distances and rows, and its processor seconds.

    python mining_stopes.py FOLDER THRESHOLD

What it imports to blend in scores of prosody, which are not asked for, is left out: it needs transformers and librosa.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import types
from pathlib import Path

UNUSED = types.ModuleType("stopes.eval.auto_pcp.audio_comparator")
UNUSED.Comparator = UNUSED.get_model_pred = None  # type: ignore[attr-defined]
sys.modules[UNUSED.__name__] = UNUSED

from stopes.modules.bitext.mining.mine_bitext_indexes_utils import mine  # type: ignore # noqa: E402


def main(folder: Path, threshold: float) -> None:
    """Mine by its defaults: the union of both directions, the nearest neighbour for each row."""
    files = [[folder / f"{name}.npy"] for name in ("forward_dist", "backward_dist", "forward_rows", "backward_rows")]
    began, began_wall = time.process_time(), time.perf_counter()
    found = mine(*files, 16, 16, 1, threshold, False, "ratio", "union", False, logging.getLogger("stopes"))
    seconds, wall = time.process_time() - began, time.perf_counter() - began_wall
    print(json.dumps({"processor_s": seconds, "wall_s": wall, "pairs": len(found.scores)}))


main(Path(sys.argv[1]), float(sys.argv[2]))
