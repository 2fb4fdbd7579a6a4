"""What a pruned network has to reach to be written at all: `min_accuracy` and `min_snr`."""

from math import isnan

from onnxprune.errors import CheckFailed, UsageError, spelled
from onnxprune.pipeline.measure import Measurements
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import Run
from onnxprune.report import words
from onnxprune.report.summary import Samples
from onnxprune.runtime.accuracy import Metric


def check_gates(request: Request, metrics: tuple[Metric, ...], problem: str) -> None:
    """Raise UsageError where a gate has no figure of merit to look at.

    Args:
        problem: why there will be no figures, where that is so.
    """
    if request.min_accuracy is not None and (problem or not any(m.unit == "share" for m in metrics)):
        why = problem or f"no figure here is a share; give {spelled('min_snr')}"
        raise UsageError(f"{spelled('min_accuracy')} cannot be checked: {why}")
    if request.min_snr is not None and problem:
        raise UsageError(f"{spelled('min_snr')} cannot be checked: {problem}")


def require_figures(run: Run, found: Measurements) -> None:
    """Raise CheckFailed where the pruned network is worse than the request allows."""
    request, counts = run.request, run.split.counts
    if request.min_accuracy is not None:
        row = next(m for m in found.metrics if m.unit == "share")
        _require(row.after, float(request.min_accuracy), row.name, "share", words.on(row, counts), "min_accuracy")
    if request.min_snr is not None:
        value, where, advice = _snr(found, counts)
        _require(value, request.min_snr, "signal to noise", "dB", where, "min_snr", advice)


def _snr(found: Measurements, counts: Samples | None) -> tuple[float, str, str]:
    """The signal to noise that a gate goes by, what it was measured on, and what else might raise it."""
    row = next((m for m in found.metrics if m.name == "snr"), None)
    if row is not None:
        return row.after, words.on(row, counts), ""
    if not (ratios := [r.snr for r in found.drift if not isnan(r.snr)]):
        raise CheckFailed(
            f"{spelled('min_snr')} cannot be checked: {found.problem or 'no output holds finite numbers'}"
        )
    return min(ratios), "on drawn samples", f", or repair on real samples ({spelled('data')})"


def _require(value: float, least: float, name: str, unit: str, where: str, option: str, advice: str = "") -> None:
    if not value >= least:
        raise CheckFailed(
            f"{name} is {words.merit(value, unit)} {where}, and {spelled(option)} wants {words.merit(least, unit)}; "
            f"nothing was written: remove less{advice}"
        )
