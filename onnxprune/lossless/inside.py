"""What is known of values inside bodies of If, Loop and Scan, and of what these nodes give.

    state = 0, …, 0                     # 8 channels
    repeat M times:  state = Relu(Conv(state) + x)

A body is gone through with facts that hold at the start of every round.  The first guess is what is known before the
first round: each channel is 0.  After a round each is in [0, inf), and so it is at the start of the next one: the guess
is widened to what holds of both and tried again, until a round leaves it true.  Channels count as multiples of each
other as long as each round leaves them so, with one factor for all rounds.  What the node gives is known from the last
round, or, where there may be none, from the guess.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import onnx

from onnxprune.lossless.nested import Body
from onnxprune.model.bodies import Scan, follows_bodies
from onnxprune.operators.facts import Facts, NothingKnown, Shape, aligned, facts, reduced
from onnxprune.operators.node_info import Numbers
from onnxprune.operators.registry import MALFORMED, Trait, attributes_of, has
from onnxprune.operators.value_numbers import Ids, bits, mix, name_of

HULLS = 2  # rounds after which bounds that still grow are let go, to 0 or without end
TURNS = 8  # rounds, beside one for each state, after which nothing more is known of what still changes

Known = tuple[Facts, Shape]


class Knowing(Protocol):
    """Facts of values by key, as they become known (`onnxprune.lossless.propagate`)."""

    @property
    def opset(self) -> int: ...
    @property
    def arithmetic(self) -> Numbers: ...
    def walk(self, nodes: Iterable[int]) -> None: ...
    def note(self, name: str, found: Facts | None) -> None: ...
    def fact(self, name: str) -> Known | None: ...
    def shape(self, name: str) -> Shape | None: ...
    def is_open(self, name: str, axis: int) -> bool: ...
    def forget(self, path: str) -> None: ...


def enter(knowing: Knowing, node: onnx.NodeProto, bodies: Sequence[Body]) -> None:
    """Go through the bodies of a node, and note what it gives."""
    found: list[Facts | None] = []
    if follows_bodies(node, knowing.opset):
        try:
            go_through = _branches if has(node, Trait.BRANCHES) else _loop if has(node, Trait.LOOPS) else _scan
            found = go_through(knowing, node, bodies)
        except MALFORMED:
            for body in bodies:
                knowing.forget(body.path)
    for k, name in enumerate(node.output):
        if name:
            knowing.note(name, found[k] if k < len(found) else None)


def _branches(knowing: Knowing, node: onnx.NodeProto, bodies: Sequence[Body]) -> list[Facts | None]:
    for body in bodies:
        knowing.walk(body.nodes)
    way = _number(knowing, node.input[0])
    wanted = None if way is None else "then_branch" if way else "else_branch"
    taken = [body for body in bodies if wanted in (None, body.name)]
    out: list[Facts | None] = []
    for k, name in enumerate(node.output):
        given, shape = [knowing.fact(body.outputs[k]) for body in taken], knowing.shape(name)
        fits = [found[0] for found in given if found is not None and found[1] == shape]
        if shape is None or len(fits) < len(given):
            out.append(None)
        else:
            out.append(fits[0] if len(fits) == 1 else either(fits[0], fits[1], shape, _token(node)))
    return out


def either(first: Facts, second: Facts, shape: Shape, token: Ids) -> Facts | None:
    """What is known of a value that is one of two others, as `token` decides; None where that would be too large.

    Elements are multiples of each other if they are in both, by the same factor.
    """
    try:
        a, b = (Facts(*np.broadcast_arrays(*f.columns)) for f in aligned([(first, shape), (second, shape)]))
    except NothingKnown:
        return None
    scale = np.where(a.zero, b.scale, a.scale)
    ratio = np.where(a.zero | b.zero, 1.0, b.scale / a.scale)
    same = (a.identity == b.identity) & (a.scale == b.scale)
    names = np.where(same, a.identity, mix(a.identity, b.identity, bits(ratio), token))
    return facts(np.minimum(a.low, b.low), np.maximum(a.high, b.high), names, scale)


def _loop(knowing: Knowing, node: onnx.NodeProto, bodies: Sequence[Body]) -> list[Facts | None]:
    """Inputs: most rounds, condition, carried values; the body takes the round's number besides."""
    (body,), token = bodies, _token(node)
    most, begins, size = (*node.input, "", "")[0], (*node.input, "", "")[1], max(0, len(node.input) - 2)
    rounds = _number(knowing, most) if most else None
    states, ends = _settled(knowing, body, token, node.input[2:], 2, 1)
    some = rounds is not None and rounds >= 1 and (not begins or _number(knowing, begins) == 1)
    return [*(ends if some else states), *(_stacked(knowing, key, 0, token) for key in body.outputs[1 + size :])]


def _scan(knowing: Knowing, node: onnx.NodeProto, bodies: Sequence[Body]) -> list[Facts | None]:
    """Inputs: carried values, then what is gone through along one axis, a slice for each round."""
    (body,), token = bodies, _token(node)
    scan = Scan.of(attributes_of(node), len(node.input), len(body.outputs))
    size, some = scan.carried, False  # whether there is a round
    for key, name, (axis, back) in zip(node.input[size:], body.inputs[size:], scan.sliced, strict=True):
        found = knowing.fact(key)
        knowing.note(name, None if found is None else _slice(*found, axis, mix(token, back)))
        if found is not None and not knowing.is_open(key, axis % len(found[1])):
            some |= found[1][axis] > 0
    states, ends = _settled(knowing, body, token, node.input[:size], 0, 0)
    rest = zip(body.outputs[size:], scan.stacked, strict=True)
    return [
        *(ends if some else states),
        *(_stacked(knowing, key, axis, mix(token, back)) for key, (axis, back) in rest),
    ]


# --- rounds ----------------------------------------------------------------------


def _settled(
    knowing: Knowing, body: Body, token: Ids, given: Sequence[str], taken: int, made: int
) -> tuple[list[Facts | None], list[Facts | None]]:
    """What is known of carried values at the start of every round, and at its end; the body is gone through with it.

    Args:
        given: what they are before the first round.
        taken, made: where they stand among the inputs and the outputs of the body.
    """
    keys, after = body.inputs[taken : taken + len(given)], body.outputs[made : made + len(given)]
    shapes = [knowing.shape(key) for key in keys]
    states = _named(token, [_suiting(knowing.fact(key), shape) for key, shape in zip(given, shapes, strict=True)])
    turn = 0
    while True:
        for key, state in zip(keys, states, strict=True):
            knowing.note(key, state)
        knowing.walk(body.nodes)
        ends = [_suiting(knowing.fact(key), shape) for key, shape in zip(after, shapes, strict=True)]
        both = [
            None if s is None or e is None or shape is None else either(s, e, shape, token)
            for s, e, shape in zip(states, ends, shapes, strict=True)
        ]
        new = _named(token, both)
        if all(_same(s, n) for s, n in zip(states, new, strict=True)):
            return states, ends
        late = turn >= TURNS + len(states)  # what one state hands to the next takes a round for each
        states = [_widened(s, n, turn, late) for s, n in zip(states, new, strict=True)]
        turn += 1


def _named(token: Ids, states: Sequence[Facts | None]) -> list[Facts | None]:
    """The same facts, with classes of multiples that are named by the first element of each."""
    there = [f for f in states if f is not None]
    if not there:
        return list(states)
    names = np.concatenate([f.identity.ravel() for f in there])
    _, first, of = np.unique(names, return_index=True, return_inverse=True)
    labels = iter(np.split(mix(token, first[of.ravel()]), np.cumsum([f.identity.size for f in there])[:-1]))
    return [None if f is None else facts(f.low, f.high, next(labels).reshape(f.shape), f.scale) for f in states]


def _same(old: Facts | None, new: Facts | None) -> bool:
    if old is None or new is None:
        return old is new
    return all(map(np.array_equal, old.columns, new.columns))


def _widened(old: Facts | None, new: Facts | None, turn: int, late: bool) -> Facts | None:
    """The next guess: what holds of both, and beyond that where it takes long to settle."""
    if old is None or new is None or _same(old, new) or turn < HULLS:
        return new
    if late:
        return None
    if old.shape != new.shape:
        return new
    low = np.where(new.low < old.low, np.where(new.low >= 0, 0.0, -np.inf), new.low)
    high = np.where(new.high > old.high, np.where(new.high <= 0, 0.0, np.inf), new.high)
    return facts(low, high, new.identity, new.scale)


# --- into a body and out of it -----------------------------------------------------


def _token(node: onnx.NodeProto) -> Ids:
    return name_of(f"bodies of {next(filter(None, node.output), '')}")


def _suiting(found: Known | None, shape: Shape | None) -> Facts | None:
    return None if found is None or found[1] != shape else found[0]


def _number(knowing: Knowing, name: str) -> float | None:
    """A single number that is the same always."""
    if (array := knowing.arithmetic.constant(name)) is not None and array.size == 1:
        return float(array.ravel()[0])
    found = knowing.fact(name)
    if found is None or found[0].low.size != 1 or np.prod(found[1], dtype=int) != 1 or not found[0].constant.all():
        return None
    return float(found[0].low.ravel()[0])


def _slice(found: Facts, shape: Shape, axis: int, token: Ids) -> Facts:
    """Facts of every slice along an axis."""
    axis %= len(shape)
    flat = reduced(found, [axis]).map(lambda a: a.reshape(a.shape[:axis] + a.shape[axis + 1 :]))
    return facts(flat.low, flat.high, mix(flat.identity, token, name_of("slice"), axis), flat.scale)


def _stacked(knowing: Knowing, key: str, axis: int, token: Ids) -> Facts | None:
    """Facts of what all rounds give along a new axis: they hold at each of its positions, however many there are."""
    found = knowing.fact(key)
    if found is None:
        return None
    axis %= len(found[1]) + 1
    wide = found[0].map(lambda a: a.reshape(*a.shape[:axis], 1, *a.shape[axis:]))
    return facts(wide.low, wide.high, mix(wide.identity, token, axis), wide.scale)
