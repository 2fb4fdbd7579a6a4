"""Letting the channels that stay take over: samples to solve on, curves for the choice, the compensation itself."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from onnxprune.channels.analysis import analyse
from onnxprune.channels.dependencies import Dependencies, Group, Layer, Use
from onnxprune.errors import ModelError
from onnxprune.model.network import Network
from onnxprune.operators.roles import Role
from onnxprune.pipeline.calibration import Calibration, Samples
from onnxprune.pipeline.decision import Choice, Decision
from onnxprune.pipeline.group_filters import Weights
from onnxprune.pipeline.group_losses import worth
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.study import Kept, Study
from onnxprune.progress import Progress, silent
from onnxprune.runtime.accuracy import Metric, evaluate
from onnxprune.runtime.batches import Dataset
from onnxprune.runtime.compare import Difference
from onnxprune.runtime.scales import compared_by_scale
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import Feed, model_inputs
from onnxprune.surgery.compensate import COMPENSATIONS, Compensated, compensate
from onnxprune.surgery.recovery.loss_curves import LossCurve, repair_curves
from onnxprune.surgery.recovery.lstsq import inner_layers
from onnxprune.surgery.recovery.runner import THREADS
from onnxprune.surgery.recovery.under_way import Lstsq
from onnxprune.surgery.recovery.unfused import written_out

MUTE = -100.0  # dB, of outputs that cannot be compared; as many above are all the same


def one_thread() -> AbstractContextManager[object]:
    """BLAS adds in another order with another number of threads, which would show in the bytes of the output."""
    return threadpool_limits(limits=1, user_api="blas")


def needs_samples(name: str) -> bool:
    """Whether a compensation of this name is solved on samples."""
    return name in COMPENSATIONS and COMPENSATIONS[name].needs_samples


def curves_of(
    study: Study, weights: Weights, groups: Sequence[Group], feeds: Sequence[Feed], ranked: Mapping[str, np.ndarray],
    ridge: float, *, losses: bool, progress: Progress,
) -> dict[str, LossCurve]:  # fmt: skip
    """For each group the order in which channels leave best, and the drift with its readers re-solved.

    Where none can be, a channel is worth the energy of its filters times that of the weights that read it.

    Args:
        feeds: samples to solve on.
        ranked: (channels,) by group: what the channels of groups are worth that were rotated for the cut.
        losses: whether the drift is wanted, which takes trial runs.
    """
    network, request = study.network, study.request
    shapes = {s.name: study.deps.statics.shapes[s.name] for s in model_inputs(study.graph)}
    again = partial(analyse, input_shapes=shapes, heads=request.heads != "dims", thaw=request.thaw)
    model, deps = written_out(network, study.deps, again, feeds[0])  # integer layers and branches
    own = {g.name: g for g in groups}

    def worth_of(group: Group) -> np.ndarray:
        return ranked[group.name] if group.name in ranked else worth(weights, own[group.name])

    with one_thread():
        return repair_curves(
            model, deps, list(own), feeds, worth=worth_of, ranked=ranked, ridge=ridge, seed=request.seed,
            losses=losses, together=needs_samples(request.compensate), progress=progress,
        )  # fmt: skip


def repaired(study: Study, kept: Kept, samples: Samples, progress: Progress = silent) -> Compensated:
    """The network in its full layout, in which the kept channels do the work of the others.

    Raises UsageError where the compensation is unknown.
    """
    name = study.request.compensate
    solve = partial(compensate, name, study.network, study.deps, kept, analyse=study.analyse, progress=progress)
    given = samples() if needs_samples(name) else None
    with one_thread():
        return solve() if given is None else solve(feeds=given.feeds, options=Lstsq(distinct=given.distinct))


def repair(run: Run, choice: Choice, samples: Samples, *, second: bool = False) -> Decision:
    """Compensate: the network with new weights, where those are better, and else as it is.

    Args:
        second: whether another choice has been repaired before, which the progress then says.
    """
    name, log, own = run.request.compensate, run.log, run.original
    study = own if choice.trained is None else own.with_network(choice.trained)
    plain = Decision(run, replace(choice, trained=None), study)
    if name == "none" or not choice.kept:
        return plain
    with log.stage("repair"):
        try:
            done = repaired(study, choice.kept, samples, _of_another(log.progress) if second else log.progress)
            solved_on = samples() if needs_samples(name) else None
            worse = harm(study, choice.kept, done, solved_on) if solved_on else ""
        except ModelError as error:
            if run.split.fit is not None:  # which is to blame
                raise
            log.warnings.insert(0, f"cut without repair: {error}")
            return plain
    if solved_on and solved_on.kind == "drawn":
        plain = replace(plain, held_out=solved_on.held_out)
    if worse:
        log.warnings.insert(0, worse)
        return plain
    _tell(run, choice.kept, done, solved_on)
    return replace(plain, compensated=plain.compensated.with_network(done.model, done.deps))


def _of_another(progress: Progress) -> Progress:
    return lambda what, done, of: progress(f"{what}, by another allocation", done, of)


def _tell(run: Run, kept: Kept, done: Compensated, samples: Calibration | None) -> None:
    """What the repair has changed, on what, and what it could not."""
    log, deps = run.log, run.original.deps
    on = f" on {samples.what}" if samples else ""
    log.notes.append(f"{run.request.compensate} changed {len(done.changed)} tensors{on}")
    if not done.changed:
        why = next(iter(done.alone.values()), "no layer reads what was cut")
        int8 = "int8: cut without repair; prune the float model first for a better result"
        log.warnings.insert(0, int8 if deps.scalings else f"cut without repair: {why}")
    elif inside := [name for name in inner_layers(done.model.graph.graph.node) if name in done.alone]:
        log.warnings.insert(0, f"cut without repair in the bodies of {len(inside)} nodes, such as {inside[0]}")
    if samples and run.split.fit is not None and samples.count < samples.wanted:
        log.warnings += too_few(deps, kept, samples.count, done.changed)
    if done.alone:
        first, why = next(iter(done.alone.items()))
        log.notes.append(f"not compensated: {len(done.alone)} layers or groups, such as {first} ({why})")


def harm(study: Study, kept: Kept, done: Compensated, samples: Calibration) -> str:
    """That the plain cut is nearer to the original than the repaired one, on samples that nothing was solved on.

    Empty where it is not.
    """
    cuts = study.pruned(kept), study.with_network(done.model, done.deps).pruned(kept)
    before, after = nearness(study.network, cuts, samples.held_out)
    if after >= before:
        return ""
    kind = "drawn samples" if samples.kind == "drawn" else "data"
    return f"cut without repair, which is worse on held-out {kind}: SNR {after} dB, and {before} dB without it"


def nearness(original: Network, cuts: Sequence[Network], feeds: Sequence[Feed]) -> list[float]:
    """Mean signal to noise over the outputs of networks that were cut, in dB, as far as all machines agree on it."""
    load = partial(make_session, providers="cpu", threads=THREADS, optimize=True)
    given, *found = ([session.run(feed) for feed in feeds] for session in map(load, (original, *cuts)))
    return [_mean_snr(compared_by_scale(given, outputs)) for outputs in found]


def _mean_snr(found: Sequence[Difference]) -> float:
    each = [MUTE if d.problem else min(max(d.snr_db, MUTE), -MUTE) for d in found]
    return round(float(np.mean(each)), 1) if each else 0.0


def repaired_figure(study: Study, held_out: Dataset, samples: Samples) -> Callable[[Kept, Metric], float]:
    """From kept channels to the figure of merit, on samples that judge, of the network that was cut and compensated."""

    def figure(kept: Kept, metric: Metric) -> float:
        done = repaired(study, kept, samples)
        sessions = {"after": make_session(study.with_network(done.model, done.deps).pruned(kept), optimize=True)}
        if metric.needs_reference:
            sessions["before"] = make_session(study.network, optimize=True)
        reference = "before" if metric.needs_reference else None
        return evaluate(sessions, held_out, [metric], reference=reference)["after"][metric.name]

    return figure


def too_few(deps: Dependencies, kept: Mapping[str, np.ndarray], samples: int, solved: Collection[str]) -> list[str]:
    """That the layer which needs most samples has fewer rows to be solved on than unknowns, where that is so.

    Args:
        deps, kept: the analysis, and the channels that stay.
        samples: their number.
        solved: tensors that were solved for, by key.

    A row is one position of a layer's output for one sample; an unknown is a weight that an output reads.
    """
    dead, weights = deps.dead(kept), {u.node: u for u in deps.uses if u.input == 1 and u.source in solved}
    found = [n for x in deps.layers if x.node in weights and (n := _needed(deps, x, weights[x.node], dead))]
    if not found or max(found)[0] <= samples:
        return []
    needed, unknowns, label = max(found)
    return [
        f"{samples} samples to repair on, and '{label}' needs {needed:,} for its {unknowns:,} unknowns: the repair may "
        "know them by heart; give more"
    ]


def _needed(deps: Dependencies, layer: Layer, use: Use, dead: np.ndarray) -> tuple[int, int, str] | None:
    """How many samples have as many rows as a layer that lost inputs has unknowns, the unknowns, and its label."""
    live = [deps.live(x, dead) for x in use.axes]
    reads = [a for x, a in zip(use.axes, live, strict=True) if not (deps.roles[x] & Role.WRITE).all()]
    size, unknowns = (math.prod(int(a.sum()) for a in axes) for axes in (live, reads))
    shape = deps.statics.shapes.get(deps.nodes[layer.node].outputs[0], ())
    macs = deps.layer_macs(layer, dead)
    if not size or not macs or not shape or not shape[0] or all(a.all() for a in reads):
        return None
    return math.ceil(unknowns * size * shape[0] / macs), unknowns, deps.nodes[layer.node].label
