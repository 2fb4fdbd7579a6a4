"""Drawn inputs for calibration without data: dead leaves for images, coloured noise for everything else.

Dead leaves are images of overlapping shapes whose sizes follow a power law, which gives them the scale invariance,
the edges and the occlusions of photographs (Lee, Mumford and Huang, IJCV 41, 2001, doi 10.1023/A:1011109015675).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from onnxprune.operators.labels import line
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.specs import Feed, Spec

CHANNELS = (1, 3, 4)
LEAVES = 48  # on the fullest images
LAW = 1.0  # radii r are drawn with density r^-(LAW + 1)
SMALLEST = 8  # pixels of a side under which an input is no image
BLURRED = 0.5  # share of images that are out of focus or were enlarged, as many photographs are
WHOLE = 64 * 64  # pixels up to which a leaf is laid on all images at once, and not on each where it lies
STROKES = 4  # of a line drawing at most
THICK = (1 / 16, 1 / 6)  # of a stroke, as a share of the shorter side
STEPS = 32  # points of a stroke
LIGHT = 0.25  # share of line drawings that are dark on light
BLUR = 0.25  # largest deviation of the blur in pixels, as a multiple of the root of the longer side


@dataclass(frozen=True)
class Scale:
    """From images in [0, 1] to what a model takes: `(image − mean) / std`, clipped to [low, high] where given.

    mean, std: one number or one per channel. The default gives zero mean and unit variance for these images.
    """

    mean: tuple[float, ...] = (0.46,)
    std: tuple[float, ...] = (0.25,)
    low: float | None = None
    high: float | None = None

    @classmethod
    def of_range(cls, low: float, high: float) -> "Scale":
        """Black is `low` and white is `high`."""
        return cls((-low / (high - low),), (1 / (high - low),), low, high)

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Scale `(samples, channels, height, width)`."""
        mean, std = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (self.mean, self.std))
        scaled = (images - mean) / std
        return scaled if self.low is None else np.clip(scaled, self.low, self.high)


@dataclass(frozen=True)
class Layout:
    """Where an input has its channels, its rows and its columns; None for an input that is no image."""

    channel: int
    rows: int
    columns: int

    @classmethod
    def of(cls, shape: Sequence[int]) -> "Layout | None":
        """The layout of a batch of images: four axes, 1, 3 or 4 channels first or last, at least 8 pixels a side."""
        if len(shape) != 4:
            return None
        for channel, rows, columns in ((1, 2, 3), (3, 1, 2)):
            if shape[channel] in CHANNELS and min(shape[rows], shape[columns]) >= SMALLEST:
                return cls(channel, rows, columns)
        return None


def is_grey(shape: Sequence[int]) -> bool:
    """Whether a batch of this shape is one of images without colours."""
    layout = Layout.of(shape)
    return layout is not None and shape[layout.channel] == 1


def synthetic_feeds(
    specs: Sequence[Spec],
    shapes: Mapping[str, Sequence[int]],
    *,
    count: int,
    batch: int | None = 32,
    scale: Scale | Mapping[str, Scale] | None = None,
    seed: int = 0,
    lines: bool = False,
) -> tuple[list[Feed], list[str]]:
    """Feeds for `count` samples in all, and names of inputs that are no images and got noise instead.

    Args:
        specs: inputs of the model.
        shapes: a shape under which the model runs, by input; a free first axis is replaced by `batch`, unless that
            is None.
        scale: of the images; one for each input where a mapping.
        lines: grey images are line drawings instead of dead leaves.
    """
    generator = np.random.default_rng(seed)
    free = all(s.shape is not None and len(s.shape) > 0 and not isinstance(s.shape[0], int) for s in specs)
    free = free and batch is not None
    size = min(batch or 1, count) if free else 1
    feeds, noisy = [], [s.name for s in specs if Layout.of(shapes[s.name]) is None]
    per_feed = size if free else max([shapes[s.name][0] for s in specs if len(shapes[s.name])] or [1])
    for _ in range(-(-count // per_feed)):
        feed = {}
        for spec in specs:
            shape = tuple(shapes[spec.name])
            shape = (size, *shape[1:]) if free else shape
            own = scale.get(spec.name) if isinstance(scale, Mapping) else scale
            feed[spec.name] = _drawn(spec, shape, own or _usual(spec), generator, lines)
        feeds.append(feed)
    return feeds, noisy


def _usual(spec: Spec) -> Scale:
    """What is most likely where nobody says it: integers span their bytes, real numbers have zero mean."""
    if spec.dtype.kind not in "iu":
        return Scale()
    return Scale.of_range(-128, 127) if spec.dtype == np.int8 else Scale.of_range(0, 255)


def _drawn(spec: Spec, shape: tuple[int, ...], scale: Scale, generator: np.random.Generator, lines: bool) -> np.ndarray:
    layout = Layout.of(shape)
    if layout is None:
        return _other(spec, shape, generator)
    size = shape[layout.rows], shape[layout.columns]
    if lines and is_grey(shape):
        images = line_drawings(shape[0], size, generator)
    else:
        images = dead_leaves(shape[0], shape[layout.channel], size, generator)
    scaled = scale.apply(images)
    if layout.channel == 3:
        scaled = scaled.transpose(0, 2, 3, 1)
    if spec.dtype.kind in "iu":
        info = np.iinfo(spec.dtype)
        scaled = np.clip(np.rint(scaled), info.min, info.max)
    return np.ascontiguousarray(scaled.astype(spec.dtype))


def _other(spec: Spec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Noise with a 1/f spectrum along the longest axis, of unit variance; integers as for any random run."""
    if spec.dtype.kind in "iubOSU":
        return random_inputs([spec], {spec.name: shape}, seed=int(generator.integers(1 << 31)))[0][spec.name]
    noise = generator.standard_normal(shape)
    if shape and max(shape) >= 32:
        axis = int(np.argmax(shape))
        spectrum = np.fft.rfft(noise, axis=axis)
        fall = 1 / np.sqrt(np.maximum(np.arange(spectrum.shape[axis]), 1))
        noise = np.fft.irfft(spectrum * fall.reshape(line(len(shape), axis)), shape[axis], axis)
        noise /= max(float(noise.std()), 1e-12)
    return np.asarray(noise.astype(spec.dtype))


def dead_leaves(count: int, channels: int, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Images `(count, channels, height, width)` in [0, 1], float32."""
    height, width = size
    y, x = (axis.astype(np.float32) for axis in np.indices(size))
    images = np.broadcast_to(
        _colours(count, channels, generator)[:, :, None, None], (count, channels, height, width)
    ).copy()
    tint = _colours(count, channels, generator)
    crowd = generator.uniform(0.15, 1, count)  # some images are full of leaves, others nearly empty
    most, least = (max(size) / s for s in (1.6, 20))
    for _ in range(LEAVES):
        part = generator.random(count)
        radius = (most**-LAW + part * (least**-LAW - most**-LAW)) ** (-1 / LAW)
        radius *= generator.random(count) < crowd
        images = _laid(images, (y, x), radius.astype(np.float32), tint, generator)
    images = _blurred(images, generator)
    images += _pink(images.shape, generator) * generator.gamma(2, 0.012, (count, 1, 1, 1)).astype(np.float32)
    return np.clip(_contrasted(images, generator), 0, 1).astype(np.float32)


def line_drawings(count: int, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Grey images `(count, 1, height, width)` in [0, 1], float32, of a few bent strokes as writing has them."""
    height, width = size
    y, x = (axis.astype(np.float32) for axis in np.indices(size))
    ink = np.zeros((count, height, width), np.float32)
    thin, fat = (min(size) * share for share in THICK)
    thick = generator.uniform(thin, fat, (count, 1, 1)).astype(np.float32)
    most = generator.integers(1, STROKES + 1, count)
    for k in range(STROKES):
        ends = generator.uniform(0.1, 0.9, (3, 2, count)) * np.reshape(size, (1, 2, 1))
        distance = np.full(ink.shape, np.inf, np.float32)
        for t in np.linspace(0, 1, STEPS):
            row, column = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t * t * ends[2]
            away = np.hypot(y - row[:, None, None].astype(np.float32), x - column[:, None, None].astype(np.float32))
            np.minimum(distance, away, out=distance)
        there = (most > k)[:, None, None]
        np.maximum(ink, np.clip(thick / 2 - distance + 0.5, 0, 1) * there, out=ink)
    light = generator.random((count, 1, 1)) < LIGHT
    return np.where(light, 1 - ink, ink)[:, None].astype(np.float32)


def _laid(
    images: np.ndarray,
    grid: tuple[np.ndarray, np.ndarray],
    radius: np.ndarray,
    tint: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """One more leaf on every image: an ellipse or a rectangle, turned, with a soft gradient and soft edges."""
    count, channels, height, width = images.shape
    turn = generator.uniform(0, np.pi, count)
    round_ = np.asarray(generator.random(count) < 0.6)
    stretch = np.exp(generator.uniform(-0.7, 0.7, count))
    middle = [np.asarray(generator.uniform(0, n, count), np.float32) for n in (height, width)]
    cos, sin = (f(turn).astype(np.float32) for f in (np.cos, np.sin))
    r, s = np.maximum(radius, 1e-6), stretch.astype(np.float32)
    colour = 0.7 * _colours(count, channels, generator) + 0.3 * tint
    slope = np.asarray(generator.normal(0, 0.10, count), np.float32)
    whole = height * width <= WHOLE
    for some, (rows, columns) in (
        [(slice(None), (slice(None),) * 2)] if whole else _boxes(middle, r, s, (height, width))
    ):
        leaf = [a[some][:, None, None] for a in (*middle, cos, sin, r, s, round_, slope)]
        row, column, c, n, size, long, oval, bend = leaf
        dy, dx = grid[0][rows, columns] - row, grid[1][rows, columns] - column
        u, v = (c * dx + n * dy) / (size * long), (c * dy - n * dx) * long / size
        distance = np.where(oval, np.sqrt(u * u + v * v), np.maximum(np.abs(u), np.abs(v)))
        cover = np.clip(((1 - distance) * size + 0.5) * (size > 0.1), 0, 1)[:, None]
        part = images[some, :, rows, columns]
        part += cover * (colour[some][:, :, None, None] + (bend * np.clip(u, -1.5, 1.5))[:, None] - part)
    return images


def _boxes(
    middle: Sequence[np.ndarray], radius: np.ndarray, stretch: np.ndarray, size: tuple[int, int]
) -> Iterator[tuple[slice, tuple[slice, slice]]]:
    """For each image on which there is a leaf, itself and the rows and columns that the leaf may cover."""
    reach = np.sqrt(2) * radius * np.maximum(stretch, 1 / stretch) + 1
    for k in np.flatnonzero(radius > 0.1):
        low = [max(int(m[k] - reach[k]), 0) for m in middle]
        high = [min(int(m[k] + reach[k]) + 2, n) for m, n in zip(middle, size, strict=True)]
        yield slice(k, k + 1), (slice(low[0], high[0]), slice(low[1], high[1]))


def _colours(count: int, channels: int, generator: np.random.Generator) -> np.ndarray:
    """Colours `(count, channels)`: brightness varies most, then warm against cold, green against purple least."""
    bright = np.asarray(generator.beta(1.4, 1.6, (count, 1)))
    if channels == 1:
        return bright.astype(np.float32)
    warm, green = generator.normal(0, 0.10, (count, 1)), generator.normal(0, 0.045, (count, 1))
    colours = bright + np.concatenate([warm - green, green, -warm - green, *[0 * warm] * (channels - 3)], axis=1)
    return colours[:, :channels].astype(np.float32)


def _blurred(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Some of the images blurred, each as much as chance has it."""
    count, _, height, width = images.shape
    sigmas = generator.uniform(0, BLUR * np.sqrt(max(height, width)), count) * (generator.random(count) < BLURRED)
    for k in np.flatnonzero(sigmas):
        images[k] = gaussian_filter(images[k], (0, sigmas[k], sigmas[k]), truncate=3)
    return images


def _pink(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Noise of unit variance whose amplitude falls as 1/√f, nearly grey."""
    height, width = shape[2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(generator.standard_normal((shape[0], 1, height, width))) / np.sqrt(frequency)
    noise = np.fft.irfft2(spectrum, (height, width))
    return (noise / max(float(noise.std()), 1e-12)).astype(np.float32)


def _contrasted(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Each image with a brightness and a contrast of its own, as exposures differ."""
    count = len(images)
    gain = generator.uniform(0.7, 1.25, (count, 1, 1, 1)).astype(np.float32)
    shift = generator.normal(0, 0.10, (count, 1, 1, 1)).astype(np.float32)
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return (images - mean) * gain + mean + shift - 0.02
