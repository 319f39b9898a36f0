"""What was measured, as one dictionary, and that dictionary as JSON or Markdown.

Nothing is measured here. Seconds and ratios are of medians, ratios to ours: above 1 the other takes longer. The least
time of the rounds stands beside, because other work on the machine slows OpenMP's barriers most: FAISS took 1.4 to
3.6 s for the same search beside one busy neighbour, one matrix product 0.56 to 0.62.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from speech_mining.atomic import replacing
from speech_mining.benchmark import agreement
from speech_mining.benchmark.contenders import OURS
from speech_mining.benchmark.rounds import Outcome, Request, found_by
from speech_mining.errors import SettingsError

Report: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, Any]
Table: TypeAlias = tuple[Sequence[str], list[list[str]]]

FORMATS = (".json", ".md")
TIMES = ("", "k-NN s", "least", "x ours", "with mining", "x ours", "peak MB")
AGREEMENTS = ("", "theirs in ours", "ours in theirs", "cosine gap", "pairs both", "only theirs", "only ours")


def checked_out(out: Path | None) -> None:
    """Refuse, before an hour of measuring, a file that could not be written after it.

    Raises:
        SettingsError: neither .json nor .md, a folder, or below a file.
    """
    if out is None:
        return
    if out.suffix not in FORMATS:
        raise SettingsError(f"The report would go to {out}.", expected="a name that ends in .json or .md")
    if out.is_dir() or any(parent.exists() and not parent.is_dir() for parent in out.parents):
        raise SettingsError(f"{out} cannot be written.", cause="a folder has that name, or a file stands in its path")


def make_report(outcomes: list[Outcome], request: Request, machine: dict[str, Any], scratch: Path) -> Report:
    """Put figures, ratios and agreement together; `scratch` holds what the contenders found."""
    sides = request.sides
    ours = next((each for each in outcomes if each.contender.name == OURS and each.problem is None), None)
    rows = [_row(outcome, ours) for outcome in outcomes]
    if ours is not None:
        for row, outcome in zip(rows, outcomes, strict=True):
            if outcome.problem is None and outcome is not ours:
                row |= _agreement(outcome, request, scratch)
    return {
        "machine": machine,
        "data": {
            "origin": sides.origin,
            "source_rows": sides.source_rows,
            "target_rows": sides.target_rows,
            "dimension": sides.dimension,
        },
        "k": request.k,
        "threads": request.threads,
        "repeats": request.repeats,
        "margin": "ratio",
        "threshold": request.threshold,
        "contenders": rows,
    }


def _row(outcome: Outcome, ours: Outcome | None) -> Row:
    row: Row = {"name": outcome.contender.name}
    if outcome.problem is not None:
        return row | asdict(outcome.problem)
    first = outcome.measures[0]
    row |= {
        "state": "measured",
        "version": first.version,
        "note": first.note,
        "seconds_knn": outcome.seconds_knn,
        "seconds_knn_least": min(measure.seconds_knn for measure in outcome.measures),
        "seconds_total": outcome.seconds_total,
        "peak_rss_mb": max(measure.peak_rss_mb for measure in outcome.measures),
        "pairs": first.pairs,
        "runs": [asdict(measure) for measure in outcome.measures],
    }
    if ours is not None:
        row["knn_times_ours"] = outcome.seconds_knn / ours.seconds_knn
        row["total_times_ours"] = _ratio(outcome.seconds_total, ours.seconds_total)
    return row


def _ratio(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or ours is None else theirs / ours


def _agreement(outcome: Outcome, request: Request, scratch: Path) -> Row:
    table = agreement.read_neighbours(scratch / "found" / OURS)
    found = found_by(outcome.contender, scratch)
    source, target = (np.load(path, mmap_mode="r") for path in (request.sides.source, request.sides.target))
    neighbours = agreement.compare_neighbours(table, found, source, target)
    row: Row = {"neighbours": None if neighbours is None else asdict(neighbours)}
    if outcome.contender.strategy:
        row["pair_agreement"] = asdict(
            agreement.compare_pairs(table, found, outcome.contender.strategy, request.threshold)
        )
    return row


def title(report: Report) -> str:
    """Machine, data and settings in a few lines."""
    machine, data = report["machine"], report["data"]
    return (
        f"{machine['processor']}, {report['threads']} threads of {machine['usable_cores']} cores, "
        f"{machine['memory_gib']} GiB, load {machine['load']}, {machine['system']}, Python {machine['python']}\n"
        f"{data['source_rows']} x {data['target_rows']} x {data['dimension']} float32 ({data['origin']}), "
        f"k = {report['k']}, median of {report['repeats']}\n"
        f"pairs by the {report['margin']} margin from {report['threshold']}"
    )


def times(report: Report) -> Table:
    """Seconds, ratios and memory of whoever was measured."""
    rows = [
        [
            row["name"],
            _seconds(row["seconds_knn"]),
            _seconds(row["seconds_knn_least"]),
            _times(row.get("knn_times_ours")),
            _seconds(row["seconds_total"]),
            _times(row.get("total_times_ours")),
            f"{row['peak_rss_mb']:.0f}",
        ]
        for row in _measured(report)
    ]
    return TIMES, rows


def agreements(report: Report) -> Table:
    """Shares of common neighbours, and common pairs."""
    rows = []
    for row in _measured(report):
        if neighbours := row.get("neighbours"):
            pairs = row.get("pair_agreement")
            counts = [str(pairs[name]) for name in ("shared", "only_theirs", "only_ours")] if pairs else ["-"] * 3
            shares = [f"{neighbours[name]:.6f}" for name in ("ours_of_theirs", "theirs_of_ours")]
            rows.append([row["name"], *shares, f"{neighbours['gap']:.1e}", *counts])
    return AGREEMENTS, rows


def notes(report: Report) -> list[str]:
    """How each ran, and why the others did not."""
    told = [f"{row['name']} {row['version']}: {row['note']}" for row in _measured(report)]
    for row in report["contenders"]:
        if row["state"] != "measured":
            told.append(f"{row['name']} {row['state']}: {row['reason']}" + (f"; {row['fix']}" if row["fix"] else ""))
    return told


def _measured(report: Report) -> list[Row]:
    return [row for row in report["contenders"] if row["state"] == "measured"]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def markdown(report: Report) -> str:
    """The same as the command prints, to be pasted into an issue."""
    parts = ["# Peers on this machine", title(report).replace("\n", "  \n")]
    parts += [_grid(*table) for table in (times(report), agreements(report)) if table[1]]
    parts.append("\n".join("- " + told.replace("\n", "\n  ") for told in notes(report)))
    return "\n\n".join(parts) + "\n"


def _grid(names: Sequence[str], rows: list[list[str]]) -> str:
    lines = [list(names), ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def write_report(report: Report, out: Path) -> None:
    """Write JSON or Markdown, by the ending of the name, whole or not at all."""
    text = json.dumps(report, indent=2) + "\n" if out.suffix == ".json" else markdown(report)
    with replacing(out) as part:
        part.write_text(text)
