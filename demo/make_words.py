"""Write which word of the miniature library is heard when, and how words are translated: `python -m demo.make_words`.

The narrators say every sentence of `sentences.parquet` again, and the synthesiser tells when each word begins. Needs
the synthesiser (`pip install speech-mining[narration]`); the same version of it writes the same bytes.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from demo.make_library import LIBRARY
from demo.world.concepts import words
from demo.world.lexicon import LANGUAGES, Language, surface_forms
from demo.world.narrators import NARRATORS, NATIVE_RATE_HZ, WordEvent, synthesise
from speech_mining.atomic import replacing
from speech_mining.words.audiobooks import TIMINGS

FOLDER = "words"


def make(library: Path) -> None:
    """Write `words/<language>.parquet` and `words/<pair>.tsv` of a library."""
    sentences = pl.read_parquet(library / "sentences.parquet")
    for language in LANGUAGES:
        table = timings(sentences.filter(pl.col("language") == language), language)
        with replacing(library / FOLDER / f"{language}.parquet") as part:
            table.write_parquet(part)
    for source, target in itertools.permutations(LANGUAGES, 2):
        with replacing(library / FOLDER / f"{source}-{target}.tsv") as part:
            part.write_text("".join(f"{one}\t{other}\n" for one, other in translations(source, target)), "utf-8")


def timings(sentences: pl.DataFrame, language: Language) -> pl.DataFrame:
    """Columns `TIMINGS`; words that the synthesiser reports together ("of the") are one piece.

    Args:
        sentences: `demo.make_library.SENTENCES` of one language.
        language: whose narrator says them.
    """
    places = sentences.select("audiobook", "section", "start_ms", "text").iter_rows()
    rows = [
        (audiobook, section, start_ms + begin, start_ms + end, word)
        for audiobook, section, start_ms, text in places
        for begin, end, word in spoken(text, language)
    ]
    table = pl.DataFrame(rows, schema=dict(TIMINGS), orient="row")
    return table.sort("audiobook", "section", "start_ms")


def spoken(text: str, language: Language) -> Iterator[tuple[int, int, str]]:
    """The pieces of a text as its narrator says it; see `pieces`."""
    samples, events = synthesise(text, NARRATORS[language])
    return pieces(text, events, 1000 * len(samples) / NATIVE_RATE_HZ)


def pieces(text: str, events: Sequence[WordEvent], length_ms: float) -> Iterator[tuple[int, int, str]]:
    """First and last millisecond of each word, and the word in lower case; a pause belongs to the word before it."""
    starts_ms = [*(round(1000 * at_s) for _, _, at_s in events), round(length_ms)]
    places = [*(place for place, _, _ in events), len(text)]
    for (begin, end), (first, last) in zip(itertools.pairwise(starts_ms), itertools.pairwise(places), strict=True):
        word = " ".join(words(text[first:last]))
        if word and end > begin:
            yield begin, end, word


def translations(source: Language, target: Language) -> list[tuple[str, str]]:
    """Every form of a concept that is one word, with every such form of it in the other language."""
    ours, theirs = surface_forms(source), surface_forms(target)
    pairs = {
        (one[0], other[0])
        for concept, forms in ours.items()
        for one, other in itertools.product(map(words, forms), map(words, theirs[concept]))
        if len(one) == len(other) == 1
    }
    return sorted(pairs)


def main() -> None:
    """Make the tables, and say how large they are."""
    parser = argparse.ArgumentParser(description="Write the words of the miniature library again.")
    parser.add_argument("--to", type=Path, default=LIBRARY, help="the library (default: %(default)s)")
    library = parser.parse_args().to
    make(library)
    for path in sorted((library / FOLDER).iterdir()):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
