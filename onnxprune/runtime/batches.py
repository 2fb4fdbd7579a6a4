"""Batches for a model out of arrays of any length: which array feeds which input, and how samples are grouped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.runtime.fit import Options, Step, fitting
from onnxprune.runtime.inputs import listing
from onnxprune.runtime.readers import Arrays, Header
from onnxprune.runtime.specs import Feed, Spec, describe, fits

LABELS = ("labels", "label", "y", "targets", "target")


@dataclass(frozen=True)
class Batch:
    """Arrays by input name, samples on the first axis; `labels` for the same samples, or None."""

    feeds: Feed
    labels: np.ndarray | None
    size: int


@dataclass(frozen=True)
class Dataset:
    """Batches that can be gone through again and again; only one is in memory at a time.

    `samples` is None where nobody knows before the end; `notes` are what a user should be told.
    """

    samples: int | None
    has_labels: bool
    batch: int
    notes: tuple[str, ...] = ()
    _open: Callable[[int], Iterator[Batch]] = field(repr=False, default=lambda batch: iter(()))

    def __iter__(self) -> Iterator[Batch]:
        return self._open(self.batch)

    def batched(self, batch: int) -> "Dataset":
        """The same data in batches of another size, as far as the model leaves it open."""
        return replace(self, batch=batch)


@dataclass(frozen=True)
class Roles:
    """Which array feeds which input (input name → array name), and which one holds labels."""

    inputs: dict[str, str]
    labels: str | None
    specs: Sequence[Spec]
    constant: frozenset[str] = frozenset()


def assign(specs: Sequence[Spec], headers: Mapping[str, Header], origin: str) -> Roles:
    """Match arrays to inputs by name; the only array goes to the only input whatever it is called."""
    names = {s.name for s in specs}
    labels = next((n for n in LABELS if n in headers and n not in names), None)
    rest = [n for n in headers if n != labels]
    only = rest[0] if len(rest) == 1 else "x" if "x" in rest else None
    if len(specs) == 1 and specs[0].name not in headers and only is not None:
        return _with_constants(Roles({specs[0].name: only}, labels, specs), headers)
    missing = [s for s in specs if s.name not in headers]
    if missing:
        have = ", ".join(f"'{n}' {describe(h.shape)} {h.dtype}" for n, h in headers.items())
        raise UsageError(f"{origin} lacks {listing(missing)}; it has {have or 'nothing'}")
    return _with_constants(Roles({n: n for n in names}, labels, specs), headers)


def _with_constants(roles: Roles, headers: Mapping[str, Header]) -> Roles:
    """Mark the arrays that are the same for all samples, and check that the others count alike.

    Constant are scalars, arrays that fit an input whose first axis is fixed to something else than a batch of
    one (a state, a cache), and those of length one while others are longer.
    """
    shapes = {s.name: headers[roles.inputs[s.name]].shape for s in roles.specs}
    free = {s.name for s in roles.specs if shapes[s.name] and (s.batch in (None, 1) or not fits(shapes[s.name], s))}
    counted = free or {n for n, shape in shapes.items() if shape}
    rows = max((shapes[n][0] for n in counted), default=1)
    constant = {s.name for s in roles.specs if s.name not in counted}
    constant |= {s.name for s in roles.specs if s.name in free and shapes[s.name][0] == 1 != rows}
    for name in sorted(counted - constant):
        if shapes[name][0] != rows:
            longest = next(n for n in sorted(counted) if shapes[n][0] == rows)
            raise UsageError(
                f"'{longest}' has {rows} samples, but '{roles.inputs[name] or name}' has {shapes[name][0]}"
            )
    labels = headers[roles.labels].shape if roles.labels else (rows,)
    if not labels or labels[0] != rows:
        raise UsageError(f"there are {rows} samples, but '{roles.labels}' is {describe(labels)}")
    return replace(roles, constant=frozenset(constant))


def fitted(roles: Roles, headers: Mapping[str, Header], options: Options, image: bool) -> dict[str, Step]:
    """The function for each input that makes its array fit."""
    steps = {}
    for spec in roles.specs:
        name = roles.inputs[spec.name]
        steps[spec.name] = fitting(spec, name, headers[name], options, image=image)
    return steps


def fixed_batch(roles: Roles) -> int | None:
    """The batch size that the model fixes, if it does."""
    sizes = {s.batch for s in roles.specs if s.name not in roles.constant and s.batch is not None}
    if len(sizes) > 1:
        raise UsageError(f"the inputs fix batches of different sizes: {listing(roles.specs)}")
    return sizes.pop() if sizes else None


@dataclass(frozen=True)
class Piece:
    """Some samples: arrays with them on the first axis, arrays that are the same for all, labels."""

    rows: Arrays
    constant: Arrays
    labels: np.ndarray | None
    size: int


def piece(chunk: Arrays, roles: Roles, steps: Mapping[str, Step]) -> Piece:
    """The arrays of a chunk made to fit, by the part that they play."""
    arrays = {s.name: steps[s.name](chunk[roles.inputs[s.name]]) for s in roles.specs}
    rows = {n: a for n, a in arrays.items() if n not in roles.constant}
    labels = chunk[roles.labels] if roles.labels else None
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    size = len(next(iter(rows.values()))) if rows else 1
    return Piece(rows, {n: a for n, a in arrays.items() if n in roles.constant}, labels, size)


def regrouped(pieces: Iterator[Piece], size: int, *, exact: bool) -> Iterator[Batch]:
    """Batches of `size` from pieces of any size; a remainder comes last, or not at all when `exact`."""
    held: list[Piece] = []
    for piece in pieces:
        if held and not _joins(held[-1], piece):
            yield from _cut(held, size, last=not exact)
            held = []
        held.append(piece)
        if sum(p.size for p in held) >= size:
            yield from _cut(held, size, last=False)
    yield from _cut(held, size, last=not exact)


def _joins(one: Piece, two: Piece) -> bool:
    """Whether two pieces can be in one batch: the same constants and shapes, labels in both or in neither."""
    same = one.constant.keys() == two.constant.keys()
    same = same and all(np.array_equal(a, two.constant[n]) for n, a in one.constant.items())
    same = same and all(a.shape[1:] == two.rows[n].shape[1:] for n, a in one.rows.items())
    return bool(same and one.rows and (one.labels is None) == (two.labels is None))


def _cut(held: list[Piece], size: int, *, last: bool) -> Iterator[Batch]:
    """Take as many full batches as there are out of `held`, and the rest as well when it is the `last`."""
    if not held:
        return
    rows = {n: _joined([p.rows[n] for p in held]) for n in held[0].rows}
    labels = None if held[0].labels is None else _joined([p.labels for p in held if p.labels is not None])
    constant, total = held[0].constant, sum(p.size for p in held)
    held.clear()
    begin = 0
    while begin < total and (last or begin + size <= total):
        part = slice(begin, begin + size)
        feeds = {**{n: a[part] for n, a in rows.items()}, **constant}
        count = min(size, total - begin)
        yield Batch(feeds, None if labels is None else labels[part], count)
        begin += size
    if begin < total:
        part = slice(begin, total)
        rest = {n: a[part] for n, a in rows.items()}
        held.append(Piece(rest, constant, None if labels is None else labels[part], total - begin))


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def first_samples(pieces: Iterator[Piece], limit: int | None) -> Iterator[Piece]:
    """The pieces up to `limit` samples; the last one is cut."""
    left = limit
    for part in pieces:
        if left is not None and part.size > left:
            if left and part.rows:
                rows = {n: a[:left] for n, a in part.rows.items()}
                yield Piece(rows, part.constant, None if part.labels is None else part.labels[:left], left)
            return
        yield part
        left = None if left is None else left - part.size
