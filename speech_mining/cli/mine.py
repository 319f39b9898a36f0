"""`s2s mine`: from two matrices of embeddings to a list of pairs, with a search that can be killed and gone on with."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from speech_mining.atomic import replacing
from speech_mining.cli.matrices import Embeddings, Sides
from speech_mining.cli.memory import Peak, peak_memory
from speech_mining.errors import SettingsError
from speech_mining.progress import Progress
from speech_mining.stopes import outputs
from speech_mining.stopes.shards import RawForm, find_shards

if TYPE_CHECKING:
    from speech_mining.knn.neighbours import Neighbours
    from speech_mining.mining.strategies import Mined


class Margin(str, Enum):
    """Names as in `speech_mining.mining.margin.MARGINS`."""

    ratio = "ratio"
    distance = "distance"
    absolute = "absolute"


class Strategy(str, Enum):
    """Names as in `speech_mining.mining.strategies.STRATEGIES`."""

    forward = "forward"
    backward = "backward"
    intersection = "intersection"
    union = "union"
    max = "max"


class Engine(str, Enum):
    """Names as in `speech_mining.knn.hardware.ENGINES`."""

    auto = "auto"
    int8 = "int8"
    fp32 = "fp32"
    cuda = "cuda"
    ivf = "ivf"
    faiss = "faiss"


class RawType(str, Enum):
    """Names as in `speech_mining.stopes.shards.RAW_TYPES`."""

    float16 = "float16"
    float32 = "float32"


class Best(str, Enum):
    """Names as in `speech_mining.mining.strategies.BEST`."""

    margin = "margin"
    nearest = "nearest"


def mine(
    source: Annotated[
        Path, typer.Argument(metavar="SRC.npy|DIR", help="Source embeddings: a file, a folder or a quoted pattern.")
    ],
    target: Annotated[Path, typer.Argument(metavar="TGT.npy|DIR", help="Target embeddings, likewise.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Where the pairs go: FILE.tsv (no header), FILE.parquet, or stopes' FILE.align.npz."
        ),
    ],
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours in each direction.")] = 16,
    margin: Annotated[Margin, typer.Option("--margin", help="How a pair is scored.")] = Margin.ratio,
    strategy: Annotated[Strategy, typer.Option("--strategy", help="Which candidates become pairs.")] = Strategy.max,
    best: Annotated[
        Best, typer.Option("--best", help="A row's best neighbour: that of the highest margin, or the nearest.")
    ] = Best.margin,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Least score of a pair; 1.06 with the ratio margin, else required."),
    ] = None,
    engine: Annotated[Engine, typer.Option("--engine", help="How neighbours are found.")] = Engine.auto,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", help="Working memory besides the two matrices.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Cores to use; all by default.")] = None,
    neighbours: Annotated[
        Path | None,
        typer.Option("--neighbours", metavar="FILE.npz", help="Neighbours to reuse, or where to save them."),
    ] = None,
    dimension: Annotated[
        int | None, typer.Option("--dimension", min=1, help="Of embedding files without a header: values a row.")
    ] = None,
    dtype: Annotated[RawType, typer.Option("--dtype", help="And the type of a value.")] = RawType.float32,
    space_map: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE.npz", help="Bring both sides together by what `s2s align` wrote."),
    ] = None,
    source_text: Annotated[
        str | None, typer.Option("--source-text", help="Lines of the source rows, for FILE.bitext.tsv.gz; a pattern.")
    ] = None,
    target_text: Annotated[str | None, typer.Option("--target-text", help="Those of the target rows.")] = None,
    source_meta: Annotated[
        str | None, typer.Option("--source-meta", help="Metadata of the source rows, for FILE.bimeta.tsv.gz.")
    ] = None,
    target_meta: Annotated[str | None, typer.Option("--target-meta", help="Those of the target rows.")] = None,
) -> None:
    """Mine pairs between two matrices of embeddings.

    Rows are normalised on reading. The pairs have three columns, `score source target`, rows counted from 0, sorted
    by decreasing score, then source, then target. A folder's shards are taken in the order of their numbers, and rows
    are counted through. A search that was killed goes on when the same command is given again.

    [bold]Examples[/bold]

    s2s mine deu.npy eng.npy --out pairs.tsv

    s2s mine deu/ eng/ --memory-gb 8 --neighbours deu-eng.npz --out pairs.parquet

    s2s mine deu/ eng/ --neighbours deu-eng.npz --margin distance --threshold 0.05 --out pairs.tsv

    s2s mine speech.npy text.npy --map map.npz --out pairs.tsv

    s2s mine 'emb/encf.*.deu' 'emb/encf.*.eng' --out deu-eng.align.npz --source-text 'deu.*.xz' --target-text 'eng.*.xz'
    """
    from speech_mining.mining import strategies

    texts = _texts(out, (source_text, target_text, source_meta, target_meta))
    write = _writer(out)
    if neighbours is not None and neighbours.suffix != ".npz":
        raise SettingsError(f"Neighbours would go to {neighbours}.", expected="a name that ends in .npz")
    least = strategies.checked_threshold(margin.value, threshold)
    raw = None if dimension is None else RawForm(dimension, dtype.value)
    sides = _sides(Embeddings(source, raw), Embeddings(target, raw), space_map)
    for file in (out, neighbours or out):
        check_writable(file)
    began = time.perf_counter()
    with peak_memory() as peak:
        asked = Asked(k, engine.value, memory_gb, threads)
        found, searched = _neighbours(sides, asked, neighbours, out, peak)
        elapsed_s = time.perf_counter() - began
        mined = strategies.mine(found, margin=margin.value, strategy=strategy.value, best=best.value, threshold=least)
        if out.name.endswith(outputs.SUFFIX):
            _write_stopes(found, mined, Scored(margin.value, best.value), texts, out)
        else:
            write(mined, out)
    shutil.rmtree(_partial(out), ignore_errors=True)
    _tell(found, mined, out, (elapsed_s, searched), peak)


def _sides(source: Embeddings, target: Embeddings, space_map: Path | None) -> Sides:
    if space_map is None:
        return Sides(source, target)
    from speech_mining.cli.mapped import mapped_sides

    sides, found = mapped_sides(source, target, space_map)
    told = ", ".join(f"{name} {value}" for name, value in found.facts.items())
    _say(f"Both sides go through {space_map} ({told}).")
    return sides


@dataclass(frozen=True)
class Scored:
    """How candidates were scored and the best of a row chosen."""

    margin: str
    best: str


@dataclass(frozen=True)
class Asked:
    """How to search."""

    k: int
    engine: str
    memory_gb: float | None
    threads: int | None


def _neighbours(sides: Sides, asked: Asked, kept: Path | None, out: Path, peak: Peak) -> tuple[Neighbours, int]:
    """Read neighbours that were kept, or search and keep them; with the products that were computed."""
    from speech_mining.knn.neighbours_file import read_neighbours, write_neighbours

    if kept is not None and kept.exists():
        return read_neighbours(kept, sides, asked.k, asked.engine), 0
    found, searched = _search(sides, asked, out, peak)
    if kept is not None:
        write_neighbours(found, kept, sides)
    return found, searched


def _search(sides: Sides, asked: Asked, out: Path, peak: Peak) -> tuple[Neighbours, int]:
    """Search, going on where a killed search of the same matrices was."""
    from speech_mining.knn import both_directions
    from speech_mining.knn.checkpoint_files import Folder
    from speech_mining.knn.hardware import choose_engine

    rows, columns = len(sides.source.matrix), len(sides.target.matrix)
    engine, _ = choose_engine(asked.engine, rows, columns, sides.source.matrix.shape[1])
    shards = Folder(_partial(out), sides, engine, tell=_say)
    try:
        left, right = sides.source.unit_rows(out.parent), sides.target.unit_rows(out.parent)
        for library in ("torch", "speech_mining.knn.kernels"):
            import_module(library)
        peak.begin()  # libraries take 0.3 GB, whatever is searched
        with _bar("Comparing rows") as progress:
            found = both_directions(
                left,
                right,
                asked.k,
                engine=asked.engine,
                memory_gb=asked.memory_gb,
                threads=asked.threads,
                progress=progress,
                checkpoint=shards,
            )
    except BaseException:
        if shards.finished:
            _say(f"{shards.finished} source rows are finished and kept; the same command goes on with the next.")
        raise
    return found, (rows - shards.restored) * columns if found.products is None else found.products


def _partial(out: Path) -> Path:
    """Where finished shards are kept until the pairs are written."""
    return out.with_name(f".{out.name}.partial")


def read_embeddings(path: Path) -> npt.NDArray[np.float32]:
    """Read one embedding a row from a .npy file or a folder of them, memory-mapped, and normalise the rows.

    Returns:
        float32 (n, d), unit rows.

    Raises:
        EmbeddingError: no such file, not a .npy matrix of float16, float32 or float64, NaN or zero rows.
    """
    from speech_mining.knn.vectors import normalise

    return normalise(Embeddings(path).matrix, str(path))


def _texts(out: Path, patterns: tuple[str | None, ...]) -> outputs.Texts | None:
    if not any(patterns):
        return None
    if not out.name.endswith(outputs.SUFFIX):
        raise SettingsError(
            f"Texts are given, and pairs go to {out}.", expected=f"a name that ends in {outputs.SUFFIX}"
        )
    return outputs.Texts(*(tuple(find_shards(pattern)) if pattern else () for pattern in patterns))


def _write_stopes(found: Neighbours, mined: Mined, scored: Scored, texts: outputs.Texts | None, out: Path) -> None:
    backward = outputs.only_backward(mined, found, margin=scored.margin, best=scored.best)
    if texts is not None:
        prefix = out.with_name(out.name.removesuffix(outputs.SUFFIX))
        told = outputs.write_bitext(mined, backward, texts, (found.source_count, found.target_count), prefix)
        _say(f"{told['written']} pairs of texts beside it; {told['repeated']} repeated a pair of texts.")
    outputs.write_alignments(mined, backward, out)


def _writer(out: Path) -> Any:
    writers = {".tsv": _write_tsv, ".parquet": _write_parquet}
    if out.suffix not in writers and not out.name.endswith(outputs.SUFFIX):
        raise SettingsError(
            f"The pairs would go to {out}.",
            expected=f"a name that ends in .tsv or .parquet, or in {outputs.SUFFIX} as stopes has it",
        )
    if out.is_dir() or any(parent.exists() and not parent.is_dir() for parent in out.parents):
        raise SettingsError(f"{out} cannot be written.", cause="a folder has that name, or a file stands in its path")
    return writers.get(out.suffix)


def check_writable(path: Path) -> None:
    """Find out before the search and not after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror}).") from error


def _write_tsv(mined: Mined, out: Path) -> None:
    with replacing(out) as part:
        _table(mined).write_csv(part, include_header=False, separator="\t")  # shortest digits that read back the same


def _write_parquet(mined: Mined, out: Path) -> None:
    with replacing(out) as part:
        _table(mined).write_parquet(part)


def _table(mined: Mined) -> Any:
    import polars as pl

    return pl.DataFrame({"score": mined.score, "source": mined.source, "target": mined.target})


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=None, rate="")
        began: list[tuple[float, int]] = []

        def show(done: int, total: int, /) -> None:
            if not began:  # what was restored took no time
                began.append((time.perf_counter(), done))
            elapsed_s = time.perf_counter() - began[0][0]
            rate = (done - began[0][1]) / elapsed_s / 1e6 if elapsed_s > 0 else 0.0
            bars.update(task, completed=done, total=total, rate=f"{rate:.0f} million cosines/s")

        yield show


def _tell(found: Neighbours, mined: Mined, out: Path, spent: tuple[float, int], peak: Peak) -> None:
    elapsed_s, searched = spent
    counts = mined.counts
    told = (
        f"{counts['pairs']} pairs written to {out}. Of {counts['best']} best candidates {counts['below_threshold']} "
        f"were below the threshold and {counts['taken']} met a row already taken; {counts['undefined']} of "
        f"{counts['candidates']} neighbours had no defined margin. {found.source_count} x {found.target_count} rows in "
        f"{elapsed_s:.1f} s, {searched / elapsed_s / 1e6:.1f} million cosines a second; {found.reason}. "
        f"{peak.told()}"
    )
    _say(told)


def _say(told: str) -> None:
    Console(stderr=True).print(told, highlight=False, markup=False, soft_wrap=True)
