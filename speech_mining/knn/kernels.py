"""Compiled inner loops of a search: codes of rows, folding of products into running lists, exact products.

All of them stand in this one file, because numba's cache on disk notices a change in a function's own file only: a
caller in another file would go on with the old callee. It imports numba, so it is imported by the functions that need
it and not by modules that are loaded early.

Which blocks are multiplied is in `engines`, what a list is in `toplists`, what becomes of it in `settle`.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from llvmlite import binding, ir
from numba.extending import intrinsic, overload

WIDTH = 32
"""Products looked at together. The trip count has to be a constant, or LLVM does not vectorise the comparison."""
HAS_FLOAT16 = bool(binding.get_host_cpu_features().get("f16c", False))
"""Whether the processor converts float16; without it LLVM would call a function that may not be there."""
ROUNDS = 2
LIMIT = np.float32(127)
SHIFT = np.float32(1.5 * 2**23)
"""Adding and taking it away again rounds a float32 to the nearest whole number, and vectorises."""


def _compiled(function: Any) -> Any:
    return nb.njit(nogil=True, cache=True, boundscheck=False)(function)


@_compiled
def ordered(number: Any) -> Any:
    """The bits of a float32 as an int32 of the same order.

    Positive floats are ordered like their bits; the bits of negative ones below the sign run the other way.
    """
    bits = np.float32(number).view(np.int32)
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@_compiled
def key_of(value: Any, row: Any) -> Any:
    """A candidate as one number: the larger value first, among equal values the lower row."""
    return (np.int64(ordered(value)) << 32) | np.int64(0x7FFFFFFF - row)


@_compiled
def value_of(key: Any) -> Any:
    """The value of a candidate."""
    upper = np.int32(key >> 32)
    bits = upper ^ ((upper >> np.int32(31)) & np.int32(0x7FFFFFFF))
    return np.int32(bits).view(np.float32)


@_compiled
def row_of(key: Any) -> Any:
    """The row of a candidate."""
    return np.int64(0x7FFFFFFF - (key & 0x7FFFFFFF))


@_compiled
def cut(keys: Any, count: Any, kept: Any) -> Any:
    """Move the `kept` largest of the first `count` keys to the front, in no order, and give the least of them.

    The threshold is found by halving the range of keys: counting vectorises, where a quickselect of 64 keys spends
    five times as long on mispredicted branches.
    """
    if count <= kept:
        return keys[:count].min()
    low, high = keys[0], keys[0]
    for place in range(count):
        low = min(low, keys[place])
        high = max(high, keys[place])
    while True:
        middle = (low | high) - ((low ^ high) >> 1)  # the mean, rounded up, without overflow
        above = 0
        for place in range(count):
            above += keys[place] >= middle
        if above >= kept:
            low = middle
        else:
            high = middle - 1
        if above == kept or low >= high:
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
    """Append a key to a list; a full list is cut, and its floor rises to the least value that is kept."""
    count = counts[place]
    keys[place, count] = key
    count += 1
    if count == keys.shape[1]:
        floors[place] = max(floors[place], value_of(cut(keys[place], count, kept)))
        count = kept
    counts[place] = count


@_compiled
def fold(products: Any, row_scales: Any, column_scales: Any, row_lists: Any, column_lists: Any, offsets: Any) -> None:
    """Fold a block of products into the lists of its rows and, in the same walk, of its columns.

    Most groups of `WIDTH` products improve no list, and one vectorised comparison tells.

    Args:
        products: int32 or float32 (a, b).
        row_scales: float32 (a,); the cosine is roughly product * row scale * column scale.
        column_scales: float32 (b,).
        row_lists: keys int64 (a, room), counts int32 (a,) and floors float32 (a,) as in `TopLists`, changed in place.
            A value enters a list when it exceeds its floor.
        column_lists: the same for columns, (b, room), (b,), (b,).
        offsets: number of the block's first row on its side, of its first column on the other, and how many
            candidates a full list is cut to.
    """
    # lists are taken apart once: handed on as tuples, they double the time
    row_keys, row_counts, row_floors = row_lists
    keys, counts, floors = column_lists
    row_offset, column_offset, kept = offsets
    width = products.shape[1]
    whole = width - width % WIDTH
    for row in range(products.shape[0]):
        line, own = products[row], row_scales[row]
        for start in range(0, whole, WIDTH):
            floor, hit = row_floors[row], 0
            for column in range(start, start + WIDTH):
                value = np.float32(line[column]) * (own * column_scales[column])
                hit |= (value > floor) | (value > floors[column])
            if hit:
                for column in range(start, start + WIDTH):
                    value = np.float32(line[column]) * (own * column_scales[column])
                    if value > row_floors[row]:
                        _put(row_keys, row_counts, row_floors, row, key_of(value, column_offset + column), kept)
                    if value > floors[column]:
                        _put(keys, counts, floors, column, key_of(value, row_offset + row), kept)
        for column in range(whole, width):
            value = np.float32(line[column]) * (own * column_scales[column])
            if value > row_floors[row]:
                _put(row_keys, row_counts, row_floors, row, key_of(value, column_offset + column), kept)
            if value > floors[column]:
                _put(keys, counts, floors, column, key_of(value, row_offset + row), kept)


@_compiled
def raise_floors(products: Any, row_scales: Any, column_scales: Any, best: Any, floors: Any) -> None:
    """Raise the floor of each row to just below the least of its few best products with a sample.

    Args:
        products: int32 or float32 (a, b), products with the sample.
        row_scales: float32 (a,), as in `fold`.
        column_scales: float32 (b,), those of the sample.
        best: float32 (rank,), room for as many products as shall stay above the floor.
        floors: float32 (a,), raised where they are lower.
    """
    width = products.shape[1]
    whole = width - width % WIDTH
    last = best.shape[0] - 1
    for row in range(products.shape[0]):
        line, own = products[row], row_scales[row]
        best[:] = -np.inf
        for start in range(0, width, WIDTH):
            hit = start == whole
            if not hit:
                least = best[last]
                for column in range(start, start + WIDTH):
                    hit |= np.float32(line[column]) * (own * column_scales[column]) > least
            if hit:
                for column in range(start, min(start + WIDTH, width)):
                    value = np.float32(line[column]) * (own * column_scales[column])
                    place = last
                    while place >= 0 and best[place] < value:
                        if place < last:
                            best[place + 1] = best[place]
                        best[place] = value
                        place -= 1
        floors[row] = max(floors[row], np.nextafter(best[last], np.float32(-np.inf)))


@_compiled
def put_all(values: Any, rows: Any, lists: Any, kept: Any) -> None:
    """Offer candidates to lists: float32 (n, c) values and int64 (n, c) rows, -1 where there is none."""
    keys, counts, floors = lists
    for place in range(values.shape[0]):
        for rank in range(values.shape[1]):
            if rows[place, rank] >= 0 and values[place, rank] > floors[place]:
                _put(keys, counts, floors, place, key_of(values[place, rank], rows[place, rank]), kept)


def _float32(raw: Any) -> Any:
    """The value of a float32, or of the bits of a float16 (numba has no float16 on a CPU)."""
    raise NotImplementedError("only compiled code calls this")


@intrinsic
def _widened(_: Any, raw: Any) -> Any:
    """The processor's own conversion of float16 bits: exact products take a third less time than by shifts."""

    def generate(_: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fpext(builder.bitcast(values[0], ir.HalfType()), ir.FloatType())

    return nb.types.float32(nb.types.uint16), generate


@overload(_float32, inline="always")
def _float32_compiled(raw: Any) -> Any:
    def unchanged(raw: Any) -> Any:
        return raw

    def from_bits(raw: Any) -> Any:
        sign = (np.uint32(raw) & np.uint32(0x8000)) << np.uint32(16)
        rest = (np.uint32(raw) & np.uint32(0x7FFF)) << np.uint32(13)
        # shifting moves exponent and fraction into place; the factor mends the bias, subnormals included
        return np.uint32(sign | rest).view(np.float32) * np.float32(2.0**112)

    def by_processor(raw: Any) -> Any:
        return _widened(raw)  # type: ignore[call-arg]  # numba passes the typing context

    if isinstance(raw, nb.types.Float):
        return unchanged
    return by_processor if HAS_FLOAT16 else from_bits


@_compiled
def widen(raw: Any, wide: Any) -> None:
    """Write float32 values, or those of float16 bits, to the first places of a float32 vector."""
    for place in range(raw.shape[0]):
        wide[place] = _float32(raw[place])


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
def _take(values: Any, rows: Any, value: Any, row: Any) -> None:
    """Put (value, row) where it belongs in a list by decreasing value, then increasing row, if it does."""
    place = values.shape[0] - 1
    if values[place] > value or (values[place] == value and rows[place] < row):
        return
    while place > 0 and (values[place - 1] < value or (values[place - 1] == value and rows[place - 1] > row)):
        values[place] = values[place - 1]
        rows[place] = rows[place - 1]
        place -= 1
    values[place] = value
    rows[place] = row


@_compiled
def least_value(cosine: Any, error: Any) -> Any:
    """`cosine - error`, rounded down to float32: a row of a lower value has an exact product below `cosine`."""
    bound = np.float64(cosine) - error
    nearest = np.float32(bound)
    return np.nextafter(nearest, np.float32(-np.inf)) if np.float64(nearest) > bound else nearest


@_compiled
def rescore(queries: Any, base: Any, lists: Any, errors: Any, values: Any, rows: Any, depths: Any) -> None:
    """Fill the best of each query's candidates by exact product, and tell how many of them are proved.

    The candidates that are best by rough product come first; once the list is full, its last exact product tells which
    of the others still have a chance.

    Args:
        queries: float32 (a, d), or the bits of float16 as uint16.
        base: the same, (m, d).
        lists: keys, counts and floors of the queries (`TopLists`); keys are put in another order.
        errors: float64 (a,), bound of each query's rough products.
        values: float32 (a, k), filled; -inf where there is no candidate.
        rows: int64 (a, k), filled; -1 where there is none.
        depths: int32 (a,), filled: the first so many are certainly the best of all.
    """
    all_keys, counts, floors = lists
    wide = np.empty(queries.shape[1], np.float32)
    size = values.shape[1]
    for query in range(queries.shape[0]):
        keys, count = all_keys[query], counts[query]
        values[query] = -np.inf
        rows[query] = -1
        widen(queries[query], wide)
        first = min(count, size)
        if count:
            cut(keys, count, first)
        for place in range(first):
            row = row_of(keys[place])
            _take(values[query], rows[query], _product(wide, base[row]), row)
        if count > size:
            least = least_value(values[query, size - 1], errors[query])
            for place in range(first, count):
                if value_of(keys[place]) >= least:
                    row = row_of(keys[place])
                    _take(values[query], rows[query], _product(wide, base[row]), row)
        depths[query] = _depth(values[query], rows[query], floors[query], errors[query])


@_compiled
def _depth(values: Any, rows: Any, floor: Any, error: Any) -> Any:
    """How many of a query's best no row outside the list can reach: all that left it have values up to the floor."""
    depth = 0
    while depth < values.shape[0] and rows[depth] >= 0:
        if floor >= least_value(values[depth], error):
            break
        depth += 1
    return depth


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
    for query in range(queries.shape[0]):
        widen(queries[query], wide)
        for column in range(products.shape[1]):
            if products[query, column] >= floor[query]:
                value = _product(wide, base[column])
                _take(values[query], rows[query], value, np.int64(offset + column))


@_compiled
def _incline(values: Any, inclined: Any, sines: Any, cosines: Any) -> None:
    """Rotate each value of the first half with its counterpart in the second, every pair by an angle of its own."""
    half = values.shape[0] // 2
    low, high = values[:half], values[half:]
    for place in range(half):
        inclined[2 * place] = low[place] * cosines[place] + high[place] * sines[place]
        inclined[2 * place + 1] = high[place] * cosines[place] - low[place] * sines[place]


@_compiled
def _mix(values: Any, mixed: Any) -> None:
    """Replace each value of the first quarter and its counterparts in the others by their Hadamard transform.

    Results lie next to one another, so that repeating the same step mixes all values with all (Pease 1968, "An
    adaptation of the fast Fourier transform for parallel processing", for the Hadamard transform): every step reads
    and writes in order, and vectorises whatever the dimension is.
    """
    quarter = values.shape[0] // 4
    one, two, three, four = (
        values[:quarter],
        values[quarter : 2 * quarter],
        values[2 * quarter : -quarter],
        values[-quarter:],
    )
    for place in range(quarter):
        sum_odd, difference_odd = one[place] + three[place], one[place] - three[place]
        sum_even, difference_even = two[place] + four[place], two[place] - four[place]
        mixed[4 * place] = sum_odd + sum_even
        mixed[4 * place + 1] = sum_odd - sum_even
        mixed[4 * place + 2] = difference_odd + difference_even
        mixed[4 * place + 3] = difference_odd - difference_even


@_compiled
def _largest(values: Any) -> Any:
    """The largest magnitude, by the bits: they are ordered like it, and only whole numbers vectorise here."""
    bits = values.view(np.int32)
    largest = np.int32(0)
    for place in range(bits.shape[0]):
        largest = max(largest, bits[place] & np.int32(0x7FFFFFFF))
    return _as_float(largest)


@_compiled
def _as_float(bits: Any) -> Any:
    return np.int32(bits).view(np.float32)


@_compiled
def _round(values: Any, scale: Any, codes: Any, rests: Any) -> None:
    for place in range(values.shape[0]):
        value = values[place] * scale
        near = (value + SHIFT) - SHIFT
        codes[place] = np.int8(near)
        rests[place] = value - near


@nb.njit(nogil=True, cache=True, boundscheck=False, fastmath={"reassoc", "contract"})
def _squares(values: Any) -> Any:
    total = np.float32(0)
    for place in range(values.shape[0]):
        total += values[place] * values[place]
    return total


@_compiled
def squared_lengths(rows: Any, squares: Any) -> None:
    """Fill the squared length of each row: float32 (n, d), or the bits of float16, -> float32 (n,)."""
    values = np.empty(rows.shape[1], np.float32)
    for row in range(rows.shape[0]):
        widen(rows[row], values)
        squares[row] = _squares(values)


@_compiled
def quantise(rows: Any, rotation: Any, codes: Any, units: Any, rests: Any) -> None:
    """Rotate rows and round them to int8, each in a unit of its own, so that its largest value is 127.

    Args:
        rows: float32 (n, d), or the bits of float16 as uint16.
        rotation: sines and cosines float32 (ROUNDS, p / 2) of the angles, the steps of mixing in each round, and the
            float32 factor that makes the whole keep lengths; p >= d, a multiple of 4, is the dimension of the codes.
        codes: int8 (n, p), filled.
        units: float32 (n,), filled: what one step of a row's codes is worth.
        rests: float32 (n,), filled: length of what rounding took away.
    """
    sines, cosines, steps, factor = rotation
    size = codes.shape[1]
    values, others = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for row in range(rows.shape[0]):
        values[rows.shape[1] :] = np.float32(0)
        widen(rows[row], values)
        for turn in range(ROUNDS):
            _incline(values, others, sines[turn], cosines[turn])
            values, others = others, values
            for _ in range(steps):
                _mix(values, others)
                values, others = others, values
        largest = _largest(values)
        _round(values, LIMIT / largest, codes[row], others)
        units[row] = factor * largest / LIMIT
        rests[row] = units[row] * np.sqrt(_squares(others))
