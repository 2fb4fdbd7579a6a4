"""The column of torch: what computes an operator in training, and which of its inputs a gradient goes into."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from onnxprune.operators.lazy_torch import Tensor, torch

Units = tuple[Tensor, Tensor]  # scale and zero point, both broadcastable to the tensor that they belong to


@dataclass(frozen=True)
class TorchCall:
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


@dataclass(frozen=True)
class Forward:
    """An operator in torch; the backward pass is that of what it is made of.

    Args:
        function: (node, *inputs), None for what is left out, to a tensor, a tuple, or a list (a sequence).
        into: inputs that take a gradient; None for all, empty where whole numbers, flags, sizes or positions come out.
        host: inputs that are read as numbers, such as shapes and axes, and so have to lie in the memory of the CPU.
        pure: whether the same inputs always give the same outputs, so that it can be computed once.
        units: from (node, position, inputs) to what the whole numbers at that input stand for; None where it is
            not known.  Left out where the operator takes no quantised weights.
    """

    function: Callable[..., Any]
    into: Collection[int] | Callable[[TorchCall], Collection[int]] | None = None
    host: tuple[int, ...] = ()
    pure: bool = True
    units: Callable[[TorchCall, int, Sequence[Tensor | None]], Units | None] | None = None

    def passes(self, node: TorchCall, position: int) -> bool:
        """Whether a gradient goes into the input at that position."""
        into = self.into(node) if callable(self.into) else self.into
        return into is None or position in into


def in_torch(name: str, **columns: Any) -> Forward:
    """A function of one value that torch has under this name."""
    return Forward(lambda node, x: attrgetter(name)(torch)(x), **columns)


def numbers(x: Tensor) -> list[int]:
    """The elements of a shape, a list of axes or the like."""
    return [int(v) for v in x.reshape(-1).tolist()]


def axes_told(node: TorchCall, given: Tensor | None) -> list[int] | None:
    """Axes from the attribute or, in later opsets, from an input; None where there are none."""
    found = node.get("axes")
    return numbers(given) if found is None and given is not None else found


def take(x: Tensor, axis: int, places: list[int]) -> Tensor:
    """Positions of one axis."""
    return x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
