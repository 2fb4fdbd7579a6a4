"""What is known of the elements of a value, whatever the input is.

Facts have the rank of their value; an axis of length 1 stands for all its positions.  There the bounds hold for every
position, and the identity names a function of the position: two elements with the same identity are equal at every
position, up to their scales.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import helper

from onnxprune.operators.labels import line
from onnxprune.operators.registry import Shape
from onnxprune.operators.split_axes import blocks
from onnxprune.operators.value_numbers import Ids, bits, mix, name_of

LARGEST = 1 << 22  # elements of facts; of larger values nothing is known
WHOLE = 1 << 53  # integers up to here are numbers in float64; of larger ones, some are rounded to it
INTEGERS = {int(helper.np_dtype_to_tensor_dtype(d)): d for d in map(np.dtype, "i1 i2 i4 i8 u1 u2 u4 u8".split())}


class NothingKnown(ValueError):
    """What a bound is made of is not known, or would be too large: nothing is known of the outputs then."""


_CONSTANT, _NEGATIVE, _ZERO, _PLACE, _SUM = map(name_of, ("constant", "negative", "zero", "place", "sum"))


@dataclass(frozen=True)
class Facts:
    """Bounds and identity of each element, arrays of one shape; an element is `scale` times its identity's function."""

    low: np.ndarray
    high: np.ndarray
    identity: Ids
    scale: np.ndarray  # positive

    @property
    def shape(self) -> Shape:
        return self.low.shape

    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray, Ids, np.ndarray]:
        return self.low, self.high, self.identity, self.scale

    @property
    def constant(self) -> np.ndarray:
        """Which elements are the same number always, bool."""
        return (self.low == self.high) & np.isfinite(self.low)

    @property
    def zero(self) -> np.ndarray:
        """Which elements are zero always, bool."""
        return (self.low == 0) & (self.high == 0)

    @property
    def exact(self) -> tuple[Ids, Ids]:
        """What names the elements as they are, for `mix`: of two multiples it differs."""
        return self.identity, bits(self.scale)

    def map(self, fn) -> "Facts":  # type: ignore[no-untyped-def]
        """The same facts with the elements moved."""
        return Facts(*map(fn, self.columns))

    def named(self, *names: object) -> "Facts":
        """Facts of what an operator makes of each element in the same way, and linearly in its scale."""
        return replace(self, identity=mix(self.identity, *names))


def facts(low: np.ndarray | float, high: np.ndarray | float, identity: Ids, scale: np.ndarray | float = 1.0) -> Facts:
    """Facts of arrays that broadcast; constants are named by what they are, and NaN bounds nothing."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    lost = np.isnan(low) | np.isnan(high) | (low > high)
    low, high = np.where(lost, -np.inf, low), np.where(lost, np.inf, high)
    known = (low == high) & np.isfinite(low)
    own = np.where(low == 0, _ZERO, np.where(low < 0, _NEGATIVE, _CONSTANT))
    identity = np.where(known, own, identity)
    size = np.where(known, np.where(low == 0, 1.0, np.abs(np.where(known, low, 1.0))), scale)
    usable = np.isfinite(size) & (size > 0)
    identity = np.where(usable, identity, mix(identity, bits(size)))
    return Facts(*np.broadcast_arrays(low, high, identity, np.where(usable, size, 1.0)))


def unknown(rank: int, name: Ids) -> Facts:
    """Nothing but that a value is itself."""
    one = np.ones((1,) * rank)
    return facts(-np.inf * one, np.inf * one, np.broadcast_to(name, one.shape))


def known(array: np.ndarray) -> Facts:
    """A tensor of the file; integers that float64 does not tell apart have names of their own, and no bounds."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8:
        return facts(array, array, np.zeros(array.shape, np.uint64))
    large = (array > WHOLE) | (array < -WHOLE if array.dtype.kind == "i" else False)
    low, high = (np.where(large, end, array) for end in (-np.inf, np.inf))
    return facts(low, high, mix(array.view(np.uint64), name_of(array.dtype.str)))


def of_integers(found: Facts, dtype: np.dtype, kind: Ids, token: Ids, *, selects: bool = False) -> Facts:
    """Facts of integers from those of real numbers: a division rounds, and what lies beyond the ends wraps around.

    Args:
        found: what holds where the same is computed in real numbers.
        dtype: the type of the integers.
        kind: a name of the operator; what it makes of the same is the same in one type, and no more a multiple.
        token: a name of the node.
        selects: nothing is computed, so that one bound holds without the other.
    """
    ends = np.iinfo(dtype)
    low, high = np.floor(found.low), np.ceil(found.high)
    below, above = low >= max(ends.min, 1 - WHOLE), high <= min(ends.max, WHOLE - 1)
    if selects:
        below, above, own = below & (low < WHOLE), above & (high > -WHOLE), found.identity
    else:
        below = above = below & above
        own = mix(found.identity, name_of(dtype.str))
    names = np.where(found.scale == 1, own, mix(own, bits(found.scale), kind))
    # a constant's own name says what it is in real numbers
    names = np.where(found.constant, own_names(token, low.shape), names)
    return facts(np.where(below, low, -np.inf), np.where(above, high, np.inf), names)


def own_names(token: Ids, shape: Shape) -> Ids:
    """A name for each element of what a node gives, by its place."""
    return mix(token, np.arange(math.prod(shape), dtype=np.uint64).reshape(shape))


def padded(found: Facts, rank: int) -> Facts:
    """The same with axes of length 1 in front."""
    return found.map(lambda a: a.reshape((1,) * (rank - a.ndim) + a.shape))


def expanded(found: Facts, shape: Shape, axes: Sequence[int]) -> Facts:
    """Facts of every position of these axes of a value of this shape.  Raises NothingKnown."""
    stretched = [k for k in axes if found.shape[k] == 1 < shape[k]]
    target = tuple(shape[k] if k in stretched else n for k, n in enumerate(found.shape))
    if not stretched:
        return found
    if math.prod(target) > LARGEST:
        raise NothingKnown
    place = np.zeros((1,) * len(target), np.uint64)
    for k in stretched:
        index = np.arange(shape[k], dtype=np.uint64)
        place = mix(place, index.reshape(line(len(target), k)))
    fixed = found.constant
    identity = np.where(fixed, found.identity, mix(found.identity, _PLACE, place))
    return replace(found, identity=identity).map(lambda a: np.broadcast_to(a, target))


def reduced(found: Facts, axes: Sequence[int]) -> Facts:
    """Facts that hold for all positions of these axes, which come down to length 1."""
    gone = tuple(k for k in axes if found.shape[k] > 1)
    if not gone:
        return found
    low, high = found.low.min(gone, keepdims=True), found.high.max(gone, keepdims=True)
    place = np.zeros((1,) * len(found.shape), np.uint64)
    for k in gone:
        index = np.arange(found.shape[k], dtype=np.uint64)
        place = mix(place, index.reshape(line(len(found.shape), k)))
    each = mix(*found.exact, place)
    return facts(low, high, mix(_SUM, np.bitwise_xor.reduce(each, axis=gone, keepdims=True)))


def along(found: Facts, shape: Shape, axis: int) -> Facts:
    """Facts of every position of one axis, that hold all along the others.  Raises NothingKnown."""
    axis %= len(shape)
    return expanded(reduced(found, [k for k in range(len(shape)) if k != axis]), shape, [axis])


def aligned(operands: Sequence[tuple[Facts, Shape]]) -> list[Facts]:
    """Operands of a numpy-style broadcast, with positions of their own wherever another one has them.

    Raises NothingKnown.
    """
    rank = max(len(shape) for _, shape in operands)
    found = [(padded(f, rank), (1,) * (rank - len(shape)) + shape) for f, shape in operands]
    varied = [k for k in range(rank) if any(f.shape[k] > 1 for f, _ in found)]
    return [expanded(f, shape, varied) for f, shape in found]


def stacked(parts: Sequence[tuple[Facts, Shape]], axis: int) -> Facts:
    """Facts of a Concat.  Raises NothingKnown."""
    rank = len(parts[0][1])
    varied = [k for k in range(rank) if k == axis or any(f.shape[k] > 1 for f, _ in parts)]
    each = [expanded(f, shape, varied) for f, shape in parts]
    return Facts(*(np.concatenate(columns, axis) for columns in zip(*(f.columns for f in each), strict=True)))


def reshaped(found: Facts, before: Shape, after: Shape) -> Facts:
    """Facts of a Reshape; axes that are neither split nor merged with one that has positions keep their length 1.

    Raises NothingKnown.
    """
    source, target = [], []
    for old, new in axis_blocks(before, after):
        varied = [k for k in old if found.shape[k] > 1]
        source += old if varied else []
        target += [after[k] if varied else 1 for k in new]
    return expanded(found, before, source).map(lambda a: a.reshape(target))


def axis_blocks(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Axes before and after a Reshape that hold the same elements, in as small blocks as possible."""
    return [tuple(list(range(side.start, side.stop)) for side in pair) for pair in blocks(before, after)]  # type: ignore[misc]
