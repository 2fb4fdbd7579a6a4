"""What ties a plan to the weights of the model that it made: anyone can check it, and `verify` does."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_runs import DIGITS, SAMPLE, Runner
from law import run as run_model
from onnx import ModelProto, helper, numpy_helper
from standardised import standardised_network
from text_graphs import build

import onnxprune
from onnxprune import CheckFailed, apply, prune, verify
from onnxprune.surgery import Plan

SHARED = "a = Conv(x, w1[8,3,1,1], b[8])  c = Conv(a, w2[8,8,1,1], b)  y = Conv(c, w3[4,8,1,1])"


def with_constants() -> ModelProto:
    """The network with weights in Constant nodes."""
    model = build(SHARED)
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    made = helper.make_graph([*nodes, *model.graph.node], "g", model.graph.input, model.graph.output)
    return helper.make_model(made, opset_imports=model.opset_import, ir_version=8)


NETWORKS = {
    "a shared bias": lambda: build(SHARED),
    "constants": with_constants,
    "weights that the graph computes": standardised_network,
    "a transposed weight": lambda: build(
        "a = Conv(x, w1[8,3,1,1])  r = Reshape(a, s{1,-1})  t = Transpose(v[5,128])  y = MatMul(r, t)"
    ),
}


def tensors(model: ModelProto) -> dict[str, np.ndarray]:
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    constants = [n for n in model.graph.node if n.op_type == "Constant"]
    return found | {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in constants}


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.dtype.name} {list(array.shape)}\n".encode() + array.tobytes()).hexdigest()


def checked(original: ModelProto, pruned: ModelProto, plan: dict[str, Any]) -> dict[str, str]:
    """How each tensor of a pruned model follows from the original, with numpy and the plan's JSON alone."""
    own, how = tensors(original), {}
    for name, array in tensors(pruned).items():
        source = plan["copies"].get(name, name)
        if name in plan["digests"]:
            assert sha256(array) == plan["digests"][name]
            how[name] = "digest"
            continue
        expected = own[source]
        for axis, positions in plan["initializers"].get(name, {}).items():
            expected = np.take(expected, positions, int(axis))
        np.testing.assert_array_equal(array, expected)
        how[name] = "take"
    for name in plan["copies"]:
        readers = [node.name or node.output[0] for node in pruned.graph.node if name in node.input]
        assert readers == plan["readers"][name] != []
    return how


@pytest.mark.parametrize("case", NETWORKS)
def test_anyone_can_check_a_cut_by_numpy_take(case: str) -> None:
    model = NETWORKS[case]()
    result = prune(model, ratio=0.5, round_to=1, compensate="none", measure=False)
    plan = json.loads(json.dumps(result.plan.to_json()))
    how = checked(model, result.model, plan)
    assert "take" in how.values()
    assert plan["initializers"].keys() - plan["copies"].keys() <= tensors(model).keys()
    assert Plan.from_json(plan) == result.plan
    for name, made in plan["computed"].items():  # the value in the original, from tensors of the checkpoint
        assert set(made["from"]) <= tensors(model).keys()
        wider = ModelProto.FromString(model.SerializeToString())
        wider.graph.output.append(helper.make_tensor_value_info(name, 1, None))
        feeds = {
            v.name: np.zeros([d.dim_value for d in v.type.tensor_type.shape.dim], np.float32) for v in model.graph.input
        }
        value = run_model(wider, feeds)[-1]
        for axis, positions in made["axes"].items():
            value = np.take(value, positions, int(axis))
        np.testing.assert_allclose(tensors(result.model)[name], value, rtol=1e-6)
    assert bool(plan["computed"]) == (case == "weights that the graph computes")


def test_repaired_tensors_have_digests() -> None:
    result = prune(DIGITS, ratio=0.5, exclude=["*1*"], **FEW)
    plan = result.plan.to_json()
    how = checked(onnx.load(DIGITS), result.model, plan)
    assert set(how.values()) == {"take", "digest"}
    facts = {p.key: p.value for p in result.model.metadata_props}
    digests = json.dumps(plan["digests"], sort_keys=True)
    assert facts["onnxprune.weights"] == hashlib.sha256(digests.encode()).hexdigest()
    assert facts["onnxprune.content"] == plan["content"]


# --- verify ------------------------------------------------------------------

FEW = {"data": SAMPLE, "limit": 64, "measure": False}  # to repair on: what is asked here is whose weights they are


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A network that was cut and repaired, which tests copy before they change it, and its plan."""
    path = tmp_path_factory.mktemp("repaired") / "out.onnx"
    return path, prune(DIGITS, path, ratio=0.5, **FEW).plan


@pytest.fixture(scope="module")
def plainly_cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """The same of a network that was cut alone."""
    path = tmp_path_factory.mktemp("cut") / "out.onnx"
    return path, prune(DIGITS, path, ratio=0.5, compensate="none", measure=False).plan


def noise(path: Path, name: str = "") -> Path:
    """The file with random numbers for its weights, or for one of them."""
    model, draw = onnx.load(path), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.data_type == 1 and name in ("", tensor.name):
            tensor.CopyFrom(numpy_helper.from_array(draw.normal(size=tensor.dims).astype(np.float32), tensor.name))
    onnx.save(model, path)
    return path


def of_version_1(plan: Plan) -> Plan:
    """As the first version would have written it."""
    data = plan.to_json() | {"version": 1}
    return Plan.from_json({k: v for k, v in data.items() if k not in ("readers", "computed", "digests", "content")})


@pytest.mark.parametrize("name", ["", "conv2.weight", "conv1.weight"])
@pytest.mark.parametrize("how", ["repaired", "plainly_cut"])
def test_other_weights_are_found_out(tmp_path: Path, request: pytest.FixtureRequest, how: str, name: str) -> None:
    """All of them, one that was repaired, and one that was not."""
    path, plan = request.getfixturevalue(how)
    found = verify(DIGITS, path, plan)
    assert found.passed
    assert found.same
    assert bool(found.weights.planned) == (how == "repaired")
    with pytest.raises(CheckFailed):
        verify(DIGITS, noise(shutil.copy(path, tmp_path), name), plan)


def test_a_repair_that_an_old_plan_does_not_bind_is_not_verified(
    run: Runner, there: Path, repaired: tuple[Path, Plan]
) -> None:
    path, plan = repaired
    of_version_1(plan)  # can be read
    old = plan.to_json() | {"version": 1, "copies": {}}
    (there / "p.json").write_text(json.dumps({k: v for k, v in old.items() if k not in ("digests", "content")}))
    outcome = run("verify", DIGITS, path, "--plan", "p.json")
    assert outcome.code == 1
    assert "the surgery alone is right" in outcome.err
    assert "any weights would pass" in outcome.err


def test_an_old_plan_of_a_cut_alone_binds_all_weights(tmp_path: Path) -> None:
    model = build(SHARED)
    plan = of_version_1(prune(model, tmp_path / "out.onnx", ratio=0.5, round_to=1, compensate="none").plan)
    found = verify(model, tmp_path / "out.onnx", plan)
    assert found.passed
    assert found.same is None
    with pytest.raises(CheckFailed):
        verify(model, noise(tmp_path / "out.onnx", "b"), plan)


def test_an_old_lossless_plan_is_proven_against_the_original(tmp_path: Path) -> None:
    model = build("a = Conv(x, w1[8,3,1,1], b[8])  c = Relu(a)  y = Conv(c, w2[4,8,1,1])")
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[1] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, model.graph.initializer[0].name))
    result = prune(model, tmp_path / "out.onnx", lossless=True, measure=False)
    for plan in (result.plan, of_version_1(result.plan)):
        assert verify(model, tmp_path / "out.onnx", plan).passed
    with pytest.raises(CheckFailed):
        verify(model, noise(tmp_path / "out.onnx"), of_version_1(result.plan))


def test_another_checkpoint_has_a_plan_of_its_own(
    tmp_path: Path, repaired: tuple[Path, Plan], plainly_cut: tuple[Path, Plan]
) -> None:
    (tmp_path / "other.onnx").write_bytes(DIGITS.read_bytes())
    other, (_, cut), (_, given) = noise(tmp_path / "other.onnx"), plainly_cut, repaired
    apply(other, cut, tmp_path / "cut.onnx", measure=False)
    assert verify(other, tmp_path / "cut.onnx", cut).passed  # numpy.take of whatever the weights are
    own = apply(other, given, tmp_path / "repaired.onnx", **FEW).plan
    assert verify(other, tmp_path / "repaired.onnx", own).passed
    with pytest.raises(CheckFailed, match="made for another file"):
        verify(other, tmp_path / "repaired.onnx", given)


@pytest.mark.parametrize("options", [{"ratio": 0.5, "compensate": "none"}, {"lossless": True}], ids=["cut", "lossless"])
def test_a_plan_of_another_file_is_named_as_the_cause(tmp_path: Path, options: dict[str, Any]) -> None:
    """Of a network that computes something else with tensors of the same names."""
    model = build("a = Conv(x, w1[8,3,1,1], b[8])  c = Relu(a)  y = Conv(c, w2[4,8,1,1])")
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[:6] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, model.graph.initializer[0].name))
    plan = prune(model, tmp_path / "out.onnx", round_to=1, measure=False, **options).plan
    assert plan.kept["w1"].size < 8
    assert verify(model, tmp_path / "out.onnx", plan).passed
    other = ModelProto.FromString(model.SerializeToString())
    next(node for node in other.graph.node if node.op_type == "Relu").op_type = "Sigmoid"
    with pytest.raises(CheckFailed, match=r"NOT equal.*; the plan was made for another file"):
        verify(other, tmp_path / "out.onnx", plan)
    with pytest.raises(CheckFailed) as caught:  # of its own file the pruned model is to blame
        verify(model, behind(tmp_path / "out.onnx", helper.make_node("Neg", ["raw"], ["last"])), plan)
    assert "another file" not in str(caught.value)


def test_an_order_that_changes_the_network_is_no_excuse_for_weights(repaired: tuple[Path, Plan]) -> None:
    """A layer whose filters are swapped in the file and by the plan, and not for those that read it."""
    model, data = onnx.load(repaired[0]), repaired[1].to_json()
    weight, kept = model.graph.initializer[0], data["groups"][0]["keep"]
    order = list(range(data["groups"][0]["channels"]))
    order[kept[0]], order[kept[1]] = kept[1], kept[0]
    array = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(array[[1, 0, *range(2, len(array))]], weight.name))
    plan = Plan.from_json(data | {"alignment": {"orders": {weight.name: {"0": order}}, "grouped": {}}})
    with pytest.raises(CheckFailed, match="order of the plan is not the original"):
        verify(DIGITS, model, plan)


def test_the_content_is_the_same_wherever_weights_are_stored(tmp_path: Path, repaired: tuple[Path, Plan]) -> None:
    path, plan = repaired
    shutil.copy(path, tmp_path / "in.onnx")
    other = prune(DIGITS, tmp_path / "out.onnx", ratio=0.5, save_as_external_data=True, **FEW).plan
    assert plan == other
    for name in ("in.onnx", "out.onnx"):
        assert verify(DIGITS, tmp_path / name, plan).same
    model = onnx.load(tmp_path / "in.onnx")
    model.producer_name = "someone"
    onnx.save(model, tmp_path / "in.onnx")
    found = verify(DIGITS, tmp_path / "in.onnx", plan)
    assert found.passed
    assert not found.same
    assert "changed since the plan was made" in str(found)


def behind(path: Path, *nodes: onnx.NodeProto) -> Path:
    """The file with nodes behind its output, from `raw` to `last`, which no input that is run shows."""
    model = onnx.load(path)
    name = model.graph.output[0].name
    maker = next(n for n in model.graph.node if name in n.output)
    maker.output[list(maker.output).index(name)] = "raw"
    model.graph.node.extend([*nodes, onnx.helper.make_node("Identity", ["last"], [name])])
    onnx.save(model, path)
    return path


def test_what_was_put_behind_the_network_is_refused_or_told(tmp_path: Path, repaired: tuple[Path, Plan]) -> None:
    node, (path, plan) = onnx.helper.make_node, repaired
    for name in ("a.onnx", "b.onnx"):
        shutil.copy(path, tmp_path / name)
    limit = node("Constant", [], ["limit"], value_float=1e6)  # no tensor, and a number nevertheless
    with pytest.raises(CheckFailed, match="NOT as planned"):
        verify(DIGITS, behind(tmp_path / "a.onnx", limit, node("Min", ["raw", "limit"], ["last"])), plan)
    found = verify(DIGITS, behind(tmp_path / "b.onnx", node("ThresholdedRelu", ["raw"], ["last"], alpha=-1e9)), plan)
    assert "with nodes that the cut does not make (Identity, ThresholdedRelu): run, and not bound" in str(found)


def test_what_was_shown_is_told(run: Runner, there: Path) -> None:
    words = ("--ratio", 0.5, "--compensate", "none", "--no-measure", "--plan-out", "p.json")
    assert run(DIGITS, "out.onnx", *words).code == 0
    outcome = run("verify", DIGITS, "out.onnx", "--plan", "p.json")
    assert outcome.code == 0
    for word in ("surgery:", "weights:", "what the plan keeps of the original", "file:", "drift from the original:"):
        assert word in outcome.out
    found = run("verify", DIGITS, "out.onnx", "--plan", "p.json", "--json").json
    assert found["verified"] is True
    assert found["weights"]["taken"]
    assert not found["weights"]["unbound"]
    assert onnxprune.Plan.load("p.json").digests == {}
