"""The report as one HTML file: figures, plots, tables and pairs to listen to; the same bytes for the same lake.

What belongs here is markup. Whatever comes from outside (titles, readers, sentences) is escaped and kept apart from the
direction of the text around it; the page's policy forbids every script but its own, and every address.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import polars as pl

from speech_mining.corpora.manifest import read_corpus
from speech_mining.errors import LakeError
from speech_mining.lake import Lake
from speech_mining.listening.accuracy import suggested_threshold
from speech_mining.listening.candidates import Candidates, candidates
from speech_mining.listening.charts import accuracy_chart, distribution_chart, hours_chart
from speech_mining.listening.judgements import Judged
from speech_mining.listening.pages import language_name
from speech_mining.listening.room import Wish, curve_of, told_suggestion, verdict_counts
from speech_mining.quality.hours import hours_together
from speech_mining.quality.summary import PairSummary, Summary
from speech_mining.report.samples import Gathering, ReportPlan, Sample, Side

VERSION = "2"
_WAYS = {"sum": "sum", "union": "union", "postprocessed": "post-processed"}


@dataclass(frozen=True)
class _Cell:
    shown: str
    value: str | float | None = None
    """What it is sorted by; None: what is shown."""
    link: str = ""


def report_html(
    lake: Lake,
    summary: Summary,
    plan: ReportPlan | None = None,
    *,
    transcripts: pl.DataFrame | None = None,
    judged: Mapping[tuple[str, str], Judged] | None = None,
) -> str:
    """Tell of a lake in one file that opens anywhere, without a network.

    A pair of languages whose pairs or whose sound cannot be read is told of in its place; the rest is there.

    Args:
        lake: to read pairs and recordings from.
        summary: of `quality.summary.summarise`.
        plan: how many samples, and how much sound.
        transcripts: `report.samples.TRANSCRIPTS`, of those recordings whose words are known.
        judged: (kind, pair) → what people said.
    """
    plan = plan or ReportPlan()
    pairs = [*summary.language_pairs, *summary.with_text]
    gathering = Gathering(lake, plan, transcripts)
    share = plan.audio_bytes // max(len(pairs), 1)
    sections = [_pair(gathering, pair, share, (judged or {}).get((pair.kind.name, pair.pair))) for pair in pairs]
    body = [_header(summary), "<main>", _corpora(pairs), _all_together(summary), *sections, "</main>", _FOOTER]
    return _document("".join(body))


def _document(body: str) -> str:
    style = _static("listening", "figures.css") + _static("report", "report.css")
    script = _static("report", "report.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; media-src data:; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f'<title>Quality report</title><link rel="icon" href="data:,"><style>{style}</style></head><body>'
        f"{body}<script>{script}</script></body></html>\n"
    )


def _static(package: str, name: str) -> str:
    return resources.files(f"speech_mining.{package}").joinpath(f"static/{name}").read_text("utf-8")


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _header(summary: Summary) -> str:
    figures = {
        "audiobooks": f"{summary.audiobooks:,}",
        "recordings": f"{summary.recordings:,}",
        "audio": _duration(summary.audio_hours),
        "segments": f"{summary.segments:,}",
        "pairs of speech": f"{summary.pairs:,}",
        **({"sentences": f"{summary.sentences:,}"} if summary.sentences else {}),
        **({"precision": f"{summary.precision:.1%}"} if summary.precision is not None else {}),
        **({"recall": f"{summary.recall:.1%}"} if summary.recall is not None else {}),
    }
    told = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures.items())
    return (
        '<header><h1>Quality report</h1><p class="quiet">Every corpus of the lake: how much it holds at any threshold, '
        f'and what it sounds like.</p><dl class="figures">{told}</dl></header>'
    )


_FOOTER = (
    "<footer><p>Sum counts every pair, union every stretch of speech once, post-processed what is left of the best "
    "first without overlaps. Samples are drawn over all scores by a seed, from below the threshold too.</p></footer>"
)


def _corpora(pairs: Sequence[PairSummary]) -> str:
    compared = any(pair.comparison for pair in pairs)
    heads = ["corpus", "kind", "pairs", "threshold", "source", "target", *(["precision", "recall"] if compared else [])]
    lines = []
    for pair in pairs:
        found = pair.comparison
        shares = [found.precision, found.recall] if found else [None, None]
        lines.append(
            [
                _Cell(_names(pair.pair), pair.pair, f"#{_anchor(pair)}"),
                _Cell(pair.kind.name),
                _Cell(f"{pair.pairs:,}", pair.pairs),
                _Cell(f"{pair.threshold:.2f}"),
                *(_hours_cell(hours) for hours in (pair.source_hours, pair.target_hours)),
                *([_Cell("" if share is None else f"{share:.1%}", share) for share in shares] if compared else []),
            ]
        )
    return f'<section id="corpora"><h2>Corpora</h2><div class="sheet scroll">{_table(heads, lines)}</div></section>'


def _all_together(summary: Summary) -> str:
    """Hours of speech with speech, over all pairs of languages."""
    tables = [pair.hours for pair in summary.language_pairs]
    if not tables:
        return ""
    hours = hours_together(tables)
    thresholds = {pair.threshold for pair in summary.language_pairs}
    chart = hours_chart(hours, thresholds.pop() if len(thresholds) == 1 else None, "Hours by threshold, all pairs")
    return (
        '<section id="all"><h2>All speech with speech</h2>'
        f'<div class="sheet">{chart}{_hours_table(hours)}</div></section>'
    )


def _pair(gathering: Gathering, pair: PairSummary, audio_bytes: int, judged: Judged | None) -> str:
    told = f"{pair.pairs:,} pairs from {pair.threshold:.2f} upward"
    heard = [_duration(hours) for hours in (pair.source_hours, pair.target_hours) if hours is not None]
    chart = hours_chart(pair.hours, pair.threshold, f"Hours by threshold, {pair.pair}") if pair.kind.spoken else ""
    try:
        found = candidates(gathering.lake, pair.kind, pair.pair)
        samples = "".join(map(_sample, gathering.samples(found, audio_bytes)))
        accuracy = "" if judged is None or not judged.lines else _accuracy(found, judged)
        behind = _distributions(gathering.lake, pair)
    except LakeError as problem:
        samples, accuracy, behind = f'<p class="trouble">{escape(str(problem))}</p>', "", []
    charts = "".join(
        f'<div class="sheet">{each}</div>' for each in (chart + _hours_table(pair.hours), *behind, accuracy) if each
    )
    return (
        f'<section id="{escape(_anchor(pair))}"><h2>{escape(_names(pair.pair))}</h2>'
        f'<p class="quiet">{escape(pair.kind.group.replace("_to_", " with "))}: {escape(told)}; '
        f"{escape(' and '.join(heard) or 'text')}</p>"
        f'<div class="charts">{charts}</div><h3>Samples over all scores</h3>{samples}</section>'
    )


def _distributions(lake: Lake, pair: PairSummary) -> list[str]:
    """What lies behind the hours: the scores of all mined pairs, and how long the spans of the corpus are."""
    scores = lake.partition(pair.kind.layer("pairs"), pair.pair).read_frame("pairs.parquet")["score"]
    corpus = read_corpus(lake.partition(pair.kind.layer("corpus"), pair.pair))
    drawn = []
    if len(scores):
        drawn.append(
            distribution_chart(
                scores, f"Scores, {pair.pair}", "score (margin) of all mined pairs", threshold=pair.threshold
            )
        )
    for side in pair.kind.spoken if corpus.height else ():
        seconds = (corpus[f"{side}_end_ms"] - corpus[f"{side}_start_ms"]) / 1000
        drawn.append(distribution_chart(seconds, f"Durations, {pair.pair}, {side}", f"seconds, {side} of the corpus"))
    return drawn


def _accuracy(found: Candidates, judged: Judged) -> str:
    wish, points = Wish(), curve_of(found, judged)
    suggestion = suggested_threshold(points, wish.precision)
    chart = accuracy_chart(
        points,
        threshold=found.threshold,
        suggested=suggestion.threshold if suggestion else None,
        precision=wish.precision,
    )
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdict_counts(found, judged).items())
    return f'{chart}<p class="quiet">Judged by people: {escape(counts)}. {escape(told_suggestion(points, wish))}</p>'


def _sample(sample: Sample) -> str:
    badge = '<span class="badge in">in the corpus</span>' if sample.in_corpus else '<span class="badge">below</span>'
    near = "".join(
        f"<li{' class=mined' if each.mined else ''}>{each.cosine:.4f} <bdi>{escape(each.told)}</bdi></li>"
        for each in sample.neighbours
    )
    neighbours = (
        f'<details><summary>Nearest to the source</summary><ol class="near">{near}</ol></details>' if near else ""
    )
    return (
        f'<article class="sample"><p class="score"><b>{sample.score:.4f}</b> {badge} '
        f'<span class="quiet">cosine {sample.cosine:.4f}</span></p>'
        f'<div class="sides">{_side(sample.source)}{_side(sample.target)}</div>{neighbours}</article>'
    )


def _side(side: Side) -> str:
    name = escape(language_name(side.language))
    sound = ""
    if side.sound is not None:
        packed = base64.b64encode(side.sound).decode("ascii")
        sound = f'<audio controls preload="metadata" aria-label="{name}" src="data:audio/mpeg;base64,{packed}"></audio>'
    elif side.silence:
        sound = f'<p class="trouble">{escape(side.silence)}</p>'
    said = (
        ""
        if side.text is None
        else f'<p class="said" dir="auto" lang="{escape(side.language)}">{escape(side.text)}</p>'
    )
    facts = "".join(f'<div><dt>{escape(of)}</dt><dd dir="auto">{escape(told)}</dd></div>' for of, told in side.facts)
    link = "" if side.url is None else f"<div><dt>address</dt><dd>{_anchor_to(side.url)}</dd></div>"
    return (
        f'<div><p class="language">{name}{", written" if side.written else ""}</p>{sound}{said}'
        f'<details><summary>Where it comes from</summary><dl class="facts">{facts}{link}</dl></details></div>'
    )


def _anchor_to(url: str) -> str:
    return f'<a href="{escape(url)}" rel="noopener noreferrer">{escape(url)}</a>'


def _hours_table(hours: pl.DataFrame) -> str:
    columns = [name for name in hours.columns if name.endswith("_h") and not hours[name].null_count()]
    heads = ["threshold", "pairs", *(_head(name) for name in columns)]
    lines = [
        [_Cell(f"{row['threshold']:.2f}"), _Cell(f"{row['pairs']:,}", row["pairs"])]
        + [_Cell(f"{row[name]:.3f}") for name in columns]
        for row in hours.iter_rows(named=True)
    ]
    table = f'<div class="scroll">{_table(heads, lines)}</div>'
    return f"<details><summary>Hours at every threshold</summary>{table}</details>"


def _head(column: str) -> str:
    side, _, way = column.removesuffix("_h").partition("_")
    return f"{_WAYS[way]}, {side}"


def _table(heads: Iterable[str], lines: Iterable[Sequence[_Cell]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    rows = "".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in lines)
    return f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _cell(cell: _Cell) -> str:
    value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
    shown = f'<a href="{escape(cell.link)}">{escape(cell.shown)}</a>' if cell.link else escape(cell.shown)
    return f"<td{value}>{shown}</td>"


def _hours_cell(hours: float | None) -> _Cell:
    return _Cell("text", -1) if hours is None else _Cell(_duration(hours), round(hours, 6))


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _names(pair: str) -> str:
    return " – ".join(language_name(code) for code in pair.split("-"))


def _anchor(pair: PairSummary) -> str:
    return f"{pair.kind.name}-{pair.pair}"
