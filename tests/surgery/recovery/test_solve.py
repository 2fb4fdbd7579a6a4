"""Ridge regression of a layer: the ridge is the one that serves rows which nothing is solved on."""

import numpy as np
import pytest

from onnxprune.errors import ModelError
from onnxprune.surgery.recovery import solve
from onnxprune.surgery.recovery.solve import GRID, Columns, Goal, fit


def problem(features: int, rows: int, noise: float, seed: int) -> tuple[np.ndarray, Goal, np.ndarray]:
    """Columns, a goal for three outputs, and the weights behind it."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((3, features)) / np.sqrt(features)
    columns = rng.standard_normal((features, rows)) + 1
    wanted = weights @ columns + noise * rng.standard_normal((3, rows)) + 2
    return columns.astype(np.float32), Goal.of(wanted.astype(np.float32), np.ones(3)), weights


def told(features: int, rows: int, noise: float, seed: int, least: float = 1e-3) -> float:
    """The ridge by an eighth of the rows."""
    columns, goal, _ = problem(features, rows, noise, seed)
    seen = rows - rows // 8
    mean = columns[:, :seen].mean(axis=1)
    columns -= mean[:, None]
    rest = goal.least - goal.least[:, :seen].mean(axis=1, keepdims=True)
    system = Columns.of(columns[:, :seen], mean)
    assert system is not None
    return system.told(rest, columns[:, seen:], least)


@pytest.mark.parametrize("rows", [400, 80, 40], ids=["many rows", "few", "fewer than features"])
def test_noise_asks_for_a_strong_ridge_and_none_for_the_least(rows: int) -> None:
    noisy = [told(60, rows, 3.0, seed) for seed in range(3)]
    assert min(noisy) > 0.05
    assert rows < 60 or max(told(60, rows, 0.0, seed) for seed in range(3)) == 1e-3
    assert told(60, rows, 3.0, 0, least=7.0) in {7.0, GRID[-1]}


@pytest.mark.parametrize("rows", [400, 80, 40], ids=["many rows", "few", "fewer than features"])
@pytest.mark.parametrize("seed", range(3))
def test_new_rows_are_fitted_better(rows: int, seed: int) -> None:
    columns, goal, weights = problem(60, rows, 2.0, seed)
    fresh = np.random.default_rng(99).standard_normal((60, 500))
    found = [
        fit(columns.copy(), goal, np.zeros((3, 60)), np.zeros(3), ridge=1e-3, rounds=1, held=held)[0]
        for held in (0, rows // 8)
    ]
    plain, held = (float(np.square((w - weights) @ fresh).mean()) for w in found)
    assert held < 0.9 * plain


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0.0, np.inf)], ids=["straight", "flat below"])
def test_rows_that_are_held_out_are_not_solved_on(bounds: tuple[float, float]) -> None:
    """What they want changes nothing where the least ridge is the best there is."""
    columns, goal, weights = problem(20, 800, 0.0, 0)
    wanted = np.maximum(goal.least, bounds[0])
    goals = [Goal.of(wanted[:, some], goal.factor, None, *bounds) for some in (slice(None), slice(700))]
    found = [
        fit(columns[:, :count].copy(), g, np.zeros((3, 20)), np.zeros(3), ridge=1e-6, rounds=30, held=held)
        for g, count, held in zip(goals, (800, 700), (100, 0), strict=True)
    ]
    for held, alone in zip(*found, strict=True):
        assert np.allclose(held, alone, atol=1e-6)
    assert np.allclose(found[0][0], weights, atol=0.02)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, -1], ids=["solved on", "held out"])
def test_what_is_no_number_is_told_wherever_it_is(row: int, number: float) -> None:
    columns, goal, _ = problem(20, 80, 0.0, 0)
    columns[0, row] = number
    with pytest.raises(ModelError, match="NaN, infinity"):
        fit(columns, goal, np.zeros((3, 20)), np.zeros(3), ridge=1e-3, rounds=1, held=10)


@pytest.mark.parametrize("seed", range(3))
def test_aims_taken_ahead_take_half_the_rounds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    columns, goal, _ = problem(40, 2000, 0.3, seed)
    columns, goal = columns[::2], Goal.of(np.maximum(goal.least - 3, 0), goal.factor, low=0.0)

    def error(rounds: int) -> float:
        weights, bias = fit(columns.copy(), goal, np.zeros((3, 20)), np.zeros(3), ridge=1e-3, rounds=rounds)
        y = (weights @ columns + bias[:, None]).astype(np.float32)
        return float(np.square(goal.aims(y.copy()) - y).mean())

    ahead, least = error(4), error(300)
    monkeypatch.setattr(solve, "MOMENTUM", np.float32(0))
    assert least < ahead < error(8) < error(4)


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0.0, np.inf), (-0.5, 0.5)], ids=["straight", "Relu", "Clip"])
def test_aims_are_the_nearest_numbers_that_give_what_is_wanted(bounds: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    wanted, offset, y = (rng.standard_normal((4, 200)).astype(np.float32) for _ in range(3))
    factor = np.array([2, 0.5, -1, -3], np.float32)

    def end(y: np.ndarray) -> np.ndarray:
        return np.clip(factor[:, None] * y + offset, *bounds)

    goal = Goal.of(wanted, factor, offset, *bounds)
    aims = goal.aims(y.copy())
    assert goal.flat == np.isfinite(bounds).any()
    assert np.allclose(end(aims), np.clip(wanted, *bounds), atol=1e-5)
    assert np.array_equal(aims == y, np.abs(end(y) - np.clip(wanted, *bounds)) <= 0)  # no step where none is needed
    nearer = y + 0.99 * (aims - y)
    assert (np.abs(end(nearer) - np.clip(wanted, *bounds)) > 0)[aims != y].all()
