"""Teaching a neural student a teacher's space: from examples to one file of weights, through kills.

What belongs here is the face of the training; the loop is `speech_mining.training.trainer`, which needs torch.
Importing this module loads no torch.

Duquenne, Gong & Schwenk 2021, "Multimodal and multilingual embeddings for large-scale speech mining", section 2.
Khurana, Laurent & Glass 2022, "SAMU-XLSR: semantically-aligned multimodal utterance-level cross-lingual speech
representation", section II.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from speech_mining.progress import Progress, silent
from speech_mining.training.configuration import StudentConfig
from speech_mining.training.examples import Examples

CURVES = {
    "update": pl.Int64(),  # 0: before the first
    "loss": pl.Float64(),  # mean over the examples since the row before; null at update 0
    "learning_rate": pl.Float64(),  # of the update
    "dev_loss": pl.Float64(),
    "dev_recall_at_1": pl.Float64(),  # mean over languages, each clip among its language's sentences
    "examples": pl.Int64(),  # heard so far
    "seconds_of_audio": pl.Float64(),  # heard so far
}


@dataclass(frozen=True, eq=False)
class TrainedStudent:
    """What training leaves.

    Args:
        weights: `folder/student.safetensors`, the best by R@1 on the dev clips, then by loss.
        curves: columns `CURVES`, a row an examination.
        best_update: the update that `weights` are of.
        resumed_from: the update that this call started from; 0 for the start.
        left_out: clips that were not trained on, counted by reason.
        skipped_updates: updates not made because the loss was no number, or no clip of theirs could be read.
    """

    weights: Path
    curves: pl.DataFrame
    best_update: int
    resumed_from: int
    left_out: Mapping[str, int]
    skipped_updates: int


def quiet(line: str) -> None:
    """Tell nobody."""


def train_student(
    train: Examples,
    dev: Examples,
    config: StudentConfig,
    folder: Path,
    *,
    progress: Progress = silent,
    tell: Callable[[str], None] = quiet,
) -> TrainedStudent:
    """Train a student, or go on where a killed training of the same configuration and data stopped.

    On the CPU, with the same number of threads, a training that was killed any number of times leaves the same bytes
    as one that was not.

    Args:
        train: what is taught.
        dev: what the student is examined on, in the same space.
        config: how.
        folder: scratch that survives a kill: checkpoints, the best weights so far, TensorBoard's files.
        progress: told the updates done.
        tell: told, in words, what was resumed, left out or given up.

    Raises:
        EncoderError: nothing to train or examine on, weights that cannot be started from, or a loss that is no number
            for many updates in a row.
    """
    from speech_mining.training.trainer import run

    return run(train, dev, config, folder, progress=progress, tell=tell)
