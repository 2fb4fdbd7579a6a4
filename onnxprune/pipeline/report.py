"""Gathering the report of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from onnxprune.channels.dependencies import Dependencies
from onnxprune.model.write import SavedFile
from onnxprune.pipeline import measure
from onnxprune.pipeline.choose import Choice
from onnxprune.report.summary import Figures, FrozenRow, GroupRow, Report
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.specs import model_inputs
from onnxprune.surgery.plan import Plan

if TYPE_CHECKING:
    from onnxprune.pipeline.prune import Run


def make_report(
    run: Run, choice: Choice, plan: Plan, dead: np.ndarray, pruned: onnx.ModelProto, saved: SavedFile | None
) -> Report:
    """Measure both models and put everything together."""
    deps, request = run.deps, run.request
    after_bytes = saved.size if saved else pruned.ByteSize()
    figures = [
        Figures(deps.params(d), deps.macs(d), size, activations=measure.peak_activations(deps, d))
        for d, size in ((deps.nothing, run.model.size), (dead, after_bytes))
    ]
    report = Report(
        source=str(run.model.path or "a model from memory"),
        output=str(saved.path) if saved else None,
        options=request.told(),
        asked=_asked(run),
        got=_got(figures[0], figures[1]),
        before=figures[0],
        after=figures[1],
        groups=group_rows(deps, choice, plan),
        frozen=frozen_rows(deps),
        proof=None if run.proof is None else str(run.proof),
        proof_error=None if run.proof is None else run.proof.error,
        input_shapes=run.shapes,
        sha256={"source": run.model.sha256} | ({"output": saved.sha256} if saved else {}),
        next_commands=_next(run, saved),
    )
    return _with_measurements(run, report, pruned)


def _with_measurements(run: Run, report: Report, pruned: onnx.ModelProto) -> Report:
    from dataclasses import replace

    request = run.request
    if not (request.measure or run.data is not None):
        return replace(report, warnings=tuple(run.warnings), seconds=dict(run.seconds))
    with run.stage("measure"):
        sessions = measure.sessions_of(run.model.proto, pruned, request)
        found: dict[str, object] = {}
        if request.measure:
            feeds = random_inputs(model_inputs(run.model.proto), run.shapes, seed=request.seed)
            times = measure.latencies(sessions, feeds[0])
            found["before"] = replace(report.before, latency=times["before"].median)
            found["after"] = replace(report.after, latency=times["after"].median)
            threads = f"{times['after'].threads} thread{'s' * (times['after'].threads != 1)}"
            found["latency_note"] = f"onnxruntime, {times['after'].provider}, {threads}, {times['after'].runs} alternating runs"
            found["drift"] = measure.drift(sessions, feeds)
        if run.data is not None:
            found["metrics"] = measure.metrics(sessions, run.data, tuple(request.metric))
    return replace(report, warnings=tuple(run.warnings), seconds=dict(run.seconds), **found)  # type: ignore[arg-type]


def group_rows(deps: Dependencies, choice: Choice, plan: Plan) -> tuple[GroupRow, ...]:
    """A row for each group, in the order of the network."""
    return tuple(
        GroupRow(g.name, g.members, g.channels, len(g.keep), choice.asked.get(g.name), choice.notes.get(g.name, ""))
        for g in plan.groups
    )


def frozen_rows(deps: Dependencies) -> tuple[FrozenRow, ...]:
    """A row for each layer whose own channels cannot be removed."""
    rows = {}
    for use, axis, reason in deps.frozen_writers():
        rows.setdefault(deps.nodes[use.node].label, FrozenRow(deps.nodes[use.node].label, use.axes[axis].size, reason))
    return tuple(rows.values())


def _asked(run: Run) -> str:
    request = run.request
    if request.target is not None:
        return f"keep {request.target}"
    if request.threshold is not None:
        return f"remove what is at least {request.threshold:g} similar to what stays"
    if request.ratio is None:
        return "remove channels of some layers"
    return f"remove {request.ratio:.0%} of the channels of each group"


def _got(before: Figures, after: Figures) -> str:
    def left(a: int, b: int) -> str:
        return f"{a / b:.1%}" if b else "all"

    return f"{left(after.params, before.params)} of the parameters and {left(after.macs, before.macs)} of the MACs left"


def _next(run: Run, saved: SavedFile | None) -> tuple[str, ...]:
    if saved is None:
        return ()
    dynamic = [s for s in model_inputs(run.model.proto) if not all(isinstance(d, int) for d in s.shape or ())]
    shapes = ",".join(f"{s.name}:{'x'.join(map(str, run.shapes[s.name]))}" for s in dynamic if s.name in run.shapes)
    return (
        f"trtexec --onnx={saved.path.name} --fp16" + (f" --shapes={shapes}" if shapes else ""),
        f"polygraphy run {saved.path.name} --trt --onnxrt",
    )
