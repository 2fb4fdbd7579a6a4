"""The main job: a model in, a smaller model that is proven to be the same without the removed channels out."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.errors import CheckFailed, UsageError
from onnxprune.model import save
from onnxprune.model.external import ExternalStyle
from onnxprune.model.write import size_of
from onnxprune.pipeline.budgets import Meter, within
from onnxprune.pipeline.choose import Choice, Chooser, Progress, silent
from onnxprune.pipeline.drop import largest_choice
from onnxprune.pipeline.examine import examine
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.lossless import choose_lossless
from onnxprune.pipeline.metrics import prepare
from onnxprune.pipeline.paths import check_paths, out
from onnxprune.pipeline.repair import repair, repaired_figure
from onnxprune.pipeline.report import make_report
from onnxprune.pipeline.request import Request, given_budgets
from onnxprune.pipeline.rotate import rotate, settle
from onnxprune.pipeline.run import Run, analysis_of, start
from onnxprune.pipeline.sign import sign
from onnxprune.pipeline.signature import takes
from onnxprune.pipeline.steps import in_steps
from onnxprune.pipeline.trials import Lab
from onnxprune.pipeline.tune import finetuned, short_training
from onnxprune.report.summary import Report
from onnxprune.surgery.binding import bound
from onnxprune.surgery.plan import Plan, make_plan
from onnxprune.surgery.recovery.replaced import with_biases
from onnxprune.surgery.rewrite import cut
from onnxprune.surgery.rotation.turn import Rotation


@dataclass(frozen=True, repr=False)
class Result:
    """A pruned model, the plan that made it, and the report; the user's own model is unchanged."""

    model: onnx.ModelProto
    plan: Plan
    report: Report

    def save(self, output: str | os.PathLike[str], *, force: bool = False, save_as_external_data: bool = False) -> Path:
        """Write the model, whole or not at all, and give its path.

        Args:
            output: path to write to; an existing file is replaced.
            force: replace a link or a write-protected file, too.
            save_as_external_data: put the weights into a file of their own, as those over 2 GiB are in any case.

        Raises:
            UsageError: the file may be replaced with `force` only.
            FileError: the file system refused.
        """
        return save(self.model, output, style=ExternalStyle() if save_as_external_data else None, force=force).path

    def __repr__(self) -> str:
        return f"<Result: {self.report!r}, {self.plan!r}>"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


@takes("prune")
def prune(
    source: Any, output: str | os.PathLike[str] | None = None, *, progress: Progress = silent, **options: Any
) -> Result:
    """Remove channels from a network, prove that the surgery is exact, and write the outcome.

    Args:
        source: path, bytes, `ModelProto` or `onnx_graphsurgeon.Graph`; never changed.
        output: path to write to; None keeps the outcome in memory.
        progress: called with (what is done, how far, of how much; 0 of 0 where that is not known).
        options: as in the signature.

    Raises:
        UsageError: the options make no sense for this model.
        ModelError: the model is invalid, or onnxruntime cannot run it.
        CheckFailed: the pruned model is not the masked original, or a strict budget was missed; nothing is written.
        FileError: the file system refused.
    """
    request = Request.of(options)
    check_output(source, output, request)
    with limited(request, source):
        return completed(start(source, request, progress), output)


def completed(run: Run, output: str | os.PathLike[str] | None) -> Result:
    """Do all of it, once the network is read and analysed.  Raises what `prune` raises."""
    prepare(run)
    return finish(run, _choose(run), output)


def check_output(source: Any, output: str | os.PathLike[str] | None, request: Request, **more: Any) -> None:
    """Raise UsageError, before any work, where the output would be one of the files that the run reads.

    Args:
        more: other things that are read, by the words for them.
    """
    read = {name: getattr(request, name) for name in ("data", "test_data", "train_data", "metric")}
    check_paths(source, {out(): output, "resume": request.resume}, read | more, force=request.force)


def _choose(run: Run) -> Choice:
    """Score, allocate and select; what that needs in memory is gone afterwards."""
    request = run.request
    if request.lossless:
        choice = choose_lossless(run)
        run.notes += choice.remarks
        _check_strict(run, choice)
        return choice
    choice = in_steps(run, _cut_once) if request.steps else _cut_once(run)
    if request.steps:
        _require(run, choice)
    if request.finetune:
        finetuned(run, choice.kept)
    return choice


def _cut_once(run: Run) -> Choice:
    """Choose channels, and repair what stays."""
    request = run.request
    lab = rotate(run, lab_of(run, Weights(run.model.proto, run.deps)))
    if request.method == "msvfp" and request.finetune and request.retrain is None:
        lab.request = request.changed(retrain=short_training(run))
    with run.stage("choose channels"):
        choice = _within(run, Chooser(run.deps, lab.weights, lab.request, run.model.size, run.progress, lab))
    run.base = choice.trained
    settle(run, lab, choice.kept)
    lab.model = run.base or lab.model
    run.notes += choice.remarks
    _check_strict(run, choice)
    repair(run, lab, choice.kept, partial(analysis_of, run.model, run.request, run.shapes))
    return replace(choice, trained=None)


def _within(run: Run, chooser: Chooser) -> Choice:
    """The choice that the budget allows."""
    if run.request.max_drop is not None:
        return _largest(run, chooser)
    if run.request.target is not None:
        return within(Meter(run, chooser, partial(_written_bytes, run)), run.request.target)
    return chooser.choose(None)


def _largest(run: Run, chooser: Chooser) -> Choice:
    """The largest cut within `max_drop`, with what the compensation makes of it."""
    if run.request.compensate == "none" or chooser.lab is None:
        return largest_choice(chooser)
    return largest_choice(
        chooser, repaired_figure(chooser.lab, partial(analysis_of, run.model, run.request, run.shapes))
    )


def lab_of(run: Run, weights: Weights) -> Lab:
    """The network and the user's data, to try things out on."""
    return Lab(
        run.base or run.model.proto,
        run.deps,
        weights,
        run.request,
        run.data,
        search=run.search,
        metric=next(iter(run.metrics), None),
    )


def _check_strict(run: Run, choice: Choice) -> None:
    if choice.stopped_by:
        run.warnings.append(choice.stopped_by)
    _require(run, choice)


def _require(run: Run, choice: Choice) -> None:
    """Raise CheckFailed where a strict budget is missed."""
    if run.request.strict and choice.stopped_by:
        raise CheckFailed(choice.stopped_by)
    if run.request.strict and not choice.kept:
        raise CheckFailed("nothing can be cut; `onnxprune inspect` says why")


def finish(run: Run, choice: Choice, output: str | os.PathLike[str] | None) -> Result:
    """Plan, rewrite, verify, save and report."""
    plan, pruned = _rewritten(run, choice)
    plan = bound(plan, run.own or run.model.proto, pruned)
    if choice.kept:
        sign(pruned, plan, run.model.size, _style(run))
    saved = None
    if output is None or run.request.dry_run:
        examine(run, choice.kept, pruned)
    else:
        with run.stage("save"):
            target = Path(output)
            saved = save(
                pruned, target, style=_style(run), force=run.request.force, source=run.model.path,
                check=lambda path: examine(run, choice.kept, path),
            )  # fmt: skip
        run.seconds["save"] -= run.seconds.get("verify", 0.0) + run.seconds.get("measure", 0.0)
    report = make_report(run, choice, plan, run.deps.dead(choice.kept), pruned, saved)
    return Result(pruned, plan, report)


def _rewritten(run: Run, choice: Choice) -> tuple[Plan, onnx.ModelProto]:
    """The plan of a choice, and the model as it will be written."""
    origin = {"sha256": run.model.sha256, "name": run.model.path.name if run.model.path else None}
    with run.stage("plan"):
        moved = run.alignment if choice.kept else None
        plan = make_plan(run.deps, choice.kept, source=origin, options=run.request.told(), alignment=moved)
        plan = replace(plan, rotation=run.rotation if choice.kept else Rotation())
    with run.stage("rewrite"):
        pruned = _cut(run, choice, run.deps.dead(choice.kept))
        if choice.kept:
            sign(pruned, plan, run.model.size, _style(run))
    return plan, pruned


def _written_bytes(run: Run, choice: Choice) -> int:
    """Bytes of the file that a choice makes; the biases that a repair adds are there, whatever they will hold."""
    if run.request.compensate != "none" and choice.kept:
        base = with_biases(run.model.proto, run.deps, run.deps.dead(choice.kept))
        run = replace(run, base=base, full=analysis_of(run.model, run.request, run.shapes, base))
    return size_of(_rewritten(run, choice)[1], _style(run))


def _style(run: Run) -> ExternalStyle | None:
    """How weights are stored outside; None where they stay inside."""
    return run.model.external or (ExternalStyle() if run.request.save_as_external_data else None)


def _cut(run: Run, choice: Choice, dead: np.ndarray) -> onnx.ModelProto:
    if not choice.kept:
        return _copy(run.own or run.model.proto)
    if run.full is None:
        return cut(run.base or run.model.proto, run.deps, dead)
    assert run.base is not None
    return cut(run.base, run.full, run.full.dead(choice.kept))


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def no_budget(options: Mapping[str, Any]) -> None:
    """A plan brings its own channels.  Raises UsageError."""
    if given := given_budgets(options):
        raise UsageError(f"{given[0]} cannot be given together with a plan")
