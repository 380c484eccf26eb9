"""Scatter plots as SVG that takes its colours from the page, so that one picture serves light and dark.

    svg(points, width=560, height=340, title="...", x_title="bytes a passage", y_title="nDCG@10")

A point that no other beats in both directions is on the Pareto front: filled, and joined by a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 46
_CHARACTER, _LINE = 7.4, 14
_GAP = 10
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """A system: its cost above 0, its quality, and the interval of the quality."""

    name: str
    cost: float
    quality: float
    low: float
    high: float
    baseline: bool = False


def front(points: Sequence[Point]) -> list[Point]:
    """Those than which none is at least as cheap and at least as good, and better in one; the cheapest first."""
    return sorted(
        (
            point
            for point in points
            if not any(
                other.cost <= point.cost
                and other.quality >= point.quality
                and (other.cost < point.cost or other.quality > point.quality)
                for other in points
            )
        ),
        key=lambda point: point.cost,
    )


def svg(points: Sequence[Point], *, width: int, height: int, title: str, x_title: str, y_title: str) -> str:
    """The plot: cost on a logarithmic axis, quality above it, labels that avoid each other."""
    canvas = _Canvas(points, width, height)
    best = front(points)
    summary = "; ".join(f"{p.name}: {_number(p.cost)}, {p.quality:.3f}" for p in sorted(points, key=lambda p: p.cost))
    line = " ".join(f"{canvas.x(p.cost):.1f},{canvas.y(p.quality):.1f}" for p in best)
    parts = [
        f'<svg class="plot" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(f"{title}. {x_title} and {y_title} of each system: {summary}.")}">',
        *canvas.axes(x_title, y_title),
        f'<polyline class="front" points="{line}"/>' if len(best) > 1 else "",
        *(canvas.point(point, point in best) for point in points),
        *canvas.labels(points),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


class _Canvas:
    def __init__(self, points: Sequence[Point], width: int, height: int) -> None:
        self.width, self.height = width, height
        costs = [math.log10(point.cost) for point in points]
        margin = max(0.15, 0.08 * (max(costs) - min(costs)))
        self.x_low, self.x_high = min(costs) - margin, max(costs) + margin
        lows, highs = [point.low for point in points], [point.high for point in points]
        pad = max(0.01, 0.08 * (max(highs) - min(lows)))
        self.y_low, self.y_high = max(0.0, min(lows) - pad), max(highs) + pad

    def x(self, cost: float) -> float:
        share = (math.log10(cost) - self.x_low) / (self.x_high - self.x_low)
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, quality: float) -> float:
        share = (quality - self.y_low) / (self.y_high - self.y_low)
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)

    def axes(self, x_title: str, y_title: str) -> list[str]:
        bottom, right = self.height - _BOTTOM, self.width - _RIGHT
        parts = []
        for value in _steps(self.y_low, self.y_high):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
        for cost in _powers(self.x_low, self.x_high):
            x = self.x(cost)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
            parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{_number(cost)}</text>')
        middle = (_LEFT + right) / 2
        parts.append(
            f'<text class="axis" x="{middle:.0f}" y="{self.height - 8}" text-anchor="middle">{escape(x_title)}</text>'
        )
        turned = f"translate(12 {(_TOP + bottom) / 2:.0f}) rotate(-90)"
        parts.append(f'<text class="axis" transform="{turned}" text-anchor="middle">{escape(y_title)}</text>')
        return parts

    def point(self, point: Point, best: bool) -> str:
        x, y = self.x(point.cost), self.y(point.quality)
        kind = ("best" if best else "beaten") + (" baseline" if point.baseline else "")
        interval = f"{point.low:.3f} to {point.high:.3f}"
        shape = (
            f'<path class="mark" d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"/>'
            if point.baseline
            else f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
        )
        return (
            f'<g class="{kind}"><title>{escape(point.name)}: {_number(point.cost)}, {point.quality:.3f} ({interval})</title>'
            f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{self.y(point.low):.1f}" y2="{self.y(point.high):.1f}"/>'
            f"{shape}</g>"
        )

    def labels(self, points: Sequence[Point]) -> list[str]:
        """Each beside its point, at the first place that is free."""
        taken = [(self.x(p.cost) - 6, self.y(p.quality) - 6, self.x(p.cost) + 6, self.y(p.quality) + 6) for p in points]
        parts = []
        for point in sorted(points, key=lambda p: -p.quality):
            width = _CHARACTER * len(point.name)
            places = self._places(self.x(point.cost), self.y(point.quality), width)
            left, middle = min(places, key=lambda place: self._crowding(place, width, taken))
            taken.append((left, middle - _LINE / 2, left + width, middle + _LINE / 2))
            # Anchored at the point's side: a name that is shorter than it was taken for still stands next to its point.
            before = left < self.x(point.cost)
            x, anchor = (left + width, "end") if before else (left, "start")
            place = f'x="{x:.1f}" y="{middle + 4:.1f}" text-anchor="{anchor}"'
            parts.append(f'<text class="name" {place}>{escape(point.name)}</text>')
        return parts

    def _places(self, x: float, y: float, width: float) -> list[tuple[float, float]]:
        """Left edge and middle line of where a label may stand, the best place first."""
        rows = [0, -_LINE, _LINE, -1.6 * _LINE, 1.6 * _LINE, -2.6 * _LINE, 2.6 * _LINE]
        return [(left, y + row) for row in rows for left in (x + _GAP, x - _GAP - width)]

    def _crowding(self, place: tuple[float, float], width: float, taken: Sequence[_Box]) -> float:
        """How many square pixels of a label would lie on something, or outside."""
        left, middle = place
        right, top, bottom = left + width, middle - _LINE / 2, middle + _LINE / 2
        covered = sum(
            max(0.0, min(right, box[2]) - max(left, box[0])) * max(0.0, min(bottom, box[3]) - max(top, box[1]))
            for box in taken
        )
        outside = max(0.0, _LEFT - left) + max(0.0, right - self.width + 2) + max(0.0, _TOP - top)
        return covered + 1000 * (outside + max(0.0, bottom - self.height + _BOTTOM))


def _steps(low: float, high: float) -> list[float]:
    """Round values between, four to eight of them."""
    step = next((s for s in (0.01, 0.02, 0.05, 0.1) if (high - low) / s <= 8), 0.2)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten between two logarithms, and 2 and 5 times them where there are few."""
    exponents = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        values = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        values = [value for value in values if low <= math.log10(value) <= high]
        if len(values) >= 3:
            break
    return values


def _number(value: float) -> str:
    for limit, divisor, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= limit:
            return f"{value / divisor:.3g}{unit}"
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
