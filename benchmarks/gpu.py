"""The `cuda` engine against the card's own matrix peak and FAISS on the GPU: time against the number of rows.

    python -m benchmarks.gpu [--rows 62500 125000 250000 500000 1000000] [--plot FILE.png]

N source rows are searched against N target rows, both directions. The peak is that of one large float16 product,
measured in the same run. Two shares of it are printed: of the sweep alone, which is what the GPU does, and end to end,
which adds what the processor does for each row: checking its length, scoring its candidates exactly. Rows drawn at
random are compared with the `fp32` engine's neighbours. FAISS is IndexFlatIP on the GPU searched with either side.

Without a GPU the same steps run on the CPU at a small size: figures then say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.knn import machine
from speech_mining.knn import both_directions
from speech_mining.knn.engines.cuda import Cuda
from speech_mining.knn.engines.protocol import Sweep, Tally
from speech_mining.knn.exact import check_sides
from speech_mining.knn.plan import Sizes, plan
from speech_mining.knn.products import available_threads, crew
from speech_mining.knn.settle import Rough, settle
from speech_mining.knn.toplists import TopLists
from speech_mining.progress import silent

Matrix = npt.NDArray[np.float16]

SAMPLE = 200
"""Rows of each side whose neighbours are compared with the fp32 engine's."""
PEAK_SIDE = {"cuda": 16_384, "cpu": 1024}
SMALL = (1000, 2000)
"""Rows where there is no GPU."""
DRAWN_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Asked:
    """What is measured."""

    rows: tuple[int, ...]
    dimension: int
    k: int
    products: torch.dtype
    faiss_rows: int
    plot: Path | None
    device: str


@dataclass(frozen=True)
class Measured:
    """One size."""

    rows: int
    check_s: float
    sweep_s: float
    settle_s: float
    again: int
    """Rows of both sides that were searched again."""
    agreement: float
    """Share of the sample's neighbours that are the fp32 engine's, place by place."""
    faiss_s: float | None

    @property
    def whole_s(self) -> float:
        """End to end."""
        return self.check_s + self.sweep_s + self.settle_s


def main() -> None:
    """Measure, print, and draw."""
    asked = _arguments()
    if asked.device == "cpu":
        print("There is no GPU here. The same steps run on the CPU; these figures say nothing about a GPU.")
    peak = matrix_peak(asked.device)
    print(f"{machine(available_threads())}, {_card(asked.device)}, torch {torch.__version__}")
    print(f"peak of one product of side {PEAK_SIDE[asked.device]}: {peak / 1e12:.4g} TFLOP/s")
    print(f"N x N x {asked.dimension}, k = {asked.k}, both directions, products as {str(asked.products)[6:]}")
    print(f"{'N':>9s}{'check':>9s}{'sweep':>9s}{'settle':>9s}{'of peak':>9s}{'to end':>8s}{'again':>7s}", end="")
    print(f"{'agree':>10s}{'faiss':>9s}")
    found = []
    for rows in asked.rows:
        found.append(measured(rows, asked))
        print(_line(found[-1], asked.dimension, peak), flush=True)
    if asked.plot is not None:
        draw(found, asked, peak, asked.plot)
        print(f"drawn to {asked.plot}")


def _arguments() -> Asked:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = [62_500, 125_000, 250_000, 500_000, 1_000_000] if device == "cuda" else list(SMALL)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=sizes)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--products", choices=["float16", "float32"], default="float16", help="as they are stored")
    parser.add_argument("--faiss-rows", type=int, default=250_000, help="FAISS is left out beyond")
    parser.add_argument("--plot", type=Path, help="a PNG of time against N")
    given = vars(parser.parse_args())
    rows, kind = tuple(given.pop("rows")), getattr(torch, given.pop("products"))
    return Asked(rows=rows, products=kind, device=device, **given)


def matrix_peak(device: str) -> float:
    """Operations a second of one large product: float16 on a GPU, float32 on a CPU, which is what is used there."""
    side, kind = PEAK_SIDE[device], torch.float16 if device == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    out = torch.empty_like(left)
    seconds = [_timed(lambda: torch.mm(left, right.t(), out=out), device)[0] for _ in range(6)]
    return 2 * side**3 / statistics.median(seconds[1:])


def synthetic_sides(rows: int, dimension: int, device: str) -> tuple[Matrix, Matrix]:
    """Half of the source has a noisy translation on the other side; a shared direction makes all cosines positive."""
    draw = torch.Generator(device).manual_seed(0)
    common = 0.7 * torch.randn(dimension, generator=draw, device=device)
    sides: tuple[list[Matrix], list[Matrix]] = [], []
    for first in range(0, rows, DRAWN_AT_ONCE):
        count = min(DRAWN_AT_ONCE, rows - first)
        source, noise = (torch.randn(count, dimension, generator=draw, device=device) for _ in range(2))
        target = torch.where(torch.arange(count, device=device)[:, None] % 2 == 0, source + 0.7 * noise, noise)
        for side, drawn in zip(sides, (source, target), strict=True):
            side.append(torch.nn.functional.normalize(drawn + common).half().cpu().numpy())
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def measured(rows: int, asked: Asked) -> Measured:
    """Search N rows against N, step by step as `both_directions` does."""
    source, target = synthetic_sides(rows, asked.dimension, asked.device)
    engine, threads = Cuda(asked.dimension, asked.device, products=asked.products), available_threads()
    _search(engine, source[:2000], target[:2000], asked.k, threads)  # compiled code is loaded, the GPU woken
    check_s, (sweep_s, settle_s), (forward, backward) = _search(engine, source, target, asked.k, threads)
    sides = (forward.rows, source, target), (backward.rows, target, source)
    agreement = statistics.mean(_agreement(*side, asked.k) for side in sides)
    again = forward.searched_again + backward.searched_again
    faiss_s = _faiss_s(source, target, asked.k) if rows <= asked.faiss_rows else None
    return Measured(rows, check_s, sweep_s, settle_s, again, agreement, faiss_s)


def _search(engine: Cuda, source: Matrix, target: Matrix, k: int, threads: int) -> Any:
    n, m = len(source), len(target)
    divided = plan(None, Sizes(n, m, source.shape[1], k, threads, engine.row_bytes()))
    forward, backward = TopLists.empty(n, divided.room), TopLists.empty(m, divided.room)
    check_s, _ = _timed(lambda: check_sides(source, target))
    with crew(threads) as hired:
        work = Sweep(source, target, forward, backward, hired, divided.tiles, Tally(n * m, silent))
        sweep_s, errors = _timed(lambda: engine.sweep(work))
        settle_s, settled = _timed(
            lambda: (
                settle(source, target, Rough(forward, errors[0]), k, hired),
                settle(target, source, Rough(backward, errors[1]), k, hired),
            )
        )
    return check_s, (sweep_s, settle_s), settled


def _agreement(found: npt.NDArray[np.int64], queries: Matrix, base: Matrix, k: int) -> float:
    drawn = np.sort(np.random.default_rng(0).permutation(len(queries))[:SAMPLE])
    exactly = both_directions(queries[drawn], base, k, engine="fp32").forward_rows
    return float((found[drawn] == exactly).mean())


def _faiss_s(source: Matrix, target: Matrix, k: int) -> float | None:
    """Seconds of FAISS on the GPU, building included; None where it has none."""
    import faiss

    if not faiss.get_num_gpus():
        return None
    resources = faiss.StandardGpuResources()
    wide = [side.astype(np.float32) for side in (source, target)]

    def both() -> None:
        for queries, base in (wide, wide[::-1]):
            index = faiss.GpuIndexFlatIP(resources, base.shape[1])
            index.add(base)
            index.search(queries, k)

    return _timed(both)[0]


def _timed(action: Callable[[], Any], device: str = "cpu") -> tuple[float, Any]:
    began = time.perf_counter()
    made = action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, made


def _card(device: str) -> str:
    return torch.cuda.get_device_name(0) if device == "cuda" else "no GPU"


def _line(found: Measured, dimension: int, peak: float) -> str:
    least_s = 2 * found.rows**2 * dimension / peak
    faiss_s = "" if found.faiss_s is None else f"{found.faiss_s:8.2f}s"
    times = f"{found.rows:9d}{found.check_s:8.2f}s{found.sweep_s:8.2f}s{found.settle_s:8.2f}s"
    shares = f"{least_s / found.sweep_s:9.1%}{least_s / found.whole_s:8.1%}"
    return f"{times}{shares}{found.again:7d}{found.agreement:10.6f}{faiss_s:>9s}"


def draw(found: list[Measured], asked: Asked, peak: float, path: Path) -> None:
    """A PNG: seconds against N, both on logarithmic axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rows = [each.rows for each in found]
    axes.loglog(rows, [2 * n**2 * asked.dimension / peak for n in rows], "--", color="#9aa5b1", label="matrix peak")
    axes.loglog(rows, [each.sweep_s for each in found], "o-", color="#2f7fb8", label="sweep")
    axes.loglog(rows, [each.whole_s for each in found], "o-", color="#d1495b", label="end to end")
    theirs = [(each.rows, each.faiss_s) for each in found if each.faiss_s is not None]
    if theirs:
        axes.loglog(*zip(*theirs, strict=True), "s-", color="#333333", label="FAISS flat on the GPU")
    axes.set_xlabel("rows on each side")
    axes.set_ylabel("seconds")
    axes.set_title(f"{_card(asked.device)}: {asked.k} nearest both ways, {asked.dimension} values", loc="left")
    axes.legend(frameon=False)
    axes.grid(color="#e4e4e4")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
