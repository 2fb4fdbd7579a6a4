"""Axes whose positions are combinations of channels: which channels each component of such positions goes with.

A bank of filters that is mixed for each input lies in one axis, (out · in · taps).  A position of it goes when its
filter goes or when the channel goes that it reads, so it has no say of its own.
"""

from collections.abc import Iterator

import numpy as np

from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import Labels, is_fixed

WHY = "combines its channels in one axis in several ways"


def solved(coupling: Coupling) -> tuple[Labels, Labels]:
    """Components, and for each of them what it combines.

    Returns:
        component of each label, (labels,); labels of the channels that a component combines, (factors, components), 0
        where there are none.
    """
    while True:
        component = coupling.solve()
        factors = max((len(product.parts) for product in coupling.products.values()), default=0)
        combined = np.zeros((factors, int(component.max()) + 1), np.int64)
        clashes = list(_clashes(coupling, component, combined))
        combined[:, component[0]] = 0
        if not any(clashes):
            return component, combined


def _clashes(coupling: Coupling, component: Labels, combined: Labels) -> Iterator[bool]:
    """Fill in what components combine; channels freeze where it is not one combination for each."""
    coupling.node = -1
    whole = np.zeros(combined.shape[1], bool)
    for product in coupling.products.values():
        whole[component[product.labels.ravel()]] = True
    whole[component[0]] = False
    for product in coupling.products.values():
        positions = component[product.labels.ravel()]
        _, first, inverse = np.unique(positions, return_index=True, return_inverse=True)
        several = np.zeros(positions.size, bool)
        parts = product.combined()
        for k, part in enumerate(parts):
            held = combined[k, positions]
            several |= component[part] != component[part[first][inverse]]
            several |= (held > 0) & (component[held] != component[part])
            several |= whole[component[part]]
        clashing = np.zeros(len(whole), bool)
        clashing[positions[several]] = clashing[component[0]] = True
        wrong = clashing[positions]
        for k, part in enumerate(parts):
            loose = part[wrong & (component[part] != component[0])]
            coupling.freeze(np.unique(loose), why=WHY) if loose.size else None
            combined[k, positions] = part
            yield bool(loose.size)


def channels_of(labels: Labels, component: Labels, combined: Labels) -> list[Labels]:
    """The labels of an axis; where its positions combine channels, those of the channels, factor by factor."""
    if not len(combined) or is_fixed(labels):
        return [labels]
    parts = combined[:, component[labels]]
    whole = ~parts.any(axis=0)
    if whole.all():
        return [labels]
    return [np.where(whole, labels if k == 0 else 0, part) for k, part in enumerate(parts)]
