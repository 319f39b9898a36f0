"""In which language a sentence is: py3langid's model, which lies inside its package, walked by kernels of ours.

Chosen among eight that work without a network, for what mining asks: of the sentences of a language keep nearly all,
and of 74 other languages nearly none (docs/text.md has the table). Of sentences of 105 characters, as `in_language`
asks, 99.4 % of German, English, French and Spanish are kept, and 0.04 % of others pass.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from speech_mining.errors import SettingsError

VERSION = "py3langid-0.4.0"
"""Names the model in what is made with it."""

Shares = npt.NDArray[np.float32]


def known_languages() -> frozenset[str]:
    """ISO 639-3 of every language that can be told; of a macrolanguage, its own code ("nor", "zho")."""
    return frozenset(_model().languages)


def is_known(language: str) -> bool:
    """Whether a language, or the macrolanguage it belongs to ("cmn" to "zho"), can be told."""
    return _macrolanguage(language) in known_languages()


def language_shares(texts: Sequence[str], language: str) -> Shares:
    """How sure the model is that each text is in `language`.

    Returns:
        float32 (n,), in [0, 1]: the language's share among all that the model knows.

    Raises:
        SettingsError: the model does not know the language (see `is_known`).
    """
    _require_known(language)
    return _shares(texts)[:, _model().languages.index(_macrolanguage(language))]


def in_language(texts: Sequence[str], language: str, least_share: float) -> npt.NDArray[np.bool_]:
    """Whether each text is in `language`: the likeliest of all, or as sure as `least_share`.

    The likeliest alone loses a fifth of Spanish five-word phrases, and a share alone the short sentences of all.

    Raises:
        SettingsError: see `language_shares`.
    """
    _require_known(language)
    shares = _shares(texts)
    share = shares[:, _model().languages.index(_macrolanguage(language))]
    right: npt.NDArray[np.bool_] = (share >= least_share) | (share >= shares.max(axis=1, initial=0.0))
    return right


def identify(texts: Sequence[str]) -> tuple[list[str], Shares]:
    """The likeliest language of each text as ISO 639-3, "zxx" where it is none, and its share."""
    shares = _shares(texts)
    best = shares.argmax(axis=1) if len(texts) else np.empty(0, np.int64)
    return [_model().languages[column] for column in best], shares[np.arange(len(best)), best]


def _require_known(language: str) -> None:
    if not is_known(language):
        raise SettingsError(
            f"Language identification does not know {language}.",
            expected=f"one of {', '.join(sorted(known_languages()))}",
            fix="let its sentences be kept unjudged (keep_unknown_language)",
        )


@dataclass(frozen=True)
class _Model:
    languages: tuple[str, ...]  # each once
    columns: npt.NDArray[np.int64]  # the model's class of each language
    aliases: tuple[tuple[int, int], ...]  # (class, the language's first class): another script of a language
    next_move: npt.NDArray[np.uint32]
    row_of_state: npt.NDArray[np.int64]
    feature_of_state: npt.NDArray[np.int64]
    weights: Shares
    prior: Shares


@lru_cache(maxsize=1)
def _model() -> _Model:
    """The model as arrays: 0.4 s, 110 MB."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    read: Any = LanguageIdentifier.from_model_file(MODEL_FILE)
    codes = [_macrolanguage(label) for label in read.nb_classes]
    languages = tuple(dict.fromkeys(codes))
    return _Model(
        languages,
        np.array([codes.index(language) for language in languages]),
        tuple((place, codes.index(code)) for place, code in enumerate(codes) if codes.index(code) < place),
        np.asarray(read.tk_nextmove, np.uint32),
        np.asarray(read.tk_row, np.int64),
        np.asarray(read.tk_output, np.int64),
        np.asarray(read.nb_ptc, np.float32),
        np.asarray(read.nb_pc, np.float32),
    )


def _shares(texts: Sequence[str]) -> Shares:
    """float32 (n, languages), rows sum to 1."""
    model = _model()
    if not texts:
        return np.empty((0, len(model.languages)), np.float32)
    from speech_mining.text.language_kernels import class_scores

    encoded = [_encoded(text) for text in texts]
    ends = np.cumsum([len(one) for one in encoded], dtype=np.int64)
    joined = np.frombuffer(b"".join(encoded), np.uint8)
    scores: Shares = class_scores(
        joined, ends, model.next_move, model.row_of_state, model.feature_of_state, model.weights, model.prior
    )
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    for column, first in model.aliases:
        likely[:, first] += likely[:, column]
    shares: Shares = likely[:, model.columns]
    return shares


def _encoded(text: str) -> bytes:
    """As the library prepares a text."""
    lower = text.lower() if text.isupper() else text
    return unicodedata.normalize("NFC", lower).encode("utf-8", "replace")


@lru_cache(maxsize=512)
def _macrolanguage(code: str) -> str:
    import langcodes

    try:
        return langcodes.get(code).prefer_macrolanguage().to_alpha3()
    except (LookupError, ValueError):
        return code
