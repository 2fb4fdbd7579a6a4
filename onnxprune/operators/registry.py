"""One row for each ONNX operator: all that onnxprune knows of it.

The rows stand in the files of their families, each behind the functions that it is made of.  An operator without a row,
or without a rule for its channels, freezes what it touches; every other column that a row lacks costs knowledge alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any

import numpy as np
import onnx

from onnxprune.operators.forward import Forward
from onnxprune.operators.roles import NOT_ZERO, ZeroWhereDead

# What a malformed node leads to: inputs or attributes that are missing, or of the wrong type, rank or size.
MALFORMED = (ValueError, IndexError, TypeError, KeyError, AttributeError, ArithmeticError, MemoryError)
FLOAT, UINT8 = -1, -2  # in `typed_by`: the outputs have this type, whatever goes in; minus the number of it in ONNX
LARGEST_VALUE = 4096  # elements of a constant that is computed; shapes, indices and sizes are shorter

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Attributes = Mapping[str, Any]
Arrays = Sequence[Any]  # the value of each input, None where it is left out
Numbers = Callable[[int], np.ndarray | None]  # of an input, None where it is left out or computed
Evaluation = Callable[[Arrays, Attributes], "np.ndarray | None"]


class Trait(Flag):
    """What other parts of the program ask of an operator in one word."""

    VIEW = auto()  # the elements of input 0, all of them, in another shape or order
    PERMUTES = auto()  # puts the axes of input 0 in another order
    MOVES = auto()  # every element of the outputs is one of input 0, whatever its type
    SELECTS = auto()  # what it gives are elements that it takes, places of some or numbers of its own: none overflows
    PLACES = auto()  # every element of the output is one of the last input, at places that the others say
    JOINS = auto()  # it moves the elements of all its inputs, not of the first alone
    CASTS = auto()  # the elements of input 0 in another type
    SAME = auto()  # the output is input 0
    SLICES = auto()  # takes a part of input 0, between bounds
    INSERTS = auto()  # puts axes of one position in
    DROPS_ONES = auto()  # drops all axes of one position, whichever these are
    EXPANDS = auto()  # repeats axes of one position
    RESHAPES = auto()  # splits and merges axes
    REPEATS = auto()  # repeats single positions, which then are channels of its own
    FILLS = auto()  # makes a tensor of one number
    RANGE = auto()  # what it gives is among what it takes, or a mean of it
    MAPS = auto()  # feature maps pass: the same ones, smaller, elsewhere or beside others
    ELEMENTWISE = auto()  # an element depends on those at its place in the inputs
    UNARY = auto()  # element-wise in input 0, with numbers or slopes besides: the output has its shape
    MONOTONE = auto()  # of one value, and never rising or never falling
    HOMOGENEOUS = auto()  # f(s · x) = s · f(x) for s > 0
    SHIFTS = auto()  # adds to each element or multiplies it, with little else
    POWERS = auto()  # gives a power of what it takes, or its size
    UNEVEN = auto()  # what it gives is not in proportion to what it takes
    CLAMPS = auto()  # is zero or constant over a wide range
    SATURATES = auto()  # flat at one end or both, with values of at most about 1
    DECIDES = auto()  # rounds or chooses: a small difference may become a whole step, another index, another number
    VALUES_FIRST = auto()  # gives the values before the decision that picked them
    SPLITS = auto()  # takes input 0 apart along an axis, into parts that follow each other
    LINEAR = auto()  # products of input 0 with the weights that are input 1, summed up
    LAYER = auto()  # multiplies what it takes by weights
    CONVOLVES = auto()  # its weights are filters of several axes
    SPREADS = auto()  # its filters spread each element over an area
    RECURRENT = auto()  # goes along a sequence, with a state
    ATTENDS = auto()  # mixes tokens by scores of queries and keys
    STATISTICS = auto()  # takes statistics, or divides by some
    SCALES = auto()  # all that it takes besides input 0 are parameters of channels
    LOOKS_UP = auto()  # picks rows of input 0
    NUMBERS = auto()  # takes numbers besides input 0: sizes, bounds, exponents, steps
    QUANTIZES = auto()  # goes to integers or comes from them
    DEQUANTIZES = auto()  # makes real numbers of integers
    STEPS = auto()  # gives integers in steps of a scale
    INTEGER = auto()  # sums products of integers
    CHANNELS_LAST = auto()  # takes maps as (samples, *space, channels)
    RANDOM = auto()  # draws numbers
    SIZES = auto()  # gives sizes of what it takes
    COUNTS = auto()  # gives how many elements there are
    BODIES = auto()  # runs bodies
    BRANCHES = auto()  # one of two bodies, by a condition
    LOOPS = auto()  # one body, round after round, while a condition holds
    SCANS = auto()  # one body for each part of what it is given
    PASSES = auto()  # a linear map, the same one for every channel
    PADS = auto()  # sets values, or numbers of its own, around input 0; linear, the same for every channel, with zeros
    ADDS = auto()  # sums what it takes, or subtracts it
    MULTIPLIES = auto()  # multiplies what it takes, or divides it
    AFFINE = auto()  # at inference one factor and one summand for each channel
    NORMALISES = auto()  # divides the channels by their root mean square, and scales each
    CENTRES = auto()  # takes the mean of the channels from each
    ROUNDS = auto()  # makes integers of real numbers, at its end or inside
    COMPARES = auto()  # where shapes are computed: compares a size with a number, or shifts it by one


NONE = Trait(0)


@dataclass(frozen=True)
class Taken:
    """What is known of a node's inputs: their shapes, and those that are the same whatever the model is fed."""

    attributes: Attributes
    shapes: Sequence[Shape | None]
    constant: Callable[[int], np.ndarray | None]


@dataclass(frozen=True)
class ZeroPoints:
    """The numbers that stand for zero: of inputs, `{input: the input that holds it}`, and of the outputs.

    The latter stands in an input, or in an output where the node computes it.
    """

    inputs: Mapping[int, int] = field(default_factory=dict)
    held: int | None = None
    computed: int | None = None


@dataclass(frozen=True)
class HeadInputs:
    """Where attention in one node takes what, besides queries, keys and values: these are inputs 0 to 2.

    bias: the input that is added to queries, keys and values, behind each other.
    mask: the input that is added to the scores, (..., heads, queries, keys).
    past: inputs with tokens of earlier runs.
    packed: whether the node makes all three of input 0, by weights (features, outputs) in input 1.
    whole: whether heads are looked at as wholes alone: no width of theirs is cut or turned, and copies are not found.
    """

    bias: int | None = None
    mask: int | None = None
    past: tuple[int, ...] = ()
    packed: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Alike:
    """The shape of the output is that of a standard operator which takes these inputs."""

    standard: str = "Identity"
    inputs: tuple[int, ...] = (0,)


def never(_: object) -> ZeroWhereDead:
    return NOT_ZERO


def by_reference(_: Arrays, __: Attributes) -> None:
    """In the column `value`: all outputs are what onnx's reference evaluator makes of small constants."""


def in_numpy(fn: Callable[..., Any]) -> Evaluation:
    """The value of a function of numpy that takes the inputs one by one."""
    return lambda x, _: np.asarray(fn(*x))


def axes_of(x: Arrays, a: Attributes) -> tuple[int, ...] | None:
    """Axes that stand in an attribute or, in later opsets, in input 1; None where they are left out."""
    given = a.get("axes", x[1] if len(x) > 1 else None)
    return None if given is None else tuple(int(v) for v in np.atleast_1d(given))


@dataclass(frozen=True)
class Operator:
    """All that onnxprune knows of one ONNX operator; None where nothing is known.

    couple: `(op, *axes of the inputs, **attributes)` → axes of the outputs; see `onnxprune.operators.op`.
    zero: of the same op: whether the dead channels of the outputs are exactly zero in the masked network, and by what.
    takes_split: whether `couple` takes values whose channels are not boxes yet (`onnxprune.operators.boxes`).
    channel: the axis of input 0 that holds channels, where the others are never cut.
    statistics: of an op: axes of input 0 over which it takes statistics, so that rather others are cut.
    repair: `(edit, **attributes)`: what in the node follows a cut.
    follows: inputs whose numbers are sizes that follow a cut, at run time or by the repair.
    labels_int32: whether an int32 tensor of the file that it takes has channels.

    bound: of a site (`onnxprune.operators.site`): interval and value number of each element of the outputs, of the
        first ones at least.  Raises NothingKnown where what it is made of is not known.
    channelwise: whether no channel of its inputs has a part in another one of its outputs; of what it takes, or always.
    contracts: `(taken, input, rank)` → axes along which the elements of an input come together; by default all.
    reach: of what it takes: where channels have a part in few channels of output 0 (`onnxprune.operators.reach`).
    heads: what attention takes besides queries, keys and values.
    factors: inputs that are multiplied with each other, so that it is enough if one of them is zero.
    function: `(x, attributes)` → y in numpy, of an element-wise function of one input.
    zero_points: what stands for zero in integers that it takes and gives.
    divisor: the input that may not be zero.
    filters: `(weights, attributes)` → a view of them, (parts, outputs, inputs / parts, taps); None for other weights.
    linear: `(shape of the weights, attributes)` → the layer as a product of matrices (`onnxprune.operators.patches`).
    bias: the input that is added to the outputs of a layer, one number for each.
    signs: of a sum of two values, with what sign each of them goes in.
    shift_invariant: `(attributes, rank, opset)` → axes along which all that it takes may be more by one number, for the
        same output.
    flat: `(attributes, input → its numbers)` → the range of input 0 beyond which the output goes no further.
    work: `(y, x, w)`, shapes of output 0 and of the first two inputs → multiply-accumulates, for an estimate.

    value: `(inputs, attributes)` → output 0 in numpy, of small constants; or `by_reference`.
    small: of the inputs: whether the value is small too, where the operator can blow up what it takes.
    shape: `(shapes of the inputs, attributes)` → shapes of the outputs, where onnx's own inference does not know them.
    typed_by: the input whose element type the outputs have, or FLOAT, UINT8; of the node, or always.

    forward: what computes it in torch, for training.
    gates: filters that make one channel.
    written: how a layer is written out as one of real numbers, where it is solved (`onnxprune.operators.written`).
    elements: of a node (`onnxprune.operators.sequences`): names of the tensors in the sequence that it makes.
    unsequenced: of the same: nodes without sequences that take its place.
    fused_numbers: of an activation that a fused layer may have: names of the attributes that it gives it numbers for.

    traits: of the node, or always.
    """

    couple: Callable[..., Any] | None = None
    zero: Callable[[Any], ZeroWhereDead] = never
    takes_split: bool = False
    channel: int | None = None
    statistics: Callable[[Any], Sequence[int]] | None = None
    repair: Callable[..., None] | None = None
    follows: frozenset[int] = frozenset()
    labels_int32: bool = False
    bound: Callable[[Any], Any] | None = None
    channelwise: bool | Callable[[Taken], bool] = False
    contracts: Callable[[Taken, int, int], list[int]] | None = None
    reach: Callable[[Taken], list[Any]] | None = None
    heads: HeadInputs | None = None
    factors: Sequence[int] = ()
    function: Callable[[np.ndarray, Attributes], np.ndarray] | None = None
    zero_points: ZeroPoints = ZeroPoints()
    divisor: int | None = None
    filters: Callable[[np.ndarray, Attributes], np.ndarray | None] | None = None
    linear: Callable[[Shape, Attributes], Any] | None = None
    bias: int | None = None
    signs: tuple[int, int] | None = None
    shift_invariant: Callable[[Attributes, int, int], list[int]] | None = None
    flat: Callable[[Attributes, Numbers], tuple[float, float]] | None = None
    work: Callable[[Shape, Shape, Shape], int] | None = None
    value: Evaluation | None = None
    small: Callable[[Arrays], bool] | None = None
    shape: Alike | Callable[[Sequence[Any], Attributes], list[Shape | None]] | None = None
    typed_by: int | Callable[[onnx.NodeProto], int] = 0
    forward: Forward | None = None
    gates: int = 1
    written: Any = None
    elements: Callable[[Any], list[str] | None] | None = None
    unsequenced: Callable[[Any], list[onnx.NodeProto] | None] | None = None
    fused_numbers: tuple[str, ...] | None = None
    traits: Trait | Callable[[onnx.NodeProto], Trait] = NONE


OPERATORS: dict[str, Operator] = {}


def define(names: str, **columns: Any) -> None:
    """Put the row of one or several operators into the table; names are `Type` or `domain:Type`, between blanks.

    Raises ValueError where there is one already.
    """
    for name in names.split():
        if name in OPERATORS:
            raise ValueError(f"the operator {name} is described twice")
        OPERATORS[name] = Operator(**columns)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes as Python values, without bodies and references."""
    return {
        a.name: onnx.helper.get_attribute_value(a)
        for a in node.attribute[:]
        if a.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) and not a.ref_attr_name
    }


def operator(domain: str, op_type: str) -> str:
    """Name of an operator in the table."""
    return op_type if domain in ("", "ai.onnx") else f"{domain}:{op_type}"


def operator_of(node: onnx.NodeProto) -> Operator:
    """What is known of a node's operator; an empty row where nothing is."""
    domain, name = node.domain, node.op_type
    return OPERATORS.get(operator(domain, name) if domain else name, UNKNOWN)


def traits_of(node: onnx.NodeProto) -> Trait:
    """The traits of a node's operator, as its attributes make them."""
    traits = operator_of(node).traits
    return traits if isinstance(traits, Trait) else traits(node)


def has(node: onnx.NodeProto, traits: Trait) -> bool:
    """Whether a node's operator has one of these traits."""
    own = operator_of(node).traits
    mine = own if isinstance(own, Trait) else own(node)
    return bool(mine._value_ & traits._value_)  # `value` and `&` take ten times as long, and this is asked everywhere


UNKNOWN = Operator()
