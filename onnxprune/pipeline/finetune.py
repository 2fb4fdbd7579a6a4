"""A file that was pruned before is trained towards the original."""

import os
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import onnx

from onnxprune.errors import UsageError
from onnxprune.model import Model, load, save
from onnxprune.model.external import ExternalStyle
from onnxprune.model.network import Network
from onnxprune.pipeline.declare import options_of
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.outcome import signed
from onnxprune.pipeline.prepare import prepare
from onnxprune.pipeline.prune import check_output
from onnxprune.pipeline.replay import coupling, plan_of, start_again
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.signature import takes
from onnxprune.pipeline.tune import Teacher, recipe_of, tune
from onnxprune.progress import Progress, silent
from onnxprune.report.summary import MetricRow, Samples
from onnxprune.report.words import merit
from onnxprune.runtime.accuracy import evaluate
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs
from onnxprune.surgery.binding import OWN, bind, check_weights, content
from onnxprune.surgery.plan import Plan
from onnxprune.training import require_torch
from onnxprune.training.recipe import EPOCHS

STALE = ("plan", "weights")  # metadata about weights that training has changed


@dataclass(frozen=True)
class TrainingReport:
    """How a training went.

    metrics: figures of the original and the trained network, on samples that nothing was trained on.
    untrained: the same figures of the pruned network before training, by name.
    """

    source: str
    pruned: str
    output: str | None
    metrics: tuple[MetricRow, ...]
    untrained: dict[str, float]
    samples: Samples | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; times are in seconds."""
        return asdict(self)

    def __str__(self) -> str:
        figures = [
            f"{row.name:10} original {merit(row.before, row.unit)}, pruned {merit(before, row.unit)}, "
            f"trained {merit(row.after, row.unit)}, on {row.samples} held-out samples"
            for row, before in zip(self.metrics, self.untrained.values(), strict=True)
        ]
        head = f"{self.source}, {self.pruned} → {self.output or 'memory'}"
        lines = [f"warning    {w}" for w in self.warnings] + [f"note       {n}" for n in self.notes]
        return "\n".join([*figures, "", head, "", *lines])


@dataclass(frozen=True)
class Trained:
    """A trained model, the plan that binds it where there was one, and the report."""

    network: Network
    plan: Plan | None
    report: TrainingReport

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The trained model as one message."""
        return self.network.proto()


@takes("finetune")
def finetune(
    source: Any, pruned: Any, output: str | os.PathLike[str] | None = None, *,
    plan: Plan | str | os.PathLike[str] | None = None, progress: Progress = silent, **options: Any,
) -> Trained:  # fmt: skip
    """Train a pruned network towards the original that it was made from, and write the same graph with other weights.

    Args:
        source: the original: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.
        pruned: the network to be trained, likewise; its inputs and outputs have the same names.
        output: path to write to; None keeps the outcome in memory.
        plan: what the pruning gave; with it inner maps of fewer channels are learnt too, and a new plan is made, with
            which `verify` proves the outcome.

    Raises:
        UsageError: torch is missing; the networks or the plan do not belong together; options that make no sense.
        ModelError: a model is invalid, or cannot be trained, and why.
        CheckFailed: more than weights would change; nothing is written.
        FileError: the file system refused.
    """
    require_torch()
    epochs = options_of(Request)["epochs"].read(options.get("epochs", EPOCHS))
    known = None if plan is None else plan_of(plan)
    request = Request.of(options, "finetune", ratio=0.0, compensate="none", finetune=epochs, **coupling(known))
    check_output(source, output, request, pruned=pruned, plan=plan)
    small = load(pruned)
    with limited(request, source):
        run, _ = start_again(source, request, progress, known)
        teacher = Teacher(run.original, _belong(run, small, known))
        run = prepare(run, chooses=False)
        model = tune(run, teacher, small.network, recipe_of(request), (), run.training_data)
        known = known and bind(known, run.file.network, model)
        model = _signed(model, known, run.file.size, small.external)
        return Trained(model, known, _delivered(run, small, model, output))


def _belong(run: Run, small: Model, plan: Plan | None) -> dict[str, np.ndarray] | None:
    """Kept channels, where a plan tells them.  Raises UsageError where the networks or the plan do not fit."""
    whole = run.original.graph
    for what, one, two in (
        ("inputs", [s.name for s in model_inputs(whole)], [s.name for s in model_inputs(small.network.graph)]),
        ("outputs", [o.name for o in whole.graph.output], [o.name for o in small.network.graph.graph.output]),
    ):
        if one != two:
            raise UsageError(f"the networks do not belong together: their {what} are {one} and {two}")
    if plan is None:
        return None
    wrong = check_weights(plan, run.file.network, small.network).wrong
    if wrong or plan.content not in (None, content(small.network)):
        said = f": tensor {wrong[0]!r} is not as planned" if wrong else ""
        raise UsageError(f"the plan does not belong to the pruned file{said}; give the one that was written with it")
    return plan.cut


def _signed(network: Network, plan: Plan | None, most: int, style: ExternalStyle | None) -> Network:
    """With metadata of this program that holds for the new weights; nothing where the file has none."""
    if plan is not None:
        return signed(network, plan, most, style)
    out = network.own()
    for entry in list(out.graph.metadata_props):
        if entry.key in [OWN + name for name in STALE]:
            out.graph.metadata_props.remove(entry)
        elif entry.key == OWN + "content":
            entry.value = content(network)
    return out


def _delivered(run: Run, small: Model, model: Network, output: Any) -> TrainingReport:
    """Write and measure; the figures are those of the file that is put in place."""
    rows: list[tuple[MetricRow, float]] = []
    measure = partial(_measured, run, small.network, rows)
    saved = None
    if output is None or run.request.dry_run:
        measure(model)
    else:
        with run.log.stage("save"):
            saved = save(
                model, output, style=small.external, force=run.request.force, source=run.file.path, check=measure
            )
    return TrainingReport(
        str(run.file.path or "a model from memory"), str(small.path or "a model from memory"),
        str(saved.path) if saved else None, tuple(row for row, _ in rows), {row.name: v for row, v in rows},
        run.split.counts, tuple(run.log.warnings), tuple(run.log.notes), dict(run.log.seconds),
    )  # fmt: skip


def _measured(run: Run, small: Network, rows: list[tuple[MetricRow, float]], trained: Any) -> None:
    """Figures of the original, the pruned and the trained network, by onnxruntime."""
    if (test := run.split.test) is None:
        return
    load_ = partial(make_session, providers=run.request.providers, threads=run.request.threads, optimize=True)
    sessions = {"original": load_(run.original.network), "before": load_(small), "after": load_(trained)}
    with run.log.stage("measure"):
        found = evaluate(sessions, test, run.metrics, reference="original")
    for m in run.metrics:
        own = {name: found[name][m.name] for name in sessions}
        row = MetricRow(m.name, own["original"], own["after"], m.unit, test.samples)
        rows.append((row, own["before"]))
