"""What the surgery cost and saved: drift, accuracy, latency, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from platform import machine, processor

from onnxprune.errors import ModelError, spelled
from onnxprune.pipeline.calibration import HELD_OUT, drawn_feeds
from onnxprune.pipeline.decision import Choice, Decision
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import Run
from onnxprune.report.summary import DriftRow, MetricRow, Span
from onnxprune.report.words import MINUS, merit_change, plural
from onnxprune.runtime.accuracy import Metric, evaluate
from onnxprune.runtime.compare import Difference
from onnxprune.runtime.data import Dataset
from onnxprune.runtime.latency import Latency, gain, measure
from onnxprune.runtime.proof import Proof
from onnxprune.runtime.scales import compared_by_scale
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.source import SPILL_MODEL, Source, Variant
from onnxprune.runtime.specs import Feed, model_inputs

ELEMENTS = 1 << 20  # of the samples that drift is measured on
SECONDS = 1.5  # of one measurement in a search
APART = SPILL_MODEL  # bytes of a model from which on only one of the two is in memory at a time


@dataclass(frozen=True)
class Measurements:
    """What running both models has shown; nothing where it was not asked for or did not work."""

    latency: tuple[Latency, Latency] | None = None  # before and after
    latency_note: str = ""
    drift: tuple[DriftRow, ...] = ()
    metrics: tuple[MetricRow, ...] = ()
    problem: str = ""  # why time and drift could not be measured
    gain: Span | None = None  # times faster: the interval of 95 %; None where it cannot be told


def measurements(decision: Decision, proof: Proof | None, original: Source | Variant, pruned: Source) -> Measurements:
    """Latency and drift where wanted, and figures of merit where there is data.

    A pruned model that cannot be timed is still a pruned model: that is a `problem`, no error.

    Args:
        decision: what was cut.
        proof: shows which kind of made input reaches furthest, where there is one.
        original, pruned: as they are run.

    Raises:
        UsageError: providers or metrics do not fit.
        ModelError: the models cannot be run on the data.
    """
    run = decision.run
    wanted, data = run.request.measure, run.split.test
    if not wanted and data is None:
        return Measurements()
    try:
        moment = run.made(proof)[0] if run.timed and wanted else None
        if data is None and run.file.size >= APART:
            return _apart(run.request, moment, held_out(decision), original, pruned)
        sessions = sessions_of(original, pruned, run.request)
        found = _together(moment, held_out(decision), sessions) if wanted else Measurements()
    except ModelError as error:
        if data is not None:
            raise
        return Measurements(problem=f"latency and drift were not measured: {error}")
    rows = () if data is None else metrics(sessions, data, run.metrics)
    return replace(found, metrics=rows)


def _together(moment: Feed | None, drawn: Sequence[Feed], sessions: dict[str, Session]) -> Measurements:
    """Drift on what was drawn, and latency on the feed that is timed, if any."""
    times = measure(sessions, moment) if moment is not None else {}
    found = _found(times, "alternating runs in onnxruntime", drift(sessions, drawn))
    return replace(found, gain=gain(*found.latency)) if found.latency else found


def _apart(
    request: Request, moment: Feed | None, drawn: Sequence[Feed], original: Source | Variant, pruned: Source
) -> Measurements:
    """The same with one of two large models in memory at a time."""
    load, times, given = _loader(request), dict[str, Latency](), list[list[Feed]]()
    for name, model in (("before", original), ("after", pruned)):
        session = load(model)
        times |= measure({name: session}, moment, seconds=1.0) if moment is not None else {}
        given.append([session.run(feed) for feed in drawn])
        del session
    return _found(times, "runs in onnxruntime, one model after the other", _rows(compared_by_scale(*given)))


def _found(times: Mapping[str, Latency], how: str, rows: tuple[DriftRow, ...]) -> Measurements:
    if not times:
        return Measurements(drift=rows)
    before, after = times["before"], times["after"]
    where = f"{after.provider}, {plural(after.threads, 'thread')}, {cpu_name()}"
    return Measurements((before, after), f"median of {after.runs} {how}, {where}", rows)


def held_out(decision: Decision) -> Sequence[Feed]:
    """Drawn samples that the repair has not seen, as many as take no time."""
    own = decision.run.original
    shapes = own.deps.statics.shapes
    elements = sum(math.prod(shapes.get(s.name, ())) for s in model_inputs(own.graph))
    count = min(HELD_OUT, max(4, ELEMENTS // max(elements, 1)))
    return decision.held_out or drawn_feeds(own.network, shapes, decision.run.request, count)[0]


@cache
def cpu_name() -> str:
    """What this machine's processor calls itself."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return processor() or machine()


def _loader(request: Request) -> Callable[[Source | Variant], Session]:
    return partial(make_session, providers=request.providers, threads=request.threads, optimize=True, spin=True)


def sessions_of(before: Source | Variant, after: Source | Variant, request: Request) -> dict[str, Session]:
    """Both models as users will run them."""
    load = _loader(request)
    return {"before": load(before), "after": load(after)}


def timed(run: Run, choice: Choice) -> tuple[Latency, Latency]:
    """Latency of the original and of the network that keeps these channels, timed in turns.

    Shares are best taken of lower quartiles: what else runs on the machine disturbs them less than it does the medians.
    Another machine, or another day, gives another outcome; its plan repeats it.
    """
    own = run.original
    small = own.pruned(choice.kept) if choice.kept else own.network
    times = measure(sessions_of(own.network, small, run.request), run.made()[0], seconds=SECONDS)
    return times["before"], times["after"]


def drift(sessions: dict[str, Session], feeds: Sequence[Feed]) -> tuple[DriftRow, ...]:
    """How far each output moves on these inputs, numbers of two scales in one of them apart."""
    given = [sessions["before"].run(feed) for feed in feeds]
    return _rows(compared_by_scale(given, map(sessions["after"].run, feeds)))


def _rows(found: Sequence[Difference]) -> tuple[DriftRow, ...]:
    unlike = (math.inf, math.nan, -math.inf)
    return tuple(
        DriftRow(d.name, *(unlike if d.problem else (d.relative, d.cosine, d.snr_db)), d.problem or "") for d in found
    )


def drop_missed(request: Request, rows: Sequence[MetricRow]) -> str | None:
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
