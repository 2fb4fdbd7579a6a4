"""The main job: a model in, a smaller model that is proven to be the same without the removed channels out."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune import __version__
from onnxprune.channels.analysis import analyse
from onnxprune.channels.dependencies import Dependencies
from onnxprune.errors import CheckFailed, ModelError, UsageError
from onnxprune.model import Model, load, save
from onnxprune.model.external import ExternalStyle
from onnxprune.pipeline.choose import Choice, Chooser, Progress, silent
from onnxprune.pipeline.drop import largest_choice
from onnxprune.pipeline.examine import examine
from onnxprune.pipeline.filters import Weights
from onnxprune.pipeline.limits import limited, require_analysed
from onnxprune.pipeline.measure import Measurements
from onnxprune.pipeline.repair import repair, repaired_figure
from onnxprune.pipeline.report import make_report
from onnxprune.pipeline.request import BUDGETS, Request
from onnxprune.pipeline.trials import Lab
from onnxprune.report.summary import Report
from onnxprune.runtime.data import Dataset, open_data
from onnxprune.runtime.inputs import parse_input_shapes, random_inputs, resolve_shapes
from onnxprune.runtime.observe import missing_shapes, observe
from onnxprune.runtime.specs import Feed, Spec, model_inputs
from onnxprune.runtime.verify import Proof
from onnxprune.surgery.plan import Plan, make_plan
from onnxprune.surgery.rewrite import cut

RANDOM_FEEDS = 2  # runs on random input that the proof compares
DATA_FEEDS = 2  # batches of the user's data that it compares as well


@dataclass(frozen=True)
class Result:
    """A pruned model, the plan that made it, and the report; the user's own model is unchanged."""

    model: onnx.ModelProto
    plan: Plan
    report: Report


@dataclass
class Run:
    """A run under way: what the stages share, and how long each takes."""

    model: Model
    request: Request
    progress: Progress
    shapes: Mapping[str, tuple[int, ...]]
    deps: Dependencies
    data: Dataset | None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    proof: Proof | None = None
    measured: Measurements = field(default_factory=Measurements)
    base: onnx.ModelProto | None = None  # what is cut and masked instead of the model, once weights have changed
    full: Dependencies | None = None  # the analysis of `base`, where that has tensors that the model has not
    test: Dataset | None = None  # what metrics are reported on, where it is not `data`

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and tell of it."""
        self.progress(name, 0, 0)
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    def feeds(self) -> list[Feed]:
        """What the proof runs on: seeded random inputs, and the first batches of the user's data."""
        found = random_inputs(model_inputs(self.model.proto), self.shapes, seed=self.request.seed, count=RANDOM_FEEDS)
        if self.data is not None:
            found += [batch.feeds for batch, _ in zip(self.data, range(DATA_FEEDS), strict=False)]
        return found


def prune(
    source: Any, output: str | os.PathLike[str] | None = None, *, progress: Progress = silent, **options: Any
) -> Result:
    """Remove channels from a network, prove that the surgery is exact, and write the outcome.

    Args:
        source: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.
        output: path to write to; None keeps the outcome in memory.
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        options: fields of `Request`.

    Raises:
        UsageError: the options make no sense for this model.
        ModelError: the model is invalid, or onnxruntime cannot run it.
        CheckFailed: the pruned model is not the masked original, or a strict budget was missed; nothing is written.
        FileError: the file system refused.
    """
    request = Request.of(options)
    with limited(request, source):
        run = start(source, request, progress)
        return finish(run, _choose(run), output)


def _choose(run: Run) -> Choice:
    """Score, allocate and select; what that needs in memory is gone afterwards."""
    request, weights = run.request, Weights(run.model.proto, run.deps)
    with run.stage("choose channels"):
        chooser = Chooser(run.deps, weights, request, run.model.size, run.progress, lab_of(run, weights))
        choice = chooser.choose(request.target_share()) if request.max_drop is None else _largest(run, chooser)
    run.base = choice.trained
    run.notes += choice.remarks
    _check_strict(run, choice)
    repair(run, lab_of(run, weights), choice.kept, partial(analysis_of, run.model, request, run.shapes))
    return replace(choice, trained=None)


def _largest(run: Run, chooser: Chooser) -> Choice:
    """The largest cut within `max_drop`, with what the compensation makes of it."""
    if run.request.compensate == "none" or chooser.lab is None:
        return largest_choice(chooser)
    return largest_choice(
        chooser, repaired_figure(chooser.lab, partial(analysis_of, run.model, run.request, run.shapes))
    )


def lab_of(run: Run, weights: Weights) -> Lab:
    """The network and the user's data, to try things out on."""
    return Lab(run.base or run.model.proto, run.deps, weights, run.request, run.data)


def start(source: Any, request: Request, progress: Progress) -> Run:
    """Load and analyse."""
    begun = time.perf_counter()
    progress("load", 0, 0)
    model = load(source)
    loaded = time.perf_counter()
    specs = model_inputs(model.proto)
    given = request.input_shapes
    hints = {k: tuple(v) for k, v in given.items()} if isinstance(given, Mapping) else parse_input_shapes(given, specs)
    progress("analyse", 0, 0)
    request, shapes, problems = _sizes(request, model, hints)
    resolved = time.perf_counter()
    deps = analysis_of(model, request, shapes)
    require_analysed(request, model, deps)
    analysed = time.perf_counter()
    data, test = (_open_data(request, model, source) for source in (request.data, request.test_data))
    seconds = {"load": loaded - begun, "find input shapes": resolved - loaded, "analyse": analysed - resolved}
    notes = [*_assumed(specs, hints, deps), *(f"data: {n}" for n in (data.notes if data else ()))]
    return Run(model, request, progress, shapes, deps, data, seconds, [*model.warnings, *problems], notes, test=test)


def analysis_of(
    model: Model, request: Request, shapes: Mapping[str, tuple[int, ...]], changed: onnx.ModelProto | None = None
) -> Dependencies:
    """Analyse; where nodes were given up for shapes that cannot be inferred, once more with those that a run shows."""
    heads = request.heads == "whole"
    proto = model.proto if changed is None else changed
    deps = analyse(proto, input_shapes=shapes, heads=heads)
    missing = missing_shapes(proto, deps.statics.shapes)
    if not (deps.unknown and missing and (request.verify or request.measure)):
        return deps
    feed = random_inputs(model_inputs(proto), shapes, seed=request.seed)[0]
    return analyse(proto, input_shapes=shapes, observed=observe(proto, missing, feed), heads=heads)


def _sizes(
    request: Request, model: Model, hints: Mapping[str, tuple[int, ...]]
) -> tuple[Request, Mapping[str, tuple[int, ...]], list[str]]:
    """Input sizes to run the model with; where it need not be verified and cannot be run, it is not measured either."""
    if not (request.verify or request.measure):
        return request, hints, []
    try:
        return request, resolve_shapes(model.proto, hints), []
    except ModelError as error:
        if request.verify:
            raise
        return replace(request, measure=False), hints, [f"latency and drift were not measured: {error}"]


def _assumed(specs: Sequence[Spec], hints: Mapping[str, tuple[int, ...]], deps: Dependencies) -> list[str]:
    """What was taken for the sizes that the model leaves open, and that the user did not give."""
    open_sizes = [s for s in specs if s.name not in hints and not s.closed]
    taken = [(s, deps.statics.shapes.get(s.name)) for s in open_sizes]
    return [
        f"input {spec} was taken as {spec.name}:{'x'.join(map(str, shape)) or '[]'}; --input-shapes sets other sizes"
        for spec, shape in taken
        if shape is not None
    ]


def _open_data(request: Request, model: Model, source: Any) -> Dataset | None:
    if source is None:
        return None
    reading = {name: getattr(request, name) for name in ("mean", "std", "resize", "layout", "limit")}
    return open_data(source, model_inputs(model.proto), **reading)


def _check_strict(run: Run, choice: Choice) -> None:
    if choice.stopped_by:
        run.warnings.append(choice.stopped_by)
    if run.request.strict and choice.stopped_by:
        raise CheckFailed(choice.stopped_by)
    if run.request.strict and not choice.kept:
        raise CheckFailed("nothing can be cut; `onnxprune inspect` says why")


def finish(run: Run, choice: Choice, output: str | os.PathLike[str] | None) -> Result:
    """Plan, rewrite, verify, save and report."""
    origin = {"sha256": run.model.sha256, "name": run.model.path.name if run.model.path else None}
    with run.stage("plan"):
        plan = make_plan(run.deps, choice.kept, source=origin, options=run.request.told())
    dead = run.deps.dead(choice.kept)
    with run.stage("rewrite"):
        pruned = _cut(run, choice, dead)
        if choice.kept:
            _sign(pruned, plan)
    saved = None
    if output is None or run.request.dry_run:
        examine(run, choice.kept, pruned)
    else:
        with run.stage("save"):
            style = run.model.external or (ExternalStyle() if run.request.save_as_external_data else None)
            target = Path(output)
            saved = save(
                pruned, target, style=style, force=run.request.force, source=run.model.path,
                check=lambda path: examine(run, choice.kept, path),
            )  # fmt: skip
        run.seconds["save"] -= run.seconds.get("verify", 0.0) + run.seconds.get("measure", 0.0)
    report = make_report(run, choice, plan, dead, pruned, saved)
    return Result(pruned, plan, report)


def _cut(run: Run, choice: Choice, dead: np.ndarray) -> onnx.ModelProto:
    if not choice.kept:
        return _copy(run.model.proto)
    if run.full is None:
        return cut(run.base or run.model.proto, run.deps, dead)
    assert run.base is not None
    return cut(run.base, run.full, run.full.dead(choice.kept))


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _sign(pruned: onnx.ModelProto, plan: Plan) -> None:
    """Provenance under one prefix of the metadata; what an earlier run left there is replaced."""
    kept = [p for p in pruned.metadata_props if not p.key.startswith("onnxprune.")]
    holder = onnx.ModelProto()
    holder.metadata_props.extend(kept)
    del pruned.metadata_props[:]
    pruned.metadata_props.extend(holder.metadata_props)
    text = json.dumps(plan.to_json(), sort_keys=True)
    facts = {
        "onnxprune.version": __version__,
        "onnxprune.source": str(plan.source["sha256"]),
        "onnxprune.options": json.dumps(plan.options, sort_keys=True),
        "onnxprune.plan": hashlib.sha256(text.encode()).hexdigest(),
    }
    for key, value in facts.items():
        pruned.metadata_props.add(key=key, value=value)


def no_budget(options: Mapping[str, Any]) -> None:
    """A plan brings its own channels.  Raises UsageError."""
    if given := [name for name in BUDGETS if options.get(name) is not None]:
        raise UsageError(f"{given[0]} cannot be given together with a plan")
