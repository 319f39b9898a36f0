"""A first map by a game: a discriminator learns to tell mapped source rows from target rows, the map to fool it.

Conneau et al. 2018, sections 2.1 and 2.2, which Chung, Weng, Tong & Glass, "Unsupervised cross-modal alignment of
speech and text embedding spaces", 2018, apply to speech and text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.align.procrustes import orthogonal
from speech_mining.align.refinement import Clock, Sides, unlimited
from speech_mining.align.spaces import Matrix

UPDATES_BETWEEN_CLOCKS = 50
BEGINNINGS = ("axes", "identity")
"""`identity` is the paper's; `axes` lays the principal axes of one side on those of the other."""


@dataclass(frozen=True)
class Game:
    """The rules: the published ones, but for sizes and rates, which are measured for some thousand rows and one core.

    At the published rate of 0.1 the map hardly moved in as many updates as a core makes in a minute. From the axes a
    game brought 500 rows with noise of 0.2 from 1 % right to 21 %; from the identity four games stayed at 1 %.
    """

    begin: str = "axes"
    """One of `BEGINNINGS`."""
    epochs: int = 6
    updates: int = 500
    """Updates of the map an epoch; the paper plays 5 epochs of 31 250."""
    batch: int = 128
    """Rows of each side; the paper's 32."""
    hidden: int = 128
    """Values of the discriminator's two layers; the paper's 2048. An update took 3 ms with 128, 11 ms with 256."""
    input_dropout: float = 0.1
    smoothing: float = 0.1
    turns: int = 2
    """Updates of the discriminator for one of the map; the paper's 5."""
    rate: float = 0.1
    """Of the discriminator."""
    map_rate: float = 5.0
    """Of the map, which works on rows that are longer by the root of the dimension; the paper's 0.1."""
    decay: float = 0.98
    """What the map's rate is multiplied with after an epoch."""
    shrink: float = 0.5
    """And once more after an epoch whose criterion is below the best, from the second on."""
    orthogonality: float = 0.01
    """β of W ← (1 + β) W − β (W Wᵀ) W after each update of the map; the paper's 0.001."""
    won: float = 0.4
    """Loss below which the discriminator has won and tells the map nothing: it is renewed. At 0.1 of smoothing a sure
    one has 0.33, one that guesses 0.69."""
    frequent: int = 20_000
    """Rows that are drawn: the most frequent ones."""


@dataclass(frozen=True, eq=False)
class Played:
    """What comes of a game."""

    weights: Matrix
    """float32 (d, d), orthogonal: the map of the epoch that the criterion likes best."""
    renewed: int
    """How often the discriminator was."""


@dataclass(frozen=True)
class Setting:
    """What a game is played with."""

    device: str
    judge: Callable[[Matrix], float]
    """The criterion of a map (d, d)."""
    out_of_time: Clock = unlimited


def by_game(sides: Sides, game: Game, seed: int, setting: Setting) -> Played | None:
    """Play.

    Args:
        sides: the rows, of one dimension.
        game: the rules.
        seed: of the first map, the weights and the draws.
        setting: where it is played and who judges.

    Returns:
        None when time was out before the first epoch was.
    """
    import torch

    from speech_mining.encoders.threads import torch_threads

    on_gpu = [torch.device(setting.device)] if setting.device.startswith("cuda") else []
    with torch_threads(1), torch.random.fork_rng(devices=on_gpu):
        torch.manual_seed(seed)
        return _played(_Players(sides, game, setting.device, seed), game, setting)


def _played(players: _Players, game: Game, setting: Setting) -> Played | None:
    best, played, fallen, renewed = -np.inf, None, 0, 0
    for _ in range(game.epochs):
        losses = []
        for update in range(game.updates):
            if update % UPDATES_BETWEEN_CLOCKS == 0 and setting.out_of_time():
                return played
            losses.append(players.take_turns())
        current = players.orthogonal_map()
        told = setting.judge(current)
        fallen += told <= best
        players.slow_down(game.decay * (game.shrink if fallen >= 2 and told <= best else 1))
        if float(sum(losses)) / game.updates < game.won:
            players.renew()
            renewed += 1
        best, played = (told, Played(current, renewed)) if told > best else (best, played)
    return None if played is None else replace(played, renewed=renewed)


def axes_on_axes(sides: Sides, seed: int) -> Matrix:
    """The map of the principal axes of one side onto those of the other, each pointing where its rows are skewed.

    Axes and directions are those of a random half of the rows, so that what is certain is the same in all restarts, and
    what is not is tried both ways.

    Args:
        sides: the rows, of one dimension.
        seed: of the halves.

    Returns:
        float32 (d, d), orthogonal.
    """
    random = np.random.default_rng(seed)
    source, target = (_skewed_axes(side[random.random(len(side)) < 0.5]) for side in sides)
    laid: Matrix = (source @ target.T).astype(np.float32)
    return laid


def _skewed_axes(rows: Matrix) -> npt.NDArray[np.float64]:
    """Columns by decreasing spread; the mean cube of the rows along each is positive."""
    wide = rows.astype(np.float64)
    axes = np.linalg.eigh(wide.T @ wide)[1][:, ::-1]
    skewed = ((wide @ axes) ** 3).mean(0)
    turned: npt.NDArray[np.float64] = axes * np.where(skewed < 0, -1.0, 1.0)
    return turned


class _Players:
    """The discriminator and the map, with their optimisers."""

    def __init__(self, sides: Sides, game: Game, device: str, seed: int) -> None:
        import torch

        self.game = game
        dimension = sides[0].shape[1]
        scale = np.float32(np.sqrt(dimension))  # values of about 1, as the discriminator's first weights want them
        self.sides = [torch.from_numpy(side[: game.frequent] * scale).to(device) for side in sides]
        self.draw = torch.Generator().manual_seed(seed)
        first = np.eye(dimension, dtype=np.float32) if game.begin == "identity" else axes_on_axes(sides, seed)
        self.map = torch.from_numpy(first).to(device).requires_grad_()
        self.of_map = torch.optim.SGD([self.map], lr=game.map_rate)
        self.renew()
        smooth = torch.full((game.batch,), game.smoothing, device=device)
        self.answers = torch.cat([1 - smooth, smooth])

    def renew(self) -> None:
        """A new discriminator."""
        import torch

        self.discriminator = _discriminator(len(self.map), self.game).to(self.map.device)
        self.of_discriminator = torch.optim.SGD(self.discriminator.parameters(), lr=self.game.rate)

    def take_turns(self) -> Any:
        """Some updates of the discriminator, then one of the map: the discriminator's loss before its last."""
        import torch

        self.discriminator.train()
        for _ in range(self.game.turns):
            with torch.no_grad():
                rows = self._batch()
            loss = self._update(self.of_discriminator, rows, self.answers)
        self.discriminator.eval()
        self._update(self.of_map, self._batch(), 1 - self.answers)
        beta, weights = self.game.orthogonality, self.map.data
        weights.copy_((1 + beta) * weights - beta * weights @ (weights.T @ weights))
        return loss

    def orthogonal_map(self) -> Matrix:
        """The orthogonal matrix nearest to the map: float32 (d, d), for rows times it."""
        return orthogonal(np.eye(len(self.map), dtype=np.float32), self.map.detach().cpu().numpy())

    def slow_down(self, factor: float) -> None:
        """Smaller steps of the map."""
        for group in self.of_map.param_groups:
            group["lr"] *= factor

    def _batch(self) -> Any:
        """Mapped source rows above target rows."""
        import torch

        own, other = (
            side[torch.randint(len(side), (self.game.batch,), generator=self.draw).to(side.device)]
            for side in self.sides
        )
        return torch.cat([own @ self.map, other])

    def _update(self, optimiser: Any, rows: Any, answers: Any) -> Any:
        import torch

        told = self.discriminator(rows)[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(told, answers)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss.detach()


def _discriminator(dimension: int, game: Game) -> Any:
    import torch

    return torch.nn.Sequential(
        torch.nn.Dropout(game.input_dropout),
        torch.nn.Linear(dimension, game.hidden),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(game.hidden, game.hidden),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(game.hidden, 1),
    )
