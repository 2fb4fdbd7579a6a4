"""A sweep in a terminal: a table for each network, the cuts worth a look marked, and what is recommended."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from onnxprune.report import words
from onnxprune.report.terminal import table_of, text_of
from onnxprune.report.tradeoff import EXACT, Row, Sweep

MARK = "●"
WIDE = 100  # columns from which on latencies have their spread


def comparison_text(found: Sweep) -> str:
    """The tables and what stands below them as text."""
    return text_of(comparison(found), 100)


def comparison(found: Sweep) -> RenderableType:
    """The tables, and below them where everything is."""
    parts: list[RenderableType] = []
    chosen = found.recommended
    for name, rows in found.networks.items():
        parts += [Cuts(name, rows, chosen.get(name)), Text()]
        if name in chosen:
            parts += [_advice(found, chosen[name]), Text()]
    failed = [row for row in found.rows if row.error]
    for row in failed:
        told = f"{row.network} {row.target} {row.method}: {row.error}"
        parts.append(Text.assemble(("failed: ", "red bold"), words.clean(told)))
    counted = f"{words.plural(len(found.rows), 'combination')}, {len(failed)} failed, {found.reused} done before"
    parts.append(Text(f"{counted}; models, results.jsonl and index.html are in {words.shown(found.folder)}"))
    return Group(*parts)


@dataclass(frozen=True)
class Cuts:
    """The cuts of one network; a narrow terminal gets latencies without their spread."""

    name: str
    rows: Sequence[Row]
    chosen: Row | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        time = latency if options.max_width >= WIDE else _median
        figure = next((r.figure for r in self.rows if r.figure), None) or "figure"
        columns = [("", False), ("target", False), ("method", False)]
        columns += [(heading, True) for heading in (figure, "MACs", "size", "latency")]
        first = next((r for r in self.rows if not r.error), None)
        lines = [self._line(row, time(row)) for row in self.rows]
        if first is not None:
            before = [figure_text(first, first.before), words.si(first.macs_before), words.size(first.bytes_before)]
            lines.insert(0, ["", "original", "", *before, _duration(first.cost_before("latency"))])
        title = f"{words.clean(self.name)}: {MARK} no other cut has fewer MACs and is as good"
        yield table_of(title, columns, lines)

    def _line(self, row: Row, time: str) -> list[str | Text]:
        mark = "recommended" if row is self.chosen else MARK if "macs" in row.fronts else ""
        cells = [words.clean(c) for c in (mark, row.target, row.method)]
        if row.error:
            return [*cells, Text("failed", style="red"), "", "", ""]
        return [*cells, figure_text(row, row.after), words.si(row.macs), words.size(row.bytes), time]


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


def _median(row: Row) -> str:
    return _duration(row.cost("latency"))


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else words.duration(seconds)
