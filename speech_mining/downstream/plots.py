"""Pictures of a study: each metric by threshold, with the hours that it is worth. PNGs, the same bytes for the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from speech_mining.downstream.tables import BASE, MINED, RANDOM, TRUE
from speech_mining.quality.plots import INK, as_png, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {MINED: "#d1495b", BASE: "#9aa5b1", TRUE: "#2f7fb8", RANDOM: "#b8860b"}
_NAMES = {BASE: "base alone", MINED: "base + mined", TRUE: "base + true pairs", RANDOM: "base + random pairs"}


def plot_study(compared: pl.DataFrame, metric: str, title: str = "") -> bytes:
    """A metric against the threshold, left, and against the hours of mined speech, right.

    Bars are the spread over seeds; lines across are the base, the true pairs and the random ones.

    Args:
        compared: `comparison.COMPARED`.
        metric: such as BLEU.
        title: such as the language pair.

    Returns:
        A PNG.
    """
    rows = compared.filter(metric=metric)
    figure = new_figure(9, 4)
    by_threshold, by_hours = figure.subplots(1, 2, sharey=True)
    mined = rows.filter(condition=MINED)
    for axes, across in ((by_threshold, "threshold"), (by_hours, "hours")):
        _draw(axes, mined.sort(across), across)
        for row in rows.filter(pl.col("condition") != MINED).iter_rows(named=True):
            name = row["condition"]
            axes.axhline(row["mean"], color=_COLOURS[name], linewidth=1.5, linestyle="--", label=_NAMES[name])
    by_threshold.set_xlabel("threshold (margin score)", color=INK)
    by_hours.set_xlabel("hours of mined speech", color=INK)
    by_threshold.set_ylabel(metric, color=INK)
    by_threshold.set_title(title, fontsize=11, loc="left", color=INK)
    by_hours.legend(frameon=False, fontsize=8)
    return as_png(figure)


def _draw(axes: Axes, mined: pl.DataFrame, across: str) -> None:
    axes.errorbar(
        mined[across].to_numpy(),
        mined["mean"].to_numpy(),
        yerr=mined["spread"].fill_null(0.0).to_numpy(),
        fmt="o-",
        markersize=4,
        capsize=3,
        color=_COLOURS[MINED],
        label=_NAMES[MINED],
    )
    style_axes(axes)
