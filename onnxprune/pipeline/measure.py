"""What the surgery cost and saved: drift, accuracy, latency, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from platform import machine, processor

from onnxprune.errors import ModelError, spelled
from onnxprune.pipeline.calibration import JUDGES, drawn_feeds
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import Measurements, Run
from onnxprune.report.summary import DriftRow, MetricRow
from onnxprune.report.words import MINUS, merit_change
from onnxprune.runtime.accuracy import Metric, evaluate
from onnxprune.runtime.compare import Agreement, agreement, compare
from onnxprune.runtime.data import Dataset
from onnxprune.runtime.latency import gain, measure
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.source import SPILL_MODEL, Source, Variant
from onnxprune.runtime.specs import Feed, model_inputs

ELEMENTS = 1 << 20  # of the samples that drift is measured on
APART = SPILL_MODEL  # bytes of a model from which on only one of the two is in memory at a time


def measurements(run: Run, original: Source | Variant, pruned: Source) -> Measurements:
    """Latency and drift where wanted, and figures of merit where there is data.

    A pruned model that cannot be timed is still a pruned model: that is a `problem`, no error.

    Raises:
        UsageError: providers or metrics do not fit.
        ModelError: the models cannot be run on the data.
    """
    wanted, data = run.request.measure, run.test
    if not wanted and data is None:
        return Measurements()
    try:
        if data is None and run.model.size >= APART:
            return _timed_apart(run, original, pruned)
        sessions = sessions_of(original, pruned, run.request)
        timed = _timed(run, sessions) if wanted else Measurements()
    except ModelError as error:
        if data is not None:
            raise
        return Measurements(problem=f"latency and drift were not measured: {error}")
    rows = () if data is None else metrics(sessions, data, run.metrics)
    return replace(timed, metrics=rows)


def _timed(run: Run, sessions: dict[str, Session]) -> Measurements:
    if not run.timed:
        return Measurements(drift=drift(sessions, judges(run)))
    found = measure(sessions, run.made()[0])
    before, after = found["before"], found["after"]
    threads = f"{after.threads} thread{'s' * (after.threads != 1)}"
    how = f"median of {after.runs} alternating runs in onnxruntime, {after.provider}, {threads}, {cpu_name()}"
    spans = ((before.low, before.high), (after.low, after.high))
    times = (before.median, after.median)
    return Measurements(times, how, drift(sessions, judges(run)), spans=spans, gain=gain(before, after))


def _timed_apart(run: Run, original: Source | Variant, pruned: Source) -> Measurements:
    """Like `_timed`, with one of two large models in memory at a time."""
    feed, drawn = run.made()[0], judges(run)
    load = _loader(run.request)
    first = load(original)
    before = measure({"before": first}, feed, seconds=1.0)["before"] if run.timed else None
    expected = [first.run(f) for f in drawn]
    del first
    second = load(pruned)
    rows = _rows(agreement(zip(expected, map(second.run, drawn), strict=True)))
    if before is None:
        return Measurements(drift=rows)
    after = measure({"after": second}, feed, seconds=1.0)["after"]
    threads = f"{after.threads} thread{'s' * (after.threads != 1)}"
    where = f"{after.provider}, {threads}, {cpu_name()}"
    how = f"median of {after.runs} runs in onnxruntime, one model after the other, {where}"
    spans = ((before.low, before.high), (after.low, after.high))
    return Measurements((before.median, after.median), how, rows, spans=spans)


def judges(run: Run) -> Sequence[Feed]:
    """Drawn samples that the repair has not seen, as many as take no time."""
    shapes = run.deps.statics.shapes
    elements = sum(math.prod(shapes.get(s.name, ())) for s in model_inputs(run.model.proto))
    count = min(JUDGES, max(4, ELEMENTS // max(elements, 1)))
    return run.judges or drawn_feeds(run.model.proto, shapes, run.request, count)[0]


@cache
def cpu_name() -> str:
    """What this machine's processor calls itself."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return processor() or machine()


def _loader(request: Request) -> Callable[[Source | Variant], Session]:
    return partial(make_session, providers=request.providers, threads=request.threads, optimize=True)


def sessions_of(before: Source | Variant, after: Source | Variant, request: Request) -> dict[str, Session]:
    """Both models as users will run them."""
    load = _loader(request)
    return {"before": load(before), "after": load(after)}


def drift(sessions: dict[str, Session], feeds: Sequence[Feed]) -> tuple[DriftRow, ...]:
    """How far each output moves on these inputs."""
    return _rows(compare(sessions["before"], sessions["after"], feeds))


def _rows(found: Agreement) -> tuple[DriftRow, ...]:
    unlike = (math.inf, math.nan, -math.inf)
    return tuple(
        DriftRow(d.name, *(unlike if d.problem else (d.relative, d.cosine, d.snr_db)), d.problem or "")
        for d in found.outputs
    )


def missed(request: Request, rows: Sequence[MetricRow]) -> str | None:
    """That a drop which holds on the samples of its search does not hold on others, where that is so."""
    drop = request.max_drop
    if drop is None or not rows or rows[0].before - rows[0].after <= drop:
        return None
    fall = merit_change(rows[0]).removeprefix(MINUS)
    return f"on samples that the search has not seen {rows[0].name} falls by {fall}: more than {spelled('max_drop')}"


def metrics(sessions: dict[str, Session], dataset: Dataset, chosen: Sequence[Metric]) -> tuple[MetricRow, ...]:
    """Figures of merit before and after."""
    found = evaluate(sessions, dataset, chosen, reference="before")
    return tuple(
        MetricRow(m.name, found["before"][m.name], found["after"][m.name], m.unit, dataset.samples) for m in chosen
    )
