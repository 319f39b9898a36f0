"""The corpus as people take it home: one row a pair, its score first, and where each side may be heard.

What belongs here is the schema of a corpus and its manifest file. Which pairs are in it is in
`speech_mining.mining.selection`; other formats are other modules of this package.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import polars as pl

from speech_mining.atomic import replacing
from speech_mining.errors import LakeError, SettingsError
from speech_mining.records import PAIRS, SAMPLES_PER_MS, Schema, conform

VERSION = "1"

_OF_A_RECORDING = {
    "language": pl.String(),  # ISO 639-3
    "url": pl.String(),  # where the recording may be downloaded
    "title": pl.String(),
    "section_title": pl.String(),
    "readers": pl.String(),
    "licence": pl.String(),
}

# The order is that of the LibriVox S2S and SpeechMatrix manifests: the score, then the source's span, then the
# target's. Ids and samples, which machines need and people do not, come last.
CORPUS: Schema = {
    "score": pl.Float64(),
    "source_audiobook": pl.String(),
    "source_section": pl.Int32(),
    "source_start_ms": pl.Int64(),
    "source_end_ms": pl.Int64(),
    "target_audiobook": pl.String(),
    "target_section": pl.Int32(),
    "target_start_ms": pl.Int64(),
    "target_end_ms": pl.Int64(),
    **{f"{side}_{name}": dtype for name, dtype in _OF_A_RECORDING.items() for side in ("source", "target")},
    **{name: PAIRS[name] for name in PAIRS if name == "cosine" or name.endswith(("_segment", "_sample"))},
}
ORDER = ["score", "source_segment", "target_segment"]


def corpus_frame(
    pairs: pl.DataFrame, source_recordings: pl.DataFrame, target_recordings: pl.DataFrame, language_pair: str
) -> pl.DataFrame:
    """Tell of each pair who reads it, in which languages, under which licence, and where it may be heard.

    Args:
        pairs: columns `records.PAIRS`, selected.
        source_recordings: the recordings of the source side, with at least the columns `audiobook, section, language,
            url, title, section_title, readers, licence` of `records.RECORDINGS`.
        target_recordings: the same for the target side.
        language_pair: `deu-eng`, source first; must be the languages of the recordings.

    Returns:
        Columns `CORPUS`, by decreasing score, then source and target segment.

    Raises:
        LakeError: a pair comes from a recording that is not listed, is listed twice, or is in another language.
        SettingsError: `language_pair` is not two codes.
    """
    source_language, target_language = _languages(language_pair)
    rows = conform(pairs, PAIRS, "pairs").with_columns(
        (pl.col(f"{side}_{end}_sample") // SAMPLES_PER_MS).alias(f"{side}_{end}_ms")
        for side in ("source", "target")
        for end in ("start", "end")
    )
    rows = _described(rows, source_recordings, "source", source_language)
    rows = _described(rows, target_recordings, "target", target_language)
    return conform(rows, CORPUS, "corpus").sort(ORDER, descending=[True, False, False])


def write_manifest(frame: pl.DataFrame, path: Path) -> None:
    r"""Write a corpus as a gzipped table: tabs between columns, one header row, best score first.

    Equal corpora give equal bytes: the gzip header carries no time and no name. A tab, a line break or a backslash in
    a text is written as `\t`, `\n`, `\r` or `\\`.

    Args:
        frame: columns `CORPUS`, in any order of rows.
        path: usually `….tsv.gz`; replaced at once when the file is whole.

    Raises:
        LakeError: other columns, or nulls.
    """
    rows = conform(frame, CORPUS, "corpus").sort(ORDER, descending=[True, False, False])
    holes = {name: count for name, count in rows.null_count().row(0, named=True).items() if count}
    if holes:
        raise LakeError(f"A corpus has nothing in {holes}.", expected="every column filled")
    with replacing(path) as part, part.open("wb") as raw:
        # no name and no time in the header, so that equal tables are equal files
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed:
            packed.write(_escaped(rows).write_csv(separator="\t", quote_style="never").encode())


def read_manifest(path: Path) -> pl.DataFrame:
    """Read what `write_manifest` wrote: columns `CORPUS`, the same rows to the last bit.

    Raises:
        LakeError: the file is no gzipped table with the columns of a corpus.
    """
    try:
        table = gzip.decompress(path.read_bytes())
        header = table.partition(b"\n")[0].decode().split("\t")
        if header != list(CORPUS):
            raise LakeError(f"{path.name} has columns {header}.", expected=f"{list(CORPUS)}")
        rows = pl.read_csv(io.BytesIO(table), separator="\t", quote_char=None, schema=dict(CORPUS))
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError, pl.exceptions.PolarsError) as problem:
        raise LakeError(
            f"{path.name} cannot be read as a manifest: {problem}.",
            expected="a gzipped table with tabs between its columns",
            cause="the file was cut short, or edited",
            fix="materialize the corpus again",
        ) from problem
    return _unescaped(rows.with_columns(pl.col(_texts()).fill_null("")))


def _languages(language_pair: str) -> tuple[str, str]:
    source, _, target = language_pair.partition("-")
    if not (len(source) == len(target) == 3 and (source + target).isalpha()):
        raise SettingsError(f"{language_pair!r} is no language pair.", expected="two ISO 639-3 codes, as in deu-eng")
    return source, target


def _described(rows: pl.DataFrame, recordings: pl.DataFrame, side: str, language: str) -> pl.DataFrame:
    place = ["audiobook", "section"]
    facts = recordings.select(*place, *_OF_A_RECORDING)
    twice = facts.filter(facts.select(place).is_duplicated())
    if twice.height:
        raise LakeError(f"{side} recordings are listed twice: {twice.select(place).unique().sort(place).rows()[:5]}.")
    named = facts.rename({name: f"{side}_{name}" for name in facts.columns})
    keys = [f"{side}_{name}" for name in place]
    _refuse_strangers(rows.join(named, on=keys, how="anti").select(keys), side, "is not among its recordings")
    described = rows.join(named, on=keys, how="left", maintain_order="left")
    strangers = described.filter(pl.col(f"{side}_language").ne_missing(language))
    _refuse_strangers(strangers.select(keys), side, f"is not in {language}")
    return described


def _refuse_strangers(where: pl.DataFrame, side: str, what: str) -> None:
    if where.height:
        raise LakeError(
            f"The {side} of {where.height} pairs {what}, such as (audiobook, section) {where.row(0)}.",
            cause="pairs and recordings are of different materializations",
            fix="materialize the pairs again",
        )


def _texts() -> list[str]:
    return [name for name, dtype in CORPUS.items() if dtype == pl.String]


def _escaped(rows: pl.DataFrame) -> pl.DataFrame:
    texts = pl.col(_texts())
    for letter, written in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        texts = texts.str.replace_all(letter, written, literal=True)
    return rows.with_columns(texts)


def _unescaped(rows: pl.DataFrame) -> pl.DataFrame:
    # one pass: "\\\\t" is a backslash and a t, so the letters cannot be replaced one after the other
    letters = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
    return rows.with_columns(pl.col(_texts()).str.replace_many(list(letters), list(letters.values())))
