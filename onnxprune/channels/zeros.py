"""What the dead positions of a quantised value hold where it is silent: the zero point of whoever quantised it.

Operators that take such a value relative to a zero point read it as nothing only if theirs is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxprune.operators.registry import Trait, operator_of, traits_of

if TYPE_CHECKING:
    from onnxprune.channels.dependencies import Node
    from onnxprune.channels.walk import Walk

Zero = int | str  # a number, or the key of one that is computed
ANY = ""  # of tensors of the file: masking writes what their reader takes for nothing


def silent(walk: Walk, node: Node, k: int) -> bool:
    """Whether the dead positions of an input are nothing to the operator that takes it."""
    key, row = node.inputs[k], operator_of(node.proto)
    if key not in walk.quiet or traits_of(node.proto) & Trait.MOVES:
        return key in walk.quiet
    point, held = row.zero_points.inputs.get(k), walk.zero_points.get(key, 0)
    return held in (ANY, 0 if point is None else _point(walk, node, point))


def given(walk: Walk, node: Node) -> Zero | None:
    """What the dead positions of a node's outputs hold if they are silent; None where that is not one number."""
    points, traits = operator_of(node.proto).zero_points, traits_of(node.proto)
    if points.held is not None:
        return _point(walk, node, points.held)
    if points.computed is not None:
        return node.outputs[points.computed]
    if not traits & Trait.MOVES:
        return 0
    return common(walk, node.inputs if traits & Trait.JOINS else node.inputs[:1])


def common(walk: Walk, keys: Sequence[str]) -> Zero | None:
    """What the dead positions of all these values hold."""
    found = {walk.zero_points.get(key, 0) if key in walk.quiet else ANY for key in keys}
    found = found - {ANY} or found
    return found.pop() if len(found) == 1 else None


def silence(walk: Walk, keys: Sequence[str], zero: Zero | None) -> None:
    """From now on the dead positions of these values hold what stands for zero; where that is None, anything."""
    if zero is not None:
        walk.quiet.update(keys)
    if zero is not None and zero != 0:
        walk.zero_points.update(dict.fromkeys(keys, zero))


def _point(walk: Walk, node: Node, k: int) -> Zero | None:
    """A zero point: the number where it is known, else the key of what computes it; None for one of several numbers."""
    key = node.inputs[k] if k < len(node.inputs) else ""
    known = walk.statics.fixed_constant(key) if key else None
    if not key or (known is not None and not known.any()):
        return 0
    if known is None:
        return key
    return int(known.flat[0]) if (known == known.flat[0]).all() else None
