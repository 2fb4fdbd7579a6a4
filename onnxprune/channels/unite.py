"""What two analyses of a network, at different sizes of its inputs, say together.

A Reshape may merge channels with an axis whose length the model leaves open: samples with channels to (N · C, H, W), or
(B, heads · width) to (B · heads, width).  At one sample size the labels of such an axis could mean many things; taken
for one sample, (N · C) even looks like channels alone.  There the network is analysed at other sizes too, and channels
that live and die together at either live and die together.
"""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from onnxprune.channels.nodes import Node, Use
from onnxprune.channels.pairings import pairs_of
from onnxprune.model.static import Statics
from onnxprune.operators.boxes import Value
from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import Labels, is_fixed
from onnxprune.operators.registry import Trait, has

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
