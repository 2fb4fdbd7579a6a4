"""What a run, a look at a network and a search have to show, drawn."""

import math
from collections.abc import Callable, Mapping, Sequence

from onnxprune.pipeline.names import SHARES
from onnxprune.report import words
from onnxprune.report.page import Cell, folded, section, table
from onnxprune.report.sensitivities import Curve, Sensitivity
from onnxprune.report.summary import LayerRow, Search, Total
from onnxprune.report.svg import MARKS, Axis, Plot, bar, legend, safe

MANY = 24  # layers beyond which their table opens on a click
BEST = 1e-4  # of the largest loss: smaller ones are drawn there
COSTS = {"macs": "MACs", "params": "parameters"}  # as people write them
HOLDS, FAILS = 2, 1  # marks of the steps of a search: a green triangle, a red square

Spelling = Callable[[int], str]


def layers(rows: Sequence[LayerRow]) -> str:
    """The layers that multiply, with their widths and MACs before and after as bars, all on one scale."""
    working = [r for r in rows if r.macs]
    if not working:
        return ""
    widest = max(r.channels or 0 for r in working)
    most = max(r.macs for r in working)
    cells = [
        (
            ("name", f"{safe(r.name)} <em>{safe(r.operator)}</em>"),
            *_bars("channels", r.channels, r.kept, widest, "{:,}".format),
            *_bars("MACs", r.macs, r.macs_left, most, words.si),
            _numbers(r.params, r.params_left, words.si),
        )
        for r in working
    ]
    body = table(["layer", "channels", "", "MACs", "", "parameters"], cells, fold=True)
    if len(working) > MANY:
        body = folded(f"{words.plural(len(working), 'layer')} that multiply", body)
    return section("Layers", body)


def group_table(rows: Sequence[tuple[str, int, int, str, Sequence[str]]], costs: dict[str, Total]) -> str:
    """Groups by the nodes that make their channels, with bars on one scale: a group of 1 is no group of 232.

    Args:
        rows: name, channels, how many stay, a remark, and the nodes.
        costs: what the layers of a group cost, by name.
    """
    widest = max((channels for _, channels, *_ in rows), default=0)
    cells = []
    for name, channels, kept, remark, members in rows:
        cost = costs.get(name, Total(tuple(members), 0, 0, 0, 0))
        told = "; ".join(filter(None, (name, remark)))
        cells.append(
            (
                ("name", f"{safe(', '.join(cost.layers))} <em>{safe(told)}</em>"),
                *_bars("channels", channels, kept, widest, "{:,}".format),
                _numbers(cost.macs, cost.macs_left, words.si),
                _numbers(cost.params, cost.params_left, words.si),
            )
        )
    headings = ["layers, and the weights that name the group", "channels", "", "MACs", "parameters"]
    return table(headings, cells, fold=True) if cells else ""


def _bars(what: str, before: int | None, after: int | None, widest: int, text: Spelling) -> tuple[Cell, Cell]:
    """A cell with the numbers and one with the bars."""
    if before is None or after is None:
        return ("n", "?"), ("b", "")
    told = f"{what}: {text(before)}" + ("" if before == after else f", {text(after)} left")
    return _numbers(before, after, text), ("b", bar(before, after, widest, told))


def _numbers(before: int, after: int, text: Spelling) -> Cell:
    same = safe(text(before))
    return "n", same if before == after else f"{same}&nbsp;→ <b>{safe(text(after))}</b>"


def sensitivity(found: Sensitivity, costs: Mapping[str, Total]) -> str:
    """The loss of each group by the share of its channels that is gone: the most sensitive ones in colour.

    Args:
        costs: of the groups, whose layers give them their names here.
    """

    def named(curve: Curve) -> str:
        return costs[curve.group].layers[0] if curve.group in costs else curve.group

    curves = sorted((c for c in found.curves if c.removed), key=lambda c: -max(c.losses))
    largest = max((max(c.losses) for c in curves), default=0.0)
    if largest <= 0:
        return ""
    smallest = math.log10(BEST * largest)

    def height(loss: float) -> float:
        return max(math.log10(loss), smallest) if loss > 0 else smallest

    x = Axis("share of a group's channels that is gone", 0.0, 1.0, "{:.0%}".format)
    y = Axis(f"{found.what} (logarithmic)", smallest, math.log10(largest) + 0.1, lambda v: f"{float(f'{10**v:.1g}'):g}")
    plot, shown = Plot(x, y), curves[: len(MARKS)]

    def line(curve: Curve, style: str) -> str:
        points = [(gone / curve.channels, height(loss)) for gone, loss in zip(curve.removed, curve.losses, strict=True)]
        return plot.line(points, style, f"{named(curve)}, {words.plural(curve.channels, 'channel')}")

    shapes = [line(c, "curve other") for c in reversed(curves[len(shown) :])]
    shapes += [line(c, f"curve c{k}") for k, c in reversed(list(enumerate(shown)))]
    for k, curve in enumerate(shown):
        last = curve.removed[-1] / curve.channels, height(curve.losses[-1])
        shapes.append(plot.mark(last, k, f"{named(curve)}: {curve.losses[-1]:.3g} with {last[0]:.0%} gone"))
    rest = len(curves) - len(shown)
    names = [(k, named(c)) for k, c in enumerate(shown)]
    ends = [f"{named(c)} with {max(c.losses):.3g}" for c in (curves[0], curves[-1])]
    title = f"The {words.plural(len(shown), 'group')} that lose most" if rest else "What each group loses"
    description = _described(found, rest, *ends)
    return section("Sensitivity", plot.drawn("sensitivity", title, description, shapes, legend(names)))


def _described(found: Sensitivity, rest: int, most: str, least: str) -> str:
    """The picture in words; the most and the least sensitive group with their losses."""
    others = f" The other {words.plural(rest, 'curve')} {'is' if rest == 1 else 'are'} grey." if rest else ""
    where = f" on {words.plural(found.samples, 'sample')}" if found.samples else ""
    return (
        f"{found.what}{where}, by the share of a group's channels that is gone. The most sensitive group is {most}, "
        f"the least {least}.{others}"
    )


def search(found: Search) -> str:
    """The steps of a search, a picture for each figure that it went by, and all in a table."""
    kind = COSTS.get(found.cost, found.cost)
    plots = [_steps(found, k, kind) for k, name in enumerate(found.figures) if name != found.cost]
    rows = []
    for k, probe in enumerate(found.probes, 1):
        numbers = [f"{k}", f"{probe.share:.1%}"]
        numbers += [_figure(name, value) for name, value in zip(found.figures, probe.figures, strict=True)]
        verdict = "holds" if probe.holds else "does not hold"
        taken = "taken" * (probe.share == found.chosen)
        rows.append([*(("n", safe(n)) for n in numbers), ("", verdict), ("", taken)])
    steps = table(["step", f"{kind} left", *found.figures, "", ""], rows)
    keys = legend([(HOLDS, "holds"), (FAILS, "does not hold")])
    return section(
        f"The search by {' and '.join(found.limits)}", f'{keys}<div class="plots">{"".join(plots)}</div>{steps}'
    )


def _steps(found: Search, number: int, kind: str) -> str:
    """One figure by the share that was left, step by step."""
    name, bounds = found.figures[number], found.bounds[number : number + 1]
    values = [p.figures[number] for p in found.probes]
    x = Axis(f"share of the {kind} that is left", 0.0, 1.05, "{:.0%}".format)
    plot = Plot(x, Axis.around(name, [*values, *bounds], lambda v: _figure(name, v)))
    shapes = [plot.level(bound, f"limit {_figure(name, bound)}") for bound in bounds]
    for k, (probe, value) in enumerate(zip(found.probes, values, strict=True), 1):
        taken = probe.share == found.chosen
        verdict = f"{'holds' if probe.holds else 'does not hold'}{', taken' * taken}"
        told = f"step {k}: {probe.share:.1%} left, {_figure(name, value)}, {verdict}"
        shapes.append(plot.mark((probe.share, value), HOLDS if probe.holds else FAILS, told, "chosen" * taken))
    told = "nothing was taken" if found.chosen is None else f"{found.chosen:.1%} was taken"
    description = f"{words.plural(len(values), 'step')}; {told}."
    return plot.drawn(f"search{number}", f"{name} against {kind}", description, shapes)


def _figure(name: str, value: float) -> str:
    """What a search went by, as people write it."""
    if name == "latency":
        return words.duration(value)
    if name in ("size", "activations") and math.isfinite(value):
        return words.size(value)
    if name in COSTS:
        return words.si(value)
    return words.merit(value, "share") if name in SHARES else f"{value:.4g}"
