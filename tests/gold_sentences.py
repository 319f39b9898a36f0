"""The paragraphs of `gold_sentences.txt`, and how well a splitter finds their sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

Splitter = Callable[[str, str], Iterable[str]]
"""(paragraph, ISO 639-3) → its sentences."""

_UNSPACED = ("zho", "jpn")


def gold() -> Mapping[str, list[list[str]]]:
    """Language → paragraphs, each a list of its sentences."""
    paragraphs: dict[str, list[list[str]]] = {}
    language = ""
    for block in Path(__file__).with_name("gold_sentences.txt").read_text("utf-8").split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("# ")]
        if lines and lines[0].startswith("## "):
            language = lines.pop(0)[3:]
        paragraphs.setdefault(language, []).append(lines)
    return paragraphs


def joined(sentences: Sequence[str], language: str) -> str:
    """The paragraph of its sentences."""
    return ("" if language in _UNSPACED else " ").join(sentences)


def f1(split: Splitter, language: str, paragraphs: Iterable[Sequence[str]]) -> float:
    """F1 of the boundaries inside paragraphs, 0 to 1; spaces do not count."""
    right = wrong = missed = 0
    for sentences in paragraphs:
        expected = _boundaries(sentences)
        found = _boundaries(list(split(joined(sentences, language), language)))
        right += len(expected & found)
        wrong += len(found - expected)
        missed += len(expected - found)
    return 2 * right / max(2 * right + wrong + missed, 1)


def _boundaries(sentences: Sequence[str]) -> set[int]:
    ends, place = set(), 0
    for sentence in sentences:
        place += len("".join(sentence.split()))
        ends.add(place)
    return ends - {place, 0}
