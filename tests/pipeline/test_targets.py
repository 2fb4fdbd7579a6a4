"""Targets on networks whose layers cannot all be solved again: they are met all the same, and what is not is said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import patterns.quantized  # noqa: F401  (registers its networks)
import pytest
from cli_runs import DIGITS, MIXED, SAMPLE, Runner
from patterns.builder import NONE, PATTERNS, Net
from runtime_models import conv_net

import onnxprune
from onnxprune.pipeline import calibration
from onnxprune.report.terminal import plain

SIDE = (1, 3, 8, 8)


def share(result: onnxprune.Result, kind: str = "macs") -> float:
    return getattr(result.report.after, kind) / getattr(result.report.before, kind)


def reshaped(net: Net) -> str:
    """Two layers whose weights are stored flat, or turned."""
    rng = net.rng
    y = net.relu(net.conv("x", 3, 16, dead=NONE))
    flat = net.tensor(rng.standard_normal((16, 16 * 9)).astype(np.float32) / 12)
    y = net.relu(net.op("Conv", y, net.op("Reshape", flat, net.ints(16, 16, 3, 3)), pads=[1] * 4))
    turned = net.tensor(rng.standard_normal((16, 4, 1, 1)).astype(np.float32) / 4)
    return net.op("Conv", y, net.op("Transpose", turned, perm=[1, 0, 2, 3]))


def branching(net: Net) -> str:
    """A layer before an If, and two in each of its branches, one of which random input does not take."""
    y = net.relu(net.conv("x", 3, 16, dead=NONE))
    bodies = [branch(net, y, seed) for seed in (1, 2)]
    condition = net.op("Less", net.op("ReduceMax", "x", keepdims=0), net.tensor(np.float32(1e6)))
    return net.op("If", condition, then_branch=bodies[0], else_branch=bodies[1])


def branch(net: Net, y: str, seed: int) -> onnx.GraphProto:
    rng = np.random.default_rng(seed)
    shapes = {f"a{seed}": (16, 16, 3, 3), f"b{seed}": (4, 16, 1, 1)}
    weights = [onnx.numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    make, out = onnx.helper.make_node, f"out{seed}"
    nodes = [
        make("Conv", [y, f"a{seed}"], [f"c{seed}"], pads=[1] * 4),
        make("Relu", [f"c{seed}"], [f"r{seed}"]),
        make("Conv", [f"r{seed}", f"b{seed}"], [out]),
    ]
    value = onnx.helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, [1, 4, 8, 8])
    return onnx.helper.make_graph(nodes, "branch", [], [value], weights)


def quantised(net: Net) -> str:
    """Three convolutions in int8, their weights and what is between them dequantised."""
    y = requantised(net, "x")
    for cin, cout in ((3, 16), (16, 16)):
        y = requantised(net, net.relu(net.op("Conv", y, *int8(net, cout, cin), pads=[1] * 4)))
    return requantised(net, net.op("Conv", y, *int8(net, 4, 16), pads=[1] * 4))


def requantised(net: Net, y: str) -> str:
    scale, zero = net.tensor(np.float32(0.04)), net.tensor(np.int8(0))
    return net.op("DequantizeLinear", net.op("QuantizeLinear", y, scale, zero), scale, zero)


def int8(net: Net, cout: int, cin: int) -> tuple[str, str]:
    """Weights and biases of a layer, with the scales that runtimes want."""
    scales = net.rng.uniform(0.002, 0.006, cout).astype(np.float32)
    weights = net.tensor(net.rng.integers(-127, 128, (cout, cin, 3, 3)).astype(np.int8), "w")
    bias = net.tensor(net.rng.integers(-300, 300, cout).astype(np.int32), "bias")
    real = net.op(
        "DequantizeLinear", weights, net.tensor(scales, "scales"), net.tensor(np.zeros(cout, np.int8)), axis=0
    )
    none = net.tensor(np.zeros(cout, np.int32))
    return real, net.op("DequantizeLinear", bias, net.tensor(scales * np.float32(0.04), "scales"), none, axis=0)


@pytest.mark.parametrize("build", [reshaped, branching, quantised], ids=lambda f: f.__name__)
def test_a_target_is_met_whatever_holds_the_weights(build: Callable[[Net], str]) -> None:
    net = Net()
    model = net.model(SIDE, [build(net)], onnx.TensorProto.FLOAT, SIDE)
    result = onnxprune.prune(model, target="macs=0.5", round_to=1, measure=False)
    assert 0.4 < share(result) <= 0.5
    assert not result.report.warnings
    rows = {g.name: g.kept / g.channels for g in result.report.groups}
    assert min(rows.values()) > 0.2, f"all of it came out of one group: {rows}"


@pytest.mark.parametrize("beside", [True, False])
def test_sequences_as_outputs_have_no_say_in_what_goes(beside: bool) -> None:
    """A sequence of what two heads give, beside a tensor or alone."""
    net = Net()
    y = net.relu(net.conv("x", 3, 16, dead=NONE))
    z = net.relu(net.conv(y, 16, 16, dead=NONE))
    heads = [net.conv(y, 16, 2, dead=NONE), net.conv(z, 16, 4, dead=NONE)]
    model = net.model(SIDE, heads[:1], onnx.TensorProto.FLOAT, SIDE)
    model.graph.node.append(onnx.helper.make_node("SequenceConstruct", heads, ["both"]))
    if not beside:
        del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_sequence_value_info("both", onnx.TensorProto.FLOAT, None))
    for compensate in ("none", "lstsq"):
        result = onnxprune.prune(model, target="macs=0.6", compensate=compensate, measure=False)
        assert 0.4 < share(result) <= 0.6


def test_groups_that_no_trial_run_has_seen_do_not_go_for_nothing() -> None:
    net = Net()
    model = net.model(SIDE, [branching(net)], onnx.TensorProto.FLOAT, SIDE)
    result = onnxprune.prune(model, target="params=0.6", round_to=1, measure=False)
    kept = [g.kept for g in result.report.groups]
    assert len(kept) == 3
    assert min(kept) > 3


@pytest.mark.parametrize("target", ["macs=0.5", "params=0.5", "size=0.5", "activations=0.5"])
def test_a_network_without_layers_has_nothing_to_spend(target: str) -> None:
    net = Net()
    model = net.model(SIDE, [net.relu("x")], onnx.TensorProto.FLOAT, SIDE)
    text = plain(onnxprune.prune(model, target=target, measure=False).report)
    assert text.startswith("nothing was removed: no layer of this network has channels that can be removed")


def test_missing_a_target_is_the_first_that_is_said() -> None:
    result = onnxprune.prune(conv_net(16), target="macs=0.1", max_ratio=0.5, compensate="none", measure=False)
    assert share(result) > 0.1
    assert plain(result.report).splitlines()[1].startswith("warning: macs can only go down to")


def test_integer_layers_that_are_not_solved_are_said_first() -> None:
    model = PATTERNS["integer convolutions and additions"].model(2)
    model.opset_import[0].version = 12  # which knows no scale for each channel, to write the layers out with
    text = plain(onnxprune.prune(model, target="macs=0.6", measure=False).report)
    assert text.splitlines()[1].startswith("warning: int8: cut without repair; prune the float model first")


def test_removing_nothing_is_the_first_line_and_a_field_with_the_reason() -> None:
    result = onnxprune.prune(conv_net(16), target="macs=0.5", exclude=["*"], measure=False)
    reason = "of 2 groups that could be cut all stay whole: excluded by '*'"
    assert plain(result.report).splitlines()[0].startswith("nothing was removed: of 2 groups")
    assert result.report.to_json()["nothing_removed"] == reason
    assert (
        onnxprune.prune(conv_net(16), ratio=0.5, compensate="none", measure=False).report.to_json()["nothing_removed"]
        is None
    )


@pytest.mark.parametrize("asked", [0.9, 0.6, 0.4])
@pytest.mark.parametrize("outside", [False, True], ids=["one file", "data file"])
def test_a_size_is_that_of_the_bytes_that_are_written(tmp_path: Path, asked: float, outside: bool) -> None:
    options = {"method": "l2", "round_to": 1, "measure": False, "save_as_external_data": outside}
    onnx.save(conv_net(12), tmp_path / "in.onnx")  # small: names and metadata are a good part of it
    before = (tmp_path / "in.onnx").stat().st_size
    folder = tmp_path / "out"
    folder.mkdir()
    result = onnxprune.prune(tmp_path / "in.onnx", folder / "out.onnx", target=f"size={asked}", **options)
    after = sum(file.stat().st_size for file in folder.iterdir())
    assert after == result.report.after.bytes
    assert (after <= asked * before) != any("size" in warning for warning in result.report.warnings)


def test_a_size_that_the_metadata_would_exceed_is_held(tmp_path: Path) -> None:
    result = onnxprune.prune(MIXED, tmp_path / "out.onnx", target="size=0.6", measure=False)
    assert (tmp_path / "out.onnx").stat().st_size <= 0.6 * MIXED.stat().st_size
    assert not result.report.warnings


@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("asked", [0.85, 0.5, 0.2])
def test_a_cost_is_at_most_what_was_asked(kind: str, asked: float) -> None:
    result = onnxprune.prune(MIXED, target=f"{kind}={asked}", method="l2", compensate="none", measure=False)
    assert share(result, kind) <= asked


SLIPS = {
    "ratio": ({"ratio": 50}, "did you mean 50%?"),
    "target": ({"target": "macs=50"}, "did you mean 50%?"),
    "threshold": ({"threshold": 95}, "did you mean 95%?"),
    "max_drop": ({"max_drop": 5, "data": SAMPLE}, "did you mean 5%?"),
    "max_ratio": ({"ratio": 0.5, "max_ratio": 90}, "did you mean 90%?"),
    "ratio_for": ({"ratio_for": {"a": 30}}, "did you mean 30%?"),
    "no share": ({"ratio": "half"}, "'half'"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_percentage_without_its_sign_is_asked_about(slip: str) -> None:
    options, question = SLIPS[slip]
    with pytest.raises(onnxprune.UsageError) as found:
        onnxprune.prune(DIGITS, **options)
    assert question in str(found.value)


def test_the_command_line_asks_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    run = Runner(capsys)
    for words in (["--max-drop", "5", "--data", SAMPLE], ["--threshold", "95"], ["--target", "macs=50"]):
        outcome = run(DIGITS, "--dry-run", *words)
        assert outcome.code == 2
        assert f"did you mean {str(words[1]).removeprefix('macs=')}%?" in outcome.err


def test_a_drop_in_another_unit_may_be_more_than_one() -> None:
    options = {"max_drop": 3, "data": SAMPLE, "metric": ["snr"]}
    assert onnxprune.prune(DIGITS, method="l2", compensate="none", measure=False, **options).report.metrics


def test_percentages_are_shares() -> None:
    texts, numbers = (onnxprune.prune(conv_net(16), ratio=r, compensate="none", measure=False) for r in ("50%", 0.5))
    assert [g.kept for g in texts.report.groups] == [g.kept for g in numbers.report.groups]
    assert share(onnxprune.prune(conv_net(16), target="macs=50%", measure=False)) <= 0.5


def test_finer_steps_are_proposed_only_where_they_help(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"method": "l2", "compensate": "none", "measure": False}
    wide = onnxprune.prune(conv_net(64), target="macs=0.97", **options)
    assert any("round_to=1 allows" in note for note in wide.report.notes)
    single = onnxprune.prune(conv_net(4), target="macs=0.6", round_to=1, **options)
    assert any("a step of any group back" in note for note in single.report.notes)
    assert not any("round_to" in note for note in single.report.notes)


def test_the_command_line_proposes_in_its_own_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(conv_net(64), tmp_path / "in.onnx")
    words = ["--dry-run", "--no-measure", "--method", "l2", "--compensate", "none", "--target", "macs=0.97"]
    said = " ".join(Runner(capsys)(tmp_path / "in.onnx", *words).out.split())
    assert "--round-to 1 allows finer ones" in said
    assert "round_to" not in said


def test_counts_that_are_no_multiples_are_said() -> None:
    notes = onnxprune.prune(conv_net(6), ratio=0.5, compensate="none", round_to=8, measure=False).report.notes
    assert any(note.startswith("no multiple of 8 is left of") for note in notes)
    unrounded = onnxprune.prune(conv_net(16), ratio=0.5, compensate="none", round_to=1, measure=False)
    assert not any("multiple" in note for note in unrounded.report.notes)


def test_rows_that_the_cut_network_picks_otherwise_are_not_solved_for() -> None:
    """As many pixels as pass a threshold go on through two layers: more or fewer once channels are gone."""
    net = Net()
    y = net.relu(net.conv("x", 3, 16, dead=NONE))
    over = net.op("Greater", net.conv(y, 16, 1, dead=NONE), net.tensor(np.float32(0)))
    places = net.op("Gather", net.op("Transpose", net.op("NonZero", over)), net.ints(0, 2, 3), axis=1)
    rows = net.op("GatherND", net.op("Transpose", y, perm=[0, 2, 3, 1]), places)
    inner = net.relu(net.op("MatMul", rows, net.weight(16, 24)))
    y = net.op("MatMul", inner, net.weight(24, 4))
    graph = onnx.helper.make_graph(
        net.nodes, "rows", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SIDE)],
        [onnx.helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, None)], net.weights,
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", net.opset)], ir_version=8)
    assert onnxprune.prune(model, ratio=0.5, round_to=1, measure=False).report.changed


def cut_to(model: onnx.ModelProto, compensate: str) -> onnxprune.Report:
    return onnxprune.prune(model, target="macs=0.6", round_to=1, compensate=compensate).report


@pytest.mark.parametrize("build", [reshaped, quantised, branching], ids=lambda f: f.__name__)
def test_weights_behind_views_and_scales_and_in_branches_are_solved(build: Callable[[Net], str]) -> None:
    net = Net()
    model = net.model(SIDE, [build(net)], onnx.TensorProto.FLOAT, SIDE)
    solved, alone = (cut_to(model, compensate) for compensate in ("lstsq", "none"))
    assert not any("ranked by weights" in note or "not compensated" in note for note in solved.notes)
    assert solved.drift[0].snr > alone.drift[0].snr + 1  # dB, on random input


def test_a_solved_layer_is_quantised_again_with_scales_of_its_own() -> None:
    net = Net()
    model = net.model(SIDE, [quantised(net)], onnx.TensorProto.FLOAT, SIDE)
    result = onnxprune.prune(model, target="macs=0.6", round_to=1, measure=False).model
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in result.graph.initializer}
    made = {node.output[0]: node for node in result.graph.node}
    for conv in (node for node in result.graph.node if node.op_type == "Conv"):
        x, w, b = (made[name] for name in conv.input)
        assert tensors[w.input[0]].dtype == np.int8
        assert tensors[b.input[0]].dtype == np.int32
        step = tensors[x.input[1]] * tensors[w.input[1]]  # what runtimes take for granted of a bias
        np.testing.assert_allclose(tensors[b.input[1]], step, rtol=1e-5)
    before = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    scales = [name for name in tensors if name.startswith("scales")]
    assert any(tensors[n].shape == before[n].shape and not np.array_equal(tensors[n], before[n]) for n in scales)


def test_integer_layers_are_solved_as_if_they_were_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SAMPLES", 64)  # it is not asked how well
    model, rng = PATTERNS["integer convolutions and additions"].model(2), np.random.default_rng(0)
    for tensor in model.graph.initializer:  # every second channel is dead, and the plain cut exact
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1:
            tensor.raw_data = rng.integers(-90, 90, tensor.dims).astype(np.int8).tobytes()
    result = onnxprune.prune(model, target="macs=0.6", round_to=1, measure=False)
    assert not any("ranked by weights" in note or "not compensated" in note for note in result.report.notes)
    assert {node.op_type for node in result.model.graph.node} == {node.op_type for node in model.graph.node}
    assert {t.name for t in result.model.graph.initializer} <= {t.name for t in model.graph.initializer}
    assert any(note.startswith("lstsq changed") for note in result.report.notes), result.report.warnings


def test_a_quantised_network_that_was_solved_is_proven_again_from_its_files(tmp_path: Path) -> None:
    net = Net()
    model = net.model(SIDE, [quantised(net)], onnx.TensorProto.FLOAT, SIDE)
    onnx.save(model, tmp_path / "in.onnx")
    result = onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", target="macs=0.6", measure=False)
    result.plan.save(tmp_path / "plan.json")
    assert onnxprune.verify(tmp_path / "in.onnx", tmp_path / "out.onnx", tmp_path / "plan.json").passed
