"""Two layers with an activation between them, solved together for what the second one should give.

Layer by layer, the first of the two aims at those channels of the original that stay.  What counts is what the second
one makes of them, and other channels may serve it better: `min ‖W₂ · clip(W₁ · x) − wanted‖²` over both layers, from
the layer-wise solution on.  The unknowns are whitened by the covariances of what the layers read, so that a few steps
of L-BFGS (Liu and Nocedal 1989, doi 10.1007/BF01589116) do; samples that are held out say which step was the last good
one.  It is the reconstruction by blocks of quantisation (Li et al., ICLR 2021, arXiv 2102.05426), for real weights.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from onnxprune.errors import ModelError
from onnxprune.surgery.recovery.solve import NOT_FINITE, Goal, fit, product

HISTORY = 20  # steps that the inverse Hessian is estimated from
EVERY = 4  # steps from one look at the samples that are held out to the next
SHRINK = 1e-3  # of the mean variance: what is added to covariances before their roots are taken


@dataclass(frozen=True)
class Half:
    """One of the two layers: weights (outputs, features), and what it adds, (outputs,)."""

    weights: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Between:
    """What becomes of the output of the first layer: `clip(factor · y + summand, low, high)`, per channel."""

    factor: np.ndarray  # (outputs,) float32, as the next
    summand: np.ndarray
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """What two layers see on some samples.

    columns: (features, positions), float32, that the first one reads.
    places: (taps, rows), what the second one reads: 1 + the position of the first one's output; 0 for padding.
    goal: of the second one, (outputs, rows).
    """

    columns: np.ndarray
    places: np.ndarray
    between: Between
    goal: Goal


def work(pair: Pair, first: Half, outputs: int) -> float:
    """Multiply-accumulates of the loss and its gradient."""
    hidden, features = first.weights.shape
    taps, rows = pair.places.shape
    return 2.0 * hidden * features * pair.columns.shape[1] + 3.0 * outputs * hidden * taps * rows


def together(
    seen: Pair, held: Pair, first: Half, prior: Half, *, ridge: float, rounds: int, steps: int
) -> tuple[Half, Half] | None:
    """Both layers solved together; None where that is not better on the samples that are held out.

    Args:
        seen, held: samples to solve on, and to judge by.
        first: the first layer, solved by itself.
        prior: what the second one is drawn to before the steps begin.
        ridge, rounds: of the least squares that the second one begins with, as in `fit`.
        steps: at most so many.
    """
    problem = _Problem(seen, first)
    second = Half(*fit(problem.features.copy(), seen.goal, prior.weights, prior.bias, ridge=ridge, rounds=rounds))
    whitened = _Whitened.of(problem, first, second)
    judge = _Problem(held, first)
    best = begun = judge.loss(first, second)
    found, count = None, 0

    def look(x: np.ndarray) -> None:
        nonlocal best, found, count
        count += 1
        if count % EVERY == 0 or count == steps:
            halves = whitened.halves(x)
            if (loss := judge.loss(*halves)) < best:
                best, found = loss, halves
            elif loss > begun:
                raise StopIteration

    options = {"maxiter": steps, "maxcor": HISTORY, "ftol": 0, "gtol": 0}
    minimize(whitened, np.zeros(whitened.size), jac=True, method="L-BFGS-B", callback=look, options=options)
    return found


class _Problem:
    """The loss of two layers on samples, a share of the energy of what is wanted, and its gradient."""

    def __init__(self, pair: Pair, first: Half) -> None:
        self.pair = pair
        hidden, count = len(first.weights), pair.columns.shape[1]
        taps, self.rows = pair.places.shape
        self.inside, self.passed = np.empty((hidden, count), np.float32), np.zeros((hidden, count + 1), np.float32)
        self._features = np.empty((hidden, taps, self.rows), np.float32)
        self.energy = max(pair.goal.energy, 1e-12)
        self.run(first)

    @cached_property
    def _readers(self) -> np.ndarray:
        """The row that reads a position, for each tap: `places` the other way round."""
        taps, count = len(self.pair.places), self.pair.columns.shape[1]
        found = np.full((taps, count + 1), self.rows)
        for row, place in zip(found, self.pair.places, strict=True):
            row[place] = np.arange(self.rows)
        return found

    @cached_property
    def _back(self) -> np.ndarray:
        hidden, taps, rows = self._features.shape
        return np.zeros((hidden, taps, rows + 1), np.float32)

    @property
    def features(self) -> np.ndarray:
        """What the second layer reads, (hidden · taps, rows)."""
        return self._features.reshape(-1, self.rows)

    def run(self, first: Half) -> None:
        """From what the first layer reads to what the second one does."""
        between = self.pair.between
        np.matmul(first.weights.astype(np.float32), self.pair.columns, out=self.inside)
        self.inside += first.bias[:, None].astype(np.float32)
        self.inside *= between.factor[:, None]
        self.inside += between.summand[:, None]
        np.clip(self.inside, between.low, between.high, out=self.passed[:, 1:])
        np.take(self.passed, self.pair.places, axis=1, out=self._features, mode="clip")

    def error(self, first: Half, second: Half) -> np.ndarray:
        """How far what comes behind the second layer is from what it should be, (outputs, rows)."""
        self.run(first)
        y = second.weights.astype(np.float32) @ self.features
        y += second.bias[:, None].astype(np.float32)
        y -= self.pair.goal.aims(y.copy())
        y *= self.pair.goal.factor[:, None]
        return y

    def loss(self, first: Half, second: Half) -> float:
        error = self.error(first, second)
        return float(np.vdot(error, error)) / self.energy

    def gradient(self, first: Half, second: Half) -> tuple[float, Half, Half]:
        """The loss, and its derivatives by both layers."""
        error, between = self.error(first, second), self.pair.between
        loss = float(np.vdot(error, error)) / self.energy
        error *= (2 / self.energy) * self.pair.goal.factor[:, None]
        later = Half(product(error, self.features), error.sum(axis=1, dtype=np.float64))
        back = second.weights.astype(np.float32).T @ error
        self._back[:, :, :-1] = back.reshape(self._features.shape)
        inner = np.zeros_like(self.inside)
        for tap, readers in enumerate(self._readers):
            inner += self._back[:, tap].take(readers[1:], axis=1)
        inner *= ((self.inside > between.low) & (self.inside < between.high)) * between.factor[:, None]
        return loss, Half(product(inner, self.pair.columns), inner.sum(axis=1, dtype=np.float64)), later


@dataclass(frozen=True)
class _Whitened:
    """The problem in unknowns x: how far `W · L` and the means of the outputs are from the start, L·Lᵀ covariances."""

    problem: _Problem
    start: tuple[Half, Half]
    means: tuple[np.ndarray, np.ndarray]  # of the features
    roots: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, problem: _Problem, *start: Half) -> "_Whitened":
        means, roots = zip(*(_moments(c) for c in (problem.pair.columns, problem.features)), strict=True)
        return cls(problem, (start[0], start[1]), means, roots)

    @property
    def size(self) -> int:
        return sum(h.weights.size + h.bias.size for h in self.start)

    def halves(self, x: np.ndarray) -> tuple[Half, Half]:
        found = []
        for begun, mean, root in zip(self.start, self.means, self.roots, strict=True):
            some, x = x[: begun.weights.size].reshape(begun.weights.shape), x[begun.weights.size :]
            weights = begun.weights + solve_triangular(root, some.T, lower=True, trans="T").T
            found.append(Half(weights, begun.bias + x[: begun.bias.size] - (weights - begun.weights) @ mean))
            x = x[begun.bias.size :]
        return found[0], found[1]

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        loss, *gradients = self.problem.gradient(*self.halves(x))
        if not np.isfinite(loss):
            raise ModelError(NOT_FINITE)
        parts = []
        for found, mean, root in zip(gradients, self.means, self.roots, strict=True):
            centred = found.weights - np.outer(found.bias, mean)
            parts += [solve_triangular(root, centred.T, lower=True).T.ravel(), found.bias]
        return loss, np.concatenate(parts)


def _moments(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of features, and a root of their covariances.

    Raises ModelError where there is NaN or infinity among them.
    """
    mean = columns.mean(axis=1, dtype=np.float64)
    centred = columns - mean[:, None].astype(np.float32)
    covariances = product(centred, centred) / columns.shape[1]
    if not np.isfinite(covariances).all():
        raise ModelError(NOT_FINITE)
    covariances[np.diag_indices_from(covariances)] += max(SHRINK * float(np.trace(covariances)) / len(mean), 1e-12)
    return mean, np.linalg.cholesky(covariances)
