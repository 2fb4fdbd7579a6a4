"""What the surgery leaves, changes and adds in the user's own model."""

import numpy as np
import onnx
import onnx.parser
import pytest
from law import agree, run, waste
from networks import random_feeds
from onnx import ModelProto, TensorProto, helper, numpy_helper
from text_graphs import build

import onnxprune
from onnxprune.channels import Dependencies, analyse
from onnxprune.runtime.session import make_session
from onnxprune.surgery import cut, mask


def keep_first(deps: Dependencies, share: float = 0.5) -> np.ndarray:
    """Dead components that leave the first channels of every group."""
    return deps.dead({g.name: np.arange(max(1, round(len(g) * share))) for g in deps.groups})


def keep_odd(deps: Dependencies) -> np.ndarray:
    return deps.dead({g.name: np.arange(len(g))[1::2] if len(g) > 1 else [0] for g in deps.groups})


def assert_lawful(model: ModelProto, dead: np.ndarray | None = None) -> ModelProto:
    """The pruned model, which gives what the masked one gives."""
    deps = analyse(model)
    gone = keep_odd(deps) if dead is None else dead
    pruned, feeds = cut(model, deps, gone), random_feeds(model, symbolic=3)
    assert gone.any()
    for value, a, b in zip(model.graph.output, run(mask(model, deps, gone), feeds), run(pruned, feeds), strict=True):
        agree(value.name, a, b, 1e-4)
    return pruned


def ops(model: ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node]


def tensor(model: ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


# --- what stays --------------------------------------------------------------


def test_all_that_is_not_touched_stays_as_it_was() -> None:
    model = build("c = Conv(x, w1[8,3,3,3], b1[8])  r = Relu(c)  y = Conv(r, w2[4,8,2,2], b2[4])")
    model.producer_name, model.doc_string, model.graph.doc_string = "somebody", "a model", "a graph"
    model.metadata_props.add(key="names", value="{0: 'cat'}")
    model.graph.node[0].doc_string = "a node"
    model.graph.initializer[0].doc_string = "a tensor"
    model.graph.quantization_annotation.add(tensor_name="r")
    pruned = assert_lawful(model)
    for part in (model, pruned):
        del part.graph.initializer[:]
    assert pruned == model


@pytest.mark.parametrize("through", ["", "i = Identity(w1)"])
def test_no_weight_is_kept_for_its_sizes(through: str) -> None:
    """What an exporter writes for a bias of zeros; and where the size ends in the data, it stays what it was."""
    w = "i" if through else "w1"
    model = build(
        f"""{through} s = Shape<start=0, end=1>({w})  zero = Constant<value_float=0.0>()  b = Expand(zero, s)
        c = Conv(x, w1, b)  d = Conv(c, w2[4,8,1,1])  n = Cast<to=1>(s)  y = Div(d, n)""".replace(
            "w1", "w1[8,3,3,3]", 1
        )
    )
    pruned = assert_lawful(model)
    assert not waste(model, pruned)
    assert tensor(pruned, "w1").shape == (4, 3, 3, 3)


def test_parts_of_branches_go_too() -> None:
    model = build(
        """c = Conv(x, w1[8,3,3,3])  q = Constant<value = bool {1}>()
        r = If(q) <
            then_branch = t () => (float a) {
                s = Shape<start=0, end=1>(w1)  k = Constant<value_ints=[1]>()  n = Concat<axis=0>(k, s, k, k)
                one = Constant<value_float=1.0>()  b = Expand(one, n)  a = Add(c, b) },
            else_branch = e () => (float o) { o = Relu(c) }>
        y = Conv(r, w2[4,8,1,1])"""
    )
    pruned = assert_lawful(model)
    assert not waste(model, pruned)
    assert [n.op_type for n in pruned.graph.node[2].attribute[0].g.node] == ["Constant", "Expand", "Add"]


def test_functions_stay() -> None:
    model = build("c = Conv(x, w1[8,3,1,1])  r = Relu(c)  y = Conv(r, w2[4,8,1,1])")
    imports = [helper.make_opsetid("", 17)]
    relu = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(helper.make_function("my", "F", ["a"], ["b"], [relu], imports))
    assert assert_lawful(model).functions == model.functions


def test_recorded_shapes_follow() -> None:
    model = onnx.shape_inference.infer_shapes(build("c = Conv(x, w1[8,3,1,1])  r = Relu(c)  y = Conv(r, w2[4,8,1,1])"))
    pruned = assert_lawful(model)
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in pruned.graph.value_info}
    assert sizes == {"c": [1, 4, 4, 4], "r": [1, 4, 4, 4]}
    onnx.checker.check_model(pruned, full_check=True)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_elements_are_cut_in_their_own_type(kind: int) -> None:
    model = build("c = Conv(x, w1[8,3,1,1])  y = Conv(c, w2[4,8,1,1])")
    model.graph.input[0].type.tensor_type.elem_type = model.graph.output[0].type.tensor_type.elem_type = kind
    for t in model.graph.initializer:
        t.CopyFrom(helper.make_tensor(t.name, kind, t.dims, numpy_helper.to_array(t).ravel()))
    deps = analyse(model)
    pruned = cut(model, deps, keep_odd(deps))
    before, after = tensor(model, "w1"), tensor(pruned, "w1")
    assert after.dtype == before.dtype
    assert after.tobytes() == before[1::2].tobytes()


# --- tensors -----------------------------------------------------------------


def test_a_shared_bias_is_copied_when_its_layers_are_cut_differently() -> None:
    model = build("a = Conv(x, w1[8,3,1,1], b[8])  c = Conv(a, w2[8,8,1,1], b)  y = Conv(c, w3[4,8,1,1])")
    deps = analyse(model)
    dead = deps.dead({"w1": np.arange(4), "w2": np.arange(4, 8)})
    pruned = assert_lawful(model, dead)
    assert pruned.graph.node[0].input[2] != pruned.graph.node[1].input[2]


def test_a_shared_bias_stays_one_when_its_layers_are_cut_alike() -> None:
    model = build("a = Conv(x, w1[8,3,1,1], b[8])  c = Conv(a, w2[8,8,1,1], b)  y = Conv(c, w3[4,8,1,1])")
    pruned = assert_lawful(model)
    assert pruned.graph.node[0].input[2] == pruned.graph.node[1].input[2] == "b"


def test_equal_weights_of_fills() -> None:
    fill = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.25])
    model = build("c = Conv(x, f)  r = Relu(c)  y = Conv(r, w2[4,8,1,1])")
    model.graph.initializer.append(numpy_helper.from_array(np.array([8, 3, 1, 1]), "s"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["s"], ["f"], value=fill))
    pruned = assert_lawful(model)
    shape = pruned.graph.node[0].input[0]
    assert tensor(pruned, shape).tolist() == [4, 3, 1, 1]


# --- nodes -------------------------------------------------------------------


def test_a_slice_stays_a_slice_where_it_can() -> None:
    model = build("a = Conv(x, w1[8,3,1,1])  p = Slice(a, z{2}, e{6}, o{1})  y = Conv(p, w2[4,4,1,1])")
    deps = analyse(model)
    assert ops(assert_lawful(model, keep_first(deps))) == ["Conv", "Slice", "Conv"]
    assert ops(assert_lawful(model)) == ["Conv", "Slice", "Conv"]


def test_what_is_no_slice_any_more_becomes_a_gather() -> None:
    model = build(
        "a = Conv(x, w1[8,3,1,1])  p = Slice(a, z{0}, e{8}, o{1}, st{2})  b = Conv(p, w2[4,4,1,1])"
        "  c = Conv(a, w3[4,8,1,1])  y = Add(b, c)"
    )
    deps = analyse(model)
    dead = deps.dead({"w1#2": np.array([0])})  # of the odd channels
    assert "Gather" in ops(assert_lawful(model, dead))


def test_a_shuffle_becomes_one_gather() -> None:
    model = build(
        "a = Conv(x, w1[8,3,1,1])  r = Reshape(a, s{1,2,4,4,4})  t = Transpose<perm=[0,2,1,3,4]>(r)"
        "  b = Reshape(t, u{1,8,4,4})  y = Conv(b, w2[4,8,1,1])"
    )
    deps = analyse(model)
    unequal = deps.dead({"w1": [0, 1, 2, 5]})
    pruned = assert_lawful(model, unequal)
    assert ops(pruned) == ["Conv", "Gather", "Conv"]
    assert {t.name for t in pruned.graph.initializer} >= {"w1", "w2"}
    assert not {"s", "u"} & {t.name for t in pruned.graph.initializer}


BATCHED = "a = Conv(x, w1[8,3,1,1])  s = Shape(a)  n = Slice(s, z{0}, o{1})  "


@pytest.mark.parametrize(
    "nodes",
    [
        "t = Concat<axis=0>(n, k{128})  f = Reshape(a, t)  y = Gemm(f, w2[128,5])",
        "t = Concat<axis=0>(n, k{-1})  f = Reshape(a, t)  y = Gemm(f, w2[128,5])",
        "m = Mul(n, k{8})  t = Concat<axis=0>(m, j{16})  f = Reshape(a, t)  g = Reshape(f, u{-1,8,16})  h = Flatten(g)"
        "  y = Gemm(h, w2[128,5])",
        "t = Concat<axis=0>(n, k{8}, j{-1})  f = Reshape(a, t)  g = ReduceMean<axes=[2],keepdims=0>(f)"
        "  y = Gemm(g, w2[8,5])",
        "c = Slice(s, o, e{2})  t = Concat<axis=0>(n, c, j{-1})  f = Reshape(a, t)  g = Flatten(f)"
        "  y = Gemm(g, w2[128,5])",
    ],
)
def test_computed_shapes_with_baked_channels(nodes: str) -> None:
    """The batch is symbolic, so the targets stay computed; the sizes of channels in them follow."""
    model = build(BATCHED + nodes)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    assert_lawful(model)


@pytest.mark.parametrize(
    "nodes",
    [
        "i = Gather(s, one{1})  f = Cast<to=1>(i)  r = Sqrt(f)  d = Div(a, r)  y = Conv(d, w2[4,8,1,1])",
        "i = Size(a)  f = Cast<to=1>(i)  d = Div(a, f)  y = Conv(d, w2[4,8,1,1])",
        # heads among the samples: (samples · heads) // heads, and as many repetitions as there are samples
        "r = Reshape(a, t{-1,32})  q = Shape(r)  g = Gather<axis=0>(q, z{0})  n = Div(g, e{4})"
        "  m = Concat<axis=0>(n, o{1}, o, o)  p = Tile(k[1,8,1,1], m)  d = Add(a, p)  y = Conv(d, w2[4,8,1,1])",
    ],
)
def test_sizes_that_end_in_the_data_stay_what_they_were(nodes: str) -> None:
    """What is made of numbers of channels is computed from those of the original, whatever the batch is."""
    model = build("a = Conv(x, w1[8,3,1,1])  s = Shape(a)  " + nodes)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    assert sum(len(g) for g in analyse(model).groups) > 0
    assert_lawful(model)


@pytest.mark.parametrize(
    ("apart", "target"),
    [([0, 2, 4, -1], [0, 8, 4, 4]), ([1, 2, 4, 4, 4], [1, -1, 4, 4]), ([1, 2, 4, 4, 4], [1, 8, 4, 4])],
)
def test_a_shuffle_that_writes_out_the_size_of_maps_goes_on_doing_so(apart: list[int], target: list[int]) -> None:
    """At 8 x 2 as at 4 x 4, since there are as many positions."""
    perm = [0, 2, 1, 3, 4][: len(apart)]
    nodes = f"c = Conv<pads=[1, 1, 1, 1]>(x, w) s = Reshape(c, apart) t = Transpose<perm={perm}>(s)"
    graph = onnx.parser.parse_graph(
        f"g (float[n,3,h,w] x) => (float[n,5,h,w] y) {{ {nodes} u = Reshape(t, target) y = Conv(u, v) }}"
    )
    rng = np.random.default_rng(0)
    arrays = {"apart": np.array(apart), "target": np.array(target)}
    arrays |= {n: rng.normal(size=s).astype(np.float32) for n, s in (("w", (8, 3, 3, 3)), ("v", (5, 8, 1, 1)))}
    graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = onnxprune.prune(model, ratio=0.5, compensate="none", round_to=1, measure=False)
    assert result.report.changed
    assert make_session(result.model).run({"x": np.zeros((1, 3, 8, 2), np.float32)})["y"].shape == (1, 5, 4, 4)
