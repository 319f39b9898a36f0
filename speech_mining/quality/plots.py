"""Pictures of a corpus and of recordings: hours by threshold, scores, similarity, coverage, waveforms with their cuts.

What belongs here turns figures into the bytes of a PNG, the same bytes for the same figures, small enough to live in
an asset's metadata. Where the figures come from is in `hours` and `checks`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.records import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from speech_mining.segmentation.segmenter import SegmentedRecording

VERSION = "1"

INK, GRID = "#333333", "#e4e4e4"
# readable apart in print and by colour-blind eyes
_COLOURS = {"sum": "#9aa5b1", "union": "#2f7fb8", "postprocessed": "#d1495b"}
_NAMES = {"sum": "sum", "union": "union", "postprocessed": "post-processed"}

_SPEECH, _LOST = "#cfe3f1", "#d1495b"
_MOST_CUTS = 400  # lines that a picture 1 100 pixels wide still shows apart
# As many as keep a book of 100 sections below 60 kB.
_BOOK_CELLS, _MOST_BINS = 20_000, 360
_DEPTHS = (0, 1, 4, 16, 64)


def plot_hours(hours: pl.DataFrame, threshold: float, title: str = "") -> bytes:
    """Hours by threshold: sum, union and post-processed; source solid, target dashed; a line at the threshold in force.

    Below one hour in all, the axis is in minutes.

    Args:
        hours: columns `speech_mining.quality.hours.HOURS`.
        threshold: the one the corpus is cut at.
        title: such as the language pair.

    Returns:
        A PNG.
    """
    most = hours.select(pl.selectors.ends_with("_sum_h")).max_horizontal().max()
    scale, unit = (60, "minutes") if isinstance(most, float) and most < 1 else (1, "hours")
    figure, axes = _canvas(title, "threshold (margin score)", f"speech ({unit})")
    for way, colour in _COLOURS.items():
        for side, dashes in (("source", "-"), ("target", "--")):
            if hours[f"{side}_{way}_h"].null_count():
                continue  # a side of text
            label = f"{_NAMES[way]}, {side}"
            heard = scale * hours[f"{side}_{way}_h"].to_numpy()
            axes.plot(hours["threshold"].to_numpy(), heard, dashes, color=colour, linewidth=1.8, label=label)
    axes.set_ylim(bottom=0)
    _mark_threshold(axes, threshold)
    axes.legend(frameon=False, fontsize=8)
    return as_png(figure)


def plot_scores(scores: npt.NDArray[np.floating[Any]], threshold: float, title: str = "") -> bytes:
    """Histogram of margin scores (any shape of numbers), with the threshold in force."""
    figure, axes = _canvas(title, "margin score", "pairs")
    _bars(axes, scores)
    _mark_threshold(axes, threshold)
    return as_png(figure)


def plot_similarity(cosines: npt.NDArray[np.floating[Any]], title: str = "") -> bytes:
    """Histogram of the cosine of pairs."""
    figure, axes = _canvas(title, "cosine similarity", "pairs")
    _bars(axes, cosines)
    return as_png(figure)


def plot_coverage(labels: Sequence[str], shares: Sequence[float], title: str = "") -> bytes:
    """Share of each section that lies in at least one candidate, in the order given; beyond 40 sections, unnamed.

    Args:
        labels: a name a section.
        shares: 0 to 1.
        title: such as the language.
    """
    figure, axes = _canvas(title, "section", "share in some candidate (%)")
    places = np.arange(len(shares))
    axes.bar(places, 100 * np.asarray(shares, np.float64), color=_COLOURS["union"], width=0.8)
    axes.set_ylim(0, 105)
    named = places if len(labels) <= 40 else places[:0]
    axes.set_xticks(named, [labels[place] for place in named], rotation=60, ha="right", fontsize=7)
    return as_png(figure)


def plot_curves(curves: pl.DataFrame, best_update: int, title: str = "") -> bytes:
    """A student's training: loss on what it learns from and on what is held out, and R@1 of the latter below.

    Args:
        curves: columns `update`, `loss`, `dev_loss`, `dev_recall_at_1`; the last two are null between validations.
        best_update: whose weights were kept; a line marks it.
        title: such as the student's name.

    Returns:
        A PNG.
    """
    figure = new_figure(7, 5)
    losses, recalls = figure.subplots(2, sharex=True)
    validated = curves.drop_nulls("dev_recall_at_1")
    losses.plot(curves["update"].to_numpy(), curves["loss"].to_numpy(), color=GRID, linewidth=1)
    losses.plot(curves["update"].to_numpy(), _smoothed(curves["loss"]), color=_COLOURS["union"], label="training")
    dev_loss = validated["dev_loss"].to_numpy()
    losses.plot(
        validated["update"].to_numpy(), dev_loss, "o-", markersize=3, color=_COLOURS["postprocessed"], label="dev"
    )
    losses.set_ylabel("loss")
    losses.legend(frameon=False)
    found = 100 * validated["dev_recall_at_1"].to_numpy()
    recalls.plot(validated["update"].to_numpy(), found, "o-", markersize=3, color=_COLOURS["postprocessed"])
    recalls.set_ylabel("R@1 of dev, %")
    recalls.set_xlabel("update")
    recalls.set_ylim(0, 100)
    losses.set_title(title, loc="left", fontsize=10)
    for axes in (losses, recalls):
        axes.axvline(best_update, color=INK, linewidth=0.8, linestyle=":")
        axes.grid(color=GRID)
        axes.spines[["top", "right"]].set_visible(False)
    return as_png(figure)


def _smoothed(losses: pl.Series) -> npt.NDArray[np.float64]:
    """A running mean over a fiftieth of the updates."""
    window = max(1, len(losses) // 50)
    smooth: npt.NDArray[np.float64] = losses.cast(pl.Float64).rolling_mean(window, min_samples=1).to_numpy()
    return smooth


def plot_recordings(recordings: Mapping[str, SegmentedRecording]) -> bytes:
    """Waveforms, one below the other: runs of speech shaded, a line at every cut point.

    Of a recording with more than 400 cuts only the shading is drawn.

    Args:
        recordings: name → what `segment_recording` found; at least one.

    Returns:
        A PNG.
    """
    figure = new_figure(11, 0.5 + 1.9 * len(recordings))
    panels = figure.subplots(len(recordings), squeeze=False)[:, 0]
    for axes, (name, found) in zip(panels, recordings.items(), strict=True):
        _waveform(axes, name, found)
    panels[-1].set_xlabel("seconds", color=INK)
    return as_png(figure)


def _waveform(axes: Axes, name: str, found: SegmentedRecording) -> None:
    report, runs = found.report, found.runs
    loudest = max(float(found.envelope.max(initial=0)), 1e-6)
    spans = np.stack([runs.starts, runs.ends - runs.starts], axis=1) / SAMPLE_RATE_HZ
    axes.broken_barh(spans.tolist(), (-loudest, 2 * loudest), color=_SPEECH, linewidth=0)
    places = np.linspace(0, report.duration_s, len(found.envelope), endpoint=False)
    axes.fill_between(places, -found.envelope, found.envelope, color=INK, linewidth=0)
    cuts = np.unique(np.concatenate([runs.before, runs.after])) / SAMPLE_RATE_HZ
    if len(cuts) <= _MOST_CUTS:
        axes.vlines(cuts, -loudest, loudest, color=_LOST, linewidth=0.7)
    axes.set(xlim=(0, report.duration_s or 1), ylim=(-1.05 * loudest, 1.05 * loudest), yticks=[])
    told = f"{len(runs)} runs, {report.candidates} segments, {report.coverage:.1%} of the speech covered"
    axes.set_title(f"{name}: {told}", fontsize=9, loc="left", color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def plot_audiobook(sections: pl.DataFrame, runs: pl.DataFrame, segments: pl.DataFrame, title: str = "") -> bytes:
    """A book at a glance: a row a section, blue where segments lie (the darker, the more), red where speech is in none.

    Args:
        sections: `speech_mining.segmentation.audiobook.SECTIONS`.
        runs: `speech_mining.segmentation.audiobook.RUNS`.
        segments: `speech_mining.records.SEGMENTS`.
        title: such as the book's id.

    Returns:
        A PNG.
    """
    figure, axes = _canvas(title, "minutes", "section")
    figure.set_size_inches(9, float(np.clip(1.2 + 0.24 * sections.height, 2, 9)))
    longest_s = float(sections["duration_s"].max() or 1) if sections.height else 1.0  # type: ignore[arg-type]
    bins = int(np.clip(_BOOK_CELLS // max(sections.height, 1), 60, _MOST_BINS))
    places = ((np.arange(bins) + 0.5) * longest_s / bins * SAMPLE_RATE_HZ).astype(np.int64)
    image = np.ones((max(sections.height, 1), bins, 3))
    for row, (section, duration_s) in enumerate(sections.select("section", "duration_s").iter_rows()):
        of_section = pl.col("section") == section
        strip = _strip(places, runs.filter(of_section), segments.filter(of_section))
        within = places < duration_s * SAMPLE_RATE_HZ
        image[row, within] = strip[within]
    axes.imshow(image, aspect="auto", interpolation="nearest", extent=(0, longest_s / 60, len(image) - 0.5, -0.5))
    _name_sections(axes, sections)
    axes.grid(visible=False)
    return as_png(figure)


def _strip(places: npt.NDArray[np.int64], runs: pl.DataFrame, segments: pl.DataFrame) -> npt.NDArray[np.float64]:
    """Colour of each place: (places, 3), 0 to 1."""
    from matplotlib.colors import to_rgb

    speech, depth = _depth(places, runs), _depth(places, segments)
    pale, full = np.array(to_rgb(_SPEECH)), np.array(to_rgb("#0b3c5d"))
    shade = (np.searchsorted(_DEPTHS, depth, side="left") / len(_DEPTHS))[:, None]
    strip = np.where(depth[:, None] > 0, pale + shade * (full - pale), np.array(to_rgb(GRID)))
    strip[(speech > 0) & (depth == 0)] = to_rgb(_LOST)
    return strip


def _depth(places: npt.NDArray[np.int64], spans: pl.DataFrame) -> npt.NDArray[np.int64]:
    """How many spans hold each place."""
    starts, ends = (spans[name].sort().to_numpy() for name in ("start_sample", "end_sample"))
    begun = np.searchsorted(starts, places, side="right")
    return np.asarray(begun - np.searchsorted(ends, places, side="right"), dtype=np.int64)


def _name_sections(axes: Axes, sections: pl.DataFrame) -> None:
    step = max(-(-sections.height // 40), 1)
    named = range(0, sections.height, step)
    shown = sections.select("section", "coverage").rows()
    axes.set_yticks(list(named), [str(shown[row][0]) for row in named], fontsize=7)
    for row in named:
        place = axes.get_yaxis_transform()
        axes.annotate(f" {shown[row][1]:.0%}", (1, row), xycoords=place, va="center", fontsize=7, color=INK)


def as_markdown_image(png: bytes, alt: str = "plot") -> str:
    """A PNG as markdown that carries the image itself."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of so many inches, at 100 dots each, that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _canvas(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    figure = new_figure(7, 4)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, loc="left", color=INK)
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    style_axes(axes)
    return figure, axes


def _bars(axes: Axes, numbers: npt.NDArray[np.floating[Any]]) -> None:
    finite = np.asarray(numbers, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    if len(finite):
        axes.hist(finite, bins=50, color=_COLOURS["union"])


def _mark_threshold(axes: Axes, threshold: float) -> None:
    axes.axvline(threshold, color=INK, linewidth=1, linestyle=":")
    place = axes.get_xaxis_transform()
    axes.annotate(f" {threshold:g}", (threshold, 1), xycoords=place, va="top", fontsize=8, color=INK)


def style_axes(axes: Axes) -> None:
    """Leave the lines at the left and at the foot, and pale lines across, behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG: the same bytes for the same figure."""
    written = io.BytesIO()
    # matplotlib writes its version into the file, which would change the bytes from machine to machine
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()
