"""Which axes a Reshape pairs, and whether it pairs the same ones at every size of the model's inputs.

The first eight rows are eight at all sizes but those of small images.  A Flatten of them by (-1, 512) takes rows of one
sample at most sizes, and of two samples there.  Not every network runs at such sizes as a whole, so it is not analysed
there: a Reshape whose target does not say that it pairs the same axes freezes them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress

from onnxprune.channels.nodes import Node
from onnxprune.model.static import Statics
from onnxprune.operators.boxes import Value
from onnxprune.operators.labels import Labels
from onnxprune.operators.registry import Shape, Trait, attributes_of, has, operator_of
from onnxprune.operators.split_axes import blocks

Pairs = list[tuple[slice, slice]]


def pairs_of(node: Node, at: Statics) -> Pairs:
    """Axes that a reshape splits and merges; none where the shapes are not known, or make no sense."""
    before, after = (at.shapes.get(key, ()) for key in (node.inputs[0], node.outputs[0]))
    with suppress(ValueError):
        return list(blocks(before, after))
    return []


def paired_otherwise(statics: Statics, node: Node, value: Value) -> Iterator[Labels]:
    """Labels of axes of input 0 that a reshape may pair with others of its output at sizes that are not analysed."""
    if not has(node.proto, Trait.RESHAPES) or not value.has_labels or not (pairs := pairs_of(node, statics)):
        return
    seen = [pairs, *filter(None, (pairs_of(node, at) for at in statics.accepted_sizes))]  # axes of length 1 hide some
    blurred = [_moved(statics, node, seen[-1])]
    fits = [t for at in (statics, *statics.other_sizes) if (t := _told(node, at)) is not None and not _misfits(*t)]
    follows = len({math.prod(shape) for shape, _ in fits}) > 1
    for edge in statics.extreme_sizes if 1 in operator_of(node.proto).follows else ():
        told = _told(node, edge)
        if told is not None and len(told[0]) == len(value.axes) and not (follows and _misfits(*told)):
            blurred.append(min((_unsure(*told, found) for found in seen), key=len))
    for old in (old for part in blurred for old in part):
        yield from (value.along(axis) for axis in range(old.start, old.stop))


def _misfits(shape: Shape, target: Shape) -> bool:
    """Whether a Reshape is told another number of elements than it gets there: no size like that is ever taken.

    That holds where the target is known to follow the size of the input, as two sizes that fit show.
    """
    return -1 not in target and math.prod(shape) != math.prod(target)


def _unsure(shape: Shape, target: Shape, pairs: Pairs) -> list[slice]:
    """Axes between those that a target does not pair as the analysis does; all but one are enough: nothing is lost."""
    found = [(math.prod(shape[old]), math.prod(target[new])) for old, new in pairs]
    unsure = [k for k, (before, after) in enumerate(found) if before != after]
    if len(unsure) < 2 or all(found[k][1] <= 0 for k in unsure):
        return []
    return [old for old, _ in pairs[unsure[0] : unsure[-1] + 1]]


def _told(node: Node, at: Statics) -> tuple[Shape, Shape] | None:
    """What a Reshape takes and what it is told: -1 for what it finds out; lengths that it copies are written out."""
    attributes, shape = attributes_of(node.proto), at.shapes.get(node.inputs[0])
    told = attributes.get("shape", at.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None)
    if told is None or shape is None or 0 in shape:
        return None
    if attributes.get("allowzero"):
        return shape, tuple(map(int, told))
    if any(n == 0 for n in told[len(shape) :]):
        return None
    return shape, tuple(shape[k] if n == 0 else int(n) for k, n in enumerate(told))


def _moved(statics: Statics, node: Node, pairs: Pairs) -> list[slice]:
    """Axes among which channels come to stand elsewhere though there are as many: 4 · 8 · 16 and 8 · 8 · 8 are 512."""
    found = []
    for old, new in pairs:
        inner, outer = _opened(statics, node.inputs[0], old), _opened(statics, node.outputs[0], new)
        if (_parted(inner) and not any(outer)) or (_parted(outer) and not any(inner)):
            found.append(old)
    return found


def _opened(statics: Statics, key: str, part: slice) -> list[bool]:
    """Whether the lengths of these axes are open, without those of one position."""
    opened = [(statics.is_open(key, axis), statics.shapes[key][axis]) for axis in range(part.start, part.stop)]
    return [is_open for is_open, length in opened if is_open or length > 1]


def _parted(opened: Sequence[bool]) -> bool:
    """Whether a length that holds at all sizes stands between two that do not."""
    last = max((k for k, is_open in enumerate(opened) if is_open), default=0)
    return any(opened) and not all(opened[list(opened).index(True) : last])
