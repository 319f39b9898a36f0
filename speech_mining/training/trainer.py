"""The loop that teaches: batches in, updates of the weights, examinations, checkpoints. Imports torch.

What belongs here is the order of things. Formulas are in `losses`, `schedule`, `masking`, `rebalancing`; files in
`checkpoints`. Everything random is drawn from the seed and a number of its own (dropout and masks from the
micro-batch's, the order from the pass's), never from what was drawn before: so a training that goes on from a
checkpoint does what it would have done.

Several processes (`accelerate launch`, `torchrun`) share an update's micro-batches; gradients are averaged by
DistributedDataParallel, which `accelerate` puts round the network.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object
from torch import Tensor

from speech_mining.atomic import replacing
from speech_mining.encoders.batches import length_batches
from speech_mining.encoders.cards import sha256_once
from speech_mining.encoders.feeding import feed
from speech_mining.encoders.neural_inputs import SHORTEST_S, Floats, pad
from speech_mining.encoders.neural_network import Masks, NetworkShape, StudentNetwork, build_network, start_network
from speech_mining.encoders.neural_student import StudentCard, save_neural_student
from speech_mining.encoders.placement import chosen_device
from speech_mining.encoders.threads import torch_threads
from speech_mining.errors import EncoderError
from speech_mining.progress import Progress
from speech_mining.records import SAMPLE_RATE_HZ
from speech_mining.training.checkpoints import Checkpoint, last_checkpoint, save_checkpoint
from speech_mining.training.configuration import StudentConfig
from speech_mining.training.distillation import CURVES, TrainedStudent
from speech_mining.training.examples import Examples
from speech_mining.training.hearing import Ears, Listened, Prepared
from speech_mining.training.losses import distances
from speech_mining.training.masking import chance_of, span_mask
from speech_mining.training.passes import Passes, Place, Update
from speech_mining.training.schedule import learning_rate
from speech_mining.training.validation import recall_at_1

VERSION = "1"
"""Raise it when the same configuration and data would train other weights: old checkpoints are left alone then."""
MOST_SKIPPED = 20
"""Updates in a row without a number for a loss. fp16's scaler alone may need 16 to come down from 65 536 to 1."""

_TIME, _FEATURES, _DROPOUT = 11, 12, 13  # what a number is drawn for; 1 to 3 are `rebalancing`'s
_BETAS = (0.9, 0.98)  # Adam's, as fairseq fine-tunes wav2vec 2.0
_ROWS_OF_THE_CURVE = 500


@dataclass
class State:
    """What a training knows beside weights and optimiser; JSON holds it exactly.

    Args:
        update: how many are done.
        place: in the row of updates.
        examples: clips heard so far.
        seconds: of audio heard so far.
        skipped: updates not made.
        skipped_in_a_row: up to now.
        loss_sum: of the examples since the last row of the curve.
        loss_count: how many they are.
        rows: of the curve.
        best: update, recall and loss of the best weights so far.
        left_out: clip -> why it was not trained on.
        scale: fp16's.
    """

    update: int = 0
    place: Place = field(default_factory=Place)
    examples: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    rows: list[list[Any]] = field(default_factory=list)
    best: tuple[int, float, float] = (-1, -1.0, float("inf"))
    left_out: dict[str, str] = field(default_factory=dict)
    scale: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_dict(cls, told: Mapping[str, Any]) -> State:
        """Read what `asdict` and JSON made of one."""
        return cls(**{**told, "place": Place(**told["place"]), "best": tuple(told["best"])})


@dataclass(frozen=True)
class Heard:
    """What an update heard, over all processes."""

    examples: int
    loss_sum: float
    seconds: float


def run(
    train: Examples,
    dev: Examples,
    config: StudentConfig,
    folder: Path,
    *,
    progress: Progress,
    tell: Callable[[str], None],
) -> TrainedStudent:
    """Train; see `speech_mining.training.distillation.train_student`."""
    kept, out = _within_limits(train, config, "to train on")
    examined, unexamined = _within_limits(dev, config, "to examine the student on")
    if kept.dimension != examined.dimension:
        raise EncoderError(f"Targets of {kept.dimension} and of {examined.dimension} dimensions.", expected="one space")
    with torch_threads(config.threads), torch.random.fork_rng(), _accelerator(config) as accelerator:
        tell = tell if accelerator.is_main_process else _mute
        if unexamined:
            tell(f"{len(unexamined)} dev clips are left out: {_counted(unexamined)}.")
        training = _Training(kept, examined, config, folder, accelerator, tell)
        training.run(progress)
        return training.result(out)


class _Training:
    """One training in one process."""

    def __init__(
        self,
        train: Examples,
        dev: Examples,
        config: StudentConfig,
        folder: Path,
        accelerator: Accelerator,
        tell: Callable[[str], None],
    ) -> None:
        self._train, self._dev, self._config, self._accelerator, self._tell = train, dev, config, accelerator, tell
        self._folder = folder
        self._identity = _identity(train, dev, config, accelerator.num_processes)
        self._kept = folder / "checkpoints" / self._identity
        self._ears = Ears(train, config)
        torch.manual_seed(config.seed)
        self._network = _fresh_network(config, train.dimension).to(accelerator.device)
        if config.freeze_feature_extractor:
            self._network.freeze_feature_extractor()
        self._learned = {name: one for name, one in self._network.named_parameters() if one.requires_grad}
        adam = torch.optim.Adam(self._learned.values(), lr=config.peak_rate, betas=_BETAS)
        self._wrapped: Any = accelerator.prepare_model(self._network)
        self._optimiser: Any = accelerator.prepare_optimizer(adam)
        self._adam = adam
        self._state = State()
        self._curve: Any = None
        self._told_unheard = False

    # The course of it

    def run(self, progress: Progress) -> None:
        """Do the updates that are left; whatever `progress` raises stops the training with a checkpoint behind it."""
        config = self._config
        self._resumed_from = self._resume()
        self._begin_curve()
        if self._state.update == 0:
            self._examine()
        progress(self._state.update, config.updates)
        for update, batches in self._heard_in_advance():
            self._step(update, batches)
            done = self._state.update
            last = done == config.updates
            if last or done % config.validate_every == 0:
                self._examine()
            elif done % max(1, config.updates // _ROWS_OF_THE_CURVE) == 0:
                self._write_row(None, None)
            if last or done % config.checkpoint_every == 0:
                self._save()
            self._tell_progress(progress)
        if self._accelerator.is_main_process:
            _copy(self._best_file(), self._folder / "student.safetensors")
        self._accelerator.wait_for_everyone()
        if self._curve is not None:
            self._curve.close()

    def result(self, out: Mapping[str, str]) -> TrainedStudent:
        """What there is now."""
        state = self._state
        together: dict[str, str] = {**out}
        for told in gather_object([state.left_out]):
            together |= told
        return TrainedStudent(
            weights=self._folder / "student.safetensors",
            curves=pl.DataFrame(state.rows, schema=CURVES, orient="row"),
            best_update=state.best[0],
            resumed_from=self._resumed_from,
            left_out=dict(sorted(Counter(together.values()).items())),
            skipped_updates=state.skipped,
        )

    def _tell_progress(self, progress: Progress) -> None:
        try:
            progress(self._state.update, self._config.updates)
        except BaseException:
            # Between two updates is the one moment at which everything is whole.
            if self._accelerator.num_processes == 1 and self._state.update < self._config.updates:
                self._save()
            raise

    def _heard_in_advance(self) -> Iterator[tuple[Update, list[Prepared]]]:
        """The updates that are left, their clips read and turned into features in threads."""
        config, accelerator = self._config, self._accelerator
        together = config.accumulation * accelerator.num_processes
        durations_s = self._train.clips["duration_s"].to_numpy().astype(np.float64)
        languages = tuple(self._train.clips["language"].to_list())
        passes = Passes(durations_s, languages, config.alpha, config.max_batch_seconds, config.seed)
        updates = passes.updates(self._state.update, config.updates, together, self._state.place)

        def make(update: Update) -> tuple[Update, list[Prepared]]:
            mine = range(accelerator.process_index, together, accelerator.num_processes)
            return update, [self._ears.prepare(update.batches[i], update.number * together + i) for i in mine]

        ahead = 1 if accelerator.device.type == "cpu" else 4
        return feed(updates, make, lambda made: made, ahead=ahead)

    # One update

    def _step(self, update: Update, batches: Sequence[Prepared]) -> None:
        config, state = self._config, self._state
        for group in self._adam.param_groups:
            group["lr"] = learning_rate(update.number, config.updates, config.peak_rate, config.phases)
        fixed = update.number < config.projection_only_updates
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in batches:
            last = batch is batches[-1]
            with nullcontext() if last else self._accelerator.no_sync(self._wrapped):
                sums += self._backward(batch, update.examples, fixed)
        heard = self._over_processes(sums)
        made = heard.examples > 0 and self._move()
        self._optimiser.zero_grad()
        state.update, state.place = update.number + 1, update.after
        state.examples, state.seconds = state.examples + heard.examples, state.seconds + heard.seconds
        state.left_out.update({clip: why for batch in batches for clip, why in batch.left_out.items()})
        state.skipped_in_a_row = 0 if made else state.skipped_in_a_row + 1
        if made:
            state.loss_sum, state.loss_count = state.loss_sum + heard.loss_sum, state.loss_count + heard.examples
        else:
            state.skipped += 1
            self._check_skipped(heard)

    def _backward(self, batch: Prepared, planned: int, fixed: bool) -> Tensor:
        """Add a micro-batch's gradients; float64 (3,): its examples, the sum of their losses, seconds of audio."""
        config, device = self._config, self._accelerator.device
        torch.manual_seed(int(chance_of(config.seed, _DROPOUT, batch.number).integers(1 << 62)))
        self._wrapped.train()
        lengths, weights = batch.lengths.to(device), batch.weights.to(device)
        masks = self._masks(batch, device)
        with self._accelerator.autocast():
            vectors = self._wrapped(batch.inputs.to(device), lengths, masks, fixed)
        losses = distances(vectors, batch.targets.to(device), config.loss, config.temperature) * weights
        # DDP averages over processes what is to be summed over them.
        self._accelerator.backward(losses.sum() * (self._accelerator.num_processes / planned))
        told = [float(weights.sum()), float(losses.detach().sum()), batch.seconds]
        return torch.tensor(told, dtype=torch.float64)

    def _masks(self, batch: Prepared, device: torch.device) -> Masks:
        config, width = self._config, int(self._network.body.width)
        counts = self._network.body.frame_counts(batch.lengths).tolist()
        seeds = [(config.seed, kind, batch.number) for kind in (_TIME, _FEATURES)]
        time = span_mask(counts, max(counts), config.mask_time_probability, config.mask_time_length, seeds[0])
        features = span_mask(
            [width] * len(counts), width, config.mask_feature_probability, config.mask_feature_length, seeds[1]
        )
        return Masks(torch.from_numpy(time).to(device), torch.from_numpy(features).to(device))

    def _over_processes(self, sums: Tensor) -> Heard:
        if self._accelerator.num_processes > 1:
            sums = self._accelerator.reduce(sums.to(self._accelerator.device), "sum").cpu()
        examples, loss_sum, seconds = sums.tolist()
        return Heard(round(examples), loss_sum, seconds)

    def _move(self) -> bool:
        """Step, unless a gradient is no number; the gradients are the same in all processes, and so is the answer."""
        length = self._accelerator.clip_grad_norm_(list(self._learned.values()), self._config.gradient_norm)
        finite = bool(torch.isfinite(length))
        if finite or self._accelerator.scaler is not None:  # fp16's scaler leaves the step out itself, and learns
            self._optimiser.step()
        return finite

    def _check_skipped(self, heard: Heard) -> None:
        state = self._state
        if state.skipped_in_a_row < MOST_SKIPPED:
            return
        if not heard.examples:
            why = next(iter(state.left_out.values()), "unknown")
            raise EncoderError(
                f"No clip of {MOST_SKIPPED} updates in a row, up to update {state.update}, can be heard: {why}.",
                cause="the audio is not where the clips say, or not what they say",
                fix="validate the set, then train again: the folder's checkpoint is gone on from",
            )
        raise EncoderError(
            f"The loss was no number in {MOST_SKIPPED} updates in a row, up to update {state.update}.",
            cause="the rate is too high for this start, or the precision too low",
            fix="lower peak_rate, or set precision to bf16 or fp32",
        )

    # Examinations

    def _examine(self) -> None:
        loss, recall = self._validate()
        state = self._state
        self._write_row(loss, recall)
        if (recall, -loss) > (state.best[1], -state.best[2]):
            state.best = (state.update, recall, loss)
            if self._accelerator.is_main_process:
                self._save_best()

    def _validate(self) -> tuple[float, float]:
        """Mean loss and recall at 1 over the dev clips that can be heard; each process embeds its share."""
        config, accelerator = self._config, self._accelerator
        lengths = (self._dev.clips["duration_s"].to_numpy() * SAMPLE_RATE_HZ).astype(np.int64)
        batches = length_batches(np.maximum(lengths, 1), max(1, int(config.max_batch_seconds * SAMPLE_RATE_HZ)))
        ears = Ears(self._dev, config)
        mine = batches[accelerator.process_index :: accelerator.num_processes]
        self._network.eval()
        found = list(feed(mine, ears.hear, self._examined, ahead=1))
        everyones = gather_object(found)
        shared = [one for clips, _ in everyones for one in clips]
        self._tell_unheard({clip: why for _, left_out in everyones for clip, why in left_out.items()})
        if not shared:
            raise EncoderError("No dev clip can be heard.", cause="the audio is not where the clips say")
        rows = np.array([row for row, _, _ in shared])
        order = np.argsort(rows)
        vectors = np.stack([shared[i][1] for i in order])
        targets = self._dev.targets[[self._dev.target_rows[row][0] for row in rows[order]]]
        languages = self._dev.clips["language"].gather(rows[order].tolist()).to_list()
        return float(np.mean([shared[i][2] for i in order])), recall_at_1(vectors, targets, languages)

    def _tell_unheard(self, left_out: Mapping[str, str]) -> None:
        """Once: they are the same at every examination."""
        if left_out and not self._told_unheard:
            self._tell(f"{len(left_out)} dev clips cannot be heard: {_counted(left_out)}.")
        self._told_unheard = True

    def _examined(self, heard: Listened) -> tuple[list[tuple[int, Floats, float]], Mapping[str, str]]:
        """(row, vector, loss) of each clip that can be heard, and why the others cannot."""
        rows, inputs, left_out = heard
        if not rows:
            return [], left_out
        config, device = self._config, self._accelerator.device
        padded, lengths = pad(inputs)
        targets = torch.from_numpy(self._dev.targets[[self._dev.target_rows[row][0] for row in rows]]).to(device)
        with torch.no_grad(), self._accelerator.autocast():
            vectors = self._network(torch.from_numpy(padded).to(device), torch.from_numpy(lengths).to(device))
            losses = distances(vectors, targets, config.loss, config.temperature)
        return list(zip(rows, vectors.float().cpu().numpy(), losses.tolist(), strict=True)), left_out

    def _save_best(self) -> None:
        """Write the weights under the update's name: the one before stays until a checkpoint knows of this one."""
        config, (update, recall, _) = self._config, self._state.best
        shape = self._network.shape
        trained = {"config": config.as_dict(), "data": self._train.fingerprint, "update": update}
        card = StudentCard(
            architecture=shape.architecture,
            body=shape.body,
            pooling=shape.pooling,
            activation=shape.activation,
            dimension=shape.dimension,
            languages=self._train.languages,
            longest_s=config.longest_s,
            shortest_s=max(config.shortest_s, SHORTEST_S),
            trained={**trained, "dev_recall_at_1": recall},
        )
        save_neural_student(card, self._network.state_dict(), self._best_file())

    def _best_file(self) -> Path:
        return self._kept / f"best-{self._state.best[0]:08d}.safetensors"

    # The curve

    def _write_row(self, dev_loss: float | None, recall: float | None) -> None:
        state, config = self._state, self._config
        loss = state.loss_sum / state.loss_count if state.loss_count else None
        state.loss_sum, state.loss_count = 0.0, 0
        rate = learning_rate(max(state.update - 1, 0), config.updates, config.peak_rate, config.phases)
        state.rows.append([state.update, loss, rate, dev_loss, recall, state.examples, state.seconds])
        if self._curve is not None:
            told = {"train/loss": loss, "train/learning_rate": rate, "dev/loss": dev_loss, "dev/recall_at_1": recall}
            for name, value in told.items():
                if value is not None:
                    self._curve.add_scalar(name, value, state.update)

    def _begin_curve(self) -> None:
        if self._accelerator.is_main_process:
            from torch.utils.tensorboard import SummaryWriter

            place = self._folder / "tensorboard" / self._identity
            # What a killed training wrote after its checkpoint is hidden: it comes again.
            purged = self._state.update + 1 if self._state.update else None
            writer: Any = SummaryWriter
            self._curve = writer(str(place), purge_step=purged)

    # Checkpoints

    def _resume(self) -> int:
        """Go on from the last whole checkpoint of this very training, if there is one."""
        checkpoint = last_checkpoint(self._kept, self._tell)
        if checkpoint is None:
            if others := sorted(place.name for place in self._kept.parent.glob("*") if place != self._kept):
                self._tell(
                    f"The folder {self._folder} holds a training of another configuration or other data "
                    f"({', '.join(others)}), which stays; this one starts anew ({self._identity})."
                )
            return 0
        self._network.load_state_dict(dict(checkpoint.weights))
        self._load_optimiser(checkpoint.optimiser)
        self._state = State.of_dict(checkpoint.state)
        if self._accelerator.scaler is not None and self._state.scale:
            self._accelerator.scaler.load_state_dict(self._state.scale)
        self._tell(f"Training goes on after update {self._state.update} of {self._config.updates}.")
        return self._state.update

    def _save(self) -> None:
        """Write a checkpoint; every process tells what it could not hear."""
        self._state.left_out = {
            clip: why for told in gather_object([self._state.left_out]) for clip, why in told.items()
        }
        if self._accelerator.scaler is not None:
            self._state.scale = self._accelerator.scaler.state_dict()
        if self._accelerator.is_main_process:
            state = self._state
            save_checkpoint(
                self._kept,
                Checkpoint(state.update, self._network.state_dict(), self._optimiser_tensors(), asdict(state)),
            )
            for other in self._kept.glob("best-*.safetensors"):
                if other != self._best_file():
                    other.unlink()
        self._accelerator.wait_for_everyone()

    def _optimiser_tensors(self) -> dict[str, Tensor]:
        held = {name: self._adam.state[one] for name, one in self._learned.items() if self._adam.state.get(one)}
        return {f"{kind}/{name}": tensor for name, kinds in held.items() for kind, tensor in kinds.items()}

    def _load_optimiser(self, tensors: Mapping[str, Tensor]) -> None:
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            parameter = self._learned[name]
            placed = tensor if kind == "step" else tensor.to(parameter.device)
            self._adam.state[parameter][kind] = placed


# What a training starts from


def _within_limits(examples: Examples, config: StudentConfig, purpose: str) -> tuple[Examples, dict[str, str]]:
    """The clips of a length that is trained on; clip -> why for the others."""
    durations_s = examples.clips["duration_s"].to_numpy()
    shortest_s = max(config.shortest_s, SHORTEST_S)
    fits = (durations_s >= shortest_s) & (durations_s <= config.longest_s)
    if not fits.any():
        raise EncoderError(
            f"Of {len(fits)} clips {purpose} none is {shortest_s} to {config.longest_s} s long.",
            expected="at least one",
            cause="a split without clips" if not len(fits) else "limits that were set for other speech",
            fix="split the set (`s2s train --dev-share`), or set shortest_s and longest_s",
        )
    names = examples.clips["clip"].to_list()
    short = durations_s < shortest_s
    out = {names[row]: "too_short" if short[row] else "too_long" for row in np.flatnonzero(~fits)}
    return (examples.subset(np.flatnonzero(fits)) if out else examples), out


def _fresh_network(config: StudentConfig, dimension: int) -> StudentNetwork:
    shape = NetworkShape(config.architecture, dict(config.size), config.pooling, config.activation, dimension)
    if not config.start:
        return build_network(shape)
    if config.architecture == "convolutions":
        raise EncoderError(
            f"Weights to start convolutions from, {config.start}.", expected="none", fix="leave `start` out"
        )
    return start_network(shape, Path(config.start))


def _identity(train: Examples, dev: Examples, config: StudentConfig, processes: int) -> str:
    """What must be equal for a checkpoint to be gone on from: everything that the weights depend on."""
    start = Path(config.start) if config.start else None
    files = sorted([*start.glob("*.safetensors"), *start.glob("config.json")]) if start else []
    told = {
        "version": VERSION,
        "config": {**config.as_dict(), "start": [sha256_once(path) for path in files]},
        "data": [train.fingerprint, dev.fingerprint],
        "processes": processes,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def _accelerator(config: StudentConfig) -> Iterator[Accelerator]:
    """How accelerate sees this process, alone or one of several; made anew for every training."""
    from accelerate.state import AcceleratorState

    on_cpu = not torch.cuda.is_available() or chosen_device().device == "cpu"
    # In the projection's own updates the body has no gradients, which DDP must be told to expect.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=_precision(config, on_cpu), kwargs_handlers=handlers)
    try:
        yield accelerator
    finally:
        accelerator.free_memory()
        if accelerator.num_processes == 1:
            # Its state is global and keeps the first precision of a process for ever; there is no public way back.
            AcceleratorState._reset_state(reset_partial_state=True)


def _precision(config: StudentConfig, on_cpu: bool) -> str:
    if config.precision == "fp16" and on_cpu:
        raise EncoderError("Training in fp16 on the CPU.", expected="fp32 or bf16 there", fix='set precision to "auto"')
    if config.precision != "auto":
        return "no" if config.precision == "fp32" else config.precision
    return "no" if on_cpu else "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as part:
        part.write_bytes(source.read_bytes())


def _counted(left_out: Mapping[str, str]) -> str:
    return ", ".join(f"{count} {why}" for why, count in sorted(Counter(left_out.values()).items()))


def _mute(line: str) -> None:
    """What other processes than the first have to say is said by the first."""
