"""Compiled loops of de-duplication: the key of a sentence hashed as it is made, and a set that finds repeats.

All of them stand in this one file, because numba's cache on disk notices a change in a function's own file only. It
imports numba, so it is imported by the functions that need it. What a key is, is told in `sentence_keys`.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

SEPARATOR, DROPPED, WHOLE, EXPANDED = -1, -2, -3, -8
"""What becomes of a character that is not replaced by one other: see `sentence_keys.Characters`."""
MOST_EXPANDED = 4
MINUS = 0x2212
PRIME_1, PRIME_2, PRIME_3, PRIME_4, PRIME_5 = (
    np.uint64(0x9E3779B185EBCA87),
    np.uint64(0xC2B2AE3D27D4EB4F),
    np.uint64(0x165667B19E3779F9),
    np.uint64(0x85EBCA77C2B2AE63),
    np.uint64(0x27D4EB2F165667C5),
)


def _compiled(function: Any) -> Any:
    return nb.njit(nogil=True, cache=True, boundscheck=False)(function)


@_compiled
def _rotated(value: Any, bits: Any) -> Any:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@_compiled
def _word(data: Any, at: Any, size: Any) -> Any:
    """`size` bytes from `at` as a number, the first byte lowest."""
    value = np.uint64(0)
    for byte in range(size):
        value |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
    return value


@_compiled
def _round(lane: Any, word: Any) -> Any:
    return _rotated(lane + word * PRIME_2, 31) * PRIME_1


@_compiled
def xxh64(data: Any, size: Any) -> Any:
    """XXH64 of the first `size` bytes, seed 0, as its specification tells (github.com/Cyan4973/xxHash, doc)."""
    at = 0
    if size >= 32:
        one, two, three, four = PRIME_1 + PRIME_2, PRIME_2, np.uint64(0), np.uint64(0) - PRIME_1
        while at + 32 <= size:
            one, two = _round(one, _word(data, at, 8)), _round(two, _word(data, at + 8, 8))
            three, four = _round(three, _word(data, at + 16, 8)), _round(four, _word(data, at + 24, 8))
            at += 32
        value = _rotated(one, 1) + _rotated(two, 7) + _rotated(three, 12) + _rotated(four, 18)
        for lane in (one, two, three, four):
            value = (value ^ _round(np.uint64(0), lane)) * PRIME_1 + PRIME_4
    else:
        value = PRIME_5
    value += np.uint64(size)
    while at + 8 <= size:
        value = _rotated(value ^ _round(np.uint64(0), _word(data, at, 8)), 27) * PRIME_1 + PRIME_4
        at += 8
    if at + 4 <= size:
        value = _rotated(value ^ (_word(data, at, 4) * PRIME_1), 23) * PRIME_2 + PRIME_3
        at += 4
    while at < size:
        value = _rotated(value ^ (np.uint64(data[at]) * PRIME_5), 11) * PRIME_1
        at += 1
    value = (value ^ (value >> np.uint64(33))) * PRIME_2
    value = (value ^ (value >> np.uint64(29))) * PRIME_3
    return value ^ (value >> np.uint64(32))


@_compiled
def _decoded(data: Any, at: Any) -> Any:
    """The character that begins at byte `at` of UTF-8, and how many bytes it has."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, 2
    if first < 0xF0:
        return (first & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F, 3
    high = (first & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
    return high | (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F, 4


@_compiled
def _encode(character: Any, key: Any, size: Any) -> Any:
    """Append a character to `key` as UTF-8; the new size."""
    if character < 0x80:
        key[size] = character
        return size + 1
    if character < 0x800:
        key[size] = 0xC0 | character >> 6
        key[size + 1] = 0x80 | character & 0x3F
        return size + 2
    if character < 0x10000:
        key[size] = 0xE0 | character >> 12
        key[size + 1] = 0x80 | character >> 6 & 0x3F
        key[size + 2] = 0x80 | character & 0x3F
        return size + 3
    key[size] = 0xF0 | character >> 18
    key[size + 1] = 0x80 | character >> 12 & 0x3F
    key[size + 2] = 0x80 | character >> 6 & 0x3F
    key[size + 3] = 0x80 | character & 0x3F
    return size + 4


@_compiled
def _is_minus(character: Any, data: Any, start: Any, at: Any, stop: Any) -> Any:
    """A hyphen before a digit, at the beginning or after a space."""
    if character != 0x2D and not (0x2010 <= character <= 0x2013):
        return False
    if at != start and data[at - 1] != 0x20:
        return False
    after = at + (1 if character == 0x2D else 3)
    return after < stop and 0x30 <= data[after] <= 0x39


@_compiled
def _key_of(data: Any, start: Any, stop: Any, actions: Any, marks: Any, expansions: Any, key: Any) -> Any:
    """Write the key of one text to `key`; its size, or -1 where the text has to be normalised as a whole."""
    size, at, pending, marked = 0, start, False, False
    while at < stop:
        character, width = _decoded(data, at)
        if _is_minus(character, data, start, at, stop):
            character = MINUS
        at += width
        action, count = np.int64(actions[character]), 1
        if action == DROPPED:
            continue
        if action == WHOLE or (marks[character] and marked):
            return -1
        marked = marks[character] != 0
        row = 0
        if action <= EXPANDED:
            row = EXPANDED - action
            count = expansions[row, 0]
        for place in range(count):
            one = np.int64(expansions[row, 1 + place]) if action <= EXPANDED else action
            if one == SEPARATOR:
                pending = size > 0
                continue
            if pending:
                key[size] = 0x20
                size += 1
                pending = False
            size = _encode(one, key, size)
    return size


@_compiled
def hash_keys(
    data: Any, offsets: Any, actions: Any, marks: Any, expansions: Any, key: Any, hashes: Any, whole: Any
) -> None:
    """Hash the keys of all texts; `whole` tells which could not be made character by character.

    Args:
        data: uint8, texts end to end as UTF-8.
        offsets: int64 (n + 1,), where each begins.
        actions: int32 (0x110000,), what becomes of a character.
        marks: uint8 (0x110000,), whether it is a combining mark.
        expansions: int32 (e, 1 + MOST_EXPANDED), a count and characters.
        key: uint8, room for the longest key: 16 bytes for each byte of the longest text.
        hashes: uint64 (n,), written.
        whole: uint8 (n,), written.
    """
    for row in range(len(hashes)):
        size = _key_of(data, offsets[row], offsets[row + 1], actions, marks, expansions, key)
        whole[row] = size < 0
        if size >= 0:
            hashes[row] = xxh64(key, size)


@_compiled
def mark_repeats(hashes: Any, places: Any, lengths: Any, seen: Any, repeats: Any) -> None:
    """Set the bits of all hashes that were met before, in the order they come.

    Args:
        hashes: uint64 (n,), slices of runs end to end; equal ones are in different slices.
        places: int64 (s,), where the bits of each slice begin.
        lengths: int64 (s,), hashes of each slice.
        seen: uint64, zeros, a power of two of at least 2 n.
        repeats: uint8, the bits, lowest first; written.
    """
    mask, shift = np.uint64(len(seen) - 1), np.uint64(32)
    zero, at = False, 0
    for piece in range(len(lengths)):
        for place in range(places[piece], places[piece] + lengths[piece]):
            one = hashes[at]
            at += 1
            met = zero
            if one == 0:
                zero = True
            else:
                slot = ((one * PRIME_1) >> shift) & mask
                while seen[slot] != 0 and seen[slot] != one:
                    slot = (slot + np.uint64(1)) & mask
                met = seen[slot] == one
                seen[slot] = one
            if met:
                repeats[place >> 3] |= np.uint8(1 << (place & 7))
