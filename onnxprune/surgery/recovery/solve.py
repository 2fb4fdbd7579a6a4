"""Ridge regression of a layer's output on its input patches, one small system per group of channels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from onnxprune.errors import ModelError

ROWS, PER_FEATURE = 1 << 14, 16  # of a system that are enough; more change nothing and take their time
GRID = tuple(float(r) for r in np.geomspace(1e-3, 10, 9))  # ridges that are tried, shares of the mean variance
TELLING = 64  # outputs about that tell the ridge
# Renewing the aim is a step down the gradient of a convex loss; the next one is taken ahead by a share of the last, as
# by Nesterov (Soviet Mathematics Doklady 27, 1983), so that half of the steps do.
MOMENTUM = np.float32(0.7)
CHUNK = 1 << 14  # rows that are multiplied in single precision before the sum goes on in double
NOT_FINITE = "the network gives NaN, infinity or numbers close to it on the samples"
STILL = 1e-12  # of the squares: variance that is none, but rounding of float32


@dataclass(frozen=True)
class Goal:
    """What a layer should give: anything from `least` to `most`, (outputs, rows) float32, which are one array mostly.

    Beyond the flat end of an activation that follows any number does.

    factor: (outputs,) float32, of its output at the end of the path, in whose units errors count.
    """

    least: np.ndarray
    most: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(
        cls,
        wanted: np.ndarray,
        factor: np.ndarray,
        offset: np.ndarray | None = None,
        low: float = -np.inf,
        high: float = np.inf,
    ) -> "Goal":
        """What makes `factor · y + offset` the wanted numbers, (outputs, rows), where an activation clips both."""
        upright = factor[:, None].astype(np.float32)
        exact = np.clip(wanted, low, high, dtype=np.float32)
        if offset is not None:
            exact -= offset
        exact /= upright
        if not (np.isfinite(low) or np.isfinite(high)):
            return cls(exact, exact, upright[:, 0])
        below, above = wanted <= low, wanted >= high
        under, over = (np.where(upright < 0, *both) for both in ((above, below), (below, above)))
        return cls(np.where(under, -np.inf, exact), np.where(over, np.inf, exact), upright[:, 0])

    @property
    def flat(self) -> bool:
        """Whether an activation follows that is flat on one side at least."""
        return self.least is not self.most

    @property
    def energy(self) -> float:
        """Sum of squares about the mean of each output, where a clipped one ends, in the units of errors."""
        exact = np.where(np.isinf(self.least), self.most, self.least) * self.factor[:, None]
        return float(np.vdot(exact - exact.mean(axis=1, keepdims=True), exact))

    def aims(self, y: np.ndarray) -> np.ndarray:
        """What of the wanted is nearest to y, in its place."""
        np.maximum(y, self.least, out=y)
        return np.minimum(y, self.most, out=y)

    def at(self, outputs: Any, rows: slice = slice(None)) -> "Goal":
        """The goal of some of the outputs at some of the rows."""
        least = self.least[outputs, rows]
        return Goal(least, self.most[outputs, rows] if self.flat else least, self.factor[outputs])


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
    def of(cls, values: np.ndarray, mean: np.ndarray) -> "Columns | None":
        """None where they are constant up to rounding, as they were before the mean was taken off: they tell nothing.

        Raises ModelError where there is NaN or infinity among them.
        """
        lines = values.T if values.shape[1] < values.shape[0] else values
        inner = product(lines, lines)
        squares = float(np.trace(inner))
        if not np.isfinite(squares):
            raise ModelError(NOT_FINITE)
        if squares <= STILL * values.shape[1] * float(mean @ mean):
            return None
        return cls(values, inner, squares / max(len(values), 1))

    @property
    def wide(self) -> bool:
        return self.values.shape[1] < self.values.shape[0]

    def onto(self, rest: np.ndarray) -> np.ndarray:
        """What is to be explained, (outputs, rows), as `change` takes it."""
        return rest if self.wide else product(rest, self.values)

    def factor(self, ridge: float) -> Any:
        """Cholesky factor for a ridge in units of the mean variance of the features.

        A stronger one where rounding errors in the sums ask for it.
        """
        strength = ridge * self.scale
        while True:
            try:
                shifted = self.inner.copy()
                shifted[np.diag_indices_from(shifted)] += strength
                return cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
            except LinAlgError:
                strength = max(10 * strength, 1e-8 * self.scale)

    def change(self, factor: Any, onto: np.ndarray) -> np.ndarray:
        """Weights (outputs, features) that explain best what `onto` was given."""
        found = cho_solve(factor, onto.T, check_finite=False).T
        return found.astype(np.float32) @ self.values.T if self.wide else found

    def told(self, rest: np.ndarray, others: np.ndarray, least: float) -> float:
        """The ridge with the least error on other columns, (features, more rows): from the least one up.

        Args:
            rest: what is to be explained, (outputs, rows and those of the others).

        Raises ModelError where there is NaN or infinity among the others.
        """
        seen = self.values.shape[1]
        onto, wanted = self.onto(rest[:, :seen]), rest[:, seen:]
        if not (np.isfinite(others).all() and np.isfinite(wanted).all()):
            raise ModelError(NOT_FINITE)
        best, lowest = least, np.inf
        for ridge in (least, *(r for r in GRID if r > least)):
            left = self.change(self.factor(ridge), onto).astype(np.float32) @ others
            left -= wanted
            if (error := float(np.vdot(left, left))) >= lowest:
                break
            best, lowest = ridge, error
        return best


def fit(
    columns: np.ndarray, goal: Goal, prior: np.ndarray, bias: np.ndarray,
    *, ridge: float, rounds: int, intercept: bool = True, held: int = 0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Filters and biases that come nearest to the goal.  Raises ModelError where there is NaN or infinity.

    Args:
        columns: (features, rows), float32; they are overwritten.
        goal: for (outputs, rows).
        prior: (outputs, features), what the filters are drawn to.
        bias: (outputs,), what the layer adds now.
        ridge: least strength of that pull, as a share of the mean variance of the features.
        rounds: how often the aim is renewed where an activation follows that is flat on one side.
        held: so many of the last rows are not solved on; the ridge is the one that leaves the least error on them.
    """
    count = columns.shape[1] - held
    mean = columns[:, :count].mean(axis=1, dtype=np.float64) if intercept else np.zeros(len(columns))
    columns -= _upright(mean)
    base, shift = prior.astype(np.float32) @ columns, bias.astype(np.float64) + prior @ mean
    system = Columns.of(columns[:, :count], mean)
    factor = system and system.factor(_told(system, columns, goal, base, shift, ridge, intercept))
    goal, base, columns = goal.at(slice(None), slice(count)), base[:, :count], columns[:, :count]
    weights = prior.astype(np.float64)
    y = before = base + _upright(shift)
    for left in reversed(range(rounds if goal.flat else 1)):
        rest = goal.aims(y + MOMENTUM * (y - before))
        shift = rest.mean(axis=1).astype(np.float64) if intercept else shift
        rest -= base
        rest -= _upright(shift)
        if system is not None:
            weights = prior + system.change(factor, system.onto(rest))
        if left:
            before, y = y, weights.astype(np.float32) @ columns
            y += _upright(shift)
    return weights, shift - weights @ mean


def _upright(numbers: np.ndarray) -> np.ndarray:
    return numbers[:, None].astype(np.float32)


def _told(
    system: Columns, columns: np.ndarray, goal: Goal, base: np.ndarray, shift: np.ndarray, ridge: float, intercept: bool
) -> float:
    """The ridge by the rows of `columns` that the system was not made of; the given one where there are none.

    Some of the outputs tell it.
    """
    count = system.values.shape[1]
    if count == columns.shape[1]:
        return ridge
    some = slice(None, None, max(1, len(base) // TELLING))
    rest = goal.at(some).aims(base[some] + _upright(shift[some])) - base[some]
    if intercept:
        rest -= rest[:, :count].mean(axis=1, keepdims=True)
    return system.told(rest, columns[:, count:], ridge)
