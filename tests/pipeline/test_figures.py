"""Figures of merit: from samples that nothing was fitted on, in the unit that fits the network, on data that can be."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_runs import MODELS, Runner
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.pipeline import split
from onnxprune.pipeline.measure import drop_missed
from onnxprune.pipeline.request import Request
from onnxprune.report.summary import MetricRow, Samples
from onnxprune.runtime.classes import class_scores
from onnxprune.runtime.session import make_session

DIGITS, MIXED, SAMPLE = MODELS / "digits_cnn.onnx", MODELS / "digits_mixed.onnx", MODELS / "digits_sample.npz"
SEARCH = Request.of({}, max_drop=0.02, data=SAMPLE)
RNG = np.random.default_rng(0)


def digits(count: int) -> dict[str, np.ndarray]:
    """So many of the 500 digits, evenly over them."""
    given, rows = np.load(SAMPLE), np.arange(count) * 500 // count
    return {"image": given["image"][rows], "labels": given["labels"][rows]}


def pruned(source: Any, **options: Any) -> onnxprune.Report:
    return onnxprune.prune(source, **{"ratio": 0.5, "measure": False, **options}).report


def names(report: onnxprune.Report) -> list[str]:
    return [m.name for m in report.metrics]


def warned(report: onnxprune.Report, words: str) -> bool:
    return any(words in w for w in report.warnings)


# --- which samples -----------------------------------------------------------


@pytest.mark.parametrize("shares", [(3, 0, 1), (2, 1, 1), (0, 1, 1)])
def test_no_sample_is_in_two_parts_and_each_part_sees_every_class(shares: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(10), 40)  # sorted, as data often is
    dealt = split.split_rows(400, shares, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate(dealt)), np.arange(400))
    for rows, share in zip(dealt, shares, strict=True):
        np.testing.assert_array_equal(np.bincount(labels[rows], minlength=10), 40 * share // sum(shares))
    assert len(set((dealt[-1] % sum(shares)).tolist())) == sum(shares), "a period in the data favours no part"
    np.testing.assert_array_equal(dealt[-1], split.split_rows(400, shares, seed=0)[-1])


@pytest.mark.parametrize(("model", "ratio"), [(DIGITS, 0.85), (MIXED, 0.65)], ids=["cnn", "mixed"])
def test_a_repair_that_learns_its_samples_by_heart_is_not_praised_for_it(model: Path, ratio: float) -> None:
    data = digits(48)
    found = onnxprune.prune(model, ratio=ratio, method="ncc", data=data, measure=False, round_to=1)
    before, after = (
        next(iter(make_session(m).run({"image": data["image"]}).values())).argmax(axis=1) for m in (model, found.model)
    )
    fitted, _, held = split.split_rows(48, (3, 0, 1), seed=0)
    assert (before == after)[fitted].mean() > 0.9
    (row,) = [m for m in found.report.metrics if m.name == "agreement"]
    assert row.after == pytest.approx((before == after)[held].mean())
    assert row.after < 0.9
    assert found.report.samples == Samples("data", fitted=36, searched=0, measured=12)
    assert row.samples == 12
    assert "36 fitted on; the figures come from 12 others" in str(found.report)


def test_every_form_of_data_is_divided_alike() -> None:
    forms = digits(48), [digits(48)], [{k: v[i : i + 5] for k, v in digits(48).items()} for i in range(0, 48, 5)]
    found = [pruned(MIXED, data=data, ratio=0.8, method="ncc", round_to=1).metrics[0].after for data in forms]
    assert found == pytest.approx([found[0]] * 3)
    assert found[0] < 1


def test_where_nothing_is_fitted_all_samples_count() -> None:
    for options in ({"compensate": "none"}, {"compensate": "merge"}):
        report = pruned(DIGITS, data=SAMPLE, limit=50, **options)
        assert report.samples == Samples("data", 0, 0, 50)
        assert "on 50 samples of the data" in str(report)
    streamed = pruned(DIGITS, data=[digits(50)], compensate="none")
    assert streamed.samples == Samples("data", 0, 0, 50)


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": None, "target": "macs=0.6", "method": "l2", "allocation": "sensitivity"},
        {"ratio": None, "target": "macs=0.6", "method": "obs"},
        {"method": "cshe"},
        {"method": "msvfp", "method_options": {"images": 16}},
    ],
    ids=lambda o: f"{o['method']} {o.get('allocation', '')}",
)
def test_what_looks_at_data_to_choose_fits_too(options: dict[str, Any]) -> None:
    report = pruned(DIGITS, data=SAMPLE, limit=40, **{"compensate": "none", **options})
    assert report.samples == Samples("data", 30, 0, 10)


def test_test_data_give_the_figures_alone_and_hold_to_the_limit() -> None:
    report = pruned(DIGITS, data=digits(100), test_data=SAMPLE, limit=40)
    assert report.samples == Samples("test data", 40, 0, 40)
    assert "on 40 samples of the test data" in str(report)


def test_test_data_that_are_data_too_are_not_fitted_on() -> None:
    some = digits(100)
    report = pruned(DIGITS, data=some, test_data={name: values[::4] for name, values in some.items()})
    assert report.samples == Samples("test data", 75, 0, 25)
    assert "25 samples of data are not fitted on: figures come from them" in report.notes
    with pytest.raises(UsageError, match="all samples of data are those that figures come from"):
        pruned(DIGITS, data=[some], test_data=some)
    assert pruned(DIGITS, data=some, test_data=some, compensate="none").samples == Samples("test data", 0, 0, 100)


def test_too_few_samples_give_no_figure() -> None:
    report = pruned(DIGITS, data=digits(20))
    assert not report.metrics
    assert warned(report, "no figures: 20 samples of the data are too few to fit on some and measure on others")
    with pytest.raises(UsageError, match="20 samples of the data are too few for max_drop"):
        pruned(DIGITS, ratio=None, max_drop="1%", data=digits(20))


def test_the_figure_of_a_search_comes_from_samples_that_it_has_not_seen() -> None:
    model = net("logits")
    labels = next(iter(make_session(model).run({"x": IMAGES}).values())).argmax(axis=1)
    data = {"x": IMAGES, "labels": labels}
    report = pruned(model, ratio=None, max_drop="2%", data=data, compensate="lstsq", method="l1")
    assert report.samples == Samples("data", 24, 12, 12)
    assert "24 fitted on and 12 searched on; the figures come from 12 others" in str(report)
    assert (drop_missed(SEARCH, report.metrics) or "") in {"", *report.warnings}


@pytest.mark.parametrize(("after", "told"), [(0.87, True), (0.89, False), (0.95, False)])
def test_a_drop_that_does_not_hold_on_other_samples_is_told(after: float, told: bool) -> None:
    found = drop_missed(SEARCH, [MetricRow("top1", 0.9, after, "%", 100)])
    assert (found is not None) == told
    assert not told or "the search has not seen top1 falls by" in str(found)


def test_a_plan_that_is_repaired_again_holds_out_as_well() -> None:
    plan = onnxprune.prune(DIGITS, ratio=0.5, compensate="none", measure=False).plan
    options: dict[str, Any] = {"data": SAMPLE, "limit": 40, "measure": False}
    assert onnxprune.apply(DIGITS, plan, compensate="lstsq", **options).report.samples == Samples("data", 30, 0, 10)
    assert onnxprune.apply(DIGITS, plan, **options).report.samples == Samples("data", 0, 0, 40)


# --- which figures -----------------------------------------------------------


def logits(samples: int, classes: int) -> np.ndarray:
    return RNG.normal(size=(samples, classes)) + 8 * np.eye(classes)[RNG.integers(0, classes, samples)]


def softmax(given: np.ndarray, axis: int = 1) -> np.ndarray:
    return np.exp(given) / np.exp(given).sum(axis=axis, keepdims=True)


NOISE, LABELS = RNG.normal(size=(32, 10)), RNG.integers(0, 10, 32)
OUTPUTS = {
    "probabilities": ({"y": softmax(NOISE)}, None, "y"),
    "their logarithms": ({"y": np.log(softmax(NOISE))}, None, "y"),
    "probabilities among other outputs": ({"f": NOISE, "y": softmax(NOISE)}, None, "y"),
    "logits that stand out": ({"y": logits(32, 10)}, None, "y"),
    "logits by name": ({"logits": NOISE}, None, "logits"),
    "axes of length one": ({"y": logits(32, 10).reshape(32, 1, 1, 10)}, None, "y"),
    "labels that fit": ({"y": NOISE}, LABELS, "y"),
    "labels that fit one of two": ({"a": NOISE[:, :3], "b": NOISE}, LABELS, "b"),
    "a class for each pixel": ({"y": RNG.normal(size=(8, 3, 4, 5))}, RNG.integers(0, 3, (8, 4, 5)), "y"),
    "pixels of probabilities": ({"y": softmax(RNG.normal(size=(8, 3, 4, 5)))}, None, "y"),
    "an embedding": ({"y": RNG.normal(size=(32, 128))}, None, None),
    "an embedding of length one": ({"scores": NOISE / np.linalg.norm(NOISE, axis=1, keepdims=True)}, None, None),
    "a regression": ({"y": RNG.normal(size=(32, 1))}, RNG.normal(size=32), None),
    "an image": ({"y": RNG.random((8, 3, 6, 6))}, None, None),
    "boxes": ({"boxes": RNG.random((4, 99, 4)), "scores": softmax(RNG.random((4, 99, 2)), 2)}, None, None),
    "labels of another kind": ({"y": RNG.normal(size=(8, 6, 6, 3))}, RNG.integers(0, 3, 8), None),
}  # fmt: skip


@pytest.mark.parametrize("case", OUTPUTS)
def test_what_class_scores_are(case: str) -> None:
    outputs, labels, expected = OUTPUTS[case]
    found = class_scores({n: a.astype(np.float32) for n, a in outputs.items()}, labels)
    assert (found.output if found else None) == expected


def net(output: str = "y", *, softmaxed: bool = False, image: bool = False, outputs: int = 12) -> onnx.ModelProto:
    """Two convolutions, and the mean over the image behind them unless the output is an image itself."""
    first, second = (RNG.normal(size=s).astype(np.float32) for s in ((8, 3, 3, 3), (outputs, 8, 3, 3)))
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], [output if image else "c2"], pads=[1, 1, 1, 1]),
    ]
    if not image:
        nodes += [helper.make_node("GlobalAveragePool", ["c2"], ["p"])]
        nodes += [helper.make_node("Flatten", ["p"], ["f" if softmaxed else output])]
        nodes += [helper.make_node("Softmax", ["f"], [output], axis=1)] if softmaxed else []
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    got = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", outputs, 8, 8] if image else ["N", outputs])
    weights = [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")]
    graph = helper.make_graph(nodes, "net", [given], [got], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


IMAGES = RNG.normal(size=(48, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (net("embedding", outputs=64), ["cosine", "snr"]),
        (net("image", image=True), ["cosine", "snr"]),
        (net("probabilities", softmaxed=True), ["agreement"]),
        (net("logits"), ["agreement"]),
    ],
    ids=lambda m: m.graph.output[0].name if isinstance(m, onnx.ModelProto) else "",
)
def test_the_figures_fit_the_output_and_the_report_says_why(model: onnx.ModelProto, expected: list[str]) -> None:
    report = pruned(model, data={"x": IMAGES})
    assert names(report) == expected
    assert any(n.startswith(" and ".join(expected) + ":") for n in report.notes)
    assert all(m.samples == 12 for m in report.metrics)


def test_labels_that_an_output_cannot_have_do_not_end_the_run() -> None:
    boxes = RNG.random((48, 5, 4)).astype(np.float32)
    assert names(pruned(net("image", image=True), data={"x": IMAGES, "labels": boxes})) == ["cosine", "snr"]


@pytest.mark.parametrize("option", ["metric", "max_drop"])
def test_what_measures_wants_data_and_is_named_as_it_was_typed(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: dict[str, Any] = {"metric": {"ratio": 0.5, "metric": ["top1"]}, "max_drop": {"max_drop": "1%"}}[option]
    with pytest.raises(UsageError, match=rf"^{option} measures on data: give data or test_data"):
        onnxprune.prune(DIGITS, **typed)
    words = {"metric": ["--ratio", "0.5", "--metric", "top1"], "max_drop": ["--max-drop", "1%"]}[option]
    outcome = Runner(capsys)(DIGITS, tmp_path / "out.onnx", *words)
    assert outcome.code == 2
    assert f"--{option.replace('_', '-')} measures on data: give --data or --test-data" in outcome.err


@pytest.mark.parametrize(
    ("metric", "match"),
    [
        ("top1", "metric top1 needs labels"),
        ("agreement", "no output looks like class scores"),
        ("best", "no metric is"),
    ],
)
def test_figures_that_do_not_fit_are_refused_before_the_work(metric: str, match: str) -> None:
    stages: list[str] = []
    with pytest.raises(UsageError, match=match):
        pruned(
            net("value", outputs=1), data={"x": IMAGES}, metric=[metric], progress=lambda what, *_: stages.append(what)
        )
    assert "choose channels" not in stages


# --- data that cannot be right -----------------------------------------------

DOUBTFUL = {
    "guessing": ({"image": digits(80)["image"], "labels": (digits(80)["labels"] + 1) % 10}, "and guessing 10.0%"),
    "each constant": (
        {"image": np.arange(80, dtype=np.float32).reshape(80, 1, 1, 1) * np.ones((1, 1, 8, 8), np.float32)},
        "every sample of the data is constant",
    ),
    "all the same": ({"image": digits(80)["image"][:1].repeat(80, axis=0)}, "all samples of the data are the same"),
    "no numbers": (
        {"image": np.where(np.arange(80)[:, None, None, None] % 40 == 7, np.float32("inf"), digits(80)["image"])},
        "2 samples, the first of them number 7, of the data hold NaN or infinity",
    ),
    "too faint": ({"image": digits(80)["image"] * 1e-6}, "the original gives the same for all samples"),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_data_that_cannot_be_right_is_told_and_no_search_trusts_it(case: str) -> None:
    data, words = DOUBTFUL[case]
    assert warned(pruned(DIGITS, data=data, compensate="none"), words)
    with pytest.raises(UsageError, match=words):
        pruned(DIGITS, ratio=None, max_drop="1%", data=data)


@pytest.mark.parametrize("name", ["data", "test_data"])
def test_one_sample_that_is_no_number_is_found_wherever_it_stands(name: str) -> None:
    image = digits(200)["image"]
    image[133, 0, 3, 3] = np.nan
    report = pruned(DIGITS, compensate="none", **{name: {"image": image}})
    assert warned(report, f"sample 133 of the {name.replace('_', ' ')} holds NaN or infinity")
    assert not warned(pruned(DIGITS, compensate="none", **{name: {"image": digits(200)["image"]}}), "NaN")


def scaled(by: float, labelled: bool) -> dict[str, np.ndarray]:
    data = digits(80)
    return {"image": data["image"] * np.float32(by), **({"labels": data["labels"]} if labelled else {})}


@pytest.mark.parametrize("by", [255, 1 / 255])
@pytest.mark.parametrize(
    ("model", "words"), [(MIXED, "times the variance that the first BatchNorm"), (DIGITS, "times the biases of the")]
)
def test_pixels_in_another_scale_than_the_first_layers_know(model: Path, by: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        pruned(model, ratio=None, max_drop="1%", data=scaled(by, labelled=False))


def test_labels_that_the_original_gets_right_settle_what_biases_only_hint_at() -> None:
    images = scaled(255, labelled=False)
    right = next(iter(make_session(DIGITS).run(images).values())).argmax(axis=1)
    for labels, doubted in ((right, False), (scaled(255, labelled=True)["labels"], True)):
        report = pruned(DIGITS, data={**images, "labels": labels}, compensate="none")
        assert warned(report, "times the biases of the") == doubted


def quantised(scale: float, zero: int) -> onnx.ModelProto:
    """The network of `net` behind an input that is quantised to uint8."""
    model = net("logits")
    del model.graph.node[0].input[0]
    model.graph.node[0].input.insert(0, "d")
    quantise = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"])
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]))
    model.graph.node.insert(0, quantise)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(scale), "scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.uint8(zero), "zero"))
    return model


@pytest.mark.parametrize(
    ("scale", "low", "high", "fits"),
    [(1 / 255, 0, 1, True), (1 / 255, 0, 255, False), (1, 0, 255, True), (1, 0, 1, False), (1 / 255, 0, 1.1, True)],
)
def test_the_range_that_an_input_is_quantised_to(scale: float, low: float, high: float, fits: bool) -> None:
    images = np.random.default_rng(1).uniform(low, high, IMAGES.shape).astype(np.float32)
    report = pruned(quantised(scale, 0), data={"x": images}, verify=False)
    assert warned(report, f"'x' is quantised from 0 to {255 * scale:.3g}, but the data goes from") != fits


def test_fewer_samples_than_a_layer_has_unknowns() -> None:
    words = " samples to repair on, and '/fc1/Gemm' needs 192 for its 192 unknowns"
    assert warned(pruned(DIGITS, data=digits(40), allocation="uniform"), words)
    assert not warned(pruned(DIGITS, data=digits(40), compensate="none"), words)


def test_the_warning_comes_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "d.npz", **DOUBTFUL["guessing"][0])
    options = ("--ratio", 0.5, "--no-measure", "--data", tmp_path / "d.npz")
    outcome = Runner(capsys)(DIGITS, tmp_path / "out.onnx", *options)
    assert outcome.code == 0
    assert outcome.err.startswith("warning: the original gets")
    assert outcome.err.count("warning") == 1  # lines of progress follow where it takes long


def test_data_that_is_right_is_not_doubted() -> None:
    for model in (DIGITS, MIXED):
        for data in (SAMPLE, {"image": digits(400)["image"]}):
            assert not pruned(model, data=data, compensate="none").warnings
    assert not pruned(DIGITS, data=SAMPLE).warnings  # nor too few to repair on


def test_the_rank_of_a_folder_is_no_class_of_a_wider_network(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog", "owl"):
        (tmp_path / name).mkdir()
        for i in range(16):
            image.fromarray(RNG.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / name / f"{i}.png")
    report = pruned(DIGITS, data=tmp_path)
    assert warned(report, "labels are the ranks of 3 folders, but 'logits' has 10 classes")
    assert names(report) == ["agreement"]
