"""Thawed statistics: norms over channels are computed over those that stay, and the report says where."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import rotatable
from cli_runs import SHARED, Runner
from law import run as outputs_of
from onnx import helper
from planted import Net

import onnxprune
from onnxprune.channels import analyse
from onnxprune.errors import UsageError
from onnxprune.surgery import cut

WIDTH, TOKENS = 16, 5


def model_of(net: Net, y: str, *shape: int, opset: int = 23, contrib: bool = False) -> onnx.ModelProto:
    model = net.model(y, *shape, opset=opset)
    if contrib:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def layer_norm(net: Net, x: str) -> str:
    return net.op("LayerNormalization", x, net.tensor(net.filters(WIDTH, low=0.5)), net.tensor(net.filters(WIDTH)))


def rms_norm(net: Net, x: str) -> str:
    return net.op("RMSNormalization", x, net.tensor(net.filters(WIDTH, low=0.5)))


def by_hand(net: Net, x: str) -> str:
    """LayerNormalization as exporters wrote it before opset 17."""
    axes = net.ints(-1)
    apart = net.op("Sub", x, net.op("ReduceMean", x, axes))
    spread = net.op("ReduceMean", net.op("Mul", apart, apart), axes)
    y = net.op("Div", apart, net.op("Sqrt", net.op("Add", spread, net.tensor(np.array(1e-5)))))
    return net.op("Add", net.op("Mul", y, net.tensor(net.filters(WIDTH, low=0.5))), net.tensor(net.filters(WIDTH)))


def rms_by_hand(net: Net, x: str) -> str:
    square = net.op("ReduceMean", net.op("Pow", x, net.tensor(np.array(2.0))), net.ints(-1))
    root = net.op("Sqrt", net.op("Add", square, net.tensor(np.array(1e-5))))
    return net.op("Mul", net.op("Div", x, root), net.tensor(net.filters(WIDTH, low=0.5)))


def unit_length(net: Net, x: str) -> str:
    return net.op("LpNormalization", x, axis=-1)


def gate(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Softmax", x))


def response(net: Net, x: str) -> str:
    """Lengths over all tokens, relative to their mean over the channels (GRN)."""
    length = net.op("ReduceL2", x, net.ints(1))
    mean = net.op("Add", net.op("ReduceMean", length, net.ints(-1)), net.tensor(np.array(1e-5)))
    return net.op("Mul", x, net.op("Div", length, mean))


NORMS = [layer_norm, by_hand, gate]
EXACT = [rms_norm, rms_by_hand, unit_length, response]  # zeros do not change them but by their number


def transformer(norm: Any) -> onnx.ModelProto:
    """A stream with two blocks, each behind a norm; the stream itself is frozen unless its norms are thawed."""
    net = Net(3)
    stream = net.op("Add", net.op("MatMul", "x", net.tensor(net.filters(6, WIDTH))), net.tensor(net.filters(WIDTH)))
    for _ in range(2):
        y = net.op("MatMul", norm(net, stream), net.tensor(net.filters(WIDTH, 32)))
        y = net.op("MatMul", net.op("Gelu", y), net.tensor(net.filters(32, WIDTH)))
        stream = net.op("Add", stream, y)
    return model_of(net, net.op("MatMul", norm(net, stream), net.tensor(net.filters(WIDTH, 4))), TOKENS, 6)


@pytest.mark.parametrize("norm", NORMS)
def test_streams_behind_norms_are_cut_when_these_are_thawed(norm: Any) -> None:
    model = transformer(norm)
    frozen = onnxprune.prune(model, ratio=0.5, compensate="none", round_to=1, measure=False).report
    thawed = onnxprune.prune(model, ratio=0.5, compensate="none", round_to=1, measure=False, thaw=True).report
    assert not frozen.approximated
    assert any("cuts these too" in note for note in frozen.notes)
    assert not any("cuts these too" in note for note in thawed.notes)
    assert sum(g.channels for g in thawed.groups) == sum(g.channels for g in frozen.groups) + WIDTH
    assert thawed.after.macs <= 0.27 * thawed.before.macs < 0.6 * frozen.after.macs
    assert len(thawed.approximated) >= 3
    assert thawed.proof is not None
    said = f"{len(thawed.approximated)} nodes with statistics over the channels that stay"
    assert said in " ".join(str(thawed).split())
    assert thawed.to_json()["approximated"] == thawed.approximated


@pytest.mark.parametrize("thaw", [False, True])
@pytest.mark.parametrize("norm", EXACT)
def test_norms_without_a_mean_are_exact(norm: Any, thaw: bool) -> None:
    model = transformer(norm)
    result = onnxprune.prune(model, ratio=0.5, round_to=1, measure=False, thaw=thaw)
    assert result.report.after.macs <= 0.27 * result.report.before.macs
    assert not result.report.approximated
    assert result.report.proof is not None
    assert onnxprune.verify(model, result.model, result.plan).passed


def test_a_softmax_that_loses_heads_alone_is_exact() -> None:
    """Statistics over tokens: the scores of a head are its own."""
    net = Net(6)
    stream = net.op("MatMul", "x", net.tensor(net.filters(6, 16)))
    q, k, v = (
        net.op("Reshape", net.op("MatMul", stream, net.tensor(net.filters(16, 16))), net.ints(0, TOKENS, 4, 4))
        for _ in range(3)
    )
    q, v = (net.op("Transpose", y, perm=[0, 2, 1, 3]) for y in (q, v))
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 3, 1])), axis=-1)
    mixed = net.op("Transpose", net.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    y = net.op("MatMul", net.op("Reshape", mixed, net.ints(0, TOKENS, 16)), net.tensor(net.filters(16, 5)))
    report = onnxprune.prune(model_of(net, y, TOKENS, 6), ratio=0.5, round_to=1, measure=False, thaw=True).report
    assert report.after.macs < 0.5 * report.before.macs
    assert not report.approximated


@pytest.mark.parametrize("asked", [False, True])
def test_experts_go_only_where_they_are_asked_for(asked: bool) -> None:
    """A softmax chooses among the layers of a mixture: thawing norms does not take any of these."""
    net, experts = Net(7), 4
    stream = net.op("MatMul", "x", net.tensor(net.filters(6, WIDTH)))
    gate = net.op("Softmax", net.op("MatMul", stream, net.tensor(net.filters(WIDTH, experts), "gate")), axis=-1)
    y = net.op("MatMul", net.op("Unsqueeze", stream, net.ints(1)), net.tensor(net.filters(experts, WIDTH, 12)))
    y = net.op("MatMul", net.op("Relu", y), net.tensor(net.filters(experts, 12, WIDTH)))
    gates = net.op("Unsqueeze", net.op("Transpose", gate, perm=[0, 2, 1]), net.ints(-1))
    y = net.op("ReduceSum", net.op("Mul", y, gates), net.ints(1), keepdims=0)
    model = model_of(net, net.op("MatMul", y, net.tensor(net.filters(WIDTH, 5))), TOKENS, 6)
    options = {"ratio_for": {"gate*": 0.5}} if asked else {}
    report = onnxprune.prune(
        model, ratio=0.5, compensate="none", round_to=1, measure=False, thaw=True, **options
    ).report
    (kept,) = (group.kept for group in report.groups if group.name.startswith("gate"))
    assert kept == (2 if asked else experts)
    assert bool(report.approximated) == asked
    assert report.after.macs < 0.4 * report.before.macs


def group_normed(groups: int) -> onnx.ModelProto:
    net = Net(4)
    y = net.conv("x", 3, WIDTH, 3)
    y = net.op("GroupNormalization", y, *(net.tensor(net.filters(WIDTH, low=0.5)) for _ in range(2)), num_groups=groups)
    return model_of(net, net.conv(net.op("Relu", y), WIDTH, 5), 3, 9, 9, opset=21)


@pytest.mark.parametrize(("groups", "left"), [(1, 8), (4, 8)])
def test_group_norms(groups: int, left: int) -> None:
    """Whole groups go as they are; of a single one channels go once it is thawed."""
    model = group_normed(groups)
    plain = onnxprune.prune(model, ratio=0.5, compensate="none", round_to=1, measure=False).report
    thawed = onnxprune.prune(model, ratio=0.5, compensate="none", round_to=1, measure=False, thaw=True).report
    assert plain.changed == (groups > 1)
    assert thawed.after.macs == thawed.before.macs // 2
    assert bool(thawed.approximated) == (groups == 1)


def attended(activation: str) -> onnx.ModelProto:
    """Efficient channel attention: neighbours of a channel weigh it."""
    net = Net(5)
    y = net.op(activation, net.conv("x", 3, WIDTH, 3))
    pooled = net.op("Unsqueeze", net.op("ReduceMean", y, net.ints(2, 3), keepdims=0), net.ints(1))
    kernel = net.tensor(net.filters(1, 1, 3))
    gate = net.op("Sigmoid", net.op("Conv", pooled, kernel, pads=[1, 1]))
    gate = net.op("Unsqueeze", net.op("Squeeze", gate, net.ints(1)), net.ints(2, 3))
    return model_of(net, net.conv(net.op("Mul", y, gate), WIDTH, 5), 3, 9, 9)


@pytest.mark.parametrize("thaw", [False, True])
def test_channels_that_a_kernel_slides_over_stay_in_their_places(thaw: bool) -> None:
    """Those that go are zero, as padding is, so that nothing is approximated."""
    report = onnxprune.prune(
        attended("Relu"), ratio=0.5, compensate="none", round_to=1, measure=False, thaw=thaw
    ).report
    assert report.changed
    assert report.after.macs < 0.51 * report.before.macs
    assert not report.approximated


def test_a_kernel_that_slides_over_channels_goes_over_all_of_their_places() -> None:
    """Which costs as much as before."""
    model = attended("Relu")
    deps = analyse(model)
    dead = deps.dead({group.name: np.arange(WIDTH // 2) for group in deps.groups})
    assert deps.macs(dead) == analyse(cut(model, deps, dead)).macs()


@pytest.mark.parametrize("thaw", [False, True])
def test_a_convolution_over_channels_that_are_not_zero_is_a_statistic(thaw: bool) -> None:
    """Where neighbours of a channel go, it has others."""
    report = onnxprune.prune(
        attended("Sigmoid"), ratio=0.5, compensate="none", round_to=1, measure=False, thaw=thaw
    ).report
    assert report.changed == thaw
    assert len(report.approximated) == thaw
    assert thaw or any("slides its kernel over it" in row.reason for row in report.frozen)


def test_files_that_list_all_their_tensors_as_inputs() -> None:
    """Before IR version 4; the masked network has new tensors, which have to be listed too."""
    net = Net(8)
    y = net.op("LRN", net.op("Sigmoid", net.conv("x", 3, WIDTH, 3)), size=5)
    model = model_of(net, net.conv(y, WIDTH, 5), 3, 9, 9, opset=8)
    model.ir_version = 3
    model.graph.input.extend(helper.make_tensor_value_info(t.name, 1, t.dims) for t in net.tensors)
    for name in ("none", "lstsq"):
        report = onnxprune.prune(model, ratio=0.5, compensate=name, round_to=1, measure=False, thaw=True).report
        assert report.approximated == ("lrn2",)
        assert report.proof is not None


def test_the_statistics_are_those_of_the_channels_that_stay() -> None:
    """Against numpy, which knows neither masks nor labels."""
    net = Net(5)
    w, b, last = net.filters(6, WIDTH), net.filters(WIDTH), net.filters(WIDTH, 4)
    gamma, beta = net.filters(WIDTH, low=0.5), net.filters(WIDTH)
    y = net.op("Add", net.op("MatMul", "x", net.tensor(w)), net.tensor(b))
    y = net.op("LayerNormalization", y, net.tensor(gamma), net.tensor(beta), epsilon=1e-5)
    model = model_of(net, net.op("MatMul", y, net.tensor(last)), TOKENS, 6)
    result = onnxprune.prune(model, ratio=0.5, compensate="none", round_to=1, measure=False, thaw=True)
    (keep,) = (list(g.keep) for g in result.plan.groups)
    assert len(keep) == WIDTH // 2
    x = np.random.default_rng(0).normal(size=(3, TOKENS, 6)).astype(np.float32)
    h = (x @ w + b)[..., keep]
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    expected = (h * gamma[keep] + beta[keep]) @ last[keep]
    np.testing.assert_allclose(outputs_of(result.model, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)


def test_thaw_leaves_networks_without_such_norms_alone() -> None:
    net = Net(6)
    model = model_of(net, net.conv(net.op("Relu", net.conv("x", 3, 8)), 8, 5), 3, 9, 9)
    plain, thawed = (
        onnxprune.prune(model, ratio=0.5, compensate="none", measure=False, thaw=thaw) for thaw in (False, True)
    )
    assert not thawed.report.approximated
    assert plain.plan.groups == thawed.plan.groups
    assert plain.plan.options == {k: v for k, v in thawed.plan.options.items() if k != "thaw"}


@pytest.mark.parametrize(
    "options",
    [
        {"method": "obs", "target": "macs=0.5"},
        {"ratio": 0.5, "compensate": "lstsq"},
        {"ratio": 0.5, "compensate": "merge"},
        {"ratio": 0.5, "compensate": "fold"},
        {"threshold": 0.2},
        {"ratio": 0.5, "method": "apssf", "data": True},
        {"target": "params=0.6", "allocation": "sensitivity", "data": True, "method": "l2"},
        {"max_drop": 0.5, "data": True, "metric": ["cosine"], "method": "l2", "compensate": "none"},
    ],
    ids=str,
)
def test_with_other_options(options: dict[str, Any]) -> None:
    model = transformer(layer_norm)
    if options.get("data"):
        samples = np.random.default_rng(0).normal(size=(16, TOKENS, 6)).astype(np.float32)
        options = {**options, "data": [{"x": samples}]}
    report = onnxprune.prune(model, thaw=True, measure=False, round_to=1, **options).report
    assert report.changed
    assert report.proof is not None


@pytest.fixture
def there(tmp_path: Path) -> Path:
    onnx.save(transformer(layer_norm), tmp_path / "in.onnx")
    return tmp_path


def test_the_command_and_its_plan(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, source, out, plan = Runner(capsys), *(there / name for name in ("in.onnx", "out.onnx", "plan.json"))
    words = "--ratio", 0.5, "--thaw", "--compensate", "none", "--no-measure", "--round-to", 1
    outcome = run(source, out, *words, "--plan-out", plan, "--json")
    assert outcome.code == 0
    assert len(outcome.json["approximated"]) == 3
    assert json.loads(plan.read_text())["options"]["thaw"] is True
    assert run("apply", source, there / "again.onnx", "--plan", plan, "--no-measure").code == 0
    assert onnx.load(there / "again.onnx").graph == onnx.load(out).graph
    assert run("verify", source, out, "--plan", plan).code == 0


def test_looking_at_a_network_with_its_norms_thawed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Norms on the stream itself, which no basis goes across."""
    run, source = Runner(capsys), tmp_path / "in.onnx"
    onnx.save(rotatable.transformer(hindrance="post"), source)
    plain, thawed = (run("inspect", source, "--json", *words).json for words in ((), ("--thaw",)))
    assert len(thawed["groups"]) == len(plain["groups"]) + 1
    assert any("thawed: LayerNormalization" in n for n in thawed["notes"])
    name = next(n.name for n in onnx.load(source).graph.node if n.op_type == "Add")
    assert "normalises over its channels" in run("explain", source, name).out
    assert "normalises over its channels" not in run("explain", source, name, "--thaw").out
    assert run("sensitivity", source, "--thaw").code == 0
    assert "approximation" in " ".join(run("--help").out.split())


def test_lossless_and_thaw_exclude_each_other(there: Path) -> None:
    with pytest.raises(UsageError, match="thaw approximates"):
        onnxprune.prune(there / "in.onnx", lossless=True, thaw=True)


def test_a_vision_transformer() -> None:
    path = SHARED / "vnn_vit_pgd_2_3_16.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} lies beside the project and is absent")
    model = onnx.load(path)
    assert not analyse(model, thaw=True).thawed  # its norms are BatchNormalizations
    report = onnxprune.prune(model, ratio=0.5, compensate="none", thaw=True, measure=False).report
    assert report.after.macs < 0.45 * report.before.macs


def grouped(net: Net, x: str, c: int, groups: int = 4) -> str:
    """Group normalisation as PyTorch exports it."""
    ones, zeros = net.tensor(np.ones(groups)), net.tensor(np.zeros(groups))
    y = net.op("InstanceNormalization", net.op("Reshape", x, net.ints(0, groups, -1)), ones, zeros)
    y = net.op("Reshape", y, net.ints(1, c, 6, 6))
    return net.op("Relu", net.op("Mul", y, net.tensor(net.filters(c, 1, 1, low=0.5))))


def test_groups_of_norms_that_a_concat_shifts_lose_channels_when_thawed() -> None:
    """Groups of four, two and six channels: whole ones overlap until hardly any is left, a share of each does not."""
    net = Net(8)
    a = grouped(net, net.conv("x", 3, 16), 16)
    b = grouped(net, net.conv(a, 16, 8), 8)
    y = net.conv(grouped(net, net.op("Concat", a, b, axis=1), 24), 24, 12)
    model = model_of(net, net.conv(y, 12, 4), 3, 6, 6)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    whole, shared = (
        onnxprune.prune(model, ratio=0.5, compensate="none", round_to=1, measure=False, thaw=thaw).report
        for thaw in (False, True)
    )
    assert shared.after.macs <= 0.32 * shared.before.macs < 0.6 * whole.after.macs
    assert len(shared.approximated) == 3
    assert not whole.approximated
