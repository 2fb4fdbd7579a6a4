"""Figures and names as people read them, the same in the terminal and in HTML."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from onnxprune.keyed import keyed
from onnxprune.report.inspection import Inspection
from onnxprune.report.summary import DriftRow, Figures, FrozenRow, MetricRow, Report, Samples, Span

MINUS = "−"
NOISE = "on drawn samples, which say little about accuracy"
NOTHING = "no layer of this network has channels that can be removed"


def clean(text: object) -> str:
    """Text from an untrusted file as it may be shown: control characters, which a terminal would obey, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def count(number: float) -> str:
    """171162 → 171,162; from ten million on 11.2 M."""
    return f"{round(number):,}" if abs(number) < 10_000_000 else si(number)


def si(number: float) -> str:
    """3370624 → 3.37 M."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor:
            return f"{_three(number / factor)} {prefix}"
    return f"{number:g}"


def size(count_of_bytes: float) -> str:
    """686952 → 671 KiB."""
    for factor, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count_of_bytes >= factor:
            return f"{_three(count_of_bytes / factor)} {unit}"
    return f"{round(count_of_bytes)} bytes"


def duration(seconds: float) -> str:
    """0.0123 → 12.3 ms."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{_three(seconds / factor)} {unit}"
    return f"{_three(seconds * 1e6)} µs"


def _three(number: float) -> str:
    """Three significant digits, and never an exponent."""
    whole = abs(number)
    return f"{number:.0f}" if whole >= 99.95 else f"{number:.1f}" if whole >= 9.995 else f"{number:.2f}"


def bar(before: float, after: float, widest: float, width: int) -> str:
    """What was and what is left on the scale of the widest one, `width` signs long: ███░░ for 3 of 5."""
    was, now = (round(width * value / widest) if widest else 0 for value in (before, after))
    now = max(now, 1) if after else 0
    return "█" * now + "░" * (was - now)


def left(before: float | None, after: float | None) -> str:
    """What is left, as a share."""
    return f"{after / before:.1%}" if before and after is not None else ""


def factor(before: float | None, after: float | None) -> str:
    """How many times smaller or faster."""
    return f"{before / after:.2f}×" if before and after else ""


def noisy(before: Figures, after: Figures, gain: Span | None) -> bool:
    """Whether two latencies may as well be the same: the interval of their ratio holds 1, or their spans overlap."""
    if gain is not None:
        return gain[0] <= 1 <= gain[1]
    one, two = before.latency_span, after.latency_span
    return one is not None and two is not None and one[0] <= two[1] and two[0] <= one[1]


def gained(report: Report, name: str, before: float, after: float) -> str:
    """How many times smaller or faster; no factor for latencies that may as well be the same."""
    if name == "latency" and noisy(report.before, report.after, report.latency_gain):
        return "within noise"
    return factor(before, after)


def merit(value: float, unit: str) -> str:
    """A figure of merit in its unit."""
    if not math.isfinite(value):
        return clean(value)
    return f"{value:.2%}" if unit == "share" else clean(f"{value:.2f} {unit}").rstrip()


def merit_change(row: MetricRow) -> str:
    """What a figure of merit gained or lost; shares in points of a hundred."""
    gap = row.after - row.before
    if not math.isfinite(gap):
        return ""
    text = f"{abs(gap) * 100:.2f} points" if row.unit == "share" else clean(f"{abs(gap):.2f} {row.unit}").rstrip()
    return f"{MINUS if gap < 0 else '+'}{text}" if float(text.split()[0]) else "unchanged"


def drift(row: DriftRow, *, less: bool = False) -> str:
    """How far one output moved; one that did not move although there is `less` of the network says nothing."""
    if row.problem:
        return f"{clean(row.output)}: {clean(row.problem)}"
    if not row.relative and less:
        return f"{clean(row.output)}: none at all, so that it says nothing of what was removed"
    if not row.relative:
        return f"{clean(row.output)}: none, bit for bit the same"
    noise = f", signal to noise {row.snr:.1f} dB" if math.isfinite(row.snr) else ""
    return f"{clean(row.output)}: cosine {row.cosine:.4f}{noise}"


def worst(rows: Sequence[DriftRow]) -> DriftRow:
    """The output that moved furthest."""
    return max(rows, key=lambda r: (bool(r.problem), -r.cosine if math.isfinite(r.cosine) else math.inf, r.relative))


def shown(path: str) -> str:
    """A path as short as it may be from here."""
    try:
        near = os.path.relpath(path)
    except (ValueError, OSError):  # another drive, or a working directory that is gone
        return clean(path)
    return clean(near if Path(path).is_absolute() and not near.startswith("..") else path)


def plural(number: int, noun: str) -> str:
    """1 layer, 2 layers."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def listed(names: Iterable[str], most: int) -> str:
    """Names in a row, and how many more there are."""
    names = [clean(n) for n in names]
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def by_reason(rows: Iterable[FrozenRow]) -> dict[str, list[FrozenRow]]:
    """Frozen layers by what froze them, the most frequent reason first."""
    return dict(sorted(keyed((row.reason, row) for row in rows).items(), key=lambda item: -len(item[1])))


def channels(report: Report) -> str:
    """What became of the groups, in one line."""
    cut = [g for g in report.groups if g.kept < g.channels]
    gone = sum(g.channels - g.kept for g in cut)
    total = sum(g.channels for g in report.groups)
    groups = f"{len(cut)} of {plural(len(report.groups), 'group')} cut, {gone:,} of {plural(total, 'channel')} removed"
    frozen = f"; {plural(len(report.frozen), 'layer')} cannot be cut" if report.frozen else ""
    return groups + frozen


def untouched(report: Report) -> str:
    """Why nothing was removed, in one line."""
    if not report.groups:
        return NOTHING
    names, options = plural(len(report.groups), "group"), report.options
    if all(g.note for g in report.groups):
        whole = Counter(clean(g.note) for g in report.groups).most_common()
        reasons = ", ".join(why if len(whole) == 1 else f"{why} ({n})" for why, n in whole)
        return f"of {names} that could be cut all stay whole: {reasons}"
    if options.get("lossless"):
        return f"every channel of the {names} that could be cut has a part in the output"
    if "threshold" in options:
        return f"no channel of the {names} that could be cut is as similar as that to one that stays"
    if all(g.channels == 1 for g in report.groups):
        return f"the {names} that could be cut have one channel each"
    limit = "the largest ratio" if options.get("max_ratio", 1.0) < 1 else "what was asked"
    return f"{limit} leaves all channels of the {names} that could be cut: it is less than one step of any"


def cuttable(found: Inspection) -> str:
    """What a look at a network shows, in one line."""
    if not found.groups:
        return NOTHING
    share = sum(g.macs for g in found.groups)
    return f"{plural(len(found.groups), 'group')} of channels can be cut, in layers that do {share:.1%} of the MACs"


def of_network(found: Inspection) -> list[tuple[str, str]]:
    """What a network takes and gives, its format, and what is to be said of it."""
    rows = [("input", clean(x)) for x in found.inputs] + [("output", clean(x)) for x in found.outputs]
    rows.append(("format", f"opset {found.opset}, IR {found.ir_version}, {plural(found.nodes, 'node')}"))
    return rows + [("note", clean(n)) for n in found.notes]


def widths(rows: Iterable[FrozenRow]) -> str:
    """Numbers of channels of these layers, each once; a question mark where the analysis could not tell."""
    return ", ".join(dict.fromkeys("?" if r.channels is None else f"{r.channels:,}" for r in rows))


def whose_data(report: Report) -> str:
    """What the figures of merit were measured on."""
    return on(report.metrics[0], report.samples)


def on(row: MetricRow, samples: Samples | None) -> str:
    """What a figure of merit was measured on."""
    source = samples.source if samples else "data"
    return f"on {plural(row.samples, 'sample')} of the {source}" if row.samples else f"on the {source}"


def parts(samples: Samples) -> str:
    """How many samples were fitted on, searched on and measured on."""
    used = [(samples.fitted, "fitted on"), (samples.searched, "searched on")]
    told = [f"{number:,} {how}" for number, how in used if number]
    return f"{' and '.join(told)}; the figures come from {samples.measured:,} others"


def figures(report: Report) -> list[tuple[str, float, float, str, str]]:
    """What the model cost and costs: name, before, after, and both as text; without what was not measured."""
    b, a = report.before, report.after
    rows: list[tuple[str, float | None, float | None, Callable[[Any], str]]] = [
        ("parameters", b.params, a.params, count),
        ("MACs", b.macs, a.macs, si),
        ("file size", b.bytes, a.bytes, size),
        ("peak activations", b.activations, a.activations, size),
        ("latency", b.latency, a.latency, duration),
    ]
    return [(name, x, y, show(x), show(y)) for name, x, y, show in rows if x is not None and y is not None]


def facts(report: Report, *, details: bool = False) -> list[tuple[str, str]]:
    """What was asked, done, proven and assumed, each under a name."""
    rows = [("asked", clean(report.asked))]
    if report.changed:
        rows.append(("got", clean(report.got)))
    if report.groups:
        rows.append(("channels", channels(report) + ("" if details else " (-v lists them)")))
    rows.append(("proof", proof(report)))
    rows += [(f"{what} run", ", ".join(map(clean, names))) for what, names in report.proof_runs.items() if names]
    if report.metrics and report.samples and (report.samples.fitted or report.samples.searched):
        rows.append(("samples", parts(report.samples)))
    if report.approximated:
        nodes = plural(len(report.approximated), "node")
        names = listed(report.approximated, len(report.approximated) if details else 3)
        rows.append(("approximated", f"{nodes} with statistics over the channels that stay: {names}"))
    if report.drift:
        less = report.changed and not report.options.get("lossless")
        rows.append(("drift", f"{_drifts(report.drift, details, less)}; {NOISE}"))
    if report.latency_note:
        spans = [f.latency_span for f in (report.before, report.after)]
        shown = " and ".join(f"{duration(s[0])} to {duration(s[1])}" for s in spans if s)
        rows.append(("latency", clean(report.latency_note) + (f"; half of the runs took {shown}" if shown else "")))
    rows += [("note", clean(n)) for n in report.notes]
    if details:
        rows.append(("time", ", ".join(f"{name} {duration(s)}" for name, s in report.seconds.items())))
    return rows


def proof(report: Report) -> str:
    """What the verification showed."""
    if report.proof is None:
        return "not verified"
    whose = "masked original and pruned model are" if report.changed else "original and copy are"
    if report.changed and report.options.get("lossless"):
        whose = "original and pruned model are"
    return f"{whose} {clean(report.proof)}"


def _drifts(rows: Sequence[DriftRow], details: bool, less: bool) -> str:
    if details or len(rows) == 1:
        return "; ".join(drift(row, less=less) for row in rows)
    return f"worst of {len(rows)} outputs, {drift(worst(rows), less=less)}"
