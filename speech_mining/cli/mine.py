"""`s2s mine`: from two matrices of embeddings to a list of pairs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from speech_mining.atomic import replacing
from speech_mining.errors import EmbeddingError, SettingsError
from speech_mining.progress import Progress

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
    faiss = "faiss"


def mine(
    source: Annotated[Path, typer.Argument(metavar="SRC.npy", help="Source embeddings, one a row.")],
    target: Annotated[Path, typer.Argument(metavar="TGT.npy", help="Target embeddings, one a row.")],
    out: Annotated[Path, typer.Option("--out", help="Where the pairs go: FILE.tsv (no header) or FILE.parquet.")],
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours in each direction.")] = 16,
    margin: Annotated[Margin, typer.Option("--margin", help="How a pair is scored.")] = Margin.ratio,
    strategy: Annotated[Strategy, typer.Option("--strategy", help="Which candidates become pairs.")] = Strategy.max,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Least score of a pair; 1.06 with the ratio margin, else required."),
    ] = None,
    engine: Annotated[Engine, typer.Option("--engine", help="How neighbours are found.")] = Engine.auto,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", help="Working memory besides the two matrices.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Cores to use; all by default.")] = None,
) -> None:
    """Mine pairs between two matrices of embeddings.

    Rows are normalised on reading. The pairs have three columns, `score source target`, rows counted from 0, sorted
    by decreasing score, then source, then target.

    [bold]Examples[/bold]

    s2s mine deu.npy eng.npy --out pairs.tsv

    s2s mine deu.npy eng.npy --strategy intersection --threshold 1.04 --out pairs.parquet

    s2s mine deu.npy eng.npy --margin distance --threshold 0.05 --k 8 --out pairs.tsv
    """
    from speech_mining.knn import both_directions
    from speech_mining.mining import strategies

    write = _writer(out)
    least = strategies.checked_threshold(margin.value, threshold)
    left, right = read_embeddings(source), read_embeddings(target)
    _check_dimensions(source, left, target, right)
    began = time.perf_counter()
    with _bar("Comparing rows") as progress:
        neighbours = both_directions(
            left, right, k, engine=engine.value, memory_gb=memory_gb, threads=threads, progress=progress
        )
    elapsed_s = time.perf_counter() - began
    mined = strategies.mine(neighbours, margin=margin.value, strategy=strategy.value, threshold=least)
    write(mined, out)
    _tell(neighbours, mined, out, elapsed_s)


def read_embeddings(path: Path) -> npt.NDArray[np.float32]:
    """Read one embedding a row from a .npy file, memory-mapped, and normalise the rows.

    Returns:
        float32 (n, d), unit rows.

    Raises:
        EmbeddingError: no such file, not a .npy matrix of float16, float32 or float64, NaN or zero rows.
    """
    from speech_mining.knn.vectors import normalise

    shape = _matrix_shape(path)
    try:
        # the system refuses to map a file without data
        matrix = np.load(path, mmap_mode=None if 0 in shape else "r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise EmbeddingError(f"{path} cannot be read ({error}).", cause="the file was cut short") from error
    return normalise(matrix.astype(matrix.dtype.newbyteorder("="), copy=False), str(path))


def _matrix_shape(path: Path) -> tuple[int, ...]:
    """Read the header alone, so that nothing which is not a plain matrix is ever loaded."""
    expected = "a .npy file as numpy.save writes it, float16, float32 or float64, one embedding a row"
    if not path.is_file():
        raise EmbeddingError(f"There is no file {path}.", expected=expected)
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
        except ValueError as error:
            raise EmbeddingError(
                f"{path} is not a .npy file.", expected=expected, cause="it is another kind of file, or was cut short"
            ) from error
    if dtype.hasobject:
        raise EmbeddingError(f"{path} holds Python objects, which are never unpickled.", expected=expected)
    return shape


def _check_dimensions(source: Path, left: npt.NDArray[Any], target: Path, right: npt.NDArray[Any]) -> None:
    if left.shape[1] != right.shape[1]:
        raise EmbeddingError(
            f"{source} has rows of {left.shape[1]} values, {target} of {right.shape[1]}.",
            expected="one dimension on both sides",
            cause="the two sides were embedded by different encoders",
            fix="embed both with the same encoder",
        )


def _writer(out: Path) -> Any:
    writers = {".tsv": _write_tsv, ".parquet": _write_parquet}
    if out.suffix not in writers:
        raise SettingsError(f"The pairs would go to {out}.", expected="a name that ends in .tsv or .parquet")
    if out.is_dir() or any(parent.exists() and not parent.is_dir() for parent in out.parents):
        raise SettingsError(f"{out} cannot be written.", cause="a folder has that name, or a file stands in its path")
    return writers[out.suffix]


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
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total, /: bars.update(task, completed=done, total=total)


def _tell(neighbours: Neighbours, mined: Mined, out: Path, elapsed_s: float) -> None:
    compared = neighbours.source_count * neighbours.target_count
    counts = mined.counts
    told = (
        f"{counts['pairs']} pairs written to {out}. Of {counts['best']} best candidates {counts['below_threshold']} "
        f"were below the threshold and {counts['taken']} met a row already taken; {counts['undefined']} of "
        f"{counts['candidates']} neighbours had no defined margin. {neighbours.source_count} x "
        f"{neighbours.target_count} rows in {elapsed_s:.1f} s, {compared / elapsed_s / 1e6:.1f} million cosines a "
        f"second; {neighbours.reason}."
    )
    Console(stderr=True).print(told, highlight=False, markup=False, soft_wrap=True)
