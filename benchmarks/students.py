"""A neural student learns the miniature world from sentence vectors alone, on the CPU: does it find what is new to it?

Narrators say sentences of the miniature world; the teacher is the demo's (`demo.world.concepts`). A student is told
one vector a sentence and nothing else: no word, no time. Half of the sentences are short (at most 7 words). It is
examined on sentences of the demo's examination, of the usual length, that no training heard: speech is searched among
their texts, as in SAMU-XLSR's tables.

1. the main run: R@1 before (the same network, not trained) and after, with the processor's time that training took.
2. `--table`: what loss, pooling, schedule, masks and re-balancing bring, in shorter runs of a smaller network (`bos`
   with one transformer layer) on sentences of at most 6 words, in the shape of SAMU-XLSR's tables X to XVI.

    python -m benchmarks.students [--updates 3000] [--languages eng] [--threads 1] [--table] [--table-updates 1200]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from demo.recipe import examination_sentences, examination_texts, library_texts, record, say, unseen_sentences
from demo.world.concepts import ConceptTeacher
from demo.world.grammar import Sentence, realise
from demo.world.lexicon import LANGUAGES, Language
from demo.world.narrators import NATIVE_RATE_HZ
from speech_mining.benchmark.machine import describe_machine
from speech_mining.encoders import protocol
from speech_mining.encoders.neural_student import NeuralStudent
from speech_mining.encoders.protocol import SpeechSpan
from speech_mining.evaluation.search import similarity_search
from speech_mining.evaluation.wording import normalised, word_errors
from speech_mining.records import SAMPLE_RATE_HZ
from speech_mining.training.configuration import StudentConfig
from speech_mining.training.distillation import TrainedStudent, train_student
from speech_mining.training.examples import Examples

SHORT_WORDS, FEW_WORDS = 7, 6
DEV = 100
LAYERED = {"width": 128, "layers": 1, "heads": 4}
"""What `bos` needs: attention between frames."""
MAIN = StudentConfig(
    architecture="convolutions",
    size={"width": 192},
    pooling="mean",
    activation="none",
    loss="contrastive",
    temperature=0.05,
    peak_rate=2e-3,
    projection_only_updates=0,
    max_batch_seconds=60.0,
    mask_time_probability=0.0,
    mask_feature_probability=0.0,
)
TABLE = replace(
    MAIN,
    size={"width": 128},
    pooling="attention",
    activation="tanh",
    loss="cosine",
    peak_rate=4e-3,
    max_batch_seconds=30.0,
)


@dataclass(frozen=True, eq=False)
class Clip:
    """A sentence as its narrator says it."""

    language: Language
    text: str
    samples: npt.NDArray[np.int16]
    """16 kHz."""


@dataclass(frozen=True)
class Figures:
    """Retrieval on sentences that were never heard, in percent, as SAMU-XLSR reports it."""

    recall_5: float
    recall_1: float
    word_errors: float


# Speech


def short_sentences(count: int, seed: str) -> list[Sentence]:
    """Sentences of at most `FEW_WORDS` words that are in no examination and not in the library."""
    drawn = unseen_sentences(seed, 8 * count, {*library_texts(), *examination_texts()})
    return [one for one in drawn if len(realise(one, "eng").split()) <= FEW_WORDS][:count]


def training_sentences(count: int) -> list[Sentence]:
    """Sentences that no examination asks for: half of them short, the others as they come."""
    drawn = unseen_sentences("students", 4 * count, {*library_texts(), *examination_texts()})
    short = [one for one in drawn if len(realise(one, "eng").split()) <= SHORT_WORDS][: count // 2]
    chosen = set(short)
    return short + [one for one in drawn if one not in chosen][: count - len(short)]


def narrate(sentences: Sequence[Sentence], language: Language, seed: str) -> list[Clip]:
    """Say sentences, each a clip: at its own level, with a little silence, noise, and MP3 for four of ten."""
    chance = random.Random(f"{seed}-{language}")
    clips = []
    for sentence in sentences:
        text = realise(sentence, language)
        level = np.float32(10 ** (chance.uniform(-9, 1) / 20))
        quiet = [np.zeros(round(chance.uniform(0.05, 0.3) * NATIVE_RATE_HZ), np.float32) for _ in range(2)]
        spoken = np.concatenate([quiet[0], level * say(text, language).samples, quiet[1]])
        kbit = chance.choice((32, 40, 48)) if chance.random() < 0.4 else None
        heard = record(spoken, chance, kbit)
        clips.append(Clip(language, text, np.clip(np.rint(heard * 32767), -32768, 32767).astype(np.int16)))
    return clips


def examples(clips: Sequence[Clip]) -> Examples:
    """Clips and the teacher's vectors of their texts."""
    taught = ConceptTeacher().embed([protocol.Sentence(clip.text, clip.language) for clip in clips])
    table = pl.DataFrame(
        {
            "clip": [str(row) for row in taught.kept],
            "language": [clips[row].language for row in taught.kept],
            "duration_s": [len(clips[row].samples) / SAMPLE_RATE_HZ for row in taught.kept],
        }
    )
    return Examples(
        table, taught.vectors, [(row,) for row in range(len(table))], lambda clip: _waveform(clips[int(clip)])
    )


def _waveform(clip: Clip) -> npt.NDArray[np.float32]:
    return clip.samples.astype(np.float32) / np.float32(32768)


# Training and examination


def trained(train: Sequence[Clip], dev: Sequence[Clip], config: StudentConfig, folder: Path) -> TrainedStudent:
    """Train a student in a folder of its own."""
    return train_student(examples(train), examples(dev), config, folder, tell=print)


def untrained(dev: Sequence[Clip], config: StudentConfig, folder: Path) -> Path:
    """The weights that training starts from, in a student's file."""
    still = replace(config, updates=1, peak_rate=1e-30, max_batch_seconds=5.0)
    return trained(dev[:4], dev, still, folder).weights


def examined(weights: Path, unseen: Sequence[Clip], languages: Iterable[str]) -> dict[str, Figures]:
    """Figures by language: its speech among the texts of its sentences."""
    student = NeuralStudent.load(weights, device="cpu")
    return {
        language: _figures(student, [clip for clip in unseen if clip.language == language]) for language in languages
    }


def _figures(student: NeuralStudent, clips: Sequence[Clip]) -> Figures:
    waveforms = [_waveform(clip) for clip in clips]
    heard = student.embed(
        [SpeechSpan(one, 0, len(one), clip.language) for one, clip in zip(waveforms, clips, strict=True)]
    )
    texts = [clips[row].text for row in heard.kept]
    told = ConceptTeacher().embed([protocol.Sentence(text, clips[0].language) for text in texts]).vectors
    found = similarity_search(heard.vectors, told, np.arange(len(texts)), margin="cosine", depth=5)
    errors, words = word_errors([normalised(text) for text in texts], [normalised(texts[row]) for row in found.best])
    recalls = [100 * float(found.at(k).mean()) for k in (5, 1)]
    return Figures(*recalls, 100 * float(errors.sum() / words.sum()))


def mean_figures(by_language: Mapping[str, Figures]) -> Figures:
    """The plain mean over languages."""
    rows = np.array([[one.recall_5, one.recall_1, one.word_errors] for one in by_language.values()])
    return Figures(*(float(value) for value in rows.mean(axis=0)))


# What is printed


def main_run(speech: Speech, config: StudentConfig, folder: Path) -> None:
    """Before and after, and what it took."""
    before = mean_figures(examined(untrained(speech.dev, config, folder / "start"), speech.unseen, speech.languages))
    wall, used = time.perf_counter(), time.process_time()
    student = trained(speech.train, speech.dev, config, folder / "main")
    wall, used = time.perf_counter() - wall, time.process_time() - used
    pl.Config(tbl_rows=-1)
    print(student.curves.drop_nulls("dev_recall_at_1").select("update", "loss", "dev_loss", "dev_recall_at_1"))
    after = examined(student.weights, speech.unseen, speech.languages)
    count = len(speech.unseen) // len(speech.languages)
    print(f"chance {1 / count:.4f}, not trained {before.recall_1 / 100:.4f}, of {count} sentences")
    for language, figures in after.items():
        print(f"{language}: R@1 {figures.recall_1 / 100:.4f}, R@5 {figures.recall_5 / 100:.4f}")
    heard_h = student.curves["seconds_of_audio"][-1] / 3600
    told = f"{used / 60:.1f} minutes of the processor, {wall / 60:.1f} on the clock, {heard_h:.1f} hours heard"
    print(f"{config.updates} updates, best {student.best_update}: {told}")


def tables(speech: Speech, updates: int, folder: Path) -> None:
    """Every choice against the others, in the first language; one line a run, best last, as in SAMU-XLSR."""
    first = speech.only(speech.languages[0])
    config = replace(TABLE, updates=updates, validate_every=updates, checkpoint_every=updates)
    losses = [("L1", "l1"), ("L2", "l2"), ("Cos", "cosine"), ("Contr.", "contrastive")]
    poolings = [("BOS", "bos"), ("Max", "max"), ("Mean", "mean"), ("Att.", "attention")]
    choices: dict[str, dict[str, dict[str, Any]]] = {
        "X: loss and pooling": {
            f"{loss} {pooling}": {"loss": by, "pooling": of, "size": LAYERED if of == "bos" else TABLE.size}
            for loss, by in losses
            for pooling, of in poolings
        },
        "schedule": {
            "10-40-50": {},
            "0-100-0": {"phases": (0.0, 1.0, 0.0)},
            "10-0-90": {"phases": (0.1, 0.0, 0.9)},
            "10-40-50, projection first (5 %)": {"projection_only_updates": updates // 20},
            "10-40-50, masks": {"mask_time_probability": 0.05, "mask_time_length": 2, "mask_feature_probability": 0.05},
        },
    }
    for name, runs in choices.items():
        figures = {run: _run(first, config, changed, folder / f"{name}-{run}") for run, changed in runs.items()}
        print_table(name, figures)
    if len(speech.languages) > 1:
        smoothing_tables(speech.uneven(), config, folder)


def smoothing_tables(uneven: Speech, config: StudentConfig, folder: Path) -> None:
    """A language of many clips and one of few, smoothed more and more: both, and each alone."""
    alphas = ("1.00", "0.70", "0.20", "0.05")
    runs = {f"alpha {one}": _run(uneven, config, {"alpha": float(one)}, folder / f"alpha-{one}") for one in alphas}
    print_table("XI: smoothing, both languages", runs)
    for name, language in (("XII: low-resource", uneven.languages[-1]), ("XIII: high-resource", uneven.languages[0])):
        print_table(f"{name}, {language}", {run: {language: figures[language]} for run, figures in runs.items()})


def _run(speech: Speech, config: StudentConfig, changed: Mapping[str, Any], folder: Path) -> dict[str, Figures]:
    student = trained(speech.train, speech.dev, replace(config, **changed), folder)
    figures = examined(student.weights, speech.unseen, speech.languages)
    print(f"  {folder.name}: R@1 {mean_figures(figures).recall_1:.1f}", flush=True)
    return figures


def print_table(name: str, runs: Mapping[str, Mapping[str, Figures]]) -> None:
    """R@5, R@1 and WER in percent, the mean over languages; the lowest R@1 first."""
    rows = sorted(((mean_figures(figures), run) for run, figures in runs.items()), key=lambda row: row[0].recall_1)
    print(f"\n{name:34} R@5 [%]  R@1 [%]  WER [%]")
    for figures, run in rows:
        print(f"{run:34} {figures.recall_5:7.1f}  {figures.recall_1:7.1f}  {figures.word_errors:7.1f}", flush=True)


@dataclass(frozen=True, eq=False)
class Speech:
    """All that is said."""

    languages: tuple[Language, ...]
    train: list[Clip]
    dev: list[Clip]
    unseen: list[Clip]

    def only(self, language: Language) -> Speech:
        """What is said in one language."""
        said = (self.train, self.dev, self.unseen)
        return Speech((language,), *([clip for clip in clips if clip.language == language] for clips in said))

    def uneven(self) -> Speech:
        """The last language with a tenth of its training clips."""
        few = [clip for clip in self.train if clip.language == self.languages[-1]]
        others = [clip for clip in self.train if clip.language != self.languages[-1]]
        return replace(self, train=others + few[::10])


def make_speech(languages: Sequence[Language], sentences: int, unseen: int) -> Speech:
    """Narrate everything for the main run: about 35 clips a second of one core."""
    return _dealt(languages, training_sentences(sentences + DEV), examination_sentences()[:unseen])


def make_short_speech(languages: Sequence[Language], sentences: int, unseen: int) -> Speech:
    """Narrate short sentences for the tables: from fewer words a small network learns sooner."""
    told = short_sentences(sentences + DEV + unseen, "students in tables")
    return _dealt(languages, told[unseen:], told[:unseen])


def _dealt(languages: Sequence[Language], told: Sequence[Sentence], asked: Sequence[Sentence]) -> Speech:
    order = random.Random(0).sample(range(len(told)), len(told))
    said = {"train": [told[row] for row in order[DEV:]], "dev": [told[row] for row in order[:DEV]], "unseen": asked}
    made = {name: [clip for one in languages for clip in narrate(rows, one, name)] for name, rows in said.items()}
    return Speech(tuple(languages), **made)


def main() -> None:
    """Print the machine, the data and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--languages", default="eng", help="of the miniature world, with commas; the last is the rare one"
    )
    parser.add_argument("--sentences", type=int, help="to train on, a language")
    parser.add_argument("--unseen", type=int, help="to search")
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--table-updates", type=int, default=1200)
    given = parser.parse_args()
    languages = [language for one in given.languages.split(",") for language in LANGUAGES if language == one]
    print(describe_machine())
    make = make_short_speech if given.table else make_speech
    speech = make(
        languages, given.sentences or (1500 if given.table else 4000), given.unseen or (300 if given.table else 600)
    )
    hours = sum(len(clip.samples) for clip in speech.train) / SAMPLE_RATE_HZ / 3600
    print(f"{', '.join(languages)}: {len(speech.train)} training clips, {hours:.2f} hours; {len(speech.dev)} dev clips")
    with tempfile.TemporaryDirectory() as folder:
        if given.table:
            tables(speech, given.table_updates, Path(folder))
        else:
            every = max(1, given.updates // 10)
            config = replace(MAIN, updates=given.updates, threads=given.threads, validate_every=every)
            main_run(speech, config, Path(folder))


if __name__ == "__main__":
    main()
