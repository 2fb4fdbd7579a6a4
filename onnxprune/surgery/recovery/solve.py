"""Ridge regression of a layer's output on its input patches, one small system per group of channels."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from onnxprune.errors import ModelError

ROWS, PER_FEATURE = 1 << 14, 16  # of a system that are enough; more change nothing and take their time
GRID = tuple(float(r) for r in np.geomspace(1e-3, 10, 9))  # ridges that are tried, shares of the mean variance
# Renewing the aim is a step down the gradient of a convex loss; the next one is taken ahead by a share of the last, as
# by Nesterov (Soviet Mathematics Doklady 27, 1983), so that half of the steps do.
MOMENTUM = np.float32(0.7)
CHUNK = 1 << 14  # rows that are multiplied in single precision before the sum goes on in double
NOT_FINITE = "the network gives NaN or infinity on the samples"
STILL = 1e-12  # of the squares: variance that is none, but rounding of float32


@dataclass(frozen=True)
class Goal:
    """What `factor · y + offset` should be, (outputs, rows), and the range in which it matters exactly."""

    wanted: np.ndarray
    factor: np.ndarray  # (outputs,)
    offset: np.ndarray | None  # (outputs, rows)
    low: float = -np.inf
    high: float = np.inf

    @property
    def flat(self) -> bool:
        """Whether an activation follows that is flat on one side at least."""
        return bool(np.isfinite(self.low) or np.isfinite(self.high))

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

    def rows(self, some: slice) -> "Goal":
        """The goal at some of the rows."""
        offset = None if self.offset is None else self.offset[:, some]
        return replace(self, wanted=self.wanted[:, some], offset=offset)

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


def _factored(inner: np.ndarray, strength: float, least: float) -> Any:
    """Cholesky factor of `inner + strength · 1`, with more than that where rounding errors in the sums ask for it.

    Raises ModelError where there is NaN or infinity among the activations.
    """
    if not np.isfinite(inner).all():
        raise ModelError(NOT_FINITE)
    while True:
        try:
            return cho_factor(inner + strength * np.eye(len(inner)), lower=True)
        except LinAlgError:
            strength = max(10 * strength, least)


@dataclass(frozen=True)
class Columns:
    """Centred columns (features, rows) and their inner products, ready for any ridge.

    With fewer rows than features it is the products of rows that are taken: the same solution, and an input of 25,088
    features costs no 25,088² numbers.
    """

    values: np.ndarray
    inner: np.ndarray
    scale: float  # mean variance of the features, times the rows

    @classmethod
    def of(cls, values: np.ndarray) -> "Columns | None":
        """None where they are constant: they tell nothing."""
        lines = values.T if values.shape[1] < values.shape[0] else values
        inner = product(lines, lines)
        scale = float(np.trace(inner)) / max(len(values), 1)
        return None if scale <= 0 else cls(values, inner, scale)

    @property
    def wide(self) -> bool:
        return self.values.shape[1] < self.values.shape[0]

    def onto(self, rest: np.ndarray) -> np.ndarray:
        """What is to be explained, (outputs, rows), as `Ridge.change` takes it."""
        return rest if self.wide else product(rest, self.values)

    def ridge(self, ridge: float) -> "Ridge":
        """The regression with a ridge in units of the mean variance of the features."""
        return Ridge(self, _factored(self.inner, ridge * self.scale, 1e-8 * self.scale))

    def told(self, onto: np.ndarray, others: np.ndarray, rest: np.ndarray, least: float) -> float:
        """The ridge with the least error on other columns, whose `rest` is to be explained: from the least one up.

        Raises ModelError where there is NaN or infinity among those.
        """
        if not (np.isfinite(others).all() and np.isfinite(rest).all()):
            raise ModelError(NOT_FINITE)
        best, lowest = least, np.inf
        for ridge in (least, *(r for r in GRID if r > least)):
            left = self.ridge(ridge).change(onto).astype(np.float32) @ others - rest
            if (error := float(np.vdot(left, left))) >= lowest:
                break
            best, lowest = ridge, error
        return best


@dataclass(frozen=True)
class Ridge:
    """Ridge regression on `columns`."""

    columns: Columns
    factor: Any

    def change(self, onto: np.ndarray) -> np.ndarray:
        """Weights (outputs, features) that explain best what `Columns.onto` was given."""
        found = cho_solve(self.factor, onto.T).T
        return found.astype(np.float32) @ self.columns.values.T if self.columns.wide else found


def fit(
    columns: np.ndarray,
    goal: Goal,
    prior: np.ndarray,
    bias: np.ndarray,
    *,
    ridge: float,
    rounds: int,
    intercept: bool = True,
    held: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Filters and biases that come nearest to the goal.

    Args:
        columns: (features, rows), float32.
        goal: for (outputs, rows).
        prior: (outputs, features), what the filters are drawn to.
        bias: (outputs,), what the layer adds now.
        ridge: least strength of that pull, as a share of the mean variance of the features.
        rounds: how often the aim is renewed where an activation follows that is flat on one side.
        held: so many of the last rows are not solved on; the ridge is the one that leaves the least error on them.
    """
    seen = slice(columns.shape[1] - held)
    mean = columns[:, seen].mean(axis=1, dtype=np.float64) if intercept else np.zeros(len(columns))
    columns = columns - mean[:, None].astype(np.float32)
    base, shift = prior.astype(np.float32) @ columns, bias.astype(np.float64) + prior @ mean
    system = None if is_still(columns[:, seen], mean) else Columns.of(columns[:, seen])
    rest = goal.aims(base + _upright(shift)) - base
    solver = None if system is None else system.ridge(_told(system, columns, rest, ridge, intercept))
    weights, part = prior.astype(np.float64), goal.rows(seen)
    now = before = base[:, seen] + _upright(shift)
    for left in reversed(range(rounds if goal.flat else 1)):
        aim = part.aims(now + MOMENTUM * (now - before)) if goal.flat else part.invert(part.wanted)
        shift = aim.mean(axis=1, dtype=np.float64) if intercept else shift
        if solver is not None:
            weights = prior + solver.change(solver.columns.onto(aim - _upright(shift) - base[:, seen]))
        if left:
            before, now = now, weights.astype(np.float32) @ columns[:, seen] + _upright(shift)
    return weights, shift - weights @ mean


def _upright(numbers: np.ndarray) -> np.ndarray:
    return numbers[:, None].astype(np.float32)


def _told(system: Columns, columns: np.ndarray, rest: np.ndarray, ridge: float, intercept: bool) -> float:
    """The ridge by the rows of `columns` that the system was not made of; the given one where there are none."""
    seen = system.values.shape[1]
    if seen == columns.shape[1]:
        return ridge
    if intercept:
        rest = rest - rest[:, :seen].mean(axis=1, keepdims=True)
    return system.told(system.onto(rest[:, :seen]), columns[:, seen:], rest[:, seen:], ridge)
