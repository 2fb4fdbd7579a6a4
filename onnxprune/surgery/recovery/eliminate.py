"""The order in which channels leave when the readers are re-solved after each: optimal brain surgery by blocks.

Removing the features F of a linear layer from `min E‖(W − W′)x‖²` costs `tr(W_F ([H⁻¹]_FF)⁻¹ W_Fᵀ)` and moves the
rest by `−W_F ([H⁻¹]_FF)⁻¹ [H⁻¹]_F·` (Hassibi and Stork, NIPS 1992; in blocks for the taps of a kernel).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import dgemm
from scipy.linalg.lapack import dpotrf, dpotri


@dataclass(frozen=True)
class Reader:
    """A layer, or a group of one, as it reads the channels of a group.

    gram: (features, features), covariance of its input; (features,) variances where that is too wide.
    mean: (features,); weights: (outputs, features).
    features: (channels, repeats), which features each channel is.
    """

    gram: np.ndarray
    mean: np.ndarray
    weights: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Order:
    """order: channels, first to leave first; loss: (channels,) error left after 0, 1, ... of them have left."""

    order: np.ndarray
    loss: np.ndarray


def elimination(readers: Sequence[Reader], *, ridge: float = 1e-3, steps: int = 48) -> Order:
    """Remove channels one by one, or a few at a time where there are more than `steps`, the cheapest first."""
    channels = len(readers[0].features)
    work = [_Work.of(r, ridge) if r.gram.ndim == 2 else _Plain.of(r) for r in readers]
    alive, order, loss = np.arange(channels), [], [0.0]
    while alive.size > 1:
        cost = sum(w.costs(alive) for w in work)
        take = min(max(1, alive.size // steps), alive.size - 1)
        chosen = np.argsort(cost, kind="stable")[:take]
        lost = sum(w.remove(alive[chosen]) for w in work)
        order += alive[chosen].tolist()
        loss += (loss[-1] + np.cumsum(np.maximum(lost, 0.0))).tolist()
        alive = np.delete(alive, chosen)
    return Order(np.array([*order, *alive]), np.array(loss))


def solved(reader: Reader, gone: np.ndarray, ridge: float) -> np.ndarray:
    """Weights that make up for channels that are gone, (outputs, features), zero at those."""
    stay = np.ones(len(reader.gram), bool)
    stay[reader.features[gone].ravel()] = False
    if reader.gram.ndim == 1:
        return reader.weights * stay
    system = reader.gram[np.ix_(stay, stay)].astype(np.float64)
    pull = ridge * max(float(np.trace(reader.gram)) / len(reader.gram), 1e-12)
    system[np.diag_indices_from(system)] += pull
    wanted = reader.weights @ reader.gram[:, stay] + pull * reader.weights[:, stay]
    out = np.zeros_like(reader.weights)
    out[:, stay] = np.linalg.solve(system, wanted.T).T
    return out


@dataclass
class _Work:
    """What is left of the inverse and the weights of one reader while channels leave; `features` are places in it.

    Features that are gone stay in both, and are not asked for, until they are a quarter of them.
    """

    inverse: np.ndarray
    weights: np.ndarray
    features: np.ndarray
    there: np.ndarray  # (features,), which have not left

    @classmethod
    def of(cls, reader: Reader, ridge: float) -> "_Work":
        gram = reader.gram.astype(np.float64)
        gram[np.diag_indices_from(gram)] += ridge * max(float(np.trace(gram)) / len(gram), 1e-12)
        there = np.ones(len(gram), bool)
        return cls(_inverse(gram), reader.weights.astype(np.float64), reader.features.copy(), there)

    def costs(self, alive: np.ndarray) -> np.ndarray:
        f = self.features[alive]  # (alive, repeats)
        blocks = np.linalg.inv(self.inverse[f[:, :, None], f[:, None, :]])
        w = self.weights.T[f]  # (alive, repeats, outputs)
        return np.asarray((w @ w.swapaxes(1, 2) * blocks).sum(axis=(1, 2)))

    def remove(self, channels: np.ndarray) -> np.ndarray:
        """Let channels leave, all in one step: what each costs once those before it are gone, (channels,)."""
        f = self.features[channels].ravel()
        rows, weights = self.inverse[f], self.weights[:, f]
        lost = _one_by_one(rows[:, f], weights, len(channels))
        step = np.linalg.solve(rows[:, f], rows)
        self.weights -= weights @ step
        self.inverse = dgemm(-1, step.T, rows.T, 1, self.inverse.T, trans_b=1, overwrite_c=1).T
        self.there[f] = False
        if 4 * int(self.there.sum()) < 3 * len(self.there):
            self._compress()
        return lost

    def _compress(self) -> None:
        stay = self.there
        self.inverse, self.weights = self.inverse[np.ix_(stay, stay)], self.weights[:, stay]
        self.features = (np.cumsum(stay) - 1)[self.features]
        self.there = np.ones(len(self.inverse), bool)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Of a symmetric matrix, by its Cholesky factor where rounding leaves it positive definite."""
    factor, failed = dpotrf(matrix, lower=True)
    if failed:
        return np.asarray(np.linalg.inv(matrix))
    half = np.tril(dpotri(factor, lower=True)[0])
    return np.ascontiguousarray(half + np.tril(half, -1).T)


def _one_by_one(block: np.ndarray, weights: np.ndarray, channels: int) -> np.ndarray:
    """What each of some channels costs after those before it.

    Args:
        block: of the inverse, (features, features), those of one channel after those of the other.
        weights: (outputs, features).
    """
    block, weights = block.copy(), weights.copy()
    width, lost = len(block) // channels, np.zeros(channels)
    for c in range(channels):
        own, rest = slice(c * width, (c + 1) * width), slice((c + 1) * width, None)
        step = np.linalg.solve(block[own, own], np.column_stack([weights[:, own].T, block[own, rest]]))
        outputs = len(weights)
        lost[c] = float((weights[:, own].T * step[:, :outputs]).sum())
        weights[:, rest] -= weights[:, own] @ step[:, outputs:]
        block[rest, rest] -= block[rest, own] @ step[:, outputs:]
    return lost


@dataclass
class _Plain:
    """A reader of which only variances are known: nothing makes up for what leaves."""

    energy: np.ndarray  # (channels,)

    @classmethod
    def of(cls, reader: Reader) -> "_Plain":
        per_feature = (reader.weights.astype(np.float64) ** 2).sum(axis=0) * reader.gram
        return cls(per_feature[reader.features].sum(axis=1))

    def costs(self, alive: np.ndarray) -> np.ndarray:
        return self.energy[alive]

    def remove(self, channels: np.ndarray) -> np.ndarray:
        return self.energy[channels]
