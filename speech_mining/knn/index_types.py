"""Which FAISS index a language gets: by its rows, and by the memory of the machine that will search it.

The names are FAISS's own `index_factory` strings. Nothing is built here.
"""

from __future__ import annotations

import numpy as np

from speech_mining.memory_limit import memory_limit

EXHAUSTIVE_ROWS = 200_000
"""Up to here every row is compared with the query; beyond, only the cells near it."""
EXHAUSTIVE_FACTORY = "IDMap2,SQfp16"
"""float16 rows stored as they are: lossless, so a search is exact, at half the size of Flat."""
ROWS_A_CELL = 256
MOST_CELLS = 1 << 16
"""k-means takes rows a cell x cells x cells: at 2^16 cells 6e15 operations, seconds of a GPU but a night of two cores.
RaBitQ compares codes so fast (in 32 of 512 cells 5 500 queries a second, float16 rows 730) that fuller cells cost
little."""
MEMORY_SHARE = 4
"""An index may take one part in this many of the memory: float16 lists are the vectors once more (2 KiB a row of 1024),
and are searched beside whatever else the machine does."""
REFINE_FACTOR = 16
"""How many candidates a neighbour RaBitQ is asked for, to be compared again exactly. Measured at 50 000 rows x 1024,
64 of 256 cells, for rows whose audiobook is left out (`index_recall`): recall@16 0.90 with 4, 0.966 with 8, 0.981 with
16, 0.983 with 32, where the cells that were probed hold 0.984."""
ID_BYTES = 8


def choose_factory(rows: int, dimension: int = 1024, memory_bytes: int | None = None) -> str:
    """The index type for so many rows.

    Exhaustive up to `EXHAUSTIVE_ROWS`; then inverted lists of float16 while they fit into a share of the memory; then
    inverted lists of one bit a value (RaBitQ), a thirteenth of that, whose answers `refine.refined_search` compares
    again with the vectors themselves. A random rotation comes first (RR): without it RaBitQ loses where some directions
    hold most of the variance (recall@16 0.58 against 0.985 at 100 000 rows x 1024, 32 of 512 cells, 4 candidates each).

    Args:
        rows: to be indexed.
        dimension: values in a row.
        memory_bytes: of the machine that will search; None takes this one's.
    """
    if rows <= EXHAUSTIVE_ROWS:
        return EXHAUSTIVE_FACTORY
    cells = min(MOST_CELLS, 1 << round(np.log2(rows / ROWS_A_CELL)))
    allowed = (machine_memory() if memory_bytes is None else memory_bytes) // MEMORY_SHARE
    return f"IVF{cells},SQfp16" if rows * (2 * dimension + ID_BYTES) <= allowed else f"RR,IVF{cells},RaBitQ"


def refine_factor(factory: str) -> int:
    """How many candidates a neighbour a search of such an index should compare again; 0 where it answers by itself."""
    return REFINE_FACTOR if "RaBitQ" in factory else 0


def without_numbers(factory: str) -> str:
    """The kind of index a factory string names, whatever the number of its cells: "IVF,SQfp16" of "IVF1024,SQfp16"."""
    return ",".join("IVF" if part.startswith("IVF") else part for part in factory.split(","))


def machine_memory() -> int:
    """Bytes of memory this process may use: the machine's, or its container's limit where that is lower."""
    return memory_limit().total_bytes
