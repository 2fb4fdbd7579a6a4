"""Drawn images that a classifier takes for its classes, evenly: an evolution that only asks what the network says.

Most drawn images look alike to a network: it takes two thirds of them for the same two or three classes, and is sure of
none.  Layers that are solved on such samples know little of what real ones of the other classes do.  So each class gets
those images of a larger pool that the network takes for it most surely, and they have offspring: a spot of another
image, of the same class or of any, is laid over each, and stays where the network is surer for it.  It is class
inversion (Mahendran and Vedaldi, CVPR 2015, arXiv 1412.0035; Yin et al., CVPR 2020, arXiv 1912.08795) by selection,
without gradients.
"""

from collections.abc import Callable

import numpy as np

from onnxprune.runtime.synthetic import Layout

SHIFT = 0.2  # of a side: how far the other image is moved at most
SPOT = (0.1, 0.5)  # of the shorter side: radii of the spot
KIN = 0.5  # how often the other image is of the same class

Sure = Callable[[np.ndarray], np.ndarray]  # from images to logarithms of the odds of each class, (samples, classes)


def of_all_classes(
    pool: np.ndarray,
    layout: Layout,
    sure: Sure,
    count: int,
    rounds: int,
    generator: np.random.Generator,
    told: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """So many images, (count, ...), of all classes as evenly as can be, in random order.

    Args:
        pool: images as the network takes them, at least `count`.
        layout: where they have rows and columns.
        sure: the network.
        rounds: of offspring, each of which asks the network once for every image.
        told: called with the number of each round.
    """
    known = sure(pool)
    chosen, own = even(known, count)
    images, now = pool[chosen].astype(np.float32), known[chosen, own]
    for done in range(rounds):
        told(done)
        young = _offspring(images, own, pool, layout, generator).astype(pool.dtype)
        then = sure(young)[np.arange(count), own]
        better = then > now
        images[better], now[better] = young[better], then[better]
    return images[generator.permutation(count)].astype(pool.dtype)


def even(known: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images to take, and for which class each: (count,) indices.

    Rare classes choose first; where there are more classes than images are wanted, those that are surest of one.

    Args:
        known: (images, classes), how sure the network is of each.
    """
    classes = known.shape[1]
    found = np.bincount(known.argmax(axis=1), minlength=classes)
    order = np.argsort(found, kind="stable")
    if classes > count:
        order = np.argsort(-known.max(axis=0), kind="stable")[:count]
    shares = np.full(len(order), count // len(order))
    shares[len(order) - count % len(order) :] += 1
    free, chosen, own = np.ones(len(known), bool), [], []
    for c, share in zip(order, shares, strict=True):
        best = np.argsort(np.where(free, -known[:, c], np.inf), kind="stable")[:share]
        free[best] = False
        chosen.append(best)
        own.append(np.full(len(best), c))
    return np.concatenate(chosen), np.concatenate(own)


def _offspring(
    images: np.ndarray, own: np.ndarray, pool: np.ndarray, layout: Layout, generator: np.random.Generator
) -> np.ndarray:
    """Each image with a spot of another one, which is moved and perhaps mirrored: float32."""
    count, size = len(images), (images.shape[layout.rows], images.shape[layout.columns])
    other = pool[generator.integers(0, len(pool), count)].astype(np.float32)
    kin = generator.random(count) < KIN
    order = np.argsort(own, kind="stable")
    alike = order[np.searchsorted(own[order], own) + generator.integers(0, np.bincount(own)[own])]
    other[kin] = images[alike[kin]]
    mirrored = generator.random(count) < 0.5
    other[mirrored] = np.flip(other[mirrored], layout.columns)
    moves = [generator.integers(-int(SHIFT * n), int(SHIFT * n) + 1, count) for n in size]
    for k in range(count):
        other[k] = np.roll(other[k], (moves[0][k], moves[1][k]), (layout.rows - 1, layout.columns - 1))
    return images + _spots(count, size, layout, generator) * (other - images)


def _spots(count: int, size: tuple[int, int], layout: Layout, generator: np.random.Generator) -> np.ndarray:
    """How much of the other image is seen where: (count, rows, columns) from 0 to 1, with an axis of channels of 1."""
    y, x = (axis.astype(np.float32) for axis in np.indices(size))
    row, column = (generator.uniform(0, n, (count, 1, 1)).astype(np.float32) for n in size)
    radius = generator.uniform(SPOT[0] * min(size), SPOT[1] * min(size), (count, 1, 1)).astype(np.float32)
    strength = generator.uniform(0.3, 1, (count, 1, 1)).astype(np.float32)
    spots = strength * np.clip((radius - np.hypot(y - row, x - column)) / 2 + 0.5, 0, 1)
    return np.expand_dims(spots, layout.channel)
