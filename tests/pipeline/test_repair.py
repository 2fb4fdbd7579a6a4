"""What happens where nothing is said of it: every budget repairs, and nothing is made worse by that."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from cli_runs import DIGITS, MIXED, MODELS, SAMPLE, Runner, nothing_written
from onnx import helper, numpy_helper
from runtime_models import conv_net
from text_graphs import build

import onnxprune
from onnxprune.errors import CheckFailed, ModelError, UsageError
from onnxprune.model.network import Network
from onnxprune.pipeline import calibration, prune, repair
from onnxprune.pipeline.choose import Chooser
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.study import Study
from onnxprune.surgery.compensate import Compensated
from onnxprune.surgery.recovery.solve import NOT_FINITE

DETECTOR, SCENES = MODELS / "digits_detector.onnx", MODELS / "digits_scenes.npz"
RATIO = {"ratio": 0.5, "measure": False, "round_to": 1}


@pytest.mark.parametrize(
    ("options", "method", "compensate"),
    [
        ({"ratio": 0.5}, "obs", "lstsq"),
        ({"ratio_for": {"conv1*": 0.5}}, "obs", "lstsq"),
        ({"target": "macs=0.5"}, "obs", "lstsq"),
        ({"threshold": 0.9}, "ncc", "lstsq"),
        ({"ratio": 0.5, "method": "l1"}, "l1", "lstsq"),
        ({"ratio": 0.5, "compensate": "none"}, "ncc", "none"),
        ({"ratio": 0.5, "compensate": "merge"}, "ncc", "merge"),
        ({"lossless": True}, "ncc", "none"),
    ],
)
def test_what_is_not_said(options: dict[str, Any], method: str, compensate: str) -> None:
    request = Request.of({}, **options)
    assert (request.method, request.compensate) == (method, compensate)


def test_a_ratio_without_data_keeps_the_network_alive() -> None:
    repaired, plain = (
        onnxprune.prune(MIXED, ratio=0.5, measure=False, test_data=SAMPLE, compensate=c).report.metrics[0].after
        for c in ("auto", "none")
    )
    assert plain < 0.3
    assert repaired > 0.94


@pytest.mark.parametrize(("compensate", "together"), [("none", False), ("merge", False), ("lstsq", True)])
def test_losses_know_whether_layers_will_be_solved_together(
    compensate: str, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, curves = [], repair.repair_curves

    def watched(*args: Any, **words: Any) -> Any:
        told.append(words["together"])
        return curves(*args, **words)

    monkeypatch.setattr(repair, "repair_curves", watched)
    onnxprune.prune(conv_net(8), target="macs=0.5", method="obs", compensate=compensate, measure=False)
    assert told == [together]


def test_of_two_choices_the_clearly_nearer_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(second: float) -> list[int]:
        monkeypatch.setattr(prune, "nearness", lambda *_: [8.0, second])
        report = onnxprune.prune(MIXED, target="macs=0.5", measure=False, round_to=1).report
        spared = [note for note in report.notes if note.startswith("the last groups were spared more: 9.0 dB")]
        assert len(spared) == (second == 9.0)
        assert sum(note.startswith("lstsq changed") for note in report.notes) == 1  # of the one that was taken
        assert report.after.macs <= 0.5 * report.before.macs
        return [row.kept for row in report.groups]

    usual, near, other = map(kept, (3.0, 8.4, 9.0))
    assert usual == near
    early, late = slice(0, len(usual) // 2), slice(len(usual) // 2, None)
    assert sum(other[early]) < sum(usual[early])
    assert sum(other[late]) > sum(usual[late])


@pytest.mark.parametrize(
    ("options", "work"),
    [
        ({"target": "macs=0.5"}, 1e8),  # a second repair would take long
        ({"target": "macs=0.5", "allocation": "uniform"}, calibration.WORK),
        ({"target": "macs=0.5", "compensate": "merge"}, calibration.WORK),
        ({"target": "activations=0.5"}, calibration.WORK),  # searched, and not planned
        ({"threshold": 0.9}, calibration.WORK),
    ],
)
def test_where_a_second_choice_is_not_made(
    options: dict[str, Any], work: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, other = list[Chooser | None](), Chooser.other
    monkeypatch.setattr(Chooser, "other", lambda self: asked.append(other(self)) or asked[-1])
    monkeypatch.setattr(calibration, "WORK", work)
    onnxprune.prune(MIXED, **options, measure=False)
    assert asked == [None]


@pytest.mark.parametrize("fault", ["worse", "fails"])
def test_a_repair_that_does_not_help_is_left_out(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(name: str, model: Network, deps: Any, *_: object, **__: object) -> Compensated:
        if fault == "fails":
            raise ModelError(NOT_FINITE)
        other = model.with_tensors({"w3": -model.array("w3")})
        return Compensated(other, deps, ("w3",), {})

    model = conv_net(channels=16)
    plain = onnxprune.prune(model, compensate="none", method="obs", **RATIO)
    monkeypatch.setattr(repair, "compensate", damaged)
    result = onnxprune.prune(model, allocation="uniform", **RATIO)
    assert result.report.warnings[0].startswith("cut without repair")
    assert result.model.graph == plain.model.graph


def with_number(number: float, place: int = 2) -> onnx.ModelProto:
    """Three convolutions, the first of which has this number in one of eight filters."""
    rng = np.random.default_rng(7)
    graph = onnx.parser.parse_graph(
        "g (float[N,3,8,8] x) => (float[N,5,8,8] y) { a = Conv<pads=[1,1,1,1]>(x, w1, b)  c = Relu(a)"
        "  d = Conv(c, w2)  e = Relu(d)  y = Conv(e, w3) }"
    )
    tensors = {"w1": rng.standard_normal((8, 3, 3, 3)), "b": rng.standard_normal(8)}
    tensors |= {"w2": rng.standard_normal((16, 8, 1, 1)), "w3": rng.standard_normal((5, 16, 1, 1))}
    tensors["w1"][place, 0, 0, 0] = number
    graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), name) for name, a in tensors.items())
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [np.inf, 1e38])
@pytest.mark.parametrize("budget", [{"ratio": 0.25}, {"target": "macs=0.5"}, {"threshold": 0.1}])
def test_numbers_that_nothing_can_be_solved_on_are_told_of_in_a_line(number: float, budget: dict[str, Any]) -> None:
    model = with_number(number)
    report = onnxprune.prune(model, **budget, measure=False, verify=False).report  # infinity times zero is no number
    assert f"cut without repair: {NOT_FINITE}" in report.warnings


def test_a_plan_that_removes_what_is_no_number_is_not_repaired() -> None:
    plan = onnxprune.prune(with_number(1e-6), ratio=0.25, measure=False, round_to=1).plan
    (gone, *_) = set(range(8)) - set(plan.kept["w1"])
    report = onnxprune.apply(with_number(np.nan, gone), plan, measure=False, verify=False).report
    assert f"cut without repair: {NOT_FINITE}" in report.warnings


def test_a_border_that_was_zero_is_not_judged_by_itself() -> None:
    """The repair adds a bias, which shows around the map; the original has no signal there to compare it with."""
    rng = np.random.default_rng(0)
    graph = onnx.parser.parse_graph(
        "g (float[N,3,6,6] x) => (float[N,5,8,8] y) { h = Conv(x, w)  t = Relu(h)  y = Conv<pads=[1,1,1,1]>(t, v) }"
    )
    weights = {"w": rng.standard_normal((16, 3, 1, 1)), "v": rng.standard_normal((5, 16, 1, 1))}
    graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    report = onnxprune.prune(model, **RATIO).report
    assert not report.warnings
    assert any(note.startswith("lstsq changed") for note in report.notes)


def test_samples_are_as_many_as_memory_and_time_allow() -> None:
    def wanted(size: int, **options: Any) -> tuple[int, str]:
        model = conv_net(size=size)
        return calibration.wanted_samples(
            Study.of(Network.of(model), {"x": (1, 3, size, size)}, Request.of({}, ratio=0.5, **options))
        )

    assert wanted(8) == (512, "")
    many, why = wanted(512)
    assert calibration.FEWEST <= many < 512
    assert why == " (not 512, to take less memory)"
    assert wanted(512, max_memory="1GiB")[0] < many


def test_at_least_the_samples_of_one_run_are_taken() -> None:
    """A network that fixes its batch takes no fewer, whatever memory allows."""
    model = conv_net(size=16)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 40
    study = Study.of(Network.of(model), {"x": (40, 3, 16, 16)}, Request.of({}, ratio=0.5, max_memory="4MiB"))
    assert calibration.bounds(study)[0] < 40
    drawn = calibration.calibrating(study, None)()
    assert [len(f["x"]) for f in (*drawn.feeds, *drawn.held_out)] == [40, 40]
    assert not np.array_equal(drawn.feeds[0]["x"], drawn.held_out[0]["x"])


def test_a_depthwise_transposed_convolution_does_not_stop_the_choice() -> None:
    """Its weight carries what it reads and what it makes on one axis."""
    rng, value = np.random.default_rng(0), helper.make_tensor_value_info
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 1, 2, 2), "w2": (4, 8, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ConvTranspose", ["b", "w1"], ["c"], group=8, strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w2"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    ends = value("x", 1, ["n", 3, 8, 8]), value("y", 1, ["n", 4, 10, 10])
    graph = helper.make_graph(nodes, "depthwise", [ends[0]], [ends[1]], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    report = onnxprune.prune(model, **RATIO).report
    assert any(note.startswith("lstsq changed") for note in report.notes)


def test_judges_are_samples_that_nothing_is_solved_on() -> None:
    model = conv_net()
    drawn = calibration.calibrating(Study.of(Network.of(model), {"x": (1, 3, 8, 8)}, Request.of({}, ratio=0.5)), None)()
    assert (sum(len(f["x"]) for f in drawn.feeds), sum(len(f["x"]) for f in drawn.held_out)) == (512, 32)
    seen = {a.tobytes() for f in drawn.feeds for a in f["x"]}
    assert not any(a.tobytes() in seen for f in drawn.held_out for a in f["x"])


def test_a_bias_that_the_file_keeps_without_its_zeros_is_not_in_the_way() -> None:
    rng, places = np.random.default_rng(0), np.arange(0, 16, 3)
    value = helper.make_tensor_value_info
    bias = onnx.helper.make_sparse_tensor(
        numpy_helper.from_array(rng.standard_normal(places.size).astype(np.float32), "bias"),
        numpy_helper.from_array(places, "places"),
        [16],
    )
    text = [("MatMul x w1", "a"), ("Add a bias", "b"), ("Relu b", "c"), ("MatMul c w2", "d"), ("Relu d", "e")]
    steps = [(line.split(), out) for line, out in [*text, ("MatMul e w3", "y")]]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [out]) for (op, *inputs), out in steps],
        "sparse",
        [value("x", 1, ["n", 8])],
        [value("y", 1, ["n", 4])],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in {"w1": (8, 16), "w2": (16, 16), "w3": (16, 4)}.items()
        ],
        sparse_initializer=[bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    result = onnxprune.prune(model, ratio=0.5, round_to=1, measure=False)
    assert result.report.after.macs < result.report.before.macs
    assert [t.values.name for t in result.model.graph.sparse_initializer] == ["bias"]


def test_a_network_that_takes_one_sample_at_a_time_is_repaired_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batch is free by its inputs, but a reshape in it holds one sample only."""
    monkeypatch.setattr(calibration, "SAMPLES", 64)  # each of which is a run of its own
    model = conv_net(channels=16)
    flat = next(n for n in model.graph.node if n.op_type == "Flatten")
    shape = onnx.numpy_helper.from_array(np.array([1, 5]), "one")
    model.graph.initializer.append(shape)
    flat.CopyFrom(helper.make_node("Reshape", ["p", "one"], ["f"]))
    report = onnxprune.prune(model, input_shapes=["x:1x3x8x8"], **RATIO).report
    assert any(note.startswith("lstsq changed") for note in report.notes)


# --- gates -------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--min-snr", 60), ("--data", SAMPLE, "--min-accuracy", "99.9%")])
def test_a_ruined_network_is_not_written(run: Runner, there: Path, words: tuple[object, ...]) -> None:
    with nothing_written(there):
        outcome = run(MIXED, "out.onnx", "--ratio", 0.7, *words, "--compensate", "none")
    assert outcome.code == 1
    assert f"{words[-2]} wants" in outcome.err
    assert "nothing was written" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_gates_let_through_what_is_good_enough() -> None:
    options = {"ratio": 0.25, "measure": False, "compensate": "none", "data": SAMPLE}
    report = onnxprune.prune(DIGITS, min_accuracy="90%", min_snr=5, **options).report
    assert [m.name for m in report.metrics] == ["top1", "agreement", "snr"]
    assert report.verdict.level == "good"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_accuracy": 0.9}, "measures on data"),
        ({"min_accuracy": 90, "data": SAMPLE}, "did you mean 90%"),
        ({"min_snr": 10, "measure": False}, "has to be measured"),
        ({"min_accuracy": 0.9, "data": SAMPLE, "metric": "snr"}, "min_snr"),
        ({"min_accuracy": 0.9, "data": SAMPLE, "limit": 10}, "too few"),
    ],
)
def test_a_gate_that_has_nothing_to_look_at_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        onnxprune.prune(DIGITS, ratio=0.25, **options)


def test_a_gate_tells_boxes_from_scores_whatever_else_is_measured() -> None:
    options: dict[str, Any] = {"ratio": 0.5, "measure": False, "compensate": "none", "data": SCENES, "min_snr": -20}
    alone, beside = (onnxprune.prune(DETECTOR, **options, **metric).report for metric in ({}, {"metric": "cosine"}))
    assert [m for m in alone.metrics if m.name == "snr"] == [m for m in beside.metrics if m.name == "snr"]


def test_a_gate_over_outputs_that_show_nothing_does_not_hold() -> None:
    nothing = build("h = Conv(x, w[8,3,3,3])  e = Exp(h)  n = Neg(e)  l = Log(n)  y = Conv(l, v[4,8,1,1])")
    foreign = build("h = Conv(x, w[8,3,3,3])  g = my.Gate(h)  y = Conv(g, v[4,8,1,1])")
    options: dict[str, Any] = {"ratio": 0.5, "verify": False, "round_to": 1, "compensate": "none", "min_snr": 10}
    with pytest.raises(CheckFailed, match="min_snr cannot be checked: no output holds finite numbers"):
        onnxprune.prune(nothing, **options)
    foreign.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    with pytest.raises(CheckFailed, match=r"min_snr cannot be checked: onnxruntime cannot load the model \(my:Gate"):
        onnxprune.prune(foreign, **options)


# --- the verdict -------------------------------------------------------------


def test_the_report_opens_with_what_is_known_of_the_accuracy(run: Runner, there: Path) -> None:
    words = (MIXED, "out.onnx", "--ratio", 0.5, "--compensate", "none")
    first = run(*words).out.splitlines()[0]
    assert first.startswith("accuracy only estimated: SNR")
    assert "expect a broken network" in run(*words).out
    told = run(*words, "--data", SAMPLE, "--json").json["verdict"]
    assert (told["level"], told["basis"], told["metric"]) == ("bad", "data", "top1")
    assert told["after"] < 0.3 < told["before"]


def test_a_verdict_says_what_it_rests_on() -> None:
    nothing = onnxprune.prune(DIGITS, ratio=0).report
    assert (nothing.verdict.level, nothing.verdict.text[:19]) == ("good", "nothing was removed")
    cut = onnxprune.prune(DIGITS, ratio=0.25, compensate="none", measure=False).report
    assert cut.verdict.level == "unknown"
    for snr, level in ((25.0, "good"), (12.0, "fair"), (2.0, "bad"), (np.nan, "unknown")):
        row = onnxprune.report.DriftRow("logits", 0.5, 0.9, snr)
        assert replace(cut, drift=(row,)).verdict.level == level
