"""Rotate, then cut: a width that only linear maps touch gives the same in any basis, and loses least in the best."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import pytest
from cli_runs import Runner
from onnx import helper, numpy_helper
from rotatable import (
    FEATURES,
    HEADS,
    TOKENS,
    WIDTH,
    Net,
    attention,
    bottlenecks,
    fused_attention,
    language_model,
    sequences,
    shared_vector,
    tied,
    transformer,
    unfolded,
)

import onnxprune
from onnxprune.channels.analysis import analyse
from onnxprune.errors import CheckFailed, UsageError
from onnxprune.model.network import Network
from onnxprune.pipeline import rotate
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.study import Study
from onnxprune.runtime.session import make_session
from onnxprune.surgery.plan import Plan
from onnxprune.surgery.recovery.eliminate import Reader, elimination
from onnxprune.surgery.rotation import follow
from onnxprune.surgery.rotation.heads import attention_sites
from onnxprune.surgery.rotation.moments import basis_of, orthogonal
from onnxprune.surgery.rotation.shared import apart, shared, together
from onnxprune.surgery.rotation.sites import Graph, RotationSite
from onnxprune.surgery.rotation.streams import stream_sites
from onnxprune.surgery.rotation.turn import Rotation, levelled, name_of, rotated

QUERIES, VALUES = "queries and keys", "values and output"
SEQUENCES: dict[str, dict[str, Any]] = {
    "apart": {},
    "scaled before": {"scale": "before"},
    "scaled by a division": {"scale": "divided"},
    "without biases": {"bias": False},
    "fused, split": {"how": "split"},
    "fused, split, without biases": {"how": "split", "bias": False},
    "fused, in a grid": {"how": "grid"},
}
IMAGES: dict[str, dict[str, Any]] = {"BatchNormalization": {}, "biases": {"norm": False}, "wide": {"width": 20}}


def graph_of(model: onnx.ModelProto, *, thaw: bool = False) -> Graph:
    shapes = {"x": tuple(d.dim_value or (1 if k == 0 else 8) for k, d in enumerate(_dims(model)))}
    return Graph(Network.of(model), analyse(model, input_shapes=shapes, heads=False, thaw=thaw))


def _dims(model: onnx.ModelProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(model.graph.input[0].type.tensor_type.shape.dim)


def any_basis(site: RotationSite, seed: int) -> np.ndarray:
    blocks, width = site.shape
    return np.eye(width) + 0.4 * np.random.default_rng(seed).standard_normal((blocks, width, width))


def turned(graph: Graph, sites: list[RotationSite]) -> onnx.ModelProto:
    return rotated(graph, sites, Rotation({name_of(s): any_basis(s, k) for k, s in enumerate(sites)})).proto()


def kinds(sites: list[RotationSite]) -> list[str]:
    return sorted(QUERIES if s.read is not None else VALUES for s in sites)


# --- any basis: the same function --------------------------------------------


@pytest.mark.parametrize("options", SEQUENCES.values(), ids=SEQUENCES)
def test_attention_gives_the_same_in_any_basis(options: dict[str, Any]) -> None:
    model = attention(**options)
    graph = graph_of(model)
    sites = attention_sites(graph)
    assert kinds(sites) == [QUERIES, VALUES]
    assert [s.shape for s in sites] == [(HEADS, WIDTH)] * 2
    _assert_same(model, turned(graph, sites), [sequences(n) for n in (1, 3)])


IN_ONE_NODE = ["packed", "multi head", "bias inside", "standard", "apart"]


@pytest.mark.parametrize(
    ("how", "bias"), [*((how, True) for how in IN_ONE_NODE), *((h, False) for h in IN_ONE_NODE[1:])]
)
def test_attention_in_one_node_gives_the_same_in_any_basis(how: str, bias: bool) -> None:
    model = fused_attention(how, bias=bias)
    graph = graph_of(model)
    sites = attention_sites(graph)
    assert kinds(sites) == [QUERIES, VALUES]
    assert [s.shape for s in sites] == [(HEADS, WIDTH)] * 2
    _assert_same(model, turned(graph, sites), [sequences(n) for n in (1, 3)])


@pytest.mark.parametrize(("opset", "axis", "still"), [(17, None, 3), (12, 3, 3), (12, -1, 3), (12, None, None)])
def test_keys_may_shift_where_a_softmax_goes_over_them_alone(opset: int, axis: int | None, still: int | None) -> None:
    model = attention()
    model.opset_import[0].version = opset  # before 13 it goes over all axes from the second one on by default
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    del softmax.attribute[:]
    softmax.attribute.extend([] if axis is None else [helper.make_attribute("axis", axis)])
    assert {site.still for site in attention_sites(graph_of(model)) if site.read is not None} == {still}


@pytest.mark.parametrize(("how", "left"), [("rotary", []), ("shared", []), ("present", [])])
def test_attention_in_one_node_that_shows_or_shares_its_keys_keeps_their_basis(how: str, left: list[str]) -> None:
    assert kinds(attention_sites(graph_of(fused_attention(how)))) == left


@pytest.mark.parametrize("options", IMAGES.values(), ids=IMAGES)
def test_a_linear_stream_gives_the_same_in_any_basis(options: dict[str, Any]) -> None:
    model = bottlenecks(**options)
    graph = graph_of(model)
    sites = stream_sites(graph)
    assert [s.shape for s in sites] == [(1, options.get("width", 8))]
    rng = np.random.default_rng(0)
    _assert_same(model, turned(graph, sites), [rng.standard_normal((2, 3, n, n)).astype(np.float32) for n in (8, 13)])


def _assert_same(model: onnx.ModelProto, other: onnx.ModelProto, inputs: list[np.ndarray]) -> None:
    one, two = make_session(model), make_session(other)
    for x in inputs:
        wanted, given = (s.run({"x": x})["y"] for s in (one, two))
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=2e-5 * np.abs(wanted).max())
    weights = [{t.name: numpy_helper.to_array(t).tobytes() for t in m.graph.initializer} for m in (model, other)]
    assert weights[0] != weights[1]


@pytest.mark.parametrize("opset", [17, 23])
@pytest.mark.parametrize("how", ["node", "written out", "squared", "centred twice", "rms", "rms squared"])
def test_a_stream_behind_norms_gives_the_same_in_any_orthonormal_basis(how: str, opset: int) -> None:
    model = transformer(how)
    if opset != 17:
        model = onnx.version_converter.convert_version(model, opset)
    inputs = [sequences(1, seed) for seed in range(3)]
    level = [s for s in stream_sites(graph_of(model, thaw=True)) if s.level]
    assert len(level) == (not how.startswith("rms"))
    without = levelled(graph_of(model, thaw=True), level).proto() if level else model
    onnx.checker.check_model(without, full_check=True)
    if level:
        _assert_same(model, without, inputs)
    graph = graph_of(without)
    sites = stream_sites(graph)
    assert [(s.shape, s.level) for s in sites] == [((1, 16), ())]
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((1, 16, 16)))[0]
    _assert_same(model, rotated(graph, sites, Rotation({name_of(sites[0]): basis})).proto(), inputs)


@pytest.mark.parametrize("thaw", [False, True])
def test_a_network_whose_statistics_are_thawed_is_analysed_once(thaw: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.of(Network.of(transformer()), {"x": sequences(1).shape}, Request.of({"thaw": thaw}, ratio=0.5))
    asked, again = [], Study.reanalysed
    monkeypatch.setattr(Study, "reanalysed", lambda own, *given: asked.append(given[1:]) or again(own, *given))
    _, sites, _ = rotate._level(study)
    assert [s.shape for s in sites] == [(1, 16)]
    assert sum(map(len, asked)) == (not thaw)


@pytest.mark.parametrize("how", ["node", "written out", "rms"])
@pytest.mark.parametrize("hindrance", ["skip", "post", "absolute", "quotient"])
def test_a_stream_whose_mean_or_scales_are_read_keeps_its_basis(how: str, hindrance: str) -> None:
    """Without a mean a norm does not mind what else reads the stream."""
    sites = stream_sites(graph_of(transformer(how, hindrance=hindrance), thaw=True))
    assert len(sites) == ((how, hindrance) == ("rms", "skip"))


def test_a_stream_that_a_norm_takes_with_its_mean_keeps_it() -> None:
    model = onnx.version_converter.convert_version(transformer(), 23)
    stream = [n.input[0] for n in model.graph.node if n.op_type == "LayerNormalization"][-1]
    model.graph.initializer.append(numpy_helper.from_array(np.ones(16, np.float32), "scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((16, 3), np.float32), "last"))
    model.graph.node.append(helper.make_node("RMSNormalization", [stream, "scale"], ["even"]))
    model.graph.node.append(helper.make_node("MatMul", ["even", "last"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    assert not stream_sites(graph_of(model, thaw=True))


@pytest.mark.parametrize("how", ["rotary", "norm"])
def test_what_looks_at_single_features_of_queries_keeps_their_basis(how: str) -> None:
    assert kinds(attention_sites(graph_of(attention(how)))) == [VALUES]


@pytest.mark.parametrize("hindrance", ["activation", "depthwise", "integers"])
def test_what_looks_at_single_channels_keeps_their_basis(hindrance: str) -> None:
    assert stream_sites(graph_of(bottlenecks(hindrance=hindrance))) == []


# --- the best basis ----------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_tail_of_the_best_basis_is_less_than_selection_with_least_squares_loses(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((400, 12)) @ rng.standard_normal((12, 12))
    weights = rng.standard_normal((20, 12))
    gram = x.T @ x / len(x)
    energy = basis_of(gram[None], (weights.T @ weights)[None]).energy[0]
    best = np.append(np.cumsum(energy[::-1])[:-1], [])
    chosen = elimination([Reader(gram, np.zeros(12), weights, np.arange(12)[:, None])], ridge=1e-9).loss[1:]
    assert (best[: len(chosen)] <= chosen * (1 + 1e-6)).all()
    assert best[5] < 0.9 * chosen[5]


def test_what_the_tail_holds_is_what_is_lost() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6))
    weights = rng.standard_normal((6, 9))
    basis = basis_of((x.T @ x / len(x))[None], (weights @ weights.T)[None])
    left = x @ basis.matrix[0][:, :4] @ basis.inverse[0][:4] @ weights
    lost = ((x @ weights - left) ** 2).sum() / len(x)
    assert lost == pytest.approx(basis.energy[0][4:].sum(), rel=1e-3)
    np.testing.assert_allclose(basis.matrix[0] @ basis.inverse[0], np.eye(6), atol=1e-6)


def test_an_orthogonal_basis_spans_the_same_at_every_rank() -> None:
    rng = np.random.default_rng(0)
    half, other = (rng.standard_normal((6, 6)) for _ in range(2))
    found = basis_of((half @ half.T)[None], (other @ other.T)[None])
    turned_to = orthogonal(found).matrix[0]
    np.testing.assert_allclose(turned_to.T @ turned_to, np.eye(6), atol=1e-12)
    for rank in range(1, 6):
        first = found.matrix[0][:, :rank]
        inside = turned_to[:, :rank]
        np.testing.assert_allclose(inside @ (inside.T @ first), first, atol=1e-9 * np.abs(first).max())


# --- the command -------------------------------------------------------------


CUT: dict[str, Any] = {
    "ratio": 0.5, "allocation": "uniform", "measure": False, "round_to": 1, "data": {"x": sequences(160)},
}  # fmt: skip


@functools.cache
def pruned() -> onnxprune.Result:
    """Attention with separate projections at half of every width."""
    return onnxprune.prune(attention(), **CUT)


def test_a_low_rank_is_cut_without_loss() -> None:
    model = attention(rank=WIDTH // 4, bias=False)
    result = onnxprune.prune(model, include=["q", "v"], **CUT)
    assert [len(g.keep) for g in result.plan.groups if g.channels == WIDTH] == [WIDTH // 2] * 2
    x = sequences(32, seed=1)
    wanted, given = (make_session(m).run({"x": x})["y"] for m in (model, result.model))
    assert np.abs(given - wanted).max() < 1e-2 * np.abs(wanted).max()
    plain = onnxprune.prune(model, include=["q", "v"], compensate="none", heads="dims", **CUT)
    assert np.abs(make_session(plain.model).run({"x": x})["y"] - wanted).max() > 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("how", IN_ONE_NODE)
def test_attention_in_one_node_is_cut_in_another_basis(how: str, tmp_path: Path) -> None:
    model = fused_attention(how)
    result = onnxprune.prune(model, **CUT)
    assert result.report.proof is not None
    assert len(result.plan.rotation.bases) == 2
    assert [len(g.keep) for g in result.plan.groups if g.channels == WIDTH] == [WIDTH // 2] * 2
    result.plan.save(tmp_path / "plan.json")
    again = onnxprune.apply(model, tmp_path / "plan.json", data=CUT["data"], measure=False)
    assert again.model.graph == result.model.graph
    assert onnxprune.verify(model, result.model, tmp_path / "plan.json").passed


@pytest.mark.parametrize("allocation", ["uniform", "sensitivity"])
@pytest.mark.parametrize("how", IN_ONE_NODE)
def test_a_low_rank_of_attention_in_one_node_is_cut_without_loss(how: str, allocation: str) -> None:
    """With the bias, which counts as one more direction."""
    model = fused_attention(how, rank=WIDTH // 4)
    widths = [g.name for g in graph_of(model).deps.groups if len(g) == WIDTH]
    result = onnxprune.prune(model, include=widths, **CUT | {"allocation": allocation})
    x = sequences(32, seed=1)
    wanted, given = (make_session(m).run({"x": x})["y"] for m in (model, result.model))
    assert np.abs(given - wanted).max() < 1e-2 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("options", "rotates"),
    [({}, True), ({"heads": "whole"}, False), ({"compensate": "none"}, False), ({"method": "l2"}, False)],
)
def test_when_it_rotates(options: dict[str, Any], rotates: bool) -> None:
    plan = onnxprune.prune(attention(), **CUT, **options).plan
    assert bool(plan.rotation) == rotates
    assert plan.options["heads"] == ("dims" if rotates else "whole")


def test_heads_that_cannot_lose_a_share_are_cut_whole_by_default() -> None:
    result = onnxprune.prune(attention("rotary"), **CUT)
    assert result.plan.options["heads"] == "whole"
    assert not result.plan.rotation


@pytest.mark.parametrize(
    ("heads", "width", "values", "options", "kept"),
    [
        (1, 8, 8, {"compensate": "none"}, [4, 4]),
        (1, 8, 8, {"heads": "whole"}, [4, 4]),
        (8, 1, 1, {}, [4]),
        (8, 1, 1, {"heads": "dims"}, [4]),
        (4, 1, 4, {}, [2]),  # queries and keys could lose no share
    ],
)
def test_heads_in_one_node_that_one_way_would_leave_whole_are_cut_in_the_other(
    heads: int, width: int, values: int, options: dict[str, Any], kept: list[int]
) -> None:
    net, sizes = Net(), [heads * width, heads * width, heads * values]
    weights = net.weight(FEATURES, sum(sizes), name="w"), net.weight(sum(sizes))
    mixed = net("Attention", "x", *weights, domain="com.microsoft", num_heads=heads, qkv_hidden_sizes=sizes)
    y = net("MatMul", mixed, net.weight(sizes[2], 5))
    model = net.model(y, ("n", TOKENS, FEATURES), ("n", TOKENS, 5), opset=23)
    groups = onnxprune.prune(model, **CUT, **options).plan.groups
    assert [len(g.keep) for g in groups if g.name.startswith("w")] == kept


def test_a_width_that_loses_nothing_keeps_its_basis() -> None:
    model = attention()
    result = onnxprune.prune(model, exclude=["q"], **CUT)
    assert list(result.plan.rotation.bases) == ["v[0]"]
    assert [g.name for g in result.plan.groups if len(g.keep) == g.channels] == ["q"]


def test_a_plan_with_a_rotation_is_applied_and_verified(tmp_path: Path) -> None:
    model, data = attention(), CUT["data"]
    result = pruned()
    result.plan.save(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["version"] == 3
    again = onnxprune.apply(model, tmp_path / "plan.json", data=data, measure=False)
    assert again.model.graph == result.model.graph
    verdict = onnxprune.verify(model, result.model, tmp_path / "plan.json")
    assert verdict.passed
    assert "rotation" in str(verdict)


@pytest.mark.parametrize("how", ["node", "written out", "rms"])
def test_a_stream_behind_norms_is_cut_exactly(how: str, tmp_path: Path) -> None:
    model, options = transformer(how), CUT | {"data": {"x": sequences(160)}}
    result = onnxprune.prune(model, **options)
    assert result.report.after.macs < 0.3 * result.report.before.macs
    assert "c0[0]" in result.plan.rotation.bases
    assert result.report.proof is not None
    assert not result.report.approximated
    result.plan.save(tmp_path / "plan.json")
    again = onnxprune.apply(model, tmp_path / "plan.json", data=options["data"], measure=False)
    assert again.model.graph == result.model.graph
    assert onnxprune.verify(model, result.model, tmp_path / "plan.json").passed


def test_tensors_that_nodes_share_are_copied_where_they_need_other_elements(tmp_path: Path) -> None:
    """The scales of norms do not; the table does neither, since nothing but norms lies between its uses."""
    model = language_model(even=True)
    data = {"x": np.random.default_rng(0).integers(0, 11, (160, TOKENS))}
    result = onnxprune.prune(model, **CUT | {"data": data})
    assert list(result.plan.rotation.bases) == ["table[0]"]
    assert result.report.after.macs < 0.3 * result.report.before.macs
    assert [list(t.dims) for t in result.model.graph.initializer].count([11, 8]) == 1
    scales = {name for n in result.model.graph.node if n.op_type == "Mul" for name in n.input if "scale" in name}
    assert len(scales) == 1
    result.plan.save(tmp_path / "plan.json")
    again = onnxprune.apply(model, tmp_path / "plan.json", data=data, measure=False)
    assert again.model.graph == result.model.graph
    assert onnxprune.verify(model, result.model, tmp_path / "plan.json").passed


def test_scales_of_norms_that_were_learned_leave_a_shared_table_one() -> None:
    data = {"x": np.random.default_rng(0).integers(0, 11, (160, TOKENS))}
    result = onnxprune.prune(language_model(), **CUT | {"data": data})
    assert not result.plan.rotation
    assert [list(t.dims) for t in result.model.graph.initializer].count([11, 16]) == 1


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_shared_table_stays_one(scaled: bool, double: bool, tmp_path: Path) -> None:
    model, data = tied(scaled=scaled, double=double), {"x": np.random.default_rng(0).integers(0, 500, (160, TOKENS))}
    result = onnxprune.prune(model, **CUT | {"data": data})
    assert list(result.plan.rotation.bases) == ([] if scaled else ["table[0]"])
    assert [list(t.dims) for t in result.model.graph.initializer].count([500, 8]) == 1
    assert result.report.before.params == sum(math.prod(t.dims) for t in model.graph.initializer)
    assert result.report.after.params < 0.55 * result.report.before.params
    result.plan.save(tmp_path / "plan.json")
    assert onnxprune.verify(model, result.model, tmp_path / "plan.json").passed


def test_what_shared_vectors_are_copied_for_counts_after_the_cut_alone() -> None:
    model = shared_vector()
    result = onnxprune.prune(model, **CUT | {"target": "params=60%", "ratio": None, "allocation": "auto"})
    floats = [t for m in (model, result.model) for t in [m.graph.initializer]]
    one, two = (sum(math.prod(t.dims) for t in tensors) for tensors in floats)
    assert result.plan.rotation
    assert (result.report.before.params, result.report.after.params) == (one, two)
    assert result.report.after.params <= 0.6 * one
    assert not result.report.warnings


def test_copies_are_inputs_too_before_ir_version_4() -> None:
    model = shared_vector(ir_version=3)
    onnx.checker.check_model(model)
    graph = graph_of(model)
    network, copies = apart(graph, shared(graph, False))
    assert copies
    onnx.checker.check_model(network.proto())
    assert together(network, copies).proto() == model
    result = onnxprune.prune(model, **CUT)
    assert result.plan.rotation
    onnx.checker.check_model(result.model)


def test_several_learned_tokens_keep_no_stream_upright() -> None:
    result = onnxprune.prune(transformer(rows=3), **CUT)
    assert "c0[0]" in result.plan.rotation.bases
    assert result.report.after.macs < 0.3 * result.report.before.macs


def test_a_stream_that_is_unfolded_into_patches_is_cut_exactly() -> None:
    data = {"x": np.random.default_rng(0).standard_normal((160, 3, 8, 8)).astype(np.float32)}
    result = onnxprune.prune(unfolded(), **CUT | {"data": data})
    assert "c0[0]" in result.plan.rotation.bases
    assert result.report.after.macs < 0.3 * result.report.before.macs


def test_a_pad_of_another_number_keeps_the_basis() -> None:
    model = language_model(even=True)
    fill = next(n.input[2] for n in model.graph.node if n.op_type == "Pad")
    next(t for t in model.graph.initializer if t.name == fill).CopyFrom(numpy_helper.from_array(np.float32(1), fill))
    data = {"x": np.random.default_rng(0).integers(0, 11, (160, TOKENS))}
    assert not onnxprune.prune(model, **CUT | {"data": data}).plan.rotation


def test_layers_that_share_their_weights_are_not_taken_apart() -> None:
    model = transformer()
    one, two = ([t for t in model.graph.initializer if list(t.dims) == [16, 32]][k].name for k in (0, 1))
    for node in model.graph.node:
        node.input[:] = [one if name == two else name for name in node.input]
    result = onnxprune.prune(model, **CUT)
    assert "c0[0]" not in result.plan.rotation.bases
    matrices = [{n.input[1] for n in m.graph.node if n.op_type == "MatMul"} for m in (model, result.model)]
    assert len(matrices[0]) == len(matrices[1])


def test_norms_of_a_stream_that_stays_are_left_as_they_are() -> None:
    model = transformer()
    result = onnxprune.prune(model, exclude=["c2"], **CUT)
    assert "c0[0]" not in result.plan.rotation.bases
    norms = [[n.op_type for n in m.graph.node].count("LayerNormalization") for m in (model, result.model)]
    assert norms == [5, 5]


def test_a_plan_rotates_no_other_network() -> None:
    plan = pruned().plan
    with pytest.raises(UsageError, match="no such width"):
        onnxprune.apply(attention("norm"), plan, data=CUT["data"], measure=False)


@pytest.mark.parametrize(
    "basis",
    [
        {"shape": [1, 2, 3], "float64": "AAAA"},
        {"shape": [2, 1], "float64": "AAAAAAAAAAAAAAAAAAAAAA=="},
        {"shape": [1, 1, 1], "float64": "AAAAAAAA+H8="},
        {"shape": [1, 1, 1], "float64": "!"},
        7,
    ],
    ids=["too few", "no stack", "not a number", "no base64", "no basis"],
)
def test_what_is_no_basis_is_refused(basis: Any) -> None:
    said = pruned().plan.to_json() | {"rotation": {"q[0]": basis}}
    with pytest.raises(UsageError, match="no onnxprune plan"):
        Plan.from_json(said)


def test_a_basis_without_an_inverse_is_refused() -> None:
    plan = pruned().plan
    flat = {name: np.ones_like(a) for name, a in plan.rotation.bases.items()}
    said = plan.to_json() | {"rotation": Rotation(flat).to_json()}
    with pytest.raises((UsageError, CheckFailed), match=r"inverse|not the original"):
        onnxprune.apply(attention(), Plan.from_json(said), data=CUT["data"], measure=False)


def test_the_same_bytes_again() -> None:
    images = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)
    options = CUT | {"data": {"x": images}, "input_shapes": {"x": (1, 3, 8, 8)}}
    one, two = (onnxprune.prune(bottlenecks(), **options) for _ in range(2))
    assert one.plan.rotation
    assert one.model.SerializeToString(deterministic=True) == two.model.SerializeToString(deterministic=True)


def test_heads_are_left_open_by_default() -> None:
    assert Request.of({}, ratio=0.5).heads == "auto"
    assert Request.of({}, ratio=0.5).recorded()["heads"] == "whole"


def test_uneven_parts_are_those_of_onnx() -> None:
    split = helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3)
    sizes = {"x": 7, "a": 3, "b": 3, "c": 1}
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, n]) for name, n in sizes.items()]
    proto = helper.make_graph([split], "g", infos[:1], infos[1:])
    graph = graph_of(helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)]))
    found = follow.walked(graph, follow.End(-1, 0, "x", np.arange(7)[None]), ())
    assert {e.value: e.ids.ravel().tolist() for e in found.ends} == {"a": [0, 1, 2], "b": [3, 4, 5], "c": [6]}


# --- a look at the network ---------------------------------------------------


LOOKED_AT = {"stream": transformer, "heads": attention, "one node": lambda: fused_attention("packed")}


@pytest.mark.parametrize("network", LOOKED_AT.values(), ids=LOOKED_AT)
def test_inspect_shows_the_groups_of_the_plan(network: Callable[[], onnx.ModelProto]) -> None:
    model = network()
    found, plan = onnxprune.inspect(model), onnxprune.prune(model, **CUT).plan
    assert [(g.name, g.channels) for g in found.groups] == [(g.name, g.channels) for g in plan.groups]
    bases = {name.split("[")[0] for name in plan.rotation.bases}
    turned = [g for g in found.groups if g.rotated]
    assert len(turned) == len(plan.rotation.bases)
    assert bases <= {g.name.split("#")[0] for g in turned} | {"c0"}  # the stream's first tensor is no weight
    assert not any(g.rotated for g in onnxprune.inspect(bottlenecks(hindrance="activation")).groups)


def test_explain_follows_a_stream_that_norms_would_keep_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(transformer(), tmp_path / "in.onnx")
    said = " ".join(Runner(capsys)("explain", tmp_path / "in.onnx", "c2").out.split())
    assert "the 16 channels of" in said
    assert "can be removed" in said
    assert "cut in another basis" in said


@pytest.mark.parametrize("given", [True, False])
def test_sensitivity_looks_at_widths_in_their_best_basis(given: bool) -> None:
    """Of a low rank nothing is lost but what the last directions hold."""
    options = {"data": {"x": sequences(32)}} if given else {}
    low, high = (
        {c.group: c for c in onnxprune.sensitivity(attention(rank=rank, bias=False), **options).curves}
        for rank in (WIDTH // 4, None)
    )
    for name in "qv":
        assert low[name].at_ratio(0.5) < 1e-3 * max(low[name].losses)
        assert high[name].at_ratio(0.5) > 1e-2 * max(high[name].losses)
    assert "c2" in {c.group for c in onnxprune.sensitivity(transformer(), **options).curves}
