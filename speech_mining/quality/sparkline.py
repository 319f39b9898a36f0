"""A figure's history as a small line, in SVG: a few hundred bytes that every browser draws."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

WIDTH, HEIGHT, MARGIN = 120, 24, 3


def sparkline(values: Sequence[float]) -> str:
    """Draw values from left to right, a dot at the last; what is not a number is left out.

    The lowest value lies at the bottom and the highest at the top; where all are equal, the line runs in the middle.

    Returns:
        An SVG, 120 by 24 pixels, the same for the same values.
    """
    points = _points(values)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dot = f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2.5" fill="#d1495b"/>' if points else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<polyline points="{line}" fill="none" stroke="#2f7fb8" stroke-width="1.5"/>{dot}</svg>'
    )


def as_markdown_sparkline(values: Sequence[float], alt: str = "history") -> str:
    """A sparkline as markdown that carries the image itself."""
    encoded = base64.b64encode(sparkline(values).encode()).decode("ascii")
    return f"![{alt}](data:image/svg+xml;base64,{encoded})"


def _points(values: Sequence[float]) -> list[tuple[float, float]]:
    finite = [(place, value) for place, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        return []
    lowest, highest = min(value for _, value in finite), max(value for _, value in finite)
    across, up = max(len(values) - 1, 1), (highest - lowest) or 1.0
    middle = 0.5 if highest == lowest else 0.0
    return [
        (
            MARGIN + (WIDTH - 2 * MARGIN) * place / across,
            HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * ((value - lowest) / up + middle),
        )
        for place, value in finite
    ]
