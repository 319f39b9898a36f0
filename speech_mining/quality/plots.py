"""Pictures of a corpus: hours by threshold, scores, similarity, coverage.

What belongs here turns figures into the bytes of a PNG, the same bytes for the same figures, small enough to live in
an asset's metadata. Where the figures come from is in `hours` and `checks`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERSION = "1"

_INK, _GRID = "#333333", "#e4e4e4"
# readable apart in print and by colour-blind eyes
_COLOURS = {"sum": "#9aa5b1", "union": "#2f7fb8", "postprocessed": "#d1495b"}
_NAMES = {"sum": "sum", "union": "union", "postprocessed": "post-processed"}


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
            label = f"{_NAMES[way]}, {side}"
            heard = scale * hours[f"{side}_{way}_h"].to_numpy()
            axes.plot(hours["threshold"].to_numpy(), heard, dashes, color=colour, linewidth=1.8, label=label)
    axes.set_ylim(bottom=0)
    _mark_threshold(axes, threshold)
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def plot_scores(scores: npt.NDArray[np.floating[Any]], threshold: float, title: str = "") -> bytes:
    """Histogram of margin scores (any shape of numbers), with the threshold in force."""
    figure, axes = _canvas(title, "margin score", "pairs")
    _bars(axes, scores)
    _mark_threshold(axes, threshold)
    return _png(figure)


def plot_similarity(cosines: npt.NDArray[np.floating[Any]], title: str = "") -> bytes:
    """Histogram of the cosine of pairs."""
    figure, axes = _canvas(title, "cosine similarity", "pairs")
    _bars(axes, cosines)
    return _png(figure)


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
    return _png(figure)


def as_markdown_image(png: bytes, alt: str = "plot") -> str:
    """A PNG as markdown that carries the image itself."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"


def _canvas(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, loc="left", color=_INK)
    axes.set_xlabel(across, color=_INK)
    axes.set_ylabel(up, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(True)
    return figure, axes


def _bars(axes: Axes, numbers: npt.NDArray[np.floating[Any]]) -> None:
    finite = np.asarray(numbers, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    if len(finite):
        axes.hist(finite, bins=50, color=_COLOURS["union"])


def _mark_threshold(axes: Axes, threshold: float) -> None:
    axes.axvline(threshold, color=_INK, linewidth=1, linestyle=":")
    place = axes.get_xaxis_transform()
    axes.annotate(f" {threshold:g}", (threshold, 1), xycoords=place, va="top", fontsize=8, color=_INK)


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    # matplotlib writes its version into the file, which would change the bytes from machine to machine
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()
