"""Ridge regression of a layer's output on its input patches, one small system per group of channels."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from onnxprune.errors import ModelError
from onnxprune.surgery.recovery.leave_out import chosen_ridge

ROWS, PER_FEATURE = 1 << 14, 16  # of a system that are enough; more change nothing and take their time
CHUNK = 1 << 14  # rows that are multiplied in single precision before the sum goes on in double
STILL = 1e-12  # of the squares: variance that is none, but rounding of float32


@dataclass(frozen=True)
class Goal:
    """What `factor · y + offset` should be, (outputs, rows), and the range in which it matters exactly."""

    wanted: np.ndarray
    factor: np.ndarray  # (outputs,)
    offset: np.ndarray | None  # (outputs, rows)
    low: float = -np.inf
    high: float = np.inf

    def aims(self, y: np.ndarray) -> np.ndarray:
        """What y should be given what it is now: beyond the flat ends of an activation any value does."""
        end = y * self.factor[:, None]
        if self.offset is not None:
            end += self.offset
        aim = self.wanted
        if np.isfinite(self.low):
            aim = np.where(self.wanted <= self.low, np.minimum(end, self.low), aim)
        if np.isfinite(self.high):
            aim = np.where(self.wanted >= self.high, np.maximum(end, self.high), aim)
        return self.invert(aim)

    def of(self, outputs: np.ndarray) -> "Goal":
        """The goal of some of the outputs."""
        offset = None if self.offset is None else self.offset[outputs]
        return replace(self, wanted=self.wanted[outputs], factor=self.factor[outputs], offset=offset)

    def invert(self, end: np.ndarray) -> np.ndarray:
        rest = end if self.offset is None else end - self.offset
        return rest / self.factor[:, None]


def rows_for(features: int) -> int:
    """How many rows are enough to solve for the weights of so many features."""
    return ROWS + PER_FEATURE * features


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a · bᵀ of (n, rows) and (m, rows) in single precision by chunks, summed in double."""
    total = np.zeros((a.shape[0], b.shape[0]))
    with np.errstate(invalid="ignore"):  # what is no number is told of where it decides something
        for start in range(0, a.shape[1], CHUNK):
            total += a[:, start : start + CHUNK] @ b[:, start : start + CHUNK].T
    return total


def is_still(centred: np.ndarray, mean: np.ndarray) -> bool:
    """Whether lines, (n, rows) without their means, are one number each, up to rounding."""
    return float(np.vdot(centred, centred)) <= STILL * centred.shape[1] * float(mean @ mean)


def _factored(gram: np.ndarray, ridge: float, scale: float) -> tuple[Any, float]:
    """Cholesky factor of `gram + ridge · scale`, and the ridge that rounding errors in the sums asked for.

    Raises ModelError where there is NaN or infinity among the activations.
    """
    if not np.isfinite(gram).all():
        raise ModelError("the network gives NaN or infinity on the samples")
    while True:
        try:
            return cho_factor(gram + ridge * scale * np.eye(len(gram)), lower=True), ridge
        except LinAlgError:
            ridge = max(10 * ridge, 1e-8)


@dataclass(frozen=True)
class Ridge:
    """Centred columns (features, rows) with the factor of their products, ready to be solved for any aim.

    With fewer rows than features it is the products of rows that are factored: the same solution, and an input of
    25,088 features costs no 25,088² numbers.
    """

    columns: np.ndarray
    factor: Any
    strength: float  # of the pull toward the prior, in units of the products

    @classmethod
    def of(cls, columns: np.ndarray, ridge: float) -> "Ridge | None":
        """None where the columns are constant: they tell nothing."""
        wide = columns.shape[1] < columns.shape[0]
        gram = product(columns.T, columns.T) if wide else product(columns, columns)
        scale = float(np.trace(gram)) / max(len(columns), 1)
        if scale <= 0:
            return None
        factor, ridge = _factored(gram, ridge, scale)
        return cls(columns, factor, ridge * scale)

    def solve(self, aim: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """Weights (outputs, features) that give the centred aim (outputs, rows), drawn to the prior."""
        if self.columns.shape[1] < self.columns.shape[0]:
            rest = aim - prior.astype(np.float32) @ self.columns
            return prior + cho_solve(self.factor, rest.T).T.astype(np.float32) @ self.columns.T
        return cho_solve(self.factor, (product(aim, self.columns) + self.strength * prior).T).T


def fit(
    columns: np.ndarray,
    goal: Goal,
    prior: np.ndarray,
    bias: np.ndarray,
    *,
    ridge: float,
    rounds: int,
    intercept: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Filters and biases that come nearest to the goal.

    Args:
        columns: (features, rows), float32.
        goal: for (outputs, rows).
        prior: (outputs, features), what the filters are drawn to.
        bias: (outputs,), what the layer adds now.
        ridge: least strength of that pull, as a share of the mean variance of the features; where rows are few, as
            much more as leaves the least error on rows that are left out.
        rounds: how often the aim is renewed where an activation follows that is flat on one side.
    """
    mean = columns.mean(axis=1, dtype=np.float64) if intercept else np.zeros(len(columns))
    columns = columns - mean[:, None].astype(np.float32)
    start = goal.invert(goal.wanted) - prior.astype(np.float32) @ columns
    start -= start.mean(axis=1, keepdims=True) if intercept else 0
    system = None if is_still(columns, mean) else Ridge.of(columns, chosen_ridge(columns, start, ridge))
    weights, shift = prior.astype(np.float64), bias.astype(np.float64) + prior @ mean
    flat = np.isfinite(goal.low) or np.isfinite(goal.high)
    aim = goal.invert(goal.wanted)
    for again in range(rounds if flat else 1):
        if again or flat:
            now = weights.astype(np.float32) @ columns + shift[:, None].astype(np.float32)
            aim = goal.aims(now)
        if intercept:
            shift = aim.mean(axis=1, dtype=np.float64)
        if system is not None:
            weights = system.solve(aim - shift[:, None].astype(np.float32), prior)
    return weights, shift - weights @ mean
