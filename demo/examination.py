"""The encoder's examination: sentences that it never heard, said by its narrators, coded as MP3 as the library is.

What is asked of the encoder belongs here; the formulas are `speech_mining.evaluation.retrieval`, and how the speech is
made is `demo.recipe`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from demo.recipe import Placed, Spoken, at_16_khz, lay_out, record, say
from demo.world.concepts import ConceptTeacher
from demo.world.grammar import Sentence, realise
from demo.world.lexicon import LANGUAGES, Language
from demo.world.narrators import NATIVE_RATE_HZ
from demo.world.strangers import strange_sentence
from speech_mining.encoders import protocol
from speech_mining.encoders.protocol import SpeechEncoder, SpeechSpan
from speech_mining.errors import EncoderError
from speech_mining.evaluation.retrieval import Direction, mean_of, preference, recall_by_direction
from speech_mining.progress import Progress, silent
from speech_mining.training.recipes import Figure

ALTERATIONS = ("without its first word", "without its last word", "with the word before", "with the word after")
_KBIT = 40
_SENTENCES_A_RECORDING = 12
# A cut lies in the pause, not at the first sound.
_MARGIN = round(0.1 * NATIVE_RATE_HZ)
_SENTENCES_A_STRANGE_ONE = 12

Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Examination:
    """The figures.

    Args:
        candidates: sentences in each language.
        speech_to_speech: recall at 1 by direction.
        speech_to_text: recall at 1 of a language's speech among the texts of another.
        exact_by_text: for each alteration of a span, how often the exact span is nearer to the translation's text.
        exact_by_speech: the same with the translations as speech, in the three other languages.
        own_cosine: mean cosine of speech and its text.
        other_cosine: mean cosine of speech and the nearest text that is not its own.
        strange_again: lowest cosine between two recordings of the same strange sentence, by language.
        strange_apart: mean cosine between different strange sentences.
        strange_and_story: highest cosine between a strange sentence and a story sentence.
    """

    candidates: int
    speech_to_speech: Mapping[Direction, float]
    speech_to_text: Mapping[Direction, float]
    exact_by_text: Mapping[str, float]
    exact_by_speech: Mapping[str, float]
    own_cosine: float
    other_cosine: float
    strange_again: Mapping[str, float]
    strange_apart: float
    strange_and_story: float

    def figures(self) -> list[Figure]:
        """Every figure, means first."""
        again = "strange sentence said twice, lowest of"
        told = [
            ("speech to speech R@1", "mean of 12 directions", mean_of(self.speech_to_speech)),
            ("speech to text R@1", "mean of 12 directions", mean_of(self.speech_to_text)),
        ]
        told += [("speech to speech R@1", f"{one} to {other}", r) for (one, other), r in self.speech_to_speech.items()]
        told += [("speech to text R@1", f"{one} to {other}", r) for (one, other), r in self.speech_to_text.items()]
        told += [("exact span preferred, by text", name, share) for name, share in self.exact_by_text.items()]
        told += [("exact span preferred, by speech", name, share) for name, share in self.exact_by_speech.items()]
        told += [
            ("cosine", "speech and its text", self.own_cosine),
            ("cosine", "speech and the nearest other text", self.other_cosine),
        ]
        told += [("cosine", f"{again} {name}", cosine) for name, cosine in self.strange_again.items()]
        told += [
            ("cosine", "different strange sentences, mean", self.strange_apart),
            ("cosine", "strange and story sentence, highest", self.strange_and_story),
        ]
        return [Figure(*one) for one in told]


def examine(
    encoder: SpeechEncoder, sentences: Sequence[Sentence], seed: int = 0, *, progress: Progress = silent
) -> Examination:
    """Examine an encoder on sentences it was not trained on.

    Args:
        encoder: it must know the four languages.
        sentences: at least two dozen, no two alike.
        seed: of the order of the sentences, the pauses, the noise.
        progress: told the languages done.

    Raises:
        EncoderError: the encoder rejects a sentence.
    """
    exact: dict[str, Vectors] = {}
    altered: dict[str, list[Vectors]] = {}
    strange: dict[str, tuple[Vectors, Vectors]] = {}
    for done, language in enumerate(LANGUAGES):
        exact[language], *altered[language] = _embed_spans(encoder, sentences, language, seed)
        strange[language] = _embed_strange(encoder, language, max(2, len(sentences) // _SENTENCES_A_STRANGE_ONE), seed)
        progress(done + 1, len(LANGUAGES))
    texts: dict[str, Vectors] = {language: _embed_texts(sentences, language) for language in LANGUAGES}
    cosines = np.concatenate([exact[one].astype(np.float32) @ texts[one].T.astype(np.float32) for one in LANGUAGES])
    own = np.tile(np.eye(len(sentences), dtype=bool), (len(LANGUAGES), 1))
    others: dict[str, list[str]] = {one: [two for two in LANGUAGES if two != one] for one in LANGUAGES}
    return Examination(
        candidates=len(sentences),
        speech_to_speech=recall_by_direction(exact, exact),
        speech_to_text=recall_by_direction(exact, texts),
        exact_by_text=_preferences(exact, altered, texts, {one: ["eng"] for one in LANGUAGES}),
        exact_by_speech=_preferences(exact, altered, exact, others),
        own_cosine=float(cosines[own].mean()),
        other_cosine=float(np.where(own, -1, cosines).max(axis=1).mean()),
        strange_again={language: _lowest(*strange[language]) for language in LANGUAGES},
        strange_apart=float(np.mean([_apart(strange[language][0]) for language in LANGUAGES])),
        strange_and_story=max(
            float((strange[one][0].astype(np.float32) @ exact[one].T.astype(np.float32)).max()) for one in LANGUAGES
        ),
    )


def _embed_spans(encoder: SpeechEncoder, sentences: Sequence[Sentence], language: Language, seed: int) -> list[Vectors]:
    """Five matrices in the sentences' order: the exact spans, then one for each of `ALTERATIONS`."""
    chance = random.Random(f"examination-{seed}-{language}")
    order = chance.sample(range(len(sentences)), len(sentences))
    spans: dict[int, list[SpeechSpan]] = {}
    for start in range(0, len(order), _SENTENCES_A_RECORDING):
        part = order[start : start + _SENTENCES_A_RECORDING]
        waveform, placed = recorded([say(realise(sentences[item], language), language) for item in part], chance)
        for item, edges in zip(part, _edges(placed), strict=True):
            spans[item] = [SpeechSpan(waveform, at_16_khz(a), at_16_khz(b), language) for a, b in edges]
    ordered = [spans[item][kind] for kind in range(1 + len(ALTERATIONS)) for item in range(len(sentences))]
    vectors = _accepted(encoder, ordered)
    return list(vectors.reshape(1 + len(ALTERATIONS), len(sentences), -1))


def recorded(spoken: Sequence[Spoken], chance: random.Random) -> tuple[npt.NDArray[np.float32], list[Placed]]:
    """A recording as the library's are: float32 samples at 16 kHz, and where its sentences stand at 22 050 Hz."""
    samples, placed = lay_out(spoken, chance)
    return record(samples, chance, _KBIT), placed


def _edges(placed: Sequence[Placed]) -> list[list[tuple[int, int]]]:
    """For each sentence of a recording, its exact span and then the altered ones."""
    edges = []
    for index, here in enumerate(placed):
        start, end = here.start - _MARGIN, here.end + _MARGIN
        words = here.spoken.words
        spans = [(start, end), (here.start + words[1], end), (start, here.start + words[-1])]
        before, after = placed[max(index - 1, 0)], placed[min(index + 1, len(placed) - 1)]
        # At a recording's edge there is no neighbour: the other side is asked twice.
        longer = (before.start + before.spoken.words[-1], end) if index else None
        further = (start, after.start + after.spoken.words[1]) if index + 1 < len(placed) else None
        spans += [longer or further or (start, end), further or longer or (start, end)]
        edges.append(spans)
    return edges


def _embed_strange(encoder: SpeechEncoder, language: Language, count: int, seed: int) -> tuple[Vectors, Vectors]:
    chance = random.Random(f"strange-{seed}-{language}")
    spoken = [say(strange_sentence(language, chance), language) for _ in range(count)]
    twice = []
    for _ in range(2):
        waveform, placed = recorded(spoken, chance)
        spans = [
            SpeechSpan(waveform, at_16_khz(one.start - _MARGIN), at_16_khz(one.end + _MARGIN), language)
            for one in placed
        ]
        twice.append(_accepted(encoder, spans))
    return twice[0], twice[1]


def _embed_texts(sentences: Sequence[Sentence], language: Language) -> Vectors:
    return ConceptTeacher().embed([protocol.Sentence(realise(one, language), language) for one in sentences]).vectors


def _accepted(encoder: SpeechEncoder, spans: Sequence[SpeechSpan]) -> Vectors:
    embedded = encoder.embed(spans)
    if embedded.rejected:
        first = embedded.rejected[0]
        raise EncoderError(
            f"The encoder {encoder.name} rejects {len(embedded.rejected)} of {len(spans)} spans, the first because of "
            f"{first.reason} ({first.detail}).",
            expected="a vector for each",
            cause="it was not trained for these narrators",
        )
    return embedded.vectors


def _preferences(
    exact: Mapping[str, Vectors],
    altered: Mapping[str, Sequence[Vectors]],
    references: Mapping[str, Vectors],
    against: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    return {
        name: float(
            np.mean(
                [
                    preference(exact[one], altered[one][kind], references[other])
                    for one in LANGUAGES
                    for other in against[one]
                ]
            )
        )
        for kind, name in enumerate(ALTERATIONS)
    }


def _lowest(first: Vectors, second: Vectors) -> float:
    return float((first.astype(np.float32) * second.astype(np.float32)).sum(axis=1).min())


def _apart(vectors: Vectors) -> float:
    cosines = vectors.astype(np.float32) @ vectors.T.astype(np.float32)
    return float(cosines[~np.eye(len(vectors), dtype=bool)].mean())
