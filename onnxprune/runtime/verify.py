"""Proof that a pruned model is the original without the removed channels: masked = pruned, up to rounding.

Both run on input of several kinds, at several sizes and in both branches of every If, and are compared slice by slice.
Where they differ, rounding is given the chance to explain it: it is measured, and what lies between two decisions is
compared by itself. What could not be run, and what says nothing, is told.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest

from onnxprune.errors import CheckFailed, ModelError
from onnxprune.operators.registry import Trait, has
from onnxprune.runtime import branches
from onnxprune.runtime.edited import draws
from onnxprune.runtime.engine import engine
from onnxprune.runtime.handed import Box, Load, part_by_part
from onnxprune.runtime.judge import Check, Judge
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.slices import Noises, Slices, compared, widen
from onnxprune.runtime.source import Source, Variant, nodes_of
from onnxprune.runtime.specs import Feed, Spec
from onnxprune.runtime.stimuli import NEVER, Stimuli, Trial, explored, silent
from onnxprune.runtime.taps import Taps, find_taps
from onnxprune.runtime.ulps import nudged, nudged_weights

APART = 2  # runs, the smallest, that a quantized graph is compared in part by part
NOT_MASKED = "the pruned model is not the masked original"
NUDGED = 6  # runs that noise is measured on: an output of one number may stay the same by chance


@dataclass(frozen=True)
class Proof:
    """Whether masked = pruned held in `runs` runs, and the check that came closest to failing (or failed most).

    `sizes`, `inputs` and `branches` say what was run, `skipped` what was not and why. `silent` outputs say nothing:
    they are the same whatever goes in, or never a number.
    """

    passed: bool
    output: str
    error: float
    tolerance: float
    runs: int
    checks: tuple[Check, ...] = ()
    sizes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        figures = f"largest relative difference {self.error:.1e} at '{self.output}' ({self.tolerance:.0e} allowed)"
        return f"{'equal up to rounding' if self.passed else 'NOT equal'}: {figures}, {self.runs} runs"

    @property
    def ran(self) -> dict[str, tuple[str, ...]]:
        """What was run and what was not."""
        return {"sizes": self.sizes, "inputs": self.inputs, "branches": self.branches, "not": self.skipped}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the proof could not show."""
        said = [f"'{name}' is {what} whatever goes in" for name, what in self.silent.items()]
        return (f"the outputs say nothing: {', '.join(said)}, so that nothing is proven of them",) if said else ()

    def require(self, problem: str = NOT_MASKED) -> "Proof":
        """Itself, or `CheckFailed` with these words where the models differ."""
        if self.passed:
            return self
        failed = max((c for c in self.checks if not c.passed), key=lambda c: bool(c.note), default=None)
        where = f" at {failed.where}" if failed and failed.where else ""
        note = failed.note if failed and failed.note else str(self)
        raise CheckFailed(f"{problem}{where}: {note}")


@dataclass(frozen=True)
class _View:
    """Both models as they are compared once: as they are, or sent into certain branches."""

    one: Variant
    two: Variant
    taps: Taps
    load: Load
    tolerance: float | None
    box: Box | None
    loose: bool


@dataclass(frozen=True)
class _Seen:
    """What the masked original showed: its runs, what it could not run, how far rounding moves it, its signature."""

    runs: tuple[Trial, ...]
    skipped: tuple[str, ...]
    noise: Noises
    signature: tuple[Spec, ...]


def prove(
    masked: Source | Variant,
    pruned: Source | Variant,
    stimuli: Stimuli | Sequence[Feed],
    *,
    tolerance: float | None = None,
    providers: str | Sequence[str] = "cpu",
    threads: int | None = None,
    box: Box | None = None,
    loose: bool = False,
) -> Proof:
    """Run both models, without graph optimizations, and compare every output and what decides it.

    Only one of the two is in memory at a time. `tolerance` replaces the one by element type. `box` gives the live
    positions of the values of the masked model. `loose`: a quantized graph need not be equal part by part; that is no
    law where a change relies on what rounding or saturation does. Raises `ModelError` when onnxruntime refuses one of
    them, or cannot run the masked one at the analysed size.
    """
    one, two = _variant(masked), _variant(pruned)
    graph = nodes_of(one.source).graph
    if draws(graph):
        one, two = replace(one, seeded=True), replace(two, seeded=True)
    if any(has(node, Trait.INTEGER) for node in graph.node):
        one, two = replace(one, unsigned=True), replace(two, unsigned=True)
    load = partial(make_session, providers=providers, threads=threads)
    view = _View(one, two, find_taps(nodes_of(one.source)), load, tolerance, box, loose)
    seen = _observed(view, stimuli)
    checks = _checks(view, seen)
    ways, missed = list[str](), [f"branches of '{name}', which lie too deep" for name in branches.deeper(graph)]
    for taken in branches.ways(graph) if seen.runs else ():
        bent = replace(view, one=replace(one, taken=taken), two=replace(two, taken=taken))
        try:
            there = _observed(bent, [seen.runs[0].feed, seen.runs[-1].feed])
        except ModelError as error:
            missed.append(f"branch {branches.called(taken)}: {error}")
            continue
        ways.append(branches.called(taken))
        checks += [replace(c, where=f"branch {branches.called(taken)}") for c in _checks(bent, there)]
    return _proof(checks, seen, view.taps, tuple(ways), (*seen.skipped, *missed))


def _observed(view: _View, stimuli: Stimuli | Sequence[Feed]) -> _Seen:
    """Run the masked original on everything, and again on input changed in the last places."""
    engine().set_seed(1)  # Random operators of both models then draw the same numbers
    first = view.load(view.one, taps=view.taps.names)
    trials = explored(first, stimuli)
    noise: Noises = {}
    for trial in trials.runs[:NUDGED]:
        if trial.elements <= trials.runs[0].elements:  # the others show it at less cost
            widen(noise, trial.kind, compared(trial.outputs, first.run(nudged(trial.feed))))
    return _Seen(tuple(trials.runs), tuple(trials.skipped), noise, _signature(first))


def _checks(view: _View, seen: _Seen) -> list[Check]:
    """Run the pruned model on what the masked one ran on, and judge every output and tap."""
    engine().set_seed(1)
    second = view.load(view.two, taps=_defined(view.two, view.taps.names))
    changed = _changed(seen.signature, _signature(second))
    found = [(trial, _outcome(second, trial)) for trial in seen.runs]
    missing = set(view.taps.names) - set(second.taps)
    del second
    judge = Judge(view.taps, seen.noise, view.tolerance, steps=True)
    checks = _judged(judge, found, missing)
    if view.tolerance is None and not all(c.passed for c in checks):
        _reweigh(view, seen)
        checks = _judged(judge, found, missing)
    if view.tolerance is None:
        checks = _second_opinion(view, seen, checks)
    return [*changed, *checks]


def _reweigh(view: _View, seen: _Seen) -> None:
    """Widen the noise by what a change of the weights in the last places does, which reaches every layer."""
    engine().set_seed(1)
    moved = view.load(nudged_weights(view.one), taps=view.taps.names)
    for trial in seen.runs[:NUDGED]:
        for feed in (trial.feed, nudged(trial.feed, seed=2)):
            widen(seen.noise, trial.kind, compared(trial.outputs, moved.run(feed)))


def _second_opinion(view: _View, seen: _Seen, checks: list[Check]) -> list[Check]:
    """The checks, and those of a comparison part by part: where values are rounded, or where rounding may explain all.

    A network that is right part by part is right, whatever near ties and amplified rounding make of the whole.
    """
    taps, failed = view.taps, [c for c in checks if not c.passed]
    points: dict[str, tuple[str, ...]] = dict(taps.decisions) if failed or taps.quantized else {}
    if failed and all(c.noisy for c in failed):
        points |= {name: () for name in taps.layers if name not in points}
    if not points or (view.loose and not failed):
        return checks
    judge = Judge(replace(taps, decided=frozenset()), {})
    where = {c.where for c in failed}
    runs = [t for t in seen.runs if str(t) in where] or sorted(seen.runs, key=lambda t: t.elements)[:APART]
    parts = part_by_part(view.one, view.two, runs, points, view.box, view.load, judge)
    right = bool(parts) and all(c.passed for c in parts)
    if view.loose and not right:
        return checks
    return [*(_explained(c) if right else c for c in checks), *parts]


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


def _judged(judge: Judge, found: Sequence[tuple[Trial, list[Slices]]], missing: Collection[str]) -> list[Check]:
    """A check for every value that both models give in every trial."""
    checks = (
        judge.check(slices, tap=slices.name in judge.taps.names, where=str(trial), kind=trial.kind)
        for trial, outputs in found
        for slices in outputs
        if slices.name not in missing
    )
    return [c for c in checks if c is not None]


def _variant(model: Source | Variant) -> Variant:
    return model if isinstance(model, Variant) else Variant(model)


def _defined(model: Variant, names: Sequence[str]) -> list[str]:
    """Those of `names` that a node of the model gives; the model is not read where there are none."""
    if not names:
        return []
    have = {name for node in nodes_of(model.source).graph.node for name in node.output}
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


def _mute(seen: _Seen, taps: Taps) -> dict[str, str]:
    """Outputs that depend on the input but say nothing, and in front of which no tap does either."""
    dumb = silent(seen.runs, {name for trial in seen.runs for name in trial.outputs})
    outputs = [n for n in dumb if n not in taps.names and n not in taps.fixed]
    return {n: dumb[n] for n in outputs if not any(tap not in dumb for tap in taps.before.get(n, ()))}


def _proof(checks: list[Check], seen: _Seen, taps: Taps, ways: tuple[str, ...], skipped: tuple[str, ...]) -> Proof:
    """What all checks come to."""
    runs, mute = seen.runs, _mute(seen, taps)
    spoken = {n for t in runs for n in t.outputs if n not in taps.names and n not in taps.fixed} - set(mute)
    if mute and not spoken and NEVER in mute.values():
        note = f"the outputs say nothing: '{next(iter(mute))}' is {NEVER} on every input that was tried"
        checks = [*checks, Check(next(iter(mute)), math.nan, 0.0, False, False, f"{note}; give real input with --data")]
    if not checks or not runs:
        checks = [Check("", math.nan, 0.0, False, False, "nothing was run")]
    closest = max(checks, key=lambda c: (not c.passed, c.error / c.tolerance if c.tolerance else c.error))
    sizes, kinds = dict.fromkeys(t.size for t in runs if t.size), dict.fromkeys(t.kind for t in runs if t.kind)
    return Proof(
        all(c.passed for c in checks), closest.name, closest.error, closest.tolerance, len(runs), tuple(checks),
        sizes=tuple(sizes), inputs=tuple(kinds), branches=ways, skipped=skipped, silent=mute,
    )  # fmt: skip
