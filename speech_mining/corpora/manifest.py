"""The corpus as people take it home: one row a pair, its score first, and where each side may be heard.

What belongs here is the schema of a corpus and its manifest file. Which pairs are in it is in
`speech_mining.mining.selection`; other formats are other modules of this package.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import polars as pl

from speech_mining.atomic import replacing
from speech_mining.errors import LakeError, SettingsError
from speech_mining.filters.limits import FILTER_SCORES, with_scores
from speech_mining.lake import Partition
from speech_mining.mining.kinds import KINDS, SPEECH_TO_SPEECH, Kind
from speech_mining.records import SAMPLES_PER_MS, Modality, Schema, conform, item_column, modality_of

VERSION = "2"

# Of each side: what a person looks at first, what is told of it, and ids and places that machines need.
_SPAN: Mapping[Modality, Schema] = {
    "speech": {
        "audiobook": pl.String(),
        "section": pl.Int32(),
        "start_ms": pl.Int64(),
        "end_ms": pl.Int64(),
    },
    "text": {"text": pl.String()},
}
_TOLD: Mapping[Modality, Schema] = {
    "speech": {
        "language": pl.String(),  # ISO 639-3
        "url": pl.String(),  # where the recording may be downloaded
        "title": pl.String(),
        "section_title": pl.String(),
        "readers": pl.String(),
        "licence": pl.String(),
    },
    "text": {
        "language": pl.String(),
        "address": pl.String(),  # of the shard's file
        "document": pl.String(),
        "line": pl.Int64(),  # of the shard, from 1
        "offset": pl.Int64(),  # in the line, in characters
        "length": pl.Int32(),  # in characters
    },
}
_PLACE: Mapping[Modality, tuple[str, ...]] = {
    "speech": ("_segment", "_sample"),
    "text": ("_sentence", "_shard", "_shard_row"),
}


_MADE_FROM = {"embedder": "encoders", "roll": "rolls"}
"""Columns of both sides that name what a pair was mined from, and where pairs tell it."""


def corpus_of(kind: Kind) -> Schema:
    """The columns of a kind's corpus, before the scores of filters.

    The order is that of the LibriVox S2S and SpeechMatrix manifests: the score, then the source, then the target.
    """
    sides: dict[str, Modality] = {"source": kind.source, "target": kind.target}
    columns = ([(f"{side}_{name}", dtype) for name, dtype in _TOLD[of].items()] for side, of in sides.items())
    ends = ("cosine", *(f"{side}{end}" for side, of in sides.items() for end in _PLACE[of]))
    return {
        "score": pl.Float64(),
        **{f"{side}_{name}": dtype for side, of in sides.items() for name, dtype in _SPAN[of].items()},
        **{column[0]: column[1] for pair in zip_longest(*columns) for column in pair if column is not None},
        **{name: dtype for name, dtype in kind.pairs.items() if name == "cosine" or _is_place(name, ends)},
        **{f"{side}_{name}": pl.String() for name in _MADE_FROM for side in sides},
    }


def _is_place(name: str, ends: Sequence[str]) -> bool:
    side = name.partition("_")[0]
    return any(end.startswith(side) and name.endswith(end.removeprefix(side)) for end in ends)


CORPUS: Schema = corpus_of(SPEECH_TO_SPEECH)


def kind_of(columns: Sequence[str]) -> Kind:
    """What was mined with what, by the columns of pairs or of a corpus."""
    sides = tuple(modality_of(columns, side) for side in ("source", "target"))
    return next(kind for kind in KINDS if (kind.source, kind.target) == sides)


def corpus_schema(columns: Sequence[str], kind: Kind | None = None) -> Schema:
    """Columns of a corpus, and behind them the scores of filters (`filters.limits.FILTER_SCORES`) among `columns`.

    Args:
        columns: of a corpus or of filters.
        kind: of the corpus; None: as the columns say.
    """
    scores = {name: dtype for name, dtype in FILTER_SCORES.items() if name in columns}
    return {**corpus_of(kind or kind_of(columns)), **scores}


def _order(columns: Sequence[str]) -> list[str]:
    """What rows are sorted by: the score, then both ids."""
    return ["score", *(item_column(columns, side) for side in ("source", "target"))]


def read_corpus(partition: Partition) -> pl.DataFrame:
    """A corpus of the lake, with the scores of the filters that were on: columns `corpus_schema`."""
    frame = partition.read_frame("corpus.parquet")
    return conform(frame, corpus_schema(frame.columns), f"{partition.layer}/corpus.parquet")


def corpus_frame(
    pairs: pl.DataFrame,
    source: pl.DataFrame,
    target: pl.DataFrame,
    language_pair: str,
    scores: pl.DataFrame | None = None,
    made_from: Mapping[str, Sequence[str]] | None = None,
) -> pl.DataFrame:
    """Tell of each pair who reads it, in which languages, under which licence, and where it may be heard or read.

    Args:
        pairs: columns `records.pairs_schema` of two modalities, selected.
        source: of the source side, recordings with at least the columns `audiobook, section, language, url, title,
            section_title, readers, licence` of `records.RECORDINGS`, or of a side of text `written.WRITTEN`.
        target: the same for the target side.
        language_pair: `deu-eng`, source first; must be the languages of the two sides.
        scores: of filters that are on: the two ids and columns of `FILTER_SCORES`, of at least these pairs.
        made_from: of both sides, source first: `encoders`, name and version of what embedded it, and `rolls`, the
            version of the vectors it was mined among; empty where it is not told.

    Returns:
        Columns `corpus_schema`, by decreasing score, then source and target id.

    Raises:
        LakeError: a pair comes from a recording or sentence that is not listed, is listed twice, or is in another
            language; or it has no score.
        SettingsError: `language_pair` is not two codes.
    """
    kind, languages = kind_of(pairs.columns), _languages(language_pair)
    rows = conform(pairs, kind.pairs, "pairs").with_columns(
        (pl.col(f"{side}_{end}_sample") // SAMPLES_PER_MS).alias(f"{side}_{end}_ms")
        for side in kind.spoken
        for end in ("start", "end")
    )
    for side, language, facts in zip(("source", "target"), languages, (source, target), strict=True):
        rows = _described(rows, facts, side, language)
    rows = rows if scores is None else with_scores(rows, scores)
    rows = rows.with_columns(
        pl.lit(told).alias(f"{side}_{name}")
        for name, key in _MADE_FROM.items()
        for side, told in zip(("source", "target"), (made_from or {}).get(key, ("", "")), strict=True)
    )
    frame = conform(rows, corpus_schema(rows.columns, kind), "corpus")
    return frame.sort(_order(frame.columns), descending=[True, False, False])


def write_manifest(frame: pl.DataFrame, path: Path) -> None:
    r"""Write a corpus as a gzipped table: tabs between columns, one header row, best score first.

    Equal corpora give equal bytes: the gzip header carries no time and no name. A tab, a line break or a backslash in
    a text is written as `\t`, `\n`, `\r` or `\\`.

    Args:
        frame: columns `corpus_schema`, in any order of rows.
        path: usually `….tsv.gz`; replaced at once when the file is whole.

    Raises:
        LakeError: other columns, or nulls.
    """
    rows = conform(frame, corpus_schema(frame.columns), "corpus").sort(
        _order(frame.columns), descending=[True, False, False]
    )
    holes = {name: count for name, count in rows.null_count().row(0, named=True).items() if count}
    if holes:
        raise LakeError(f"A corpus has nothing in {holes}.", expected="every column filled")
    with replacing(path) as part, part.open("wb") as raw:
        # no name and no time in the header, so that equal tables are equal files
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed:
            packed.write(_escaped(rows).write_csv(separator="\t", quote_style="never").encode())


def read_manifest(path: Path) -> pl.DataFrame:
    """Read what `write_manifest` wrote: columns `corpus_schema`, the same rows to the last bit.

    Raises:
        LakeError: the file is no gzipped table with the columns of a corpus.
    """
    try:
        table = gzip.decompress(path.read_bytes())
        header = table.partition(b"\n")[0].decode().split("\t")
        schema = corpus_schema(header)
        if header != list(schema):
            raise LakeError(f"{path.name} has columns {header}.", expected=f"{list(schema)}")
        rows = pl.read_csv(io.BytesIO(table), separator="\t", quote_char=None, schema=dict(schema))
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError, pl.exceptions.PolarsError) as problem:
        raise LakeError(
            f"{path.name} cannot be read as a manifest: {problem}.",
            expected="a gzipped table with tabs between its columns",
            cause="the file was cut short, or edited",
            fix="materialize the corpus again",
        ) from problem
    return _unescaped(rows.with_columns(pl.col(_texts(rows)).fill_null("")))


def _languages(language_pair: str) -> tuple[str, str]:
    source, _, target = language_pair.partition("-")
    if not (len(source) == len(target) == 3 and (source + target).isalpha()):
        raise SettingsError(f"{language_pair!r} is no language pair.", expected="two ISO 639-3 codes, as in deu-eng")
    return source, target


def _described(rows: pl.DataFrame, known: pl.DataFrame, side: str, language: str) -> pl.DataFrame:
    modality = modality_of(rows.columns, side)
    place = ["audiobook", "section"] if modality == "speech" else ["shard", "shard_row"]
    told = [*_TOLD[modality], *([] if modality == "speech" else _SPAN[modality])]
    what = "recordings" if modality == "speech" else "sentences"
    facts = known.select(*place, *told)
    twice = facts.filter(facts.select(place).is_duplicated())
    if twice.height:
        raise LakeError(f"{side} {what} are listed twice: {twice.select(place).unique().sort(place).rows()[:5]}.")
    named = facts.rename({name: f"{side}_{name}" for name in facts.columns})
    keys = [f"{side}_{name}" for name in place]
    _refuse_strangers(rows.join(named, on=keys, how="anti").select(keys), side, f"is not among its {what}")
    described = rows.join(named, on=keys, how="left", maintain_order="left")
    strangers = described.filter(pl.col(f"{side}_language").ne_missing(language))
    _refuse_strangers(strangers.select(keys), side, f"is not in {language}")
    return described


def _refuse_strangers(where: pl.DataFrame, side: str, what: str) -> None:
    if where.height:
        raise LakeError(
            f"The {side} of {where.height} pairs {what}, such as {tuple(where.columns)} {where.row(0)}.",
            cause="the pairs and what they speak of are of different materializations",
            fix="materialize the pairs again",
        )


def _texts(rows: pl.DataFrame) -> list[str]:
    return [name for name, dtype in rows.schema.items() if dtype == pl.String]


def _escaped(rows: pl.DataFrame) -> pl.DataFrame:
    texts = pl.col(_texts(rows))
    for letter, written in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        texts = texts.str.replace_all(letter, written, literal=True)
    return rows.with_columns(texts)


def _unescaped(rows: pl.DataFrame) -> pl.DataFrame:
    # one pass: "\\\\t" is a backslash and a t, so the letters cannot be replaced one after the other
    letters = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
    return rows.with_columns(pl.col(_texts(rows)).str.replace_many(list(letters), list(letters.values())))
