"""What two analyses of a network, at different sizes of its inputs, say together.

A Reshape may merge channels with an axis whose length the model leaves open: samples with channels to (N · C, H, W), or
(B, heads · width) to (B · heads, width).  At one sample size the labels of such an axis could mean many things; taken
for one sample, (N · C) even looks like channels alone.  There the network is analysed at other sizes too, and channels
that live and die together at either live and die together.

Not every network runs as a whole at sizes as small as it takes to tell two axes apart: a Flatten of eight rows by
(-1, 512) takes rows of one sample at most sizes, and of two samples in small images.  So it is not analysed there: a
Reshape whose target does not say that it pairs the same axes at every size freezes them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest

import numpy as np

from onnxprune.channels.nodes import Node, Use
from onnxprune.model.static import Statics
from onnxprune.operators.boxes import Value
from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import Labels, is_fixed
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


WHY = "merges it with an axis whose length the model leaves open"


def sizes_to_look_at(statics: Statics, node: Node, outputs: Sequence[Value | None]) -> list[int]:
    """Other sizes of the inputs, of those that the network takes, at which a node does something else to channels."""
    if not any(value is not None and value.has_labels for value in outputs):
        return []
    return [k for k, other in enumerate(statics.accepted_sizes) if _moves_otherwise(node, outputs, statics, other)]


def _moves_otherwise(node: Node, outputs: Sequence[Value | None], here: Statics, there: Statics) -> bool:
    """Whether a node gives channels on an axis of another length elsewhere, or has merged other axes there."""
    for key, value in zip(filter(None, node.outputs), outputs, strict=True):
        shape = there.shapes.get(key)
        if value is None or shape is None:
            continue
        pairs = zip_longest(value.shape, shape)
        if any(a != b and (a is None or not is_fixed(value.along(k))) for k, (a, b) in enumerate(pairs)):
            return True
    return has(node.proto, Trait.RESHAPES) and pairs_of(node, there) not in ([], pairs_of(node, here))


def unite(coupling: Coupling, uses: Sequence[Use], other: Coupling, others: Sequence[Use], node: int) -> None:
    """Add to some couplings those that another walk has found between the tensors of the file.

    Args:
        coupling, uses: of a walk that is finished but for its conclusions; the couplings grow.
        other, others: the same at other sizes of the inputs.
        node: the node that has done something else to channels there.
    """
    coupling.node = node
    for product in coupling.products.values():  # their channels have no tensor of their own to be known by
        coupling.freeze(*product.parts, why=WHY)
    own, component = coupling.solve(), other.solve()  # what both say has its cause here
    mine, theirs = _axes(uses), _axes(others)
    frozen = np.zeros(int(component.max()) + 1, bool)
    frozen[component[0]] = True
    for key in theirs.keys() - mine.keys():  # taken at one size alone, such as a mask that is as large as the input
        frozen[component[theirs[key]]] = True
    coupling.freeze(*(labels for key, labels in mine.items() if key not in theirs), why=WHY)
    both = [key for key in mine if key in theirs]
    here, there = (np.concatenate([found[key] for key in both] or [np.zeros(0, int)]) for found in (mine, theirs))
    coupling.freeze(here[frozen[component[there]] & (own[here] != own[0])], why=WHY)
    order = np.argsort(component[there], kind="stable")
    here, together = here[order], component[there][order]
    same = (together[1:] == together[:-1]) & (own[here[1:]] != own[here[:-1]])
    coupling.tie(here[:-1][same], here[1:][same], why=WHY)


def _axes(uses: Sequence[Use]) -> dict[tuple[str, int, int, int, int], Labels]:
    """The labels of every axis of a tensor that a node takes, by tensor, node, input, axis and length."""
    return {
        (use.source, use.node, use.input, axis, labels.size): labels
        for use in uses
        for axis, labels in enumerate(use.axes)
    }
