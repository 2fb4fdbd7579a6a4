"""What two analyses of a network, at different sizes of its inputs, say together.

A Reshape may merge channels with an axis whose length the model leaves open: samples with channels to (N · C, H, W), or
(B, heads · width) to (B · heads, width).  At one sample size the labels of such an axis could mean many things; taken
for one sample, (N · C) even looks like channels alone.  There the network is analysed at other sizes too, and channels
that live and die together at either live and die together.

The first eight rows are eight at all sizes but those of small images.  Not every network runs there as a whole, so it
is not analysed there: a Reshape whose target does not say that it pairs the same axes freezes them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest

import numpy as np

from onnxprune.channels.nodes import Node, Use
from onnxprune.model.static import Statics, attributes_of
from onnxprune.operators.boxes import Value
from onnxprune.operators.labels import Coupling, Labels, is_fixed
from onnxprune.operators.registry import Shape, Trait, has
from onnxprune.operators.tangles import blocks

WHY = "merges it with an axis whose length the model leaves open"


def look_elsewhere(statics: Statics, node: Node, outputs: Sequence[Value | None]) -> list[int]:
    """Other sizes of the inputs, of those that the network takes, at which a node does something else to channels."""
    if not any(value is not None and value.has_labels for value in outputs):
        return []
    return [k for k, other in enumerate(statics.accepted) if _moves_otherwise(node, outputs, statics, other)]


def _moves_otherwise(node: Node, outputs: Sequence[Value | None], here: Statics, there: Statics) -> bool:
    """Whether a node gives channels on an axis of another length elsewhere, or has merged other axes there."""
    for key, value in zip(filter(None, node.outputs), outputs, strict=True):
        shape = there.shapes.get(key)
        if value is None or shape is None:
            continue
        pairs = zip_longest(value.shape, shape)
        if any(a != b and (a is None or not is_fixed(value.along(k))) for k, (a, b) in enumerate(pairs)):
            return True
    return has(node.proto, Trait.RESHAPES) and _blocks(node, there) not in ([], _blocks(node, here))


def _blocks(node: Node, at: Statics) -> list[tuple[slice, slice]]:
    """Axes that a reshape splits and merges; none where the shapes are not known, or make no sense."""
    before, after = (at.shapes.get(key, ()) for key in (node.inputs[0], node.outputs[0]))
    with suppress(ValueError):
        return list(blocks(before, after))
    return []


def paired_otherwise(statics: Statics, node: Node, value: Value) -> Iterator[Labels]:
    """Labels of axes that a Reshape may pair with others of its output where the input is very small or large.

    A pair is certain where the target has its size in any case, and all are where but one is: elements are not lost.
    """
    if node.proto.op_type != "Reshape" or not value.has_labels or not (pairs := _blocks(node, statics)):
        return
    for edge in statics.edges:
        shape, target = edge.shapes.get(node.inputs[0]), _target(node, edge)
        if shape is None or target is None or 0 in shape or len(shape) != len(value.axes):
            continue
        found = [(math.prod(shape[old]), math.prod(target[new])) for old, new in pairs]
        unsure = [k for k, (before, after) in enumerate(found) if before != after]
        if len(unsure) > 1 and any(after > 0 for _, after in (found[k] for k in unsure)):
            for k, (old, _) in enumerate(pairs):
                if unsure[0] <= k <= unsure[-1]:
                    yield from (value.along(axis) for axis in range(old.start, old.stop))


def _target(node: Node, at: Statics) -> Shape | None:
    """Sizes that a Reshape is told, −1 where it finds one out; those that it copies are written out."""
    attributes, before = attributes_of(node.proto), at.shapes.get(node.inputs[0], ())
    told = attributes.get("shape", at.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None)
    if told is None or (not attributes.get("allowzero") and any(n == 0 for n in told[len(before) :])):
        return None
    copied = not attributes.get("allowzero")
    return tuple(before[k] if n == 0 and copied else int(n) for k, n in enumerate(told))


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
    if [(u.source, u.node, u.input) for u in uses] != [(u.source, u.node, u.input) for u in others]:
        for use in uses:  # the tensors that are taken hang on the sizes
            coupling.freeze(*use.axes, why=WHY)
        return
    here, there = (
        np.concatenate([x for use in found for x in use.axes] or [np.zeros(0, int)]) for found in (uses, others)
    )
    component = other.solve()
    coupling.freeze(here[component[there] == component[0]], why=WHY)
    order = np.argsort(component[there], kind="stable")
    here, together = here[order], component[there][order]
    same = together[1:] == together[:-1]
    coupling.tie(here[:-1][same], here[1:][same], why=WHY)
