"""A search keeps to the memory it was given: measured from outside, on matrices several times as large."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.errors import SettingsError
from speech_mining.knn import plan
from speech_mining.knn.exact import both_directions
from speech_mining.knn.hardware import make_engine
from speech_mining.knn.toplists import Room
from speech_mining.knn.vectors import Stack, check_unit_rows, normalise, normalised_parts

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")

SEARCH = """
import ctypes, hashlib, sys
from pathlib import Path
import numpy as np
from speech_mining.knn.exact import both_directions
from speech_mining.knn.vectors import Stack

folder, engine, threads, memory_gb, k = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), 4
source, target = (
    Stack([np.load(path, mmap_mode="r") for path in sorted(folder.glob(f"{side}.*.npy"))]) for side in ("src", "tgt")
)
if len(target.blocks) == 1:
    source, target = source.blocks[0], target.blocks[0]
# libraries, and loops compiled or loaded, are no part of a search's memory
few = np.array(target[:3000])
few[:200] = few[0]
both_directions(few, few, k, engine=engine, threads=threads)
del few
ctypes.CDLL(None).malloc_trim(0)
print("ready", flush=True)
sys.stdin.readline()
found = both_directions(source, target, k, engine=engine, threads=threads, memory_gb=memory_gb)
digest = hashlib.sha256()
for table in (found.forward_rows, found.forward_cosines, found.backward_rows, found.backward_cosines):
    digest.update(table.data)
print(digest.hexdigest(), flush=True)
sys.stdin.readline()
"""


def unit_rows(count: int, dimension: int, seed: int) -> npt.NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dimension), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def anonymous(process: int) -> int:
    """Bytes that no file stands behind, as the system counts them."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", text).group(1)) * 1024  # type: ignore[union-attr]


def searched(folder: Path, engine: str, threads: int, memory_gb: float) -> tuple[str, int]:
    """Search in a process of its own; a digest of what it found, and by how much its memory grew."""
    command = [sys.executable, "-c", SEARCH, str(folder), engine, str(threads), str(memory_gb)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, **pipes) as search, ThreadPoolExecutor(1) as reader:  # type: ignore[call-overload]
        assert search.stdout.readline() == "ready\n"
        before = peak = anonymous(search.pid)
        search.stdin.write("\n")
        found = reader.submit(search.stdout.readline)
        while not found.done():
            peak = max(peak, anonymous(search.pid))
            time.sleep(0.0005)
        search.stdin.write("\n")
    assert search.returncode == 0
    return found.result().strip(), peak - before


def least_gb(folder: Path, engine: str, threads: int) -> float:
    """The figure that a refusal names."""
    source, target = (np.load(folder / f"{side}.0.npy", mmap_mode="r") for side in ("src", "tgt"))
    with pytest.raises(SettingsError, match=r"0\.001 GB to work in") as refused:
        both_directions(source, target, 4, engine=engine, threads=threads, memory_gb=0.001)
    return float(re.search(r"at least ([0-9.]+) GB", str(refused.value)).group(1))  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def matrices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """127 MB of rows in two files."""
    folder = tmp_path_factory.mktemp("matrices")
    for side, count, seed in (("src", 7000, 0), ("tgt", 24_000, 1)):
        np.save(folder / f"{side}.0.npy", unit_rows(count, 1024, seed))
    return folder


@pytest.fixture(scope="module")
def expected(matrices: Path) -> tuple[str, str]:
    """Digests of what a search finds whose memory nobody bounds: there, and with the sides exchanged."""
    source, target = (np.load(matrices / f"{side}.0.npy") for side in ("src", "tgt"))
    found = both_directions(source, target, 4)
    forward, backward = (
        rows.tobytes() + cosines.tobytes()
        for rows, cosines in (
            (found.forward_rows, found.forward_cosines),
            (found.backward_rows, found.backward_cosines),
        )
    )
    return hashlib.sha256(forward + backward).hexdigest(), hashlib.sha256(backward + forward).hexdigest()


@pytest.mark.parametrize(("engine", "threads"), [("int8", 1), ("fp32", 2)])
def test_the_least_figure_named_is_enough_and_is_kept_to(
    matrices: Path, expected: tuple[str, str], engine: str, threads: int
) -> None:
    memory_gb = least_gb(matrices, engine, threads)
    size = sum(path.stat().st_size for path in matrices.iterdir())
    assert size > 2.5 * memory_gb * 1e9

    digest, grown = searched(matrices, engine, threads, memory_gb)

    assert digest == expected[0]
    assert grown <= memory_gb * 1e9


def test_shards_laid_end_to_end_are_not_copied_beyond_the_figure(matrices: Path, expected: str, tmp_path: Path) -> None:
    for side, other, cuts in (("tgt", "src", [1, 2500]), ("src", "tgt", [300, 301, 9000, 17_000])):
        for number, part in enumerate(np.split(np.load(matrices / f"{other}.0.npy"), cuts)):
            np.save(tmp_path / f"{side}.{number}.npy", part)

    digest, grown = searched(tmp_path, "int8", 2, 0.06)

    assert digest == expected[1]
    assert grown <= 0.06e9


def test_less_than_the_least_figure_is_refused(matrices: Path) -> None:
    memory_gb = least_gb(matrices, "fp32", 2)
    source, target = (np.load(matrices / f"{side}.0.npy", mmap_mode="r") for side in ("src", "tgt"))

    with pytest.raises(SettingsError, match=f"at least {memory_gb:g} GB"):
        both_directions(source, target, 4, engine="fp32", threads=2, memory_gb=memory_gb * 0.99)


SIZES = st.builds(
    plan.Sizes,
    source=st.integers(0, 10**8),
    target=st.integers(0, 10**8),
    dimension=st.integers(1, 4096),
    k=st.integers(1, 100),
    threads=st.integers(1, 64),
    prepared_bytes=st.integers(0, 16_400),
)


@given(sizes=SIZES)
def test_the_figure_a_refusal_names_is_one_that_works(sizes: plan.Sizes) -> None:
    with pytest.raises(SettingsError) as refused:
        plan.plan(1e-6, sizes)
    figure = float(re.search(r"at least ([0-9.]+) GB", str(refused.value)).group(1))  # type: ignore[union-attr]

    assert plan.peak_bytes(plan.plan(figure, sizes), sizes) <= round(figure * 1e9)
    with pytest.raises(SettingsError):
        plan.plan(figure * 0.985, sizes)


@given(sizes=SIZES, asked=st.floats(1.0, 50.0))
def test_more_memory_is_never_divided_worse(sizes: plan.Sizes, asked: float) -> None:
    with pytest.raises(SettingsError) as refused:
        plan.plan(1e-6, sizes)
    least = float(re.search(r"at least ([0-9.]+) GB", str(refused.value)).group(1))  # type: ignore[union-attr]

    some, more = plan.plan(least * asked, sizes), plan.plan(least * asked * 1.5, sizes)

    assert plan.peak_bytes(some, sizes) <= least * asked * 1e9 + 1
    assert plan.cost(more, sizes) <= plan.cost(some, sizes) <= plan.cost(plan.plan(least, sizes), sizes)
    assert plan.cost(plan.plan(None, sizes), sizes) <= plan.cost(more, sizes)


@pytest.mark.parametrize("memory_gb", [0.7, 0.8, 0.9, 1.0, 1.2, 2.0, 4.0])
def test_no_other_division_that_fits_is_faster(memory_gb: float) -> None:
    sizes = plan.Sizes(1_000_000, 1_000_000, 1024, 16, 2, make_engine("int8", 1024).row_bytes())
    others = [
        plan.Plan(Room(16 + slack, 16 + slack + more), tiles, shard)
        for slack, more in plan.ROOMS
        for tiles in plan.TILES
        for shard in (1024, 2000, 10_000, 100_000, 1_000_000)
    ]

    chosen = plan.plan(memory_gb, sizes)

    fitting = [other for other in others if plan.peak_bytes(other, sizes) <= memory_gb * 1e9]
    assert fitting and plan.cost(chosen, sizes) <= min(plan.cost(other, sizes) for other in fitting)


def test_searching_again_costs_more_than_small_shards() -> None:
    """Where lists of eight more than k leave room for a hundred thousand rows, and longer ones for thirty."""
    sizes = plan.Sizes(1_000_000, 1_000_000, 1024, 16, 2, make_engine("int8", 1024).row_bytes())

    rooms = [plan.plan(memory_gb, sizes).room.kept - 16 for memory_gb in (0.7, 0.8, 4)]

    assert rooms == [8, 16, 24]


def test_a_stack_is_cut_without_copying() -> None:
    blocks = [unit_rows(count, 8, count) for count in (3, 1, 5)]
    stack = Stack(blocks)

    part = stack.part(slice(2, 8))

    assert [len(block) for block in part.blocks] == [1, 1, 4]
    assert all(np.shares_memory(cut, block) for cut, block in zip(part.blocks, blocks, strict=True))
    np.testing.assert_array_equal(part[0:6], np.concatenate(blocks)[2:8])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8"])
def test_rows_are_normalised_in_parts_as_they_are_whole(dtype: str) -> None:
    rows = (7 * unit_rows(3000, 513, 5)).astype(dtype)

    parts = list(normalised_parts(Stack([rows[:1000], rows[1000:]])))

    assert len(parts) > 3
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), normalise(rows))
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(normalise(rows), wide / np.linalg.norm(wide, axis=1, keepdims=True), atol=1e-7)


def test_rows_of_any_part_are_named_by_their_number_in_the_whole() -> None:
    rows = unit_rows(2500, 1024, 6)
    rows[[5, 2400]] *= 2

    with pytest.raises(Exception, match=r"2 of 2500 rows that are not of unit length \(rows 5, 2400; row 5 has"):
        check_unit_rows(rows, "The matrix")
