"""Shapes that users write, shapes that are found, and random feeds."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from runtime_models import SHARED, build, conv_net, needs_models

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.dims import expressions
from onnxprune.runtime import resolve
from onnxprune.runtime.inputs import decided, parse_input_shapes, random_inputs
from onnxprune.runtime.resolve import resolve_shapes
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import Spec, describe, fits, from_value_info, model_inputs, shortened

ONE = [Spec("serving_default:0", 1, ("N", None, None, 3))]
TWO = [Spec("a", 1, ("N", 3, "H", "W")), Spec("a:b", 1, ("N", 7)), Spec("sr", 7, ())]


@pytest.mark.parametrize(
    "text",
    [
        "serving_default:0:1x20x30x3",
        "serving_default:0:1,20,30,3",
        "serving_default:0:[1,20,30,3]",
        "serving_default:0:[1, 20, 30, 3]",
        "serving_default:0:1×20×30×3",
        "serving_default:0:1X20X30X3",
        "serving_default:0:(1, 20, 30, 3,)",
        "serving_default:0=1x20x30x3",
        "1x20x30x3",
        " [1,20,30,3] ",
    ],
)
def test_all_spellings_of_a_shape(text):
    assert parse_input_shapes([text], ONE) == {"serving_default:0": (1, 20, 30, 3)}


def test_names_with_colons_and_scalars():
    given = parse_input_shapes(["a:b:2x7", "a:1x3x5x6", "sr:[]"], TWO)
    assert given == {"a:b": (2, 7), "a": (1, 3, 5, 6), "sr": ()}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("c:1x3", "'a' [N, 3, H, W]"),
        ("1x3x5x6", "names no input"),
        ("a:1x4x5x6", "does not fit input 'a', which is [N, 3, H, W]"),
        ("a:1x3x5", "does not fit"),
        ("a:1x3xHxW", "cannot read the sizes"),
        ("a:1x-3x5x6", "--input-shapes a:1x3x224x224"),
        ("a:", "does not fit"),
    ],
)
def test_shapes_that_are_refused(text, says):
    with pytest.raises(UsageError) as caught:
        parse_input_shapes([text], TWO)
    assert says in str(caught.value)


def test_inputs_that_are_weights_are_none():
    model = conv_net()
    model.graph.input.append(helper.make_tensor_value_info("w1", 1, [6, 3, 3, 3]))
    assert [s.name for s in model_inputs(model)] == ["x"]
    assert from_value_info(onnx.ValueInfoProto(name="odd")).shape is None


def test_fixed_shapes_stay_and_a_free_batch_is_one():
    assert resolve_shapes(conv_net(batch=5)) == {"x": (5, 3, 8, 8)}
    assert resolve_shapes(conv_net()) == {"x": (1, 3, 8, 8)}
    assert resolve_shapes(conv_net(), {"x": (4, 3, 8, 8)}) == {"x": (4, 3, 8, 8)}
    assert resolve_shapes(make_session(conv_net())) == {"x": (1, 3, 8, 8)}


def reshaping(inputs, target, name="x"):
    """A model that runs only where its input has as many elements as `target`."""
    nodes = [helper.make_node("Reshape", [name, "to"], ["y"])]
    return build(nodes, inputs, [("y", 1, None)], {"to": np.array(target, np.int64)})


def test_free_sizes_are_found_by_running():
    assert resolve_shapes(reshaping([("x", 1, ["N", 3, "H", "W"])], [1, 3 * 640 * 640])) == {"x": (1, 3, 640, 640)}
    assert resolve_shapes(reshaping([("x", 1, ["N", "C", "H", "W"])], [1, 3, 96, 96])) == {"x": (1, 3, 96, 96)}
    assert resolve_shapes(reshaping([("x", 1, ["batch", "samples"])], [16000])) == {"x": (1, 16000)}
    assert resolve_shapes(reshaping([("x", 1, ["batch", "batch", 5])], [5])) == {"x": (1, 1, 5)}


def test_a_batch_that_the_graph_fixes_is_found():
    assert resolve_shapes(reshaping([("x", 1, ["N", 3, 4, 4])], [8, 48])) == {"x": (8, 3, 4, 4)}


def test_equal_names_get_equal_sizes_and_question_marks_do_not():
    add = helper.make_node("Add", ["a", "b"], ["y"])
    io = [("a", 1, ["N", "T"]), ("b", 1, ["N", "T"])], [("y", 1, None)]
    found = resolve_shapes(build([add], *io))
    assert found["a"] == found["b"] == (1, 224)
    model = build(
        [helper.make_node("Concat", ["a", "b"], ["y"], axis=1)],
        [("a", 1, ["?", "?"]), ("b", 1, ["?", 9])],
        [("y", 1, None)],
    )
    assert resolve_shapes(model)["a"][0] == resolve_shapes(model)["b"][0]


def test_hints_settle_what_shares_their_names():
    add = helper.make_node("Add", ["a", "b"], ["y"])
    model = build([add], [("a", 1, ["N", "T"]), ("b", 1, ["N", "T"])], [("y", 1, None)])
    assert resolve_shapes(model, {"a": (2, 7)}) == {"a": (2, 7), "b": (2, 7)}


def attention(dims, name="x"):
    """Every position of a map with every other one."""
    nodes = [
        helper.make_node("Reshape", [name, "to"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["turned", "flat"], ["y"]),
    ]
    return build(nodes, [(name, 1, dims)], [("y", 1, None)], {"to": np.array([0, 4, -1], np.int64)})


def test_what_would_take_much_memory_is_not_tried(monkeypatch):
    """Customary sizes come first, but at 224 × 224 the product of all pairs of positions has 2.5 thousand million."""
    tried = []
    monkeypatch.setattr(
        resolve, "random_inputs", lambda specs, shapes: [tried.append(shapes)] and random_inputs(specs, shapes)
    )
    assert resolve_shapes(attention(["batch", 4, "H", "W"])) == {"x": (1, 4, 32, 32)}
    assert tried == [{"x": (1, 4, 32, 32)}]


def test_what_no_inference_knows_is_seen_in_a_small_run():
    """How many elements are not zero: all pairs of positions, here."""
    model = attention(["batch", 4, "H", "W"])
    model.graph.node.append(helper.make_node("NonZero", ["y"], ["places"]))
    model.graph.output.append(helper.make_tensor_value_info("places", 7, None))
    assert resolve_shapes(model) == {"x": (1, 4, 32, 32)}


def test_dear_sizes_are_tried_where_no_others_run(monkeypatch):
    monkeypatch.setattr(resolve, "MODEST_ELEMENTS", 1 << 8)
    model = attention(["batch", 4, "H", "W"])
    model.graph.node.append(helper.make_node("Reshape", ["x", "all"], ["checked"]))
    model.graph.output.append(helper.make_tensor_value_info("checked", 1, None))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 4 * 16 * 16], np.int64), "all"))
    assert resolve_shapes(model) == {"x": (1, 4, 16, 16)}


def test_sizes_that_are_named_by_others_follow_them():
    """A cache of P positions, T new ones, and a mask over both, as PyTorch exports a decoder."""
    nodes = [
        helper.make_node("Concat", ["past", "x"], ["all"], axis=1),
        helper.make_node("Add", ["all", "mask"], ["y"]),
    ]
    inputs = [("mask", 1, ["B", "P+T"]), ("x", 1, ["B", "T"]), ("past", 1, ["B", "P"])]
    model = build(nodes, inputs, [("y", 1, None)])
    assert resolve_shapes(model) == {"mask": (1, 448), "x": (1, 224), "past": (1, 224)}
    assert resolve_shapes(model, {"mask": (2, 9), "x": (2, 4)}) == {"mask": (2, 9), "x": (2, 4), "past": (2, 5)}


def test_multiples_come_to_customary_sizes():
    """What PyTorch writes for an image whose sides are divisible by 32."""
    model = build([helper.make_node("Relu", ["x"], ["y"])], [("x", 1, ["2*b", 3, "32*h", "32*w"])], [("y", 1, None)])
    assert resolve_shapes(model) == {"x": (2, 3, 224, 224)}


def test_expressions():
    found = expressions(["P", "P+T", "2*s", "(s0 + 1)//2", "Max(1, s0)", "floor(s/2)", "1//(s - 7)"])
    at_seven = {text: expression.at(dict.fromkeys(expression.names, 7)) for text, expression in found.items()}
    assert at_seven == {
        "P+T": 14, "2*s": 14, "(s0 + 1)//2": 4, "Max(1, s0)": 7, "floor(s/2)": 3, "1//(s - 7)": None
    }  # fmt: skip
    assert found["(s0 + 1)//2"].solved("s0", 5, {}) == 9


@pytest.mark.parametrize(
    "name",
    ["batch-size", "N/A", "?", "unk__7", "p2o.Dim.0", "a b", "1+", "9**9**9*s", "f(s)", "max(s)", "__import__('os')"],
)
def test_names_that_are_no_expressions(name):
    assert expressions([name, "other"]) == {}


def test_when_nothing_runs_the_inputs_are_named():
    model = reshaping([("x", 1, ["N", 3, "H", "W"])], [1, 3 * 1009 * 1013])
    with pytest.raises(UsageError) as caught:
        resolve_shapes(model)
    assert "'x' [N, 3, H, W] float32" in str(caught.value)
    assert "--input-shapes x:1x3x224x224" in str(caught.value)
    assert resolve_shapes(model, {"x": (1, 3, 1009, 1013)}) == {"x": (1, 3, 1009, 1013)}
    with pytest.raises(UsageError, match="'z' is no input"):
        resolve_shapes(model, {"z": (1,)})


def test_random_inputs_are_seeded_and_of_their_type():
    names = {"f": TensorProto.FLOAT, "h": TensorProto.FLOAT16, "b": TensorProto.BFLOAT16, "d": TensorProto.DOUBLE}
    names |= {"i8": TensorProto.INT8, "u8": TensorProto.UINT8, "ids": TensorProto.INT64, "m": TensorProto.BOOL}
    specs = [Spec(n, e, (4, 50)) for n, e in names.items()] + [Spec("sr", TensorProto.INT64, ())]
    shapes = {s.name: s.shape for s in specs}
    one, two = random_inputs(specs, shapes, seed=3, count=2)
    again = random_inputs(specs, shapes, seed=3, count=2)
    for name, array in one.items():
        assert array.dtype == next(s.dtype for s in specs if s.name == name)
        np.testing.assert_array_equal(array, again[0][name])
    assert not np.array_equal(one["f"], two["f"])
    assert not np.array_equal(one["f"], random_inputs(specs, shapes, seed=4)[0]["f"])
    assert abs(float(one["f"].std()) - 1) < 0.2
    assert set(np.unique(one["ids"])) == {0, 1}
    assert one["i8"].min() < -100 < 100 < one["i8"].max()
    assert one["u8"].max() > 200
    assert one["sr"].shape == ()
    assert one["sr"] == 16000


def test_flags_and_counts_are_decided_together():
    feed = {"x": np.ones((2, 3)), "m": np.array(0), "n": np.array([1], np.int32), "flag": np.array(False)}
    others = {"mask": np.array([1]), "sr": np.array(16000), "ids": np.array([[0]]), "u8": np.array(7, np.uint8)}
    others |= {"flags": np.array([True, False]), "x": feed["x"]}
    on, off = (decided(feed | others, way) for way in (True, False))
    assert all(on[name] is off[name] is array for name, array in others.items())
    assert {name: on[name].tolist() for name in ("m", "n", "flag")} == {"m": 3, "n": [4], "flag": True}
    assert {name: off[name].tolist() for name in ("m", "n", "flag")} == {"m": 0, "n": [1], "flag": False}
    assert [on[name].dtype for name in ("m", "n", "flag")] == [np.int64, np.int32, bool]
    assert decided(feed | {"flag": np.array(True)}, False)["flag"].tolist() is False


def test_strings_and_sequences_are_refused():
    with pytest.raises(ModelError, match="'t' holds"):
        random_inputs([Spec("t", TensorProto.STRING, (1,))], {"t": (1,)})
    sequence = onnx.ValueInfoProto(
        name="s", type=helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1]))
    )
    with pytest.raises(ModelError, match=r"'s' is no tensor .sequence"):
        random_inputs([from_value_info(sequence)], {"s": ()})


def test_shapes_are_described_and_compared():
    assert describe(("N", 3, None)) == "[N, 3, ?]"
    assert fits((9, 3, 4), Spec("x", 1, ("N", 3, None)))
    assert not fits((9, 4, 4), Spec("x", 1, ("N", 3, None)))
    assert fits((9, 3), Spec("x", 1, (1, 3)), skip_first=True)
    assert not fits((9, 3, 1), Spec("x", 1, (1, 3)), skip_first=True)


@pytest.mark.parametrize(
    ("lengths", "shapes", "left"),
    [
        ({"x": 9}, {"x": ("N", 2)}, {"x": 4}),
        ({"x": 3}, {"x": ("N", 2)}, {"x": 3}),
        ({"x": 9}, {"x": (9, 2)}, {"x": 9}),
        ({"x": 9}, {"x": None}, {"x": 4}),
        ({"x": 9, "table": 6}, {"x": (None, 2), "table": (6, 2)}, {"x": 4, "table": 6}),
        ({"x": 9, "pair": 9}, {"x": ("N", 2), "pair": (9, 2)}, {"x": 9, "pair": 9}),
        ({"x": 9, "text": 7}, {"x": ("N", 2), "text": ("T", 2)}, {"x": 9, "text": 7}),
    ],
    ids=["open", "few", "fixed", "of unknown rank", "beside a table", "open beside fixed", "of two lengths"],
)
def test_feeds_are_shortened_along_open_axes(lengths, shapes, left):
    specs = [Spec(name, 1, shape) for name, shape in shapes.items()] + [Spec("rate", 1, ())]
    feed = {name: np.arange(2 * n).reshape(n, 2) for name, n in lengths.items()} | {"rate": np.array(1)}
    found = shortened(feed, specs, 4)
    assert {name: len(array) for name, array in found.items() if array.ndim} == left
    assert all(np.array_equal(array, feed[name][: len(array)] if array.ndim else 1) for name, array in found.items())


# What ../shared/models/README.md says that these need; all others run without a hint, and so do these.
HINTS = {
    "silero_vad": ["input:1x512", "state:2x1x128", "sr:[]"],
    "silero_model_micro": ["input:1x16000"],
    "openwakeword_embedding": ["input_1:1x76x32x1"],
    "basic_pitch_nmp": ["1x43844x1"],
    "ppocr_v3_det": ["x:1x3x320x320"],
    "retinaface_mbnet025": ["[1,3,320,320]"],
    "yunet_n_dynamic": ["input:1,3,320,320"],
    "fns_candy_winml": ["inputImage:1x3x720x720"],
}
SLOW = {"fns_candy_winml"}  # 1.2 s a run


@needs_models
def test_every_network_runs_without_and_with_hints():
    files = sorted((SHARED / "models").glob("*.onnx"))
    assert len(files) >= 40
    for path in files:
        session = make_session(path, providers="cpu")
        shapes = resolve_shapes(session)
        if path.stem not in SLOW:
            assert session.run(random_inputs(session.inputs, shapes)[0])
        if path.stem in HINTS:
            hints = parse_input_shapes(HINTS[path.stem], session.inputs)
            assert resolve_shapes(session, hints) == hints
