"""Runs with compensation: what is promised of the cut holds for the network with new weights."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_runs import MODELS

import onnxprune
from onnxprune.pipeline import calibration

DIGITS, MIXED, SAMPLE = MODELS / "digits_cnn.onnx", MODELS / "digits_mixed.onnx", MODELS / "digits_sample.npz"


def top1(result: onnxprune.Result) -> tuple[float, float]:
    row = next(r for r in result.report.metrics if r.name == "top1")
    return row.before, row.after


def test_data_repairs_what_the_plain_cut_breaks() -> None:
    options = {"ratio": 0.5, "method": "ncc", "method_options": {"floor": 0}, "data": SAMPLE, "measure": False}
    plain = onnxprune.prune(DIGITS, compensate="none", **options)
    repaired = onnxprune.prune(DIGITS, **options)
    assert top1(plain)[1] < 0.9
    assert top1(repaired)[1] > 0.98
    assert {g.name: g.kept for g in plain.report.groups} == {g.name: g.kept for g in repaired.report.groups}


def test_a_target_without_data_is_met_on_drawn_samples() -> None:
    result = onnxprune.prune(MIXED, target="macs=0.5", measure=False, test_data=SAMPLE)
    assert 0.4 < result.report.after.macs / result.report.before.macs <= 0.5
    assert any("drawn samples" in note for note in result.report.notes)
    assert top1(result)[1] > 0.5  # the plain cut of this network guesses: 0.1


def test_three_altered_copies_join_images_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """None where memory does not allow three of all that are solved on."""
    some, tight = "", ""
    for memory in (calibration.MEMORY, calibration.MEMORY // 32):
        monkeypatch.setattr(calibration, "MEMORY", memory)
        notes = onnxprune.prune(DIGITS, ratio=0.5, method="l2", data=SAMPLE, measure=False).report.notes
        some, tight = tight, " ".join(notes)
    found = re.search(r"(\d+) samples of the data and altered copies, (\d+) in all", some)
    assert found is not None
    assert int(found[2]) == 4 * int(found[1])
    assert f"{found[1]} samples of the data, without" in tight


Files = tuple[onnxprune.Result, Path, Path]  # with the files of the network and of the plan


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return compensated(DIGITS, tmp_path_factory.mktemp("digits"))


def compensated(model: Path, folder: Path) -> Files:
    """Repaired on a few samples: here it is not asked how well."""
    out, plan = folder / "out.onnx", folder / "plan.json"
    result = onnxprune.prune(model, out, ratio=0.4, data=SAMPLE, limit=64, measure=False)
    result.plan.save(plan)
    return result, out, plan


def test_a_compensated_result_is_proven_again_from_its_files(digits: Files, tmp_path: Path) -> None:
    for model, (_, out, plan) in ((DIGITS, digits), (MIXED, compensated(MIXED, tmp_path))):
        assert onnxprune.verify(model, out, plan).passed


def test_a_wrong_compensated_file_is_found_out(digits: Files, tmp_path: Path) -> None:
    model = onnx.load(digits[1])
    node = next(n for n in model.graph.node if n.op_type == "Relu")
    node.op_type = "Abs"
    onnx.save(model, tmp_path / "out.onnx")
    with pytest.raises(onnxprune.CheckFailed):
        onnxprune.verify(DIGITS, tmp_path / "out.onnx", digits[2])


def test_the_proof_is_of_the_network_with_new_weights(digits: Files) -> None:
    result = digits[0]
    assert result.report.proof is not None
    plain = onnxprune.apply(DIGITS, result.plan, compensate="none", measure=False)  # of the same channels
    tensors = [{t.name: onnx.numpy_helper.to_array(t) for t in r.model.graph.initializer} for r in (result, plain)]
    assert tensors[0].keys() == tensors[1].keys()
    assert any(not np.array_equal(tensors[0][n], tensors[1][n]) for n in tensors[0])
