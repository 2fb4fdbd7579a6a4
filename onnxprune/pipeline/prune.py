"""The main job: a model in, a smaller model that is proven to be the same without the removed channels out."""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from onnxprune.errors import CheckFailed
from onnxprune.model import save
from onnxprune.model.external import ExternalStyle
from onnxprune.model.network import Network
from onnxprune.model.write import may_replace, size_of
from onnxprune.pipeline.budgets import BUDGETS
from onnxprune.pipeline.calibration import Samples, calibrating
from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.decision import Choice, Decision
from onnxprune.pipeline.examine import Findings, examine
from onnxprune.pipeline.limits import limited
from onnxprune.pipeline.lossless import choose_lossless
from onnxprune.pipeline.outcome import rewritten, signed, style_of
from onnxprune.pipeline.paths import check_paths, out
from onnxprune.pipeline.prepare import prepare
from onnxprune.pipeline.repair import nearness, repair
from onnxprune.pipeline.report import make_report
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.rotate import Rotated, rotate, undo_unused
from onnxprune.pipeline.run import Run, start
from onnxprune.pipeline.signature import takes
from onnxprune.pipeline.steps import in_steps
from onnxprune.pipeline.tune import finetuned, short_training
from onnxprune.progress import Progress, silent
from onnxprune.report.summary import Report
from onnxprune.surgery.binding import bind
from onnxprune.surgery.plan import Plan

CLEAR = 0.45  # dB, a tenth of the noise: by less, the nearer of two is not the better one


@dataclass(frozen=True, repr=False)
class Result:
    """A pruned model, the plan that made it, and the report; the user's own model is unchanged."""

    network: Network
    plan: Plan
    report: Report

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The pruned model as one message."""
        return self.network.proto()

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

    Raises:
        UsageError: the options make no sense for this model.
        ModelError: the model is invalid, or onnxruntime cannot run it.
        CheckFailed: the pruned model is not the masked original, or a strict budget was missed; nothing is written.
        FileError: the file system refused.
    """
    request = Request.of(options)
    check_output(source, output, request)
    with limited(request, source):
        return prune_run(start(source, request, progress), output)


def prune_run(run: Run, output: str | os.PathLike[str] | None) -> Result:
    """Do all of it, once the network is read and analysed.  Raises what `prune` raises."""
    return finish(_decide(prepare(run)), output)


def check_output(source: Any, output: str | os.PathLike[str] | None, request: Request, **more: Any) -> None:
    """Raise UsageError or FileError, before any work, where the output cannot be written, or is a file that is read.

    Args:
        more: other things that are read, by the words for them.
    """
    read = {name: getattr(request, name) for name in ("data", "test_data", "train_data", "metric")}
    check_paths(source, {out(): output, "resume": request.resume}, read | more, force=request.force)
    if output is not None and not request.dry_run:
        may_replace(Path(output), force=request.force, source=None, weights=())


def _decide(run: Run) -> Decision:
    """Score, allocate, select and repair; what that needs in memory is gone afterwards."""
    request, log = run.request, run.log
    if request.lossless:
        decision = choose_lossless(run)
        log.notes += decision.choice.remarks
        _check_strict(run, decision.choice)
        return decision
    decision = in_steps(run, _cut_once) if request.steps else _cut_once(run)
    if request.steps:
        _require(run, decision.choice)
    return finetuned(decision) if request.finetune else decision


def _cut_once(run: Run) -> Decision:
    """Choose channels and repair what stays; where there is another choice, that of the two which ends nearer."""
    samples, log = calibrating(run.original, run.split.fit, run.log.progress), run.log
    run, rotated = rotate(run, samples)
    with log.stage("choose channels"):
        choose, chooser = BUDGETS[run.request.budget].choose, Chooser.of(_training_inside(run), samples, rotated)
        choice, other = choose(chooser), chooser.other()
        second = choose(other) if other else choice
    before, done = log.messages, _repaired(run, rotated, choice, samples)
    if second.counts == choice.counts:
        return done
    told = log.messages
    log.forget(before)
    instead = _repaired(run, rotated, second, samples, second=True)
    one, two = nearness(run.original.network, (done.cut, instead.cut), samples().judging)
    if two < one + CLEAR:
        log.forget(told)
        return done
    log.notes.append(f"the last groups were spared more: {two} dB of signal to noise where it is {one} without that")
    return instead


def _repaired(run: Run, rotated: Rotated, choice: Choice, samples: Samples, *, second: bool = False) -> Decision:
    """What a choice comes to."""
    run = undo_unused(run, rotated, choice.kept)
    run.log.notes += choice.remarks
    _check_strict(run, choice)
    return repair(run, choice, samples, second=second)


def _training_inside(run: Run) -> Run:
    """The run whose search trains in between, where the network is to be trained and the method does that."""
    request = run.request
    if request.method != "msvfp" or not request.finetune or request.retrain is not None:
        return run
    return replace(run, request=replace(request, retrain=short_training(run)))


def _check_strict(run: Run, choice: Choice) -> None:
    if choice.stopped_by:
        run.log.warnings.append(choice.stopped_by)
    _require(run, choice)


def _require(run: Run, choice: Choice) -> None:
    """Raise CheckFailed where a strict budget is missed."""
    if run.request.strict and choice.stopped_by:
        raise CheckFailed(choice.stopped_by)
    if run.request.strict and not choice.kept:
        raise CheckFailed("nothing can be cut; `onnxprune inspect` says why")


def finish(decision: Decision, output: str | os.PathLike[str] | None) -> Result:
    """Plan, rewrite, verify, save and report."""
    run = decision.run
    request, log, style = run.request, run.log, style_of(run)
    plan, pruned = rewritten(decision)
    if decision.kept and size_of(pruned, style) > max(run.file.size, size_of(run.file.network, style)):
        decision = _left_whole(decision)
        plan, pruned = rewritten(decision)
    plan = bind(plan, run.file.network, pruned)
    if decision.kept:
        pruned = signed(pruned, plan, run.file.size, style)
    found: list[Findings] = []
    saved = None
    if output is None or request.dry_run:
        found.append(examine(decision, pruned))
    else:
        with log.stage("save"):
            saved = save(
                pruned, Path(output), style=style, force=request.force, source=run.file.path,
                check=lambda path: found.append(examine(decision, path)),
            )  # fmt: skip
    return Result(pruned, plan, make_report(decision, found[0], plan, saved.size if saved else size_of(pruned), saved))


def _left_whole(decision: Decision) -> Decision:
    """No cut at all: the sizes that the graph would have to compute again take more bytes than the channels."""
    run, why = decision.run, "what the cut would add to the file is larger than what it takes away"
    run.log.forget(run.messages)
    choice = Choice({}, decision.choice.asked, {g.name: why for g in run.original.deps.groups})
    _require(run, choice)
    return replace(decision, choice=choice, compensated=run.original)
