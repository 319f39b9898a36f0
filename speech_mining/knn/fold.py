"""Compiled inner loops: folding a block of products into both top lists, and exact products of chosen pairs.

It imports numba, so it is imported by the functions that need it and not by modules that are loaded early. Which
blocks are multiplied, and what becomes of the lists, is in `exact` and `settle`.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numba.extending import overload

WIDTH = 64
"""Products looked at together. The trip count has to be a constant, or LLVM does not vectorise the comparison."""


def _compiled(function: Any) -> Any:
    return nb.njit(nogil=True, cache=True, boundscheck=False)(function)


@_compiled
def _insert(values: Any, rows: Any, value: Any, row: Any) -> None:
    """Put (value, row) into a list sorted by decreasing value, then increasing row; its last entry falls out."""
    place = values.shape[0] - 1
    while place > 0 and (values[place - 1] < value or (values[place - 1] == value and rows[place - 1] > row)):
        values[place] = values[place - 1]
        rows[place] = rows[place - 1]
        place -= 1
    values[place] = value
    rows[place] = row


@_compiled
def _scan(products: Any, first: Any, stop: Any, row: Any, own: Any, other: Any, offset: Any) -> None:
    own_values, own_rows = own
    other_values, other_rows, other_last = other
    last = own_values.shape[0] - 1
    for column in range(first, stop):
        product = products[column]
        if product > own_values[last]:
            _insert(own_values, own_rows, product, offset + column)
        if product > other_last[column]:
            _insert(other_values[column], other_rows[column], product, row)
            other_last[column] = other_values[column, other_values.shape[1] - 1]


@_compiled
def fold(products: Any, row_lists: Any, column_lists: Any, row_offset: Any, column_offset: Any) -> None:
    """Fold a block of products into the top lists of its rows and, in the same walk, of its columns.

    Most groups of `WIDTH` products improve no list, and one vectorised comparison tells.

    Args:
        products: float32 (a, b).
        row_lists: values float32 (a, w) and rows int32 (a, w), sorted by decreasing value; changed in place.
        column_lists: the same for columns, (b, w), and their last values float32 (b,), a copy that lies together.
        row_offset: number of the block's first row on the source side.
        column_offset: number of its first column on the target side.
    """
    row_values, row_rows = row_lists
    last_values = column_lists[2]
    width = products.shape[1]
    whole = width - width % WIDTH
    for row in range(products.shape[0]):
        line = products[row]
        own = (row_values[row], row_rows[row])
        for start in range(0, whole, WIDTH):
            least = row_values[row, row_values.shape[1] - 1]
            improves = 0
            for column in range(start, start + WIDTH):
                improves |= (line[column] > least) | (line[column] > last_values[column])
            if improves:
                _scan(line, start, start + WIDTH, row_offset + row, own, column_lists, column_offset)
        _scan(line, whole, width, row_offset + row, own, column_lists, column_offset)


def _float32(raw: Any) -> Any:
    """The value of a float32, or of the bits of a float16 (numba has no float16 on a CPU)."""
    raise NotImplementedError("only compiled code calls this")


@overload(_float32, inline="always")
def _float32_compiled(raw: Any) -> Any:
    def unchanged(raw: Any) -> Any:
        return raw

    def from_bits(raw: Any) -> Any:
        sign = (np.uint32(raw) & np.uint32(0x8000)) << np.uint32(16)
        rest = (np.uint32(raw) & np.uint32(0x7FFF)) << np.uint32(13)
        # shifting moves exponent and fraction into place; the factor mends the bias, subnormals included
        return np.uint32(sign | rest).view(np.float32) * np.float32(2.0**112)

    return unchanged if isinstance(raw, nb.types.Float) else from_bits


@nb.njit(nogil=True, cache=True, boundscheck=False, fastmath={"reassoc", "contract"})
def _product(left: Any, right: Any) -> Any:
    """Inner product in float64, rounded once to float32.

    Products of float16 unit rows are multiples of 2^-48 and their sums stay near 1, so float64 holds every partial sum
    exactly: the order of addition, which the compiler may choose, does not matter.
    """
    total = 0.0
    for place in range(left.shape[0]):
        total += np.float64(left[place]) * np.float64(_float32(right[place]))
    return np.float32(total)


@_compiled
def _widen(raw: Any, wide: Any) -> None:
    for place in range(raw.shape[0]):
        wide[place] = _float32(raw[place])


@_compiled
def rescore(queries: Any, base: Any, candidates: Any, values: Any, rows: Any) -> None:
    """Fill the k best of each query's candidates, by exact product.

    Args:
        queries: float32 (a, d), or the bits of float16 as uint16.
        base: the same, (m, d).
        candidates: int32 (a, w), rows of `base`, -1 where there is none.
        values: float32 (a, k), filled.
        rows: int64 (a, k), filled.
    """
    wide = np.empty(queries.shape[1], np.float32)
    last = values.shape[1] - 1
    for query in range(queries.shape[0]):
        values[query] = -np.inf
        rows[query] = -1
        _widen(queries[query], wide)
        for row in candidates[query]:
            if row < 0:
                continue
            value = _product(wide, base[row])
            if _better(value, row, values[query, last], rows[query, last]):
                _insert(values[query], rows[query], value, np.int64(row))


@_compiled
def _better(value: Any, row: Any, last_value: Any, last_row: Any) -> Any:
    return value > last_value or (value == last_value and row < last_row)


@_compiled
def refine(queries: Any, base: Any, products: Any, offset: Any, floor: Any, values: Any, rows: Any) -> None:
    """Go through a block of rough products and keep what exact products put among the k best.

    Args:
        queries: as in `rescore`, (a, d).
        base: as in `rescore`, (b, d), the block's own rows.
        products: float32 (a, b), rough.
        offset: number of the block's first row.
        floor: float32 (a,): a rough product below it cannot belong to the k best.
        values: float32 (a, k), changed in place.
        rows: int64 (a, k), changed in place.
    """
    wide = np.empty(queries.shape[1], np.float32)
    last = values.shape[1] - 1
    for query in range(queries.shape[0]):
        _widen(queries[query], wide)
        for column in range(products.shape[1]):
            if products[query, column] < floor[query]:
                continue
            value = _product(wide, base[column])
            row = np.int64(offset + column)
            if _better(value, row, values[query, last], rows[query, last]):
                _insert(values[query], rows[query], value, row)
