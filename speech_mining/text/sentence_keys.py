"""When two sentences are the same: the key that they share, and a hash of it.

Two sentences are the same if they have the same words in the same order. Case, width, spacing, the way letters are
composed and most punctuation may differ; what is read aloud may not: letters with their marks, digits, symbols, `?`,
`%`, `&`, `#`, `@`, `§`, and a hyphen that is a minus. That is stricter than CCNet and stopes (`normalize_for_dedup`
makes every digit a 0, since it looks for boilerplate: there "in 1914" is "in 1918", which must not be one sentence
where translations are mined) and looser in punctuation (they remove typographic marks and keep those of ASCII, so that
„so“ and "so" differ).

What belongs here is that definition (`normalised_key`, in Python) and the tables by which compiled code comes to the
same keys 20 times as fast. Which rows repeat is in `duplicates`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.errors import SettingsError

KEY_VERSION = f"1/unicode-{unicodedata.unidata_version}"
"""Changes where keys may: characters that a newer Unicode knows are folded there and not here."""
HASH_BITS = 63
READ_ALOUD = frozenset("?%‰&#@§")
"""Punctuation, to Unicode, that tells something."""
CHARACTERS = 0x110000
_UNTOUCHED = ("Cn", "Co", "Cs")
"""Categories of characters that are not assigned, private, or half of one."""
_MINUS = re.compile(r"(?<![^ ])[-\u2010-\u2013](?=[0-9])")
_HANGUL_MEDIALS_AND_FINALS = range(0x1161, 0x11C3)


def normalised_key(text: str) -> str:
    """What a sentence has in common with those that are the same: words, parted by single spaces.

    NFKC, full case folding, a hyphen before a digit (at the beginning or after a space) as a minus; then invisible
    format characters are dropped, and punctuation, spaces and control characters part words. A text without a word has
    the key "".
    """
    folded = unicodedata.normalize("NFKC", _MINUS.sub("\u2212", text)).casefold()
    kept = "".join(_kept(character) for character in unicodedata.normalize("NFKC", folded))
    return " ".join(word for word in kept.split(" ") if word)


def keys(texts: pl.Series) -> pl.Series:
    """The key of each text, String; "" where the text is null."""
    return pl.Series("key", [normalised_key(text) if text else "" for text in texts], dtype=pl.String())


def _kept(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if category == "Cc" or category[0] == "Z" or (category[0] == "P" and character not in READ_ALOUD):
        return " "
    return character


def sentence_hash(texts: pl.Series) -> pl.Series:
    """XXH64 of each text's key without its highest bit: Int64, from 0; equal on every machine.

    One core does a million sentences of 95 characters a second; a text with several marks on one letter, or
    letters written in parts, is normalised as a whole, at a twentieth of that.

    Raises:
        SettingsError: not strings, or a null among them.
    """
    if texts.dtype != pl.String or texts.null_count():
        raise SettingsError(
            f"Sentences came as {texts.dtype} with {texts.null_count()} nulls.", expected="strings, none of them null"
        )
    hashes, whole = _hashed(*_bytes(texts))
    rows = np.flatnonzero(whole)
    if len(rows):
        hashes[rows] = _hash_bytes(*_bytes(keys(texts.gather(rows))))
    return pl.Series(texts.name, (hashes & np.uint64((1 << HASH_BITS) - 1)).astype(np.int64))


def expected_collisions(rows: int, bits: int = HASH_BITS) -> float:
    """How many of `rows` different keys are expected to be taken for another one: rows² / 2^(bits + 1).

    For 63 bits 5·10⁻⁶ of 10⁷, 0.05 of 10⁹: one sentence lost in 20 such languages.
    """
    return rows * (rows - 1) / float(2 ** (bits + 1))


def _bytes(texts: pl.Series) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All texts end to end as UTF-8, and where each begins."""
    array = texts.rechunk().to_arrow()  # large_string: offsets of 64 bits
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8), starts


def _hashed(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    from speech_mining.text.sentence_kernels import hash_keys

    table = characters()
    count = max(len(offsets) - 1, 0)
    hashes, whole = np.zeros(count, np.uint64), np.zeros(count, np.uint8)
    if count:
        key = np.empty(16 * int(np.diff(offsets).max()) + 16, np.uint8)
        hash_keys(_writable(data), _writable(offsets), *table.arrays, key, hashes, whole)
    return hashes, whole


def _hash_bytes(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    from speech_mining.text.sentence_kernels import xxh64

    view = _writable(data)
    return np.array([xxh64(view[start:stop], stop - start) for start, stop in pairwise(offsets)], np.uint64)


def _writable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One kind of array for compiled code, which has a version for each: read-only."""
    view = array[:]
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class Characters:
    """What becomes of each character, where it does not depend on the others."""

    actions: npt.NDArray[np.int32]
    """(0x110000,): another character, or what `sentence_kernels` names; EXPANDED - e is row e of expansions."""
    marks: npt.NDArray[np.uint8]
    """(0x110000,): 1 for a combining mark; two of them in a row may change places."""
    expansions: npt.NDArray[np.int32]
    """(e, 1 + MOST_EXPANDED): a count, and characters or SEPARATOR."""

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """Read-only, as compiled code takes them."""
        return tuple(_writable(array) for array in (self.actions, self.marks, self.expansions))


@lru_cache(maxsize=1)
def characters() -> Characters:
    """Derive the tables from `normalised_key`; once a process, half a second."""
    from speech_mining.text import sentence_kernels as kernels

    actions = np.arange(CHARACTERS, dtype=np.int32)
    marks = np.zeros(CHARACTERS, np.uint8)
    expansions: dict[tuple[int, ...], int] = {}
    composing = _composing()
    for code in range(CHARACTERS):
        category = unicodedata.category(chr(code))
        if category in _UNTOUCHED or (category == "Lo" and _stands_alone(chr(code), composing)):
            continue
        marks[code] = unicodedata.combining(chr(code)) > 0
        actions[code] = _action(code, composing, expansions)
    rows = np.zeros((max(len(expansions), 1), 1 + kernels.MOST_EXPANDED), np.int32)
    for told, row in expansions.items():
        rows[row, : 1 + len(told)] = [len(told), *told]
    return Characters(actions, marks, rows)


def _stands_alone(letter: str, composing: frozenset[int]) -> bool:
    """Whether normalisation leaves a letter without case as it is, wherever it stands: most of 130 000."""
    return ord(letter) not in composing and unicodedata.is_normalized("NFKC", letter)


def _composing() -> frozenset[int]:
    """Characters that may join with the one before them."""
    pairs = (unicodedata.decomposition(chr(code)).split() for code in range(CHARACTERS))
    seconds = {int(parts[1], 16) for parts in pairs if len(parts) == 2 and not parts[0].startswith("<")}
    return frozenset(seconds | set(_HANGUL_MEDIALS_AND_FINALS))


def _action(code: int, composing: frozenset[int], expansions: dict[tuple[int, ...], int]) -> int:
    from speech_mining.text import sentence_kernels as kernels

    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", chr(code)).casefold())
    marked = unicodedata.combining(chr(code)) > 0
    if code in composing or any(ord(one) in composing or (unicodedata.combining(one) > 0) != marked for one in normal):
        return kernels.WHOLE
    kept = [_kept(one) for one in normal]
    told = tuple(kernels.SEPARATOR if one == " " else ord(one) for one in kept if one)
    if len(told) == 1:
        return told[0]
    if not told:
        return kernels.DROPPED
    if len(told) > kernels.MOST_EXPANDED:
        return kernels.WHOLE
    return kernels.EXPANDED - expansions.setdefault(told, len(expansions))
