"""The law of facts for integers: they overflow, round towards zero, and float64 does not tell all of them apart."""

import contextlib

import numpy as np
import onnx
import pytest
from all_rows import ROWS
from law import Feeds, opened
from law import run as outputs_of
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, NotImplemented
from rows import Row
from test_facts import behind, check

from onnxprune.channels import analyse
from onnxprune.lossless.propagate import Knowledge
from onnxprune.model.graphs import opset_of
from onnxprune.model.network import Network
from onnxprune.operators.facts import Facts
from onnxprune.operators.registry import OPERATORS

SIGNED, UNSIGNED = ("int8", "int16", "int32", "int64"), ("uint8", "uint16", "uint32", "uint64")


def ends_of(dtype: np.dtype) -> np.ndarray:
    """Zero, one, and the ends of a type, of which float64 does not tell all apart."""
    if dtype.kind == "b":
        return np.array([False, True])
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return np.array([high, high - 1, low, low + 1, 1], dtype)


def led_by_ends(model: onnx.ModelProto, data: Feeds, axis: int, seed: int) -> onnx.ModelProto | None:
    """The model behind nodes that make some positions of its integers copies, the ends of their types, or bounded."""
    rng, out, nodes = np.random.default_rng(seed), onnx.ModelProto(), []
    out.CopyFrom(model)
    for value in model.graph.input:
        array, name = data.get(value.name, np.zeros(0)), value.name
        if array.dtype.kind not in "iub" or not -array.ndim <= axis < array.ndim or array.shape[axis] < 2:
            continue
        size, ends = array.shape[axis], ends_of(array.dtype)
        picks = np.arange(size)
        picks[1::2] = picks[: 2 * (size // 2) : 2]
        picks[rng.permutation(size)[: size // 3]] = size + rng.integers(0, len(ends), size // 3)
        shape = [-1 if k == axis % array.ndim else 1 for k in range(array.ndim)]
        lengths = [len(ends) if k == axis % array.ndim else n for k, n in enumerate(array.shape)]
        tensors = [np.broadcast_to(ends.reshape(shape), lengths), picks]
        if array.dtype.kind != "b" and array.dtype.itemsize != 2 and opset_of(model) >= 12:  # where Max takes them
            sides = [[ends[2], 0, 1, 2], [ends[0], ends[1], 100, 3]]
            tensors += [rng.choice(np.array(side, array.dtype), size).reshape(shape) for side in sides]
        out.graph.initializer.extend(numpy_helper.from_array(a.copy(), f"{name}.{k}") for k, a in enumerate(tensors))
        for node in out.graph.node:
            for k, taken in enumerate(node.input):
                node.input[k] = f"{name}.led" if taken == name else taken
        chain = ["Concat", "Gather", "Max", "Min"][: len(tensors)]
        names = [name, *(f"{name}.{op}" for op in chain[:-1]), f"{name}.led"]
        nodes += [
            helper.make_node(
                op, [names[k], f"{name}.{k}"], [names[k + 1]], **({"axis": axis % array.ndim} if k < 2 else {})
            )
            for k, op in enumerate(chain)
        ]
    return behind(nodes, out)


def with_ends(array: np.ndarray, seed: int) -> np.ndarray:
    """Integers some of which are the ends of their type."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(array.shape) < 0.3, rng.choice(ends_of(array.dtype), array.shape), array)


class Unfit(Exception):
    """No onnx operator takes integers of this type, or its reference does not."""


def outcome(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """Outputs of a model in onnxruntime, or in onnx's reference where that has no kernel for a type that is allowed."""
    try:
        return outputs_of(model, feeds)
    except (Fail, InvalidGraph, NotImplemented):
        try:
            onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
            return ReferenceEvaluator(model).run(None, dict(feeds))
        except (onnx.shape_inference.InferenceError, NotImplementedError, RuntimeError, TypeError) as error:
            raise Unfit from error


def in_type(case: Row, dtype: str, seed: int) -> tuple[onnx.ModelProto | None, Feeds]:
    """A row whose floats are integers of a type, which go to its ends, or whose integers do; behind `led_by_ends`."""
    model, data, weights = case.build(0)
    given, safe = {**data, **weights}, ("x1",) if case.op in ("Div", "Mod") else ()  # what others are divided by
    moved = {
        n for n, a in given.items() if n not in safe and (a.dtype == np.float32 if dtype else a.dtype.kind in "iub")
    }
    for name, array in given.items():
        if dtype and array.dtype == np.float32:
            whole = np.round(3 * array)
            given[name] = (whole if dtype in SIGNED else np.abs(whole)).astype(dtype)
        if name in moved and (dtype or name in data):
            given[name] = with_ends(given[name], seed)
    for value in model.graph.input:
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(given[value.name].dtype)
    model = opened(model, {name: given[name] for name in weights})
    feeds = {name: given[name] for name in data}
    return led_by_ends(model, {n: a for n, a in feeds.items() if n in moved}, (0, 1, -1)[seed % 3], seed), feeds


def types_of(op: str, opset: int) -> tuple[set[str], set[str]]:
    """Types that an operator of onnx takes, and those that it gives."""
    known = ":" not in op and onnx.defs.has(op, opset)
    schema = onnx.defs.get_schema(op, opset) if known else None
    sides = (schema.inputs, schema.outputs) if schema is not None else ([], [])
    taken, given = ({name[7:-1] for side in whole for name in side.types} for whole in sides)
    return taken, given


BOUNDED = {name for name, operator in OPERATORS.items() if operator.bound is not None}
UNTRIED = {"ConstantOfShape", "GridSample"}  # takes sizes, or has no kernel


def test_through_every_row_of_the_rules() -> None:
    """With floats that are integers of a type, or with the integers that they take."""
    ran = set()
    for seed, case in enumerate(c for c in ROWS if c.op in BOUNDED and c.opset >= 7):
        for dtype in ("", *({"int8", "uint8", "int32", "int64", "uint64"} & types_of(case.op, case.opset)[0])):
            led, feeds = in_type(case, dtype, seed)
            if led is not None:
                with contextlib.suppress(Fail, InvalidArgument, InvalidGraph, NotImplemented, Unfit):
                    check(led, feeds, run=outcome if dtype else outputs_of)
                    ran.add(case.op)
    assert {name for name in BOUNDED if {"int8", "int32"} & types_of(name, 22)[1]} - ran == UNTRIED


BITS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot")
ON_INTEGERS = [
    *((op, {}, SIGNED + UNSIGNED) for op in (*BITS, "Add", "Sub", "Mul", "Equal")),
    *((op, {}, SIGNED) for op in ("Abs", "Neg")),
    *(("BitShift", {"direction": way}, ("uint8", "uint32", "uint64")) for way in ("LEFT", "RIGHT")),  # 255 bits, too
    *((op, {}, ("int8", "int32", "int64", "uint8")) for op in ("Where", "Max", "Min")),
    *((op, {"keepdims": 1}, ("int32", "int64")) for op in ("ReduceSum", "ReduceMax")),
]


@pytest.mark.parametrize(("op", "attributes", "types"), ON_INTEGERS)
@pytest.mark.parametrize("number", [False, True])
def test_integers_that_overflow_and_those_that_float64_does_not_tell_apart(
    op: str, attributes: dict[str, object], types: tuple[str, ...], number: bool
) -> None:
    """Bounds hold, and copies are copies, to the last bit; number: the last operand stands in the file."""
    count = {"BitwiseNot": 1, "Abs": 1, "Neg": 1, "ReduceSum": 1, "ReduceMax": 1, "Where": 3}.get(op, 2)
    for seed, (dtype, axis) in enumerate((t, axis) for t in types for axis in (1, 1, -1)):
        draw = np.random.default_rng(seed).integers
        data = {f"x{k}": with_ends(draw(0, 100, (2, 6, 4)).astype(dtype), k) for k in range(count)}
        if op == "Where":
            data["x0"] = data["x0"] > 50
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in data.items()
        ]
        out = helper.make_empty_tensor_value_info("y")
        graph = helper.make_graph([helper.make_node(op, list(data), ["y"], **attributes)], "g", infos, [out])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        last = {f"x{count - 1}": np.resize(ends_of(np.dtype(dtype)), (6, 1))} if number and count > 1 else {}
        led = led_by_ends(opened(model, last), {n: a for n, a in data.items() if n not in last}, axis, seed)
        assert led is not None
        assert check(led, {n: a for n, a in data.items() if n not in last})


def known_of(nodes: str, kind: str, name: str = "y") -> Facts:
    """Facts of a value behind x, (2, 4) of a type; the nodes are text."""
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({kind}[2, 4] x) => ({kind}[] y) {{ {nodes} }}'
    model = opened(onnx.parser.parse_model(text), {})
    found = Knowledge.of(Network.of(model), analyse(model)).facts[name]
    assert found is not None
    return found


SUMS = "zero = Constant <value = {kind} {{0}}> () axis = Constant <value = int64 {{1}}> () p = Max(x, zero) y = {made}"


@pytest.mark.parametrize(("kind", "low"), [("float", 0), ("int32", -np.inf), ("int64", -np.inf), ("uint64", -np.inf)])
@pytest.mark.parametrize("made", ["CumSum", "ReduceSum", "ReduceL1", "ReduceSumSquare", "ReduceMean"])
def test_sums_of_integers_that_are_not_negative_wrap_around(made: str, kind: str, low: float) -> None:
    assert known_of(SUMS.format(kind=kind, made=f"{made}(p, axis)"), kind).low.ravel().tolist() == [low]


@pytest.mark.parametrize(
    "made", ["Max(x, zero)", "Clip(x, zero)", "Where(x, p, p)", "ReduceMax(p, axis)", "Gather(p, axis)"]
)
def test_integers_that_are_only_selected_keep_each_bound(made: str) -> None:
    made = made.replace("Where(x,", "Where(bits,")
    nodes = "bits = Cast <to = 9> (x) " + SUMS.format(kind="int32", made=made)
    found = known_of(nodes, "int32")
    assert (found.low == 0).all()
    assert np.isinf(found.high).all()


MOST, LESS = "Constant <value = int64 {9007199254740993}> ()", "Constant <value = int64 {9007199254740992}> ()"
UNLIKE = {  # a and b: what is the same number in float64, or in another type, is none
    "CastLike": (
        "float",
        "i = Constant <value = int8 {0}> () j = Constant <value = int32 {0}> () a = CastLike(x, i) b = CastLike(x, j)",
    ),
    "QuantizeLinear": (
        "float",
        "s = Constant <value = float {1}> () i = Constant <value = int8 {0}> () j = Constant <value = uint8 {0}> () "
        "a = QuantizeLinear(x, s, i) b = QuantizeLinear(x, s, j)",
    ),
    "output_dtype": (
        "float",
        "s = Constant <value = float {1}> () a = QuantizeLinear <output_dtype = 3> (x, s) b = Identity(a)",
    ),
    "BitwiseNot": (
        "uint8",
        "i = Constant <value = uint8 {200}> () c = Clip(x, i, i) w = Cast <to = 6> (x) "
        "j = Constant <value = int32 {200}> () d = Clip(w, j, j) a = BitwiseNot(c) b = BitwiseNot(d)",
    ),
    "Cast": (
        "float",
        "i = Constant <value = float {3000000000}> () c = Clip(x, i, i) w = Cast <to = 7> (x) "
        "j = Constant <value = int64 {3000000000}> () d = Clip(w, j, j) a = Cast <to = 6> (c) b = Cast <to = 6> (d)",
    ),
    "Clip": ("int64", f"i = {MOST} j = {LESS} a = Clip(x, i) b = Clip(x, j)"),
    "Pad": (
        "int64",
        f"i = {MOST} j = {LESS} n = Constant <value = int64[4] {{0, 1, 0, 1}}> () a = Pad(x, n, i) b = Pad(x, n, j)",
    ),
    "ConstantOfShape": (
        "int64",
        "n = Shape(x) a = ConstantOfShape <value = int64[1] {9007199254740993}> (n) "
        "b = ConstantOfShape <value = int64[1] {9007199254740992}> (n)",
    ),
    "MatMul": (
        "int64",
        "i = Constant <value = int64[4, 2] {0, 0, 9007199254740992, 9007199254740993, 0, 0, 0, 0}> () "
        "a = MatMul(x, i) b = Identity(a)",
    ),
    "Div": (
        "int64",
        "i = Constant <value = int64 {41498043}> () j = Constant <value = int64 {8904981843793784}> () "
        "c = Clip(x, j, j) a = Div(c, i) b = Div(x, i)",
    ),
    "Resize": (
        "int32",
        "i = Constant <value = int32 {2147483647}> () p = Clip(x, i, i) n = Constant <value = float[2] {1, 2}> () "
        "e = Constant <value = int64[2] {0, 1}> () c = Unsqueeze(p, e) m = Constant <value = float[4] {1, 1, 1, 2}> () "
        'd = Resize <mode = "linear"> (c, , m) a = Squeeze(d, e) b = Identity(a)',
    ),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_integers_are_in_their_type(name: str) -> None:
    kind, nodes = UNLIKE[name]
    last = "y = Concat <axis = 1> (a, b)"
    if kind != "int64":
        last = "p1 = Cast <to = 11> (a) p2 = Cast <to = 11> (b) y = Concat <axis = 1> (p1, p2)"
    x = np.float32([[300, -100, 200, 0.4], [3, 250, -300, 1]])
    if kind != "float":
        x = with_ends(np.abs(x).astype(kind), 0)
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({kind}[2, 4] x) => ({kind}[] y) {{ {nodes} {last} }}'
    check(opened(onnx.parser.parse_model(text), {}), {"x": x})
