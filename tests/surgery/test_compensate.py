"""Compensation where the outcome is known: what is redundant leaves without a trace."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.channels import analyse
from onnxprune.model.network import Network
from onnxprune.runtime.session import make_session
from onnxprune.surgery.compensate import COMPENSATIONS, compensate
from onnxprune.surgery.recovery.loss_curves import TOGETHER, repair_curves
from onnxprune.surgery.recovery.lstsq import Lstsq
from onnxprune.surgery.recovery.solve import Goal, fit
from onnxprune.surgery.rewrite import cut, mask

RECOVERING = ["merge", "ridge", "fold", "lstsq"]
HALF = 4  # channels that are no copies, in each planted layer


class Net:
    """A small graph under construction; weights are seeded."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def tensor(self, name: str, array: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def op(self, kind: str, *inputs: str, out: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def planted(
        self, outputs: int, inputs: int, kernel: tuple[int, ...], scales: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Filters and biases of which the second half is the first half times `scales`."""
        first = self.rng.normal(size=(outputs // 2, inputs, *kernel))
        bias = self.rng.normal(size=outputs // 2) * 0.3
        spread = scales.reshape(-1, *[1] * (first.ndim - 1))
        return np.concatenate([first, spread * first]), np.concatenate([bias, scales * bias])

    def model(self, x: tuple[int, ...], out: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, "net",
            [helper.make_tensor_value_info("x", 1, ["n", *x])],
            [helper.make_tensor_value_info(out, 1, None)], self.tensors,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ONES, SCALED = np.ones(HALF), np.array([0.5, 2.0, 1.5, 0.25])


def plain(scales: np.ndarray) -> onnx.ModelProto:
    net = Net()
    w, b = net.planted(8, 3, (3, 3), scales)
    net.op("Conv", "x", net.tensor("w1", w), net.tensor("b1", b), out="c1", pads=[1] * 4)
    net.op("Relu", "c1", out="r1")
    net.op("Conv", "r1", net.tensor("w2", net.rng.normal(size=(5, 8, 3, 3))), out="y", pads=[1] * 4)
    return net.model((3, 9, 9), "y")


def normalised(scales: np.ndarray) -> onnx.ModelProto:
    """BatchNormalization unfused: copies differ in the size of the filter, which γ, mean and variance undo or keep."""
    net = Net(1)
    w, _ = net.planted(8, 3, (3, 3), scales)
    gamma, beta, mean = net.rng.uniform(0.5, 1.5, HALF), net.rng.normal(size=HALF), net.rng.normal(size=HALF)
    var = net.rng.uniform(0.5, 2, HALF)
    net.op("Conv", "x", net.tensor("w1", w), out="c1", pads=[1] * 4)
    both = [
        np.concatenate([gamma, gamma * scales]),
        np.concatenate([beta, beta * scales]),
        np.concatenate([mean, mean * scales]),
        np.concatenate([var, (var + 1e-5) * scales**2 - 1e-5]),
    ]
    names = [net.tensor(n, a) for n, a in zip(["g", "be", "m", "v"], both, strict=True)]
    net.op("BatchNormalization", "c1", *names, out="bn", epsilon=1e-5)
    net.op("Relu", "bn", out="r1")
    net.op("Conv", "r1", net.tensor("w2", net.rng.normal(size=(5, 8, 1, 1))), out="y")
    return net.model((3, 9, 9), "y")


def flattened(scales: np.ndarray) -> onnx.ModelProto:
    net = Net(2)
    w, b = net.planted(8, 3, (3, 3), scales)
    net.op("Conv", "x", net.tensor("w1", w), net.tensor("b1", b), out="c1")
    net.op("Relu", "c1", out="r1")
    net.op("MaxPool", "r1", out="p1", kernel_shape=[2, 2], strides=[2, 2])
    net.op("Flatten", "p1", out="f")
    net.op(
        "Gemm", "f", net.tensor("w2", net.rng.normal(size=(6, 8 * 9))), net.tensor("b2", np.zeros(6)), out="y", transB=1
    )
    return net.model((3, 8, 8), "y")


def concatenated(scales: np.ndarray) -> onnx.ModelProto:
    net = Net(3)
    for k in "ab":
        w, b = net.planted(8, 3, (3, 3), scales)
        net.op("Conv", "x", net.tensor("w" + k, w), net.tensor("b" + k, b), out="c" + k, pads=[1] * 4)
        net.op("Relu", "c" + k, out="r" + k)
    net.op("Concat", "ra", "rb", out="cat", axis=1)
    net.op("Conv", "cat", net.tensor("w2", net.rng.normal(size=(5, 16, 3, 3))), out="y")
    return net.model((3, 9, 9), "y")


def depthwise(scales: np.ndarray) -> onnx.ModelProto:
    net = Net(4)
    w, b = net.planted(8, 3, (1, 1), scales)
    net.op("Conv", "x", net.tensor("w1", w), net.tensor("b1", b), out="c1")
    net.op("Relu", "c1", out="r1")
    half = net.rng.normal(size=(HALF, 1, 3, 3))
    net.op("Conv", "r1", net.tensor("wd", np.concatenate([half, half])), out="d", group=8, pads=[1] * 4)
    net.op("Relu", "d", out="rd")
    net.op("Conv", "rd", net.tensor("w2", net.rng.normal(size=(5, 8, 1, 1))), out="y")
    return net.model((3, 9, 9), "y")


def mlp(scales: np.ndarray, features: int = 12) -> onnx.ModelProto:
    net = Net(5)
    w, b = net.planted(8, features, (), scales)
    net.op("MatMul", "x", net.tensor("w1", w.T), out="m1")
    net.op("Add", "m1", net.tensor("b1", b), out="a1")
    net.op("Relu", "a1", out="r1")
    net.op("MatMul", "r1", net.tensor("w2", net.rng.normal(size=(8, 5))), out="y")
    return net.model((features,), "y")


def upsampled(scales: np.ndarray) -> onnx.ModelProto:
    net = Net(6)
    w, b = net.planted(8, 3, (3, 3), scales)
    net.op("Conv", "x", net.tensor("w1", w), net.tensor("b1", b), out="c1", pads=[1] * 4)
    net.op("Relu", "c1", out="r1")
    weights = net.tensor("w2", net.rng.normal(size=(8, 5, 4, 4)))
    net.op("ConvTranspose", "r1", weights, out="y", strides=[2, 2], pads=[1] * 4)
    return net.model((3, 6, 6), "y")


def recurrent(kind: str, gates: int) -> Callable[[np.ndarray], onnx.ModelProto]:
    """Samples are steps of a sequence; both directions read the planted channels, and only the last state is used."""

    def build(scales: np.ndarray) -> onnx.ModelProto:
        net = Net(9)
        w, b = net.planted(8, 6, (), scales)
        net.op("MatMul", "x", net.tensor("w1", w.T), out="m1")
        net.op("Add", "m1", net.tensor("b1", b), out="a1")
        net.op("Relu", "a1", out="r1")
        wide, hidden = net.rng.normal(size=(2, gates * 5, 8)), net.rng.normal(size=(2, gates * 5, 5))
        names = [net.tensor("wl", 0.3 * wide), net.tensor("rl", 0.3 * hidden)]
        names += [net.tensor("bl", net.rng.normal(size=(2, 2 * gates * 5)))] if kind != "RNN" else []
        net.nodes.append(
            helper.make_node(kind, ["r1", *names], ["", "h"], name=kind, hidden_size=5, direction="bidirectional")
        )
        net.op("Identity", "h", out="y")
        return net.model((4, 6), "y")

    return build


NETS: dict[str, Callable[[np.ndarray], onnx.ModelProto]] = {
    f.__name__: f for f in (plain, normalised, flattened, concatenated, depthwise, mlp, upsampled)
}
NETS |= {kind: recurrent(kind, gates) for kind, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))}


def feeds_of(model: onnx.ModelProto, count: int = 256, batch: int = 64, seed: int = 5) -> list[dict[str, np.ndarray]]:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(batch, *shape)).astype(np.float32)} for _ in range(count // batch)]


def error(model: onnx.ModelProto, other: onnx.ModelProto) -> float:
    """Largest difference of the outputs as a share of the largest output."""
    feed = feeds_of(model, 16, 16, seed=9)[0]
    a, b = (make_session(m, providers="cpu", threads=1).run(feed)["y"] for m in (model, other))
    return float(np.abs(a - b).max() / np.abs(a).max())


def without_copies(model: onnx.ModelProto, name: str, **options: object) -> tuple[float, float, float]:
    """Errors of the compensated network and of the plain cut, and of the cut against the mask."""
    deps = analyse(model)
    kept = {g.name: np.arange(HALF) for g in deps.groups if len(g) == 8}
    assert kept
    done = compensate(
        name, Network.of(model), deps, kept, analyse=analyse, feeds=feeds_of(model), options=replace(Lstsq(), **options)
    )
    dead = done.deps.dead(kept)
    small = cut(done.model, done.deps, dead)
    plain_cut = cut(model, deps, deps.dead(kept))
    return error(model, small), error(model, plain_cut), error(mask(done.model, done.deps, dead), small)


@pytest.mark.parametrize("scales", [ONES, SCALED], ids=["copies", "scaled"])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", RECOVERING)
def test_planted_copies_leave_without_a_trace(name: str, net: str, scales: np.ndarray) -> None:
    options = {"ridge": 1e-7} if name == "lstsq" else {}
    after, plain_cut, surgery = without_copies(NETS[net](scales), name, **options)
    assert plain_cut > 0.1
    assert surgery < 1e-5
    assert after < 2e-3


def test_least_squares_finds_what_channels_of_other_shapes_can_give() -> None:
    """A linear network of rank 4 in 8 channels: any 4 of them can do all, though no two filters are alike."""
    net = Net(7)
    basis = net.rng.normal(size=(4, 3, 1, 1))
    mix = net.rng.normal(size=(8, 4))
    net.op("Conv", "x", net.tensor("w1", np.tensordot(mix, basis, 1)), out="c1")
    net.op("Conv", "c1", net.tensor("w2", net.rng.normal(size=(5, 8, 3, 3))), out="y")
    model = net.model((3, 9, 9), "y")
    after, plain_cut, _ = without_copies(model, "lstsq", ridge=1e-8)
    assert plain_cut > 0.1
    assert after < 1e-3


def test_the_stream_makes_up_for_what_a_block_lost() -> None:
    """The layer behind an Add is the only one that can repair; the target is the sum."""
    net = Net(8)
    w, b = net.planted(8, 4, (3, 3), ONES)
    net.op("Conv", "x", net.tensor("w0", net.rng.normal(size=(4, 3, 1, 1))), out="s")
    net.op("Conv", "s", net.tensor("w1", w), net.tensor("b1", b), out="c1", pads=[1] * 4)
    net.op("Relu", "c1", out="r1")
    net.op("Conv", "r1", net.tensor("w2", net.rng.normal(size=(4, 8, 3, 3))), out="c2", pads=[1] * 4)
    net.op("Add", "c2", "s", out="y")
    after, plain_cut, surgery = without_copies(net.model((3, 9, 9), "y"), "lstsq", ridge=1e-7)
    assert plain_cut > 0.1
    assert surgery < 1e-5
    assert after < 2e-3


def test_only_what_a_removed_channel_touches_changes() -> None:
    net = Net()
    w, b = net.planted(8, 5, (3, 3), ONES)
    net.op("Conv", "x", net.tensor("w0", net.rng.normal(size=(5, 3, 3, 3))), net.tensor("b0", np.ones(5)), out="c0")
    net.op("Relu", "c0", out="r0")
    net.op("Conv", "r0", net.tensor("w1", w), net.tensor("b1", b), out="c1", pads=[1] * 4)
    net.op("Tanh", "c1", out="r1")
    net.op("Conv", "r1", net.tensor("w2", net.rng.normal(size=(5, 8, 3, 3))), out="y", pads=[1] * 4)
    model = net.model((3, 9, 9), "y")
    deps = analyse(model)
    name = next(g.name for g in deps.groups if len(g) == 8)
    done = compensate("lstsq", Network.of(model), deps, {name: np.arange(4)}, analyse=analyse, feeds=feeds_of(model))
    before = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in done.model.proto().graph.initializer}
    assert all(np.array_equal(before[key], after[key]) for key in ("w0", "b0", "w1", "b1"))
    assert not np.array_equal(before["w2"], after["w2"])
    assert set(after) - set(before) == {"y.bias"}


@pytest.mark.parametrize("kind", ["If", "Loop"])
def test_layers_in_branches_are_solved_and_those_in_loops_named_as_left_alone(kind: str) -> None:
    net = Net(10)
    w, b = net.planted(8, 3, (3, 3), ONES)
    net.op("Conv", "x", net.tensor("w1", w), net.tensor("b1", b), out="c1")
    net.op("Relu", "c1", out="r1")
    net.op("ReduceMax", "x", out="most", keepdims=0)
    net.op("Greater", "most", net.tensor("zero", np.zeros(())), out="which")
    bodies = {}
    for name in ("then_branch", "else_branch"):
        inner = Net(11)
        inner.op("Conv", "r1", inner.tensor("w" + name, inner.rng.normal(size=(5, 8, 1, 1))), out="c" + name)
        value = helper.make_tensor_value_info("c" + name, 1, None)
        bodies[name] = helper.make_graph(inner.nodes, name, [], [value], inner.tensors)
    if kind == "If":
        net.op("If", "which", out="y", **bodies)
    else:
        body = bodies["then_branch"]
        body.input.extend([helper.make_tensor_value_info("k", 7, []), helper.make_tensor_value_info("on", 9, [])])
        body.node.append(helper.make_node("Identity", ["on"], ["still"]))
        body.output.insert(0, helper.make_tensor_value_info("still", 9, []))
        net.tensors.append(numpy_helper.from_array(np.array(2, np.int64), "two"))
        net.op("Loop", "two", "which", out="y", body=body)
    model = net.model((3, 9, 9), "y")
    deps = analyse(model)
    kept = {deps.groups[0].name: np.arange(HALF)}
    done = compensate("lstsq", Network.of(model), deps, kept, analyse=analyse, feeds=feeds_of(model))
    if kind == "If":
        assert set(done.changed) >= {"y.then_branch/wthen_branch", "y.else_branch/welse_branch"}
    else:
        assert done.alone["y"].startswith("layers in a body are not solved for")


def test_copies_leave_first_and_cost_nothing() -> None:
    model = plain(ONES)
    deps = analyse(model)
    (curve,) = repair_curves(Network.of(model), deps, [g.name for g in deps.groups], feeds_of(model)).values()
    assert sorted(c % HALF for c in curve.order[:HALF]) == [0, 1, 2, 3]
    assert curve.loss.shape == (9,)
    assert curve.loss[0] == 0
    assert curve.loss[HALF] < 0.01 * curve.loss[7]
    assert (np.diff(curve.loss) >= 0).all()


BETWEEN = {
    "convolutions": (plain, True),
    "matrices": (mlp, True),
    "more channels than features": (partial(mlp, features=5), False),
    "a pooling between": (flattened, False),
}


@pytest.mark.parametrize("case", BETWEEN)
def test_channels_between_layers_that_are_solved_together_cost_less(case: str) -> None:
    build, between = BETWEEN[case]
    model = build(2 * ONES)
    deps, losses = analyse(model), []
    for together in (False, True):
        names, feeds = [g.name for g in deps.groups], feeds_of(model)
        (curve,) = repair_curves(Network.of(model), deps, names, feeds, together=together).values()
        losses.append(curve.loss)
    assert losses[1] == pytest.approx(losses[0] * (TOGETHER if between else 1))


@pytest.mark.parametrize("rows", [12, 80], ids=["fewer rows than features", "more"])
def test_ridge_regression_solves_its_normal_equations(rows: int) -> None:
    rng = np.random.default_rng(rows)
    columns, wanted = rng.normal(1, 1, (30, rows)).astype(np.float32), rng.normal(2, 1, (4, rows))
    prior, strength = rng.normal(size=(4, 30)), 0.1
    goal = Goal.of(wanted.astype(np.float32), np.ones(4))
    weights, bias = fit(columns.copy(), goal, prior, np.zeros(4), ridge=strength, rounds=1)
    x, y = (a - a.mean(axis=1, keepdims=True) for a in (columns.astype(float), wanted))
    pull = strength * np.trace(x @ x.T) / 30 * np.eye(30)
    exact = np.linalg.solve(x @ x.T + pull, (y @ x.T + prior @ pull).T).T
    assert np.allclose(weights, exact, atol=1e-4)
    assert np.allclose(weights @ columns.mean(axis=1) + bias, wanted.mean(axis=1), atol=1e-4)


def test_features_that_are_one_number_each_leave_the_bias_to_be_solved_for() -> None:
    columns = np.repeat(np.array([[3], [0.1], [-7]], np.float32), 1000, axis=1)
    columns *= 1 + np.random.default_rng(0).normal(0, 1e-7, columns.shape).astype(np.float32)  # rounding
    wanted, prior = np.repeat(np.array([[2], [5]], np.float32), 1000, axis=1), np.ones((2, 3))
    weights, bias = fit(columns.copy(), Goal.of(wanted, np.ones(2)), prior, np.zeros(2), ridge=1e-3, rounds=1)
    assert (weights == prior).all()
    assert np.allclose(weights @ columns.mean(axis=1) + bias, [2, 5], atol=1e-5)


def test_the_mean_of_what_is_lost_goes_into_the_bias() -> None:
    """Behind a BatchNormalization of normal numbers the mean of a rectified channel is known in closed form."""
    net = Net(12)
    filters = net.rng.normal(size=(8, 3, 1, 1))
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)  # of normal input they give normal output, variance 1
    net.op("Conv", "x", net.tensor("w1", filters), out="c1")
    ones, beta = np.ones(8), net.rng.normal(size=8)
    names = [net.tensor(n, a) for n, a in zip("gbmv", (ones, beta, 0 * ones, ones), strict=True)]
    net.op("BatchNormalization", "c1", *names, out="n1")
    net.op("Relu", "n1", out="r1")
    net.op("Conv", "r1", net.tensor("w2", net.rng.normal(size=(5, 8, 1, 1))), out="y")
    model = net.model((3, 40, 40), "y")
    deps, feed = analyse(model), feeds_of(model, 64, 64)[0]
    kept = {deps.groups[0].name: np.arange(HALF)}
    done = compensate("mean", Network.of(model), deps, kept, analyse=analyse)
    both = (cut(model, deps, deps.dead(kept)), cut(done.model, done.deps, done.deps.dead(kept)))
    before, plain_cut, after = (make_session(m).run(feed)["y"].mean(axis=(0, 2, 3)) for m in (model, *both))
    assert np.abs(before - plain_cut).max() > 0.5
    assert np.abs(before - after).max() < 0.02


def test_without_an_unfused_normalisation_there_is_no_mean_to_take() -> None:
    model = plain(ONES)
    deps = analyse(model)
    done = compensate("mean", Network.of(model), deps, {deps.groups[0].name: np.arange(HALF)}, analyse=analyse)
    assert not done.changed
    assert "BatchNormalization" in done.alone[deps.groups[0].name]


def test_every_row_of_the_table_is_tested() -> None:
    assert set(COMPENSATIONS) == {"none", "mean", *RECOVERING}
