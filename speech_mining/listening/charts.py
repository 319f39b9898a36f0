"""Figures as SVG: accuracy and hours by threshold, distributions. Light and dark come from the page's style sheet.

What belongs here turns numbers into markup, the same text for the same numbers. Every string that is drawn is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import polars as pl

from speech_mining.listening.accuracy import AtThreshold

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 30, 46
_COUNTS = 34  # height of the bars that tell how many pairs were judged
_WAYS = {"sum": "sum", "union": "union", "postprocessed": "post-processed"}
_BINS = 40
_STEPS = (1, 2, 2.5, 5, 10)
_VARIABLE = re.compile(r"var\(--([a-z-]+)\)")
_LIGHT = {
    "quiet": "#667080",
    "rule": "#e3e1dc",
    "accent": "#2767a5",
    "accent-soft": "#dbe8f4",
    "right": "#2f7d4f",
    "sum": "#8b95a3",
    "union": "#2767a5",
    "post": "#b23a48",
}

Point = tuple[float, float]


@dataclass(frozen=True)
class _Axes:
    """From figures to places on the drawing."""

    low_x: float
    high_x: float
    high_y: float
    low_y: float = 0.0
    floor: float = HEIGHT - _BOTTOM

    def x(self, value: float) -> float:
        span = self.high_x - self.low_x or 1.0
        return round(_LEFT + (value - self.low_x) / span * (WIDTH - _LEFT - _RIGHT), 2)

    def y(self, value: float) -> float:
        span = self.high_y - self.low_y or 1.0
        return round(self.floor - (value - self.low_y) / span * (self.floor - _TOP), 2)

    def points(self, values: Iterable[Point]) -> str:
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in values)


def accuracy_chart(
    curve: Sequence[AtThreshold],
    *,
    threshold: float | None = None,
    suggested: float | None = None,
    precision: float | None = None,
) -> str:
    """Accuracy by threshold with its interval as a band, and below it how many judgements stand behind each point.

    Args:
        curve: of `accuracy_by_threshold`; may be empty.
        threshold: in force; a dotted line.
        suggested: a solid line.
        precision: wanted; a level line.

    Returns:
        An `<svg>`.
    """
    low, high = (curve[0].threshold, curve[-1].threshold) if curve else (1.0, 1.2)
    axes = _Axes(low, max(high, low + 0.01), 1.0, floor=HEIGHT - _BOTTOM - _COUNTS)
    known = [(at.threshold, at.accuracy) for at in curve if at.accuracy]
    band = [(x, found.high) for x, found in known] + [(x, found.low) for x, found in reversed(known)]
    drawn = [
        *_levels(axes, (0, 0.25, 0.5, 0.75, 1), lambda level: f"{level:.0%}"),
        *_thresholds(axes),
        *_judged(axes, curve),
        f'<polygon class="band" points="{axes.points(band)}"/>' if known else "",
        *([_level(axes, precision)] if precision is not None else []),
        f'<polyline class="line" points="{axes.points((x, found.share) for x, found in known)}"/>' if known else "",
        *(_dot(axes, at) for at in curve if at.accuracy),
        *([_mark(axes, threshold, "in-force", f"in force {threshold:g}")] if threshold is not None else []),
        *([_mark(axes, suggested, "suggested", f"suggested {suggested:g}", 14)] if suggested is not None else []),
        "" if known else f'<text class="empty" x="{WIDTH / 2}" y="{axes.y(0.5)}">nothing judged yet</text>',
    ]
    return _svg(drawn, "Accuracy by threshold", "threshold (margin score)", "pairs that are right")


def hours_chart(hours: pl.DataFrame, threshold: float | None, title: str) -> str:
    """Hours of speech by threshold: sum, union and post-processed; the target side dashed.

    Args:
        hours: columns `quality.hours.HOURS`; a side of text has nulls, and no line.
        threshold: in force; a dotted line.
        title: what is read out.

    Returns:
        An `<svg>` and a list that explains its lines.
    """
    columns = [name for name in hours.columns if name.endswith("_h") and not hours[name].null_count()]
    most = max((float(hours[name].max() or 0) for name in columns), default=0.0)  # type: ignore[arg-type]
    scale, unit = (60, "minutes") if most < 1 else (1, "hours")
    at = hours["threshold"].to_list() or [1.0, 1.2]
    axes = _Axes(at[0], max(at[-1], at[0] + 0.01), most * scale or 1.0)
    drawn = [*_levels(axes, _rounded(axes.high_y), lambda level: f"{level:g}"), *_thresholds(axes)]
    for side in ("source", "target"):
        for way in _WAYS:
            if (name := f"{side}_{way}_h") in columns:
                points = axes.points(zip(at, (scale * hours[name]).to_list(), strict=True))
                drawn.append(f'<polyline class="{way} {side}" points="{points}"/>')
    drawn += [_mark(axes, threshold, "in-force", f"in force {threshold:g}")] if threshold is not None else []
    return _svg(drawn, title, "threshold (margin score)", f"speech ({unit})") + _legend(columns)


def distribution_chart(values: pl.Series, title: str, across: str, *, threshold: float | None = None) -> str:
    """How many pairs lie where: a histogram.

    Args:
        values: of each pair, such as its score; at least one.
        title: what is read out.
        across: what the values are.
        threshold: in force; a dotted line.

    Returns:
        An `<svg>`.
    """
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
    width = (high - low) / _BINS or 1.0
    places = ((values - low) / width).floor().clip(0, _BINS - 1).cast(pl.Int64)
    counts = dict(places.value_counts().iter_rows())
    axes = _Axes(low, low + _BINS * width, float(max(counts.values())))
    bars = [
        f'<rect class="bar" x="{axes.x(low + place * width)}" y="{axes.y(count)}" '
        f'width="{round((WIDTH - _LEFT - _RIGHT) / _BINS - 1, 2)}" height="{round(axes.floor - axes.y(count), 2)}"/>'
        for place, count in sorted(counts.items())
    ]
    drawn = [*_levels(axes, _rounded(axes.high_y), lambda level: f"{level:g}"), *bars]
    drawn += [
        f'<text class="below" x="{axes.x(at)}" y="{HEIGHT - _BOTTOM + 18}">{at:.3g}</text>'
        for at in (low + step * _BINS * width / 4 for step in range(5))
    ]
    inside = threshold is not None and low <= threshold <= high
    drawn += [_mark(axes, threshold, "in-force", f"in force {threshold:g}")] if threshold is not None and inside else []
    return _svg(drawn, title, across, "pairs")


def _svg(drawn: Sequence[str], title: str, across: str, up: str) -> str:
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        + "".join(drawn)
        + f'<text class="across" x="{middle}" y="{HEIGHT - 4}">{escape(across)}</text>'
        + f'<text class="up" x="{_LEFT - 56}" y="{_TOP - 14}">{escape(up)}</text></svg>'
    )


def _levels(axes: _Axes, levels: Iterable[float], tell: Callable[[float], str]) -> list[str]:
    drawn = []
    for level in levels:
        y = axes.y(level)
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        drawn.append(f'<text class="side" x="{_LEFT - 8}" y="{y + 4}">{escape(tell(level))}</text>')
    return drawn


def _thresholds(axes: _Axes) -> list[str]:
    first, last = round(axes.low_x * 100), round(axes.high_x * 100)
    step = max(1, -(-(last - first) // 8))
    return [
        f'<text class="below" x="{axes.x(value / 100)}" y="{HEIGHT - _BOTTOM + 18}">{value / 100:.2f}</text>'
        for value in range(first, last + 1, step)
    ]


def _judged(axes: _Axes, curve: Sequence[AtThreshold]) -> list[str]:
    """Bars below: judgements behind each point, next to the most behind any."""
    most = max((at.judged for at in curve), default=0)
    if not most:
        return []
    base, width = HEIGHT - _BOTTOM, max(2.0, (WIDTH - _LEFT - _RIGHT) / max(len(curve), 1) * 0.6)
    bars = [
        f'<rect class="judged" x="{axes.x(at.threshold) - width / 2:.2f}" width="{width:.2f}" '
        f'y="{base - (_COUNTS - 12) * at.judged / most:.2f}" height="{(_COUNTS - 12) * at.judged / most:.2f}">'
        f"<title>{at.judged} judged from {at.threshold:.2f}</title></rect>"
        for at in curve
    ]
    return [*bars, f'<text class="side" x="{_LEFT - 18}" y="{base}">{most}</text>']


def _dot(axes: _Axes, at: AtThreshold) -> str:
    found = at.accuracy
    if found is None:
        return ""
    told = f"from {at.threshold:.2f}: {found.share:.1%} ({found.low:.1%} to {found.high:.1%}), {at.judged} judged"
    x, y = axes.x(at.threshold), axes.y(found.share)
    return f'<circle class="dot" cx="{x}" cy="{y}" r="3"><title>{told}</title></circle>'


def _level(axes: _Axes, precision: float) -> str:
    y = axes.y(precision)
    return f'<line class="wanted" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'


def _mark(axes: _Axes, threshold: float, name: str, told: str, lower: float = 0) -> str:
    x = axes.x(threshold)
    if not _LEFT <= x <= WIDTH - _RIGHT:
        return ""
    anchor, shift = ("end", -5) if x > WIDTH / 2 else ("start", 5)
    y = axes.floor - 8 - lower
    return (
        f'<line class="{name}" x1="{x}" x2="{x}" y1="{_TOP}" y2="{axes.floor}"/>'
        f'<text class="{name}" x="{x + shift}" y="{y}" text-anchor="{anchor}">{escape(told)}</text>'
    )


def _rounded(most: float) -> list[float]:
    """About four round figures up to the most."""
    power = 10.0 ** len(str(int(most / 4))) / 10 if most >= 4 else 1.0
    while power > most / 2:
        power /= 10
    step = next((power * step for step in _STEPS if most / (power * step) <= 5), power * 10)
    return [round(step * count, 6) for count in range(int(most / step) + 1)]


def _legend(columns: Sequence[str]) -> str:
    """Below the drawing, where it may wrap on a phone."""
    known = [(way, side) for way in _WAYS for side in ("source", "target") if f"{side}_{way}_h" in columns]
    items = "".join(
        f'<li><svg class="chart swatch" viewBox="0 0 28 8" aria-hidden="true">'
        f'<line class="{way} {side}" x1="1" x2="27" y1="4" y2="4"/></svg>{_WAYS[way]}, {side}</li>'
        for way, side in known
    )
    return f'<ul class="legend">{items}</ul>'


def accuracy_picture(curve: Sequence[AtThreshold], *, threshold: float | None, precision: float | None) -> str:
    """The accuracy chart as an SVG file of its own, light, for places that have no style sheet of ours."""
    style = resources.files("speech_mining.listening").joinpath("static/figures.css").read_text("utf-8")
    light = _VARIABLE.sub(lambda found: _LIGHT.get(found[1], "#000"), style[style.index(".chart {") :])
    chart = accuracy_chart(curve, threshold=threshold, precision=precision)
    size = f'xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
    drawn = chart.replace('class="chart"', f'class="chart" {size}', 1)
    return drawn.replace(">", f'><style>{light}</style><rect width="100%" height="100%" fill="#fff"/>', 1)
