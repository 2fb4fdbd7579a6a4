"""Drawn samples of all classes, altered copies of the user's, and drawings: what a repair is solved on."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.pipeline.calibration import with_copies
from onnxprune.pipeline.even_classes import ClassSearch, even_classes, log_odds
from onnxprune.runtime import synthetic
from onnxprune.runtime.altered import altered
from onnxprune.runtime.evolution import even, of_all_classes
from onnxprune.runtime.synthetic import Layout, dead_leaves, is_grey, line_drawings
from onnxprune.surgery.recovery.eliminate import Reader, elimination, solved

NCHW, NHWC = Layout(1, 2, 3), Layout(3, 1, 2)


def brightness(images: np.ndarray) -> np.ndarray:
    """Four classes: the quadrant that is brightest."""
    half = images.shape[2] // 2
    parts = [images[:, :, r : r + half, c : c + half] for r in (0, half) for c in (0, half)]
    return log_odds(20 * np.stack([p.mean(axis=(1, 2, 3)) for p in parts], axis=1))


def images(count: int = 64) -> np.ndarray:
    return dead_leaves(count, 3, (16, 16), np.random.default_rng(0))


# --- evolution ---------------------------------------------------------------


def test_rare_classes_choose_first_and_all_get_the_same() -> None:
    known = np.array([[9, 1, 5], [8, 2, 0], [7, 0, 1], [6, 0, 2], [5, 0, 3], [4, 3, 0]], float)
    chosen, own = even(known, 6)
    assert sorted(chosen) == list(range(6))
    assert np.bincount(own).tolist() == [2, 2, 2]
    assert set(chosen[own == 1]) == {5, 1}


def test_with_fewer_images_than_classes_the_surest_are_taken() -> None:
    known = np.diag([1.0, 4.0, 3.0, 2.0])
    chosen, own = even(known, 2)
    assert (set(chosen), set(own)) == ({1, 2}, {1, 2})


def test_offspring_stay_where_the_network_is_surer() -> None:
    pool = images()
    before, after = (of_all_classes(pool, NCHW, brightness, 16, n, np.random.default_rng(0)) for n in (0, 12))
    assert np.bincount(brightness(after).argmax(axis=1)).tolist() == [4] * 4
    assert brightness(after).max(axis=1).mean() > brightness(before).max(axis=1).mean() + 1
    again = of_all_classes(pool, NCHW, brightness, 16, 12, np.random.default_rng(0))
    assert after.tobytes() == again.tobytes()
    assert after.min() >= pool.min()
    assert after.max() <= pool.max()


def test_odds_have_no_end() -> None:
    logits = np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 900.0]])
    p = np.exp(logits[0]) / np.exp(logits[0]).sum()
    np.testing.assert_allclose(log_odds(logits)[0], np.log(p / (1 - p)))
    assert log_odds(logits)[1, 2] == pytest.approx(900 - np.log(2))


def network(outputs: tuple[str, ...], offset: tuple[float, ...] = (0.0, 0.0, 0.0)) -> onnx.ModelProto:
    """A classifier of the mean colour, or something that gives no class scores."""
    nodes = [
        helper.make_node("Constant", [], ["o"], value_floats=offset),
        helper.make_node("GlobalAveragePool", ["x"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"]),
        helper.make_node("Add", ["f", "o"], ["a"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])
    graph = helper.make_graph(nodes, "colours", [x], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("output", ["y", "a"])
def test_samples_of_a_classifier_are_of_all_classes(output: str) -> None:
    """Probabilities show it, and numbers each of which is the largest for some image."""
    feeds = [{"x": images(16)}]
    found = even_classes(network((output,)), feeds, lambda n: [{"x": images(n)}], ClassSearch(64, 4), 0)
    classes = [f["x"].mean(axis=(2, 3)).argmax(axis=1) for f in found]
    assert [f["x"].shape for f in found] == [(16, 3, 16, 16)]
    assert np.bincount(np.concatenate(classes), minlength=3).min() >= 4


def test_samples_of_other_networks_stay_as_they_are_drawn() -> None:
    def never(_: int) -> list[dict[str, np.ndarray]]:
        raise AssertionError("nothing is drawn to choose from where there are no classes")

    one, two = [{"x": images(16)}], [{"x": images(16), "z": images(16)}]
    several, coordinates = network(("f", "m")), network(("a",), offset=(0.0, 1.0, 2.0))
    fewer_than_classes = [{"x": images(2)}]
    for model, feeds in ((several, one), (several, two), (coordinates, one), (network(("y",)), fewer_than_classes)):
        assert even_classes(model, feeds, never, ClassSearch(64, 4), 0) == feeds


def test_a_search_is_as_long_as_it_is_worth() -> None:
    assert ClassSearch.of(544, 1e6, 1e4) == ClassSearch(2176, 30)
    slow = ClassSearch.of(544, 1e12, 1e9)
    assert (slow.pool, slow.rounds) == (544, 0)


# --- copies and drawings -----------------------------------------------------


@pytest.mark.parametrize(("layout", "shape"), [(NCHW, (8, 3, 16, 24)), (NHWC, (8, 16, 24, 1))])
def test_an_altered_image_has_the_type_and_the_range_of_the_pixels(layout: Layout, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(5, 200, shape).astype(np.uint8)
    found = altered(pixels, layout, np.random.default_rng(1))
    assert (found.dtype, found.shape) == (np.uint8, shape)
    assert found.min() >= pixels.min()
    assert found.max() <= pixels.max()
    assert all((a != b).any() for a, b in zip(found, pixels, strict=True))


def test_copies_are_made_of_images_alone() -> None:
    pictures, sound = [{"x": images(4)}], [{"x": np.zeros((4, 100), np.float32)}]
    assert [len(with_copies(f, 3, seed=0)) for f in (pictures, sound, [{**pictures[0], "z": sound[0]["x"]}])] == [
        4,
        1,
        1,
    ]
    assert with_copies(pictures, 3, seed=0)[0] is pictures[0]


def test_line_drawings_are_grey_images() -> None:
    found = line_drawings(32, (16, 24), np.random.default_rng(0))
    assert found.shape == (32, 1, 16, 24)
    assert (found.min(), found.max()) == (0, 1)
    assert is_grey(found.shape)
    assert not is_grey((1, 3, 16, 16))


def test_a_leaf_is_the_same_where_it_alone_is_laid(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dead_leaves(8, 3, (24, 32), np.random.default_rng(3))
    monkeypatch.setattr(synthetic, "WHOLE", 0)
    np.testing.assert_array_equal(dead_leaves(8, 3, (24, 32), np.random.default_rng(3)), whole)


# --- order -------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [1, 4])
@pytest.mark.parametrize("steps", [1, 3, 48])
def test_what_leaves_in_one_step_costs_what_least_squares_leave(repeats: int, steps: int) -> None:
    rng, width = np.random.default_rng(0), 12 * repeats
    rows = rng.standard_normal((400, width)) @ rng.standard_normal((width, width))
    gram, weights = rows.T @ rows / 400, rng.standard_normal((5, width))
    reader = Reader(gram, np.zeros(width), weights, np.arange(width).reshape(12, repeats))
    found = elimination([reader], ridge=1e-9, steps=steps)
    for gone in (1, 5, 11):
        rest = weights - solved(reader, found.order[:gone], 1e-9)
        assert found.loss[gone] == pytest.approx(float(np.einsum("of,fg,og->", rest, gram, rest)), rel=1e-4)
