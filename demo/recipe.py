"""How the embedded encoder is made: narrated sentences of the miniature world, then training, then its examination.

What speech the encoder is trained and examined on is decided here. The network and its training loop are
`speech_mining.training.student`, the formulas of the figures `speech_mining.evaluation.retrieval`.
"""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from demo.world import concepts as teacher
from demo.world.grammar import Sentence, Story, realise
from demo.world.lexicon import LANGUAGES, Language
from demo.world.narrators import AUDIBLE, NARRATORS, NATIVE_RATE_HZ, audible_span, synthesise
from demo.world.strangers import strange_sentence, strange_word
from demo.world.tales import chapters
from speech_mining.encoders.student import Student, StudentWeights, save_student
from speech_mining.progress import Progress, silent
from speech_mining.records import SAMPLE_RATE_HZ
from speech_mining.training.recipes import Figure, Stages, quietly
from speech_mining.training.student import (
    Heard,
    TrainingConfig,
    TrainingRecording,
    frame_recordings,
    train_detector,
    unknown_room,
)

EXAMINED = 600
_MP3_KBIT = (32, 40, 48)
_LONGEST_WORDS, _SHORTEST_WORDS = 24, 3
_SENTENCES_A_RECORDING, _SENTENCES_A_TALE = 12, 40


@dataclass(frozen=True)
class Narration:
    """How much is narrated for training, and how.

    Args:
        seed: of every choice.
        sentences: sentences of the miniature world, a language.
        strange_share: strange sentences for each sentence of the world.
        coded_share: share of the recordings that go through MP3.
    """

    seed: int = 0
    sentences: int = 2500
    strange_share: float = 0.25
    coded_share: float = 0.4


@dataclass(frozen=True, eq=False)
class Spoken:
    """A sentence as its narrator says it, from the first to the last audible sample.

    Args:
        text: what is said.
        samples: float32 at 22 050 Hz.
        words: the sample at which each word begins, as espeak-ng reports them ("of the" may be one).
        stretches: (first sample, one past the last audible one, its concepts), `?:word` for an unknown word.
    """

    text: str
    samples: npt.NDArray[np.float32]
    words: tuple[int, ...]
    stretches: tuple[tuple[int, int, tuple[str, ...]], ...]


def say(text: str, language: Language) -> Spoken:
    """Let the language's narrator say a text, and find out when each of its concepts is heard.

    espeak-ng reports short words together with a neighbour ("of the", "qu'un"): a stretch is as many reported words as
    it takes for expressions and reports to end at the same place.
    """
    samples, events = synthesise(text, NARRATORS[language])
    first, last = audible_span(samples)
    spoken = teacher.spoken_words(text)
    starts = {character: round(at_s * NATIVE_RATE_HZ) for character, _, at_s in events}
    pieces: list[tuple[int, list[str]]] = []
    for begin, _, meant in teacher.matches([word for _, word in spoken], language):
        at = starts.get(spoken[begin][0])
        if at is None and pieces:
            pieces[-1][1].extend(meant)
        else:
            pieces.append((max(first, at or 0), list(meant)))
    ends = [at for at, _ in pieces[1:]] + [last]
    stretches = [
        (begin - first, _audible_end(samples, begin, end) - first, tuple(meant))
        for (begin, meant), end in zip(pieces, ends, strict=True)
    ]
    words = tuple(max(0, at - first) for at in sorted(starts.values()))
    return Spoken(text, samples[first:last], words, tuple(piece for piece in stretches if piece[1] > piece[0]))


def _audible_end(samples: npt.NDArray[np.float32], begin: int, end: int) -> int:
    loud = np.flatnonzero(np.abs(samples[begin:end]) > AUDIBLE)
    return begin + int(loud[-1]) + 1 if len(loud) else begin


# A recording: sentences laid out in time, noise, coding


@dataclass(frozen=True, eq=False)
class Placed:
    """A spoken sentence and the sample of its recording where it begins, both at 22 050 Hz."""

    spoken: Spoken
    start: int

    @property
    def end(self) -> int:
        """One past its last sample."""
        return self.start + len(self.spoken.samples)


def lay_out(sentences: Sequence[Spoken], chance: random.Random) -> tuple[npt.NDArray[np.float32], list[Placed]]:
    """Put sentences one after the other with pauses of 0.3 to 1.2 s, at a level of the recording's own."""
    level = 10 ** (chance.uniform(-9, 1) / 20)
    parts: list[npt.NDArray[np.float32]] = []
    placed, at = [], 0
    for spoken in sentences:
        pause = _silence(chance.uniform(0.3, 1.2))
        louder = np.float32(level * 10 ** (chance.uniform(-1.5, 1.5) / 20))
        parts += [pause, louder * spoken.samples]
        placed.append(Placed(spoken, at + len(pause)))
        at = placed[-1].end
    return np.concatenate([*parts, _silence(0.5)]), placed


def _silence(duration_s: float) -> npt.NDArray[np.float32]:
    return np.zeros(round(duration_s * NATIVE_RATE_HZ), np.float32)


def take_breath(spoken: Spoken, chance: random.Random) -> Spoken:
    """Lengthen some of the pauses inside a sentence, and make a few where there are none."""
    parts: list[npt.NDArray[np.float32]] = []
    stretches, words, moved, done = [], list(spoken.words), 0, 0
    for (begin, end, meant), following in zip(spoken.stretches, [*spoken.stretches[1:], None], strict=True):
        stretches.append((begin + moved, end + moved, meant))
        if following is None:
            break
        paused = following[0] - end > 0.04 * NATIVE_RATE_HZ
        if chance.random() < (0.5 if paused else 0.04):
            cut = following[0]
            pause = _silence(chance.uniform(0.05, 0.5))
            parts += [spoken.samples[done:cut], pause]
            words = [word + len(pause) if word >= cut + moved else word for word in words]
            moved, done = moved + len(pause), cut
    parts.append(spoken.samples[done:])
    return Spoken(spoken.text, np.concatenate(parts), tuple(words), tuple(stretches))


def record(samples: npt.NDArray[np.float32], chance: random.Random, kbit: int | None) -> npt.NDArray[np.float32]:
    """What a listener gets of it: noise near -60 dBFS, MP3 at `kbit` kbit/s (None: as it is), at 16 kHz.

    Args:
        samples: float32 (n,) at 22 050 Hz.
        chance: draws the noise.
        kbit: bit rate of the MP3.

    Returns:
        float32 (n * 16000 / 22050,).
    """
    import soxr

    noise = np.random.Generator(np.random.PCG64(chance.getrandbits(64))).standard_normal(len(samples), np.float32)
    noisy = samples + np.float32(10 ** (chance.uniform(-66, -56) / 20)) * noise
    heard = noisy if kbit is None else _through_mp3(noisy, kbit)
    resampled: npt.NDArray[np.float32] = soxr.resample(heard, NATIVE_RATE_HZ, SAMPLE_RATE_HZ, quality="HQ")
    return resampled


def _through_mp3(samples: npt.NDArray[np.float32], kbit: int) -> npt.NDArray[np.float32]:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as written:
        stream = written.add_stream("libmp3lame", rate=NATIVE_RATE_HZ, layout="mono", format="s16p")
        stream.bit_rate = 1000 * kbit
        whole = np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16p", layout="mono")
        frame.rate = NATIVE_RATE_HZ
        for packet in (*stream.encode(frame), *stream.encode(None)):
            written.mux(packet)
    file.seek(0)
    with av.open(file) as read:
        # LAME notes its own delay in the file and the decoder takes it off: what comes out is aligned (measured: 0).
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in read.decode(audio=0)])
    return decoded.astype(np.float32)


# What is said


def unseen_sentences(seed: str, count: int, forbidden: Iterable[str]) -> list[Sentence]:
    """Sentences of the miniature world, no two alike, of 3 to 24 words, whose English text is not forbidden."""
    told = set(forbidden)
    tales = (Story(f"{seed}-{number}") for number in itertools.count())
    sentences: list[Sentence] = []
    while len(sentences) < count:
        tale = next(tales)
        for sentence in (tale.sentence() for _ in range(_SENTENCES_A_TALE)):
            text = realise(sentence, "eng")
            if text not in told and _SHORTEST_WORDS <= len(text.split()) <= _LONGEST_WORDS:
                told.add(text)
                sentences.append(sentence)
    return sentences[:count]


def training_recordings(
    sentences: Sequence[Sentence], language: Language, narration: Narration, progress: Progress = silent
) -> Iterator[TrainingRecording]:
    """Narrate sentences, strange ones among them, a dozen to a recording."""
    chance = random.Random(f"{narration.seed}-{language}")
    texts = [_with_a_stranger(realise(sentence, language), language, chance) for sentence in sentences]
    texts += [strange_sentence(language, chance) for _ in range(round(narration.strange_share * len(texts)))]
    chance.shuffle(texts)
    for start in range(0, len(texts), _SENTENCES_A_RECORDING):
        part = texts[start : start + _SENTENCES_A_RECORDING]
        samples, placed = lay_out([take_breath(say(text, language), chance) for text in part], chance)
        kbit = chance.choice(_MP3_KBIT) if chance.random() < narration.coded_share else None
        yield TrainingRecording(record(samples, chance, kbit), tuple(_heard(placed)))
        progress(min(start + _SENTENCES_A_RECORDING, len(texts)), len(texts))


def _with_a_stranger(text: str, language: Language, chance: random.Random) -> str:
    """Put an unknown word somewhere into one sentence of ten."""
    if chance.random() >= 0.1:
        return text
    words = text.split(" ")
    words.insert(chance.randint(1, len(words) - 1), strange_word(language, chance))
    return " ".join(words)


@cache
def meaning_numbers() -> dict[str, int]:
    """The number of each concept; unknown words (`?`) have the last."""
    return {name: number for number, name in enumerate((*teacher.concept_names(), "?"))}


def _heard(placed: Sequence[Placed]) -> Iterator[Heard]:
    numbers = meaning_numbers()
    for sentence in placed:
        for begin, end, meant in sentence.spoken.stretches:
            yield Heard(
                at_16_khz(sentence.start + begin),
                at_16_khz(sentence.start + end),
                tuple(numbers["?" if name[0] == "?" else name] for name in meant),
            )


def at_16_khz(sample: int) -> int:
    """The sample at 16 kHz nearest to one at 22 050 Hz."""
    return round(sample * SAMPLE_RATE_HZ / NATIVE_RATE_HZ)


# The recipe


class DemoRecipe:
    """Trains and examines the demo's encoder; a `speech_mining.training.recipes.Recipe`."""

    def train(self, out: Path, *, seed: int, sentences: int | None, stages: Stages = quietly) -> None:
        """Narrate, train one network a language, write the student's file."""
        narration = Narration(seed=seed, sentences=sentences or Narration.sentences)
        config = TrainingConfig(seed=seed)
        told = unseen_sentences(f"training-{seed}", narration.sentences, {*library_texts(), *examination_texts()})
        networks: dict[str, dict[str, npt.NDArray[np.float32]]] = {
            language: self._network(told, language, narration, config, stages) for language in LANGUAGES
        }
        directions = [teacher.concept_directions(), teacher.UNKNOWN_WEIGHT * teacher.unknown_directions()]
        weights = StudentWeights(
            networks=networks,
            directions=np.concatenate(directions),
            bias=teacher.bias(),
            emphasis=teacher.EMPHASIS,
            meanings=teacher.concept_names(),
            trained={**asdict(narration), **asdict(config), "teacher": teacher.ConceptTeacher().version},
        )
        save_student(weights, out)

    def examine(self, weights: Path | None, *, sentences: int | None, stages: Stages = quietly) -> list[Figure]:
        """Examine a student's file on 600 sentences (or `sentences`) that no training hears."""
        from demo.examination import examine

        told = examination_sentences()[: sentences or None]
        return examine(Student.load(weights), told, progress=stages("examining")).figures()

    def _network(
        self,
        sentences: Sequence[Sentence],
        language: Language,
        narration: Narration,
        config: TrainingConfig,
        stages: Stages,
    ) -> dict[str, npt.NDArray[np.float32]]:
        recordings = training_recordings(sentences, language, narration, stages(f"{language} narrating"))
        framed = frame_recordings(recordings)
        meanings = len(meaning_numbers())
        with one_thread():
            network, _ = train_detector(framed, meanings, config, progress=stages(f"{language} training"))
            room = len(teacher.unknown_directions())
            return {**network, **unknown_room(network, framed, meaning_numbers()["?"], room)}


def examination_sentences() -> list[Sentence]:
    """The 600 sentences of the examination; none is in the library, and no training hears them, whatever its seed."""
    return unseen_sentences("examination", EXAMINED, library_texts())


def examination_texts() -> list[str]:
    """The English of `examination_sentences`."""
    return [realise(sentence, "eng") for sentence in examination_sentences()]


def library_texts() -> frozenset[str]:
    """The English of every sentence that the miniature library tells, in whichever language."""
    keys = {one.sentence for language in LANGUAGES for chapter in chapters(language) for one in chapter}
    return frozenset(realise(sentence, "eng") for sentence in keys)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: with more, sums are made in another order and the weights differ."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
