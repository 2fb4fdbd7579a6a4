"""Labels: what is tied, what is frozen, and the components that follow."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.channels.ties import Ties
from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import FIXED, LARGEST_AXIS, LabelError, fixed, is_fixed


def components(coupling: Coupling, *labels: np.ndarray) -> list[list[int]]:
    """Components of some axes, numbered in the order in which they appear; 0 is what never dies."""
    component = coupling.solve()
    numbers = {int(component[FIXED]): 0}
    return [[numbers.setdefault(int(c), len(numbers)) for c in component[x]] for x in labels]


def test_new_labels_are_their_own_components() -> None:
    c = Coupling()
    assert components(c, c.label(3), c.label(2)) == [[1, 2, 3], [4, 5]]


def test_an_axis_of_one_position_cannot_shrink() -> None:
    c = Coupling()
    assert is_fixed(c.label(1))
    assert is_fixed(c.label(0))
    assert not is_fixed(c.fresh(1))


def test_ties_are_transitive() -> None:
    c = Coupling()
    x, y, z = c.label(3), c.label(3), c.label(3)
    c.tie(x, y)
    c.tie(z, y[::-1])
    assert components(c, x, y, z) == [[1, 2, 3], [1, 2, 3], [3, 2, 1]]


def test_frozen_labels_join_what_never_dies() -> None:
    c = Coupling()
    x, y = c.label(3), c.label(3)
    c.tie(x, y)
    c.freeze(y[1:], why="is in the way")
    assert components(c, x) == [[1, 0, 0]]


def test_axes_of_different_length_cannot_be_tied() -> None:
    c = Coupling()
    with pytest.raises(LabelError, match="cannot tie 3 labels to 4"):
        c.tie(c.label(3), c.label(4))


def test_an_axis_may_be_too_long() -> None:
    with pytest.raises(LabelError, match="too long"):
        Coupling().label(LARGEST_AXIS + 1)


def test_fixed_axes_take_no_memory() -> None:
    assert fixed(1 << 25).strides == (0,)
    assert is_fixed(fixed(1 << 25))
    assert is_fixed(np.zeros(4, np.int64))
    assert not is_fixed(np.array([0, 3]))


def test_broadcast_ties_axes_of_equal_length() -> None:
    c = Coupling()
    x, y = (c.label(2), c.label(3)), (c.label(3),)
    out = c.broadcast(x, y)
    assert [a.size for a in out] == [2, 3]
    assert components(c, *out, *y) == [[1, 2], [3, 4, 5], [3, 4, 5]]


def test_broadcast_carries_labels_over_axes_of_one_position() -> None:
    c = Coupling()
    x, y = (c.label(4), c.label(1)), (c.label(1), c.label(3))
    assert components(c, *c.broadcast(x, y)) == [[1, 2, 3, 4], [5, 6, 7]]


def test_broadcast_with_an_axis_that_cannot_shrink_freezes() -> None:
    c = Coupling()
    x = c.label(3)
    c.broadcast((x,), (fixed(3),))
    assert components(c, x) == [[0, 0, 0]]


def test_broadcast_leaves_out_missing_inputs() -> None:
    c = Coupling()
    assert len(c.broadcast((c.label(2), c.label(3)), None)) == 2


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_components_are_those_of_the_graph_of_equations(pairs: list[tuple[int, int]]) -> None:
    c = Coupling()
    x = c.label(19)
    every = np.concatenate([[FIXED], x])
    for a, b in pairs:
        c.tie(every[a : a + 1], every[b : b + 1])
    parent = list(range(20))

    def root(k: int) -> int:
        return k if parent[k] == k else root(parent[k])

    for a, b in pairs:
        parent[root(a)] = root(b)
    component = c.solve()
    for a in range(20):
        for b in range(20):
            assert (component[every[a]] == component[every[b]]) == (root(a) == root(b))


# --- reasons -----------------------------------------------------------------


def ties_of(c: Coupling) -> Ties:
    return Ties(*c.edges(), tuple(c.causes), c.size)


def test_the_reason_is_the_first_tie_to_what_never_dies() -> None:
    c = Coupling()
    x, y = c.label(2), c.label(2)
    c.node = 5
    c.tie(x, y)
    c.node = 7
    c.freeze(y, why="sums over it")
    cause = ties_of(c).freezer(int(x[0]))
    assert cause is not None
    assert (cause.node, cause.why) == (7, "sums over it")


def test_a_free_label_has_no_reason() -> None:
    c = Coupling()
    x, y = c.label(2), c.label(2)
    c.freeze(y, why="sums over it")
    assert ties_of(c).freezer(int(x[0])) is None


def test_a_chain_names_each_node_once_and_in_order() -> None:
    c = Coupling()
    axes = [c.label(3) for _ in range(4)]
    for node, (a, b) in enumerate(itertools.pairwise(axes)):
        c.node = node
        c.tie(a, b)
    chain = ties_of(c).chain(int(axes[0][1]), axes[3])
    assert chain is not None
    assert [cause.node for cause in chain] == [0, 1, 2]
    assert ties_of(c).chain(int(axes[0][1]), axes[3][:1]) is None
