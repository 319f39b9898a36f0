"""How much noise each method of `s2s align` bears, against the supervised map and against POT alone.

    OMP_NUM_THREADS=1 python -m benchmarks.alignment --rows 1500 --dimension 50 --seeds 3

The source is rows in clusters of unequal size whose spread falls from direction to direction (the power -0.7 of its
number), rotated isotropic rows having no shape to find. The target is the source plus noise with the same falling
spread, rotated, in an order that agrees with the source's only roughly, as frequencies in two corpora do. Noise of 0.5
means a noise half as long as the row.

- supervised: Procrustes on a random half of the pairs, the upper bound.
- distribution, gw, adversarial: one attempt each, as `s2s align --method … --restarts 1` makes it.
- auto: of these three the one with the highest criterion, which sees no pair.
- identity: the adversarial game as published begins, from the identity, with the rest as ours.
- POT alone: `ot.gromov.gromov_wasserstein` between the two tables of cosine distances of the first 1000 rows, as POT's
  documentation shows it; the row's likeliest partner is its answer. It judges itself among 1000 rows, not all.

Accuracy is the share of the other half's rows whose nearest target row under CSLS is the right one. A method breaks at
the noise where its mean over seeds falls below one half, read off between the two levels around it. Seconds are those
of the processor, on one core.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.align.adversarial import Game
from speech_mining.align.alignment import Alignment, Pairing, Wish, align
from speech_mining.align.csls import match
from speech_mining.benchmark.machine import describe_machine

CLUSTERS = 60
DECAY = 0.7
ORDER = 0.5
"""Standard deviation of the natural logarithm of a row's rank between the two sides."""
PEER_ROWS = 1000
UNSUPERVISED = ("distribution", "gw", "adversarial")
SHOWN = ("supervised", "auto", *UNSUPERVISED, "identity", "POT alone")
BROKEN = 0.5

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    rows: int
    dimension: int
    seeds: int
    noise: list[float]
    plot: Path | None
    keep: Path | None


@dataclass(frozen=True, eq=False)
class World:
    """Two spaces, what is right, and which half is known."""

    source: npt.NDArray[np.float32]
    target: npt.NDArray[np.float32]
    answers: Rows
    known: npt.NDArray[np.bool_]

    def accuracy(self, found: Alignment) -> float:
        """Share of the unknown half that a map brings to the right row."""
        matched = match(found.map.source.apply(self.source), found.map.target.apply(self.target), threads=1)
        return float((matched.forward == self.answers)[~self.known].mean())


@dataclass
class Figures:
    """What was measured: accuracy and seconds by seed, noise and method, as they stand in JSON."""

    found: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)

    def of(self, noise: float, method: str) -> npt.NDArray[np.float64]:
        """Accuracy and seconds, one row a seed: (seeds, 2)."""
        names = [name for name in sorted(self.found) if name.endswith(f", noise {noise:g}")]
        return np.array([self.found[name][method] for name in names]).reshape(-1, 2)


def main() -> None:
    """Measure and print."""
    sizes = _arguments()
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    print(f"{sizes.rows} rows of {sizes.dimension} values, {CLUSTERS} clusters, spread falling by {DECAY}")
    kept = sizes.keep is not None and sizes.keep.exists()
    figures = Figures(json.loads(sizes.keep.read_text("utf-8")) if sizes.keep and kept else {})
    for seed in range(sizes.seeds):
        for noise in sizes.noise:
            name = f"seed {seed}, noise {noise:g}"
            if name not in figures.found:
                figures.found[name] = _measured(make_world(sizes.rows, sizes.dimension, noise, seed), seed)
                if sizes.keep is not None:
                    sizes.keep.write_text(json.dumps(figures.found, indent=1), "utf-8")
            told = (f"{method} {accuracy:.3f}" for method, (accuracy, _) in figures.found[name].items())
            print(f"{name}: {', '.join(told)}", flush=True)
    _print_table(figures, sizes)
    if sizes.plot is not None:
        draw(figures, sizes, sizes.plot)


def _arguments() -> Sizes:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alignment", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--dimension", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, nargs="*", default=[0.2, 0.4, 0.6, 0.8, 1.0])
    parser.add_argument("--plot", type=Path, help="where the plot goes, FILE.svg")
    parser.add_argument("--keep", type=Path, help="a .json that what is measured goes to; a second run goes on with it")
    return Sizes(**vars(parser.parse_args()))


def make_world(rows: int, dimension: int, noise: float, seed: int) -> World:
    """Make two spaces."""
    random = np.random.default_rng([seed, 9])
    spread = np.arange(1, dimension + 1) ** -DECAY
    cluster = random.choice(CLUSTERS, rows, p=random.dirichlet(np.full(CLUSTERS, 0.7)))
    width = random.gamma(4, 1 / 4, CLUSTERS)[cluster, None]
    centres = random.standard_normal((CLUSTERS, dimension))[cluster]
    source = (centres + width * random.standard_normal((rows, dimension))) * spread
    source /= np.linalg.norm(source, axis=1, keepdims=True)
    added = noise * random.standard_normal((rows, dimension)) * spread / np.linalg.norm(spread)
    turned = np.linalg.qr(random.standard_normal((dimension, dimension)))[0]
    order = np.argsort(np.log(np.arange(1, rows + 1)) + ORDER * random.standard_normal(rows))
    target = ((source + added) @ turned)[order]
    known = random.random(rows) < 0.5
    return World(source.astype(np.float32), target.astype(np.float32), np.argsort(order), known)


def _measured(world: World, seed: int) -> dict[str, tuple[float, float]]:
    """Accuracy and processor seconds by method."""
    rows = np.flatnonzero(world.known)
    known = Pairing(rows, world.answers[rows])

    def aligned(wish: Wish, dictionary: Pairing | None = None) -> tuple[float, float, float]:
        began = time.process_time()
        found = align(world.source, world.target, wish, dictionary)
        return world.accuracy(found), time.process_time() - began, found.best.criterion

    made = {method: aligned(Wish(method=method, seed=seed, restarts=1)) for method in UNSUPERVISED}
    best = max(made.values(), key=lambda one: one[2])
    published = Wish(method="adversarial", seed=seed, restarts=1, game=replace(Game(), begin="identity"))
    return {
        "supervised": aligned(Wish(method="supervised"), known)[:2],
        "auto": (best[0], sum(one[1] for one in made.values())),
        **{method: one[:2] for method, one in made.items()},
        "identity": aligned(published)[:2],
        "POT alone": _timed(lambda: _pot_alone(world)),
    }


def _timed(work: Callable[[], float]) -> tuple[float, float]:
    began = time.process_time()
    return work(), time.process_time() - began


def _pot_alone(world: World) -> float:
    """Share of the first rows, partner among the first rows too, that the plan carries to it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ot

        source, target = (side[:PEER_ROWS].astype(np.float64) for side in (world.source, world.target))
        tables = [ot.dist(side, side, metric="cosine") for side in (source, target)]
        plan = ot.gromov.gromov_wasserstein(*tables, symmetric=True, max_iter=50)
    answers = world.answers[:PEER_ROWS]
    asked = (answers < PEER_ROWS) & ~world.known[:PEER_ROWS]
    return float((plan.argmax(1) == answers)[asked].mean())


def breaks_at(noise: list[float], accuracy: list[float]) -> str:
    """The noise at which accuracy falls below one half, in words."""
    if accuracy[0] < BROKEN:
        return f"below {noise[0]:g}"
    for place in range(1, len(noise)):
        before, after = accuracy[place - 1], accuracy[place]
        if after < BROKEN:
            return f"{noise[place - 1] + (noise[place] - noise[place - 1]) * (before - BROKEN) / (before - after):.2f}"
    return f"above {noise[-1]:g}"


def _print_table(figures: Figures, sizes: Sizes) -> None:
    print("\nmean accuracy over the seeds (lowest), where it breaks, mean processor seconds an attempt")
    print("method       " + "".join(f"{noise:>15g}" for noise in sizes.noise) + "   breaks at   seconds")
    for method in SHOWN:
        told = [figures.of(noise, method) for noise in sizes.noise]
        means = [float(values[:, 0].mean()) for values in told]
        shares = "".join(f"{mean:>7.3f} ({values[:, 0].min():.3f})" for mean, values in zip(means, told, strict=True))
        seconds = np.concatenate(told)[:, 1].mean()
        print(f"{method:<13}{shares}   {breaks_at(sizes.noise, means):>9}   {seconds:7.1f}", flush=True)


def draw(figures: Figures, sizes: Sizes, path: Path) -> None:
    """Write the plot; equal figures give equal bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "alignment", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes: Any = figure.subplots()
        for method in SHOWN:
            values = [100 * figures.of(noise, method)[:, 0] for noise in sizes.noise]
            style = {"supervised": "k--", "auto": "k-"}.get(method, "-")
            (line,) = axes.plot(sizes.noise, [each.mean() for each in values], style, label=method)
            places = np.repeat(sizes.noise, [len(each) for each in values])  # each seed: a game is all or nothing
            axes.plot(places, np.concatenate(values), "o", color=line.get_color(), markersize=3.5, alpha=0.5)
        axes.axhline(100 * BROKEN, color="0.7", linewidth=0.8)
        axes.set(xlabel="noise, in lengths of a row", ylabel="right under CSLS, %", ylim=(0, 102))
        axes.legend(frameon=False, fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
