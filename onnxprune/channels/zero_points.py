"""What the dead positions of a quantised value hold where it is zero: the zero point of whoever quantised it.

Operators that take such a value relative to a zero point read it as nothing only if theirs is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from onnxprune.channels.nodes import Node
from onnxprune.model.static import Statics
from onnxprune.operators.registry import Trait, has, operator_of, traits_of

Zero = int | str  # a number, or the key of one that is computed
ANY = ""  # of tensors of the file: masking writes what their reader takes for nothing


@dataclass
class Zeros:
    """The values found so far whose dead positions are zero.

    known: values whose dead channels are zero.
    points: what stands for zero in some of these, if it is not 0.
    """

    statics: Statics
    known: set[str] = field(default_factory=set)
    points: dict[str, Zero] = field(default_factory=dict)

    def reads_zero(self, node: Node, k: int) -> bool:
        """Whether the dead positions of an input are nothing to the operator that takes it."""
        key = node.inputs[k]
        if key not in self.known or has(node.proto, Trait.MOVES):
            return key in self.known
        point, held = operator_of(node.proto).zero_points.inputs.get(k), self.points.get(key, 0)
        return held in (ANY, 0 if point is None else self._point(node, point))

    def given(self, node: Node) -> Zero | None:
        """What the dead positions of a node's outputs hold if they are zero; None where that is not one number."""
        points, traits = operator_of(node.proto).zero_points, traits_of(node.proto)
        if points.held is not None:
            return self._point(node, points.held)
        if points.computed is not None:
            return node.outputs[points.computed]
        if not traits & Trait.MOVES:
            return 0
        return self.common(node.inputs if traits & Trait.JOINS else node.inputs[:1])

    def common(self, keys: Sequence[str]) -> Zero | None:
        """What the dead positions of all these values hold."""
        found = {self.points.get(key, 0) if key in self.known else ANY for key in keys}
        found = found - {ANY} or found
        return found.pop() if len(found) == 1 else None

    def note(self, keys: Sequence[str], zero: Zero | None) -> None:
        """From now on the dead positions of these values hold what stands for zero; where that is None, anything."""
        if zero is not None:
            self.known.update(keys)
        if zero is not None and zero != 0:
            self.points.update(dict.fromkeys(keys, zero))

    def _point(self, node: Node, k: int) -> Zero | None:
        """A zero point: the number where it is known, else the key of what computes it; None for several numbers."""
        key = node.inputs[k] if k < len(node.inputs) else ""
        known = self.statics.fixed_constant(key) if key else None
        if not key or (known is not None and not known.any()):
            return 0
        if known is None:
            return key
        return int(known.flat[0]) if (known == known.flat[0]).all() else None
