"""Proof that a pruned model is the original without the removed channels: masked = pruned, up to rounding.

Both compute the same sums, but the pruned model leaves out terms that are zero in the masked one, so that the
order of the additions changes and with it the last bits. How far that goes at the outputs depends on the
network; it is measured rather than assumed (`NOISE_FACTOR`).
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest

import numpy as np

from onnxprune.errors import CheckFailed, ModelError
from onnxprune.runtime.compare import Difference, agreement
from onnxprune.runtime.edited import draws
from onnxprune.runtime.engine import engine
from onnxprune.runtime.session import Session, make_session
from onnxprune.runtime.source import Source, Variant, nodes_of
from onnxprune.runtime.specs import Feed, Spec
from onnxprune.runtime.taps import Taps, find_taps

# Largest difference as a share of the largest magnitude of an output, by element type. Over 33 trained networks
# with 30 % and 60 % of their inner channels cut, float32 stayed below 2e-6 (median 2e-7), while two channels
# exchanged in one weight gave 2e-5 to 1 (median 1e-1). Half precision rounds each layer to 2^-11 (bfloat16:
# 2^-8), and a sum that lands on the other side of a rounding boundary is off by a whole step.
TOLERANCE = {"float64": 1e-9, "float32": 3e-5, "float16": 1e-2, "bfloat16": 6e-2}

# Inner values of a quantized graph have about 255 steps, and one that falls on the other side of a boundary moves
# a sum by up to 1/255 of its range: a MobileNetV2 in int8 gave 1e-2, no less than two exchanged channels do.
# Such a graph is therefore proven twice: as it is, with this tolerance, and without the rounding of activations,
# with the tolerance of its element type. Where the second proof holds, the first may be off by more: networks of
# random weights, whose ranges are nothing like trained ones, came to 6e-2.
QUANTIZED = 3e-2
ROUNDED = 0.25

# Outputs behind a threshold or a rounding may differ outright in this share of their elements (or in one).
FLIPPED = 0.01

# A change of the input by a few units in the last place goes through as many layers as the rounding of the first
# one does. Networks that amplify it (instance norms on noise, recurrence) get that much more room, up to a
# limit beyond which the comparison would prove nothing.
NUDGE = 4
NUDGED = 3  # feeds that this is measured on: an output of one number may stay the same by chance
NOISE_FACTOR = 8
NOISE_LIMIT = 5e-2

_ULP = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Check:
    """One output, or one value before an output, of both models: its error as a share of its magnitude."""

    name: str
    error: float
    tolerance: float
    passed: bool
    tap: bool
    note: str = ""


@dataclass(frozen=True)
class Proof:
    """Whether masked = pruned held in `runs` runs, and the check that came closest to failing (or failed most)."""

    passed: bool
    output: str
    error: float
    tolerance: float
    runs: int
    checks: tuple[Check, ...] = ()

    def __str__(self) -> str:
        figures = f"largest relative difference {self.error:.1e} at '{self.output}' ({self.tolerance:.0e} allowed)"
        return f"{'equal up to rounding' if self.passed else 'NOT equal'}: {figures}, {self.runs} runs"

    def require(self) -> "Proof":
        """Itself, or `CheckFailed` where the models differ."""
        if self.passed:
            return self
        note = next((c.note for c in self.checks if not c.passed and c.note), "")
        raise CheckFailed(f"the pruned model is not the masked original: {note or self}")


def prove(
    masked: Source | Variant,
    pruned: Source | Variant,
    feeds: Sequence[Feed],
    *,
    tolerance: float | None = None,
    providers: str | Sequence[str] = "cpu",
    threads: int | None = None,
    unrounded: bool = True,
) -> Proof:
    """Run both models on `feeds`, without graph optimizations, and compare every output and what decides it.

    Only one of the two is in memory at a time. `tolerance` replaces the one by element type. `unrounded`:
    compare a quantized graph without the rounding of activations, too; that is no law where a change relies on what
    rounding or saturation does. Raises `ModelError` when onnxruntime refuses one of them.
    """
    one, two = _variant(masked), _variant(pruned)
    nodes = nodes_of(one.source)
    taps = find_taps(nodes)
    if draws(nodes.graph):
        one, two = replace(one, seeded=True), replace(two, seeded=True)
    load = partial(make_session, providers=providers, threads=threads)
    checks = _checks(one, two, feeds, taps, load, partial(_judge, taps=taps, tolerance=tolerance))
    if unrounded and taps.rounds and tolerance is None:
        judge = partial(_judge, taps=replace(taps, quantized=False), tolerance=tolerance, note="without rounding")
        one, two = replace(one, unrounded=True), replace(two, unrounded=True)
        with contextlib.suppress(ModelError):  # some mix precisions there; the check above stands in any case
            exact = _checks(one, two, feeds, taps, load, judge)
            checks = [*(_excused(checks) if all(c.passed for c in exact) else checks), *exact]
    return _proof(checks, len(feeds))


def _checks(
    one: Variant,
    two: Variant,
    feeds: Sequence[Feed],
    taps: Taps,
    load: Callable[..., Session],
    judge: Callable[..., Check | None],
) -> list[Check]:
    """Compare the outputs and taps of two models on `feeds`; one session lives at a time."""
    engine().set_seed(1)  # Random operators of both models then draw the same numbers
    first = load(one, taps=taps.names)
    signature = _signature(first)
    expected = [first.run(feed) for feed in feeds]
    noise = agreement((e, first.run(nudged(f))) for e, f in zip(expected[:NUDGED], feeds[:NUDGED], strict=True))
    del first
    engine().set_seed(1)
    second = load(two, taps=_defined(two, taps.names))
    have = {o.name for o in second.outputs}
    kept = [{n: a for n, a in outputs.items() if n in have} for outputs in expected]
    found = agreement(zip(kept, map(second.run, feeds), strict=True))
    room = {d.name: d for d in noise.outputs}
    dtypes = {s.name: s.dtype.name for s in second.outputs}
    checks = [judge(d, room[d.name], dtypes[d.name], tap=d.name in second.taps) for d in found.outputs]
    return [c for c in (_unchanged(signature, _signature(second)), *checks) if c is not None]


def _excused(checks: Sequence[Check]) -> list[Check]:
    """Checks of a network that is right but for what its rounding makes of the last bits."""
    off = [not c.passed and not c.note and c.error <= ROUNDED for c in checks]
    return [replace(c, tolerance=ROUNDED, passed=True) if o else c for c, o in zip(checks, off, strict=True)]


def _variant(model: Source | Variant) -> Variant:
    return model if isinstance(model, Variant) else Variant(model)


def _defined(model: Variant, names: Sequence[str]) -> list[str]:
    """Those of `names` that a node of the model gives; the model is not read where there are none."""
    if not names:
        return []
    have = {name for node in nodes_of(model.source).graph.node for name in node.output}
    return [n for n in names if n in have]


def nudged(feed: Feed) -> Feed:
    """The feed with its floats moved by up to `NUDGE` units in the last place, at random (seeded)."""
    generator = np.random.default_rng(1)
    moved = dict(feed)
    for name, array in feed.items():
        if array.dtype.name in _ULP:
            step = generator.integers(-NUDGE, NUDGE + 1, array.shape) * _ULP[array.dtype.name]
            moved[name] = (array.astype(np.float64) * (1 + step)).astype(array.dtype)
    return moved


def _tolerance(dtype: str, taps: Taps, name: str, noise: Difference) -> float:
    base = TOLERANCE.get(dtype, 0.0)
    if taps.quantized:
        base = max(base, QUANTIZED)
    if noise.problem:
        return base
    return max(base, min(NOISE_LIMIT, NOISE_FACTOR * noise.relative_to(_floor(taps, name))))


def _floor(taps: Taps, name: str) -> float:
    """A saturating operator has an absolute error: it is compared with its range of 1, not with a tiny value."""
    return 1.0 if name in taps.bounded else 0.0


def _judge(
    diff: Difference,
    noise: Difference,
    dtype: str,
    *,
    taps: Taps,
    tap: bool,
    tolerance: float | None,
    note: str = "",
) -> Check | None:
    """The check of one output; None for an inner value that lost channels, which says nothing."""
    if tap and diff.problem and diff.problem.startswith("shape"):
        return None
    limit = _tolerance(dtype, taps, diff.name, noise) if tolerance is None else tolerance
    error = diff.relative_to(_floor(taps, diff.name))
    if diff.problem and noise.problem and diff.name in taps.decided:
        note, error = "its shape depends on which side of a threshold values fall", 0.0
    elif diff.problem:
        note = f"'{diff.name}': {diff.problem}"
    elif error > limit and diff.name in taps.decided and diff.flips <= max(1, FLIPPED * diff.size):
        note, error = f"{diff.flips} of {diff.size} on the other side of a threshold", 0.0
    return Check(diff.name, error, limit, error <= limit, tap, note)


def _signature(session: Session) -> tuple[Spec, ...]:
    """Inputs and outputs of the model itself, in order."""
    taps = set(session.taps)
    return (*session.inputs, *(o for o in session.outputs if o.name not in taps))


def _unchanged(one: Sequence[Spec], two: Sequence[Spec]) -> Check | None:
    """A failed check when inputs or outputs were added, removed, renamed or retyped; None when all is well.

    Shapes of outputs are onnxruntime's inference here, not the file's declaration, and may grow more exact.
    """
    for before, after in zip_longest(one, two):
        if before is None or after is None or (before.name, before.element) != (after.name, after.element):
            return Check(str(before or after), math.inf, 0.0, False, False, f"{before} became {after}")
    return None


def _proof(checks: Sequence[Check], runs: int) -> Proof:
    if not checks or not runs:
        return Proof(False, "", math.nan, 0.0, runs, (Check("", math.nan, 0.0, False, False, "nothing was run"),))
    worst = max(checks, key=lambda c: (not c.passed, c.error / c.tolerance if c.tolerance else c.error))
    return Proof(all(c.passed for c in checks), worst.name, worst.error, worst.tolerance, runs, tuple(checks))
