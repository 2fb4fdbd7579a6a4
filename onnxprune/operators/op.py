"""What a rule sees of a node.

A rule takes the axes of the inputs (positional, in the order of the operator's schema) and the attributes (keyword),
ties labels through `op`, and returns the axes of the output: a tuple, in which `...` as the last item stands for
axes that never shrink, or a list of such tuples for several outputs.  Numbers in the node are repaired beside a rule.
"""

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from onnxprune.operators import boxes
from onnxprune.operators.boxes import FoldedShuffle, Value, choose_factor, factor
from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import Axes, Kind, LabelError, Labels, fixed, is_fixed, unlabelled
from onnxprune.operators.node_info import NodeInfo
from onnxprune.operators.registry import MALFORMED, Operator, Trait
from onnxprune.operators.roles import NOT_ZERO, Balance, Multiplies, Role, Scaling, ZeroWhereDead

SUMS = "sums over its channels without weights, and removed ones would count"


def on(x: Axes, axis: int, labels: Labels) -> Axes:
    """The axes `x` with one of them replaced."""
    axis %= len(x)
    return (*x[:axis], labels, *x[axis + 1 :])


@dataclass
class Op(NodeInfo):
    """One node under analysis: what a rule may ask and state."""

    coupling: Coupling
    values: list[Value | None]
    weights: Sequence[bool]  # whether an input is made of weights alone, so that masking them can make it zero
    zero_inputs: Sequence[bool]  # whether the dead positions of an input are zero in the masked network
    heads: bool
    thaw: bool = False  # statistics over channels may be taken over those that stay
    costs: list[Multiplies] = field(default_factory=list)
    scalings: dict[int, Scaling] = field(default_factory=dict)  # of quantised weights, by input
    operands: tuple[Axes | None, ...] = ()  # of a broadcast, filled up to the rank of the output
    results: list[Value] = field(default_factory=list)
    factors: tuple[int, int] = (0, 1)  # the inputs that a product multiplies
    thawed: list[Labels] = field(default_factory=list)  # over which statistics are taken although they may go
    freezes_statistics: bool = False  # statistics over channels have frozen some
    selects: bool = False  # the output is one of several weights, by a choice that masking leaves alone
    folded_shuffle: FoldedShuffle | None = None

    # --- what may be asked ---------------------------------------------------

    def axes(self, k: int, avoid: Sequence[int] = ()) -> Axes | None:
        """The axes of input k as a box."""
        value = self.values[k]
        if value is None:
            return None
        if value.split_axis is not None:
            self.values[k] = value = Value(choose_factor(self.coupling, value, avoid, self.heads))
        return value.axes

    def zero_where_dead(self, k: int) -> ZeroWhereDead:
        """Whether the dead positions of input k are zero; a tensor of the file can be made to be so."""
        if k >= len(self.names) or not self.names[k] or self.zero_inputs[k]:
            return ZeroWhereDead(True)
        value = self.values[k]
        if value is not None and value.split_axis is None and all(map(is_fixed, value.axes)):
            return ZeroWhereDead(True)  # nothing dies there
        return NOT_ZERO if value is None or not self.weights[k] else ZeroWhereDead(True, value.axes)

    def all_zero_where_dead(self, inputs: Iterable[int]) -> ZeroWhereDead:
        """Whether all of these inputs are zero where they are dead."""
        return functools.reduce(operator.and_, map(self.zero_where_dead, inputs), ZeroWhereDead(True))

    def zero_padded(self) -> bool:
        """Whether the constant that a Pad fills with is zero."""
        value = self.attributes.get("value", self.constant(2))
        left_out = len(self.names) < 3 or not self.names[2]
        return not np.any(value) if value is not None else left_out

    # --- what may be stated --------------------------------------------------

    def unknown(self, why: str) -> NoReturn:
        """Give up on this node: all that it touches is frozen, because it ..."""
        raise LabelError(why)

    def channels(self, size: int) -> Labels:
        """Labels of an axis that the node makes itself."""
        return self.coupling.label(size)

    def part(self, labels: Labels) -> Labels:
        """Positions picked from an axis: at least one of them has to stay."""
        if labels.size == 1:
            self.freeze(labels, why="picks it alone")
        elif not is_fixed(labels):
            self.coupling.parts.append(labels)
        return labels

    def pickable(self, labels: Labels, axis: int) -> Labels:
        """The labels of an axis of input 0 of which positions are picked: none where its length is an open one."""
        if is_fixed(labels) or not self.open_in(0, axis):
            return labels
        self.freeze(labels, why="picks positions of an axis whose length the model leaves open")
        return fixed(labels.size)

    def picked(self, labels: np.ndarray) -> Axes:
        """Positions picked from an axis, in any number of axes: at least one of them has to stay."""
        self.part(labels.ravel())
        return boxes.spread(self.coupling, labels, self.heads) if labels.ndim else ()

    def tie(self, first: Labels, *others: Labels) -> Labels:
        return self.coupling.tie(first, *others)

    def freeze(self, *labels: Labels, why: str) -> None:
        self.coupling.freeze(*labels, why=why)

    def total(self, labels: Labels) -> None:
        """Input 0 is summed over its channels as they are."""
        self.sums(self.relies(self.zero_where_dead(0)), labels, why=SUMS)

    def sums(self, zero: bool, *labels: Labels, why: str) -> None:
        """Something goes over these channels that is exact if the dead ones are zero; where they are not, all stay."""
        if zero:
            self.coupling.must_be_zero += labels
        else:
            self.freeze(*labels, why=why)

    def statistics(self, *labels: Labels, why: str) -> None:
        """Statistics are taken over these channels: removing some would change them, so they stay unless thawed."""
        if self.thaw:
            self.thawed += [x for x in labels if not is_fixed(x)]
        else:
            self.freezes_statistics |= not all(map(is_fixed, labels))
            self.freeze(*labels, why=why)

    def mean(self, *labels: Labels, inputs: Sequence[int] = (0,), why: str) -> None:
        """A mean over these channels: exact but for their number if the dead ones are zero, else a statistic."""
        centred = self.thaw and self.arithmetic.centred(self.names[0])
        exact = self.arithmetic.is_float(self.names[0]) and self.opset >= 7  # before, a factor is no plain Mul
        if exact and not centred and self.relies(self.all_zero_where_dead(inputs)):
            self.coupling.must_be_zero += labels
        else:
            self.statistics(*labels, why=why)

    def broadcast(self, *values: Axes | None) -> Axes:
        out = self.coupling.broadcast(*values)
        self.operands = tuple(None if v is None else (*(fixed(1) for _ in out[len(v) :]), *v) for v in values)
        return out

    def writes(self, labels: Labels) -> None:
        """These labels of a weight are filters: each position makes one channel."""
        self.coupling.roles.append((Role.WRITE, labels))

    def reads(self, labels: Labels) -> None:
        """These labels of a weight take channels in: with zeros there the channels do not matter."""
        self.coupling.roles.append((Role.READ, labels))

    def adds(self, *labels: Labels) -> None:
        """These labels belong to a bias or scale: zero there makes a dead channel zero."""
        self.coupling.roles += [(Role.ADD, x) for x in labels]

    def relies(self, condition: ZeroWhereDead) -> bool:
        """Whether it holds; masking does what it takes."""
        self.adds(*condition.by)
        return condition.holds

    def follows(self, *labels: Labels) -> None:
        self.coupling.roles += [(Role.DEPTHWISE, x) for x in labels]

    def macs(self, times: int, *labels: Labels) -> None:
        """The node costs `times` multiply-accumulates for each combination of these positions."""
        self.costs.append(Multiplies(int(times), labels))

    def needs_zero(self, labels: Labels) -> None:
        """Dead positions of these labels have to be zero, unless a weight that reads them is zero there itself."""
        factors = [k for k in self.factors if k < len(self.names)]
        if not any(self.weights[k] and not self.zero_inputs[k] for k in factors):
            self.coupling.must_be_zero.append(labels)

    def balance(self, grid: Labels, weight: int, axis: int | None = None) -> None:
        """Groups that shrink alike: the rows of a grid (groups, channels), of which each keeps as many.

        Which ones may differ: it is a matter of their order (`onnxprune.surgery.align`).

        Args:
            grid: labels of the channels.
            weight: the input that holds the weights of all groups.
            axis: of the weights, where all groups share its positions.
        """
        self.coupling.tie(np.broadcast_to(grid[:1], grid.shape), grid, kind=Kind.BALANCES)
        self.coupling.balances.append(Balance(self.names[weight], axis, grid, self.coupling.node))

    def contract(self, a: Labels, b: Labels, zero: bool, kind: Kind = Kind.PLAIN) -> None:
        """Sum over channels of a and b: exact if the dead ones are zero, or frozen."""
        self.coupling.tie(a, b, kind=kind)
        self.needs_zero(a) if zero else self.freeze(a, why=SUMS)

    def unmoved(self) -> Value:
        """The labels of input 0, split or not: every element stays in its place."""
        value = self.values[0]
        return value if value is not None else Value(())

    def reshape(self, shape: Sequence[int] | None) -> Value:
        value = self.values[0]
        if value is None or shape is None:
            raise LabelError("the shape of its output is unknown")
        self.values[0], out, self.folded_shuffle = boxes.reshape(self.coupling, self.names[0], value, shape, self.heads)
        return out

    def pick(self, axis: int, positions: np.ndarray) -> Value | None:
        """Positions of an axis of input 0 that is split; None where it is not."""
        value = self.values[0]
        if value is None or value.split_axis is None or axis not in value.split_axis.dims or positions.ndim > 1:
            return None
        if self.open_in(0, axis):
            return None
        self.part(value.split_axis.labels.take(positions, value.split_axis.axis(axis)).ravel())
        return boxes.pick(value, axis, positions)

    def arrived(self, value: Value) -> Value:
        """The only output, which may have come back to the axis that was split."""
        out, self.folded_shuffle = boxes.arrived(value)
        return out

    def transpose(self, perm: Sequence[int]) -> Value:
        value = self.values[0]
        if value is None or sorted(perm) != list(range(len(value.axes))):
            raise LabelError(f"its perm {list(perm)} is no order of the axes")
        return boxes.transpose(value, perm)

    def freeze_inputs(self, why: str) -> None:
        """Freeze all that the node touches."""
        for k, value in enumerate(self.values):
            if value is None:
                continue
            if value.split_axis is not None and not is_fixed(value.split_axis.labels):
                self.freeze(value.split_axis.labels, why=why)
                self.values[k] = value = Value(value.axes)
            self.freeze(*value.axes, why=why)

    def outputs(self, row: Operator) -> list[Value | None]:
        """Run the rule and complete what it returns by the inferred shapes."""
        try:
            values = self.completed(row)
        except LabelError:
            raise
        except MALFORMED as error:
            raise LabelError(f"its inputs and attributes do not suit the operator ({type(error).__name__})") from error
        for value, shape in zip(values, self.shapes, strict=False):
            if value is not None and shape is not None and value.shape != shape:
                raise LabelError(f"labels of shape {value.shape} for an output of shape {shape}")
        if None in values or len(values) < len(self.shapes):
            raise LabelError("the shape of its output is unknown")
        self.results = [value for value in values if value is not None]
        return values

    def completed(self, row: Operator) -> list[Value | None]:
        """What the rule gives for the outputs that are there; None where a shape is unknown."""
        assert row.couple is not None
        inputs = [] if row.takes_split else [self.operand(k, row) for k in range(len(self.values))]
        out = row.couple(self, *inputs, **self.attributes)
        parts = out if isinstance(out, list) else [out]
        if len(parts) >= len(self.given):  # a rule knows all that an operator can give
            parts = [part for part, given in zip(parts, self.given, strict=False) if given]
        return [complete(x, shape) for x, shape in zip(parts, self.shapes, strict=False)]

    def operand(self, k: int, row: Operator) -> Axes | None:
        """The axes of input k as the rule takes them."""
        value, convolves = self.values[k], isinstance(row.traits, Trait) and Trait.CONVOLVES in row.traits
        if convolves and k == 1 and value is not None and value.split_axis is not None:
            self.values[k] = Value(factor(self.coupling, value))  # filters that are computed
        return self.axes(k, self.avoided(k, row))

    def avoided(self, k: int, row: Operator) -> list[int]:
        """Axes of input k that cannot carry channels, or should not."""
        value = self.values[k]
        if k or value is None or value.split_axis is None:
            return []
        if row.statistics is not None:
            return [d % len(value.axes) for d in row.statistics(self)]
        if row.channel is None:
            return []
        return [d for d in range(len(value.axes)) if d != row.channel]

    def keeps_zeros(self, row: Operator) -> bool:
        """Whether the dead positions of the outputs are zero; what comes of no elements at all may be anything."""
        empty = any(value is not None and 0 in value.shape for value in self.values)
        return not empty and not self.thawed and self.relies(row.zero(self))


def complete(out: Any, shape: tuple[int, ...] | None) -> Value | None:
    """A value from what a rule returns: a trailing `...` becomes axes that never shrink; None for unknown shapes."""
    if isinstance(out, Value):
        return out
    if out and out[-1] is ...:
        return None if shape is None else Value((*out[:-1], *unlabelled(shape[len(out) - 1 :])))
    return Value(tuple(out))
