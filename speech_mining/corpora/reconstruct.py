"""A corpus again out of its links: recordings fetched, held against their hashes, and cut as they were before.

What belongs here is the way from `links.tsv.gz` to what an exporter takes. How one fetches is in
`speech_mining.sources`, how one cuts in `cutting`. A recording that is gone, or is another one today, is a rejection
with its reason: its rows are left out and counted, all others are made.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from speech_mining.corpora.card import lineage_of_rows
from speech_mining.corpora.cutting import Recording, Span
from speech_mining.corpora.links import SPOKEN, WRITTEN, columns
from speech_mining.corpora.material import Planned
from speech_mining.corpora.splits import Shares
from speech_mining.errors import DownloadError, LakeError
from speech_mining.mining.kinds import KINDS, Kind
from speech_mining.progress import Progress, silent
from speech_mining.sources.downloads import FileFacts, download_recording

if TYPE_CHECKING:
    from speech_mining.sources.client import PoliteClient

_NUMBERS: Mapping[str, pl.DataType] = {
    "score": pl.Float64(),
    **{
        f"{side}_{name}": pl.Int64() for side in ("source", "target") for name in ("start_sample", "end_sample", "line")
    },
    **{f"{side}_{name}": pl.Int64() for side in ("source", "target") for name in ("section", "offset", "length")},
}
_LETTERS = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


@dataclass(frozen=True)
class Links:
    """A table of links."""

    kind: Kind
    pair: str
    frame: pl.DataFrame
    sha256: str
    """Of the file."""


@dataclass(frozen=True)
class Fetched:
    """What came of the recordings."""

    paths: Mapping[str, Path]
    """Hash → file."""
    rejections: pl.DataFrame
    """Columns `url, sha256, reason, detail`: recordings that could not be had."""


def read_links(path: Path) -> Links:
    """Read what the format `links` wrote.

    Raises:
        LakeError: the file is not there, or is no such table.
    """
    try:
        packed = path.read_bytes()
        frame = _table(gzip.decompress(packed))
        kind = _kind_of(frame.columns)
        pairs = frame.select(pl.concat_str("source_language", "target_language", separator="-")).to_series().unique()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, StopIteration, pl.exceptions.PolarsError) as problem:
        raise _no_links(path, str(problem) or "other columns") from problem
    if len(pairs) != 1:
        raise _no_links(path, f"{len(pairs)} pairs of languages")
    return Links(kind, pairs.item(), frame, hashlib.sha256(packed).hexdigest())


def fetch(client: PoliteClient, links: Links, folder: Path, *, progress: Progress = silent) -> Fetched:
    """Fetch each recording once and hold it against its hash; what is in the folder is not asked for again."""
    wanted = _recordings(links)
    paths: dict[str, Path] = {}
    rejected: list[dict[str, str]] = []

    def one(url: str, sha256: str) -> DownloadError | None:
        try:
            download_recording(client, url, folder / sha256, expected=FileFacts(sha256=sha256))
        except DownloadError as problem:
            return problem
        return None

    with ThreadPoolExecutor(client.config.concurrent_downloads) as pool:
        problems = pool.map(lambda place: one(*place), wanted)
        for done, ((url, sha256), problem) in enumerate(zip(wanted, problems, strict=True), start=1):
            if problem is None:
                paths[sha256] = folder / sha256
            else:
                rejected.append({"url": url, "sha256": sha256, "reason": problem.reason, "detail": problem.found})
            progress(done, len(wanted))
    told = {"url": pl.String, "sha256": pl.String, "reason": pl.String, "detail": pl.String}
    return Fetched(paths, pl.DataFrame(rejected, schema=told))


def plan_again(links: Links, fetched: Fetched) -> Planned:
    """The rows whose recordings are here, ready to be cut and exported in any format.

    Raises:
        LakeError: none is.
    """
    here = pl.all_horizontal(pl.col(f"{side}_sha256").is_in(list(fetched.paths)) for side in links.kind.spoken)
    rows = links.frame.filter(here)
    if rows.is_empty():
        raise LakeError(
            f"None of the {links.frame.height} rows can be made again: {fetched.rejections.rows()[:3]}.",
            expected="recordings that can be fetched and are what they were",
            cause="the servers are out of reach, or the recordings were replaced",
            fix="look at the reasons, and run the same again: what was fetched is kept",
        )
    lost = fetched.rejections.group_by("reason").len().sort("reason").rows()
    made = {"links": links.sha256, "rows_lost": links.frame.height - rows.height, "recordings_lost": dict(lost)}
    lineage = lineage_of_rows(links.kind, links.pair, rows, Shares(0, 0), corpus_version=links.sha256, selection=made)
    hashes = {
        (side, audiobook, section): sha256
        for side in links.kind.spoken
        for audiobook, section, sha256 in rows.select(
            f"{side}_{name}" for name in ("audiobook", "section", "sha256")
        ).iter_rows()
    }
    return Planned(links.kind, links.pair, rows, _to_cut(links.kind, rows, fetched), hashes, lineage)


def _to_cut(kind: Kind, rows: pl.DataFrame, fetched: Fetched) -> tuple[Recording, ...]:
    spans: dict[str, set[Span]] = {}
    names: dict[str, str] = {}
    for side in kind.spoken:
        for told in rows.select(f"{side}_{name}" for name in ("sha256", "url", "start_sample", "end_sample")).rows():
            spans.setdefault(told[0], set()).add((told[2], told[3]))
            names[told[0]] = told[1]
    return tuple(Recording(names[sha], fetched.paths[sha], sha, tuple(sorted(spans[sha]))) for sha in sorted(spans))


def _recordings(links: Links) -> list[tuple[str, str]]:
    tables = [links.frame.select(url=f"{side}_url", sha256=f"{side}_sha256") for side in links.kind.spoken]
    found: list[tuple[str, str]] = pl.concat(tables).unique(subset="sha256", keep="first").sort("url").rows()
    return found


def _table(text: bytes) -> pl.DataFrame:
    names = text.partition(b"\n")[0].decode().split("\t")
    frame = pl.read_csv(io.BytesIO(text), separator="\t", quote_char=None, schema=dict.fromkeys(names, pl.String))
    texts = [name for name in names if name not in _NUMBERS]
    return frame.with_columns(
        pl.col(texts).fill_null("").str.replace_many(list(_LETTERS), list(_LETTERS.values())),
        *(pl.col(name).cast(_NUMBERS[name]) for name in names if name in _NUMBERS),
    )


def _kind_of(names: list[str]) -> Kind:
    return next(kind for kind in KINDS if kind.spoken and columns(kind.spoken) == names)


def _no_links(path: Path, why: str) -> LakeError:
    return LakeError(
        f"{path} cannot be read as a table of links: {why}.",
        expected=f"a gzipped table with {', '.join(SPOKEN)} of each spoken side, {', '.join(WRITTEN)} of a written one",
        cause="it is another file, or was cut short or edited",
        fix="export it again with --format links",
    )
