"""The order in which channels leave when the readers are re-solved after each: optimal brain surgery by blocks.

Removing the features F of a linear layer from `min E‖(W − W′)x‖²` costs `tr(W_F ([H⁻¹]_FF)⁻¹ W_Fᵀ)` and moves the
rest by `−W_F ([H⁻¹]_FF)⁻¹ [H⁻¹]_F·` (Hassibi and Stork, NIPS 1992; in blocks for the taps of a kernel).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
        for at in chosen:
            before = [w.cost(alive[at]) for w in work]
            for w in work:
                w.remove(alive[at])
            order.append(int(alive[at]))
            loss.append(loss[-1] + max(sum(before), 0.0))
        alive = np.delete(alive, chosen)
    return Order(np.array([*order, *alive]), np.array(loss))


def solved(reader: Reader, gone: np.ndarray, ridge: float) -> np.ndarray:
    """Weights that make up for channels that are gone, (outputs, features), zero at those."""
    stay = np.ones(len(reader.gram), bool)
    if reader.gram.ndim == 1:
        stay[reader.features[gone].ravel()] = False
        return reader.weights * stay
    stay[reader.features[gone].ravel()] = False
    system = reader.gram[np.ix_(stay, stay)].astype(np.float64)
    pull = ridge * max(float(np.trace(reader.gram)) / len(reader.gram), 1e-12)
    system[np.diag_indices_from(system)] += pull
    wanted = reader.weights @ reader.gram[:, stay] + pull * reader.weights[:, stay]
    out = np.zeros_like(reader.weights)
    out[:, stay] = np.linalg.solve(system, wanted.T).T
    return out


@dataclass
class _Work:
    """The inverse and the weights of one reader while channels leave."""

    inverse: np.ndarray
    weights: np.ndarray
    features: np.ndarray

    @classmethod
    def of(cls, reader: Reader, ridge: float) -> "_Work":
        gram = reader.gram.astype(np.float64)
        scale = max(float(np.trace(gram)) / len(gram), 1e-12)
        gram[np.diag_indices_from(gram)] += ridge * scale
        return cls(np.linalg.inv(gram), reader.weights.astype(np.float64), reader.features)

    def costs(self, alive: np.ndarray) -> np.ndarray:
        f = self.features[alive]  # (alive, repeats)
        blocks = np.linalg.inv(self.inverse[f[:, :, None], f[:, None, :]])
        w = self.weights[:, f]  # (outputs, alive, repeats)
        return np.einsum("ocf,cfg,ocg->c", w, blocks, w, optimize=True)

    def cost(self, channel: int) -> float:
        return float(self.costs(np.array([channel]))[0])

    def remove(self, channel: int) -> None:
        f = self.features[channel]
        rows = self.inverse[f]
        step = np.linalg.solve(rows[:, f], rows)
        self.weights -= self.weights[:, f] @ step
        self.inverse -= rows.T @ step
        self.weights[:, f] = 0
        self.inverse[f], self.inverse[:, f] = 0, 0
        self.inverse[f, f] = 1


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

    def cost(self, channel: int) -> float:
        return float(self.energy[channel])

    def remove(self, channel: int) -> None:
        self.energy[channel] = 0.0
