"""Letting the channels that stay take over: samples to solve on, curves for the choice, the compensation itself."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from onnxprune.channels.dependencies import Dependencies, Group
from onnxprune.pipeline.enough import too_few
from onnxprune.pipeline.progress import Progress
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.run import Run
from onnxprune.pipeline.sensitivity import worth
from onnxprune.pipeline.trials import Kept, Lab
from onnxprune.runtime.accuracy import Metric, evaluate
from onnxprune.runtime.fit import read_options
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import Feed, model_inputs
from onnxprune.runtime.synthetic import Scale, synthetic_feeds
from onnxprune.surgery.compensate import COMPENSATIONS, Compensated, compensate
from onnxprune.surgery.recovery.curves import Curve, repair_curves
from onnxprune.surgery.rewrite import cut

SAMPLES = 512  # to solve on
FEWEST = 32
WORK = 2e12  # multiply-accumulates of one pass of all samples through the network, beyond which fewer are taken
BATCH = 32

Analyse = Callable[[onnx.ModelProto], Dependencies]


@dataclass(frozen=True)
class Calibration:
    """Samples that layers are solved on, in batches, and what they are, for the report.

    count, wanted: how many there are, and beyond how many more would not be taken.
    """

    feeds: Sequence[Feed]
    what: str
    count: int
    wanted: int


def one_thread() -> AbstractContextManager[object]:
    """BLAS adds in another order with another number of threads, which would show in the bytes of the output."""
    return threadpool_limits(limits=1, user_api="blas")


def calibration(lab: Lab) -> Calibration:
    """The user's samples where there are some, else drawn ones in the model's own shape and normalisation."""
    wanted = max(FEWEST, min(SAMPLES, int(WORK / max(1, lab.deps.macs()))))
    if lab.data is not None:
        batches = list(lab.samples(wanted).batched(BATCH))
        count = sum(batch.size for batch in batches)
        what = f"{count} samples of the data, without their labels"
        return Calibration([batch.feeds for batch in batches], what, count, wanted)
    specs = model_inputs(lab.model)
    shapes = {s.name: lab.deps.statics.shapes[s.name] for s in specs}
    feeds, noisy = synthetic_feeds(
        specs, shapes, count=wanted, batch=BATCH, scale=_scale(lab.request), seed=lab.request.seed
    )
    noise = f"; noise for {', '.join(noisy)}, which takes no images" if noisy else ""
    return Calibration(feeds, f"{wanted} drawn samples{noise}; real ones repair better (--data)", wanted, wanted)


def _scale(request: Request) -> Scale | None:
    """The normalisation that the user states, in units of images from 0 to 1."""
    said = read_options(request.mean, request.std, None, request.layout)
    if "raw" in said.flags:
        return Scale.of_range(0, 255)
    if not said.normalises:
        return None
    unit = 255.0 if max((*said.mean, *said.std), default=0.0) > 1 else 1.0
    mean, std = said.mean or (0.0,), said.std or (unit,)
    return Scale(tuple(m / unit for m in mean), tuple(s / unit for s in std))


def curves_of(lab: Lab, groups: Sequence[Group], ridge: float, progress: Progress) -> dict[str, Curve]:
    """For each group the order in which channels leave best, and the drift with its readers re-solved.

    Where none can be, a channel is worth the energy of its filters times that of the weights that read it.
    """
    samples = calibration(lab)
    lab.remarks.append(f"order and losses of channels measured on {samples.what}")
    names = [g.name for g in groups]
    with one_thread():
        found = repair_curves(
            lab.model, lab.deps, names, samples.feeds,
            worth=partial(worth, lab.weights), ridge=ridge, seed=lab.request.seed, progress=progress,
        )  # fmt: skip
    if plain := [name for name, curve in found.items() if not curve.solved]:
        first = f"{len(plain)} of {len(found)} groups, such as {plain[0]}"
        lab.remarks.append(f"ranked by weights, as no layer that reads them can be solved again: {first}")
    return found


def importance(curves: Mapping[str, Curve]) -> dict[str, np.ndarray]:
    """(channels,) for each group: the first channel to leave has 0, the last one the most."""
    return {name: np.argsort(curve.order).astype(np.float64) for name, curve in curves.items()}


def repaired(lab: Lab, kept: Kept, analyse: Analyse, samples: Calibration | None = None) -> Compensated:
    """The network in its full layout, in which the kept channels do the work of the others.

    Raises UsageError where the compensation is unknown.
    """
    name = lab.request.compensate
    row = COMPENSATIONS.get(name)
    if row is not None and row.needs_samples and samples is None:
        samples = calibration(lab)
    feeds = samples.feeds if samples else None
    with one_thread():
        return compensate(name, lab.model, lab.deps, kept, analyse=analyse, feeds=feeds)


def repair(run: Run, lab: Lab, kept: Kept, analyse: Analyse) -> None:
    """Compensate: what is cut and masked from here on is the network with new weights."""
    if run.request.compensate == "none" or not kept:
        return
    with run.stage("compensate"):
        needs = run.request.compensate in COMPENSATIONS and COMPENSATIONS[run.request.compensate].needs_samples
        samples = calibration(lab) if needs else None
        done = repaired(lab, kept, analyse, samples)
    run.base, run.full = done.model, done.deps
    on = f" on {samples.what}" if samples else ""
    run.notes.append(f"{run.request.compensate} changed {len(done.changed)} tensors{on}")
    if not done.changed and lab.deps.scalings:
        run.warnings.insert(0, "int8: cut without repair; prune the float model first for a better result")
    if samples and run.data is not None and samples.count < samples.wanted:
        run.warnings += too_few(run.deps, kept, samples.count, done.changed)
    if done.alone:
        first, why = next(iter(done.alone.items()))
        run.notes.append(f"not compensated: {len(done.alone)} layers or groups, such as {first} ({why})")


def repaired_figure(lab: Lab, analyse: Analyse) -> Callable[[Kept, Metric], float]:
    """From kept channels to the figure of merit, on what judges, of the network that was cut and compensated."""
    samples: list[Calibration] = []

    def figure(kept: Kept, metric: Metric) -> float:
        assert lab.search is not None
        samples[:] = samples or [calibration(lab)]
        done = repaired(lab, kept, analyse, samples[0])
        small = cut(done.model, done.deps, done.deps.dead(kept))
        sessions = {"after": make_session(small, optimize=True)}
        if metric.needs_reference:
            sessions["before"] = make_session(lab.model, optimize=True)
        reference = "before" if metric.needs_reference else None
        return evaluate(sessions, lab.search, [metric], reference=reference)["after"][metric.name]

    return figure
