"""The methods, allocations and budgets on real networks: what they ask of data, what they keep, and that it repeats."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_runs import ROOT
from onnx import TensorProto, helper, numpy_helper
from rotatable import transformer

import onnxprune
from onnxprune.channels import analyse
from onnxprune.criteria import METHODS
from onnxprune.errors import CheckFailed, ModelError, UsageError
from onnxprune.model.network import Network
from onnxprune.pipeline import budgets, evidence, measure
from onnxprune.pipeline.calibration import calibrating
from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.decision import Choice
from onnxprune.pipeline.feature_maps import views_of
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.rotate import rotate
from onnxprune.pipeline.run import Run, start
from onnxprune.pipeline.search import Bisection
from onnxprune.pipeline.study import Study
from onnxprune.pipeline.trials import Trials, likeness, task_loss
from onnxprune.progress import silent
from onnxprune.report.summary import Probe
from onnxprune.runtime.accuracy import find_metric
from onnxprune.runtime.batches import Dataset
from onnxprune.runtime.data import open_data
from onnxprune.runtime.latency import Latency
from onnxprune.runtime.session import make_session
from onnxprune.runtime.specs import model_inputs

DIGITS, MIXED = ROOT / "models/digits_cnn.onnx", ROOT / "models/digits_mixed.onnx"
SAMPLE = str(ROOT / "models/digits_sample.npz")
RESNET = ROOT.parent / "shared/models/resnet20_cifar10_batchnorm.onnx"
IMAGES = ROOT.parent / "shared/data/cifar10_train_10k.npz"
CIFAR = {"data": str(IMAGES), "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225", "limit": 64}
FAST = {"msvfp": {"images": 16}, "cshe": {"images": 16}}
PUBLISHED = ("ncc", "cshe", "apssf", "spectral", "msvfp", "l1", "l2", "fpgm", "bn")

needs_resnet = pytest.mark.skipif(not (RESNET.exists() and IMAGES.exists()), reason="ResNet-20 or CIFAR-10 is not here")


def pruned(source: Any, **options: Any) -> onnxprune.Result:
    return onnxprune.prune(source, **{"measure": False, "compensate": "none", **options})


def studied(path: Path, limit: int | None = None) -> tuple[Study, Dataset]:
    model = onnx.load(path)
    request = Request.of({}, ratio=0.5, data=SAMPLE)
    return Study.of(Network.of(model), {}, request), open_data(SAMPLE, model_inputs(model), limit=limit)


def half(study: Study) -> dict[str, np.ndarray]:
    return {g.name: np.arange(0, len(g), 2) for g in study.deps.groups}


# --- trials by masking -------------------------------------------------------


@pytest.mark.parametrize("path", [DIGITS, MIXED], ids=lambda p: p.stem)
def test_a_masked_trial_gives_what_the_pruned_model_gives(path: Path) -> None:
    study, samples = studied(path, limit=50)
    trials = Trials(study, samples)
    assert trials._fed, "weights are fed, not built into a model for each trial"
    batch = next(iter(trials.batches))
    for kept in (half(study), {study.deps.groups[0].name: np.arange(3)}, {}):
        given = trials.runner(kept)(batch.feeds)
        model = study.pruned(kept) if kept else study.network
        for name, value in make_session(model).run(batch.feeds).items():
            np.testing.assert_allclose(given[name], value, rtol=1e-4, atol=1e-4)


def test_trials_without_fed_weights_give_the_same() -> None:
    study, samples = studied(DIGITS, limit=50)
    trials = Trials(study, samples)
    loss, _ = task_loss(trials)
    fed = trials.mean(half(study), loss)
    trials._fed = None
    assert trials.mean(half(study), loss) == pytest.approx(fed, rel=1e-5)


def test_the_loss_follows_labels_and_else_the_original() -> None:
    study, samples = studied(DIGITS, limit=50)
    trials = Trials(study, samples)
    loss, what = task_loss(trials)
    assert what == "cross-entropy with the labels"
    batch = next(iter(trials.batches))
    outputs = trials.runner({})(batch.feeds)
    logits = next(iter(outputs.values())).astype(np.float64)
    right = np.exp(logits[np.arange(len(logits)), batch.labels]) / np.exp(logits).sum(axis=1)
    assert loss(outputs, outputs, batch.labels)[0] == pytest.approx(-np.log(right).sum())
    own, what = likeness(outputs)
    assert what == "cross-entropy with the original's own predictions"
    entropy = own(outputs, outputs, None)[0]
    assert 0 <= entropy < own({k: v + np.arange(10) for k, v in outputs.items()}, outputs, None)[0]
    none, what = likeness({"boxes": np.ones((2, 1), np.float32)})
    assert what == "squared error relative to the original's outputs"
    assert likeness({"boxes": np.ones((2, 9, 4), np.float32)})[1] == what
    assert none({"y": np.array([3.0])}, {"y": np.array([4.0])}, None) == (1 / 16, 1)


def test_labels_that_do_not_fit_say_so() -> None:
    data = [{"image": np.zeros((4, 1, 8, 8), np.float32), "labels": np.array([0, 1, 2, 77])}]
    with pytest.raises(UsageError, match="labels go from 0 to 77; the model has 10 classes"):
        pruned(DIGITS, target="macs=0.9", method="msvfp", data=data)


# --- feature maps ------------------------------------------------------------


def test_maps_are_taken_behind_the_activation_and_in_front_of_pooling() -> None:
    deps = analyse(onnx.load(DIGITS))
    for group in deps.groups:
        (view,) = views_of(deps, group)
        maker = deps.maker(view.value)
        assert maker is not None
        assert maker.proto.op_type == "Relu"
        assert view.positions.shape == (len(group), 1)
    first, last = deps.groups[0], deps.groups[-1]
    assert views_of(deps, first)[0].axis == 1
    assert views_of(deps, last)[0].maps(np.ones((5, len(last)))).shape == (5, len(last))


def test_a_stream_is_seen_wherever_it_is_read() -> None:
    deps = analyse(onnx.load(MIXED))
    seen = {g.name: [deps.maker(v.value).proto.op_type for v in views_of(deps, g)] for g in deps.groups}  # type: ignore[union-attr]
    assert all(seen.values()), "every group of this network has maps"
    assert max(map(len, seen.values())) >= 2
    assert not {op for ops in seen.values() for op in ops} & {"Concat", "MaxPool", "AveragePool", "Flatten"}


def two_filters() -> onnx.ModelProto:
    """Two 1×1 filters that copy one of two input channels each, and a sum over space behind them."""
    weights = [
        numpy_helper.from_array(np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1), "w1"),
        numpy_helper.from_array(np.ones((3, 2, 1, 1), np.float32), "w2"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 1, 1])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_cshe_keeps_the_channel_whose_maps_hold_more() -> None:
    strong, weak = np.eye(2) * 3, np.eye(2)  # eigenvalues of AᵀA: 9 and 9, 1 and 1
    for first, second, stays in ((strong, weak, 0), (weak, strong, 1), (-strong, weak, 1)):  # ReLU takes the negative
        image = np.stack([first, second])[None].astype(np.float32)
        found = pruned(two_filters(), ratio=0.5, method="cshe", data=[{"x": image}])
        assert found.plan.groups[0].keep == (stays,)
    assert "feature maps of 1 samples rank the channels" in found.report.notes


# --- methods -----------------------------------------------------------------


@pytest.mark.parametrize("name", [m for m in METHODS if m not in ("obs", "bn")])
def test_every_method_meets_a_target_twice_alike(name: str, tmp_path: Path) -> None:
    options = {"target": "macs=0.6", "method": name, "data": SAMPLE, "method_options": FAST.get(name, {})}
    digests = []
    for k in range(2):
        found = onnxprune.prune(
            DIGITS, tmp_path / f"{k}.onnx", measure=False, compensate="none", allocation="uniform", limit=100, **options
        )
        digests.append(hashlib.sha256((tmp_path / f"{k}.onnx").read_bytes()).digest())
    assert digests[0] == digests[1]
    assert 0.5 < found.report.after.macs / found.report.before.macs <= 0.6
    assert "of the MACs" in found.report.got


@needs_resnet
def test_nine_methods_on_a_resnet_differ_and_hold_their_target() -> None:
    plans = set()
    for name in PUBLISHED:
        found = pruned(
            RESNET, target="macs=0.6", method=name, allocation="uniform", method_options=FAST.get(name, {}), **CIFAR
        )
        left = found.report.after.macs / found.report.before.macs
        assert 0.55 < left <= 0.60, (name, left)
        plans.add(tuple(g.keep for g in found.plan.groups))
    assert len(plans) == len(PUBLISHED)


def test_methods_that_need_data_say_so() -> None:
    for name in ("cshe", "msvfp"):
        with pytest.raises(UsageError, match=r"\(data\)"):
            pruned(DIGITS, ratio=0.5, method=name)
    with pytest.raises(UsageError, match="unfused BatchNormalization"):
        pruned(DIGITS, ratio=0.5, method="bn")


def test_groups_that_bn_cannot_rank_stay_whole() -> None:
    found = pruned(MIXED, ratio=0.5, method="bn", allocation="uniform")
    whole = [g for g in found.report.groups if g.note]
    assert all(g.kept == g.channels for g in whole)
    assert {g.note for g in whole} <= {"no unfused BatchNormalization stands behind it"}
    assert any(g.kept < g.channels for g in found.report.groups)


# --- msvfp -------------------------------------------------------------------


def test_msvfp_tells_its_loss_and_prefers_what_hurts_least() -> None:
    options = {"target": "macs=0.6", "method": "msvfp", "method_options": {"images": 50}}
    found = pruned(DIGITS, data=SAMPLE, limit=60, **options)
    assert any("msvfp: " in n and "45 samples; loss: cross-entropy with the labels" in n for n in found.report.notes)
    images = np.load(SAMPLE)["image"][:50]
    unlabelled = pruned(DIGITS, data=[{"image": images}], **options)
    assert any("cross-entropy with the original's own predictions" in n for n in unlabelled.report.notes)
    uniform = pruned(DIGITS, target="macs=0.6", method="l2", allocation="uniform", data=SAMPLE)
    assert found.report.metrics[0].after >= uniform.report.metrics[0].after - 0.02


@pytest.mark.parametrize("allocation", ["sensitivity", "global"])
def test_a_ratio_of_nothing_needs_no_samples(allocation: str) -> None:
    report = pruned(DIGITS, ratio=0, allocation=allocation).report
    assert report.after.macs == report.before.macs


def test_msvfp_takes_a_ratio_over_all_groups_and_keeps_to_limits() -> None:
    found = pruned(
        DIGITS,
        ratio=0.4,
        method="msvfp",
        data=SAMPLE,
        limit=50,
        exclude=["conv1.weight"],
        ratio_for={"fc1.weight": 0.5},
    )
    rows = {g.name: g for g in found.report.groups}
    assert rows["conv1.weight"].kept == 48
    assert rows["fc1.weight"].kept == 32
    free = [g for name, g in rows.items() if name not in ("conv1.weight", "fc1.weight")]
    assert all(g.kept % (8 if g.channels >= 64 else 4) == 0 for g in free)
    same = pruned(DIGITS, ratio=0.4, exclude=["conv1.weight"], ratio_for={"fc1.weight": 0.5}, compensate="none")
    assert found.report.after.macs <= same.report.after.macs < found.report.before.macs
    assert found.report.asked.startswith("keep as many MACs as without 40% of the channels of each group")
    capped = pruned(DIGITS, target="macs=0.05", method="msvfp", data=SAMPLE, limit=50)
    assert any("with a cap of 0.7 on each group" in w for w in capped.report.warnings)


def test_retraining_keeps_its_weights_and_the_proof_holds() -> None:
    calls = []

    def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
        calls.append(model)
        trained = onnx.ModelProto()
        trained.CopyFrom(model)
        for tensor in trained.graph.initializer:
            if tensor.name == "fc2.bias":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))
        return trained

    found = pruned(DIGITS, target="macs=0.8", method="msvfp", data=SAMPLE, limit=50, retrain=doubled)
    assert calls
    before = {t.name: numpy_helper.to_array(t) for t in onnx.load(DIGITS).graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in found.model.graph.initializer}
    np.testing.assert_allclose(after["fc2.bias"], before["fc2.bias"] + len(calls))
    assert found.report.proof is not None
    kept = found.plan.initializers["conv2.weight"]
    expected = before["conv2.weight"]
    for axis, positions in kept.items():
        expected = expected.take(positions, axis)
    np.testing.assert_array_equal(after["conv2.weight"], expected)


def test_retraining_may_not_change_the_network() -> None:
    with pytest.raises(UsageError, match="'retrain' gave a model without"):
        pruned(DIGITS, target="macs=0.8", method="msvfp", data=SAMPLE, limit=50, retrain=lambda m: onnx.ModelProto())


# --- allocations -------------------------------------------------------------


def test_allocations_differ_and_all_hold_the_target() -> None:
    kept = {}
    for allocation in ("uniform", "global", "sensitivity"):
        found = pruned(DIGITS, target="macs=0.5", method="l2", allocation=allocation)
        assert 0.45 < found.report.after.macs / found.report.before.macs <= 0.5
        kept[allocation] = tuple(g.kept for g in found.report.groups)
    assert len(set(kept.values())) == 3


def test_coarse_steps_are_told() -> None:
    path = ROOT / "models/mnist_cnn.onnx"
    coarse = pruned(path, target="macs=0.7", method="l1", allocation="uniform")
    left = coarse.report.after.macs / coarse.report.before.macs
    assert left < 0.69
    assert f"macs end at {left:.1%}: a step of any group back exceeds 70.0%" in " ".join(coarse.report.notes)
    fine = pruned(path, target="macs=0.7", method="l1", allocation="uniform", round_to=1)
    assert fine.report.after.macs / fine.report.before.macs > 0.69
    assert not any("macs end at" in n for n in fine.report.notes)


@pytest.mark.slow
@needs_resnet
def test_measured_sensitivity_beats_a_uniform_share_on_a_resnet() -> None:
    figures = {
        allocation: pruned(RESNET, target="macs=0.7", method="l2", allocation=allocation, **{**CIFAR, "limit": 48})
        .report.metrics[0]
        .after
        for allocation in ("uniform", "sensitivity")
    }
    assert figures["sensitivity"] > figures["uniform"] + 0.1


def test_sensitivity_curves_rise_and_are_told() -> None:
    measured = onnxprune.sensitivity(DIGITS, data=SAMPLE, method="l1", limit=100)
    assert measured.samples == 100
    assert [c.channels for c in measured.curves] == [48, 48, 96, 96, 64]
    for curve in measured.curves:
        losses = curve.at_every_count()
        assert losses.shape == (curve.channels + 1,)
        assert losses[0] == 0
        assert (np.diff(losses) >= 0).all()
        assert curve.losses[-1] > 0.1
    modelled = onnxprune.sensitivity(DIGITS, method="l1", include=["conv1.weight"])
    assert [c.group for c in modelled.curves] == ["conv1.weight"]
    assert modelled.samples == 0


def test_sensitivity_of_obs_is_that_of_its_repair() -> None:
    found = onnxprune.sensitivity(DIGITS, data=SAMPLE, method="obs", limit=100, include=["conv3.weight"])
    (curve,) = found.curves
    assert "solved again" in found.what
    assert curve.losses[-1] > 0


# --- the largest cut within a drop -------------------------------------------


def test_bisection_finds_the_smallest_share_that_holds() -> None:
    cuts = Bisection(lambda share: (share, Probe(share, (share,), share >= 0.3)))
    assert 0.3 <= cuts.last(0.0, 1.0, 0.01) < 0.31
    assert [p.holds for p in cuts.probes] == [True, False, True, True, False, False, True]
    assert Bisection(lambda share: (share, Probe(share, (), False))).last(0.5, 1.0, 0.1) == 1.0


def test_where_nothing_lies_between_the_least_share_and_the_whole_the_least_is_tried() -> None:
    report = onnxprune.prune(DIGITS, max_drop="1%", data=SAMPLE, exclude=["*"], method="l2", measure=False).report
    assert all(g.kept == g.channels for g in report.groups)


def test_max_drop_is_held_and_its_search_is_told() -> None:
    found = pruned(DIGITS, max_drop="2%", method="l1", allocation="uniform", data=SAMPLE, limit=200)
    (top1,) = [m for m in found.report.metrics if m.name == "top1"]
    assert top1.before - top1.after <= 0.02
    assert found.report.after.macs < 0.8 * found.report.before.macs
    (told,) = [n for n in found.report.notes if n.startswith("search for the largest cut with top1")]
    assert "✓" in told
    assert "✗" in told


def test_a_drop_is_judged_on_the_test_data_where_there_are_some() -> None:
    options = {"max_drop": "4%", "method": "l1", "allocation": "uniform", "compensate": "none"}
    judged = pruned(DIGITS, test_data=SAMPLE, **options)
    (told,) = [n for n in judged.report.notes if n.startswith("search for the largest cut with top1")]
    data = pruned(DIGITS, data=SAMPLE, **options)
    assert told in data.report.notes


FARTHEST = """
import numpy as np

def fn(outputs, labels, reference):
    (a,), (b,) = outputs.values(), reference.values()
    return -np.abs(a - b).max(axis=1)
"""


def test_a_drop_that_nothing_holds_is_a_failed_check(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(FARTHEST)
    options = {"method": "ncc", "allocation": "uniform", "data": SAMPLE, "limit": 50}
    with pytest.raises(CheckFailed, match="fewer macs cost more than max_drop allows"):
        pruned(MIXED, max_drop=0, metric=[f"{tmp_path / 'm.py'}:fn"], **options)


def test_max_drop_wants_data_and_a_number() -> None:
    with pytest.raises(UsageError, match="give data"):
        pruned(DIGITS, max_drop=0.01)
    with pytest.raises(UsageError, match=r"looks like 0\.01 or 1%"):
        pruned(DIGITS, max_drop="little", data=SAMPLE)
    with pytest.raises(UsageError, match="two budgets"):
        pruned(DIGITS, max_drop=0.01, ratio=0.5, data=SAMPLE)


def test_metric_by_masking_is_that_of_the_pruned_model() -> None:
    study, samples = studied(DIGITS)
    trials = Trials(study, samples)
    kept = {g.name: np.arange(len(g) - len(g) // 8) for g in study.deps.groups}
    masked = trials.figure(kept, find_metric("top1"))
    session = make_session(study.pruned(kept))
    right = [next(iter(session.run(b.feeds).values())).argmax(axis=1) == b.labels for b in samples]
    assert masked == pytest.approx(np.concatenate(right).mean(), abs=0.003)


def test_a_latency_is_met_by_a_search_over_the_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime whose time is what a third of the network costs anyway, plus its MACs: 60 % of it are 40 % of these."""
    monkeypatch.setattr(budgets, "timed", lasting(lambda macs: (1 + 2 * macs) / 3))
    found = pruned(DIGITS, target="latency=0.6", method="l1", allocation="uniform", compensate="none", round_to=1)
    left = found.report.after.macs / found.report.before.macs
    assert 0.35 < left <= 0.4
    (told,) = [n for n in found.report.notes if n.startswith("search for the most macs with latency=0.6")]
    assert "✓" in told
    assert "✗" in told


def lasting(seconds: Callable[[float], float]) -> Callable[[Run, Choice], tuple[Latency, Latency]]:
    """A machine that runs a network in so many seconds by the share of the MACs that is left."""

    def timed(run: Run, choice: Choice) -> tuple[Latency, Latency]:
        deps = run.original.deps
        whole, left = deps.macs(), deps.macs(deps.dead(choice.kept))
        times = (1.0, seconds(left / whole))
        before, after = (Latency(t, t, t, 100, 1, "CPU") for t in times)
        return before, after

    return timed


def test_a_latency_out_of_reach_is_told_and_is_a_failed_check_when_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "timed", lasting(lambda macs: 0.9))
    options = {"target": "latency=0.5", "method": "l1", "allocation": "uniform", "compensate": "none"}
    assert any("latency ends at 90.0%" in w for w in pruned(DIGITS, **options).report.warnings)
    with pytest.raises(CheckFailed, match="latency ends at"):
        pruned(DIGITS, strict=True, **options)


def test_a_latency_is_measured() -> None:
    run = start(DIGITS, Request.of({}, target="latency=0.9", method="l1"), silent)
    chooser = Chooser.of(run, calibrating(run.original, None))
    before, after = measure.timed(run, chooser.choose(("macs", 0.1)))
    assert 0 < after.median < 3 * before.median


def test_where_a_repair_fails_rotated_channels_go_by_their_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any, **more: Any) -> None:
        raise ModelError("no layer can be solved")

    monkeypatch.setattr(evidence, "curves_of", failing)
    run = start(transformer(blocks=1), Request.of({}, ratio=0.4, max_memory="1GiB"), silent)
    samples = calibrating(run.original, None)
    run, turned = rotate(run, samples)
    chooser = Chooser.of(run, samples, turned)
    assert chooser.evidence.method.name == "ncc"
    assert turned.energy
    for name, energy in turned.energy.items():
        order = chooser.ranking(run.original.deps.group(name)).order
        assert (np.diff(energy[order]) >= -1e-6 * energy.max()).all()


def test_how_the_sensitivity_was_measured_is_told_once() -> None:
    options = {"method": "ncc", "allocation": "sensitivity", "data": SAMPLE, "limit": 24, "verify": False}
    found = pruned(DIGITS, target=["activations=0.7", "macs=0.6"], **options)
    assert sum(note.startswith("sensitivity: ") for note in found.report.notes) == 1
