"""Part by part: both models are handed the same inner values, and each part must make the same of them.

A near tie in front of a TopK or a rounding falls one way in one model and the other way in the other, and everything
behind it differs, although nothing is wrong. So the pruned model is given the values that the masked one decided on,
less the channels that went: what lies in front of a decision must be equal up to rounding, the decision must be the
same but for a few near ties, and what lies behind it must be equal given the same decision.
"""

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from onnxprune.runtime.edited import own
from onnxprune.runtime.lifted import Inside, rounds_of
from onnxprune.runtime.session import Session
from onnxprune.runtime.slices import sliced, widen
from onnxprune.runtime.source import Variant
from onnxprune.runtime.specs import Feed
from onnxprune.runtime.stimuli import Trial
from onnxprune.runtime.tolerance import FLIPPED, Check, Judge
from onnxprune.runtime.ulps import nudged, nudged_weights

Box = Callable[[str], tuple[np.ndarray, ...] | None]  # live positions of each axis of a value; None where unknown
Load = Callable[..., Session]

CODES = {"uint8", "int8", "uint16", "int16"}  # rounded values, one step of which is the least that they differ by
FEW = 2  # decisions that may always fall the other way


def part_by_part(
    masked: Variant, pruned: Variant, trials: Sequence[Trial], points: Mapping[str, Sequence[str]], box: Box | None,
    load: Load, judge: Judge,
) -> list[Check]:  # fmt: skip
    """Compare two models, the masked original and the pruned one, that are handed the same values at `points`.

    Args:
        trials: runs of the masked original.
        points: values to hand over, with those in front of each that are compared.
        box: live positions of its values; all are live where it is None.
        load, judge: make a session, and say how far values may differ.
    """
    rounds = dict(rounds_of(masked.graph)) if masked.lifted else {}
    box = box and cache(partial(_in_rounds, box, rounds))
    pruned = replace(pruned, lifted=_there(pruned, masked.lifted or {}))
    named = sorted({*points, *(name for took in points.values() for name in took)})
    first = load(masked, taps=named)
    seen = [first.run(t.feed) for t in trials]
    elements = {o.name: o.element for o in first.outputs}
    del first
    masked, pruned = (_ranked(model, seen[0], rounds) for model in (masked, pruned))
    shapes = {n: array.shape for n, array in load(pruned, taps=_present(pruned, named)).run(trials[0].feed).items()}
    cut = _alike(seen, shapes, box)
    fit = [n for n in points if n in cut[0] and _fits(cut[0][n], shapes[n], rounds.get(n))]
    if not (given := {n: elements[n] for n in fit if elements[n]}):
        return []
    fronts = {n for took in points.values() for n in took if n in cut[0] and n not in given}
    kept = [n for n in cut[0] if n in fronts or n not in named]
    judge = replace(judge, steps=len(given) < len(points))  # what was not handed over falls as it will
    second = load(replace(pruned, given=given), taps=sorted(fronts))
    made = [second.run(t.feed | {n: values[n] for n in given}) for t, values in zip(trials, cut, strict=True)]
    del second
    parts = [_Part(*part, kept, fronts, given) for part in zip(trials, cut, made, strict=True)]
    checks = [check for part in parts for check in part.checks(judge)]
    if all(c.passed for c in checks):
        return checks
    moved = load(replace(nudged_weights(masked), given=given), taps=sorted(fronts))
    for part, values in zip(parts, seen, strict=True):
        part.weigh(judge, moved, values, box)
    return [check for part in parts for check in part.checks(judge)]


@dataclass(frozen=True)
class _Part:
    """A run of the second model that was handed values of the first."""

    trial: Trial
    wanted: Mapping[str, np.ndarray]  # values of the first model, cut to the live channels
    made: Mapping[str, np.ndarray]  # values of the second
    kept: Sequence[str]  # values that both give
    fronts: Collection[str]  # those among them that lie in front of a decision
    given: Collection[str]  # values that were handed over

    def checks(self, judge: Judge) -> list[Check]:
        """A check of every value that the second model makes of what it was handed."""
        where = f"{self.trial}, part by part"
        look = partial(judge.check, where=where, kind=self.trial.kind)
        checks = [look(sliced(n, self.wanted[n], self.made.get(n)), tap=n in self.fronts) for n in self.kept]
        for n in self.given:
            check = look(sliced(n, self.wanted[n], self.made[own(n)]), tap=False)
            decided = n in judge.taps.decisions and check is not None and not check.passed
            checks.append(_same(n, self.wanted[n], self.made[own(n)], where) if decided else check)
        return [c for c in checks if c is not None]

    def weigh(self, judge: Judge, moved: Session, values: Mapping[str, np.ndarray], box: Box | None) -> None:
        """Add to the noise what the first model makes of weights and inputs that are moved in the last places."""
        for seed in (1, 2):
            found = moved.run(nudged(self.trial.feed, seed) | {n: values[n] for n in self.given})
            found = {n: found[own(n)] if n in self.given else found[n] for n in (*self.kept, *self.given)}
            other = {n: a for n, array in found.items() if (a := _cut(array, n, box)) is not None}
            widen(judge.noise, self.trial.kind, (sliced(n, self.wanted[n], other.get(n)) for n in found))


def _alike(runs: Sequence[Feed], names: Container[str], box: Box | None) -> list[dict[str, np.ndarray]]:
    """The live positions of values that the other model has, too, where all runs lay them alike: a batch may not."""
    cuts = [{name: _cut(array, name, box) for name, array in values.items() if name in names} for values in runs]
    return [{n: a for n, a in cut.items() if a is not None and all(c[n] is not None for c in cuts)} for cut in cuts]


def _cut(array: np.ndarray, name: str, box: Box | None) -> np.ndarray | None:
    """The live positions of a value; all where nothing is known of it, None where that does not fit its shape."""
    for axis, mask in enumerate((box and box(name)) or ()):
        if not mask.all():
            if axis >= array.ndim or mask.size != array.shape[axis]:
                return None
            array = array.compress(mask, axis)
    return array


def _present(model: Variant, names: Sequence[str]) -> list[str]:
    have = {name for node in model.graph.node for name in node.output}
    return [n for n in names if n in have or n in (model.lifted or {})]


def _there(model: Variant, keys: Mapping[str, Inside]) -> dict[str, Inside]:
    """Those values of bodies that this model has, too."""
    have = dict(rounds_of(model.graph)) if keys else {}
    return {key: value for key, value in keys.items() if key in have}


def _ranked(model: Variant, values: Feed, rounds: Mapping[str, int]) -> Variant:
    """The model that knows how many axes the values inside its bodies have, from a run."""
    known = {n: replace(v, rank=values[n].ndim - rounds[n]) for n, v in (model.lifted or {}).items() if n in values}
    return replace(model, lifted=known)


def _in_rounds(box: Box, rounds: Mapping[str, int], name: str) -> tuple[np.ndarray, ...] | None:
    """The live positions of a value, all of them along the axes on which rounds are stacked."""
    found = box(name)
    return found and (*[np.ones(1, bool)] * rounds.get(name, 0), *found)


def _fits(array: np.ndarray, shape: tuple[int, ...], rounds: int | None) -> bool:
    """Whether a value has the shape that the other model gives it, but for the number of rounds."""
    return array.ndim == len(shape) and array.shape[rounds or 0 :] == shape[rounds or 0 :]


def _same(name: str, theirs: np.ndarray, mine: np.ndarray, where: str) -> Check:
    """The check of what the pruned model itself decides, given what the masked one decided before."""
    problem = _unlike(theirs, mine)
    return Check(name, float(bool(problem)), 0.5, not problem, True, problem and f"'{name}': {problem}", where)


def _unlike(theirs: np.ndarray, mine: np.ndarray) -> str:
    """How two decisions differ beyond near ties; empty where they do not."""
    if theirs.dtype != mine.dtype:
        return f"type {theirs.dtype} became {mine.dtype}"
    if theirs.dtype.name in CODES or theirs.dtype.kind in "fV":
        if theirs.shape != mine.shape:
            return f"shape {list(theirs.shape)} became {list(mine.shape)}"
        gap = np.abs(theirs.astype(np.float64) - mine.astype(np.float64))
        other, most = int(np.count_nonzero(gap)), float(gap.max(initial=0))
        if most > 1 and theirs.dtype.name in CODES:
            return f"rounded values differ by {most:.0f} steps"
    else:  # indices, in whatever order near ties come, and however many pass a threshold
        values, counts = np.unique(np.concatenate([theirs.ravel(), mine.ravel()]), return_counts=True)
        mine_counts = dict(zip(*np.unique(mine.ravel(), return_counts=True), strict=True))
        other = sum(abs(int(n) - 2 * int(mine_counts.get(v, 0))) for v, n in zip(values, counts, strict=True)) // 2
    if other > max(FEW, FLIPPED * theirs.size):
        return f"{other} of {theirs.size} decisions fall the other way"
    return ""
