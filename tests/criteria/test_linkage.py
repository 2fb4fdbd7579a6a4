"""Agglomerative trees by themselves, and their first merges without the others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from onnxprune.criteria import Filters, method
from onnxprune.criteria import linkage as module
from onnxprune.criteria.linkage import Clusters, agglomerate, first_merges
from onnxprune.criteria.similarity import Similarities, similarities, square


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 25), st.integers(0, 1000), st.sampled_from(["complete", "average", "single"]), st.booleans())
def test_a_tree_is_cut_into_exactly_as_many_clusters_as_asked(size: int, seed: int, link: str, ties: bool) -> None:
    points = np.random.default_rng(seed).integers(0, 3 if ties else 10**6, (size, 2))
    tree = agglomerate(pdist(points), link)
    for clusters in range(1, size + 1):
        labels = tree.cut(clusters)
        assert sorted(set(labels)) == list(range(clusters))
        coarser = tree.cut(max(1, clusters - 1))
        assert all(len(set(coarser[labels == label])) == 1 for label in range(clusters))


def test_a_cut_at_a_height_keeps_all_pairs_of_a_cluster_within_it() -> None:
    points = np.random.default_rng(0).random((40, 3))
    tree, apart = agglomerate(pdist(points), "complete"), np.linalg.norm(points[:, None] - points, axis=2)
    for height in (0.0, 0.2, 0.4, 2.0):
        labels = tree.cut_at(height)
        assert apart[labels[:, None] == labels].max() <= height
        assert len(set(labels)) == {0.0: 40, 2.0: 1}.get(height, len(set(labels)))


def filters(channels: int, width: int = 20, seed: int = 0) -> Filters:
    return Filters((np.random.default_rng(seed).standard_normal((channels, width)).astype(np.float32),))


def alike(channels: int, absolute: bool = False) -> Similarities:
    return similarities(filters(channels), absolute=absolute)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("clusters", [470, 499, 500, 600, 1049])
def test_the_first_merges_are_those_of_the_whole_tree(clusters: int, absolute: bool) -> None:
    found = alike(1050, absolute)
    whole = agglomerate(Clusters(found, "complete").distances, "complete").cut(clusters)
    labels = first_merges(found, clusters)
    assert (labels is None) == (clusters == 470)
    if labels is not None:
        assert len(set(zip(labels.tolist(), whole.tolist(), strict=True))) == len(set(labels)) == clusters
    assert len(set(zip(Clusters(found, "complete").labels(clusters), whole, strict=True))) == clusters


def test_pairs_that_are_equally_far_are_left_to_the_whole_tree() -> None:
    rows = filters(1050).weights[0]
    rows[1:200] = rows[0]
    assert first_merges(similarities(Filters((rows,))), 1000) is None
    assert len(set(Clusters(similarities(Filters((rows,))), "complete").labels(1000))) == 1000


def test_nearest_pairs_that_do_not_do_are_left_to_the_whole_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    found = alike(1050)
    monkeypatch.setattr(module, "NEAREST", 1 - 1050**0.5 / 2)
    assert first_merges(found, 1000) is not None
    assert first_merges(found, 500) is None


def test_what_stays_does_not_depend_on_how_the_merges_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ncc, some = method("ncc"), filters(1050, 64)
    once = ncc.rank(some).keep(560)
    ranking = ncc.rank(some)
    assert len(ranking.order) == 1050  # the whole tree stands
    assert np.array_equal(ranking.keep(560), once)
    monkeypatch.setattr(module, "FEW", 2000)
    assert np.array_equal(ncc.rank(some).keep(560), once)


@pytest.mark.parametrize("least", [0.9, 0.3, -0.2, 1.0])
def test_pairs_above_a_similarity_are_those_of_all_pairs(least: float) -> None:
    rows = filters(60, 4).weights[0]
    rows[:3] = rows[3] * np.array([[2.0], [0.0], [1.0]])
    rows[4:6] = [[1.0], [-1.0]]  # constant ones
    found = similarities(Filters((rows,)))
    matrix = np.triu(square(found.pairs(), 1.0), 1)
    first, second, similar = found.above(least)
    expected = np.nonzero((matrix >= least) & np.triu(np.ones_like(matrix, bool), 1))
    assert np.array_equal(np.stack([first, second]), np.stack(expected))
    assert np.array_equal(similar, matrix[first, second])


def test_a_quantile_is_near_that_of_all_pairs() -> None:
    found = alike(700)
    for share in (0.01, 0.1, 0.5):
        assert abs((found.pairs() > found.quantile(share)).mean() - share) < 0.2 * share
