"""What is known of a pruned network's accuracy, in one line: measured, estimated from drift, proven, or unknown."""

import math

from onnxprune.errors import spelled
from onnxprune.report import words
from onnxprune.report.summary import Assessment, DriftRow, MetricRow, Report

# Least figures for "good" and for "fair".  Shares, and figures without a unit, by what the original has more.
DECIBELS = (20.0, 10.0)
LOST = (-0.01, -0.05)
BROKEN = 5.0  # dB under which hardly any answer is the original's


def verdict(report: Report) -> Assessment:
    """The best that is known: figures on the user's samples, else a proof of equality, else drift on drawn samples."""
    if not report.changed:
        copy = "; a faithful copy was written" if report.output else ""
        return Assessment("good", "nothing was removed", f"nothing was removed: {words.untouched(report)}{copy}")
    if report.metrics:
        return _measured(report, telling(report.metrics))
    if report.options.get("lossless") and report.proof:
        return Assessment(
            "good", "proof", "accuracy as before: what was removed cannot change the output, as is proven"
        )
    if report.drift:
        return _estimated(words.worst(report.drift), len(report.drift))
    return Assessment("unknown", "", f"accuracy unknown: nothing was measured; {spelled('data')} measures it")


def telling(rows: tuple[MetricRow, ...]) -> MetricRow:
    """The figure that says most: a share, else one in decibels, else the first."""
    return min(rows, key=lambda row: ("share", "dB", row.unit).index(row.unit))


def _measured(report: Report, row: MetricRow) -> Assessment:
    value = row.after if row.unit == "dB" else row.after - row.before
    change = "" if row.unit == "dB" else f", {words.merit_change(row)}"
    held = "held-out " * bool(report.samples and report.samples.fitted + report.samples.searched)
    number = words.plural(row.samples, held + "sample") if row.samples else held + "samples"
    figure = f"{words.clean(row.name)} {words.merit(row.after, row.unit)}"
    text = f"{figure} measured on {number} of the {_source(report)}{change}"
    level = _level(value, DECIBELS if row.unit == "dB" else LOST)
    return Assessment(level, _source(report), text, row.name, row.before, row.after)


def _source(report: Report) -> str:
    return report.samples.source if report.samples else "data"


def _estimated(row: DriftRow, outputs: int) -> Assessment:
    """What drift on drawn samples lets expect, of the output that moved furthest."""
    advice = f"{spelled('data')} measures it"
    if row.problem or not row.relative or math.isnan(row.snr):
        return Assessment("unknown", "drawn samples", f"accuracy unknown: drawn samples say nothing of it; {advice}")
    level = _level(row.snr, DECIBELS)
    expected = {"good": "a small loss", "fair": "some loss"}.get(level, "a large loss")
    expected = "a broken network" if row.snr < BROKEN else expected
    where = f" at '{words.clean(row.output)}'" * (outputs > 1)
    text = f"accuracy only estimated: SNR {row.snr:.1f} dB on drawn samples{where}: expect {expected}; {advice}"
    return Assessment(level, "drawn samples", text, "snr", None, row.snr)


def _level(value: float, least: tuple[float, float]) -> str:
    """NaN is bad."""
    return "good" if value >= least[0] else "fair" if value >= least[1] else "bad"
