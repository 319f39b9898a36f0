"""The loop that trains either network: batches, updates, checkpoints; killed at any moment, it goes on. Imports torch.

Everything random is drawn from the seed and the update's number, as in `training.trainer`, so that a training that
goes on from a checkpoint leaves the weights that it would have left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from speech_mining.downstream.configuration import LearningConfig
from speech_mining.encoders.feeding import feed
from speech_mining.errors import EncoderError
from speech_mining.progress import Progress
from speech_mining.training.checkpoints import Checkpoint, last_checkpoint, save_checkpoint
from speech_mining.training.masking import chance_of
from speech_mining.training.passes import Passes, Place, Update
from speech_mining.training.schedule import learning_rate

VERSION = "1"
"""Raise it when the same configuration and data would train other weights."""
MOST_SKIPPED = 20
_DROPOUT = 23  # what a number is drawn for
_BETAS = (0.9, 0.98)  # Adam's, as fairseq trains S2T
_ROWS_OF_THE_CURVE = 50

Prepared = TypeVar("Prepared")


class Learner(Protocol[Prepared]):
    """What is trained, and how a batch becomes a loss."""

    network: nn.Module
    durations_s: npt.NDArray[np.float64]

    def prepare(self, rows: Sequence[int], number: int) -> Prepared:
        """Read what an update hears; called in a thread."""

    def loss(self, prepared: Prepared, device: torch.device) -> Tensor:
        """Its mean loss, on the device."""


@dataclass(frozen=True)
class Course:
    """One training.

    Args:
        config: how.
        seed: of the start, order, dropout and masks.
        folder: where its checkpoints are, its own.
        device: "cpu", "cuda:0".
        progress: told the updates done; whatever it raises stops the training with a checkpoint behind it.
        tell: told what happens, in words.
    """

    config: LearningConfig
    seed: int
    folder: Path
    device: str
    progress: Progress
    tell: Callable[[str], None]


@dataclass(frozen=True)
class Learned:
    """What a training tells.

    Args:
        losses: (update, mean loss since the one before).
        heard_s: seconds of source audio in all updates.
        skipped: updates without a finite gradient.
    """

    losses: tuple[tuple[int, float], ...]
    heard_s: float
    skipped: int


def train(learner: Learner[Prepared], course: Course) -> Learned:
    """Train a learner's network to the end of its updates, from its last checkpoint on if there is one.

    Raises:
        EncoderError: the loss is no number for many updates in a row.
    """
    return _Training(learner, course).run()


class _Training(Generic[Prepared]):
    def __init__(self, learner: Learner[Prepared], course: Course) -> None:
        self._learner, self._course, self._config = learner, course, course.config
        self._device = torch.device(course.device)
        learner.network.to(self._device)
        self._learned = {name: one for name, one in learner.network.named_parameters() if one.requires_grad}
        self._adam = torch.optim.Adam(self._learned.values(), lr=self._config.peak_rate, betas=_BETAS)
        self._update, self._place = 0, Place()
        self._losses: list[tuple[int, float]] = []
        self._sum, self._count, self._heard_s, self._skipped, self._in_a_row = 0.0, 0, 0.0, 0, 0

    def run(self) -> Learned:
        config = self._config
        self._resume()
        self._course.progress(self._update, config.updates)
        for update, prepared in self._heard_in_advance():
            self._step(update, prepared)
            last = self._update == config.updates
            if last or self._update % max(1, config.updates // _ROWS_OF_THE_CURVE) == 0:
                self._note_loss()
            if last or self._update % config.checkpoint_every == 0:
                self._save()
            self._tell_progress()
        return Learned(tuple(self._losses), self._heard_s, self._skipped)

    def _heard_in_advance(self) -> Iterator[tuple[Update, Prepared]]:
        durations_s = self._learner.durations_s
        passes = Passes(durations_s, ("",) * len(durations_s), 1.0, self._config.batch_seconds, self._course.seed)
        updates = passes.updates(self._update, self._config.updates, 1, self._place)

        def make(update: Update) -> tuple[Update, Prepared]:
            return update, self._learner.prepare([draw.row for draw in update.batches[0]], update.number)

        return feed(updates, make, lambda made: made, ahead=1 if self._device.type == "cpu" else 8)

    def _step(self, update: Update, prepared: Prepared) -> None:
        config = self._config
        rate = learning_rate(update.number, config.updates, config.peak_rate, config.phases)
        for group in self._adam.param_groups:
            group["lr"] = rate
        torch.manual_seed(int(chance_of(self._course.seed, _DROPOUT, update.number).integers(1 << 62)))
        self._learner.network.train()
        with self._autocast():
            loss = self._learner.loss(prepared, self._device)
        loss.backward()  # type: ignore[no-untyped-call]
        length = nn.utils.clip_grad_norm_(list(self._learned.values()), config.gradient_norm)
        finite = bool(torch.isfinite(length))
        if finite:
            self._adam.step()
            self._sum, self._count = self._sum + float(loss.detach()), self._count + 1
        self._adam.zero_grad()
        self._update, self._place = update.number + 1, update.after
        self._heard_s += float(self._learner.durations_s[[draw.row for draw in update.batches[0]]].sum())
        self._count_skipped(finite)

    def _count_skipped(self, finite: bool) -> None:
        self._skipped += not finite
        self._in_a_row = 0 if finite else self._in_a_row + 1
        if self._in_a_row >= MOST_SKIPPED:
            raise EncoderError(
                f"The loss was no number in {MOST_SKIPPED} updates in a row, up to update {self._update}.",
                cause="the rate is too high for this start",
                fix="lower peak_rate, or set precision to fp32",
            )

    def _autocast(self) -> AbstractContextManager[Any]:
        half = self._config.precision == "bf16" or (
            self._config.precision == "auto" and self._device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        return torch.autocast(self._device.type, torch.bfloat16) if half else nullcontext()

    def _note_loss(self) -> None:
        if self._count:
            self._losses.append((self._update, self._sum / self._count))
        self._sum, self._count = 0.0, 0

    def _tell_progress(self) -> None:
        try:
            self._course.progress(self._update, self._config.updates)
        except BaseException:
            self._save()  # between two updates is the one moment at which everything is whole
            raise

    # Checkpoints

    def _save(self) -> None:
        weights = {name: one.detach().clone() for name, one in self._learned.items()}
        state = {
            "place": [self._place.number, self._place.batch],
            "losses": self._losses,
            "sums": [self._sum, self._count, self._heard_s, self._skipped, self._in_a_row],
        }
        save_checkpoint(self._course.folder, Checkpoint(self._update, weights, self._moments(), state))

    def _moments(self) -> Mapping[str, Tensor]:
        held = {name: self._adam.state[one] for name, one in self._learned.items() if self._adam.state.get(one)}
        return {f"{kind}/{name}": tensor for name, kinds in held.items() for kind, tensor in kinds.items()}

    def _resume(self) -> None:
        checkpoint = last_checkpoint(self._course.folder, self._course.tell)
        if checkpoint is None:
            return
        with torch.no_grad():
            for name, parameter in self._learned.items():
                parameter.copy_(checkpoint.weights[name])
        for key, tensor in checkpoint.optimiser.items():
            kind, _, name = key.partition("/")
            parameter = self._learned[name]
            self._adam.state[parameter][kind] = tensor if kind == "step" else tensor.to(parameter.device)
        state = checkpoint.state
        self._update, self._place = checkpoint.update, Place(*state["place"])
        self._losses = [(int(update), float(loss)) for update, loss in state["losses"]]
        self._sum, self._count, self._heard_s, self._skipped, self._in_a_row = state["sums"]
        self._course.tell(f"goes on after update {self._update} of {self._config.updates}")
