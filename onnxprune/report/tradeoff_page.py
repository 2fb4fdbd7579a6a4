"""A sweep as one page: what each cut loses against what it costs, the front drawn, and all numbers in a table."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from onnxprune.report import words
from onnxprune.report.comparison import figure_text, latency
from onnxprune.report.page import Cell, page, section, table, warnings
from onnxprune.report.svg import Axis, Plot, Point, legend, safe
from onnxprune.report.tradeoff import COSTS, EXACT, Row, Sweep

NAMES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "macs": ("MACs", words.si),
    "bytes": ("file size", words.size),
    "latency": ("latency here", words.duration),
}


def tradeoff_html(found: Sweep) -> str:
    """A page that stands alone; what comes from files is escaped."""
    failed = [row for row in found.rows if row.error]
    counted = f"{words.plural(len(found.networks), 'network')}, {words.plural(len(found.rows), 'combination')}"
    advice = [_advice(found, name, row) for name, row in found.recommended.items()]
    header = "".join(advice) + f"<p>{safe(f'{counted}, {len(failed)} failed.')}</p>"
    told = [f"{row.network} {row.target} {row.method} failed: {row.error}" for row in failed]
    sections = [_network(k, name, rows, found) for k, (name, rows) in enumerate(found.networks.items())]
    return page("What each cut costs and loses", header, (warnings(told), *sections))


def _advice(found: Sweep, name: str, row: Row | None) -> str:
    """What is recommended of a network, at the top."""
    if row is None:
        return f'<p class="verdict bad">{safe(f"{name}: no cut has {found.wanted}.")}</p>'
    costs = f"{words.left(row.macs_before, row.macs)} of the MACs, {words.size(row.bytes)}"
    figure = f"{row.figure} {figure_text(row, row.after)}"
    told = f"{name}: {row.target} by {row.method} is recommended: {figure}, {costs}, {row.model}."
    return f'<p class="verdict good">{safe(told)}</p>'


def _network(number: int, name: str, rows: Sequence[Row], found: Sweep) -> str:
    """The pictures of one network, and its numbers."""
    chosen = found.recommended.get(name)
    good = [row for row in rows if row.error is None and row.after is not None]
    methods = list(dict.fromkeys(row.method for row in rows))
    drawn_before = any(row.before is not None for row in good)
    keys = [(0, "original")] * drawn_before + list(enumerate(methods, 1))
    plots = [
        _plot(f"n{number}-{cost}", name, cost, good, methods, chosen)
        for cost in COSTS
        if any(row.cost(cost) is not None for row in good)
    ]
    drawn = f'{legend(keys)}<div class="plots">{"".join(plots)}</div>' if plots else ""
    return section(name, drawn + _numbers(rows, chosen))


def _plot(name: str, network: str, cost: str, rows: Sequence[Row], methods: Sequence[str], chosen: Row | None) -> str:
    """Figure against one cost: a dot for each cut, and a line through those that no other one beats."""
    label, text = NAMES[cost]
    first = rows[0]
    here = [(row, (value, _height(row))) for row in rows if (value := row.cost(cost)) is not None]
    before = first.cost_before(cost)
    original = [] if before is None or first.before is None else [(before, first.before)]
    points = [p for _, p in here] + original
    most = max(p[0] for p in points)
    unit = 1024.0 ** int(math.log(max(most, 1), 1024)) if cost == "bytes" else 1.0
    x = Axis.around(label, [p[0] for p in points], lambda v: text(v) if v else "0", zero=True, unit=unit)
    y = Axis.around(_figure(first), [p[1] for p in points if abs(p[1]) < EXACT], lambda v: words.merit(v, first.unit))
    plot = Plot(x, y)
    front = sorted(p for row, p in here if cost in row.fronts)
    shapes = [plot.line(_steps(front), "front")] if len(front) > 1 else []
    shapes += [plot.mark(p, 0, f"original: {_words(first, cost, *p)}") for p in original]
    for row, point in here:
        style = "chosen" if row is chosen else "" if cost in row.fronts else "behind"
        told = f"{row.target} {row.method}: {_words(row, cost, *point)}{', recommended' * (row is chosen)}"
        shapes.append(plot.mark(point, 1 + methods.index(row.method), told, style))
    best = "; ".join(_words(first, cost, *p) for p in front)
    description = f"{_figure(first)} of {len(here)} cuts of {network} against {label}. On the front: {best}."
    return plot.drawn(name, f"{first.figure} against {label}", description, shapes)


def _figure(row: Row) -> str:
    return f"{row.figure} on {words.plural(row.samples, 'sample') if row.samples else 'drawn samples'}"


def _height(row: Row) -> float:
    assert row.after is not None
    return row.after


def _steps(points: Sequence[Point]) -> list[Point]:
    """A front as stairs: what is reached at a cost holds up to the next point."""
    found = [points[0]]
    for (_, low), (cost, high) in pairwise(points):
        found += [(cost, low), (cost, high)]
    return found


def _words(row: Row, cost: str, x: float, y: float) -> str:
    return f"{figure_text(row, y)} at {NAMES[cost][1](x)}"


def _numbers(rows: Sequence[Row], chosen: Row | None) -> str:
    cells = [_original(row) for row in rows if not row.error][:1]
    for row in rows:
        name = f"{safe(row.target)} <em>{safe(row.method)}{', recommended' * (row is chosen)}</em>"
        if row.error:
            cells.append([("name", name), ("worse", safe(row.error)), *([("n", "")] * 4), ("name", "")])
            continue
        numbers = (figure_text(row, row.after), words.si(row.macs), words.count(row.params), words.size(row.bytes))
        fronts = ", ".join(NAMES[c][0] for c in row.fronts)
        notes = "; ".join([*([f"on the front by {fronts}"] if fronts else []), *row.warnings])
        cells.append(
            [
                ("name", f"<b>{name}</b>" if fronts else name),
                *(("n", safe(n)) for n in (*numbers, latency(row))),
                ("name", f"{safe(row.model)} <em>{safe(notes)}</em>"),
            ]
        )
    figure = next((r.figure for r in rows if r.figure), "figure") or "figure"
    return table(["cut", figure, "MACs", "parameters", "size", "latency", "model"], cells, fold=True)


def _original(row: Row) -> list[Cell]:
    """The line of the network as it was."""
    time = row.cost_before("latency")
    costs = (words.si(row.macs_before), words.count(row.params_before), words.size(row.bytes_before))
    numbers = (figure_text(row, row.before), *costs, "" if time is None else words.duration(time))
    return [("name", "original"), *(("n", safe(n)) for n in numbers), ("name", "")]
