"""Targets as shares and as amounts in the user's units, one or several: what they mean, and that they hold."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_runs import DIGITS, MIXED, SAMPLE, Runner
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

import onnxprune
from onnxprune.channels import analyse
from onnxprune.errors import CheckFailed, UsageError
from onnxprune.pipeline import costs
from onnxprune.pipeline.request import Request

READ = {
    "macs=0.5": ("macs", 0.5, None),
    "MACS = 50%": ("macs", 0.5, None),
    "macs=50M": ("macs", None, 50e6),
    "params=1M": ("params", None, 1e6),
    "params=20000": ("params", None, 20000),
    "params=0.05k": ("params", None, 50),
    "size=250KB": ("size", None, 250e3),
    "size=1.5MiB": ("size", None, 1.5 * 2**20),
    "activations=64KiB": ("activations", None, 65536),
    "latency=5ms": ("latency", None, 5e-3),
    "latency=800us": ("latency", None, 8e-4),
    "latency=0.6": ("latency", 0.6, None),
}


@pytest.mark.parametrize("text", READ)
def test_a_target_is_a_share_or_an_amount(text: str) -> None:
    (limit,) = Request.of({}, target=text).target or ()
    cost, share, amount = READ[text]
    assert (limit.cost, limit.share) == (cost, share)
    assert limit.amount == pytest.approx(amount)
    assert Request.of({}, target=str(limit)).target == (limit,)
    assert limit.most(1000.0) == pytest.approx(amount if share is None else 1000 * share)


@pytest.mark.parametrize(
    "text",
    [
        "macs",
        "flops=0.5",
        "macs=",
        "macs=50",
        "size=0KB",
        "macs=0",
        "latency=5",
        "latency=5KB",
        "size=5ms",
        "size=-1KB",
    ],
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="target wants macs=, params="):
        Request.of({}, target=text)
    with pytest.raises(UsageError, match="target wants"):
        Request.of({}, target=["macs=0.5", "macs=0.4"])


def test_a_plan_tells_targets_as_they_were_given() -> None:
    assert Request.of({}, target="macs=50%").recorded()["target"] == "macs=0.5"
    assert Request.of({}, target=["macs=0.5", "size=250KB"]).recorded()["target"] == ["macs=0.5", "size=250KB"]


def cut(model: Path, target: Any, **options: Any) -> onnxprune.Report:
    options = {"method": "l1", "allocation": "uniform", "compensate": "none", "measure": False, **options}
    return onnxprune.prune(model, target=target, **options).report


AMOUNTS = {
    "macs=1M": ("macs", 1e6),
    "params=60k": ("params", 60e3),
    "size=300KB": ("bytes", 300e3),
    "activations=12KiB": ("activations", 12 * 1024),
}


@pytest.mark.parametrize("target", AMOUNTS)
def test_an_amount_is_held_and_nearly_used_up(target: str) -> None:
    figure, most = AMOUNTS[target]
    report = cut(DIGITS, target, round_to=1)
    before, after = getattr(report.before, figure), getattr(report.after, figure)
    assert 0.9 * most < after <= most < before
    assert not report.warnings


def test_an_amount_that_there_is_anyway_removes_nothing() -> None:
    for target in ("macs=1G", "size=1GB", "activations=1GiB"):
        assert not cut(DIGITS, target).changed


def test_several_targets_hold_together() -> None:
    targets = ["macs=0.6", "size=400KB", "activations=13KiB"]
    report = cut(MIXED, targets, round_to=1)
    assert report.after.macs <= 0.6 * report.before.macs
    assert report.after.bytes <= 400e3
    assert report.after.activations is not None
    assert report.after.activations <= 13 * 1024
    single = [cut(MIXED, target, round_to=1).after.macs for target in targets]
    assert report.after.macs >= 0.95 * min(single)
    assert "keep macs=0.6 and size=400KB and activations=13KiB" in report.asked


def test_a_target_out_of_reach_is_named() -> None:
    report = cut(DIGITS, ["macs=0.5", "activations=100b"])
    assert any("activations ends at" in w or "activations end at" in w for w in report.warnings)
    with pytest.raises(CheckFailed, match=r"activations ends at .* KiB: nothing more can be cut"):
        cut(DIGITS, "activations=100b", strict=True)


def test_targets_are_repeated_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--target", "macs=0.6", "--target", "size=400KB", "--compensate", "none", "--method", "l1", "--dry-run"]
    found = Runner(capsys)(DIGITS, *words, "--no-measure", "--json").json
    assert found["options"]["target"] == ["macs=0.6", "size=400KB"]
    assert found["after"]["bytes"] <= 400e3


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network in int8."""

    class Digits(CalibrationDataReader):
        given = iter([{"image": np.load(SAMPLE)["image"][:20]}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.given, None)

    path = tmp_path_factory.mktemp("twin") / "int8.onnx"
    real = shutil.copy(DIGITS, path.with_name("real.onnx"))  # onnxruntime writes beside what it quantizes
    quantize_static(real, path, Digits(), quant_format=QuantFormat.QDQ, per_channel=True)
    return path


def test_integers_cost_what_they_are(twin: Path) -> None:
    """An int8 twin has the shares of its original and a quarter of its activations; weights are none of these."""
    real, whole = onnxprune.inspect(DIGITS), onnxprune.inspect(twin)
    assert [g.macs for g in whole.groups] == pytest.approx([g.macs for g in real.groups])
    assert [g.channels for g in whole.groups] == [g.channels for g in real.groups]
    assert all(a.params < b.params < 1.6 * a.params for a, b in zip(real.groups, whole.groups, strict=True))
    assert real.figures.activations == 4 * (whole.figures.activations or 0) == 24 * 1024


QUANTISED = {  # whether r, real numbers, is held as the integers q alone
    "a given scale": ("q = QuantizeLinear (r, s, z) y = DequantizeLinear (q, s, z)", True),
    "a scale of their own": ("q, t, u = DynamicQuantizeLinear (r) y = DequantizeLinear (q, t, u)", False),
    "an output": ("q = QuantizeLinear (r, s, z) y = DequantizeLinear (q, s, z)", False),
}


@pytest.mark.parametrize("how", QUANTISED)
def test_real_numbers_are_held_where_they_have_to_be_seen(how: str) -> None:
    text, integers = QUANTISED[how]
    end = "r" if how == "an output" else "y"
    graph = f"g (float[64, 8] x) => (float[64, 16] {end}) {{ r = MatMul (x, w) {text} }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {graph}')
    arrays = {"w": np.ones((8, 16), np.float32), "s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in arrays.items() if n in used)
    found = costs._integers(analyse(model))
    assert found.get("r") == ("q" if integers else None)
    assert not found.keys() & {value.name for value in model.graph.output}


@pytest.mark.parametrize("size", [84_215, 60_000, 30_000])
def test_a_few_bytes_too_many_are_a_step_more(twin: Path, size: int) -> None:
    report = cut(twin, f"size={size}b", verify=False)
    assert report.after.bytes <= size
    assert not report.warnings


@pytest.mark.parametrize("limit", [5, 4, 3])
def test_a_peak_thins_the_layers_at_the_peak_and_no_others(twin: Path, limit: int) -> None:
    """The first two convolutions are alive where 6 KiB are: all else keeps its channels."""
    report = cut(twin, f"activations={limit}KiB")
    assert report.after.activations == limit * 1024
    assert [g.name for g in report.groups if g.kept < g.channels] == [
        "conv1.weight_quantized",
        "conv2.weight_quantized",
    ]
    assert not any("macs end at" in note for note in report.notes), "of which nobody asked"
    both = cut(twin, [f"activations={limit}KiB", "params=50k"])
    assert both.after.activations is not None
    assert both.after.activations <= limit * 1024
    assert both.after.params <= 50_000
    assert not both.warnings
