"""Training between cuts and after them: what is proven, what the teacher is, and what Ctrl-C ends."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from cli_runs import DIGITS
from rotatable import attention, sequences
from test_finetune import samples, stopping
from text_graphs import build

from onnxprune import Plan, finetune, prune, verify
from onnxprune.pipeline import tune
from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.inspect import analysed
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.steps import step_request

pytest.importorskip("torch", reason="training needs torch: pip install 'onnxprune[train]'")

pytestmark = pytest.mark.usefixtures("_short_epochs")


@pytest.fixture
def _short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "EPOCH", 512)
    monkeypatch.setattr(tune, "SHORT", 64)


@pytest.mark.parametrize(
    "options",
    [
        {"target": "macs=0.2"},
        {"target": "macs=0.2", "steps": 2},
        {"ratio": 0.7, "method": "l2", "steps": 3},
        {"target": "macs=0.7", "method": "msvfp"},
    ],
    ids=["one cut", "steps", "steps of a ratio", "msvfp"],
)
def test_pruning_and_training_in_one_run_are_proven_together(there: Path, options: dict[str, Any]) -> None:
    result = prune(DIGITS, "out.onnx", data=samples(), finetune=2, measure=False, threads=1, **options)
    result.plan.save("plan.json")
    assert verify(DIGITS, "out.onnx", Plan.load("plan.json")).passed
    before, after = result.report.before.macs, result.report.after.macs
    assert after / before <= float(options.get("target", "macs=0.2").split("=")[1])
    trainings = [n for n in result.report.notes if n.startswith("trained ")]
    assert len(trainings) >= options.get("steps", 3 if "method" in options else 1)


def test_a_shared_weight_stays_shared() -> None:
    shared = build(
        "s = Conv(x, k[4,3,1,1])  a = Conv(s, w[4,4,1,1], b[4])  c = Relu(a)  d = Conv(c, w, b)  "
        "e = Conv(d, v[8,4,1,1])  y = Conv(e, u[4,8,1,1])"
    )
    result = prune(shared, ratio=0.5, compensate="none", finetune=2, measure=False, verify=True, threads=1)
    assert sorted(t.name for t in result.model.graph.initializer) == sorted(t.name for t in shared.graph.initializer)


def test_the_original_is_the_teacher_in_every_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    taught = []

    def noted(run: Any, teacher: tune.Teacher, pruned: onnx.ModelProto, *_: Any) -> onnx.ModelProto:
        taught.append(teacher.study.network.proto())
        return pruned

    monkeypatch.setattr(tune, "tune", noted)
    monkeypatch.setattr("onnxprune.pipeline.steps.tune", noted)
    prune(DIGITS, target="macs=0.7", method="msvfp", steps=2, finetune=1, data=samples(), measure=False, verify=False)
    assert len(taught) > 3
    assert all(weights_of(model) == weights_of(taught[0]) for model in taught)


def weights_of(model: onnx.ModelProto) -> dict[str, bytes]:
    return {t.name: t.raw_data for t in model.graph.initializer}


def test_ctrl_c_between_cuts_ends_all_training_and_no_cut(there: Path) -> None:
    progress = stopping(3, KeyboardInterrupt)
    result = prune(
        DIGITS, "out.onnx", target="macs=0.3", steps=3, finetune=50, data=samples(), measure=False, progress=progress
    )
    assert result.report.after.macs / result.report.before.macs <= 0.3
    assert sum(note.startswith("trained ") for note in result.report.notes) == 1
    assert verify(DIGITS, "out.onnx", result.plan).passed


def test_shares_of_single_layers_hold_over_all_steps() -> None:
    found = prune(
        DIGITS, ratio=0.3, steps=3, finetune=1, ratio_for={"conv2*": 0.5}, max_ratio=0.5, method="l2", round_to=1,
        compensate="none", data=samples(), measure=False, strict=True,
    )  # fmt: skip
    kept = {g.name: g.kept / g.channels for g in found.report.groups}
    assert min(kept.values()) >= 0.5
    assert kept["conv2.weight"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize(
    "options",
    [{"target": "macs=0.3", "max_ratio": 0.25}, {"ratio": 0.3, "ratio_for": {"conv[12]*": 0.1}}],
    ids=["largest ratio", "ratio"],
)
def test_counts_are_rounded_once_whatever_the_number_of_cuts(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], steps: int
) -> None:
    monkeypatch.setattr("onnxprune.pipeline.steps.tune", lambda run, teacher, pruned, *_: pruned)
    monkeypatch.setattr(tune, "tune", lambda run, teacher, pruned, *_: pruned)
    options |= {"method": "l2", "compensate": "none", "finetune": 1, "measure": False, "verify": False}
    once, often = (prune(DIGITS, **options, **more).report for more in ({}, {"steps": steps}))
    assert [g.kept for g in often.groups] == [g.kept for g in once.groups]


@pytest.mark.parametrize("steps", [2, 3])
def test_what_a_cost_can_go_down_to_is_a_share_of_the_original(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr("onnxprune.pipeline.steps.tune", lambda run, teacher, pruned, *_: pruned)
    monkeypatch.setattr(tune, "tune", lambda run, teacher, pruned, *_: pruned)
    options = {"target": "macs=0.1", "max_ratio": 0.25, "finetune": 1, "measure": False, "verify": False}
    reports = [
        prune(DIGITS, method="l2", compensate="none", **options, **more).report for more in ({}, {"steps": steps})
    ]
    once, often = ([w for w in report.warnings if "can only go down" in w] for report in reports)
    assert once == often


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.97, "include": ["w"]},
        {"ratio": 0.3, "ratio_for": {"w": 0.97}},
        {"target": "macs=0.3", "ratio_for": {"w": 0.97}, "exclude": ["v"]},
    ],
    ids=["included", "ratio", "target"],
)
def test_groups_that_earlier_cuts_left_one_channel_are_still_known(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("onnxprune.pipeline.steps.tune", lambda run, teacher, pruned, *_: pruned)
    monkeypatch.setattr(tune, "tune", lambda run, teacher, pruned, *_: pruned)
    model = build("a = Conv(x, w[6,3,1,1])  b = Relu(a)  c = Conv(b, v[9,6,1,1])  d = Relu(c)  y = Conv(d, u[7,9,1,1])")
    options |= {"method": "l2", "compensate": "none", "finetune": 1, "measure": False, "verify": False}
    once, often = (prune(model, **options, **more).report for more in ({}, {"steps": 4}))
    assert [g.kept for g in often.groups] == [g.kept for g in once.groups]


def test_a_rotated_plan_is_learnt_in_its_own_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = attention(), sequences(64)
    result = prune(model, ratio=0.5, round_to=1, data=data, measure=False, heads="dims")
    assert result.plan.rotation
    teachers = []

    def noted(run: Any, teacher: tune.Teacher, pruned: onnx.ModelProto, *_: Any) -> onnx.ModelProto:
        teachers.append(teacher)
        return pruned

    monkeypatch.setattr("onnxprune.pipeline.finetune.tune", noted)
    finetune(model, result.model, plan=result.plan, epochs=1)
    (teacher,) = teachers
    assert teacher.kept is not None
    assert {name: list(kept) for name, kept in teacher.kept.items()} == {
        g.name: list(g.keep) for g in result.plan.groups if len(g.keep) < g.channels
    }
    assert teacher.study.network.proto().graph.initializer != model.graph.initializer, "it has the bases of the plan"
    assert teacher.study.request.heads == "dims"


def test_a_ratio_that_is_shared_out_leaves_what_cannot_be_ranked_whole_as_a_single_cut_does() -> None:
    nodes = "a = Conv(x, w1[16,3,3,3])  b = Relu(a)  c = Conv(b, w2[16,16,1,1])"
    nodes += "  d = BatchNormalization(c, s[16], t[16], u[16], v[16])  e = Relu(d)  y = Conv(e, w3[4,16,1,1])"
    run = analysed(build(nodes), "inspect", {})
    request = Request.of({"ratio": 0.5, "allocation": "sensitivity", "steps": 2, "finetune": 1, "method": "bn"})
    chooser = Chooser.of(replace(run, request=request), lambda: pytest.fail("nothing is to be run"))
    assert len(chooser.free) == 1 < len(chooser.groups)
    wanted = chooser.budget(None).as_target(chooser.costs).target
    (limit,) = step_request(request, 1, run.original, {}).target or ()
    assert wanted is not None
    assert limit.share == pytest.approx(wanted[1])


def test_the_last_step_is_asked_for_the_very_share() -> None:
    run = analysed(build("y = Conv(x, w[16,3,3,3])"), "inspect", {})
    request = Request.of({"ratio": 0.05, "ratio_for": {"*": 0.1}, "steps": 2, "finetune": 1, "method": "l1"})
    last = step_request(request, 1, run.original, {})
    assert (last.ratio, last.ratio_for) == (0.05, {"*": 0.1})
