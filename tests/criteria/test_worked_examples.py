"""A worked example per method, small enough to follow by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from onnxprune.criteria import Filters, method
from onnxprune.criteria.linkage import agglomerate
from onnxprune.criteria.similarity import correlations
from onnxprune.criteria.structure import quotas, structural_distances, thin
from onnxprune.errors import UsageError


def kernels(*rows: list[float]) -> Filters:
    """Filters of one input with 2×2 kernels."""
    return Filters((np.array(rows, np.float32).reshape(len(rows), 1, 2, 2),))


# A rises; B = 2A + 5 has NCC 1 with A; C falls, NCC −1; D: (−1.5)(1) + (−.5)(−1) + (.5)(−1) + (1.5)(1) = 0, NCC 0.
RISING = kernels([1, 2, 3, 4], [7, 9, 11, 13], [4, 3, 2, 1], [1, -1, -1, 1])


def test_ncc_keeps_the_larger_of_two_like_filters() -> None:
    np.testing.assert_allclose(correlations(RISING).pairs(), [1, -1, 0, -1, 0, 0], atol=1e-7)  # AB AC AD BC BD CD
    assert method("ncc").select(RISING, 3).tolist() == [1, 2, 3]
    assert method("ncc", representative="first").select(RISING, 3).tolist() == [0, 2, 3]


def test_ncc_by_absolute_value_joins_opposite_filters() -> None:
    assert method("ncc", absolute=True).select(RISING, 2).tolist() == [1, 3]  # A, B and C in one cluster


def test_ncc_by_cosine_sees_a_constant_that_was_added() -> None:
    # cos(A, B) = (7 + 18 + 33 + 52) / √(30 · 420) = 0.980; cos(A, C) = 20 / 30; cos(B, C) = 90 / √(420 · 30) = 0.802
    assert method("ncc", measure="cosine").select_by_threshold(RISING, 0.97).tolist() == [1, 2, 3]
    assert method("ncc", measure="cosine").select_by_threshold(RISING, 0.99).tolist() == [0, 1, 2, 3]


def test_ncc_medoid_is_the_filter_closest_to_its_mates() -> None:
    # Centred already; at 0°, 30° and 50° in the plane of two orthogonal patterns, and one at 180°.
    u, v = np.array([1, -1, 0, 0]), np.array([0, 0, 1, -1])
    filters = kernels(*(np.cos(a) * u + np.sin(a) * v for a in np.radians([0, 30, 50, 180])))
    assert method("ncc", representative="medoid").select(filters, 2).tolist() == [1, 3]


def test_ncc_linkages_differ_on_a_chain() -> None:
    # Angles 0°, 35°, 75°, 120°, 35, 40 and 45 apart: single linkage follows the chain to 75°; complete linkage joins
    # 75° with 120°, which is nearer than 75° to 0°.
    u, v = np.array([1, -1, 0, 0]), np.array([0, 0, 1, -1])
    angles = np.radians([0, 35, 75, 120])
    filters = kernels(*(k * (np.cos(a) * u + np.sin(a) * v) for k, a in enumerate(angles, start=1)))
    assert method("ncc", linkage="complete").select(filters, 2).tolist() == [1, 3]
    assert method("ncc", linkage="single").select(filters, 2).tolist() == [2, 3]


def test_spatial_lag_finds_a_moved_kernel() -> None:
    weights = np.zeros((2, 1, 3, 3))
    weights[0, 0, 0, 0] = weights[1, 0, 0, 1] = 1
    filters = Filters((weights,))
    # Less the mean 1/9, energy is 8/9. As they lie the products sum to −1/9. One step to the right the ones meet and
    # five other positions overlap: (8/9)² + 5/81 = 69/81.
    np.testing.assert_allclose(correlations(filters).pairs(), [-1 / 8], atol=1e-7)
    np.testing.assert_allclose(correlations(filters, "spatial").pairs(), [69 / 72], atol=1e-7)
    assert method("ncc", lag="spatial").select_by_threshold(filters, 0.95).tolist() == [0]
    assert method("ncc", lag="zero").select_by_threshold(filters, 0.95).tolist() == [0, 1]


def test_cshe_keeps_the_most_important_of_each_cluster_in_proportion() -> None:
    # Four filters near 0 and two near 10; three seats over 4 and 2 are 2 and 1.
    filters = Filters((np.array([[0.1], [0.2], [0.3], [0.4], [10.0], [10.1]]),))
    importance = np.array([5.0, 1.0, 7.0, 6.0, 0.2, 0.1])
    assert method("cshe", clusters=2).select(filters, 3, importance).tolist() == [2, 3, 4]
    assert method("cshe", clusters=1).select(filters, 3, importance).tolist() == [0, 2, 3]


def crossed() -> Filters:
    """Two filters that add up alike over inputs and over positions, and two that do not; (inputs, positions)."""
    rows = [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[3, 0], [0, 0]], [[0, 0], [0, -3]]]
    return Filters((np.array(rows, np.float64),))


def test_apssf_compares_sums_over_space_and_channels() -> None:
    # S = R = [1, 1], [1, 1], [3, 0], [0, −3] with mean energy (2 + 2 + 9 + 9) / 4 = 5.5.
    near, apart = np.sqrt(2 * (4 + 1) / 5.5), np.sqrt(2 * 18 / 5.5)
    far = np.sqrt(2 * (1 + 16) / 5.5)
    expected = [0, near, far, near, far, apart]
    np.testing.assert_allclose(structural_distances(crossed(), 1, 1), expected, atol=1e-7)
    np.testing.assert_allclose(structural_distances(crossed(), 0, 1), np.array(expected) / np.sqrt(2), atol=1e-7)
    assert method("apssf").select(crossed(), 3).tolist() == [0, 2, 3]


def test_apssf_deletes_a_share_of_each_cluster() -> None:
    # Two clusters of four. To keep 4 of 8 with share .5: the first threshold at which round(.5 · size) adds up to 4
    # makes four pairs; one of each goes, and in a pair that is the one of smaller norm.
    values = [1.0, 1.1, 1.3, 1.45, 9.0, 9.1, 9.3, 9.45]
    filters = Filters((np.array(values)[:, None],))
    assert method("apssf", share=0.5).select(filters, 4).tolist() == [1, 3, 5, 7]
    # To keep 2, clusters of 4 lose 3 each, the smallest sum of distances first. Of 1, 1.1, 1.3, 1.45 these are .85,
    # .65, .65, .95: 1.1 goes, of smaller norm than 1.3. Then of 1, 1.3, 1.45: .75, .45, .6. Then 1, of smaller norm.
    assert method("apssf").select(filters, 2).tolist() == [3, 7]


def test_apssf_looks_again_after_every_deletion() -> None:
    distance = np.array([[0.0, 5, 4, 2], [5, 0, 1, 2], [4, 1, 0, 5], [2, 2, 5, 0]])
    # Sums 11, 8, 10, 9: 1 goes. Of the others 6, 9, 7: 0 goes, though its first sum was the largest.
    assert thin(np.arange(4), distance, np.ones(4), 2).tolist() == [2, 3]


@pytest.mark.parametrize("seed", range(4))
def test_apssf_quotas_add_up(seed: int) -> None:
    generator = np.random.default_rng(seed)
    tree = agglomerate(pdist(generator.random((37, 2))), "average")
    for count in range(1, 37):
        for rate in (*generator.uniform(1 - count / 37, 1, 3), 1 - count / 37, 1.0):
            labels, quota = quotas(tree, rate, count)
            assert quota.sum() == 37 - count
            assert (quota < np.bincount(labels)).all()


def test_spectral_keeps_the_filter_nearest_the_mean_of_its_group() -> None:
    # Means 1.0 and 5.13.
    filters = Filters((np.array([[0.9], [1.0], [1.1], [5.0], [5.1], [5.3]]),))
    assert method("spectral").select(filters, 2).tolist() == [1, 4]
    assert method("spectral", representative="norm").select(filters, 2).tolist() == [2, 5]


def test_spectral_eigengap_keeps_a_share_of_each_group() -> None:
    # Far apart for σ = 0.5: two blocks, so the gap is after 2 eigenvalues; three seats over 4 and 2 are 2 and 1. Merged
    # pair by pair, of which the smaller norm leaves: 1 (at .1), 9 (at .1), 1.3 (at .15), then 1.1.
    filters = Filters((np.array([[1.0], [1.1], [1.3], [1.45], [9.0], [9.1]]),))
    assert method("spectral", clusters="eigengap", sigma=0.5).select(filters, 3).tolist() == [1, 3, 5]
    order = [4, 2, 0, 5, 3, 1]
    turned = method("spectral", clusters="eigengap", sigma=0.5).select(filters.take(np.array(order)), 3)
    assert sorted(np.array(order)[turned]) == [1, 3, 5]


def test_msvfp_takes_the_weak_and_then_the_redundant() -> None:
    # Norms 1, 2, 3, 3.1, 8, 20, 21; to keep 3 of 7, the first 2 go by norm: 1 and 2. Of 3, 3.1, 8, 20, 21 the sums of
    # distances are 40.1, 39.8, 34.9, 46.9, 49.9: 8 goes. Of 3, 3.1, 20, 21 they are 35.1, 34.9, 34.9, 36.9: a tie, of
    # which the later goes, 20.
    filters = Filters((np.array([[1.0], [2], [3], [3.1], [8], [20], [21]]),))
    assert method("msvfp").select(filters, 3).tolist() == [2, 3, 6]


def test_magnitudes() -> None:
    # Over both writers: sums of magnitudes 6, 5, 5.5; squares 12, 17, 14.25.
    filters = Filters((np.array([[2.0, -2], [4, 0], [-3.5, 1]]), np.array([[[2.0, 0]], [[0, -1]], [[1, 0]]])))
    assert method("l1").select(filters, 2).tolist() == [0, 2]
    assert method("l2").select(filters, 2).tolist() == [1, 2]
    np.testing.assert_allclose(method("l1").rank(filters).curve[-2], (5**2 + 5.5**2) / (5**2 + 5.5**2 + 6**2))
    np.testing.assert_allclose(method("l2").rank(filters).losses, np.array([12, 14.25, 17]) / 43.25)


def test_fpgm_removes_what_is_in_the_middle() -> None:
    # On a line at 0.5, 4, 5, 6, 20 5 in the middle has the smallest sum of distances:
    # 4.5 + 1 + 1 + 15 = 21.5 against 3.5 + 1 + 2 + 16 = 22.5 (4) and 5.5 + 2 + 1 + 14 = 22.5 (6).
    filters = Filters((np.array([[0.5], [4], [5], [6], [20]]),))
    assert method("fpgm").select(filters, 4).tolist() == [0, 1, 3, 4]
    assert method("fpgm").select(filters, 3).tolist() == [0, 1, 4]  # 4 and 6 tie: the later goes


def test_bn_adds_up_the_scales_of_all_normalisations() -> None:
    scales = (np.array([1.0, -3, 0.5]), np.array([1.0, 0.1, -2]))  # 2, 3.1 and 2.5
    assert method("bn").select(Filters((np.ones((3, 1)),), scales), 2).tolist() == [1, 2]


def test_random_is_bound_to_the_weights_not_to_the_place() -> None:
    filters = Filters((np.arange(1.0, 41)[:, None],))
    kept = method("random", seed=7).select(filters, 20)
    turned = method("random", seed=7).select(filters.take(np.arange(40)[::-1]), 20)
    assert sorted(39 - turned) == kept.tolist()
    other = method("random", seed=7).select(Filters((np.arange(2.0, 42)[:, None],)), 20)
    assert other.tolist() != kept.tolist()  # another group of the same size keeps other places


def test_only_ncc_takes_a_threshold() -> None:
    with pytest.raises(UsageError, match="'l2' has no similarity"):
        method("l2").select_by_threshold(RISING, 0.9)
    with pytest.raises(UsageError, match="from -1 to 1"):
        method("ncc").select_by_threshold(RISING, 1.1)


def test_a_floor_lets_faded_filters_go_before_duplicates() -> None:
    faded, like = [0.02, -0.03], [4.0, 0.1]  # the first resembles nothing, the last is nearly a copy of the second
    filters = Filters((np.array([faded, [4.0, 0.0], [0.0, 3.0], like]),))
    assert method("ncc", measure="cosine", floor=0).select(filters, 3).tolist() == [0, 2, 3]
    assert method("ncc", measure="cosine").select(filters, 3).tolist() == [1, 2, 3]
    assert method("ncc", measure="cosine").select(filters, 2).tolist() == [2, 3]
    ranked = method("ncc", measure="cosine").rank(filters)
    assert ranked.order[0] == 0
    assert ranked.curve[1] == pytest.approx(0.0013 / filters.energies.sum())
    assert method("ncc", measure="cosine").select_by_threshold(filters, 0.9).tolist() == [0, 2, 3]  # it is like nothing
