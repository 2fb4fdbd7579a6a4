"""What the proof runs on: made input of several kinds and sizes, and the user's own.

A model whose sizes are open is run at others than the analysed ones: another batch, odd heights and widths, another
length. Single flags and counts are all on in one run and all off in another, so that loops go round. A size that the
original cannot run at is left out, and told. So is input that gives nothing but NaN where another kind gives numbers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.operators.registry import Shape
from onnxprune.runtime.inputs import (
    KINDS,
    NORMAL,
    PIXELS,
    POSITIVE,
    Key,
    computed_sizes,
    decided,
    filled,
    known_sizes,
    open_sizes,
    random_inputs,
)
from onnxprune.runtime.session import Session
from onnxprune.runtime.specs import Feed, Spec

DATA = "your data"
USUAL = (NORMAL, POSITIVE, PIXELS)  # tried always; the others where these do not reach the outputs

# Other sizes, small ones first; the free sizes of a model, in order, take different values of a row. The first are
# smaller than most layers are wide, the next ones odd, and the last multiples of 32, as deep encoders want them.
SMALL_SIZES, ODD_SIZES, EVEN_SIZES = (5, 7, 9, 11), (37, 45, 53, 61), (64, 96, 128, 160)
FLAGS = {POSITIVE: True, PIXELS: False}  # kinds with all flags on, or all off: chance may keep decisions from meeting
ENOUGH = 2  # other sizes that were run
UNMOVED = 0.1  # what an output counts that is one and the same number, where one that varies counts 1
TRIES = 12  # sizes that are tried until then
LARGEST = 1 << 16  # elements of all inputs at another size, where the analysed size has less than half of them
CHEAP = 1 << 14  # elements of all inputs at an odd size that is run in any case


@dataclass(frozen=True)
class Stimuli:
    """The inputs of a model, the shapes that it was analysed at, and batches of the user's data.

    empties: whether the model runs out of elements at these shapes of its inputs, which onnxruntime may crash on.
    """

    specs: tuple[Spec, ...]
    shapes: Mapping[str, Shape]
    seed: int = 0
    data: tuple[Feed, ...] = ()
    empties: Callable[[Mapping[str, Shape]], bool] = lambda _: False


@dataclass(frozen=True)
class Trial:
    """One feed, how its size and its kind are called, and what the first of the two models makes of it."""

    feed: Feed
    size: str
    kind: str
    outputs: Feed

    @property
    def elements(self) -> int:
        """Elements of all inputs."""
        return sum(array.size for array in self.feed.values())

    def __str__(self) -> str:
        return f"{self.size} ({self.kind})" if self.size else self.kind


@dataclass
class TrialRuns:
    """The runs of the first model, and what was tried in vain."""

    runs: list[Trial] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def explored(session: Session, stimuli: Stimuli | Sequence[Feed]) -> TrialRuns:
    """Run a model on all that it is to be run on.

    Raises:
        ModelError: it cannot be run at the analysed size on standard normal input, on the user's data, or on feeds
            that were given as they are.
    """
    if not isinstance(stimuli, Stimuli):
        return TrialRuns([Trial(feed, "", "", session.run(feed)) for feed in stimuli])
    found = TrialRuns()
    _kinds(session, stimuli, found)
    found.runs.sort(key=lambda t: -_reach(t.outputs))
    _sizes(session, stimuli, found.runs[0].kind, found)
    found.runs += [Trial(feed, told(feed), DATA, session.run(feed)) for feed in stimuli.data]
    if any(_all_finite(t.outputs) for t in found.runs):
        found.skipped += [f"{t}: gives NaN or infinity" for t in found.runs if not _all_finite(t.outputs)]
        found.runs = [t for t in found.runs if _all_finite(t.outputs)]
    return found


def _kinds(session: Session, stimuli: Stimuli, found: TrialRuns) -> None:
    """Runs at the analysed size, on each of the usual kinds of input and on others until one reaches the outputs."""
    for number, kind in enumerate(KINDS):
        if kind not in USUAL and any(_reach(t.outputs) == 1 for t in found.runs):
            return
        feed = random_inputs(stimuli.specs, stimuli.shapes, seed=stimuli.seed + number, kind=kind)[0]
        # as it was drawn where that does not run, as where an index of few rows is taken for a count
        for chosen in [decided(feed, FLAGS[kind]), feed] if kind in FLAGS else [feed]:
            try:
                found.runs.append(Trial(chosen, told(chosen), kind, session.run(chosen)))
                break
            except ModelError:
                if not number:
                    raise
        else:
            found.skipped.append(f"{told(feed)} ({kind}): the original does not run")


def _sizes(session: Session, stimuli: Stimuli, kind: str, found: TrialRuns) -> None:
    """Runs at other sizes, until enough were run and every free size was another one."""
    specs = [
        s if s.shape is not None else replace(s, shape=(None,) * len(stimuli.shapes[s.name])) for s in stimuli.specs
    ]
    computed = computed_sizes(specs)
    free = known_sizes(specs, stimuli.shapes, computed)
    same, ran = set(free), 0
    most = max(LARGEST, 2 * _elements(stimuli.shapes.values()))
    batch = {key for _, axis, key in open_sizes(specs) if axis == 0 and key in free}
    odd = list(_odd(free, batch))
    for chosen in (*_tries(free, batch), *odd):
        shapes = {s.name: filled(s, chosen, computed) for s in specs}
        limit = CHEAP if chosen in odd else most
        if shapes == dict(stimuli.shapes) or not 0 < _elements(shapes.values()) <= limit:
            continue
        if ran >= ENOUGH and not same and chosen not in odd:
            continue
        feed = random_inputs(stimuli.specs, shapes, seed=stimuli.seed + len(KINDS) + ran, kind=kind)[0]
        if any(size < free[key] for key, size in chosen.items() if key not in batch) and stimuli.empties(shapes):
            found.skipped.append(f"{told(feed)}: leaves the original without elements")
            continue
        try:
            found.runs.append(Trial(feed, told(feed), kind, session.run(feed)))
        except ModelError:
            found.skipped.append(f"{told(feed)}: the original does not run")
            continue
        ran += 1
        same -= {key for key, size in chosen.items() if size != free[key]}


def _tries(free: Mapping[Key, int], batch: set[Key]) -> Iterator[dict[Key, int]]:
    """Values of the free sizes that are worth a try: all at once, the batch alone, the others alone, one alone."""
    inner = [key for key in free if key not in batch]

    def spread(sizes: tuple[int, ...]) -> dict[Key, int]:
        return {key: sizes[k % len(sizes)] for k, key in enumerate(inner)}

    def batches(n: int) -> dict[Key, int]:
        return dict.fromkeys(batch, n if any(free[key] != n for key in batch) else n + 1)

    rows = (SMALL_SIZES, ODD_SIZES, EVEN_SIZES)
    together = [dict(free) | batches(n) | spread(sizes) for n, sizes in zip((2, 3, 2), rows, strict=True)]
    alike = [dict(free) | batches(2) | dict.fromkeys(inner, sizes[0]) for sizes in rows] if len(inner) > 1 else []
    alone = [dict(free) | batches(2), *(dict(free) | spread(sizes) for sizes in rows)]
    single = [dict(free) | {key: sizes[0]} for key in inner for sizes in rows] if len(inner) > 1 else []
    seen: list[dict[Key, int]] = [dict(free)]
    for chosen in (*together, *alone, *alike, *single):
        if chosen not in seen and len(seen) <= TRIES:
            seen.append(chosen)
            yield chosen


def _odd(free: Mapping[Key, int], batch: set[Key]) -> Iterator[dict[Key, int]]:
    """Sizes at which other axes can be taken for one another: a batch of one, and as many positions otherwise laid."""
    inner = [key for key in free if key not in batch]
    if any(free[key] > 1 for key in batch):
        yield dict(free) | dict.fromkeys(batch, 1)
    for k, key in enumerate(inner[1:]):
        if free[key] % 2 == 0:
            laid = dict(free) | {inner[k]: 2 * free[inner[k]], key: free[key] // 2}
            yield from ([laid | {b: 2 * free[b] for b in batch}] if batch else [])
            yield laid  # a batch that is written out somewhere in the network takes no other


def told(feed: Feed) -> str:
    """The sizes of a feed as users write them: `x:2x3x5x7`."""
    return " ".join(f"{name}:{'x'.join(map(str, array.shape)) or '[]'}" for name, array in feed.items())


def _elements(shapes: Iterable[Shape]) -> int:
    return sum(map(math.prod, shapes))


NEVER = "NaN or infinity"


def silent(runs: Sequence[Trial], names: Iterable[str]) -> dict[str, str]:
    """Outputs that say nothing, and what they are instead: NaN, or the same whatever goes in."""
    found = {}
    for name in names:
        seen = [t.outputs[name] for t in runs if name in t.outputs]
        if seen and all(a.dtype.kind in "fcV" and a.size and not _finite(a).any() for a in seen):
            found[name] = NEVER
        elif len(seen) > 1 and all(_alike(a, b) for a, b in pairwise(seen)):
            found[name] = "the same"
    return found


def _alike(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two outputs are the same; of different sizes, whether both are one and the same number."""
    if one.dtype.kind in "OUSM":
        return np.array_equal(one, two)
    if one.shape == two.shape:
        return np.array_equal(one.astype(np.float64), two.astype(np.float64), equal_nan=True)
    return len({float(x) for a in (one, two) for x in np.unique(a.astype(np.float64))}) == 1


def _finite(array: np.ndarray) -> np.ndarray:
    return np.isfinite(array.astype(np.float64))


def _reach(outputs: Feed) -> float:
    """How far input reaches, from 0 to 1: the mean share of finite elements; little of an output that is one number."""
    shares = []
    for array in (a.astype(np.float64) for a in outputs.values() if a.dtype.kind in "fV" and a.size):
        finite = array[np.isfinite(array)]
        varied = array.size == 1 or (finite.size and np.ptp(finite) > 0)
        shares.append(finite.size / array.size * (1 if varied else UNMOVED))
    return sum(shares) / len(shares) if shares else 1.0


def _all_finite(outputs: Feed) -> bool:
    return all(_finite(a).all() for a in outputs.values() if a.dtype.kind in "fV")
