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
        some, tight = tight, " ".join(onnxprune.prune(DIGITS, ratio=0.5, data=SAMPLE, measure=False).report.notes)
    found = re.search(r"(\d+) samples of the data and altered copies, (\d+) in all", some)
    assert found is not None
    assert int(found[2]) == 4 * int(found[1])
    assert f"{found[1]} samples of the data, without" in tight


@pytest.mark.parametrize("model", [DIGITS, MIXED], ids=lambda p: p.stem)
def test_a_compensated_result_is_proven_again_from_its_files(model: Path, tmp_path: Path) -> None:
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    onnxprune.prune(model, out, ratio=0.4, data=SAMPLE, measure=False).plan.save(plan)
    assert onnxprune.verify(model, out, plan).passed


def test_a_wrong_compensated_file_is_found_out(tmp_path: Path) -> None:
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    result = onnxprune.prune(DIGITS, out, ratio=0.4, data=SAMPLE, measure=False)
    result.plan.save(plan)
    node = next(n for n in result.model.graph.node if n.op_type == "Relu")
    node.op_type = "Abs"
    onnx.save(result.model, out)
    with pytest.raises(onnxprune.CheckFailed):
        onnxprune.verify(DIGITS, out, plan)


def test_the_proof_is_of_the_network_with_new_weights() -> None:
    result = onnxprune.prune(DIGITS, ratio=0.5, data=SAMPLE, measure=False)
    assert result.report.proof is not None
    plain = onnxprune.prune(DIGITS, ratio=0.5, compensate="none", measure=False)
    tensors = [{t.name: onnx.numpy_helper.to_array(t) for t in r.model.graph.initializer} for r in (result, plain)]
    assert tensors[0].keys() == tensors[1].keys()
    assert any(not np.array_equal(tensors[0][n], tensors[1][n]) for n in tensors[0])
