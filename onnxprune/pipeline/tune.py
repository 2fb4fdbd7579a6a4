"""The pruned network of a run is trained towards the original, on samples that no figure comes from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import onnx

from onnxprune.model.network import Network
from onnxprune.pipeline.decision import Decision
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.retraining import shared, trained_model
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.study import Study
from onnxprune.runtime.batches import Dataset
from onnxprune.runtime.engine import usable_cpus
from onnxprune.training import require_torch
from onnxprune.training.recipe import Recipe

if TYPE_CHECKING:
    from onnxprune.training.distillation import Distilled, TrainingJob

BETWEEN = 0.5  # share of the training that lies between cuts, where there are several
EPOCH = 4096  # samples of an epoch at least, where that is no more work than `WORK`
SHORT = 1024  # samples of a training in the middle of a search
WORK = 5e11  # multiply-accumulates of an epoch


@dataclass(frozen=True)
class Teacher:
    """The network that is learnt from, and what the pruned one lacks of it.

    kept: channels that stay of the groups that have lost some; None where nobody knows, and only maps of equal sizes
        are compared.
    """

    study: Study
    kept: Mapping[str, np.ndarray] | None


def tune(
    run: Run, teacher: Teacher, pruned: Network, recipe: Recipe, fixed: Collection[str] = (),
    data: Dataset | None = None, least: int | None = None,
) -> Network:  # fmt: skip
    """Train a pruned network: the same graph with other float weights, never worse on held-out samples.

    Args:
        run: its request, sizes and progress; notes and warnings say how it went.
        teacher: what is learnt from.
        pruned: never changed.
        recipe: how.
        fixed: keys of tensors that stay what they are.
        data: to train on; drawn samples where there is none.
        least: samples of an epoch, where there are fewer, as far as that is no more work than `WORK`; None: `EPOCH`.

    Raises:
        UsageError: torch is missing, or the data, the device or the state to resume from does not fit.
        ModelError: the network cannot be trained, and why.
        CheckFailed: more than weights would change.
        FileError: the state to resume from cannot be read or written.
    """
    require_torch()
    from onnxprune.training.distillation import train
    from onnxprune.training.loop import INTERRUPTED

    log = run.log
    if log.interrupted:
        return pruned  # Ctrl-C has ended all training of this run, and the cuts go on
    with log.stage("train"):
        log.progress("reading the samples", 0, 0)
        job, what = _job(run, teacher, pruned, recipe, fixed, data, least or EPOCH)
        done = train(job)
    log.interrupted = done.outcome.ended == INTERRUPTED
    log.notes += _notes(done, what, len(job.held))
    log.warnings += _warnings(done)
    return done.model


def _job(
    run: Run, teacher: Teacher, pruned: Network, recipe: Recipe, fixed: Collection[str],
    data: Dataset | None, least: int,
) -> tuple[TrainingJob, str]:  # fmt: skip
    """What is to be trained, and on what in words."""
    from onnxprune.pipeline import training_data
    from onnxprune.training.distillation import TrainingJob
    from onnxprune.training.places import places

    study = teacher.study
    deps = study.deps
    if data is None:
        load, held, what = training_data.drawn(study.network, deps.statics.shapes, run.request, least)
    else:
        load, held, what = training_data.given(data, recipe.seed)
    dead = deps.nothing if teacher.kept is None else deps.dead(teacher.kept)
    fewest = max(1, min(least, int(WORK / max(1, deps.macs(dead)))))
    threads = run.request.threads or usable_cpus()
    found = places(deps, dead, pruned.graph)
    return TrainingJob(study.network, pruned, found, load, held, recipe, fewest, threads, fixed, run.log.progress), what


def finetuned(decision: Decision) -> Decision:
    """The decision with the weights that training gives the pruned network."""
    run, compensated, kept = decision.run, decision.compensated, decision.kept
    if not kept:
        run.log.notes.append("nothing was cut, and so nothing was trained")
        return decision
    left = 1 - BETWEEN if (run.request.steps or 1) > 1 else 1.0  # of the training, after the last cut
    teacher, recipe = Teacher(run.original, kept), recipe_of(run.request, left)
    fixed, data = shared(compensated.deps, kept), run.training_data
    trained = trained_model(
        compensated.network, compensated.deps, kept, lambda pruned: tune(run, teacher, pruned, recipe, fixed, data)
    )
    return replace(decision, compensated=compensated.with_network(trained))


def short_training(run: Run) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """What a search that thins the network step by step trains it with in between: once over some of the samples.

    Each training has others of them, in turn.
    """
    teacher = Teacher(run.teacher or run.original, None)
    recipe = replace(recipe_of(run.request), epochs=1, minutes=None, resume=None)
    turns, data = count(), run.training_data
    number = 1 if data is None else -(-(data.counted().samples or 1) // SHORT)

    def train(pruned: onnx.ModelProto) -> onnx.ModelProto:
        some = data and data.counted().chosen(np.arange(next(turns) % number, data.counted().samples or 0, number))
        return tune(run, teacher, Network.of(pruned), recipe, (), some, SHORT).proto()

    return train


def recipe_of(request: Request, share: float = 1.0) -> Recipe:
    """The recipe of a request, or of a share of its training."""
    names = ("minutes", "lr", "batch_size", "device", "seed", "resume")
    whole = Recipe(epochs=request.finetune or request.epochs, **{name: getattr(request, name) for name in names})
    if share == 1.0:
        return whole
    minutes = None if whole.minutes is None else whole.minutes * share
    return replace(whole, epochs=max(1, round(whole.epochs * share)), minutes=minutes)


def _notes(done: Distilled, what: str, held: int) -> list[str]:
    """What was trained, on what, and what it brought."""
    outcome, (first, last) = done.outcome, done.loss
    lines = [
        f"trained {len(done.changed)} tensors on {what}, {outcome.epochs} epochs in {outcome.seconds:.0f} s "
        f"(--lr {outcome.rate:.2g}), towards {done.objective.words}; samples {done.change.words}"
        f"{'; products in bfloat16' * done.mixed}",
        f"training: loss {first:.4g} before, {min(first, last):.4g} after, by onnxruntime on {held} held-out samples; "
        f"the best state is that of epoch {outcome.best_epoch}",
        f"before training torch gave what onnxruntime gives within {done.apart:.0e} of the largest output",
    ]
    if done.frozen:
        first_key, why = next(iter(done.frozen.items()))
        lines.append(f"not trained: {len(done.frozen)} tensors or nodes, such as {first_key} ({why})")
    return lines


def _warnings(done: Distilled) -> list[str]:
    lines = (
        [f"training ended early ({done.outcome.ended}): the best state so far was kept"] if done.outcome.ended else []
    )
    if done.outcome.unsaved:
        lines.append(f"the state to resume from is not that of the last epoch: {done.outcome.unsaved}")
    if not done.helped:
        lines.append("training did not help on held-out samples: the weights are those before it")
    return lines
