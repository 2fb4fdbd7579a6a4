"""A sweep in a terminal: a table for each network, the cuts worth a look marked, and what is recommended."""

from rich.console import Group, RenderableType
from rich.text import Text

from onnxprune.report import words
from onnxprune.report.terminal import table_of
from onnxprune.report.tradeoff import EXACT, Row, Sweep

MARK = "●"


def comparison(found: Sweep) -> RenderableType:
    """The tables, and below them where everything is."""
    parts: list[RenderableType] = []
    chosen = found.recommended
    for name, rows in found.networks.items():
        parts += [_table(name, rows, chosen.get(name)), Text()]
        if name in chosen:
            parts += [_advice(found, chosen[name]), Text()]
    failed = [row for row in found.rows if row.error]
    for row in failed:
        told = f"{row.network} {row.target} {row.method}: {row.error}"
        parts.append(Text.assemble(("failed: ", "red bold"), words.clean(told)))
    counted = f"{words.plural(len(found.rows), 'combination')}, {len(failed)} failed, {found.reused} done before"
    parts.append(Text(f"{counted}; models, results.jsonl and index.html are in {words.shown(found.folder)}"))
    return Group(*parts)


def _table(name: str, rows: tuple[Row, ...], chosen: Row | None) -> RenderableType:
    figure = next((r.figure for r in rows if r.figure), "figure")
    columns = [("", False), ("target", False), ("method", False), (figure, True), ("MACs", True), ("size", True)]
    columns.append(("latency", True))
    lines: list[list[str | Text]] = []
    for row in rows:
        mark = "recommended" if row is chosen else MARK if "macs" in row.fronts else ""
        cells = [words.clean(c) for c in (mark, row.target, row.method)]
        if row.error:
            lines.append([*cells, Text("failed", style="red"), "", "", ""])
            continue
        lines.append([*cells, figure_text(row, row.after), words.si(row.macs), words.size(row.bytes), latency(row)])
    first = next((r for r in rows if not r.error), None)
    if first is not None:
        before = [figure_text(first, first.before), words.si(first.macs_before), words.size(first.bytes_before)]
        time = "" if first.latency is None else words.duration(first.latency.before)
        lines.insert(0, ["", "original", "", *before, time])
    title = f"{words.clean(name)}: {MARK} no other cut has fewer MACs and is as good"
    return table_of(title, columns, lines)


def _advice(found: Sweep, row: Row | None) -> Text:
    if row is None:
        return Text(f"no cut has {found.wanted}", style="yellow")
    told = f"recommended for {found.wanted}: {row.target} by {row.method}, {row.model}"
    return Text(words.clean(told), style="green")


def figure_text(row: Row, value: float | None) -> str:
    """The figure of merit of a cut, as people write it."""
    if value is None:
        return ""
    return "exact" if abs(value) >= EXACT else words.merit(value, row.unit)


def latency(row: Row) -> str:
    """The time of one run and the middle half of all runs."""
    if row.latency is None:
        return ""
    low, high = (words.duration(s) for s in (row.latency.low, row.latency.high))
    return f"{words.duration(row.latency.after)} ({low} to {high})"
