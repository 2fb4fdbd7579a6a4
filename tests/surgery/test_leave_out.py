"""The ridge by leaving rows out: the closed form is what leaving them out gives, and it finds what generalises."""

import numpy as np
import pytest

from onnxprune.surgery.recovery import leave_out
from onnxprune.surgery.recovery.leave_out import GRID, _error, chosen_ridge
from onnxprune.surgery.recovery.solve import Goal, fit


def problem(features: int, rows: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred columns, aims, and the weights behind those."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((3, features)) / np.sqrt(features)
    columns = rng.standard_normal((features, rows))
    aims = weights @ columns + noise * rng.standard_normal((3, rows))
    return columns - columns.mean(axis=1, keepdims=True), aims - aims.mean(axis=1, keepdims=True), weights


@pytest.mark.parametrize(("features", "rows"), [(12, 20), (20, 14)])
def test_the_closed_form_is_what_leaving_out_gives(features: int, rows: int) -> None:
    columns, aims, _ = problem(features, rows, 0.5, 0)
    values, vectors = np.linalg.eigh(columns.T @ columns)
    strength = 0.3 * values.sum() / features
    told = _error(aims, aims @ vectors, values / (values + strength), vectors, vectors**2)
    errors = []
    for k in range(rows):
        stay = np.arange(rows) != k
        x, t = columns[:, stay], aims[:, stay]
        middle, level = x.mean(axis=1, keepdims=True), t.mean(axis=1, keepdims=True)
        x, t = x - middle, t - level
        found = np.linalg.solve(x @ x.T + strength * np.eye(features), x @ t.T).T
        errors.append(found @ (columns[:, [k]] - middle) + level - aims[:, [k]])
    assert told == pytest.approx(float(np.mean(np.square(errors))), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_much_noise_asks_for_a_strong_ridge_and_little_for_a_weak_one(seed: int) -> None:
    noisy, clean = (chosen_ridge(*problem(40, 50, noise, seed)[:2], 1e-3) for noise in (3.0, 0.01))
    assert clean < 0.02 < 0.3 < noisy


@pytest.mark.parametrize("seed", range(3))
def test_a_part_of_many_rows_tells_their_ridge(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pull is a number, so that it is a smaller share of the sum over more rows."""
    columns, aims, _ = problem(60, 80, 2.0, seed)
    whole = chosen_ridge(columns, aims, 1e-3)
    monkeypatch.setattr(leave_out, "MOST", 40)
    assert whole / 8 < chosen_ridge(columns, aims, 1e-3) < 8 * whole
    assert whole > 0.03


def test_many_rows_keep_the_ridge_and_fewer_than_features_never_fit_themselves() -> None:
    assert chosen_ridge(*problem(10, 200, 1.0, 0)[:2], 1e-3) == 1e-3
    assert chosen_ridge(*problem(60, 30, 0.0, 0)[:2], 1e-3) >= 0.1
    assert chosen_ridge(*problem(60, 30, 0.0, 0)[:2], 7.0) in {7.0, GRID[-1]}


@pytest.mark.parametrize("seed", range(3))
def test_new_rows_are_fitted_better(seed: int) -> None:
    columns, aims, weights = problem(60, 80, 1.0, seed)
    fresh = np.random.default_rng(99).standard_normal((60, 500))
    wanted = weights @ fresh
    errors = []
    for rows in (columns, np.repeat(columns, 2, axis=1)):  # twice the same rows are too many to be left out
        goal = Goal(np.repeat(aims, rows.shape[1] // 80, axis=1).astype(np.float32), np.ones(3, np.float32), None)
        found, _ = fit(rows.astype(np.float32), goal, np.zeros((3, 60)), np.zeros(3), ridge=1e-3, rounds=1)
        errors.append(((found @ fresh - wanted) ** 2).mean())
    assert errors[0] < 0.5 * errors[1]
