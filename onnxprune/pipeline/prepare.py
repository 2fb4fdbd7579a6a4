"""A run with its data in parts: what is fitted on, what decides and what is measured on, and what speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxprune.errors import UsageError, spelled
from onnxprune.pipeline.metrics import judge
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.split import fits, split_data
from onnxprune.progress import tell
from onnxprune.runtime.accuracy import Metric
from onnxprune.runtime.batches import Dataset
from onnxprune.runtime.overlap import apart
from onnxprune.runtime.session import make_session


def prepare(run: Run, *, chooses: bool = True) -> Run:
    """The run with its data in parts; tells what the original makes of them and what speaks against them.

    Args:
        chooses: whether channels are chosen, and not taken from a plan.

    Raises:
        UsageError: figures that do not fit; too few samples for a search, or such as cannot be right.
        ModelError: the original cannot be run on the data.
    """
    request, log = run.request, run.log
    if (strange := _strange(run)) and request.max_drop is not None:
        raise UsageError(strange[0])
    _tell(run, strange)
    run = _held_apart(run, chooses)
    split = split_data(request, run.split.fit, run.split.test, chooses=chooses)
    if run.train is not None and split.test is not None:
        run = replace(run, train=_without(run, "train_data", run.train, split.test))
    if split.problem:
        log.warnings.append(split.problem)
    if (data := split.search or split.test or split.fit) is None:
        return replace(run, split=split, messages=log.messages)
    with log.stage("look at the data"):
        network = run.original.network
        session = make_session(network, providers=request.providers, threads=request.threads, optimize=True)
        judged = judge(session, request, data, network)
    _check_gates(request, judged.metrics, split.problem)
    if judged.doubts and request.max_drop is not None:
        raise UsageError(judged.doubts[0])
    _tell(run, judged.doubts)
    if split.test and judged.why:
        log.notes.append(judged.why)
    return replace(run, split=split, metrics=judged.metrics, messages=log.messages)


def _tell(run: Run, lines: Sequence[str]) -> None:
    """Say at once what the report will say, too."""
    for line in lines:
        tell(run.log.progress, line)
    run.log.warnings += lines


def _strange(run: Run) -> list[str]:
    """Samples of the user's that are not numbers, a line for each source of them."""
    lines = []
    for name, data in {"data": run.split.fit, "test data": run.split.test, "training data": run.train}.items():
        if data is not None and len(places := data.strange()):
            one, first = len(places) == 1, places[0]
            which = f"sample {first}" if one else f"{len(places):,} samples, the first of them number {first},"
            lines.append(f"{which} of the {name} hold{'s' * one} NaN or infinity: what is made of them is noise")
    return lines


def _held_apart(run: Run, chooses: bool) -> Run:
    """The run without the samples of `data` that are test data, too, where anything is fitted on them."""
    data, test = run.split.fit, run.split.test
    if data is None or test is None or not fits(run.request, chooses):
        return run
    return replace(run, split=replace(run.split, fit=_without(run, "data", data, test)))


def _without(run: Run, option: str, data: Dataset, test: Dataset) -> Dataset:
    """What may be fitted on, and a note of what may not.  Raises UsageError where that is all of it."""
    fitted = apart(data, test)
    total, left = data.counted().samples or 0, fitted.samples or 0
    if not left:
        raise UsageError(f"all samples of {spelled(option)} are those that figures come from: none is left to fit on")
    if left < total:
        run.log.notes.append(f"{total - left:,} samples of {spelled(option)} are not fitted on: figures come from them")
    return fitted


def _check_gates(request: Request, metrics: tuple[Metric, ...], problem: str) -> None:
    """Raise UsageError where a gate has no figure of merit to look at.

    Args:
        problem: why there will be no figures, where that is so.
    """
    if request.min_accuracy is not None and (problem or not any(m.unit == "share" for m in metrics)):
        why = problem or f"no figure here is a share; give {spelled('min_snr')}"
        raise UsageError(f"{spelled('min_accuracy')} cannot be checked: {why}")
    if request.min_snr is not None and problem:
        raise UsageError(f"{spelled('min_snr')} cannot be checked: {problem}")
