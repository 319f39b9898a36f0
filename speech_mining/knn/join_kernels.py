"""Compiled inner loops of the approximate join: cells of rows, which rows probe which cells, folding of gathered rows.

Running lists are those of `toplists`, but what is left in them here does not depend on the order in which candidates
came: a pair may be met twice and stands in a list once, and equal values are told apart by their rows.

Functions that call each other stand in this one file, because numba's cache on disk notices a change in a function's
own file only; `ordered`, `value_of` and `cut` are therefore written once more than in `kernels`.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

WIDTH = 32
"""Products looked at together, as in `kernels`."""


def _compiled(function: Any) -> Any:
    return nb.njit(nogil=True, cache=True, boundscheck=False)(function)


@_compiled
def _key_of(value: Any, row: Any) -> Any:
    """A candidate as one number, as `kernels.key_of` makes it."""
    bits = np.float32(value).view(np.int32)
    ordered = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
    return (np.int64(ordered) << 32) | np.int64(0x7FFFFFFF - row)


@_compiled
def _value_of(key: Any) -> Any:
    upper = np.int32(key >> 32)
    bits = upper ^ ((upper >> np.int32(31)) & np.int32(0x7FFFFFFF))
    return np.int32(bits).view(np.float32)


@_compiled
def _cut(keys: Any, count: Any, kept: Any) -> Any:
    """Move the `kept` largest of the first `count` keys, all different, to the front, and give the least of them."""
    low, high = keys[0], keys[0]
    for place in range(count):
        low = min(low, keys[place])
        high = max(high, keys[place])
    while low < high:
        middle = (low | high) - ((low ^ high) >> 1)  # the mean, rounded up, without overflow
        above = 0
        for place in range(count):
            above += keys[place] >= middle
        if above >= kept:
            low = middle
        else:
            high = middle - 1
        if above == kept:
            break
    front = 0
    for place in range(count):
        key = keys[place]
        keys[place] = keys[front]
        keys[front] = key
        front += key >= low
    return keys[:kept].min()


@_compiled
def _put(keys: Any, counts: Any, floors: Any, place: Any, key: Any, kept: Any) -> None:
    """Append a key to a list that does not hold it; a full list is cut, and its floor rises to the least value kept.

    A key that was cut off is below all that are kept, so it is not let in a second time either.
    """
    count = counts[place]
    held = False
    for other in range(count):
        held |= keys[place, other] == key
    if held or (_value_of(key) == floors[place] and key < keys[place, :kept].min()):
        return
    keys[place, count] = key
    count += 1
    if count == keys.shape[1]:
        floors[place] = _value_of(_cut(keys[place], count, kept))
        count = kept
    counts[place] = count


@_compiled
def fold_gathered(products: Any, which: Any, row_side: Any, first: Any, column_side: Any, kept: Any) -> None:
    """Fold products of gathered rows with rows that lie together into the lists of both.

    Args:
        products: int32 (a, b).
        which: int32 (a,), places of the gathered rows on their side, all different.
        row_side: units float32, numbers int64, and keys, counts and floors as in `TopLists`, of a whole side; the
            lists are changed in place.
        first: place of the first column on its side.
        column_side: the same for the columns' side.
        kept: candidates a full list is cut to.
    """
    row_units, row_numbers, row_keys, row_counts, row_floors = row_side
    all_units, all_numbers, all_keys, all_counts, all_floors = column_side
    width = products.shape[1]
    whole = width - width % WIDTH
    stop = first + width
    units, numbers = all_units[first:stop], all_numbers[first:stop]
    keys, counts, floors = all_keys[first:stop], all_counts[first:stop], all_floors[first:stop]
    for row in range(products.shape[0]):
        line, place = products[row], which[row]
        own, number = row_units[place], row_numbers[place]
        for start in range(0, width, WIDTH):
            floor, hit = row_floors[place], start == whole
            if not hit:
                for column in range(start, start + WIDTH):
                    value = np.float32(line[column]) * (own * units[column])
                    hit |= (value >= floor) | (value >= floors[column])
            if hit:
                for column in range(start, min(start + WIDTH, width)):
                    value = np.float32(line[column]) * (own * units[column])
                    if value >= row_floors[place]:
                        _put(row_keys, row_counts, row_floors, place, _key_of(value, numbers[column]), kept)
                    if value >= floors[column]:
                        _put(keys, counts, floors, column, _key_of(value, number), kept)


@_compiled
def cut_all(keys: Any, counts: Any, kept: Any) -> None:
    """Cut every list to its `kept` best."""
    for place in range(keys.shape[0]):
        if counts[place] > kept:
            _cut(keys[place], counts[place], kept)
            counts[place] = kept


@_compiled
def best_cells(products: Any, units: Any, centroid_units: Any, shifts: Any, homes: Any, best: Any) -> None:
    """Find the cell each row lies in: the one of the highest score, the first of equals.

    Args:
        products: int32 (a, c), products of rows with the centroids.
        units: float32 (a,), those of the rows.
        centroid_units: float32 (c,).
        shifts: float32 (c,), taken off each cell's products.
        homes: int32 (a,), filled.
        best: float32 (a,), filled: the score in that cell.
    """
    for row in range(products.shape[0]):
        line, own = products[row], units[row]
        top, home = np.float32(-np.inf), 0
        for cell in range(products.shape[1]):
            score = np.float32(line[cell]) * (own * centroid_units[cell]) - shifts[cell]
            if score > top:
                top = score
                home = cell
        homes[row] = home
        best[row] = top


@_compiled
def count_probes(
    products: Any, units: Any, centroid_units: Any, shifts: Any, homes: Any, best: Any, reach: Any, counts: Any
) -> None:
    """Count the rows that probe each cell: whose score there is within `reach` of their best, and that lie in another.

    Args:
        products: int32 (a, c), products of rows with the centroids.
        units: float32 (a,), those of the rows.
        centroid_units: float32 (c,).
        shifts: float32 (c,), taken off each cell's products.
        homes: int32 (a,), the cell each row lies in.
        best: float32 (a,), the score there.
        reach: float32.
        counts: int64 (c,), changed in place.
    """
    for row in range(products.shape[0]):
        line, own, top = products[row], units[row], best[row]
        for cell in range(products.shape[1]):
            score = np.float32(line[cell]) * (own * centroid_units[cell]) - shifts[cell]
            counts[cell] += top - score <= reach
        counts[homes[row]] -= 1


@_compiled
def list_probes(
    products: Any,
    units: Any,
    centroid_units: Any,
    shifts: Any,
    homes: Any,
    best: Any,
    reach: Any,
    first: Any,
    ends: Any,
    rows: Any,
) -> None:
    """Write the rows that probe each cell to `rows`, int32, from `ends[cell]` on, which moves; counted from `first`."""
    for row in range(products.shape[0]):
        line, own, top = products[row], units[row], best[row]
        for cell in range(products.shape[1]):
            score = np.float32(line[cell]) * (own * centroid_units[cell]) - shifts[cell]
            if top - score <= reach and cell != homes[row]:
                rows[ends[cell]] = first + row
                ends[cell] += 1


@_compiled
def gather(codes: Any, which: Any, out: Any) -> None:
    """Copy the rows `which` of int8 (n, p) codes to the first places of `out`.

    Value by value, which is compiled to wide moves: 70 ns a row of 1024, where numba's copy of a slice takes 400.
    """
    for place in range(which.shape[0]):
        row = which[place]
        for column in range(codes.shape[1]):
            out[place, column] = codes[row, column]


@_compiled
def add_up(codes: Any, weights: Any, homes: Any, sums: Any) -> None:
    """Add each row's values, code * weight, to the sum of its cell: int8 (n, p), float32 (n,), float64 (c, p)."""
    for row in range(codes.shape[0]):
        line, total, weight = codes[row], sums[homes[row]], np.float64(weights[row])
        for place in range(codes.shape[1]):
            total[place] += weight * np.float64(line[place])
