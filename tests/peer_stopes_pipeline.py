"""Run by an interpreter that has stopes, never by ours: its pipeline's steps, driven by a configuration as it reads it.

    python peer_stopes_pipeline.py CONFIG.yaml FOLDER [OTHER.align.npz]

Without hydra or submitit, whose launchers need a cluster or a Python before 3.11. FOLDER gets theirs.align.npz and
theirs.bitext.tsv.gz, theirs.bimeta.tsv.gz; with OTHER, also read.bitext.tsv.gz and read.bimeta.tsv.gz: what its last
stage writes from alignments that somebody else made.
"""

from __future__ import annotations

import glob
import logging
import sys
import types
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from omegaconf import OmegaConf  # type: ignore[import-not-found]

UNUSED = types.ModuleType("stopes.eval.auto_pcp.audio_comparator")  # see peer_stopes
UNUSED.Comparator = UNUSED.get_model_pred = None  # type: ignore[attr-defined]
sys.modules[UNUSED.__name__] = UNUSED

from stopes.modules.bitext.indexing.train_index import train_index  # type: ignore[import-not-found] # noqa: E402
from stopes.modules.bitext.mining import calculate_distances_utils as distances  # type: ignore # noqa: E402
from stopes.modules.bitext.mining.mine_bitext_indexes_utils import mine  # type: ignore # noqa: E402
from stopes.modules.bitext.mining.mine_bitext_sentences_utils import Alignments  # type: ignore # noqa: E402
from stopes.utils.embedding_utils import Embedding  # type: ignore[import-not-found] # noqa: E402
from stopes.utils.mining_utils import extract_shard_id  # type: ignore[import-not-found] # noqa: E402

LOG = logging.getLogger("stopes")


def shards(pattern: str, language: str) -> list[str]:
    """As its `_find_data_shards` and `_process_language_shard`."""
    return sorted(glob.glob(pattern.format(lang=language)), key=extract_shard_id)  # noqa: PTH207


def index_of(embeddings: list[str], kind: str) -> Any:
    """Trained on the first shard, populated with all."""
    index = train_index(Path(embeddings[0]), kind, Embedding(embeddings[0]).embedding_dimensions)
    for path in embeddings:
        with Embedding(path).open_for_read() as rows:
            part = np.array(rows, np.float32)
        faiss.normalize_L2(part)
        index.add(part)
    return index


def distances_of(queries: list[str], index: Any, asked: Any, folder: Path, name: str) -> tuple[list[Path], list[Path]]:
    files = []
    for number, path in enumerate(queries):
        found = distances.compute_distances(
            Path(path), index, index.d, np.float32, asked.knn, True, asked.batch_size, asked.save_dists_as_fp16
        )
        files.append(distances.save_to_disk(*found, folder / f"{name}.{number:03d}", asked.save_dists_as_fp16))
    return [pair[0] for pair in files], [pair[1] for pair in files]


def main(config_path: str, folder: Path, other: str = "") -> None:
    """Search, mine, and write texts."""
    config = OmegaConf.load(config_path)
    sides = {name: OmegaConf.merge(config, config.lang_configs[name]) for name in (config.src_lang, config.tgt_lang)}
    embeddings = {name: shards(side.existing_embedding_glob, name) for name, side in sides.items()}
    source, target = config.src_lang, config.tgt_lang
    asked = config.calculate_distances.config
    forward = distances_of(embeddings[source], index_of(embeddings[target], config.index_type), asked, folder, "x2y")
    backward = distances_of(embeddings[target], index_of(embeddings[source], config.index_type), asked, folder, "y2x")
    how = config.mine_indexes.config
    found = mine(
        forward[0],
        backward[0],
        forward[1],
        backward[1],
        how.src_k,
        how.tgt_k,
        how.k_extract,
        how.mine_threshold,
        how.margin_norm == "last",
        how.margin_type,
        how.mine_type,
        how.sort_neighbors,
        LOG,
    )
    arrays = {"src_idx": found.src_idx, "trg_idx": found.tgt_idx, "bwd_pos": found.bwd_pos}
    np.savez(folder / "theirs.align.npz", scores=found.scores, **arrays)
    for name, path in (("theirs", folder / "theirs.align.npz"), *([("read", Path(other))] if other else [])):
        last = config.mine_sentences.config
        alignments = Alignments.from_npz(path, last.mine_threshold, last.score_max)
        alignments.save_texts(
            *(shards(sides[side].data.shard_glob, side) for side in (source, target)),
            *(shards(sides[side].data.meta_glob, side) for side in (source, target)),
            folder / f"{name}.bitext.tsv.gz",
            folder / f"{name}.bimeta.tsv.gz",
            last.dedup_bitexts,
            LOG,
        )


main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:4])
