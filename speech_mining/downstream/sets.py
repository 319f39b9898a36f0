"""Base and test sets out of transcribed speech: what people have translated, in whichever format it comes.

Which formats are read is `speech_mining.transcribed`. Speech with speech is found where a clip in one language says, in
its translation, what a clip of the other language says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from speech_mining.downstream.examples import completed
from speech_mining.errors import SettingsError
from speech_mining.text.sentence_keys import keys
from speech_mining.transcribed.clips import ClipReader
from speech_mining.transcribed.gathering import Wish, gather
from speech_mining.transcribed.measuring import THREADS

_SOUND = ("file", "place", "start_s", "end_s", "duration_s", "recording")


@dataclass(frozen=True, eq=False)
class ReadSets:
    """Clips of sets, and how many could not be used.

    Args:
        clips: `records.TRANSCRIBED` and `recording`.
        rejected: by reason, clips of train that another split holds too among them.
    """

    clips: pl.DataFrame
    rejected: Mapping[str, int]


def read_sets(addresses: Sequence[Path], languages: tuple[str, str], format: str = "auto") -> ReadSets:
    """Clips of sets, with the hash of the recording that each lies in.

    Args:
        addresses: folders of sets.
        languages: of the speech and of its translation, ISO 639-3.
        format: of the sets.

    Returns:
        the clips of the source's language; those of others are counted.
    """
    source, target = languages
    gathered = gather(addresses, Wish(format, source, target, dev_share=0.0))  # nothing here is chosen on dev
    clips = gathered.clips.filter(pl.col("language") == source)
    rejected = dict(gathered.rejections.group_by("reason").len().sort("reason").iter_rows())
    others = {"another_language": gathered.clips.height - clips.height}
    untranslated = {"no_translation": clips["translation"].null_count()}
    counts = {**rejected, **others, **untranslated}
    return ReadSets(clips.with_columns(_recordings(clips)), {why: count for why, count in counts.items() if count})


def written_examples(clips: pl.DataFrame, split: str, target: str) -> pl.DataFrame:
    """Speech and its written translation: `examples.EXAMPLES`.

    Args:
        clips: as `read_sets` gives them.
        split: train, dev or test.
        target: language of the translation, ISO 639-3.

    Raises:
        SettingsError: no clip of the split is translated into that language.
    """
    found = clips.filter(pl.col("split") == split, pl.col("translation_language") == target).drop_nulls("translation")
    if found.is_empty():
        raise SettingsError(
            f"Of {clips.height} clips none is in the split {split!r} and translated into {target}.",
            expected="speech with translations, such as CoVoST 2 or MuST-C",
            cause="the set has transcriptions alone, or its translations are into another language",
            fix=f"name a set with a split {split!r} and translations into {target} in downstream.sets",
        )
    return completed(
        found.select(
            pl.col("clip").alias("example"),
            *(pl.col(name).alias(f"source_{name}") for name in _SOUND),
            pl.col("transcription").alias("source_words"),
            pl.col("translation").alias("target_words"),
        ),
        f"the split {split}",
    )


def spoken_examples(source: pl.DataFrame, target: pl.DataFrame, split: str) -> pl.DataFrame:
    """Speech and speech that says the same: clips whose translation is what a clip of the other set says.

    Of several that say it the first of either side is taken, so that each clip is in one pair.

    Args:
        source: as `read_sets` gives them, translated.
        target: the same of the other language, transcribed.
        split: train, dev or test, of both.

    Raises:
        SettingsError: there is no such pair.
    """
    one, two = (clips.filter(pl.col("split") == split) for clips in (source, target))
    keyed = one.with_columns(keys(one["translation"])).filter(pl.col("key") != "").unique("key", keep="first")
    others = two.with_columns(keys(two["transcription"])).filter(pl.col("key") != "").unique("key", keep="first")
    both = keyed.sort("clip").join(others, on="key", suffix="_other", maintain_order="left")
    if both.is_empty():
        raise SettingsError(
            f"No clip of the split {split!r} says what a clip of the other language says.",
            expected="translations of one set that are transcriptions of the other",
            cause="two sets that were made apart",
            fix="name sets made of the same sentences in downstream.sets, data and target_data",
        )
    return completed(
        both.select(
            pl.format("{}={}", "clip", "clip_other").alias("example"),
            *(pl.col(name).alias(f"source_{name}") for name in _SOUND),
            pl.col("transcription").alias("source_words"),
            *(pl.col(f"{name}_other").alias(f"target_{name}") for name in _SOUND),
            pl.col("transcription_other").alias("target_words"),
        ),
        f"the split {split}",
    )


def _recordings(clips: pl.DataFrame) -> pl.Series:
    """SHA-256 of every clip's recording: of its file, or of the bytes or row that is its place."""
    places = list(clips.select("file", "place").unique(maintain_order=True).iter_rows())
    with ClipReader() as reader, ThreadPoolExecutor(THREADS) as threads:
        hashes = threads.map(lambda place: _hash(reader, *place), places)
        known = dict(zip(places, hashes, strict=True))
    pairs = clips.select("file", "place").iter_rows()
    return pl.Series("recording", [known[file, place] for file, place in pairs], dtype=pl.String())


def _hash(reader: ClipReader, file: str, place: str) -> str:
    return hashlib.sha256(reader.content(Path(file), place)).hexdigest()
