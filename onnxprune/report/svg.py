"""Pictures as inline SVG that fit any width: positions are shares of the width, sizes of letters and dots are pixels.

Nothing is scaled as a whole, so that text on a phone is as large as on a desk.  Every picture has a title and a
description for those who hear the page (https://www.w3.org/TR/svg-aam-1.0/); colours are classes of the style sheet.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from onnxprune.report.words import clean

Point = tuple[float, float]
MARKS = (  # a shape for each colour, for those who do not see it
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
    "M-4.5,-4.5h9v9h-9z",
    "M0,-6L5.5,4.5H-5.5z",
    "M0,-6.5L5,0L0,6.5L-5,0z",
    "M0,6L5.5,-4.5H-5.5z",
    "M-2,-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
)
STEPS = (1, 2, 2.5, 5, 10)


def safe(text: object) -> str:
    """Text from anywhere as it may stand in a page."""
    return escape(clean(text), quote=True)


@dataclass(frozen=True)
class Axis:
    """A line of numbers from `low` to `high`, what they are, and how one is written; `unit` is what is round there."""

    name: str
    low: float
    high: float
    text: Callable[[float], str]
    unit: float = 1.0

    @classmethod
    def around(
        cls, name: str, values: Iterable[float], text: Callable[[float], str], *, zero: bool = False, unit: float = 1.0
    ) -> "Axis":
        """An axis that holds all values that are numbers, with some room, from zero on where that is wanted."""
        found = [v for v in values if math.isfinite(v)] or [0.0]
        low, high = min(found), max(found)
        room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
        return cls(name, 0.0 if zero and low >= 0 else low - room, high + room, text, unit)

    def at(self, value: float) -> float:
        """Per cent of the way from `low` to `high`, at an end for what lies beyond it or is no number."""
        if math.isnan(value):
            return 0.0
        return 100 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[float]:
        """Round numbers on it, at most so many."""
        rough = (self.high - self.low) / most
        power = self.unit * 10 ** math.floor(math.log10(rough / self.unit))
        step = next(s * power for s in STEPS if s * power >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Plot:
    """Two axes, to draw on; y grows upwards."""

    x: Axis
    y: Axis

    def mark(self, point: Point, kind: int, words: str, style: str = "") -> str:
        """A dot at a point; `words` are shown where a pointer rests on it."""
        place = f'x="{self.x.at(point[0]):.2f}%" y="{100 - self.y.at(point[1]):.2f}%"'
        shape = f'<path class="c{kind % len(MARKS)} {style}" d="{MARKS[kind % len(MARKS)]}"/>'
        return f'<svg {place} class="dot"><g><title>{safe(words)}</title>{shape}</g></svg>'

    def line(self, points: Sequence[Point], style: str, words: str = "") -> str:
        """A line through points."""
        places = " ".join(f"{10 * self.x.at(x):.1f},{1000 - 10 * self.y.at(y):.1f}" for x, y in points)
        title = f"<title>{safe(words)}</title>" if words else ""
        shape = f'<polyline class="{style}" points="{places}">{title}</polyline>'
        return f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">{shape}</svg>'

    def level(self, value: float, words: str) -> str:
        """A line across at a value of y, with words above it."""
        y = f"{100 - self.y.at(value):.2f}%"
        line = f'<line class="limit" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        return f'{line}<text class="on" x="100%" y="{y}" dy="-5" text-anchor="end">{safe(words)}</text>'

    def drawn(self, name: str, title: str, description: str, shapes: Iterable[str], legend: str = "") -> str:
        """The whole picture as a figure.

        Args:
            name: of its own on the page.
            description: what it shows, in words.
        """
        parts = [self._grid(), *shapes]
        svg = (
            f'<svg role="img" aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{safe(title)}</title>'
            f'<desc id="{name}-d">{safe(description)}</desc>\n{chr(10).join(parts)}\n</svg>'
        )
        return (
            f'<figure class="plot">\n<figcaption>{safe(title)}</figcaption>{legend}\n'
            f'<p class="axis" aria-hidden="true">{safe(self.y.name)}</p>\n<div class="canvas">{svg}</div>\n'
            f'<p class="axis end" aria-hidden="true">{safe(self.x.name)}</p>\n</figure>'
        )

    def _grid(self) -> str:
        lines = []
        for value in self.y.ticks(5):
            y = f"{100 - self.y.at(value):.2f}%"
            lines.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
            lines.append(f'<text x="-8" y="{y}" dy="4" text-anchor="end">{safe(self.y.text(value))}</text>')
        for value in self.x.ticks(4):
            x = f"{self.x.at(value):.2f}%"
            lines.append(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="100%"/>')
            lines.append(f'<text x="{x}" y="100%" dy="18" text-anchor="middle">{safe(self.x.text(value))}</text>')
        return f'<g aria-hidden="true">{"".join(lines)}</g>'


def legend(entries: Sequence[tuple[int, str]]) -> str:
    """What the colours and shapes stand for."""
    items = "".join(
        f'<li><svg class="key" aria-hidden="true"><svg x="50%" y="50%" class="dot">'
        f'<path class="c{k % len(MARKS)}" d="{MARKS[k % len(MARKS)]}"/></svg></svg>{safe(text)}</li>'
        for k, text in entries
    )
    return f'<ul class="legend">{items}</ul>'


def bar(before: float, after: float, widest: float, words: str) -> str:
    """Two bars on each other, what was and what is left, on the scale of the widest one."""

    def width(value: float) -> str:
        return f"{100 * min(max(value / widest, 0.0), 1.0) if widest else 0:.2f}%"

    was, left = (f'<rect class="{c}" width="{width(v)}" height="100%"/>' for c, v in (("was", before), ("is", after)))
    return f'<svg class="bar" role="img"><title>{safe(words)}</title>{was}{left}</svg>'
