"""The table: what torch computes for each operator of ONNX, and which of its inputs a gradient goes into."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Function = Callable[
    ..., Any
]  # (node, *inputs), None for what is left out, to a tensor, a tuple, or a list (a sequence)


@dataclass(frozen=True)
class Node:
    """What a function is told of the node that it computes, besides its inputs.

    Args:
        op: type of the operator.
        opset: version of its operator set.
        attributes: as Python values, text as str.
        outputs: how many it gives, counted to the last one that has a name.
        domain: of its operator set, "" for the default one.
    """

    op: str
    opset: int
    attributes: Mapping[str, Any]
    outputs: int = 1
    domain: str = ""

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(name, default)


Into = Collection[int] | Callable[[Node], Collection[int]] | None
Scaling = tuple[Tensor, Tensor]  # scale and zero point, both broadcastable to the tensor that they belong to


@dataclass(frozen=True)
class Operator:
    """A row of the table.

    Args:
        function: see `Function`.
        into: inputs that take a gradient; None for all.
        host: inputs that are read as numbers, such as shapes and axes, and so have to lie in the memory of the CPU.
        layer: whether it multiplies by weights.
        pure: whether the same inputs always give the same outputs, so that it can be computed once.
        scaling: from (node, position, inputs) to what the whole numbers at that input stand for; None where it is
            not known.  Left out where the operator takes no quantised weights.
    """

    function: Function
    into: Into = None
    host: tuple[int, ...] = ()
    layer: bool = False
    pure: bool = True
    scaling: Callable[[Node, int, Sequence[Tensor | None]], Scaling | None] | None = None

    def passes(self, node: Node, position: int) -> bool:
        """Whether a gradient goes into the input at that position."""
        into = self.into(node) if callable(self.into) else self.into
        return into is None or position in into


TABLE: dict[str, Operator] = {}  # operator, as `domain:name` outside the default domain → its row


def differentiable(*names: str, **options: Any) -> Callable[[Function], Function]:
    """Register a function as what computes the operators of these names; options as in `Operator`."""

    def register(function: Function) -> Function:
        TABLE.update(dict.fromkeys(names, Operator(function, **options)))
        return function

    return register


def without_gradient(*names: str, **options: Any) -> Callable[[Function], Function]:
    """Register operators that no gradient passes: what they give is whole numbers, flags, sizes or positions."""
    return differentiable(*names, into=(), **options)


def numbers(x: Tensor) -> list[int]:
    """The elements of a shape, a list of axes or the like."""
    return [int(v) for v in x.reshape(-1).tolist()]
