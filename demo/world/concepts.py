"""The teacher: a deterministic text encoder over the concepts of the miniature world.

A sentence is a bag of concepts, and each concept has a direction of its own, so that the same sentence in four
languages has the same vector. What turns text into concepts and concepts into vectors belongs here; how speech is
mapped into this space is `speech_mining.encoders.student`, and the words themselves are `demo.world.lexicon`.

What it cannot do: word order is not encoded (the wolf saw the king = the king saw the wolf), nor are number and tense,
and a word outside the lexicon gets a direction of its own that no other language shares.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from demo.world.lexicon import LANGUAGES, Language, surface_forms
from speech_mining.encoders.protocol import Embedded, Rejected, Sentence
from speech_mining.errors import EncoderError
from speech_mining.progress import Progress, silent

DIMENSION = 512
"""More than there are concepts, so that their directions are orthogonal: random ones collide (256 random directions
for 330 concepts have cosines up to 0.3)."""
BIAS = 5.8
"""Length of what every vector has in common. Real encoders' vectors are not centred either, and the usual threshold of
the ratio margin, 1.06, assumes that."""
EMPHASIS = 0.25
"""A sentence's sum is lengthened by its own length to this power before the bias is added: what says more stands apart
more, so that half a sentence does not outdo the whole (docs/decisions/0002-demo-encoder.md has the figures)."""

_VERSION = "concepts-1"
_SEED = 20_210_801
# A concept's weight by the letter of its sort: what tells sentences apart weighs most. Articles and the copula weigh
# little but not nothing, so that a span that lacks its first "the" is farther from the translation than the whole.
_WEIGHTS = {"n": 1.0, "v": 1.0, "a": 1.0, "N": 1.0, "#": 1.0, "t": 0.8, "d": 0.8, "p": 0.5, "c": 0.5, "f": 0.25}
# The frames of an unknown word agree only in part: at 2.0 it comes out about as long as a concept.
UNKNOWN_WEIGHT = 2.0
_DEFINITE, _INDEFINITE, _COPULA = "f:the", "f:a", "f:was"
FUNCTION_CONCEPTS = (_DEFINITE, _INDEFINITE, _COPULA)
# Function words that carry a little meaning; those of the lexicon that are not here ("to", "à") carry none.
_FUNCTION_FORMS: Mapping[Language, Mapping[str, str]] = {
    "deu": {_DEFINITE: "der die das den dem", _INDEFINITE: "ein eine einen einem einer", _COPULA: "war"},
    "eng": {_DEFINITE: "the", _INDEFINITE: "a an", _COPULA: "was"},
    "fra": {_DEFINITE: "le la l au", _INDEFINITE: "un une", _COPULA: "était"},
    "spa": {_DEFINITE: "el la al", _INDEFINITE: "un una", _COPULA: "era estaba"},
}
_SILENT_FORMS: Mapping[Language, str] = {"deu": "", "eng": "to", "fra": "à d de", "spa": "a"}
# A preposition melted with the article that follows: German "im", French "près du", Spanish "detrás del".
_MELTED: Mapping[Language, str] = {"deu": "im", "eng": "", "fra": "du", "spa": "del"}
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")

Match = tuple[int, int, tuple[str, ...]]
"""First word, number of words, and the concepts they mean."""


def spoken_words(text: str) -> list[tuple[int, str]]:
    """The words of a text in lower case, each with the place of its first character.

    An apostrophe ends a word (`l'homme` is `l`, `homme`), a hyphen does not.
    """
    return [(found.start(), found.group()) for found in _WORD.finditer(unicodedata.normalize("NFC", text).lower())]


def words(text: str) -> list[str]:
    """The words of a text in lower case, as `spoken_words` splits them."""
    return [word for _, word in spoken_words(text)]


@cache
def concept_names() -> tuple[str, ...]:
    """Every concept of the world, in the order of their directions."""
    return (*sorted(surface_forms("eng")), *FUNCTION_CONCEPTS)


def concept_weight(concept: str) -> float:
    """How much a concept counts in a sentence's vector, in (0, 1]."""
    return _WEIGHTS[concept[0]]


@cache
def _meanings(language: Language) -> dict[tuple[str, ...], tuple[str, ...]]:
    meanings: dict[tuple[str, ...], tuple[str, ...]] = {(word,): () for word in _SILENT_FORMS[language].split()}
    for concept, forms in _FUNCTION_FORMS[language].items():
        meanings.update({(word,): (concept,) for word in forms.split()})
    for concept, surfaces in surface_forms(language).items():
        for surface in surfaces:
            spoken = tuple(words(surface))
            melted = spoken[-1] == _MELTED[language]
            meanings.setdefault(spoken, (concept, _DEFINITE) if melted else (concept,))
    return meanings


@cache
def _longest(language: Language) -> int:
    return max(len(spoken) for spoken in _meanings(language))


def matches(spoken: Sequence[str], language: Language) -> Iterator[Match]:
    """Cover words with the longest known expressions, left to right; an unknown word means `?:word`."""
    meanings, first = _meanings(language), 0
    while first < len(spoken):
        for length in range(min(_longest(language), len(spoken) - first), 0, -1):
            meant = meanings.get(tuple(spoken[first : first + length]))
            if meant is not None:
                break
        else:
            length, meant = 1, (f"?:{spoken[first]}",)
        yield first, length, meant
        first += length


def concepts(text: str, language: Language) -> list[str]:
    """The concepts a text names, in its own order; unknown words as `?:word`."""
    return [concept for _, _, meant in matches(words(text), language) for concept in meant]


@cache
def basis() -> npt.NDArray[np.float64]:
    """A fixed random orthonormal basis, float64 (512, 512).

    Its rows: one for each concept, then those of the unknown, and last the bias.

    Dense, as the vectors of a real encoder are: a vector whose coordinates were the concepts themselves would make
    quantised search look better or worse than it is.
    """
    gaussian = np.random.Generator(np.random.PCG64(_SEED)).standard_normal((DIMENSION, DIMENSION))
    orthonormal, triangular = np.linalg.qr(gaussian)
    turned: npt.NDArray[np.float64] = (orthonormal * np.sign(np.diag(triangular))).T
    return turned


def concept_directions() -> npt.NDArray[np.float64]:
    """float64 (concepts, 512): what naming each concept once adds to a sentence's vector, weight included."""
    weights = np.array([concept_weight(concept) for concept in concept_names()])
    weighted: npt.NDArray[np.float64] = weights[:, None] * basis()[: len(weights)]
    return weighted


def unknown_directions() -> npt.NDArray[np.float64]:
    """float64 (unknown, 512), orthonormal: the room, orthogonal to every concept, where words of no meaning go."""
    return basis()[len(concept_names()) : -1]


def bias() -> npt.NDArray[np.float64]:
    """float64 (512,), of length `BIAS`: what every sum of directions is added to."""
    scaled: npt.NDArray[np.float64] = BIAS * basis()[-1]
    return scaled


def _unknown(word: str) -> npt.NDArray[np.float64]:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
    room = unknown_directions()
    where = np.random.Generator(np.random.PCG64(seed)).standard_normal(len(room))
    hashed: npt.NDArray[np.float64] = UNKNOWN_WEIGHT * (where / np.linalg.norm(where)) @ room
    return hashed


def content(named: Sequence[str]) -> npt.NDArray[np.float64]:
    """float64 (512,): the sum of the directions of concepts (`?:word` for a word that is none)."""
    rows = {concept: row for row, concept in enumerate(concept_names())}
    directions = concept_directions()
    summed = np.zeros(DIMENSION)
    for name in named:
        summed += _unknown(name) if name[0] == "?" else directions[rows[name]]
    return summed


def place(summed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Turn a sum of directions s, float64 (..., 512), into unit vectors: |s|^EMPHASIS s + bias, over its length."""
    biased = np.linalg.norm(summed, axis=-1, keepdims=True) ** EMPHASIS * summed + bias()
    placed: npt.NDArray[np.float64] = biased / np.linalg.norm(biased, axis=-1, keepdims=True)
    return placed


class ConceptTeacher:
    """Text to unit vectors by the concepts it names; a `speech_mining.encoders.protocol.TextEncoder`."""

    name = "concepts"
    dimension = DIMENSION
    languages: frozenset[str] = frozenset(LANGUAGES)

    @property
    def version(self) -> str:
        """A digest of the words, their weights and their directions."""
        told = repr(
            (
                _VERSION,
                [sorted(surface_forms(language).items()) for language in LANGUAGES],
                _WEIGHTS,
                UNKNOWN_WEIGHT,
                BIAS,
            )
        )
        return f"{_VERSION}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def embed(self, items: Sequence[Sentence], *, progress: Progress = silent) -> Embedded:
        """Embed sentences; one that names nothing, known or unknown, is rejected as `no_content`.

        Raises:
            EncoderError: a sentence's language is not one of the four.
        """
        vectors: list[npt.NDArray[np.float16]] = []
        kept: list[int] = []
        rejected: list[Rejected] = []
        for item, sentence in enumerate(items):
            named = concepts(sentence.text, self._known(sentence.language))
            if named:
                vectors.append(place(content(named)).astype(np.float16))
                kept.append(item)
            else:
                rejected.append(Rejected(item, "no_content", "no word that means something"))
            progress(item + 1, len(items))
        stacked = np.stack(vectors) if vectors else np.zeros((0, DIMENSION), np.float16)
        return Embedded(stacked, np.array(kept, np.int64), tuple(rejected))

    def _known(self, language: str) -> Language:
        for known in LANGUAGES:
            if known == language:
                return known
        raise EncoderError(
            f"The miniature world has no language {language!r}.",
            expected=f"one of {', '.join(LANGUAGES)}",
            cause="a text of another corpus was sent to the demo's teacher",
            fix="use SONAR's text encoder for it",
        )
