"""Numbers of two scales in one output."""

import numpy as np
import pytest

from onnxprune.runtime.accuracy import METRICS
from onnxprune.runtime.scales import Scales, compared_by_scale


def boxes_and_scores(
    classes: int = 10, *, last: bool = False, near: bool = False, samples: int = 3
) -> dict[str, np.ndarray]:
    """Four numbers of a box in pixels and probabilities for each of some cells, the classes unevenly frequent."""
    rng = np.random.default_rng(samples)
    boxes = rng.uniform(0, 1 if near else 32, (samples, 4, 64))
    scores = rng.uniform(0, 1, (samples, classes, 64)) ** 2 * np.linspace(0.05, 0.4, classes)[:, None]
    whole = np.concatenate([boxes, scores], axis=1).astype(np.float32)
    return {"y": whole.transpose(0, 2, 1) if last else whole}


@pytest.mark.parametrize("classes", [1, 10, 80])
@pytest.mark.parametrize("last", [False, True])
def test_boxes_and_scores_are_told_apart(classes: int, last: bool) -> None:
    runs = [boxes_and_scores(classes, last=last, samples=n) for n in (3, 2)]
    scales = Scales.of(runs)
    assert scales.cuts == {"y": (2 if last else 1, 4)}
    axis, parts = 2 if last else 1, scales.parts(runs[0])
    assert [part.shape[axis] for part in parts.values()] == [4, classes]
    np.testing.assert_array_equal(np.concatenate(list(parts.values()), axis), runs[0]["y"])


@pytest.mark.parametrize(("first", "still"), [(True, 4), (True, 13), (False, 9), (False, 0)])
def test_a_class_that_never_comes_goes_with_the_scores(first: bool, still: int) -> None:
    """Wherever it stands, beside the boxes too."""
    whole = boxes_and_scores()["y"]
    whole = whole if first else np.roll(whole, 10, axis=1)
    whole[:, still] = 0.1
    assert Scales.of([{"y": whole}]).cuts == {"y": (1, 4 if first else 10)}


def test_tiny_scores_have_a_scale_of_their_own() -> None:
    outputs = boxes_and_scores()
    outputs["y"][:, :4] *= 30
    outputs["y"][:, 4:] *= 1e-7
    assert Scales.of([outputs]).cuts == {"y": (1, 4)}


def bordered(value: float) -> np.ndarray:
    """Maps (4, 3, 6, 6) that are one number along their border."""
    inside = np.random.default_rng(0).standard_normal((4, 3, 4, 4))
    return np.pad(inside, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=value).astype(np.float32)


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": bordered(0)},
        {"y": bordered(0.1)},
        {"y": np.pad(bordered(0), ((0, 0), (0, 2), (0, 0), (0, 0)))},
        {"y": np.eye(1, 5).repeat(4, 0) * np.arange(4)[:, None]},
        boxes_and_scores(near=True),
        {"y": np.random.default_rng(0).standard_normal((8, 10))},
        {"y": np.random.default_rng(0).standard_normal((8, 1000)) * np.geomspace(1, 1e4, 1000)},
        {"y": np.zeros((4, 6, 5))},
        {"y": np.array(3.0)},
        {"y": np.full((2, 6, 5), np.nan)},
        {"y": np.arange(60).reshape(2, 6, 5)},
    ],
    ids=[
        "zero border",
        "constant border",
        "channels that are off",
        "one that moves",
        "near",
        "scores",
        "places",
        "nothing",
        "a number",
        "no numbers",
        "integers",
    ],
)
def test_what_is_of_one_kind_stays_whole(outputs: dict[str, np.ndarray]) -> None:
    scales = Scales.of([outputs])
    assert not scales.cuts
    assert scales.parts(outputs) == outputs


@pytest.mark.parametrize(("last", "names"), [(False, ["y[:, :4]", "y[:, 4:]"]), (True, ["y[:, :, :4]", "y[:, :, 4:]"])])
def test_ruined_scores_show_beside_sound_boxes(last: bool, names: list[str]) -> None:
    """Over all numbers alike the signal of the boxes covers what became of the scores."""
    given = boxes_and_scores(last=last)
    scales = Scales.of([given])
    found = {"y": given["y"].copy()}
    scales.parts(found)[names[1]][:] *= 0.5  # a view
    whole = METRICS["snr"].total(METRICS["snr"].terms(found, given, None))
    apart = METRICS["snr"].by_scale(scales)
    assert whole > 30 > 10 > apart.total(apart.terms(found, given, None)) == pytest.approx(20 * np.log10(2), rel=1e-6)
    rows = compared_by_scale([given], [found])
    assert [row.name for row in rows] == names
    assert [row.snr_db for row in rows] == [np.inf, pytest.approx(20 * np.log10(2), rel=1e-6)]


def test_a_part_may_hold_nothing() -> None:
    """Boxes and scores of those that a threshold lets through, of which there are fewer in the new network."""
    few, many = {"y": np.ones((1, 4, 3), np.float32)}, {"y": np.ones((1, 6, 3), np.float32)}
    scales = Scales.of([boxes_and_scores()])
    assert [part.shape for part in scales.parts(few).values()] == [(1, 4, 3), (1, 0, 3)]
    for metric in (METRICS["snr"].by_scale(scales), METRICS["cosine"].by_scale(scales)):
        assert np.isnan(metric.total(metric.terms(few, many, None) + metric.terms(many, many, None)))
        assert metric.total(metric.terms(few, few, None)) in (1, np.inf)


def test_outputs_of_another_rank_stay_whole() -> None:
    scales = Scales.of([boxes_and_scores()])
    assert scales.parts({"y": np.zeros(3)})["y"].shape == (3,)
    assert not Scales.of([]).cuts
    assert not Scales.of([{"y": np.ones((1, n, 3))} for n in (2, 5)]).cuts  # as many rows as a threshold lets through
