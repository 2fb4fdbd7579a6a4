"""Lossless runs: whole networks, patterns, random networks, the command, its plans and its failures."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_runs import MODELS, SHARED, Runner
from hypothesis import given
from hypothesis import strategies as st
from law import agree
from law import run as outputs_of
from onnx import numpy_helper
from other_sizes import assert_same
from patterns.builder import PATTERNS
from planted import Net, plant, spoiled
from random_networks import networks

import onnxprune
from onnxprune.channels import analyse
from onnxprune.errors import CheckFailed, UsageError
from onnxprune.lossless import fixpoint, redundancy
from onnxprune.model.network import Network
from onnxprune.operators.roles import Role
from onnxprune.surgery.rewrite import cut

SIDE = 8
SLICE = 1e-4  # the largest error that rounding may leave, as a share of one channel of the output

# --- whole networks ----------------------------------------------------------


@pytest.mark.parametrize("name", ["digits_cnn", "digits_mixed", "mnist_cnn", "fashion_mnist_cnn"])
def test_all_that_is_planted_in_a_trained_network_goes_and_nothing_else(name: str, tmp_path: Path) -> None:
    original = onnx.load(MODELS / f"{name}.onnx")
    assert not onnxprune.prune(original, lossless=True, measure=False).report.changed
    model, zeros, copies = plant(original, analyse(original))
    result = onnxprune.prune(model, tmp_path / "out.onnx", lossless=True)
    assert sum(result.report.removed.values()) == zeros + copies
    assert result.report.removed["duplicate"] == copies
    assert result.report.proof_error is not None
    assert result.report.proof_error < SLICE
    assert result.report.after.macs < result.report.before.macs


@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder ../shared/models here")
def test_what_is_planted_in_the_branches_of_a_trained_network_goes() -> None:
    network = Network.of(onnx.load(SHARED / "silero_vad.onnx"))
    deps, arrays, planted = analyse(network), dict[str, np.ndarray](), 0
    for group in deps.groups:
        assert any("_branch/" in slot.source for slot in group.slots)
        dead = np.random.default_rng(0).permutation(len(group))[: len(group) // 4]
        planted += dead.size
        for slot in (s for s in group.slots if s.role & (Role.WRITE | Role.ADD)):
            array = arrays.setdefault(slot.source, network.array(slot.source).copy())
            array[(*(slice(None),) * slot.axis, slot.positions[dead])] = 0
    assert not onnxprune.prune(network.proto(), lossless=True, measure=False).report.changed
    result = onnxprune.prune(network.with_tensors(arrays).proto(), lossless=True, measure=False)
    assert sum(result.report.removed.values()) == planted == 240


@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder ../shared/models here")
def test_what_rounding_moves_that_far_is_no_wrong_fact() -> None:
    """A detector of text under 0..255 in place of its own range: other last bits of its weights move it by 0.002."""
    trained = onnx.load(SHARED / "ppocr_v3_det.onnx")
    constants = [node for node in trained.graph.node if node.op_type == "Constant" and node.attribute[0].t.dims]
    for node in constants:
        trained.graph.node.remove(node)
        trained.graph.initializer.add().CopyFrom(node.attribute[0].t)
        trained.graph.initializer[-1].name = node.output[0]
    model, zeros, copies = plant(trained, analyse(trained, input_shapes={"x": (1, 3, 64, 64)}), 0.05)
    result = onnxprune.prune(model, lossless=True, input_shapes={"x": (1, 3, 64, 64)}, measure=False)
    assert sum(result.report.removed.values()) == zeros + copies
    names = [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim if d.dim_param]
    sizes = [dict(zip(names, size, strict=True)) for size in ((1, 64, 64), (2, 96, 128), (3, 160, 64))]
    assert_same(model, result.model, sizes, chaotic=True)


@pytest.mark.parametrize(("constant", "removed"), [(0.7, 1), (1e-4, 2)])
def test_a_norm_over_a_map_of_any_size_makes_something_of_rounding(constant: float, removed: int) -> None:
    """Behind a mean of 1,665 times 0.7 it leaves 3e-4 of a constant: that is no fact for every size."""
    net = Net(1)
    weights, bias = net.filters(8, 3, 1, 1, zero=(0, 5)), net.filters(8, low=0.2)
    bias[[0, 5]] = 0, constant
    y = net.op("Conv", "x", net.tensor(weights), net.tensor(bias))
    y = net.op("InstanceNormalization", y, net.tensor(net.filters(8, low=0.5)), net.tensor(net.filters(8, low=-0.5)))
    model = net.model(net.conv(y, 8, 5), 3, "h", "w")
    result = onnxprune.prune(model, lossless=True, measure=False, input_shapes={"x": (1, 3, 8, 8)})
    assert sum(result.report.removed.values()) == removed


def test_nothing_to_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.onnx"
    outcome = Runner(capsys)(MODELS / "digits_cnn.onnx", out, "--lossless", "--no-measure")
    assert outcome.code == 0
    assert "nothing was removed: every channel of the 5 groups that could be cut has a part" in outcome.out
    assert out.read_bytes() == (MODELS / "digits_cnn.onnx").read_bytes()
    assert Runner(capsys)(MODELS / "digits_cnn.onnx", out, "--lossless", "--strict").code == 1


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """A network with three dead channels and a copy."""
    net = Net(22)
    w = net.filters(16, 3, 3, 3, zero=(1, 2, 6))
    w[9] = w[4]
    y = net.op(
        "Relu",
        net.op(
            "Conv",
            "x",
            net.tensor(w),
            net.tensor(np.full(16, 0.25)),
        ),
    )
    onnx.save(net.model(net.conv(y, 16, 5, 3), 3, 9, 9), tmp_path / "dead.onnx")
    return tmp_path / "dead.onnx"


def test_the_command(dead: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out, plan = Runner(capsys), dead.with_name("out.onnx"), dead.with_name("plan.json")
    outcome = run(dead, out, "--lossless", "--plan-out", plan, "--json", "--no-measure")
    assert outcome.code == 0
    assert outcome.json["removed"] == {"dead": 3, "duplicate": 1}
    assert outcome.json["after"]["macs"] < outcome.json["before"]["macs"]
    assert json.loads(plan.read_text())["options"]["lossless"] is True
    shown = run(dead, out, "--lossless", "--no-measure").out
    assert "removed 4 channels: 3 dead (the same number for every input); 1 copies or multiples of others" in " ".join(
        shown.split()
    )
    assert "original and pruned model are equal up to rounding" in " ".join(shown.split())


def test_a_plan_is_repeated_and_proven_against_the_original(dead: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out, again, plan = Runner(capsys), *(dead.with_name(n) for n in ("out.onnx", "again.onnx", "plan.json"))
    assert run(dead, out, "--lossless", "--plan-out", plan, "--no-measure").code == 0
    assert run("apply", dead, again, "--plan", plan, "--no-measure").code == 0
    assert again.read_bytes() == out.read_bytes()
    assert run("verify", dead, out, "--plan", plan).code == 0
    changed = onnx.load(dead)
    array = numpy_helper.to_array(changed.graph.initializer[0]).copy()
    array[2] = 1
    changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "t0"))
    onnx.save(changed, dead.with_name("other.onnx"))
    outcome = run("apply", dead.with_name("other.onnx"), dead.with_name("third.onnx"), "--plan", plan)
    assert outcome.code == 1
    assert "this network needs 1 of the channels" in outcome.err
    assert not dead.with_name("third.onnx").exists()
    assert run("verify", dead.with_name("other.onnx"), out, "--plan", plan).code == 1


def test_nothing_is_written_where_the_output_changes(
    dead: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = fixpoint.changed
    monkeypatch.setattr(
        fixpoint, "changed", lambda *given: {k: v * 1.001 if v.ndim == 1 else v for k, v in right(*given).items()}
    )
    outcome = Runner(capsys)(dead, dead.with_name("out.onnx"), "--lossless")
    assert outcome.code == 1
    assert "the pruned model does not give what the original gives" in outcome.err
    assert not dead.with_name("out.onnx").exists()


def test_options(dead: Path) -> None:
    assert sum(onnxprune.prune(dead, lossless=True, measure=False, round_to=8).report.removed.values()) == 0
    assert not onnxprune.prune(dead, lossless=True, measure=False, exclude=["t0"]).report.changed
    for wrong in ({"ratio": 0.5}, {"method": "l2"}, {"compensate": "fold"}, {"ratio_for": {"t*": 0.5}}, {"thaw": True}):
        with pytest.raises(UsageError):
            onnxprune.prune(dead, lossless=True, **wrong)


def test_the_same_bytes_every_time(dead: Path) -> None:
    first, second = (onnxprune.prune(dead, lossless=True, measure=False).model.SerializeToString() for _ in range(2))
    assert first == second
    with pytest.raises(CheckFailed):
        onnxprune.prune(MODELS / "digits_cnn.onnx", lossless=True, strict=True, measure=False)


# --- patterns, random networks, networks from the wild -----------------------

LOOKED_AROUND = {"samples counted from samples and heads (BLOOM)"}  # which open sizes are divided by


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_the_dead_half_of_every_pattern_goes(name: str) -> None:
    pattern = PATTERNS[name]
    model = pattern.model(2)
    deps = analyse(model, input_shapes={"x": pattern.run})
    found = redundancy(Network.of(model), deps, analyse=lambda m: analyse(m, input_shapes={"x": pattern.run}))
    small = cut(found.model, found.deps, found.deps.dead(found.kept))
    x = np.random.default_rng(0).normal(size=pattern.run)
    feed = {"x": (np.abs(3 * x) if pattern.kind != 1 else x).astype(onnx.helper.tensor_dtype_to_np_dtype(pattern.kind))}
    for before, after in zip(outputs_of(model, feed), outputs_of(small, feed), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * np.abs(before).max())
    half = {g.name: len(g) // 2 for g in deps.groups}
    left = {g.name: len(found.kept.get(g.name, range(len(g)))) for g in deps.groups}
    assert (left == half or sum(left.values()) <= sum(half.values())) == (name not in LOOKED_AROUND)


def test_dead_channels_in_front_of_a_loop_that_counts_in_scalars() -> None:
    """The two become copies of each other in its rounds; the types that it declares are no channels."""
    body = onnx.parser.parse_graph(
        "body (int64 i, bool go, float[N,8,H,W] sum, float step) => (bool on, float[N,8,H,W] more, float half)"
        "{ on = Identity(go) more = Add(sum, step) half = Mul(step, by) }"
    )
    rng, make = np.random.default_rng(0), onnx.helper.make_node
    w, v = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 3, 3, 3), (4, 8, 1, 1)))
    w[[1, 4]] = 0
    nodes = [
        make("Conv", ["x", "w"], ["c"]),
        make("Relu", ["c"], ["r"]),
        make("Loop", ["rounds", "", "r", "by"], ["l", "last"], body=body),
        make("Conv", ["l", "v"], ["y"]),
    ]
    values = {"w": w, "v": v, "rounds": np.array(3), "by": np.array(0.5, np.float32)}
    x, y = (onnx.helper.make_tensor_value_info(n, 1, ["N", c, "H", "W"]) for n, c in (("x", 3), ("y", 4)))
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(a, n) for n, a in values.items()])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    assert onnxprune.prune(model, lossless=True, measure=False).report.removed == {"duplicate": 1}


def test_a_convolution_over_no_channels_is_left_alone() -> None:
    graph = "g (float[1,0,8,8] x) => (float[1,1,8,8] y) <float[4,0,1,1] w = {}, float[1,4,1,1] v = {1, 2, 3, 4}>"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> {graph} {{ c = Conv(x, w) y = Conv(c, v) }}'
    )
    result = onnxprune.prune(model, lossless=True, verify=False, measure=False)
    assert len(result.model.graph.initializer) == len(model.graph.initializer)


@given(networks(SIDE), st.integers(0, 99))
def test_random_networks_give_what_they_gave(model: onnx.ModelProto, seed: int) -> None:
    model = spoiled(model, seed)
    found = redundancy(Network.of(model), analyse(model), analyse=analyse)
    small = cut(found.model, found.deps, found.deps.dead(found.kept))
    onnx.checker.check_model(small)
    dynamic = not model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    for batch, side in [(2, SIDE), (3, SIDE + 4 if dynamic else SIDE)]:
        x = {"x": np.random.default_rng(seed).normal(size=(batch, 3, side, side)).astype(np.float32)}
        for value, a, b in zip(model.graph.output, outputs_of(model, x), outputs_of(small, x), strict=True):
            agree(value.name, a, b, 1e-3)


WILD = {  # what exporters and training have left behind
    "hand_landmark_mediapipe": {"dead": 525},
    "mlperf_resnet_large_cifar10_float": {"duplicate": 17},
    "mobilefacenet": {"dead": 155},
    "mobilenet_v2_int8_qdq": {"dead": 13},
    "superres_core_reshape_pixelshuffle": {"ignored": 1},
    "resnet20_cifar10_batchnorm": {},
    "resnet20_cifar10_dynamo": {},
    "vnn_vit_pgd_2_3_16": {},
}


@pytest.mark.parametrize("name", WILD)
def test_networks_from_the_wild(name: str) -> None:
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} lies beside the project and is absent")
    assert dict(onnxprune.prune(path, lossless=True, measure=False).report.removed) == WILD[name]
