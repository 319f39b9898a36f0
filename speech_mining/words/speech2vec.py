"""Speech2Vec: an encoder that reads a word's frames and learns to tell the frames of its neighbours.

Chung & Glass, "Speech2Vec: a sequence-to-sequence framework for learning word embeddings from speech", 2018, the
skip-gram: the encoder is recurrent and reads both ways, what tells frames sees nothing but the vector. What is learned
is what a word's neighbours sound like on average. As the paper has it, that is mostly what all words have in common:
Chen & Cao, "A reality check and a practical baseline for semantic speech embeddings", 2022, could not repeat its
semantic scores, nor could we. Four things differ here, and `docs/words.md` says what each is worth:

- frames are told in units of their own spread (whitened), so that what tells one neighbour from another counts in full;
- the mean of all neighbours is told, not one of them that is drawn: the same gradient on average, with far less noise;
- a whole utterance is company, as it is for `contexts`;
- words are brought to 16 frames of 12 cepstra first, and all are told at once by a linear decoder.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.progress import Progress, silent
from speech_mining.words.cepstra import COEFFICIENTS, PLACES, Frames
from speech_mining.words.tokens import Rows, Tokens

if TYPE_CHECKING:
    import torch

VALUES = COEFFICIENTS - 1
BATCH = 256
SLAB = 65_536
LEAST_SPREAD = 0.02
"""Of the mean variance, added to that of each direction before it becomes the unit: directions of noise stay small."""
LAST_RATE = 0.02
"""Share of the rate that the last steps keep; between, it falls as a cosine."""


@dataclass(frozen=True)
class SpeechConfig:
    """How the encoder is made and trained."""

    dimension: int = 50
    """Of a word's vector: the paper's 50."""
    width: int = 128
    """Of each direction of the encoder."""
    window: int = 40
    """Neighbours on either side, of an utterance mostly all: R@1 0.69 where the paper's 3 gave 0.43."""
    epochs: int = 20
    rate: float = 4e-3
    """Of Adam, at the beginning."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if min(self.dimension, self.width, self.window) < 1 or self.epochs < 0 or not self.rate > 0:
            raise SettingsError(
                f"An encoder cannot be trained like this: {self}.",
                expected="dimension, width and window from 1, epochs from 0, a positive rate",
            )


@dataclass(frozen=True, eq=False)
class Trained:
    """What came out."""

    vectors: npt.NDArray[np.float32]
    """float32 (n, dimension): a vector for each token."""
    losses: list[float]
    """Mean squared error of each epoch, in variances of what is told; about 1 is what is told by no vector at all."""


def speech2vec(tokens: Tokens, config: SpeechConfig, progress: Progress = silent) -> Trained:
    """Train the encoder on all tokens, and let it read them.

    The same tokens and seed give the same vectors (on one thread of one machine).

    Args:
        tokens: of one language.
        config: size, window and epochs.
        progress: told epochs.

    Raises:
        EmbeddingError: no token has a neighbour.
    """
    import torch

    from speech_mining.encoders.threads import torch_threads

    frames = _frames(tokens)
    told = Company(whitened(frames.reshape(len(frames), -1)), _ends(tokens), config.window)
    if not len(told.accompanied):
        raise EmbeddingError(
            "No word has a neighbour.", expected="utterances of several words", cause="each piece is its own utterance"
        )
    generator = torch.Generator().manual_seed(config.seed)
    # sums of a CPU are made in one order only on one thread: with more, the weights differ from run to run
    with torch_threads(1) if config.device == "cpu" else nullcontext():
        network = _network(config, generator)
        heard = torch.from_numpy(frames).to(config.device)
        losses = _train(network, heard, told, config, progress)
        with torch.no_grad():
            vectors = (
                torch.cat([network.read(heard[at : at + 4096]) for at in range(0, len(heard), 4096)]).cpu().numpy()
            )
    return Trained(vectors, losses)


def type_means(vectors: npt.NDArray[np.float32], labels: Rows, count: int) -> npt.NDArray[np.float32]:
    """Mean vector of the tokens of each type, float32 (count, d): a word's vector in the paper.

    Raises:
        EmbeddingError: a type below `count` has no token.
    """
    known = (labels >= 0) & (labels < count)
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, labels[known], vectors[known])
    counts = np.bincount(labels[known], minlength=count)
    if not counts.all():
        raise EmbeddingError(
            f"Type {int(np.flatnonzero(counts == 0)[0])} has no token.", expected="every type to be heard"
        )
    means: npt.NDArray[np.float32] = (sums / counts[:, None]).astype(np.float32)
    return means


def _frames(tokens: Tokens) -> Frames:
    """float32 (n, 16, 12), each cepstrum at mean 0 and variance 1 over all tokens."""
    frames = tokens.shapes[:, :-1].reshape(-1, PLACES, VALUES)
    if not len(frames):
        return frames
    mean, spread = frames.mean(axis=(0, 1), dtype=np.float64), frames.std(axis=(0, 1), dtype=np.float64)
    scaled: Frames = ((frames - mean) / np.maximum(spread, 1e-6)).astype(np.float32)
    return scaled


def _ends(tokens: Tokens) -> Rows:
    """int64 (n, 2): first token of each token's utterance, and one past the last."""
    edges = np.flatnonzero(np.diff(tokens.utterances, prepend=-1, append=np.iinfo(np.int64).max))
    sizes = np.diff(edges)
    return np.column_stack([np.repeat(edges[:-1], sizes), np.repeat(edges[1:], sizes)])


def whitened(rows: Frames) -> Frames:
    """Rows in their principal directions, the spread of each brought to 1, or near 0 where it is little.

    PCA whitening with a floor: (x - mean) U / √(λ + 0.02 mean λ), with eigenvalues λ and eigenvectors U of the
    covariance.

    Args:
        rows: float32 (n, d).

    Returns:
        float32 (n, d), of mean 0 and no correlation.
    """
    from threadpoolctl import threadpool_limits

    if not len(rows):
        return rows
    with threadpool_limits(1):  # sums are made in another order with more, and their last bits differ
        mean = rows.mean(axis=0, dtype=np.float64)
        table = np.zeros((rows.shape[1], rows.shape[1]))
        for at in range(0, len(rows), SLAB):
            part = rows[at : at + SLAB] - mean
            table += part.T @ part
        spread, directions = np.linalg.eigh(table / len(rows))
        floor = max(LEAST_SPREAD * spread.mean(), np.finfo(float).tiny)
        scaled = directions / np.sqrt(np.maximum(spread, 0) + floor)
        parts = [((rows[at : at + SLAB] - mean) @ scaled).astype(np.float32) for at in range(0, len(rows), SLAB)]
    return np.concatenate(parts)


class Company:
    """What the neighbours of a token are on average."""

    def __init__(self, rows: Frames, ends: Rows, window: int) -> None:
        """Sum up.

        Args:
            rows: float32 (n, d), what each token is.
            ends: int64 (n, 2), first token of each token's utterance, and one past the last.
            window: greatest distance of a neighbour.
        """
        own = np.arange(len(rows))
        self._rows = rows
        self._first, self._last = np.maximum(ends[:, 0], own - window), np.minimum(ends[:, 1], own + window + 1)
        self._sums = np.zeros((len(rows) + 1, rows.shape[1]))
        np.cumsum(rows, axis=0, dtype=np.float64, out=self._sums[1:])
        self.accompanied: Rows = np.flatnonzero(self._last - self._first > 1)
        """int64 (m,): tokens that have a neighbour."""

    def of(self, own: Rows) -> Frames:
        """Mean of the neighbours of each token, itself left out: float32 (m, d).

        Args:
            own: int64 (m,), tokens that have a neighbour.
        """
        first, last = self._first[own], self._last[own]
        sums = self._sums[last] - self._sums[first] - self._rows[own]
        means: Frames = (sums / (last - first - 1)[:, None]).astype(np.float32)
        return means


def _train(
    network: Any, heard: torch.Tensor, company: Company, config: SpeechConfig, progress: Progress
) -> list[float]:
    import torch

    random = np.random.default_rng(config.seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.rate)
    own = company.accompanied
    steps = config.epochs * math.ceil(len(own) / BATCH)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1), LAST_RATE * config.rate)
    losses = []
    for epoch in range(config.epochs):
        wrong = spread = 0.0
        order = own[random.permutation(len(own))]
        for at in range(0, len(order), BATCH):
            batch = order[at : at + BATCH]
            wanted = torch.from_numpy(company.of(batch)).to(config.device)
            told = network.tell(network.read(heard[torch.from_numpy(batch)]))
            loss = torch.nn.functional.mse_loss(told, wanted)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            falling.step()
            wrong += float(loss.detach()) * wanted.numel()
            spread += float(wanted.square().sum())
        losses.append(wrong / max(spread, np.finfo(float).tiny))
        progress(epoch + 1, config.epochs)
    return losses


def _network(config: SpeechConfig, generator: torch.Generator) -> Any:
    """The encoder and the decoder, with weights that the generator draws."""
    import torch
    from torch import nn

    class SpeechNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.GRU(VALUES, config.width, batch_first=True, bidirectional=True)
            self.narrow = nn.Linear(2 * config.width, config.dimension)
            self.tell = nn.Linear(config.dimension, PLACES * VALUES)

        def read(self, frames: torch.Tensor) -> torch.Tensor:
            _, last = self.encoder(frames)
            vectors: torch.Tensor = self.narrow(torch.cat([last[0], last[1]], dim=1))
            return vectors

    network = SpeechNetwork()
    with torch.no_grad():
        for weights in network.parameters():
            bound = weights.shape[-1] ** -0.5
            weights.copy_((torch.rand(weights.shape, generator=generator) * 2 - 1) * bound)
    return network.to(config.device)
