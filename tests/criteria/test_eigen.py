"""Eigenvalues of feature maps, gathered batch by batch."""

import numpy as np
import pytest

from onnxprune.criteria.eigen import EigenEnergy
from onnxprune.errors import ModelError, UsageError


def largest(maps: np.ndarray, q: float) -> np.ndarray:
    """The definition, map by map, from singular values."""
    result = np.zeros(maps.shape[1])
    for image in maps:
        for channel, plane in enumerate(image):
            values = np.linalg.svd(plane, compute_uv=False) ** 2
            number = int(q) if q >= 1 else int(np.argmax(np.cumsum(values) >= q * values.sum())) + 1
            result[channel] += values[:number].sum() / len(maps)
    return result


@pytest.mark.parametrize("q", [1, 2, 3.0, 100, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(5, 4, 7, 3), (5, 4, 3, 7), (5, 4, 6, 6), (5, 4, 1, 1)])
def test_importance_is_the_mean_of_the_large_eigenvalues(q: float, shape: tuple[int, ...]) -> None:
    maps = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = EigenEnergy(q)
    found.update(maps[:2])
    found.update(maps[2:])
    np.testing.assert_allclose(found.importance, largest(maps.astype(np.float64), q), rtol=1e-10)
    assert found.images == 5


def test_by_hand() -> None:
    # A = diag(3, 2, 1): eigenvalues 9, 4, 1 of AᵀA, 14 in all; 90 % is 12.6, held by the first two.
    maps = np.diag([3.0, 2, 1])[None, None]
    for q, expected in ((1, 9), (2, 13), (3, 14), (0.9, 13), (0.64, 9), (0.65, 13), (0.95, 14)):
        found = EigenEnergy(q)
        found.update(maps)
        np.testing.assert_allclose(found.importance, [expected])


def test_maps_of_any_number_of_axes() -> None:
    maps = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6))
    whole, joined, flat, points = (EigenEnergy(2) for _ in range(4))
    whole.update(maps)
    joined.update(maps.reshape(2, 3, 20, 6))
    np.testing.assert_allclose(whole.importance, joined.importance)
    flat.update(maps[..., 0, 0, :])  # a single axis has one eigenvalue, its energy
    np.testing.assert_allclose(flat.importance, (maps[..., 0, 0, :] ** 2).sum(axis=2).mean(axis=0))
    points.update(maps[..., 0, 0, 0])
    np.testing.assert_allclose(points.importance, (maps[..., 0, 0, 0] ** 2).mean(axis=0))


def test_dead_maps_have_no_energy() -> None:
    found = EigenEnergy()
    found.update(np.zeros((3, 2, 4, 4), np.float32))
    assert found.importance.tolist() == [0, 0]


def test_misuse_is_refused() -> None:
    for q in (0, -1, 1.5):
        with pytest.raises(UsageError, match="q is a share"):
            EigenEnergy(q)
    found = EigenEnergy()
    with pytest.raises(UsageError, match="no feature maps"):
        _ = found.importance
    found.update(np.ones((1, 3, 2, 2)))
    with pytest.raises(UsageError, match="4 channels follow maps of 3"):
        found.update(np.ones((1, 4, 2, 2)))
    with pytest.raises(UsageError, match="shape"):
        found.update(np.ones(3))
    with pytest.raises(ModelError, match="NaN"):
        found.update(np.full((1, 3, 2, 2), np.nan))
    assert found.importance.tolist() == [4, 4, 4]  # as before the bad batch
