"""Images as they might have been taken too: mirrored, moved a little, lighter or darker.

Layers are solved for what the original network gives for the altered image, so that no label has to stay right: few
samples know too little of what a layer reads, and their altered copies know more of it.
"""

import numpy as np

from onnxprune.runtime.synthetic import Layout

SHIFT = 0.125  # of a side: how far an image is moved at most, its borders mirrored
GAIN = (0.8, 1.2)  # of the contrast
OFFSET = 0.2  # deviation of what is added to all pixels of a colour, in deviations of the pixels


def altered(images: np.ndarray, layout: Layout, generator: np.random.Generator) -> np.ndarray:
    """A copy of each image, altered, within the range and of the type of the pixels that are there."""
    count, axes = len(images), (layout.rows, layout.columns)
    out = images.astype(np.float32)
    mirrored = generator.random(count) < 0.5
    out[mirrored] = np.flip(out[mirrored], layout.columns)
    for axis in axes:
        out = _moved(out, axis, generator)
    gain = generator.uniform(*GAIN, (count, 1, 1, 1)).astype(np.float32)
    tint = [count if a == 0 else images.shape[a] if a == layout.channel else 1 for a in range(4)]
    offset = generator.normal(0, OFFSET * float(images.std()), tint).astype(np.float32)
    middle = out.mean(axis=axes, keepdims=True)
    out = np.clip((out - middle) * gain + middle + offset, images.min(), images.max())
    return (np.rint(out) if images.dtype.kind in "iu" else out).astype(images.dtype)


def _moved(images: np.ndarray, axis: int, generator: np.random.Generator) -> np.ndarray:
    """Each image moved along an axis, what comes in from outside mirrored at the border."""
    size, most = images.shape[axis], int(SHIFT * images.shape[axis])
    places = np.arange(size) + generator.integers(-most, most + 1, len(images))[:, None]
    places = np.where(places < 0, -1 - places, np.where(places >= size, 2 * size - 1 - places, places))
    shape = [len(images) if a == 0 else size if a == axis else 1 for a in range(4)]
    return np.take_along_axis(images, places.reshape(shape), axis)
