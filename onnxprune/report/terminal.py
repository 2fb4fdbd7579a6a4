"""The reports in a terminal: tables that fit its width, colour only where it is wanted, and all of it as plain text."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from onnxprune.report import words
from onnxprune.report.sensitivities import RATIOS, Sensitivity
from onnxprune.report.summary import FrozenRow, GroupRow, LayerRow, Report

LEVELS = {"good": "bold green", "fair": "bold yellow", "bad": "bold red", "unknown": "bold yellow"}
WIDE = 80  # signs of a terminal from which on there is room for bars
BAR = 10  # signs of the longest bar
FEW = 8  # reasons that are shown where nothing could be removed and no details were asked for


def plain(report: Report, *, details: bool = False, width: int = 80) -> str:
    """The report as text without colours, for a pipe, a log or `print`."""
    return text_of(rendered(report, details=details), width)


def text_of(renderable: RenderableType, width: int = 80) -> str:
    """Any of these renderables as text without colours and without blanks at the ends of lines."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(renderable, crop=False, highlight=False, markup=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def rendered(report: Report, *, details: bool = False) -> RenderableType:
    """The report for a rich console; `details` adds all groups, all reasons and the time of each stage.

    What is known of the accuracy comes first, and then what was not done as asked.
    """
    verdict = report.verdict
    parts: list[RenderableType] = [Text(verdict.text, style=LEVELS[verdict.level])]
    parts += [_warning(w) for w in report.warnings]
    parts += [Text(), _title(report), Text(), FiguresTable(report)]
    if report.metrics:
        parts += [Text(), _merits(report)]
    parts += [Text(), _facts(report, details)]
    if details and report.groups:
        parts += [Text(), groups_table(report.groups)]
    if details and report.layers:
        parts += [Text(), layers_table(report.layers)]
    if details and report.sensitivity:
        parts += [Text(), sensitivity_table(report.sensitivity)]
    if report.frozen and (details or not report.changed):
        parts += [Text(), frozen_table(report.frozen, None if details else FEW)]
    if report.next_commands:
        parts += [Text(), Text("next", style="bold"), *map(_command, report.next_commands)]
    return Group(*parts)


def messages(warnings: Sequence[str]) -> list[RenderableType]:
    """Warnings, one paragraph each."""
    return [part for w in warnings for part in (Text(), _warning(w))]


def _warning(text: str) -> Text:
    return Text.assemble(("warning: ", "yellow bold"), words.clean(text))


def facts(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and what is to be said of them, folded behind the names."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, said in rows:
        table.add_row(name, said if isinstance(said, Text) else Text(said))
    return table


def table_of(title: str, columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str | Text]]) -> RenderableType:
    """A table under its title, which may be wider; `columns` are headings and whether they hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading, numbers in columns:
        table.add_column(
            heading, justify="right" if numbers else "left", no_wrap=numbers, overflow="ellipsis" if numbers else "fold"
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return Group(Text(title, style="bold"), table) if title else table


def frozen_table(rows: Sequence[FrozenRow], most: int | None = None) -> RenderableType:
    """Layers that cannot be cut by what froze them; the most frequent reasons where there are more than `most`."""
    reasons = words.by_reason(rows)
    chosen = list(reasons.items())[:most]
    names = None if most is None else 1
    table = table_of(
        f"{words.plural(len(rows), 'layer')} cannot be cut, and why",
        [("layer", False), ("channels", True), ("reason", False)],
        [
            (
                words.listed((r.layer for r in found), names or len(found)),
                words.widths(found[:names]),
                words.clean(reason),
            )
            for reason, found in chosen
        ],
    )
    rest = len(reasons) - len(chosen)
    return Group(table, Text(f"and {words.plural(rest, 'other reason')} (-v shows all)")) if rest > 0 else table


@dataclass(frozen=True)
class Barred:
    """A table with a bar at the end of each line, what was and what is left on one scale; none on a narrow terminal."""

    title: str
    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[str | Text]]
    bars: Sequence[tuple[float, float]]  # before and after of each row

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < WIDE:
            yield table_of(self.title, self.columns, self.rows)
            return
        widest = max((before for before, _ in self.bars), default=0)
        drawn = [Text(words.bar(b, a, widest, BAR), style="blue") for b, a in self.bars]
        rows = [(*row, bar) for row, bar in zip(self.rows, drawn, strict=True)]
        yield table_of(self.title, [*self.columns, ("", False)], rows)


def groups_table(groups: Sequence[GroupRow]) -> RenderableType:
    """A line for each group: what it was and what it became, and below it why it was left whole."""
    asked = any(g.asked is not None for g in groups)  # a target asks nothing of a single group
    rows = [
        (
            Text.assemble(words.clean(g.name), (f"\n  {words.clean(g.note)}" if g.note else "", "dim")),
            f"{g.channels:,}",
            f"{g.kept:,}",
            f"{g.removed:.0%}" if g.removed else "",
            *(("" if g.asked is None else f"{g.asked:.0%}",) if asked else ()),
        )
        for g in groups
    ]
    columns = [("group", False), *((name, True) for name in ("channels", "kept", "removed", *["asked"] * asked))]
    return Barred("groups", columns, rows, [(g.channels, g.kept) for g in groups])


def layers_table(layers: Sequence[LayerRow]) -> RenderableType:
    """A line for each layer that multiplies, with its MACs as a bar."""
    working = [r for r in layers if r.macs]

    def width(value: int | None) -> str:
        return "?" if value is None else f"{value:,}"

    rows = [
        (words.clean(r.name), width(r.channels), width(r.kept), words.si(r.macs), words.si(r.macs_left))
        for r in working
    ]
    columns = [("layer", False), ("channels", True), ("kept", True), ("MACs", True), ("left", True)]
    return Barred("layers and their MACs", columns, rows, [(r.macs, r.macs_left) for r in working])


def sensitivity_table(found: Sensitivity) -> RenderableType:
    """The loss of each group by the share of its channels that is gone, the most sensitive at the top."""
    where = f", on {words.plural(found.samples, 'sample')}" if found.samples else ""
    title = f"loss by the share of a group's channels that is gone: {found.what}{where}"
    rows = []
    for curve in sorted(found.curves, key=lambda c: -max(c.losses, default=0.0)):
        losses = (curve.at_ratio(r) for r in RATIOS)
        cells = ("" if loss is None else f"{loss:.3g}" for loss in losses)
        rows.append((words.clean(curve.group), f"{curve.channels:,}", *cells))
    return table_of(title, [("group", False), ("channels", True), *((f"{r:.0%}", True) for r in RATIOS)], rows)


def _command(text: str) -> Text:
    """A line to copy, and so in one piece whatever the width."""
    return Text(f"  {words.clean(text)}", no_wrap=True, overflow="ignore")


def _title(report: Report) -> Text:
    if report.output is None:
        return Text.assemble((words.shown(report.source), "bold"), "  (nothing written)")
    return Text.assemble((words.shown(report.source), "bold"), " → ", (words.shown(report.output), "bold"))


@dataclass(frozen=True)
class FiguresTable:
    """What the model cost and costs; a narrow terminal gets fewer columns, and no number is ever cut off."""

    report: Report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = [("", False), ("before", True), ("after", True), ("left", True), ("factor", True)]
        columns = columns[: 5 if options.max_width >= 56 else 4 if options.max_width >= 44 else 3]
        rows = [
            (name, before, after, words.left(b, a), words.gained(self.report, name, b, a))[: len(columns)]
            for name, b, a, before, after in words.figures(self.report)
        ]
        yield table_of("", columns, rows)


def _merits(report: Report) -> RenderableType:
    columns = [("", False), ("before", True), ("after", True), ("change", True)]
    rows = []
    for m in report.metrics:
        change = Text(words.merit_change(m), style="red" if m.after < m.before else "green")
        rows.append((words.clean(m.name), words.merit(m.before, m.unit), words.merit(m.after, m.unit), change))
    return table_of(words.whose_data(report), columns, rows)


def _facts(report: Report, details: bool) -> Table:
    proof = "green" if report.proof else "yellow"
    said = words.facts(report, details=details)
    return facts((name, Text(text, style=proof if name == "proof" else "")) for name, text in said)
