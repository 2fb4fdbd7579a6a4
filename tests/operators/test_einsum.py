"""Sums of products over named axes: what follows from their lines."""

import numpy as np
import pytest

from onnxprune.operators.einsum import EINSUM, SumOfProducts
from onnxprune.operators.products import MATRICES
from onnxprune.operators.registry import Taken

TURNED = {"transA": 1, "transB": 1}


@pytest.mark.parametrize(
    ("line", "attributes", "shapes", "result", "gone"),
    [
        (MATRICES, {}, [(2, 3), (3, 4)], (2, 4), [[1], [0], []]),
        (MATRICES, TURNED, [(3, 2), (4, 3), (4,)], (2, 4), [[0], [1], []]),
        (MATRICES, {}, [(5, 1, 2, 3), (7, 3, 4)], (5, 7, 2, 4), [[3], [1], []]),
        (MATRICES, {}, [(3,), (7, 3, 4)], (7, 4), [[0], [1], []]),
        (MATRICES, {}, [(7, 2, 3), (3,)], (7, 2), [[2], [0], []]),
        (MATRICES, {}, [(3,), (3,)], (), [[0], [0], []]),
        (MATRICES, {"transBatchA": 1}, [(2, 7, 3), (7, 3, 4)], (7, 2, 4), [[2], [1], []]),
        (MATRICES, {"transBatchA": 1, **TURNED}, [(3, 7, 2), (7, 4, 3)], (7, 2, 4), [[0], [2], []]),
        (MATRICES, {}, [(0, 2, 3), (1, 3, 4)], (0, 2, 4), [[2], [1], []]),
        (EINSUM, {"equation": b"b i j, j k -> k b"}, [(2, 5, 3), (3, 4)], (4, 2), [[1, 2], [0], []]),
        (EINSUM, {"equation": "...i,i"}, [(2, 5, 3), (3,)], (2, 5), [[2], [0], []]),
    ],
)
def test_axes_follow_from_a_line(
    line: SumOfProducts, attributes: dict, shapes: list[tuple[int, ...]], result: tuple[int, ...], gone: list[list[int]]
) -> None:
    assert line.shape(shapes, attributes) == [result]
    taken = Taken(attributes, shapes, lambda _: None)
    assert [line.contracts(taken, k, len(s)) for k, s in enumerate(shapes)] == gone[: len(shapes)]
    terms, out = line.terms(shapes, attributes)
    made = np.einsum(f"{','.join(terms)}->{out}", *map(np.ones, shapes[: len(terms)]))
    assert made.shape == result


@pytest.mark.parametrize("shapes", [[(7, 2, 3), None], [None, (3, 4)], [None, None]])
def test_unknown_shapes_leave_the_axes_of_an_operand_of_known_rank(shapes: list) -> None:
    assert MATRICES.contracts(Taken({}, shapes, lambda _: None), 0, 3) == [2]
