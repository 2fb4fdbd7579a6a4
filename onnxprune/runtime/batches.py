"""Batches for a model out of arrays of any length: which array feeds which input, and how samples are grouped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.runtime.fit import Options, Step, fitting
from onnxprune.runtime.inputs import listing
from onnxprune.runtime.readers import Arrays, Header
from onnxprune.runtime.specs import Feed, Spec, describe, fits

Rows = np.ndarray | None  # positions of samples, ascending; None for all of them

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

    `samples` is None where nobody knows before the end; `notes` are what a user should be told; `unit` is the number
    of samples that the model takes at once, where it fixes that; `folders` that of folders whose ranks are labels.
    `finite`: images and integers, which are finite without a look at them.
    """

    samples: int | None
    has_labels: bool
    batch: int
    notes: tuple[str, ...] = ()
    unit: int = 1
    folders: int = 0
    finite: bool = False
    _open: Callable[[int, Rows], Iterator[Batch]] = field(repr=False, default=lambda batch, rows: iter(()))
    _rows: Rows = field(repr=False, default=None)

    def __iter__(self) -> Iterator[Batch]:
        return self._open(self.batch, self._rows)

    def batched(self, batch: int) -> "Dataset":
        """The same data in batches of another size, as far as the model leaves it open."""
        return replace(self, batch=batch)

    def counted(self) -> "Dataset":
        """The same data with its number of samples; what nobody knows beforehand is gone through once."""
        return self if self.samples is not None else replace(self, samples=sum(batch.size for batch in self))

    def chosen(self, rows: np.ndarray) -> "Dataset":
        """The samples at these positions, ascending, as far as they fill the batches that the model fixes."""
        rows = rows[: len(rows) // self.unit * self.unit]
        return replace(self, samples=len(rows), _rows=rows if self._rows is None else self._rows[rows])

    def strange(self) -> np.ndarray:
        """Positions of the samples that hold NaN or infinity; all are gone through.  Raises UsageError if all do."""
        found = [] if self.finite else [_strange(batch) for batch in self]
        whole = np.concatenate([np.zeros(0, bool), *found])
        if whole.size and whole.all():
            raise UsageError("every sample of the data holds NaN or infinity")
        return np.flatnonzero(whole)

    def spread(self, most: int) -> "Dataset":
        """At most so many samples, evenly over all of them."""
        known = self.counted()
        return known if (known.samples or 0) <= most else known.chosen(evenly(known.samples or 0, most))


def _strange(batch: Batch) -> np.ndarray:
    """Which samples of a batch hold NaN or infinity, (size,); all of them where an array is no row of samples."""
    out = np.zeros(batch.size, bool)
    for array in batch.feeds.values():
        if array.dtype.kind in "fcV":
            bad = ~np.isfinite(array if array.dtype.kind in "fc" else array.astype(np.float32))
            rows = array.ndim and len(array) == batch.size
            out |= bad.reshape(batch.size, -1).any(axis=1) if rows else bad.any()
    return out


def evenly(samples: int, most: int) -> np.ndarray:
    """`most` positions evenly over so many samples, since data is often sorted by class."""
    return ((np.arange(most) + 0.5) * samples / most).astype(np.int64)


@dataclass(frozen=True)
class Roles:
    """Which array feeds which input (input name → array name), and which one holds labels.

    `constant` are inputs that are the same for all samples, `stacked` those of which each sample has all that
    the model takes at once, such as a state.
    """

    inputs: dict[str, str]
    labels: str | None
    specs: Sequence[Spec]
    constant: frozenset[str] = frozenset()
    stacked: frozenset[str] = frozenset()


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

    Constant are scalars, states (whose first axis counts something else than samples) that come as they are, and
    arrays of length one while others are longer.
    """
    shapes = {s.name: headers[roles.inputs[s.name]].shape for s in roles.specs}
    states = states_of(roles.specs)
    stacked = {s.name for s in roles.specs if _is_stack(shapes[s.name], s)}
    for spec in (s for s in roles.specs if s.name in states - stacked and not fits(shapes[s.name], s)):
        raise UsageError(
            f"input {spec} is a state, whose first axis counts no samples: give {describe(spec.shape)} for all "
            f"samples, or one of them for each, and not {describe(shapes[spec.name])}"
        )
    counted = {n for n, shape in shapes.items() if shape and (n not in states or n in stacked)}
    rows = max((shapes[n][0] for n in counted), default=1)
    constant = {s.name for s in roles.specs if s.name not in counted}
    constant |= {n for n in counted - stacked if shapes[n][0] == 1 != rows}
    for name in sorted(counted - constant):
        if shapes[name][0] != rows:
            longest = next(n for n in sorted(counted) if shapes[n][0] == rows)
            raise UsageError(
                f"'{longest}' has {rows} samples, but '{roles.inputs[name] or name}' has {shapes[name][0]}"
            )
    labels = headers[roles.labels].shape if roles.labels else (rows,)
    if not labels or labels[0] != rows:
        raise UsageError(f"there are {rows} samples, but '{roles.labels}' is {describe(labels)}")
    return replace(roles, constant=frozenset(constant), stacked=frozenset(stacked))


def states_of(specs: Sequence[Spec]) -> frozenset[str]:
    """Inputs whose first axis counts something else than samples: fixed, while that of another input is not.

    A recurrent network takes a state of, say, (2, 1, 128): layers, batch, width.
    """
    batched = any(s.shape and s.batch in (None, 1) for s in specs)
    return frozenset(s.name for s in specs if batched and s.batch not in (None, 1))


def _is_stack(shape: Sequence[int], spec: Spec) -> bool:
    """Whether an array holds all that a model takes at once for each sample, (samples, *shape)."""
    return spec.batch is not None and len(shape) > 1 and not fits(shape, spec) and fits(shape[1:], spec)


def fitted(roles: Roles, headers: Mapping[str, Header], options: Options, image: bool) -> dict[str, Step]:
    """The function for each input that makes its array fit."""
    steps = {}
    for spec in roles.specs:
        name = roles.inputs[spec.name]
        header = headers[name]
        own = Header(header.shape[1:], header.dtype) if spec.name in roles.stacked else header
        steps[spec.name] = fitting(spec, name, own, options, image=image)
    return steps


def fixed_batch(roles: Roles) -> int | None:
    """The batch size that the model fixes, if it does; one where a state goes with the samples, whose size is fixed."""
    sizes = {s.batch for s in roles.specs if s.name not in roles.constant | roles.stacked and s.batch is not None}
    if states_of(roles.specs) and not sizes:
        return 1
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

    def at(self, places: np.ndarray | slice, size: int) -> "Piece":
        """The samples at so many of its positions."""
        labels = None if self.labels is None else self.labels[places]
        return Piece({n: a[places] for n, a in self.rows.items()}, self.constant, labels, size)


def pieces(chunk: Arrays, roles: Roles, steps: Mapping[str, Step]) -> Iterator[Piece]:
    """A chunk made to fit, in one piece; in one for each sample where samples have states of their own."""
    if not roles.stacked:
        yield _piece(chunk, roles, steps)
        return
    own = {roles.inputs[n] for n in roles.stacked}
    same = {roles.inputs[n] for n in roles.constant}
    cut = {*roles.inputs.values(), *([roles.labels] if roles.labels else [])} - own - same
    plain = replace(roles, constant=roles.constant | roles.stacked)
    for i in range(len(chunk[next(iter(own))])):
        sample = {
            **{n: chunk[n][i] for n in own},
            **{n: chunk[n] for n in same},
            **{n: chunk[n][i : i + 1] for n in cut},
        }
        yield _piece(sample, plain, steps)


def _piece(chunk: Arrays, roles: Roles, steps: Mapping[str, Step]) -> Piece:
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
    whole = Piece(rows, held[0].constant, labels, sum(p.size for p in held))
    held.clear()
    for begin in range(0, whole.size, size):
        part = whole.at(slice(begin, begin + size), min(size, whole.size - begin))
        if last or part.size == size:
            yield Batch({**part.rows, **part.constant}, part.labels, part.size)
        else:
            held.append(part)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def picked(pieces: Iterator[Piece], rows: Rows) -> Iterator[Piece]:
    """The samples at these positions, counted over all pieces."""
    begin = 0
    for part in pieces:
        if rows is None:
            yield part
            continue
        inside = rows[np.searchsorted(rows, begin) : np.searchsorted(rows, begin + part.size)] - begin
        begin += part.size
        if len(inside):
            yield part if len(inside) == part.size else part.at(inside, len(inside))


def first_samples(pieces: Iterator[Piece], limit: int | None) -> Iterator[Piece]:
    """The pieces up to `limit` samples; the last one is cut."""
    left = limit
    for part in pieces:
        if left is not None and part.size > left:
            if left and part.rows:
                yield part.at(slice(left), left)
            return
        yield part
        left = None if left is None else left - part.size
