"""Figures as SVG: accuracy by threshold, hours by threshold. Light and dark come from the page's style sheet.

What belongs here turns numbers into markup, the same text for the same numbers. Every string that is drawn is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import polars as pl

from speech_mining.listening.accuracy import AtThreshold

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 14, 40
_COUNTS = 34  # height of the bars that tell how many pairs were judged
_WAYS = {"sum": "sum", "union": "union", "postprocessed": "post-processed"}
_STEPS = (1, 2, 2.5, 5, 10)

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
        *([_level(axes, precision)] if precision is not None else []),
        f'<polygon class="band" points="{axes.points(band)}"/>' if known else "",
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
    return _svg([*drawn, *_legend(columns)], title, "threshold (margin score)", f"speech ({unit})")


def _svg(drawn: Sequence[str], title: str, across: str, up: str) -> str:
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        + "".join(drawn)
        + f'<text class="across" x="{middle}" y="{HEIGHT - 4}">{escape(across)}</text>'
        + f'<text class="up" x="{_LEFT}" y="{_TOP - 4}">{escape(up)}</text></svg>'
    )


def _levels(axes: _Axes, levels: Iterable[float], tell: object) -> list[str]:
    drawn = []
    for level in levels:
        y = axes.y(level)
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        drawn.append(f'<text class="side" x="{_LEFT - 8}" y="{y + 4}">{escape(tell(level))}</text>')  # type: ignore[operator]
    return drawn


def _thresholds(axes: _Axes) -> list[str]:
    first, last = round(axes.low_x * 100), round(axes.high_x * 100)
    step = max(1, -(-(last - first) // 8))
    return [
        f'<text class="below" x="{axes.x(value / 100)}" y="{HEIGHT - _BOTTOM + 16}">{value / 100:.2f}</text>'
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
    return [*bars, f'<text class="side" x="{_LEFT - 8}" y="{base}">{most}</text>']


def _dot(axes: _Axes, at: AtThreshold) -> str:
    found = at.accuracy
    if found is None:
        return ""
    told = f"from {at.threshold:.2f}: {found.share:.1%} ({found.low:.1%} to {found.high:.1%}), {at.judged} judged"
    return f'<circle class="dot" cx="{axes.x(at.threshold)}" cy="{axes.y(found.share)}" r="3"><title>{told}</title></circle>'


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


def _legend(columns: Sequence[str]) -> list[str]:
    drawn, y = [], float(_TOP + 10)
    for way, name in _WAYS.items():
        for side in ("source", "target"):
            if f"{side}_{way}_h" in columns:
                x = WIDTH - 178
                drawn.append(f'<line class="{way} {side}" x1="{x}" x2="{x + 24}" y1="{y - 4}" y2="{y - 4}"/>')
                drawn.append(f'<text class="legend" x="{x + 32}" y="{y}">{name}, {side}</text>')
                y += 15
    return drawn
