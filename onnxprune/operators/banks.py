"""Banks: axes that hold whole filters, (out · in · taps), each factor of which has channels of its own."""

import numpy as np

from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import Axes, Product, fixed
from onnxprune.operators.split_axes import Value


def factored(coupling: Coupling, value: Value, product: Product) -> Axes:
    """The factors of a product, in the order in which the axes of a value have them."""
    split = value.split_axis
    assert split is not None
    if sorted(split.factors) == sorted(product.factors):
        order = [product.factors.index(f) for f in split.factors]
        if np.array_equal(split.labels, product.labels.transpose(order)):
            parts = dict(zip(split.dims, (product.parts[k] for k in order), strict=True))
            return tuple(parts.get(d, x) for d, x in enumerate(value.axes))
    coupling.freeze(split.labels, why="splits it into other factors than its filters have")
    return tuple(fixed(x.size) if d in split.dims else x for d, x in enumerate(value.axes))
