"""Texts as similarity search compares them, and how many words of a retrieved text are wrong.

What belongs here knows words and letters of any language, and no vectors. Word errors are counted by jiwer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.errors import EmbeddingError
from speech_mining.text.sentences import Wording, as_read

Counts: TypeAlias = npt.NDArray[np.int64]

# Chinese, Japanese, Thai, Lao, Khmer and Burmese put no spaces between words; Korean does.
_UNSPACED = re.compile("([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])")


def normalised(text: str) -> str:
    """Remove quotes that enclose the whole sentence and lower-case it, as Duquenne et al. 2021, section 3.1.

    White space becomes single spaces, and letters are composed (NFC), which changes no letter. `"A," he said, "B."` is
    not enclosed: its first quote ends before the last one begins.
    """
    return as_read(text, Wording(lower_case=True, strip_quotes=True))


def word_errors(references: Sequence[str], retrieved: Sequence[str]) -> tuple[Counts, Counts]:
    """Count the words to substitute, delete or insert to make each reference of the text retrieved for it.

    Texts are compared as given, punctuation included: normalise them first. In scripts written without spaces each
    letter is a word, so that there the rate is one of characters.

    Args:
        references: n right texts.
        retrieved: n found texts.

    Returns:
        int64 (n,) errors, int64 (n,) words of the references; their sums' ratio is the word error rate, from 0, and
        above 1 where what was retrieved is longer.

    Raises:
        EmbeddingError: the lengths differ.
    """
    if len(references) != len(retrieved):
        raise EmbeddingError(
            f"{len(retrieved)} texts were retrieved for {len(references)} references.", expected="one for each"
        )
    right, found = [_words(text) for text in references], [_words(text) for text in retrieved]
    errors = np.zeros(len(right), np.int64)
    differing = [row for row, (one, other) in enumerate(zip(right, found, strict=True)) if one != other]
    # An empty side needs no alignment, and jiwer refuses an empty reference.
    aligned = [row for row in differing if right[row] and found[row]]
    for row in differing:
        errors[row] = max(len(right[row]), len(found[row]))
    if aligned:
        errors[aligned] = _edits([right[row] for row in aligned], [found[row] for row in aligned])
    return errors, np.array([len(one) for one in right], np.int64)


def _words(text: str) -> list[str]:
    return _UNSPACED.sub(r" \1 ", text).split()


def _edits(references: list[list[str]], retrieved: list[list[str]]) -> list[int]:
    import jiwer

    compared = jiwer.process_words([" ".join(one) for one in references], [" ".join(one) for one in retrieved])
    return [
        sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        for chunks in compared.alignments
    ]
