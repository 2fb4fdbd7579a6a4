"""Reshapes of blocks of axes that hold too many positions to give each of them a label.

A group normalisation of earlier operator sets is a Reshape of maps (C, H, W) to (groups, C / groups · H · W), and back.
Where that is millions of positions, it is enough to know what becomes of the first axis: whole groups stay or go.
"""

import math
from collections.abc import Sequence

from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import LARGEST_AXIS, Axes, Labels, fixed, is_fixed, repeated


def reshaped(coupling: Coupling, axes: Axes, shape: Sequence[int]) -> list[Labels] | None:
    """Labels of the axes that a block of axes is reshaped to, (size,) each, where its first axis alone can shrink.

    Channels are tied that come to lie on one position of the new first axis.  None where the block is not that large,
    or neither of the first axes is a multiple of the other.
    """
    if math.prod(shape) <= LARGEST_AXIS:
        return None
    (channels, *others), first = (x for x in axes if x.size > 1), next(k for k, size in enumerate(shape) if size > 1)
    if is_fixed(channels) or not all(map(is_fixed, others)) or shape[first] > LARGEST_AXIS:
        return None
    if shape[first] % channels.size == 0:
        labels = repeated(channels, shape[first] // channels.size, each=True)
    elif channels.size % shape[first] == 0:
        labels, *tied = channels.reshape(shape[first], -1).T
        for same in tied:
            coupling.tie(labels, same)
    else:
        return None
    return [labels if k == first else fixed(size) for k, size in enumerate(shape)]
