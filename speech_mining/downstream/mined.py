"""Mined pairs as a model hears them: chosen at each threshold as a corpus would be, their clips cut out once.

What belongs here is the way from the lake to examples. How pairs are chosen is `mining.selection`, how clips are cut
`corpora.cutting`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from speech_mining.corpora.cutting import Clips, Recording, Span, cut
from speech_mining.corpora.written import written
from speech_mining.downstream.examples import EXAMPLES, completed
from speech_mining.errors import LakeError, SettingsError
from speech_mining.filters.limits import FilterLimits, with_scores, within_limits
from speech_mining.filters.pair_scores import read_scores
from speech_mining.lake import Lake
from speech_mining.mining.kinds import Kind
from speech_mining.mining.selection import select_non_overlapping
from speech_mining.progress import Progress, silent
from speech_mining.records import RECORDINGS, SAMPLE_RATE_HZ, item_column
from speech_mining.transcribed.places import range_place

SIDES = ("source", "target")
_SPAN = ("audiobook", "section", "start_sample", "end_sample")


@dataclass(frozen=True)
class Choice:
    """How pairs are chosen: as the corpus of the settings is, but for the threshold.

    Args:
        thresholds: each a corpus of its own.
        selection: "greedy" or "optimal".
        limits: of the filters.
        scores: columns of the filters that are on; none: no filter is.
    """

    thresholds: tuple[float, ...]
    selection: str = "greedy"
    limits: FilterLimits = FilterLimits()  # noqa: RUF009 - frozen
    scores: tuple[str, ...] = ()


def chosen_pairs(lake: Lake, kind: Kind, pair: str, choice: Choice) -> dict[float, pl.DataFrame]:
    """Threshold → the pairs that a corpus from there would hold, columns `kind.pairs`.

    Raises:
        SettingsError: a threshold below the floor that pairs are kept from.
        LakeError: the pairs are not there.
    """
    partition = lake.partition(kind.layer("pairs"), pair)
    floor, lowest = partition.read_json("scoring.json")["threshold"], min(choice.thresholds)
    if lowest < floor:
        raise SettingsError(
            f"Pairs from {lowest} were asked of pairs that are kept from {floor}.",
            expected=f"downstream.thresholds of at least {floor}",
            fix=f"materialize {kind.layer('pairs')} with a lower floor, or raise the thresholds",
        )
    pairs = partition.read_table("pairs.parquet", kind.pairs).filter(pl.col("score") >= lowest)
    if choice.scores:
        scored = with_scores(pairs, read_scores(lake, pair, choice.scores, kind))
        pairs = within_limits(scored, choice.limits).kept.select(pairs.columns)
    return {
        threshold: select_non_overlapping(
            pairs.filter(pl.col("score") >= threshold), choice.selection, floor=threshold
        ).frame
        for threshold in choice.thresholds
    }


def mined_examples(
    lake: Lake, kind: Kind, pair: str, chosen: Mapping[float, pl.DataFrame], store: Path, progress: Progress = silent
) -> dict[float, pl.DataFrame]:
    """Threshold → its pairs as examples; a clip that several thresholds hold is cut once.

    Args:
        lake: with the recordings and the sentences.
        kind: speech with text, or speech with speech.
        pair: such as deu-eng.
        chosen: as `chosen_pairs` gives them.
        store: a folder of clips, this module's own.
        progress: recordings cut.
    """
    together = pl.concat(chosen.values()).unique(
        [item_column(list(kind.pairs), side) for side in SIDES], keep="first", maintain_order=True
    )
    told = together.with_columns(_names(together), source_words=pl.lit(None, pl.String()))
    if kind.target == "text":
        language = pair.partition("-")[2]
        places = {"shard": pl.col("target_shard"), "shard_row": pl.col("target_shard_row")}
        sentences = written(lake, language, together.select(**places)).select(
            pl.col("shard").alias("target_shard"),
            pl.col("shard_row").alias("target_shard_row"),
            pl.col("text").alias("target_words"),
        )
        told = told.join(sentences, on=["target_shard", "target_shard_row"], how="left", maintain_order="left")
    examples = cut_examples(lake, kind, pair, told, store, progress)
    wanted = {threshold: frame.select(_names(frame)) for threshold, frame in chosen.items()}
    return {threshold: examples.join(names, on="example", how="semi") for threshold, names in wanted.items()}


def _names(pairs: pl.DataFrame) -> pl.Expr:
    """The name of each pair: both items, in hexadecimal, as exports name them."""
    columns = [item_column(pairs.columns, side) for side in SIDES]
    hexed = [pl.col(name).map_elements(lambda item: f"{item:016x}", return_dtype=pl.String()) for name in columns]
    return pl.concat_str(hexed, separator="-").alias("example")


def cut_examples(
    lake: Lake, kind: Kind, pair: str, told: pl.DataFrame, store: Path, progress: Progress = silent
) -> pl.DataFrame:
    """Cut the spoken sides of what is told: `examples.EXAMPLES`.

    Args:
        lake: with `raw_audio` of the languages.
        kind: which sides are speech.
        pair: their languages.
        told: `example`, and of each spoken side its span (`source_audiobook`, `_section`, `_start_sample`,
            `_end_sample`); words and score where they are known.
        store: where the clips are kept.
        progress: recordings cut.

    Raises:
        LakeError: a recording is not in the lake, or ends before a span does.
        AudioError: a recording cannot be decoded.
    """
    languages = dict(zip(SIDES, pair.split("-"), strict=True))
    held = {side: _recordings(lake, languages[side], told, side) for side in kind.spoken}
    clips = cut(_wanted(told, held), store, progress=progress)
    sounds = {side: _sounds(told, held[side], clips, side) for side in kind.spoken}
    columns = {name: sounds[side][name] for side in kind.spoken for name in sounds[side].columns}
    found = told.select(name for name in told.columns if name in EXAMPLES).with_columns(
        [pl.Series(name, values) for name, values in columns.items()]
    )
    return completed(found, f"mined pairs of {pair}")


_Held = Mapping[tuple[str, int], tuple[str, Path]]
"""(audiobook, section) → the hash and the file of its recording."""


def _recordings(lake: Lake, language: str, told: pl.DataFrame, side: str) -> dict[tuple[str, int], tuple[str, Path]]:
    found: dict[tuple[str, int], tuple[str, Path]] = {}
    for audiobook in told[f"{side}_audiobook"].unique().sort():
        partition = lake.partition("raw_audio", language, audiobook)
        for row in partition.read_table("recordings.parquet", RECORDINGS).iter_rows(named=True):
            found[audiobook, row["section"]] = row["sha256"], partition.local_path(row["file"])
    return found


def _spans(told: pl.DataFrame, side: str) -> list[tuple[tuple[str, int], Span]]:
    columns = told.select(f"{side}_{name}" for name in _SPAN)
    return [((book, section), (start, end)) for book, section, start, end in columns.iter_rows()]


def _wanted(told: pl.DataFrame, held: Mapping[str, _Held]) -> list[Recording]:
    spans: dict[str, set[Span]] = {}
    files: dict[str, tuple[str, Path]] = {}
    for side, recordings in held.items():
        for (book, section), span in _spans(told, side):
            sha256, path = _recording(recordings, book, section)
            spans.setdefault(sha256, set()).add(span)
            files[sha256] = f"{book}, section {section}", path
    return [Recording(*files[sha256], sha256, tuple(sorted(spans[sha256]))) for sha256 in sorted(spans)]


def _recording(recordings: _Held, book: str, section: int) -> tuple[str, Path]:
    if (book, section) not in recordings:
        raise LakeError(
            f"Section {section} of audiobook {book} is not in raw_audio.",
            expected="the recordings that the pairs were mined from",
            cause="the audiobook was fetched anew since, and has fewer recordings",
            fix="materialize its segments, and what follows from them, again",
        )
    return recordings[book, section]


def _sounds(told: pl.DataFrame, recordings: _Held, clips: Clips, side: str) -> pl.DataFrame:
    rows = []
    for (book, section), span in _spans(told, side):
        sha256 = recordings[book, section][0]
        clip = clips.of(sha256, *span)
        place = range_place(clip.offset, clip.length)
        rows.append((str(clip.path), place, None, None, (span[1] - span[0]) / SAMPLE_RATE_HZ, sha256))
    names = ("file", "place", "start_s", "end_s", "duration_s", "recording")
    schema = {f"{side}_{name}": EXAMPLES[f"{side}_{name}"] for name in names}
    return pl.DataFrame(rows, schema=schema, orient="row")


def deal_by_recording(examples: pl.DataFrame, places: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Deal examples in turn, whole recordings of the source at a time, in the order of their hashes.

    Args:
        examples: `examples.EXAMPLES`.
        places: names, such as test, base, pool; one may stand several times, for a larger share.
    """
    recordings = sorted(examples["source_recording"].unique())
    dealt = {one: places[turn % len(places)] for turn, one in enumerate(recordings)}
    named = examples.with_columns(pl.col("source_recording").replace_strict(dealt).alias("dealt"))
    return {place: named.filter(dealt=place).drop("dealt") for place in dict.fromkeys(places)}
