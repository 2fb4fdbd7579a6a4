"""k-means and spectral clustering by themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.criteria.cluster import _eigenvectors as eigenvectors
from onnxprune.criteria.cluster import _embedding as embedding
from onnxprune.criteria.cluster import apportion, eigengap, kmeans, repair, spectral, within


def test_within_averages_over_the_own_cluster() -> None:
    distance = np.array([[0.0, 1, 9], [1, 0, 9], [9, 9, 0]])
    assert within(np.array([1, 1, 0]), distance).tolist() == [0.5, 0.5, 0]
    assert within(np.array([0, 1, 0]), distance, power=2).tolist() == [40.5, 0, 40.5]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.data())
def test_seats_are_handed_out_in_proportion(sizes: list[int], data: st.DataObject) -> None:
    members = np.array(sizes)
    seats = data.draw(st.integers(len(sizes), int(members.sum())))
    given_ = apportion(members, seats)
    assert given_.sum() == seats
    assert (given_ >= 1).all()
    assert (given_ <= members).all()
    share = members * seats / members.sum()
    if (share >= 1).all():
        assert (np.abs(given_ - share) < 1).all()


def test_seats_by_hand() -> None:
    assert apportion(np.array([4, 2]), 3).tolist() == [2, 1]
    assert apportion(np.array([10, 1, 1]), 4).tolist() == [2, 1, 1]  # shares 3.3, .3, .3, and none goes without
    assert apportion(np.array([3, 3]), 3).tolist() == [2, 1]


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Points around four centres far apart, and which centre each is of."""
    generator = np.random.default_rng(0)
    label = np.repeat(np.arange(4), [5, 9, 3, 13])
    return np.array([[0, 0], [9, 0], [0, 9], [9, 9]])[label] + generator.normal(0, 0.3, (30, 2)), label


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len({*zip(a, b, strict=True)}) == len(set(a)) == len(set(b))


def test_kmeans_finds_separate_clusters_from_products_alone() -> None:
    points, label = blobs()
    found = kmeans(points @ points.T, 4, seed=0, restarts=4)
    assert same_partition(found, label)


def test_kmeans_ends_where_every_point_is_with_its_nearest_mean() -> None:
    points = np.random.default_rng(1).random((80, 3))
    labels = kmeans(points @ points.T, 9, seed=3, restarts=3)
    means = np.array([points[labels == k].mean(axis=0) for k in range(9)])
    nearest = np.linalg.norm(points[:, None] - means, axis=2).argmin(axis=1)
    assert (nearest == labels).all()


@pytest.mark.parametrize("points", [np.zeros((9, 2)), np.ones((9, 2)), np.repeat(np.eye(3), 3, axis=0)])
@pytest.mark.parametrize("clusters", [1, 3, 7, 9])
def test_kmeans_fills_every_cluster_even_with_equal_points(points: np.ndarray, clusters: int) -> None:
    labels = kmeans(points @ points.T, clusters, seed=0, restarts=2)
    assert sorted(set(labels)) == list(range(clusters))
    if clusters == 3 and points[0, 1] != points[3, 1]:
        assert same_partition(labels, np.repeat(np.arange(3), 3))


def test_empty_clusters_take_the_farthest_points_that_do_not_stand_alone() -> None:
    labels = repair(np.array([0, 0, 0, 2]), np.array([1.0, 3.0, 2.0, 9.0]), 4)
    assert labels.tolist() == [0, 1, 3, 2]


def gaussian(points: np.ndarray) -> np.ndarray:
    return np.exp(-((points[:, None] - points) ** 2).sum(axis=2) / 2)


def test_spectral_clusters_follow_shape() -> None:
    """Two rings: k-means on the points cannot part them, the graph does."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points, label = np.concatenate([3 * circle, 12 * circle]), np.repeat([0, 1], 40)
    assert same_partition(spectral(gaussian(points), 2, seed=0, restarts=4), label)
    assert not same_partition(kmeans(points @ points.T, 2, seed=0, restarts=4), label)


def test_the_eigengap_counts_separate_clusters() -> None:
    points, _ = blobs()
    assert eigengap(gaussian(points), 10) == 4
    assert eigengap(gaussian(points), 3) == 3  # the gap lies at the edge of what may be looked at
    assert eigengap(np.ones((1, 1)), 1) == 1


@pytest.mark.parametrize("size", [2, 3, 40])
def test_eigenvectors_span_what_they_should(size: int) -> None:
    half = np.random.default_rng(size).random((size, size))
    matrix = half @ half.T
    vectors = np.linalg.eigh(matrix)[1]
    for first, few in ((0, 1), (size - 1, 1), (0, size), (size // 2, size - size // 2)):
        found, expected = eigenvectors(matrix.copy(), first, few), vectors[:, first : first + few]
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-8)


@pytest.mark.parametrize("dimensions", [1, 3, 7, 10, 15, 19, 20])
def test_the_embedding_has_the_products_of_the_scaled_eigenvector_rows(dimensions: int) -> None:
    affinity = gaussian(np.random.default_rng(0).random((20, 3)) * 4)
    degree = affinity.sum(axis=1)
    laplacian = np.eye(20) - affinity / np.sqrt(np.outer(degree, degree))
    rows = np.linalg.eigh(laplacian)[1][:, :dimensions]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(embedding(affinity, dimensions), rows @ rows.T, atol=1e-8)
