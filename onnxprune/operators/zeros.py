"""When the dead positions of an operator's output are zero in the masked network.

Sums over channels that no weight weighs (a ReduceSum, a product of two activations) stay right only if the removed
channels add nothing.  A row says with one of these functions whether its operator keeps dead positions at zero; a
tensor of the file does so by being masked itself.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from onnxprune.operators.labels import Labels, is_fixed
from onnxprune.operators.op import Op
from onnxprune.operators.roles import NOT_ZERO, ZeroWhereDead

Condition = Callable[[Op], ZeroWhereDead]


def every(op: Op) -> ZeroWhereDead:
    """f(0, 0) = 0: sums, and what only moves elements."""
    inputs = range(len(op.names))
    return op.all_zero_where_dead(inputs) if all(_reaches(op, k) for k in inputs) else NOT_ZERO


def joined(op: Op) -> ZeroWhereDead:
    """Every element is one of some input, and has there the labels that it has in the output."""
    return op.all_zero_where_dead(range(len(op.names)))


def some(op: Op) -> ZeroWhereDead:
    """f(0, y) = 0 = f(x, 0): products, of which one factor has to vanish."""
    known = [k for k in range(len(op.names)) if _reaches(op, k)]
    if any(op.zero_inputs[k] for k in known):
        return ZeroWhereDead(True)
    return next((found for k in known if (found := op.zero_where_dead(k)).holds), NOT_ZERO)


def quotient(op: Op) -> ZeroWhereDead:
    """0 / y = 0, but 0 / 0 is none: a y that is zero where it is dead has to be the same along what can shrink."""
    divisor = op.operands[1] if op.operands else None
    alone = divisor is not None and all(divisor[j].size < x.size for j, x in _lively(op))
    return first(op) if alone or not op.zero_inputs[1] else NOT_ZERO


def first(op: Op) -> ZeroWhereDead:
    """f(0, parameters) = 0."""
    return op.zero_where_dead(0) if op.names and _reaches(op, 0) else NOT_ZERO


def provided(holds: Callable[[Mapping[str, Any]], bool], condition: Condition = first) -> Condition:
    """Another condition, which its attributes can break."""
    return lambda op: condition(op) if holds(op.attributes) else NOT_ZERO


def only(*inputs: int) -> Condition:
    """f(0, 0, ...) = 0 for these inputs, whatever the others hold."""

    def condition(op: Op) -> ZeroWhereDead:
        return op.all_zero_where_dead(inputs) if all(_reaches(op, k) for k in inputs) else NOT_ZERO

    return condition


def made(*parameters: int, axis: int = 1) -> Condition:
    """The operator makes its channels by weights, which are zero where these are dead.

    Args:
        parameters: inputs that are added to them, such as a bias, which have to be zero there too.
        axis: the axis of the output that the parameters lie along.
    """

    def condition(op: Op) -> ZeroWhereDead:
        given = [k for k in parameters if k < len(op.names) and op.names[k]]
        lively = _lively(op)
        if given and not all(j == axis and _spans(op, k, x) for k in given for j, x in lively):
            return NOT_ZERO
        nonzero = [k for k in range(len(op.names)) if not (op.weights[k] or op.zero_inputs[k])]
        zero = [k for k in range(len(op.names)) if op.zero_inputs[k]]
        rest = [x for _, x in lively if not any(_common(op, k, x).all() for k in zero)]  # one factor of zero is enough
        if any(_common(op, k, x).any() for k in nonzero for x in rest):
            return NOT_ZERO
        return ZeroWhereDead(True, tuple(rest)) & op.all_zero_where_dead(given)

    return condition


def scaled(*parameters: int, axis: int = 1) -> Condition:
    """Scale and shift make the channels of this axis zero, whatever comes in; no other axis can shrink."""

    def condition(op: Op) -> ZeroWhereDead:
        return op.all_zero_where_dead(parameters) if all(j == axis for j, _ in _lively(op)) else NOT_ZERO

    return condition


def in_place(op: Op, labels: Labels, why: str) -> None:
    """State that neighbours among these channels of input 0 meet: exact where those that go are zero, as padding is.

    The others have to stay where they are then (`surgery.edit.Edit.in_place`); else it is a statistic.
    """
    if op.opset >= 2 and op.relies(op.zero_where_dead(0)):  # before, Pad has other attributes
        op.coupling.must_be_zero.append(labels)
    else:
        op.statistics(labels, why=why)


def _lively(op: Op) -> list[tuple[int, Labels]]:
    """Axes of the outputs that can shrink."""
    return [(j, x) for value in op.results for j, x in enumerate(value.axes) if not is_fixed(x)]


def _spans(op: Op, k: int, labels: Labels) -> bool:
    value = op.values[k]
    return value is not None and bool(value.axes) and value.axes[-1].size == labels.size


def _reaches(op: Op, k: int) -> bool:
    """Whether input k has each of the output's axes that can shrink, so that zeros of it are zeros of the output."""
    if not op.names[k]:
        return True
    if op.operands:
        operand = op.operands[k] if k < len(op.operands) else None
        return operand is None or all(operand[j].size == x.size for j, x in _lively(op))
    return all(_common(op, k, x).all() for _, x in _lively(op))


def _common(op: Op, k: int, labels: Labels) -> np.ndarray:
    """Which of these labels an axis of input k has, (positions,) bool."""
    value = op.values[k]
    if value is None:
        return np.zeros(labels.size, bool)
    if any(x is labels for x in value.axes):
        return np.ones(labels.size, bool)
    low, high = labels.min(), labels.max()
    # A layer's own labels lie in a range of their own.
    own = [x for x in value.labels if x.min() <= high and low <= x.max()]
    return np.isin(labels, np.concatenate(own)) if own else np.zeros(labels.size, bool)
