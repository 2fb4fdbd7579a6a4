"""Letting the channels that stay take over: samples to solve on, curves for the choice, the compensation itself."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from onnxprune.channels.analysis import analyse
from onnxprune.channels.dependencies import Dependencies, Group
from onnxprune.errors import ModelError
from onnxprune.model.network import Network
from onnxprune.pipeline.calibration import calibration
from onnxprune.pipeline.decision import Choice, Decision
from onnxprune.pipeline.enough import too_few
from onnxprune.pipeline.group_losses import worth
from onnxprune.pipeline.progress import Progress, silent
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.study import Kept
from onnxprune.pipeline.trials import Calibration, Lab
from onnxprune.runtime.accuracy import Metric, evaluate
from onnxprune.runtime.compare import Agreement
from onnxprune.runtime.scales import compared_by_scale
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import Feed, model_inputs
from onnxprune.surgery.compensate import COMPENSATIONS, Compensated, compensate
from onnxprune.surgery.recovery.loss_curves import LossCurve, repair_curves
from onnxprune.surgery.recovery.lstsq import IN_BODY
from onnxprune.surgery.recovery.runner import THREADS
from onnxprune.surgery.recovery.unfused import written_out
from onnxprune.surgery.rewrite import cut

MUTE = -100.0  # dB, of outputs that cannot be compared; as many above are all the same

Analyse = Callable[[Network], Dependencies]


def one_thread() -> AbstractContextManager[object]:
    """BLAS adds in another order with another number of threads, which would show in the bytes of the output."""
    return threadpool_limits(limits=1, user_api="blas")


def needs_samples(name: str) -> bool:
    """Whether a compensation of this name is solved on samples."""
    return name in COMPENSATIONS and COMPENSATIONS[name].needs_samples


def curves_of(
    lab: Lab, groups: Sequence[Group], ridge: float, progress: Progress, *, losses: bool
) -> dict[str, LossCurve]:
    """For each group the order in which channels leave best, and the drift with its readers re-solved.

    Where none can be, a channel is worth the energy of its filters times that of the weights that read it.

    Args:
        losses: whether the drift is wanted, which takes trial runs.
    """
    samples = calibration(lab)
    lab.remarks.append(f"order {'and losses ' * losses}of channels measured on {samples.what}")
    names, own = [g.name for g in groups], {g.name: g for g in lab.deps.groups}
    model, deps = _written_out(lab, samples.feeds[0])
    with one_thread():
        found = repair_curves(
            model, deps, names, samples.feeds, worth=partial(_worth, lab, own),
            ranked=lab.worth, ridge=ridge, seed=lab.request.seed, losses=losses, progress=progress,
        )  # fmt: skip
    if plain := [name for name, curve in found.items() if not curve.solved]:
        first = f"{len(plain)} of {len(found)} groups, such as {plain[0]}"
        lab.remarks.append(f"ranked by weights, as no layer that reads them can be solved again: {first}")
    return found


def _worth(lab: Lab, own: Mapping[str, Group], group: Group) -> np.ndarray:
    """What channels are worth that no layer with weights reads: known where they were rotated, else by weights."""
    return lab.worth[group.name] if group.name in lab.worth else worth(lab.weights, own[group.name])


def _written_out(lab: Lab, feed: Feed) -> tuple[Network, Dependencies]:
    """The network with its integer layers and its branches written out, and its analysis, where the groups stay."""
    shapes = {s.name: lab.deps.statics.shapes[s.name] for s in model_inputs(lab.model.graph)}
    how: dict[str, Any] = {"input_shapes": shapes, "heads": lab.request.heads != "dims", "thaw": lab.request.thaw}
    return written_out(lab.model, lab.deps, partial(analyse, **how), feed)


def importance(curves: Mapping[str, LossCurve]) -> dict[str, np.ndarray]:
    """(channels,) for each group: the first channel to leave has 0, the last one the most."""
    return {name: np.argsort(curve.order).astype(np.float64) for name, curve in curves.items()}


def repaired(lab: Lab, kept: Kept, analyse: Analyse, progress: Progress = silent) -> Compensated:
    """The network in its full layout, in which the kept channels do the work of the others.

    Raises UsageError where the compensation is unknown.
    """
    name = lab.request.compensate
    feeds = calibration(lab).feeds if needs_samples(name) else None
    with one_thread():
        return compensate(name, lab.model, lab.deps, kept, analyse=analyse, feeds=feeds, progress=progress)


def repair(run: Run, lab: Lab, choice: Choice) -> Decision:
    """Compensate: the network with new weights, where those are better, and else as it is."""
    name, plain, log = run.request.compensate, Decision(run, choice, run.original.having(lab.model)), run.log
    if name == "none" or not choice.kept:
        return plain
    with log.stage("repair"):
        try:
            done = repaired(lab, choice.kept, run.original.analyse, log.progress)
            worse = needs_samples(name) and harm(lab, choice.kept, done)
        except ModelError as error:
            if lab.data is not None:  # which is to blame
                raise
            log.warnings.insert(0, f"cut without repair: {error}")
            return plain
    samples = calibration(lab) if needs_samples(name) else None
    if samples and samples.kind == "drawn":
        plain = replace(plain, judges=samples.judges)
    if worse:
        log.warnings.insert(0, worse)
        return plain
    _tell(run, lab, choice.kept, done, samples)
    return replace(plain, filled=plain.filled.having(done.model, done.deps))


def _tell(run: Run, lab: Lab, kept: Kept, done: Compensated, samples: Calibration | None) -> None:
    """What the repair has changed, on what, and what it could not."""
    log = run.log
    on = f" on {samples.what}" if samples else ""
    log.notes.append(f"{run.request.compensate} changed {len(done.changed)} tensors{on}")
    if not done.changed:
        why = next(iter(done.alone.values()), "no layer reads what was cut")
        int8 = "int8: cut without repair; prune the float model first for a better result"
        log.warnings.insert(0, int8 if lab.deps.scalings else f"cut without repair: {why}")
    elif inside := [name for name, why in done.alone.items() if why.startswith(IN_BODY)]:
        log.warnings.insert(0, f"cut without repair in the bodies of {len(inside)} nodes, such as {inside[0]}")
    if samples and run.parts.data is not None and samples.count < samples.wanted:
        log.warnings += too_few(run.original.deps, kept, samples.count, done.changed)
    if done.alone:
        first, why = next(iter(done.alone.items()))
        log.notes.append(f"not compensated: {len(done.alone)} layers or groups, such as {first} ({why})")


def harm(lab: Lab, kept: Kept, done: Compensated) -> str:
    """That the plain cut is nearer to the original than the repaired one, on samples that nothing was solved on.

    Empty where it is not.
    """
    cuts = [cut(model, deps, deps.dead(kept)) for model, deps in ((lab.model, lab.deps), (done.model, done.deps))]
    load = partial(make_session, providers="cpu", threads=THREADS, optimize=True)
    original, plain, solved = map(load, (lab.model, *cuts))
    samples = calibration(lab)
    given = [original.run(feed) for feed in samples.judges]
    before, after = (_nearness(compared_by_scale(given, map(s.run, samples.judges))) for s in (plain, solved))
    if after >= before:
        return ""
    kind = "drawn samples" if samples.kind == "drawn" else "data"
    return f"cut without repair, which is worse on held-out {kind}: SNR {after} dB, and {before} dB without it"


def _nearness(found: Agreement) -> float:
    """Mean signal to noise over the outputs in dB, as far as it is the same on all machines."""
    each = [MUTE if d.problem else min(max(d.snr_db, MUTE), -MUTE) for d in found.outputs]
    return round(float(np.mean(each)), 1) if each else 0.0


def repaired_figure(lab: Lab, analyse: Analyse) -> Callable[[Kept, Metric], float]:
    """From kept channels to the figure of merit, on what judges, of the network that was cut and compensated."""

    def figure(kept: Kept, metric: Metric) -> float:
        assert lab.search is not None
        done = repaired(lab, kept, analyse)
        small = cut(done.model, done.deps, done.deps.dead(kept))
        sessions = {"after": make_session(small, optimize=True)}
        if metric.needs_reference:
            sessions["before"] = make_session(lab.model, optimize=True)
        reference = "before" if metric.needs_reference else None
        return evaluate(sessions, lab.search, [metric], reference=reference)["after"][metric.name]

    return figure
