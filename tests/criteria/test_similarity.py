"""Similarity matrices against plain numpy, and the promises that they are built for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxprune.criteria import Filters, method
from onnxprune.criteria.filters import BLOCKS, COLUMNS
from onnxprune.criteria.gram import DOUBLE_WORK, gram, integers, shifts
from onnxprune.criteria.similarity import (
    correlations,
    cosines,
    pair_similarity,
    similarities,
    square,
    squared_distances,
)


def concatenated(filters: Filters) -> NDArray[np.float64]:
    return np.concatenate([w.reshape(len(w), -1).astype(np.float64) for w in filters.weights], axis=1)


def upper(matrix: NDArray) -> NDArray:
    return matrix[np.triu_indices(len(matrix), 1)]


def coupled(channels: int = 9) -> Filters:
    generator = np.random.default_rng(1)
    shapes = ((channels, 4, 3, 3), (channels, 6, 1, 1), (channels, 11), (channels, 2, 5, 2))
    return Filters(tuple(generator.normal(0.3, 1, shape).astype(np.float32) for shape in shapes))


def test_measures_equal_the_formulas_over_the_concatenated_filter() -> None:
    filters = coupled()
    rows = concatenated(filters)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(correlations(filters).pairs(), upper(np.corrcoef(rows)), atol=1e-7)
    np.testing.assert_allclose(cosines(filters).pairs(), upper(unit @ unit.T), atol=1e-7)
    apart = ((rows[:, None] - rows) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared_distances(filters), upper(apart), rtol=1e-6)


def single() -> Filters:
    """Filters that are compared in float32."""
    weights = np.random.default_rng(0).standard_normal((300, 6100)).astype(np.float32)
    weights[100:200] = weights[:100] * np.float32(0.37)
    weights[200:210] = weights[:10]
    filters = Filters((weights,))
    assert filters.channels**2 * filters.width > DOUBLE_WORK
    return filters


def test_products_in_float32_are_exact_and_close() -> None:
    filters = single()
    rows = integers(filters, centred=True)
    assert rows.dtype is np.float32
    blocks = [block.astype(np.int64).reshape(300, -1) for block in rows.blocks()]
    assert all(np.array_equal(block, np.rint(block)) for block in rows.blocks())
    assert max((block**2).sum(axis=1).max() for block in blocks) <= 1 << 24
    np.testing.assert_array_equal(np.tril(gram(rows).T), np.tril(sum(block @ block.T for block in blocks)))
    error = correlations(filters).pairs() - upper(np.corrcoef(concatenated(filters)))
    assert np.abs(error).max() < 4e-4
    assert error.std() < 1e-4


def test_rounding_up_everywhere_stays_exact() -> None:
    """1,000 columns of one magnitude would scale to 129.53 each, and 130 in each of them is too long a row."""
    signs = np.sign(np.random.default_rng(0).standard_normal((300, 240, 5, 5))).astype(np.float32)
    rows = integers(Filters((signs,)), centred=False)
    assert rows.dtype is np.float32
    longest = max((block.astype(np.int64).reshape(300, -1) ** 2).sum(axis=1).max() for block in rows.blocks())
    assert 0.98 * (1 << 24) < longest <= 1 << 24


def test_copies_are_exactly_alike_in_float32_too() -> None:
    filters = single()
    assert (square(correlations(filters).pairs(), 1)[np.arange(10), np.arange(200, 210)] == 1).all()
    assert (square(squared_distances(filters), 0)[np.arange(10), np.arange(200, 210)] == 0).all()
    assert square(correlations(filters).pairs(), 1)[np.arange(100), np.arange(100, 200)].min() > 1 - 1e-6


def test_products_in_float64_are_exact() -> None:
    filters = coupled(20)
    rows = integers(filters, centred=False)
    assert rows.dtype is np.float64
    whole = np.concatenate([block.reshape(20, -1) for block in (b.copy() for b in rows.blocks())], axis=1)
    exact = [[sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) for y in whole] for x in whole]
    assert max(exact[k][k] for k in range(20)) <= 1 << 52
    assert np.array_equal(np.triu(gram(rows)), np.triu(np.array(exact, np.float64)))


def lagged(a: NDArray, b: NDArray) -> float:
    """Largest cross-correlation of two (inputs, h, w) tensors over all shifts, written out."""
    a, b = a - a.mean(), b - b.mean()
    height, width = a.shape[1:]
    best = -np.inf
    for dy in range(1 - height, height):
        for dx in range(1 - width, width):
            total = sum(
                (a[:, y, x] * b[:, y + dy, x + dx]).sum()
                for y in range(max(0, -dy), height - max(0, dy))
                for x in range(max(0, -dx), width - max(0, dx))
            )
            best = max(best, total)
    return best / np.sqrt((a**2).sum() * (b**2).sum())


def test_spatial_lag_equals_the_best_of_all_shifts() -> None:
    weights = np.random.default_rng(2).standard_normal((7, 3, 3, 2))
    expected = [lagged(weights[i], weights[j]) for i in range(7) for j in range(i + 1, 7)]
    filters = Filters((weights,))
    np.testing.assert_allclose(correlations(filters, "spatial").pairs(), expected, atol=1e-7)
    left, right = np.triu_indices(7, 1)
    np.testing.assert_allclose(pair_similarity(filters, left, right, "ncc", "spatial"), expected, atol=1e-12)


def test_half_of_the_shifts_of_the_largest_kernel() -> None:
    assert len(shifts(Filters((np.ones((2, 1, 3, 3)),)))) == 12
    assert len(shifts(Filters((np.ones((2, 1, 1, 1)), np.ones((2, 4)))))) == 0
    assert shifts(Filters((np.ones((2, 1, 3)),))) == [(1,), (2,)]
    assert len(shifts(Filters((np.ones((2, 1, 2, 2, 2)), np.ones((2, 1, 3)))))) == (3 * 3 * 5 - 1) // 2


def test_a_writer_without_a_kernel_adds_nothing_to_a_shift() -> None:
    """All writers move together: with a large fully connected part, the best lag stays zero."""
    kernels = np.zeros((2, 1, 3, 3))
    kernels[0, 0, 1, 0] = kernels[1, 0, 1, 1] = 1
    dense = np.array([[5.0, -5.0], [5.0, -5.0]])
    both = Filters((kernels, dense))
    alone = Filters((kernels,))
    assert correlations(alone, "spatial").pairs()[0] > 0.9 > 0 > correlations(alone).pairs()[0]
    np.testing.assert_allclose(correlations(both, "spatial").pairs(), correlations(both).pairs())


def test_constant_and_zero_filters() -> None:
    rows = np.array([[1.0, 2, 4], [2, 2, 2], [5, 5, 5], [-1, -1, -1], [0, 0, 0]])
    like = square(correlations(Filters((rows,))).pairs(), 1.0)
    assert like[1].tolist() == [0, 1, 1, -1, 1]
    assert like[4].tolist() == [1, 1, 1, 1, 1]
    assert square(correlations(Filters((rows,)), absolute=True).pairs(), 1.0)[1].tolist() == [0, 1, 1, 1, 1]
    assert square(cosines(Filters((rows,))).pairs(), 1.0)[4].tolist() == [1, 1, 1, 1, 1]
    third = np.full((2, 70000), 0.1, np.float32)  # whose mean is not exactly its value
    assert correlations(Filters((third,))).pairs().tolist() == [1.0]
    left, right = np.triu_indices(5, 1)
    for absolute in (False, True):
        pairs = pair_similarity(Filters((rows,)), left, right, "ncc", absolute=absolute)
        np.testing.assert_allclose(pairs, correlations(Filters((rows,)), absolute=absolute).pairs(), atol=1e-7)


def test_blocks_are_views_and_no_wider_than_they_must_be() -> None:
    weight = np.zeros((3, 20000), np.float32)
    blocks = list(Filters((weight, weight[:, :5])).blocks())
    assert all(np.shares_memory(block, weight) for block in blocks)
    assert len(blocks) <= BLOCKS + 1
    assert max(block.shape[1] for block in Filters((weight[:, :5000],)).blocks()) <= COLUMNS


def test_transposed_weights_give_the_same_answer() -> None:
    weights = np.random.default_rng(0).standard_normal((30, 50)).astype(np.float32)
    turned = np.asfortranarray(weights)
    assert np.array_equal(correlations(Filters((weights,))).pairs(), correlations(Filters((turned,))).pairs())


rows_of_numbers = st.lists(
    st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=2, max_size=12
)  # small integers, so that copies, scaled copies, constants and zeros are common


@settings(max_examples=150, deadline=None)
@given(
    rows_of_numbers,
    st.sampled_from([0.0, 0.5, 0.8, 0.95, 1.0]),
    st.sampled_from(["complete", "average", "single"]),
    st.sampled_from(["ncc", "cosine"]),
    st.sampled_from(["zero", "spatial"]),
)
def test_a_threshold_removes_only_what_is_that_similar_to_something_that_stays(
    rows: list[list[int]], threshold: float, linkage: str, measure: str, lag: str
) -> None:
    filters = Filters((np.array(rows, np.float32).reshape(-1, 1, 2, 2) * np.float32(0.1),))
    way = method("ncc", linkage=linkage, measure=measure, lag=lag)
    kept = way.select_by_threshold(filters, threshold)
    assert len(kept) >= 1
    like = square(similarities(filters, measure, lag).pairs(), 1.0)  # type: ignore[arg-type]
    gone = np.setdiff1d(np.arange(filters.channels), kept)
    assert (like[np.ix_(gone, kept)].max(axis=1, initial=-2) >= threshold - 1e-6).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=2, max_size=2), st.floats(-1, 1))
def test_of_two_filters_one_goes_if_they_are_similar_enough(rows: list[list[int]], threshold: float) -> None:
    filters = Filters((np.array(rows, np.float64),))
    like = float(correlations(filters).pairs()[0])
    kept = method("ncc").select_by_threshold(filters, threshold)
    if abs(like - threshold) > 1e-6:
        assert len(kept) == (1 if like > threshold else 2)


def test_scaled_copies_are_removed_at_a_threshold_of_one() -> None:
    once = np.random.default_rng(4).standard_normal((8, 3, 3, 3)).astype(np.float32)
    weights = np.concatenate([once, once * np.float32(0.3), once * np.float32(1.7)])
    assert method("ncc").select_by_threshold(Filters((weights,)), 1.0).tolist() == list(range(16, 24))


@pytest.mark.parametrize("kernel", [(), (4,), (2, 3), (2, 2, 2)])
def test_kernels_of_every_rank(kernel: tuple[int, ...]) -> None:
    filters = Filters((np.random.default_rng(0).standard_normal((6, 5, *kernel)),))
    rows = concatenated(filters)
    np.testing.assert_allclose(correlations(filters).pairs(), upper(np.corrcoef(rows)), atol=1e-7)
    assert (correlations(filters, "spatial").pairs() >= correlations(filters).pairs()).all()
