"""A mine small enough for pods: an audiobook in German, one in English, and the pair of them.

`python -m tests.kubernetes.mini_mine HOME` makes all of it in one process; what the cluster makes is held against it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.kubernetes.cluster import ROOT, image_variables

PAIR = "deu-eng"
BOOK_LAYERS = ("raw_audio", "segments", "speech_embeddings")
PAIR_LAYERS = ("s2s_neighbours", "s2s_pairs", "s2s_corpus")
BLOCKS = {"S2S_FAN_OUT__IN_PLACE": "0", "S2S_FAN_OUT__PRODUCTS": "1", "S2S_FAN_OUT__MOST_BLOCKS": "2"}
"""However small the pair is, pods search it in blocks."""
VARIABLES = {"S2S_LANGUAGES": "deu,eng", "S2S_LIBRIVOX__LIMIT_BOOKS": "1", "S2S_DEVICE": "cpu"}


def mine_in_one_process(home: Path) -> None:
    """Make the whole mine in a process of its own, which sees what a pod sees.

    A variable more is enough for other bytes: OPENBLAS_CORETYPE changed 128 of 277 vectors, by 6e-5 at most.

    Raises:
        subprocess.CalledProcessError: it failed; its words are on the terminal.
    """
    environment = {**image_variables(), **VARIABLES, "HOME": str(home)}
    subprocess.run([sys.executable, "-m", __name__, str(home)], check=True, cwd=ROOT, env=environment)


def contents(lake: Path) -> dict[str, str]:
    """Every file of a lake and the SHA-256 of its bytes."""
    return {
        path.relative_to(lake).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(lake.rglob("*"))
        if path.is_file()
    }


def _mine(home: Path) -> None:
    import dagster as dg

    from demo.home import prepare_home
    from demo.pipeline import first_stages, further_stages, run_stage
    from s2s_assets.definitions import build

    settings = prepare_home(home)
    wanted = {*PAIR_LAYERS, *BOOK_LAYERS, "speech_index"}
    definitions = build(settings)
    with dg.DagsterInstance.get() as instance:
        run_stage(definitions, instance, first_stages(settings)[0], print)
        for stage in further_stages(settings, instance):
            if {asset.path[-1] for asset in stage.assets} <= wanted:
                run_stage(definitions, instance, stage, print)


if __name__ == "__main__":
    _mine(Path(sys.argv[1]))
