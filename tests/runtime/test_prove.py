"""Comparison and proof: equal models pass, every planted error fails, also behind a Softmax and in int8."""

import math
from functools import partial

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper
from patterns.blocks import heads_in_batch
from patterns.builder import Net
from runtime_models import build, conv_net, masked_and_pruned, weight, with_weights

from onnxprune.channels import analyse
from onnxprune.errors import CheckFailed
from onnxprune.model.network import Network
from onnxprune.runtime.compare import difference, differences
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.part_by_part import part_by_part
from onnxprune.runtime.prove import prove
from onnxprune.runtime.session import make_session
from onnxprune.runtime.source import Variant
from onnxprune.runtime.specs import model_inputs
from onnxprune.runtime.stimuli import Trial
from onnxprune.runtime.taps import find_taps
from onnxprune.runtime.tolerance import NOISE_LIMIT, TOLERANCE, Judge
from onnxprune.runtime.ulps import NUDGE, nudged
from onnxprune.surgery import cut, mask

DEAD = [1, 4]


def feeds(model, count=3):
    shapes = {s.name: tuple(d if isinstance(d, int) else 2 for d in s.shape) for s in model_inputs(model)}
    return random_inputs(model_inputs(model), shapes, count=count)


# Figures


def test_figures_of_a_difference_by_hand():
    found = difference("y", np.array([3.0, -4.0], np.float32), np.array([3.0, -3.0], np.float32))
    assert (found.max_abs, found.magnitude, found.flips, found.size) == (1, 4, 1, 2)
    assert found.relative == 0.25
    assert found.cosine == pytest.approx((9 + 12) / (5 * math.sqrt(18)))
    assert found.snr_db == pytest.approx(10 * math.log10(25 / 1))


def test_equal_and_zero_arrays():
    same = difference("y", np.ones(3), np.ones(3))
    assert (same.relative, same.cosine, same.snr_db) == (0, 1, math.inf)
    zeros = difference("y", np.zeros(3), np.zeros(3))
    assert (zeros.relative, zeros.cosine) == (0, 1)
    apart = difference("y", np.zeros(3), np.ones(3))
    assert (apart.relative, apart.cosine, apart.snr_db) == (math.inf, 0, -math.inf)
    nothing, words = (
        difference("y", np.zeros(0), np.zeros(0)),
        difference("y", np.array(["a", "b"]), np.array(["a", "c"])),
    )
    assert (nothing.relative, str(nothing.snr_db)) == (0, "nan")
    assert (words.relative, words.cosine, words.snr_db) == (1, 0.5, 10 * math.log10(2))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_must_be_in_the_same_places(odd):
    one, two = np.array([1, odd, 3]), np.array([1, odd, 4])
    assert difference("y", one, two).max_abs == 1
    assert difference("y", one, np.array([1, 2, 3.0])).problem
    assert difference("y", np.array([1, 2, 3.0]), one).problem
    assert difference("y", np.array([odd, 1, 3]), one).problem
    assert difference("y", np.array([1, -np.inf]), np.array([1, np.inf])).relative == math.inf


def test_shapes_types_and_names_must_agree():
    assert "shape [2] became [3]" in difference("y", np.ones(2), np.ones(3)).problem
    assert "type" in difference("y", np.ones(2), np.ones(2, np.float32)).problem
    same, lost = differences([({"a": np.ones(1), "b": np.ones(1)}, {"a": np.ones(1)})])
    assert (same.name, same.problem) == ("a", None)
    assert (lost.name, lost.problem, lost.relative) == ("b", "missing from the second", math.inf)
    assert difference("y", np.array(["a", "b"], object), np.array(["a", "c"], object)).flips == 1


def test_figures_run_over_all_runs():
    pairs = [
        ({"y": np.array([1.0, 2.0])}, {"y": np.array([1.0, 2.5])}),
        ({"y": np.array([8.0])}, {"y": np.array([8.1])}),
    ]
    (y,) = differences(pairs)
    assert (y.max_abs, y.magnitude, y.size) == (0.5, 8, 3)
    assert y.snr_db == pytest.approx(10 * math.log10(69 / 0.26))


# The law


def test_a_right_cut_is_proven():
    masked, pruned = masked_and_pruned(conv_net(), DEAD)
    proof = prove(masked, pruned, feeds(masked))
    assert proof.passed
    assert proof.runs == 3
    assert proof.tolerance == TOLERANCE["float32"]
    assert proof.error < 3e-6
    assert proof.require() is proof
    assert str(proof).startswith("equal up to rounding")


def test_paths_bytes_and_variants_can_be_proven(tmp_path):
    model = conv_net()
    masked, pruned = masked_and_pruned(model, DEAD)
    onnx.save(pruned, tmp_path / "p.onnx")
    for one in (masked, masked.SerializeToString(), Network.of(model).with_values({"w2": weight(masked, "w2")})):
        assert prove(one, tmp_path / "p.onnx", feeds(model)).passed


def permuted(model, name, axis):
    array = weight(model, name)
    order = np.roll(np.arange(array.shape[axis]), 1)
    return with_weights(model, **{name: np.take(array, order, axis)})


ERRORS = [("w1", 0), ("b1", 0), ("w2", 1)]
SOFTMAX = [helper.make_node("Mul", ["logits", "loud"], ["z"]), helper.make_node("Softmax", ["z"], ["out"])]
ARGMAX = [helper.make_node("ArgMax", ["logits"], ["out"], axis=1)]


def loud(model):
    """Scores so far apart that the Softmax after them gives ones and zeros."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e4), "loud"))
    return model


@pytest.mark.parametrize(("name", "axis"), ERRORS)
def test_planted_errors_are_found(name, axis):
    masked, pruned = masked_and_pruned(conv_net(), DEAD)
    proof = prove(masked, permuted(pruned, name, axis), feeds(masked))
    assert not proof.passed
    assert proof.error > 1e-3
    with pytest.raises(CheckFailed, match="logits"):
        proof.require()


def test_an_error_hides_behind_a_saturated_softmax_but_not_from_the_proof():
    masked, pruned = masked_and_pruned(loud(conv_net(tail=SOFTMAX)), DEAD)
    assert prove(masked, pruned, feeds(masked)).passed
    slight = with_weights(pruned, b1=weight(pruned, "b1") * np.float32(1.001))
    both = (make_session(masked), make_session(slight))
    hidden = differences(tuple(session.run(feed) for session in both) for feed in feeds(masked))
    assert all(d.max_abs < 1e-6 for d in hidden)
    proof = prove(masked, slight, feeds(masked))
    assert not proof.passed
    assert proof.output == "z"


def test_an_error_hides_behind_argmax_but_not_from_the_proof():
    model = conv_net(tail=ARGMAX)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", TensorProto.INT64, ["N", 1]))
    masked, pruned = masked_and_pruned(model, DEAD)
    assert prove(masked, pruned, feeds(masked)).passed
    slight = with_weights(pruned, b1=weight(pruned, "b1") * np.float32(1.001))
    assert prove(masked, slight, feeds(masked)).output == "logits"


def test_tiny_sigmoids_are_measured_by_their_range():
    """A sigmoid of −20 has an absolute error of its own that is large for its value."""
    tail = [helper.make_node("Sub", ["logits", "far"], ["z"]), helper.make_node("Sigmoid", ["z"], ["out"])]
    model = conv_net(tail=tail)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(40), "far"))
    masked, pruned = masked_and_pruned(model, DEAD)
    assert prove(masked, pruned, feeds(masked)).passed


def test_a_changed_signature_fails():
    masked, pruned = masked_and_pruned(conv_net(), DEAD)
    more = onnx.ModelProto()
    more.CopyFrom(pruned)
    more.graph.output.append(helper.make_tensor_value_info("r2", 1, None))
    proof = prove(masked, more, feeds(masked))
    assert not proof.passed
    with pytest.raises(CheckFailed, match="'r2'"):
        proof.require()


def test_without_feeds_nothing_is_proven():
    masked, pruned = masked_and_pruned(conv_net(), DEAD)
    assert not prove(masked, pruned, []).passed


def test_random_operators_draw_the_same_in_both():
    tail = [
        helper.make_node("RandomNormalLike", ["logits"], ["noise"]),
        helper.make_node("Add", ["logits", "noise"], ["out"]),
    ]
    masked, pruned = masked_and_pruned(conv_net(tail=tail), DEAD)
    assert prove(masked, pruned, feeds(masked)).passed
    constant = numpy_helper.from_array(np.zeros(1, np.float32))
    pruned.graph.node.insert(0, helper.make_node("Constant", [], ["more"], value=constant))  # all nodes move by one
    assert prove(masked, pruned, feeds(masked)).passed


@pytest.mark.parametrize(("loud", "passes"), [(60, (True, False)), (0.1, (True, True))])
def test_networks_that_amplify_rounding_get_more_room_up_to_a_limit(loud, passes):
    """exp(z) turns an absolute error of z into a relative one, which is no error of the surgery."""
    top = make_session(conv_net()).run(feeds(conv_net(), 1)[0])["logits"].max()
    tail = [helper.make_node("Mul", ["logits", "loud"], ["z"]), helper.make_node("Exp", ["z"], ["out"])]
    model = conv_net(tail=tail)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(loud / top), "loud"))
    masked, pruned = masked_and_pruned(model, [4])
    for slight, expected in zip((2e-6, 1e-4), passes, strict=True):
        other = with_weights(pruned, w2=weight(pruned, "w2") * np.float32(1 + slight))
        proof = prove(masked, other, feeds(masked, 3))
        assert proof.passed == expected
        assert proof.tolerance <= NOISE_LIMIT


def test_nudging_moves_floats_by_a_few_units_and_leaves_integers():
    feed = {"f": np.full(1000, 1.5, np.float32), "h": np.full(9, 1.5, np.float16), "i": np.arange(3)}
    moved = nudged(feed)
    assert moved["f"].dtype == np.float32
    assert 1 <= np.abs(moved["f"] - 1.5).max() / 2**-23 <= 1.5 * NUDGE
    assert moved["i"] is feed["i"]
    assert nudged(feed)["f"].tolist() == moved["f"].tolist()


# Quantized graphs


def quantized(seed=0):
    """Conv, Relu, QDQ, Conv, QDQ in float with int8 weights, as static quantizers write it."""
    rng = np.random.default_rng(seed)
    weights = {
        "q1": rng.integers(-127, 128, (16, 3, 3, 3)).astype(np.int8),
        "s1": rng.uniform(0.5, 1.5, 16).astype(np.float32) / 127,
        "z1": np.zeros(16, np.int8),
        "q2": rng.integers(-127, 128, (5, 16, 3, 3)).astype(np.int8),
        "s2": np.float32(1 / 127),
        "z2": np.int8(0),
        "sa": np.float32(8 / 255),
        "za": np.uint8(0),
        "so": np.float32(60 / 255),
        "zo": np.uint8(128),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["q1", "s1", "z1"], ["w1"], axis=0),
        helper.make_node("Conv", ["x", "w1"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("QuantizeLinear", ["r1", "sa", "za"], ["qa"]),
        helper.make_node("DequantizeLinear", ["qa", "sa", "za"], ["a"]),
        helper.make_node("DequantizeLinear", ["q2", "s2", "z2"], ["w2"]),
        helper.make_node("Conv", ["a", "w2"], ["c2"]),
        helper.make_node("QuantizeLinear", ["c2", "so", "zo"], ["qo"]),
        helper.make_node("DequantizeLinear", ["qo", "so", "zo"], ["y"]),
    ]
    return build(nodes, [("x", 1, ["N", 3, 9, 9])], [("y", 1, ["N", 5, 5, 5])], weights)


def quantized_pair(dead=(3, 7, 8)):
    model = quantized()
    live = np.setdiff1d(np.arange(16), dead)
    zeroed = weight(model, "q2")
    zeroed[:, list(dead)] = 0
    cut = {n: weight(model, n)[live] for n in ("q1", "s1", "z1")}
    return with_weights(model, q2=zeroed), with_weights(model, **cut, q2=weight(model, "q2")[:, live])


def live(name):
    """Live positions of the inner values of `quantized_pair`, whose first layer loses channels."""
    inner = np.setdiff1d(np.arange(16), [3, 7, 8], assume_unique=True)
    first = np.isin(np.arange(16), inner)
    return (np.ones(1, bool), first, *(np.ones(1, bool),) * 2) if name in ("c1", "r1", "qa", "a") else None


def parts(proof):
    return [c for c in proof.checks if "part by part" in c.where]


def test_a_quantized_cut_is_proven_part_by_part_to_the_last_bits():
    masked, pruned = quantized_pair()
    proof = prove(masked, pruned, feeds(masked), box=live)
    assert proof.passed
    assert {c.name for c in parts(proof)} >= {"r1", "c2", "qa", "qo", "y"}
    assert max(c.error for c in parts(proof) if c.tap and c.name in ("r1", "c2")) < 3e-6


def test_another_zero_point_in_one_of_two_nodes_is_found():
    """Off by a step, which is no more than rounding may do; but not where both are handed the same values."""
    masked, pruned = quantized_pair()
    pruned.graph.initializer.append(numpy_helper.from_array(np.uint8(1), "other"))
    next(n for n in pruned.graph.node if n.output[0] == "a").input[2] = "other"
    proof = prove(masked, pruned, feeds(masked), box=live)
    assert not proof.passed


def test_two_exchanged_scales_are_found_in_a_quantized_graph():
    """An error of the size of the rounding: only what lies in front of the rounding shows it."""
    masked, pruned = quantized_pair()
    scales = weight(pruned, "s1")
    order = np.argsort(scales)
    close = np.argmin(np.diff(scales[order]))
    i, j = order[close], order[close + 1]
    scales[[i, j]] = scales[[j, i]]
    proof = prove(masked, with_weights(pruned, s1=scales), feeds(masked), box=live)
    assert not proof.passed
    assert "r1" in {c.name for c in proof.checks if not c.passed}


def test_heads_in_the_batch_are_handed_over_where_every_batch_lays_them_alike():
    """What one batch of them is cut to does not fit another."""
    model = heads_in_batch(Net(), rounded=True)
    deps = analyse(model)
    (group,) = deps.groups
    dead = deps.dead({group.name: np.array([0, 2])})
    masked, pruned = mask(model, deps, dead), cut(model, deps, dead)
    session = make_session(masked)
    feeds = [{"x": np.random.default_rng(n).standard_normal((n, 5, 6)).astype(np.float32)} for n in (1, 2)]
    trials = [Trial(feed, "", "", session.run(feed)) for feed in feeds]
    points = dict(find_taps(masked).decisions) | dict.fromkeys(find_taps(masked).layers, ())
    one, two, judge = Variant(masked), Variant(pruned), Judge(find_taps(masked), {})
    found = part_by_part(one, two, trials, points, partial(deps.box, dead=dead), make_session, judge)
    assert found
    assert all(c.passed for c in found)


# Where it looks


def names(model):
    return set(find_taps(model).names)


def test_logits_as_output_need_no_taps():
    assert find_taps(conv_net()).names == ()


def test_taps_stand_before_what_saturates_or_decides():
    assert names(loud(conv_net(tail=SOFTMAX))) == {"z"}
    found = find_taps(conv_net(tail=ARGMAX))
    assert found.names == ("logits",)
    assert found.decided == {"out"}
    assert find_taps(loud(conv_net(tail=SOFTMAX))).bounded == {"out"}


def test_taps_are_found_through_what_only_moves_values():
    tail = [
        helper.make_node("Sigmoid", ["logits"], ["s"]),
        helper.make_node("Unsqueeze", ["s", "axes"], ["u"]),
        helper.make_node("Transpose", ["u"], ["out"], perm=[0, 2, 1]),
    ]
    model = conv_net(tail=tail)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    found = find_taps(model)
    assert (found.names, found.bounded) == (("logits",), {"out"})


def test_arithmetic_on_shapes_is_no_decision():
    tail = [
        helper.make_node("Shape", ["logits"], ["s"]),
        helper.make_node("Cast", ["s"], ["sf"], to=TensorProto.FLOAT),
        helper.make_node("Floor", ["sf"], ["fl"]),
        helper.make_node("Cast", ["fl"], ["to"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["logits", "to"], ["out"]),
    ]
    found = find_taps(conv_net(tail=tail))
    assert (found.names, found.decided) == ((), frozenset())


def test_casts_to_integers_decide_and_casts_to_floats_do_not():
    for element, expected in ((TensorProto.INT32, {"out"}), (TensorProto.FLOAT16, set())):
        model = conv_net(tail=[helper.make_node("Cast", ["logits"], ["out"], to=element)])
        assert find_taps(model).decided == expected


def test_quantized_graphs_are_known():
    found = find_taps(quantized())
    assert found.quantized
    assert found.decisions == {"qa": ("r1",), "qo": ("c2",)}
    assert "c2" in found.names
    assert not find_taps(conv_net()).quantized


def branched(squeeze):
    """`out` comes from an If whose branches both end in the same operator on `logits`."""
    branches = []
    for name in ("yes", "no"):
        node = helper.make_node(squeeze, ["logits"], [name])
        branches.append(helper.make_graph([node], name, [], [helper.make_empty_tensor_value_info(name)]))
    node = helper.make_node("If", ["true"], ["out"], then_branch=branches[0], else_branch=branches[1])
    model = conv_net(tail=[node])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    return model


def test_branches_are_walked():
    found = find_taps(branched("Sigmoid"))
    assert (found.names, found.bounded) == (("logits",), {"out"})
    assert find_taps(branched("Floor")).decided == {"out"}
    assert find_taps(branched("Neg")).names == ()


def test_local_functions_are_walked():
    body = [helper.make_node("Sigmoid", ["a"], ["b"])]
    model = conv_net(tail=[helper.make_node("Squeezing", ["logits"], ["out"], domain="own")])
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Squeezing", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert find_taps(model).bounded == {"out"}
    masked, pruned = masked_and_pruned(model, DEAD)
    assert prove(masked, pruned, feeds(masked)).passed


def test_states_of_recurrent_layers_have_an_absolute_error():
    graph = onnx.parser.parse_graph(
        "g (float[3,1,4] x, float[1,8,4] w, float[1,8,2] r) => (float y) "
        "{ h, s, c = LSTM<hidden_size=2>(x, w, r) y = Concat<axis=0>(s, c) }"
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert find_taps(model).bounded == {"y"}
