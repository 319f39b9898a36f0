"""Speech2Vec: an encoder that reads a word's frames and learns to tell the frames of its neighbours.

Chung & Glass, "Speech2Vec: a sequence-to-sequence framework for learning word embeddings from speech", 2018, the
skip-gram. The encoder is recurrent and reads both ways, the decoder is recurrent and sees nothing but the vector; the
loss is the squared error of frames. Two things differ: words are brought to 16 frames of 12 cepstra first, which makes
batches dense (an epoch of 90 000 tokens takes 19 CPU seconds), and of the 2 k neighbours each step draws one.

What it learns is what its neighbours sound like on average. Chen et al., "A reality check and a practical baseline for
semantic speech embeddings", 2023, could not repeat the semantic scores of the paper; `docs/words.md` has ours.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.progress import Progress, silent
from speech_mining.words.cepstra import COEFFICIENTS, PLACES
from speech_mining.words.tokens import Rows, Tokens

if TYPE_CHECKING:
    import torch

VALUES = COEFFICIENTS - 1
BATCH = 512


@dataclass(frozen=True)
class SpeechConfig:
    """How the encoder is made and trained."""

    dimension: int = 50
    """Of a word's vector: the paper's 50."""
    width: int = 64
    """Of each direction of the encoder, and of the decoder."""
    window: int = 3
    """Neighbours on either side: the paper's 3."""
    epochs: int = 5
    rate: float = 2e-3
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
    """Mean squared error of each epoch, in variances of the frames; about 1 is what is told by no vector at all."""


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
    ends = _ends(tokens)
    if not (ends[:, 1] - ends[:, 0] > 1).any():
        raise EmbeddingError(
            "No word has a neighbour.", expected="utterances of several words", cause="each piece is its own utterance"
        )
    generator = torch.Generator().manual_seed(config.seed)
    # sums of a CPU are made in one order only on one thread: with more, the weights differ from run to run
    with torch_threads(1) if config.device == "cpu" else nullcontext():
        network = _network(config, generator)
        heard = torch.from_numpy(frames).to(config.device)
        losses = _train(network, heard, ends, config, progress)
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


def _frames(tokens: Tokens) -> npt.NDArray[np.float32]:
    """float32 (n, 16, 12), each cepstrum at mean 0 and variance 1 over all tokens."""
    frames = tokens.shapes[:, :-1].reshape(-1, PLACES, VALUES)
    if not len(frames):
        return frames
    mean, spread = frames.mean(axis=(0, 1), dtype=np.float64), frames.std(axis=(0, 1), dtype=np.float64)
    scaled: npt.NDArray[np.float32] = ((frames - mean) / np.maximum(spread, 1e-6)).astype(np.float32)
    return scaled


def _ends(tokens: Tokens) -> Rows:
    """int64 (n, 2): first token of each token's utterance, and one past the last."""
    edges = np.flatnonzero(np.diff(tokens.utterances, prepend=-1, append=np.iinfo(np.int64).max))
    sizes = np.diff(edges)
    return np.column_stack([np.repeat(edges[:-1], sizes), np.repeat(edges[1:], sizes)])


def neighbours(ends: Rows, own: Rows, window: int, random: np.random.Generator) -> tuple[Rows, Rows]:
    """Draw a neighbour of each token, at most `window` away in its utterance; tokens that stand alone are left out.

    Args:
        ends: int64 (n, 2), as `_ends` gives them.
        own: int64 (m,): tokens.
        window: greatest distance.
        random: draws.

    Returns:
        int64 (at most m,): the tokens kept, and the neighbour of each.
    """
    first = np.maximum(ends[own, 0], own - window)
    last = np.minimum(ends[own, 1], own + window + 1)
    there = last - first > 1
    own, first, last = own[there], first[there], last[there]
    drawn = first + random.integers(0, last - first - 1)
    return own, drawn + (drawn >= own)


def _train(network: Any, heard: torch.Tensor, ends: Rows, config: SpeechConfig, progress: Progress) -> list[float]:
    import torch

    random = np.random.default_rng(config.seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.rate)
    losses = []
    for epoch in range(config.epochs):
        total, count = 0.0, 0
        order = random.permutation(len(heard))
        for at in range(0, len(order), BATCH):
            own, other = neighbours(ends, order[at : at + BATCH], config.window, random)
            if not len(own):
                continue
            told = network.tell(network.read(heard[torch.from_numpy(own)]))
            loss = torch.nn.functional.mse_loss(told, heard[torch.from_numpy(other)])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total, count = total + float(loss.detach()) * len(own), count + len(own)
        losses.append(total / count)
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
            self.decoder = nn.GRU(config.dimension, config.width, batch_first=True)
            self.out = nn.Linear(config.width, VALUES)

        def read(self, frames: torch.Tensor) -> torch.Tensor:
            _, last = self.encoder(frames)
            vectors: torch.Tensor = self.narrow(torch.cat([last[0], last[1]], dim=1))
            return vectors

        def tell(self, vectors: torch.Tensor) -> torch.Tensor:
            states, _ = self.decoder(vectors[:, None].expand(-1, PLACES, -1))
            frames: torch.Tensor = self.out(states)
            return frames

    network = SpeechNetwork()
    with torch.no_grad():
        for weights in network.parameters():
            bound = weights.shape[-1] ** -0.5
            weights.copy_((torch.rand(weights.shape, generator=generator) * 2 - 1) * bound)
    return network.to(config.device)
