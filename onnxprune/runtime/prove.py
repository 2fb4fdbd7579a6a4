"""Proof that a pruned model is the original without the removed channels: masked = pruned, up to rounding.

Both run on input of several kinds, at several sizes and in both branches of every If, and are compared slice by slice.
Where they differ, rounding is given the chance to explain it: it is measured, and what lies between two decisions is
compared by itself. What could not be run, and what says nothing, is told.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path

from onnxprune.errors import ModelError
from onnxprune.model.graphs import graphs_of
from onnxprune.model.tensors import nbytes_of
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime import branches
from onnxprune.runtime.edited import draws_unseeded
from onnxprune.runtime.engine import engine
from onnxprune.runtime.lifted import complete, types_inside
from onnxprune.runtime.part_by_part import Box, Load, part_by_part
from onnxprune.runtime.proof import Proof, concluded
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.slices import Noises, Slices, compared, widen
from onnxprune.runtime.source import SPILL_MODEL, Source, Variant
from onnxprune.runtime.specs import Feed, Spec
from onnxprune.runtime.stimuli import Stimuli, Trial, TrialRuns, explored
from onnxprune.runtime.taps import Taps, find_taps
from onnxprune.runtime.tolerance import Check, Judge
from onnxprune.runtime.ulps import nudged, nudged_weights

APART = 2  # runs, the smallest, that a quantized graph is compared in part by part
NUDGED = 6  # runs that noise is measured on: an output of one number may stay the same by chance


@dataclass(frozen=True)
class _View:
    """Both models and how they are compared."""

    masked: Variant
    pruned: Variant
    taps: Taps
    load: Load
    box: Box | None
    loose: bool
    first: Session | None = None  # of the masked original, where both fit into memory at a time


@dataclass(frozen=True)
class _Way:
    """Runs of the masked original with its Ifs free, or sent into certain branches, and what comes of them."""

    taken: tuple[bool, ...]
    trials: Sequence[Trial]
    found: list[list[Slices]] = field(default_factory=list)

    @property
    def switches(self) -> Feed:
        """What sends the Ifs of a steered model this way."""
        return branches.switches(self.taken)

    @property
    def where(self) -> str:
        """The way in words."""
        return f"branch {branches.called(self.taken)}"

    def failing(self, failed: Iterable[Check]) -> list[Trial]:
        """The runs in which checks failed."""
        where = {c.where for c in failed}
        return [t for t in self.trials if str(t) in where]

    def like(self, failed: Iterable[Check]) -> list[Trial]:
        """The runs on the kinds of input on which checks failed, first those in which they did."""
        where = {c.where for c in failed}
        kinds = {t.kind for t in self.failing(failed)}
        return sorted((t for t in self.trials if t.kind in kinds), key=lambda t: str(t) not in where)


def prove(
    masked: Source | Variant,
    pruned: Source | Variant,
    stimuli: Stimuli | Sequence[Feed],
    *,
    box: Box | None = None,
    loose: bool = False,
) -> Proof:
    """Run both models, without graph optimizations, and compare every output and what decides it.

    Of two large ones, one is in memory at a time.

    Args:
        box: gives the live positions of the values of the masked model.
        loose: a quantized graph need not be equal part by part; that is no law where a change relies on what rounding
            or saturation does.

    Raises `ModelError` when onnxruntime refuses one of them, or cannot run the masked one at the analysed size.
    """
    masked, pruned = Variant.of(masked), Variant.of(pruned)
    graph = masked.graph
    if draws_unseeded(graph):
        masked, pruned = replace(masked, seeded=True), replace(pruned, seeded=True)
    if any(has(node, Trait.INTEGER) for node in graph.node):
        masked, pruned = replace(masked, unsigned=True), replace(pruned, unsigned=True)
    ways = branches.ways(graph)
    if ways:
        masked, pruned = replace(masked, steered=True), replace(pruned, steered=True)
    load = partial(make_session, providers="cpu")
    view = _View(masked, pruned, find_taps(masked.network.graph), load, box, loose)
    trials, seen, first, signature = _observed(view, stimuli, ways)
    view = replace(view, first=first)
    trials.skipped += [f"branches of '{name}', which lie too deep" for name in branches.deeper(graph)]
    checks = [*_compared(view, seen, signature), *(check for way in seen for check in _verdicts(view, way))]
    return concluded(checks, trials, [branches.called(way.taken) for way in seen[1:]], view.taps)


def _observed(
    view: _View, stimuli: Stimuli | Sequence[Feed], ways: Sequence[tuple[bool, ...]]
) -> tuple[TrialRuns, list[_Way], Session | None, tuple[Spec, ...]]:
    """Run the masked original on everything, and on the first and the last of it in each of the ways."""
    engine().set_seed(1)  # Random operators of both models then draw the same numbers
    first = view.load(view.masked, taps=view.taps.names)
    free = _Way((), [])
    trials = explored(first.with_fixed_inputs(free.switches) if ways else first, stimuli)
    seen = [replace(free, trials=trials.runs)]
    for taken in ways if trials.runs else ():
        way = _Way(taken, [])
        try:
            runs = explored(first.with_fixed_inputs(way.switches), [trials.runs[0].feed, trials.runs[-1].feed]).runs
        except ModelError as error:
            trials.skipped.append(f"{way.where}: {error}")
        else:
            seen.append(replace(way, trials=runs))
    return trials, seen, first if _small(view.masked) else None, _signature(first)


def _small(model: Variant) -> bool:
    """Whether a session of a model may be kept while the other one runs; what comes as a file is large."""
    weights = () if isinstance(model.source, Path | str) else model.graph.initializer
    return not isinstance(model.source, Path | str) and sum(map(nbytes_of, weights)) < SPILL_MODEL


def _compared(view: _View, seen: Sequence[_Way], signature: tuple[Spec, ...]) -> list[Check]:
    """Run the pruned model on what the masked one ran on; a failed check where its inputs or outputs are others."""
    engine().set_seed(1)
    second = view.load(view.pruned, taps=_defined(view.pruned, view.taps.names))
    inner = set(view.taps.names) - set(second.taps)
    for way in seen:
        session = second.with_fixed_inputs(way.switches) if view.pruned.steered else second
        found = ([s for s in _outcome(session, trial) if s.name not in inner] for trial in way.trials)
        way.found.extend(found)
    return list(_changed(signature, _signature(second)))


def _verdicts(view: _View, way: _Way) -> list[Check]:
    """A check of every output and tap in every run; where one fails, again with the room that rounding needs."""
    if view.masked.steered:
        free = view.load

        def steered(model: Variant, taps: Sequence[str]) -> Session:
            return free(model, taps=taps).with_fixed_inputs(way.switches)

        first = view.first and view.first.with_fixed_inputs(way.switches)
        view = replace(view, first=first, load=steered)
    judge = Judge(view.taps, {}, steps=True)
    checks = _judged(judge, way)
    for noisy in (_moved_inputs, _moved_weights):  # costs, and is seldom needed
        if failed := [c for c in checks if not c.passed]:
            noisy(view, way.like(failed)[:NUDGED], judge.noise)
            checks = _judged(judge, way)
    checks = _second_opinion(view, way, checks)
    return [replace(c, where=way.where) for c in checks] if way.taken else checks


def _moved_inputs(view: _View, trials: Sequence[Trial], noise: Noises) -> None:
    """Widen the noise by what a change of the input in the last places does."""
    engine().set_seed(1)
    first = view.first or view.load(view.masked, taps=view.taps.names)
    for trial in trials:
        widen(noise, trial.kind, compared(trial.outputs, first.run(nudged(trial.feed))))


def _moved_weights(view: _View, trials: Sequence[Trial], noise: Noises) -> None:
    """Widen the noise by what a change of the weights in the last places does, which reaches every layer."""
    engine().set_seed(1)
    moved = view.load(nudged_weights(view.masked), taps=view.taps.names)
    for trial in trials:
        for feed in (trial.feed, nudged(trial.feed, seed=2)):
            widen(noise, trial.kind, compared(trial.outputs, moved.run(feed)))


def _second_opinion(view: _View, way: _Way, checks: list[Check]) -> list[Check]:
    """The checks, and those of a comparison part by part: where values are rounded, or where rounding may explain all.

    A network that is right part by part is right, whatever near ties and amplified rounding make of the whole.
    """
    taps, failed = view.taps, [c for c in checks if not c.passed]
    points: dict[str, tuple[str, ...]] = dict(taps.decisions) if failed or taps.quantized else {}
    if any(c.noisy for c in failed):
        points |= {name: () for name in taps.layers if name not in points}
    if not points or (view.loose and not failed):
        return checks
    runs = way.failing(failed) or sorted(way.trials, key=lambda t: t.elements)[:APART]
    parts = _parts(view, runs, points)
    right = bool(parts) and all(c.passed for c in parts)
    if view.loose and not right:
        return checks
    return [*(_explained(c) if right else c for c in checks), *parts]


def _parts(view: _View, runs: Sequence[Trial], points: Mapping[str, tuple[str, ...]]) -> list[Check]:
    """Checks of the parts between the values at `points`, in bodies too where what their rounds give can be stacked."""
    proto = view.masked.network.graph
    top = {name for node in proto.graph.node for name in node.output}
    judge = partial(Judge, replace(view.taps, decided=frozenset()))
    if any(path for _, path in graphs_of(proto.graph)) and not top.issuperset(points) and complete(proto.graph):
        lifted = types_inside(proto)
        known = {n: tuple(t for t in took if t in top or t in lifted) for n, took in points.items()}
        known = {n: took for n, took in known.items() if n in top or n in lifted}
        wanted = {n for n, took in known.items() for n in (n, *took)}
        lifting = replace(view.masked, lifted={n: value for n, value in lifted.items() if n in wanted})
        with suppress(ModelError):  # what each round gives has another shape
            return part_by_part(lifting, view.pruned, runs, known, view.box, view.load, judge({}))
    found = {n: tuple(t for t in took if t in top) for n, took in points.items() if n in top}
    return part_by_part(view.masked, view.pruned, runs, found, view.box, view.load, judge({})) if found else []


def _explained(check: Check) -> Check:
    """A failed check of a network that is right part by part."""
    if check.passed or check.error == math.inf:
        return check
    return replace(check, passed=True, tolerance=check.error, note="equal part by part; near ties fall otherwise")


def _outcome(session: Session, trial: Trial) -> list[Slices]:
    """What the second model makes of a trial, compared; that it does not run is an outcome as well."""
    try:
        return compared(trial.outputs, session.run(trial.feed))
    except ModelError as error:
        return [Slices(next(iter(trial.outputs), ""), "", problem=f"the pruned model does not run: {error}")]


def _judged(judge: Judge, way: _Way) -> list[Check]:
    """A check for every value that both models give in every trial."""
    checks = (
        judge.check(slices, tap=slices.name in judge.taps.names, where=str(trial), kind=trial.kind)
        for trial, outputs in zip(way.trials, way.found, strict=True)
        for slices in outputs
    )
    return [c for c in checks if c is not None]


def _defined(model: Variant, names: Sequence[str]) -> list[str]:
    """Those of `names` that a node of the model gives; the model is not read where there are none."""
    if not names:
        return []
    have = {name for node in model.graph.node for name in node.output}
    return [n for n in names if n in have]


def _signature(session: Session) -> tuple[Spec, ...]:
    """Inputs and outputs of the model itself, in order."""
    taps = set(session.taps)
    return (*session.inputs, *(o for o in session.outputs if o.name not in taps))


def _changed(one: Sequence[Spec], two: Sequence[Spec]) -> Iterator[Check]:
    """A failed check when inputs or outputs were added, removed, renamed or retyped.

    Shapes of outputs are onnxruntime's inference here, not the file's declaration, and may grow more exact.
    """
    for before, after in zip_longest(one, two):
        if before is None or after is None or (before.name, before.element) != (after.name, after.element):
            yield Check(str(before or after), math.inf, 0.0, False, False, f"{before} became {after}")
            return
