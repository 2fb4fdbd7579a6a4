"""Channel labels: one integer per position of every axis; equal labels live and die together.

Label 0 (`FIXED`) never dies.  Operators state equations between labels (`onnxprune.operators.coupling`); the connected
components of all equations are the smallest sets of positions that can be removed without breaking a shape.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

import numpy as np

Labels = np.ndarray  # int64, one per position of an axis
Axes = tuple[Labels, ...]  # one per axis of a value
Factor = tuple[int, ...]  # place among the factors of an axis, and among the factors of that factor, ...

FIXED = 0
LARGEST_FIXED = 1 << 28  # positions of an axis that never shrinks
LARGEST_AXIS = 1 << 22  # a longer axis is no channel axis, and its labels would take more than half a gigabyte


class LabelError(ValueError):
    """Labels do not fit: a rule and the shapes of a node disagree, or an axis is too long to label."""


@lru_cache(maxsize=4096)
def fixed(size: int) -> Labels:
    """Labels of an axis that never shrinks, without spending memory on its positions.

    Raises LabelError for more positions than can be looked at in passing.
    """
    if size > LARGEST_FIXED:
        raise LabelError(f"an axis of {size} positions is too long to follow")
    return np.broadcast_to(np.int64(FIXED), (size,))


def unlabelled(shape: Iterable[int]) -> Axes:
    """Axes of these sizes that never shrink."""
    return tuple(map(fixed, shape))


def repeated(labels: Labels, times: int, *, each: bool = False) -> Labels:
    """An axis that stands there several times, one after the other or each position on its own.

    Raises LabelError for more positions than can be followed, and ValueError for fewer than none.
    """
    if is_fixed(labels):
        return fixed(labels.size * times)
    if labels.size * times > LARGEST_AXIS:
        raise LabelError(f"an axis of {labels.size * times} positions is too long to label")
    return np.repeat(labels, times) if each else np.tile(labels, times)


def line(rank: int, axis: int) -> tuple[int, ...]:
    """The shape, for numpy's reshape, of an array that lies along one axis of several."""
    return tuple(-1 if k == axis % rank else 1 for k in range(rank))


def is_fixed(labels: Labels) -> bool:
    """Whether no position of the axis can die, by what the labels say themselves."""
    if not any(labels.strides):
        return True
    return not (labels.size and labels.item(0)) and not np.count_nonzero(labels)  # `any` takes longer


class Kind(Enum):
    """What a tie is for, and the words that follow the node that made it."""

    PLAIN = ""
    BALANCES = "shrinks all its groups alike"  # groups that keep equally many channels, perhaps different ones
    COMBINES = "combines it with"  # a value that cannot shrink
    MERGES = "merges it with another axis that can shrink"


@dataclass(frozen=True)
class Cause:
    """Why labels were tied: the node whose rule did it, the kind of the tie, and a reason in words."""

    node: int  # position in the order of the analysis; -1 stands for the graph's own inputs and outputs
    why: str = ""
    kind: Kind = Kind.PLAIN


@dataclass(frozen=True)
class Choices:
    """What is cut where a structure leaves a choice; empty, each operator's own preference."""

    factors: Mapping[int, Factor] = field(default_factory=dict)  # node that splits an axis -> the factor that carries
    whole: frozenset[int] = frozenset()  # grouped convolutions that lose whole groups


@dataclass(frozen=True)
class Product:
    """Positions of one axis that are all combinations of channels: filters of a bank, (out · in · taps) in one axis.

    A position goes with any of the channels that it combines.
    """

    factors: tuple[Factor, ...]
    labels: Labels  # of the positions, one axis for each factor
    parts: tuple[Labels, ...]  # of the channels, for each factor

    def combined(self) -> list[Labels]:
        """For each factor the labels of the channels at every position, (positions,)."""
        columns = (part.reshape(line(len(self.parts), k)) for k, part in enumerate(self.parts))
        return [np.broadcast_to(column, self.labels.shape).ravel() for column in columns]
