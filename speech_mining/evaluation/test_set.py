"""A test set's edge: manifests of recordings and files of sentences read, and embedded by the encoders given.

Which encoder is meant is the caller's choice; what is searched is `trials`. A recording or a text that has no vector is
left out with its whole row, so that every search is made over the same rows, and counted by its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from speech_mining.encoders.protocol import Embedded, Rejected, Sentence, SpeechEncoder, SpeechSpan, TextEncoder
from speech_mining.errors import AudioError, EncoderError, LakeError
from speech_mining.evaluation.hard_negatives import hard_negatives
from speech_mining.evaluation.trials import AUDIO, TARGET_AUDIO, TRANSCRIPTIONS, TRANSLATIONS, Column, Distractors
from speech_mining.evaluation.wording import normalised
from speech_mining.progress import Progress, silent
from speech_mining.records import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import polars as pl

SpeechEncoders: TypeAlias = Callable[[str], SpeechEncoder]
"""The encoder of a language, ISO 639-3."""

_SAMPLES_AT_ONCE = 600 * SAMPLE_RATE_HZ  # ten minutes, 38 MB: clips of a few seconds share a batch


@dataclass(frozen=True)
class Clip:
    """A recording, or a span of one."""

    path: Path
    language: str
    start_s: float = 0.0
    end_s: float | None = None
    """None: to the recording's end."""
    text: str | None = None
    """What is said in it."""
    place: str = ""
    """Where in the file the recording lies, as in `records.TRANSCRIBED`; empty: the file is the recording."""


@dataclass(frozen=True)
class TestSet:
    """What is said the same in row i of each.

    Raises:
        LakeError: they differ in rows, or there is no row.
    """

    __test__ = False  # for pytest, which collects what is so called

    clips: tuple[Clip, ...]
    translations: tuple[Sentence, ...] | None
    """None: not known."""
    target_clips: tuple[Clip, ...] | None = None
    distractors: tuple[Sentence, ...] = ()

    def __post_init__(self) -> None:
        sides = (self.clips, self.translations, self.target_clips)
        counts = [len(side) for side in sides if side is not None]
        if len(set(counts)) > 1 or not self.clips:
            raise LakeError(
                f"There are {' and '.join(map(str, counts))} rows of recordings, texts and translated recordings.",
                expected="the same number of each, at least one: row i is the translation of row i",
                cause="an empty line, or a header in a file that is not .tsv",
            )


def read_manifest(path: Path, language: str = "") -> tuple[Clip, ...]:
    """Read a TSV with a header: `path`, and optionally `start`, `end` (seconds), `language` (ISO 639-3), `text`.

    Args:
        path: the manifest; recordings are named from its folder.
        language: of the rows that name none.

    Raises:
        LakeError: not such a table; a row has no path or no language, or ends before it starts.
    """
    table = _table(path, "path")
    return tuple(_clip(row, number, path, language) for number, row in enumerate(table.iter_rows(named=True), 2))


def read_sentences(path: Path, language: str = "") -> tuple[Sentence, ...]:
    """Read one sentence a line, or a .tsv with a header: `text` and optionally `language` (ISO 639-3).

    Args:
        path: a text in UTF-8; only the name's ending tells the two apart.
        language: of the sentences that name none.

    Raises:
        LakeError: not such a file, or a sentence has no language.
    """
    if path.suffix == ".tsv":
        rows = [(row["text"], row.get("language")) for row in _table(path, "text").iter_rows(named=True)]
    else:
        rows = [(line, None) for line in _lines(path)]
    return tuple(
        Sentence(text or "", _language(told, language, f"Line {number} of {path}"))
        for number, (text, told) in enumerate(rows, 2 if path.suffix == ".tsv" else 1)
    )


@dataclass(frozen=True, eq=False)
class EmbeddedTestSet:
    """A test set in vectors: what `speech_mining.evaluation.trials.evaluate` takes."""

    columns: Mapping[str, Column]
    distractors: Mapping[str, Distractors]
    rows: int
    """Rows given."""
    rejected: Mapping[str, int]
    """Items without a vector, by column and reason: `audio: silent`."""


def embed_test_set(
    test_set: TestSet,
    speech: SpeechEncoders,
    text: TextEncoder,
    *,
    negatives_each: int = 0,
    seed: int = 0,
    progress: Progress = silent,
) -> EmbeddedTestSet:
    """Embed every side; rows that lack a vector on one of them are left out and counted.

    Texts are normalised before they are embedded (`speech_mining.evaluation.wording.normalised`). Transcriptions are
    searched where every recording has a text.

    Args:
        test_set: what to embed.
        speech: chooses the encoder of a language's recordings.
        text: embeds transcriptions, translations, distractors and hard negatives.
        negatives_each: hard negatives of each kind for each text; 0 for none.
        seed: of the hard negatives.
        progress: told the recordings embedded.

    Raises:
        EncoderError: an encoder does not know a language, or not one row has all its vectors.
    """
    sides = _sides(test_set)
    clips = {AUDIO: test_set.clips}
    if test_set.target_clips is not None:
        clips[TARGET_AUDIO] = test_set.target_clips
    embedded, total = {}, sum(map(len, clips.values()))
    for number, (name, some) in enumerate(clips.items()):
        embedded[name] = embed_clips(some, speech, _after(number * len(some), total, progress))
    embedded |= {name: embed_sentences(some, text) for name, some in sides.items()}
    kept = _rows_kept(embedded, len(test_set.clips))
    columns = {name: _speech_column(clips[name], embedded[name], kept) for name in clips}
    columns |= {
        name: _text_column(some, embedded[name], kept, text, (negatives_each, seed)) for name, some in sides.items()
    }
    others = embed_sentences(test_set.distractors, text)
    return EmbeddedTestSet(
        columns,
        _by_language(test_set.distractors, others),
        len(test_set.clips),
        _counts({**embedded, "distractors": others}),
    )


def _after(before: int, total: int, progress: Progress) -> Progress:
    return lambda done, _: progress(before + done, total)


def embed_clips(clips: Sequence[Clip], speech: SpeechEncoders, progress: Progress = silent) -> Embedded:
    """Embed recordings; each file is decoded once, however many clips it holds, in order of first appearance."""
    vectors: dict[int, Any] = {}
    rejected: list[Rejected] = []
    done = 0
    for batch in _decoded(clips, rejected):
        for language in sorted({span.language for span in batch.values()}):
            items = [item for item, span in batch.items() if span.language == language]
            encoder = _knowing(speech(language), language)
            _collect(encoder.embed([batch[item] for item in items]), items, vectors, rejected)
        done += len(batch)
        progress(done + sum(one.item not in batch for one in rejected), len(clips))
    return _embedded(vectors, rejected)


def embed_sentences(sentences: Sequence[Sentence], text: TextEncoder) -> Embedded:
    """Embed sentences, normalised; one that is empty then is rejected."""
    for language in sorted({sentence.language for sentence in sentences}):
        _knowing(text, language)
    plain = [replace(sentence, text=normalised(sentence.text)) for sentence in sentences]
    items = [item for item, sentence in enumerate(plain) if sentence.text]
    vectors: dict[int, Any] = {}
    rejected = [Rejected(item, "no_content") for item, sentence in enumerate(plain) if not sentence.text]
    if items:
        _collect(text.embed([plain[item] for item in items]), items, vectors, rejected)
    return _embedded(vectors, rejected)


# Files


def _table(path: Path, needed: str) -> pl.DataFrame:
    import polars as pl

    try:
        # Sentences begin with quotes and hold one: nothing is quoted. All columns are strings until they are looked at.
        table = pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LakeError(
            f"{path} cannot be read as a table: {error}.".replace("\n", " "), expected="tab-separated, with a header"
        ) from error
    if needed not in table.columns:
        raise LakeError(
            f"{path} has the columns {', '.join(table.columns)}.",
            expected=f"a column {needed!r}",
            cause="its first line is no header",
        )
    return table


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LakeError(f"{path} cannot be read: {error}.", expected="a text in UTF-8") from error


def _clip(row: Mapping[str, str | None], number: int, manifest: Path, language: str) -> Clip:
    where = f"Line {number} of {manifest}"
    start_s, end_s = _seconds(row.get("start"), where), _seconds(row.get("end"), where)
    if not row["path"] or (end_s is not None and end_s <= (start_s or 0.0)):
        raise LakeError(
            f"{where} has the path {row['path']!r} from {row.get('start')} to {row.get('end')} s.",
            expected="a path, and a start before the end",
        )
    told = _language(row.get("language"), language, where)
    return Clip(manifest.parent / row["path"], told, start_s or 0.0, end_s, row.get("text"))


def _seconds(told: str | None, where: str) -> float | None:
    if not told:
        return None
    try:
        seconds = float(told)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise LakeError(
            f"{where} has the time {told!r}.", expected="seconds from the recording's beginning, or nothing"
        )
    return seconds


def _language(told: str | None, otherwise: str, where: str) -> str:
    language = told or otherwise
    if not language:
        raise LakeError(
            f"{where} names no language.",
            expected="an ISO 639-3 code such as deu",
            fix="add a column `language`, or name one language for the whole file",
        )
    return language


# Embedding


def _sides(test_set: TestSet) -> dict[str, Sequence[Sentence]]:
    """The text columns there are."""
    sides: dict[str, Sequence[Sentence]] = {}
    if test_set.translations is not None:
        sides[TRANSLATIONS] = test_set.translations
    if all(clip.text is not None for clip in test_set.clips):
        sides[TRANSCRIPTIONS] = [Sentence(clip.text or "", clip.language) for clip in test_set.clips]
    return sides


def _decoded(clips: Sequence[Clip], rejected: list[Rejected]) -> Iterator[dict[int, SpeechSpan]]:
    """Spans by their clip's number, some ten minutes of recordings at a time; what cannot be read is rejected."""
    from speech_mining.transcribed.clips import ClipReader

    of_recording: dict[tuple[Path, str], list[int]] = {}
    for item, clip in enumerate(clips):
        of_recording.setdefault((clip.path, clip.place), []).append(item)
    batch: dict[int, SpeechSpan] = {}
    samples, reader = 0, ClipReader()
    for (path, place), items in of_recording.items():
        try:
            waveform = reader.read(
                {"clip": path.name, "file": str(path), "place": place, "start_s": None, "end_s": None}
            )
        except AudioError as error:
            rejected += [Rejected(item, error.reason, str(error)) for item in items]  # type: ignore[arg-type]
            continue
        for item in items:
            _place(item, clips[item], waveform, batch, rejected)
        samples += len(waveform)
        if samples >= _SAMPLES_AT_ONCE:
            yield batch
            batch, samples = {}, 0
    if batch:
        yield batch


def _place(
    item: int,
    clip: Clip,
    waveform: npt.NDArray[np.float32],
    batch: dict[int, SpeechSpan],
    rejected: list[Rejected],
) -> None:
    start = round(clip.start_s * SAMPLE_RATE_HZ)
    end = len(waveform) if clip.end_s is None else round(clip.end_s * SAMPLE_RATE_HZ)
    # Times are often rounded to hundredths: an end up to that far behind the recording's is its end.
    if start >= end or end > len(waveform) + SAMPLE_RATE_HZ // 100:
        rejected.append(Rejected(item, "out_of_range", f"{clip.path} lasts {len(waveform) / SAMPLE_RATE_HZ:.2f} s"))
    else:
        batch[item] = SpeechSpan(waveform, start, min(end, len(waveform)), clip.language)


def _knowing(encoder: Any, language: str) -> Any:
    # A text encoder that names no language at all takes any.
    if encoder.languages and language not in encoder.languages:
        raise EncoderError(
            f"The encoder {encoder.name} does not know the language {language!r}.",
            expected=f"one of {', '.join(sorted(encoder.languages))}",
            fix="choose another encoder, or correct the test set's language",
        )
    return encoder


def _collect(embedded: Embedded, items: Sequence[int], vectors: dict[int, Any], rejected: list[Rejected]) -> None:
    vectors.update({items[place]: row for place, row in zip(embedded.kept, embedded.vectors, strict=True)})
    rejected += [Rejected(items[one.item], one.reason, one.detail) for one in embedded.rejected]


def _embedded(vectors: Mapping[int, Any], rejected: Sequence[Rejected]) -> Embedded:
    kept = sorted(vectors)
    stacked = np.stack([vectors[item] for item in kept]) if kept else np.zeros((0, 0), np.float16)
    return Embedded(stacked, np.array(kept, np.int64), tuple(sorted(rejected, key=lambda one: one.item)))


def _rows_kept(embedded: Mapping[str, Embedded], rows: int) -> npt.NDArray[np.int64]:
    kept = np.arange(rows)
    for side in embedded.values():
        kept = np.intersect1d(kept, side.kept)
    if not len(kept):
        told = ", ".join(f"{name} {count}" for name, count in _counts(embedded).items())
        first = next(one.detail for side in embedded.values() for one in side.rejected)
        raise EncoderError(
            f"Of {rows} rows none has all its vectors ({told}). {first}".rstrip(),
            expected="recordings and texts that the encoders accept",
            cause="the paths are wrong, or the encoder is another corpus's",
        )
    return kept


def _vectors(embedded: Embedded, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
    chosen: npt.NDArray[np.float16] = embedded.vectors[np.searchsorted(embedded.kept, rows)]
    return chosen


def _speech_column(clips: Sequence[Clip], embedded: Embedded, kept: npt.NDArray[np.int64]) -> Column:
    return Column(_vectors(embedded, kept), tuple(clips[row].language for row in kept))


def _text_column(
    sentences: Sequence[Sentence],
    embedded: Embedded,
    kept: npt.NDArray[np.int64],
    text: TextEncoder,
    altered: tuple[int, int],
) -> Column:
    some = [sentences[row] for row in kept]
    negatives, rows = _negatives(some, text, *altered)
    return Column(
        _vectors(embedded, kept),
        tuple(sentence.language for sentence in some),
        tuple(sentence.text for sentence in some),
        negatives,
        rows,
    )


def _negatives(
    sentences: Sequence[Sentence], text: TextEncoder, each: int, seed: int
) -> tuple[npt.NDArray[np.float16] | None, npt.NDArray[np.int64]]:
    """Hard negatives of the sentences, a language at a time, and the row that each alters; None where none is made."""
    made: list[tuple[int, Sentence]] = []
    for language in sorted({sentence.language for sentence in sentences}) if each else ():
        rows = [row for row, sentence in enumerate(sentences) if sentence.language == language]
        negatives = hard_negatives([sentences[row].text for row in rows], each, seed)
        made += [(rows[one.row], Sentence(one.text, language)) for one in negatives]
    embedded = embed_sentences([sentence for _, sentence in made], text)
    rows_of = np.array([made[item][0] for item in embedded.kept], np.int64)
    return (embedded.vectors if len(rows_of) else None), rows_of


def _by_language(sentences: Sequence[Sentence], embedded: Embedded) -> dict[str, Distractors]:
    languages = np.array([sentences[item].language for item in embedded.kept])
    found = {}
    for language in sorted(set(languages.tolist())):
        places = np.flatnonzero(languages == language)
        texts = tuple(sentences[embedded.kept[place]].text for place in places)
        found[language] = Distractors(embedded.vectors[places], texts)
    return found


def _counts(embedded: Mapping[str, Embedded]) -> dict[str, int]:
    counted = Counter(f"{name}: {one.reason}" for name, side in embedded.items() for one in side.rejected)
    return dict(sorted(counted.items()))
