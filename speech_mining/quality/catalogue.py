"""The whole lake as tables of one DuckDB, to be asked in SQL.

Every connection is a database of its own in memory: views over the parquet files of the current generations, which
nobody ever changes. So there is no file to lock, any number may read while assets run, and nothing can be written: the
views' files are all that a query can reach, and a query is all that is run.

A generation that is replaced is removed at once. A query that began to read it goes on where its files are open, and
fails where they are not: `ask` then looks again at what is current and asks once more. Tables of one answer are of one
moment each, the moment at which the views were made.

What belongs here is which tables there are, and the way from a query to a frame. What is worth asking stands in
`questions/*.sql`.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from speech_mining.corpora.manifest import CORPUS, corpus_of
from speech_mining.errors import LakeError, SettingsError, SpeechMiningError
from speech_mining.filters.limits import FILTER_SCORES
from speech_mining.knn.roll import ROWS
from speech_mining.lake import Lake, Partition
from speech_mining.mining.kinds import KINDS
from speech_mining.mining.tables import NEIGHBOURS
from speech_mining.quality.history import HISTORY
from speech_mining.quality.history import LAYER as HISTORY_LAYER
from speech_mining.quality.hours import HOURS
from speech_mining.records import CATALOGUE, RECORDINGS, REJECTIONS, SEGMENTS, Schema
from speech_mining.segmentation.audiobook import RUNS as SPEECH_RUNS
from speech_mining.segmentation.audiobook import SECTIONS
from speech_mining.text.sentences import SENTENCES

if TYPE_CHECKING:
    import duckdb

QUESTIONS = Path(__file__).with_name("questions")
_PLACE = re.compile(r"\n+LINE (\d+): (.*)\n( *\^+)\s*$", re.DOTALL)
_WORD = re.compile(r"[a-z][a-z0-9_]*")


class QueryError(SpeechMiningError):
    """A query that DuckDB cannot answer, or that is more than a question."""


class ReplacedError(LakeError):
    """A generation that was current when it was looked for, and is gone."""

    def __init__(self, file: str) -> None:
        super().__init__(
            f"The lake changed under the query: {file} is gone.",
            cause="the partition was replaced while it was read, or its files were removed by hand",
            fix="run it again; if it fails again, materialize the partition",
        )


@dataclass(frozen=True)
class Source:
    """A layer's file that is part of a table.

    Args:
        layer: of the lake.
        file: in each of its partitions; a partition without it adds nothing.
        keys: what the parts of a partition's key are.
        own: those of them that the file has as columns itself; the others are added.
        told: columns with one value for all of the layer, such as the kind.
        uniform: whether all partitions have the same columns. Where not, every footer is read before a query.
    """

    layer: str
    file: str
    keys: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    told: Mapping[str, str] = field(default_factory=dict)
    uniform: bool = True


@dataclass(frozen=True)
class LakeTable:
    """A table that may be asked.

    Args:
        about: a line for people.
        columns: which it has even where the lake holds no row; those of the partition first.
        sources: the files it is made of.
        needs: the tables that it is derived from, by the SQL file of its name. Neither: the caller brings it.
    """

    about: str
    columns: Schema
    sources: tuple[Source, ...] = ()
    needs: tuple[str, ...] = ()


_BOOK = (("language", "audiobook"), ("audiobook",))
"""Key of a partition of an audiobook, whose files name the audiobook and not the language."""


def _of_kinds(layer: str, file: str, *, uniform: bool = True, **told: str) -> tuple[Source, ...]:
    return tuple(
        Source(kind.layer(layer), file, ("language_pair",), (), {"kind": kind.name, **told}, uniform) for kind in KINDS
    )


def _rejecting() -> tuple[Source, ...]:
    books = ("raw_audio", "segments", "speech_embeddings")
    of_books = [Source(name, "rejections.parquet", *_BOOK, {"layer": name}) for name in books]
    text = Source("text_embeddings", "rejections.parquet", ("language", "shard"), (), {"layer": "text_embeddings"})
    return (Source("catalogue", "rejections.parquet", told={"layer": "catalogue"}), *of_books, text)


_TEXT, _INTEGER = pl.String(), pl.Int64()
_PAIR: Schema = {"kind": _TEXT, "language_pair": _TEXT}
_ALL_PAIRS: Schema = {name: dtype for kind in KINDS for name, dtype in kind.pairs.items()}
_ALL_CORPORA: Schema = {
    **CORPUS,
    **{name: dtype for kind in KINDS for name, dtype in corpus_of(kind).items()},
    **dict(FILTER_SCORES),
}
SPANS: Schema = {
    **_PAIR,
    "side": _TEXT,
    "language": _TEXT,
    "audiobook": _TEXT,
    "section": pl.Int32(),
    "segment": _INTEGER,
    "readers": _TEXT,
    "start_sample": _INTEGER,
    "end_sample": _INTEGER,
    "score": pl.Float64(),
}
ALIGNED: Schema = {
    "language": _TEXT,
    "audiobook": _TEXT,
    "section": pl.Int32(),
    "duration_s": pl.Float64(),
    "speech_s": pl.Float64(),
    "pairs": _INTEGER,
    "aligned_s": pl.Float64(),
}
RUNS: Schema = {
    "asset": _TEXT,
    "partition": _TEXT,
    "recorded_at": pl.Datetime("us", "UTC"),
    "run_id": _TEXT,
    "data_version": _TEXT,
    "figures": _TEXT,
}
PARTITIONS: Schema = {"layer": _TEXT, "partition": _TEXT, "data_version": _TEXT}

TABLES: Mapping[str, LakeTable] = {
    "catalogue": LakeTable(
        "What the source offers, a row a section.", CATALOGUE, (Source("catalogue", "catalogue.parquet"),)
    ),
    "recordings": LakeTable(
        "Recordings as received.",
        RECORDINGS,
        (Source("raw_audio", "recordings.parquet", ("language", "audiobook"), ("language", "audiobook")),),
    ),
    "sections": LakeTable(
        "Recordings as heard: duration, speech, candidates.",
        {"language": _TEXT, **SECTIONS},
        (Source("segments", "sections.parquet", *_BOOK),),
    ),
    "speech_runs": LakeTable(
        "Runs of speech between silences.",
        {"language": _TEXT, **SPEECH_RUNS},
        (Source("segments", "runs.parquet", *_BOOK),),
    ),
    "segments": LakeTable(
        "Candidate segments.",
        {"language": _TEXT, **SEGMENTS},
        (Source("segments", "segments.parquet", *_BOOK),),
    ),
    "indexed": LakeTable(
        "Segments that were embedded, in the order of the index; recurring ones (preambles) are not mined.",
        {"language": _TEXT, **ROWS},
        (Source("speech_index", "rows.parquet", ("language",)),),
    ),
    "sentences": LakeTable(
        "Sentences of text.",
        {"language": _TEXT, "shard": _TEXT, **SENTENCES},
        (Source("text_sentences", "sentences.parquet", ("language", "shard")),),
    ),
    "neighbours": LakeTable(
        "Nearest items of the other language, in both directions.",
        {**_PAIR, "direction": _TEXT, **NEIGHBOURS},
        (
            *_of_kinds("neighbours", "forward.parquet", direction="forward"),
            *_of_kinds("neighbours", "backward.parquet", direction="backward"),
        ),
    ),
    "pairs": LakeTable(
        "Scored pairs, from the floor upward.", {**_PAIR, **_ALL_PAIRS}, _of_kinds("pairs", "pairs.parquet")
    ),
    "corpora": LakeTable(
        "Pairs above the threshold that overlap no other.",
        {**_PAIR, **_ALL_CORPORA},
        _of_kinds("corpus", "corpus.parquet", uniform=False),
    ),
    "spans": LakeTable(
        "Both sides of the corpora as spans of speech: a row for each spoken side of a pair.", SPANS, needs=("corpora",)
    ),
    "aligned": LakeTable(
        "Of each recording: its audio, and how much of it stands in some corpus, what overlaps counted once.",
        ALIGNED,
        needs=("spans", "sections"),
    ),
    "hours": LakeTable(
        "Hours of every pair of languages at every threshold.",
        {**_PAIR, **HOURS},
        _of_kinds("corpus", "hours.parquet"),
    ),
    "rejections": LakeTable(
        "What was refused, and why.",
        {
            "layer": _TEXT,
            "language": _TEXT,
            **REJECTIONS,
            "shard": _TEXT,
            "sentence_id": _INTEGER,
            "shard_row": _INTEGER,
        },
        _rejecting(),
    ),
    "history": LakeTable(
        "Figures of every accepted materialization of a corpus.",
        {**_PAIR, **HISTORY},
        (Source(HISTORY_LAYER, "history.parquet", ("kind", "language_pair")),),
    ),
    "runs": LakeTable("Materializations, from Dagster's event log; figures as JSON.", RUNS),
    "partitions": LakeTable("Partitions of the lake that the other tables are made of.", PARTITIONS),
}


@dataclass(frozen=True)
class _Part:
    """A file of a partition."""

    source: Source
    partition: Partition
    path: Path


def lake_catalogue(
    lake: Lake,
    tables: Sequence[str] | None = None,
    frames: Mapping[str, pl.DataFrame] | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB with a view for each table, which reads the lake and nothing else.

    Files of an object store are read from the lake's copies on this machine's disk, made here.

    Args:
        lake: to read.
        tables: of `TABLES`; all by default.
        frames: tables that do not lie in the lake, such as `runs`, by name.
        only: column of a partition's key, such as `language` → the values whose partitions are opened; all by default.
            A language of 10 000 audiobooks is 10 000 files: a question to one pair need not look at the others.

    Returns:
        A connection that the caller closes. Its configuration is locked, and of the disk it may open only the files of
        its views. It may still write to those: run questions through `ask`.

    Raises:
        SettingsError: there is no such table.
        LakeError: a file is damaged, or was replaced while it was looked at.
    """
    return _open(lake, _with_needs(TABLES if tables is None else tables), frames or {}, only or {}).connection


@dataclass(frozen=True)
class _Opened:
    """A connection, and the files that it may open."""

    connection: duckdb.DuckDBPyConnection
    files: frozenset[str]

    @property
    def vanished(self) -> list[str]:
        """Files of generations that were replaced since."""
        return sorted(file for file in self.files if not Path(file).exists())


def _open(
    lake: Lake, tables: Sequence[str], frames: Mapping[str, pl.DataFrame], only: Mapping[str, Sequence[str]]
) -> _Opened:
    import duckdb  # here: loading the code location needs none

    connection = duckdb.connect()
    try:
        files: set[str] = set()
        for name in tables:
            files |= _bind(connection, lake, name, frames.get(name), only)
        _close_in(connection, files)
    except BaseException:
        connection.close()
        raise
    return _Opened(connection, frozenset(files))


def ask(
    lake: Lake,
    query: str,
    *,
    limit: int | None = None,
    bound: Mapping[str, str | float] | None = None,
    frames: Mapping[str, pl.DataFrame] | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
) -> pl.DataFrame:
    """Answer a query over the tables of the lake.

    Args:
        lake: to read.
        query: one SELECT, FROM, WITH, DESCRIBE, SHOW or SUMMARIZE, or a PIVOT that names its values, IN (…).
        limit: most rows; all by default.
        bound: values of the query's `$names`.
        frames: tables that do not lie in the lake, by name.
        only: see `lake_catalogue`.

    Raises:
        QueryError: it cannot be answered, or is not one question.
        ReplacedError: partitions were replaced while it ran, twice.
        LakeError: a file is damaged.
    """
    values = dict(bound or {})
    wrapped, tables = _wrapped(query, limit), _with_needs(tables_of(filled(query, values)))
    for last in (False, True):
        try:
            opened = _open(lake, tables, frames or {}, only or {})
            with closing(opened.connection):
                return _answer(opened, wrapped, values)
        except ReplacedError:
            if last:
                raise
    raise AssertionError("unreachable")


def _answer(opened: _Opened, wrapped: str, bound: Mapping[str, str | float]) -> pl.DataFrame:
    """Run a query.

    A file that is gone is told by DuckDB in several ways (it looks for a folder of the name, which is forbidden), so
    the disk is asked.
    """
    import duckdb

    try:
        opened.connection.execute(f"EXPLAIN {wrapped}", bound)  # refuses before anything runs, and tells positions
        return _frame(opened.connection.sql(wrapped, params=bound))
    except duckdb.Error as error:
        vanished = opened.vanished
        if vanished:
            raise ReplacedError(vanished[0]) from None
        raise _told(error, lines_before=1) from None


def filled(query: str, bound: Mapping[str, str | float]) -> str:
    """The query with its values written in, as a person may ask it again; what runs has them bound."""
    literals = {name: _quoted(value) if isinstance(value, str) else repr(value) for name, value in bound.items()}
    return re.sub(r"\$(\w+)", lambda found: literals.get(found[1], found[0]), query)


def tables_of(query: str) -> list[str]:
    """The tables of the catalogue that a query names; all where DuckDB cannot tell, as for SHOW."""
    import duckdb

    try:
        with closing(duckdb.connect()) as connection:
            named = {name.lower() for name in connection.get_table_names(query)}
    except duckdb.Error:
        return list(TABLES)
    return [name for name in TABLES if name in named] if named else list(TABLES)


def questions() -> dict[str, str]:
    """Name → SQL of the questions that are worth asking; the first line of each says what it answers."""
    return {path.stem: path.read_text("utf-8") for path in sorted(QUESTIONS.glob("*.sql"))}


def question(name: str) -> str:
    """The SQL of a question.

    Raises:
        SettingsError: there is none of that name.
    """
    known = questions()
    if name not in known:
        raise SettingsError(f"There is no question {name!r}.", expected=f"one of {', '.join(known)}")
    return known[name]


def _wrapped(query: str, limit: int | None) -> str:
    """The query as a subquery, which can do nothing but answer.

    DuckDB 2.0 calls `WITH x AS (COPY … TO 'file') SELECT 1` a SELECT, and it overwrote a file of the lake when tried.
    In a subquery it is refused, as are INSERT and DELETE in a WITH. That the query is one statement by itself keeps it
    from ending the subquery.
    """
    import duckdb

    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise _told(error) from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        found = [str(each.type).rpartition(".")[2] for each in statements]
        raise QueryError(
            f"This is not one question: {', '.join(found) or 'nothing'}.",
            expected="one SELECT, FROM, WITH, DESCRIBE, SHOW or SUMMARIZE, or a PIVOT that names its values, IN (…)",
            cause="it would write, and the lake is only read",
            fix="ask once for each; to keep an answer, use --format and --out",
        )
    text = statements[0].query.strip().rstrip(";")
    most = "" if limit is None else f"\nLIMIT {int(limit)}"
    return f"SELECT * FROM (\n{text}\n){most}"


def _told(error: Exception, lines_before: int = 0) -> QueryError:
    """DuckDB's message as one paragraph, with its own position."""
    text, where = str(error).strip(), ""
    found = _PLACE.search(text)
    if found:
        text = text[: found.start()]
        line, shown = int(found[1]) - lines_before, found[2]
        column = len(found[3].rstrip("^")) - len(f"LINE {found[1]}: ")
        where = f", at line {line}: {shown.strip()} (column {column + 1})"
    return QueryError(
        f"{' '.join(text.split()).rstrip('.')}{where}.", fix="correct it there; `s2s sql --schema` shows every column"
    )


def _frame(answer: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    """Sums of integers are decimals of 38 digits to DuckDB; here they are integers again."""
    frame = pl.DataFrame(pl.from_arrow(answer.to_arrow_table()))
    whole = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Decimal) and dtype.scale == 0]
    return frame.with_columns(pl.col(whole).cast(pl.Int64))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


def _with_needs(names: Iterable[str]) -> list[str]:
    """Tables in an order in which each stands behind those that it is derived from."""
    ordered: dict[str, None] = {}
    for name in names:
        if name not in TABLES:
            raise SettingsError(f"There is no table {name}.", expected=f"one of {', '.join(TABLES)}")
        ordered |= dict.fromkeys((*_with_needs(TABLES[name].needs), name))
    return list(ordered)


def _bind(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    name: str,
    frame: pl.DataFrame | None,
    only: Mapping[str, Sequence[str]],
) -> set[str]:
    """Make the view of a table; the files that it may open."""
    table = TABLES[name]
    if table.needs:
        connection.execute(f"CREATE VIEW {name} AS {Path(__file__).with_name(f'{name}.sql').read_text('utf-8')}")
        return set()
    brought = _partitions(lake) if name == "partitions" else frame
    _keep(connection, f"_{name}", pl.DataFrame(schema=dict(table.columns)) if brought is None else brought)
    parts = [part for source in table.sources for part in _parts(lake, source, only)]
    selects = [f"SELECT * FROM _{name}"]
    if parts:
        _keep(connection, f"_files_of_{name}", _keys(parts))
        there = [source for source in table.sources if any(part.source is source for part in parts)]
        selects += [_select(name, source, parts) for source in there]
    _view(connection, name, " UNION ALL BY NAME ".join(selects), parts)
    return {str(part.path) for part in parts}


def _view(connection: duckdb.DuckDBPyConnection, name: str, select: str, parts: Sequence[_Part]) -> None:
    """Make a view, which looks into the first of its files at once."""
    import duckdb

    try:
        connection.execute(f"CREATE VIEW {name} AS {select}")
    except duckdb.Error as error:
        for part in parts:
            if not part.path.exists():
                raise ReplacedError(str(part.path)) from None
        raise LakeError(
            f"The table {name} cannot be read: {_first_line(error)}.",
            cause="a file of the lake is damaged, or was written by another version of this project",
            fix="materialize the partition again",
        ) from None


def _keep(connection: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame) -> None:
    connection.register("_incoming", frame.to_arrow())
    connection.execute(f"CREATE TABLE {name} AS FROM _incoming")
    connection.unregister("_incoming")


def _select(name: str, source: Source, parts: Sequence[_Part]) -> str:
    files = ", ".join(_quoted(str(part.path)) for part in parts if part.source is source)
    told = [f"{_quoted(value)} AS {column}" for column, value in source.told.items()]
    keys = [f"f.key_{place} AS {column}" for place, column in enumerate(source.keys) if column not in source.own]
    columns = ", ".join([*told, *keys, "t.* EXCLUDE (filename)"])
    options = "filename = true" if source.uniform else "filename = true, union_by_name = true"
    return f"SELECT {columns} FROM read_parquet([{files}], {options}) t JOIN _files_of_{name} f ON f.file = t.filename"


def _keys(parts: Sequence[_Part]) -> pl.DataFrame:
    width = max(len(part.source.keys) for part in parts)
    rows = [(str(part.path), *part.partition.key, *[None] * (width - len(part.partition.key))) for part in parts]
    schema = {"file": pl.String(), **{f"key_{place}": pl.String() for place in range(width)}}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _close_in(connection: duckdb.DuckDBPyConnection, files: set[str]) -> None:
    """Take every way out from a connection: it opens `files`, spills to the temporary folder, and stays so."""
    connection.execute("SET TimeZone = 'UTC'")
    spill = Path(tempfile.gettempdir()) / f"s2s-duckdb-{os.getuid()}"
    connection.execute(f"SET temp_directory = {_quoted(str(spill))}")
    if files:
        connection.execute(f"SET allowed_paths = [{', '.join(map(_quoted, sorted(files)))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _parts(lake: Lake, source: Source, only: Mapping[str, Sequence[str]]) -> Iterator[_Part]:
    if any(name in only and value not in only[name] for name, value in source.told.items()):
        return
    for key in _partition_keys(lake, source, only):
        found = _current(lake, source, key)
        if found is not None:
            yield found


def _current(lake: Lake, source: Source, key: tuple[str, ...]) -> _Part | None:
    """The file in the current generation, also when it is replaced between looking and finding."""
    for attempt in (1, 2):
        partition = lake.find(source.layer, *key)
        try:
            if partition is None or source.file not in partition.files:
                return None
            return _Part(source, partition, partition.local_path(source.file))
        except (LakeError, FileNotFoundError):
            if attempt == 2:
                raise ReplacedError(f"{source.file} of {source.layer} {'/'.join(key)}") from None
        except (ValueError, KeyError):
            raise LakeError(
                f"{source.layer} of {'/'.join(key)} has a manifest that cannot be read.",
                cause="it was changed by hand, or damaged",
                fix="materialize the partition again",
            ) from None
    return None


def _partition_keys(lake: Lake, source: Source, only: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Keys of a layer's partitions, of which `only` names the parts that are wanted."""
    if not source.keys:
        return [()]
    prefixes: list[tuple[str, ...]] = [()]
    for column in source.keys[:-1]:
        below = [(prefix, name) for prefix in prefixes for name in _folders(lake, source.layer, prefix)]
        prefixes = [(*prefix, name) for prefix, name in below if name in only.get(column, (name,))]
    found = [(prefix, name) for prefix in prefixes for name in lake.keys(source.layer, *prefix)]
    return [(*prefix, name) for prefix, name in found if name in only.get(source.keys[-1], (name,))]


def _folders(lake: Lake, layer: str, prefix: tuple[str, ...]) -> list[str]:
    folder = lake.root.joinpath(layer, *prefix)
    return sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.exists() else []


def _partitions(lake: Lake) -> pl.DataFrame:
    sources = {source.layer: source for table in TABLES.values() for source in table.sources}
    found = [
        (layer, "/".join(key), partition.data_version)
        for layer, source in sorted(sources.items())
        for key in _partition_keys(lake, source, {})
        if (partition := lake.find(layer, *key)) is not None
    ]
    return pl.DataFrame(found, schema=dict(PARTITIONS), orient="row")
