"""Two layers solved together, against differences and where the best solution is known."""

from dataclasses import replace

import numpy as np
import pytest

from onnxprune.surgery.recovery.joint import Between, Half, Pair, _Problem, _Whitened, together
from onnxprune.surgery.recovery.solve import Goal

OPEN = (-1e9, 1e9)


def drawn(low: float, high: float, seed: int = 0) -> tuple[Pair, Half, Half]:
    """Five hidden channels that are read at three taps, at places in any order and beyond the border."""
    rng = np.random.default_rng(seed)
    columns = rng.normal(0.5, 1, (7, 50)).astype(np.float32)
    places = np.stack([rng.permutation(51)[:40] for _ in range(3)])
    factors = (rng.uniform(0.5, 2, n).astype(np.float32) for n in (4, 5))
    wanted, offset = (rng.normal(size=(4, 40)).astype(np.float32) for _ in range(2))
    goal = Goal.of(wanted, next(factors), offset, low, high)
    between = Between(next(factors), rng.normal(size=5).astype(np.float32), low, high)
    first, second = (Half(rng.normal(size=s), rng.normal(size=s[0])) for s in ((5, 7), (4, 15)))
    return Pair(columns, places, between, goal), first, second


@pytest.mark.parametrize(("low", "high"), [(0, np.inf), (-1, 1)], ids=["Relu", "Clip"])
def test_the_gradient_is_what_the_loss_does(low: float, high: float) -> None:
    pair, first, second = drawn(low, high)
    whitened = _Whitened.of(_Problem(pair, first), first, second)
    rng = np.random.default_rng(1)
    x = rng.normal(0, 0.1, whitened.size)
    gradient, step = whitened(x)[1], 1e-3
    for _ in range(8):
        along = rng.normal(size=x.size)
        difference = (whitened(x + step * along)[0] - whitened(x - step * along)[0]) / (2 * step)
        assert difference == pytest.approx(float(gradient @ along), rel=0.02)


def planted(rows: int, seed: int) -> Pair:
    """What two hidden channels give together, in the range where nothing is flat, and one that is to do it."""
    columns = np.random.default_rng(seed).normal(size=(6, rows)).astype(np.float32)
    wanted = (columns[:1] + 2 * columns[1:2]) * np.array([[1], [-3]], np.float32)
    one = np.ones(1, np.float32)
    goal = Goal.of(wanted, np.ones(2))
    return Pair(columns, np.arange(1, rows + 1)[None], Between(one, 0 * one, *OPEN), goal)


FIRST, PRIOR = Half(np.eye(1, 6), np.zeros(1)), Half(np.array([[1.0], [-3.0]]), np.zeros(2))


def test_one_channel_takes_the_part_of_two_where_none_of_them_could() -> None:
    seen, held = planted(200, 0), planted(80, 1)
    found = together(seen, held, FIRST, PRIOR, ridge=1e-3, rounds=1, steps=40)
    assert found is not None
    problem = _Problem(held, FIRST)
    assert problem.loss(FIRST, PRIOR) > 0.5
    assert problem.loss(*found) < 1e-3


def test_what_only_fits_the_samples_that_are_seen_is_not_taken() -> None:
    seen, held = planted(5, 0), planted(80, 1)
    noise = np.random.default_rng(2).normal(size=seen.goal.least.shape).astype(np.float32)
    seen = replace(seen, goal=Goal.of(noise, seen.goal.factor))
    assert together(seen, held, FIRST, PRIOR, ridge=10.0, rounds=1, steps=40) is None
