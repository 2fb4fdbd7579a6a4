"""The ridge of a regression with few rows, by the error at each row when it is left out.

With H = Xᵀ(XXᵀ + λ)⁻¹X that error is (t − tH)ᵢ / (1 − Hᵢᵢ), so that one eigen-decomposition tells it for every λ (Allen
1974, doi 10.1080/00401706.1974.10489157; Golub, Heath and Wahba 1979, doi 10.1080/00401706.1979.10489751).
"""

import numpy as np

FEW = 2  # rows per feature from which on the ridge hardly matters
MOST = 1024  # rows of which an eigen-decomposition takes less than a second; of more, so many tell the ridge
LEAST_BELOW = 0.1  # where rows are fewer than features: with less, every row fits itself, and the formula is void
GRID = tuple(float(r) for r in np.geomspace(1e-3, 10, 9))  # in units of the mean variance of the features


def chosen_ridge(columns: np.ndarray, rest: np.ndarray, ridge: float) -> float:
    """The ridge, at least the one that is given, with the least error on rows that are left out.

    Args:
        columns: (features, rows), centred.
        rest: (outputs, rows), centred: what weights that stay as they are leave.
        ridge: as a share of the mean variance of the features; it is kept where rows are many.
    """
    features, rows = columns.shape
    if not 2 < rows <= FEW * features:
        return ridge
    if rows > MOST:  # the best pull is the same number for any count of rows, and a ridge is its share of their sum
        some = np.linspace(0, rows - 1, MOST).astype(int)
        return max(ridge, chosen_ridge(columns[:, some], rest[:, some], ridge) * MOST / rows)
    values, vectors = np.linalg.eigh((columns.T @ columns).astype(np.float64))
    values = np.maximum(values, 0)
    along, weights, scale = rest @ vectors, vectors**2, float(values.sum()) / features
    if not (np.isfinite(values).all() and np.isfinite(along).all()) or scale <= 0:
        return ridge
    least = max(ridge, LEAST_BELOW if rows <= features else 0.0)
    grid = [r for r in GRID if r > least] + [least]
    return min(grid, key=lambda r: _error(rest, along, values / (values + r * scale), vectors, weights))


def _error(rest: np.ndarray, along: np.ndarray, shrunk: np.ndarray, vectors: np.ndarray, weights: np.ndarray) -> float:
    """Mean squared error at rows that are left out; the mean takes 1/rows of each as well."""
    lever = weights @ shrunk + 1 / len(shrunk)
    left = rest - (along * shrunk) @ vectors.T
    return float(np.mean((left / np.maximum(1 - lever, 1e-6)) ** 2))
