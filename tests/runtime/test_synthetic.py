"""Drawn inputs: the model's own shape, layout, type and scale; the same seed gives the same samples."""

import numpy as np
import pytest

from onnxprune.runtime.specs import Spec
from onnxprune.runtime.synthetic import Layout, Scale, dead_leaves, synthetic_feeds

FLOAT, UINT8, INT64 = 1, 2, 7


def drawn(spec: Spec, shape: tuple[int, ...], **options: object) -> tuple[list[np.ndarray], list[str]]:
    feeds, noisy = synthetic_feeds([spec], {spec.name: shape}, **options)  # type: ignore[arg-type]
    return [f[spec.name] for f in feeds], noisy


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 32, 32), Layout(1, 2, 3)),
        ((1, 32, 48, 3), Layout(3, 1, 2)),
        ((1, 1, 28, 28), Layout(1, 2, 3)),
        ((1, 64, 32, 32), None),
        ((1, 3, 4, 4), None),
        ((1, 16000), None),
    ],
)
def test_what_an_image_is(shape: tuple[int, ...], layout: Layout | None) -> None:
    assert Layout.of(shape) == layout


def test_a_free_batch_is_filled_and_a_fixed_one_is_kept() -> None:
    free, _ = drawn(Spec("x", FLOAT, ("n", 3, 16, 16)), (1, 3, 16, 16), count=48, batch=32)
    assert [a.shape for a in free] == [(32, 3, 16, 16), (32, 3, 16, 16)]
    fixed, _ = drawn(Spec("x", FLOAT, (2, 16, 16, 3)), (2, 16, 16, 3), count=6)
    assert [a.shape for a in fixed] == [(2, 16, 16, 3)] * 3


def test_scale_of_bytes_and_of_a_range() -> None:
    (array,), _ = drawn(Spec("x", UINT8, ("n", 16, 16, 3)), (1, 16, 16, 3), count=32, scale=Scale.of_range(0, 255))
    assert array.dtype == np.uint8
    assert array.min() < 40
    assert array.max() > 215
    (array,), _ = drawn(Spec("x", FLOAT, ("n", 3, 16, 16)), (1, 3, 16, 16), count=32, scale=Scale.of_range(-1, 1))
    assert -1 <= array.min() < -0.6
    assert 0.6 < array.max() <= 1


def test_by_default_about_zero_mean_and_unit_variance() -> None:
    (array,), noisy = drawn(Spec("x", FLOAT, ("n", 3, 32, 32)), (1, 3, 32, 32), count=256, batch=256)
    assert abs(array.mean()) < 0.2
    assert 0.7 < array.std() < 1.2
    assert noisy == []


def test_the_same_seed_draws_the_same_and_images_differ() -> None:
    one, two, other = (dead_leaves(4, 3, (24, 24), np.random.default_rng(s)) for s in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert all(np.abs(one[a] - one[b]).mean() > 0.02 for a in range(4) for b in range(a))


def test_neighbours_are_alike_as_in_photographs() -> None:
    images = dead_leaves(64, 3, (32, 32), np.random.default_rng(0))
    near = np.abs(np.diff(images, axis=3)).mean()
    far = np.abs(images[..., 16:] - images[..., :16]).mean()
    assert near < 0.5 * far
    assert images.min() >= 0
    assert images.max() <= 1


def test_what_is_no_image_gets_noise_and_is_named() -> None:
    (array,), noisy = drawn(Spec("audio", FLOAT, ("n", 4000)), (1, 4000), count=8, batch=8)
    assert noisy == ["audio"]
    assert array.shape == (8, 4000)
    spectrum = np.abs(np.fft.rfft(array, axis=1)).mean(axis=0)
    assert spectrum[1:100].mean() > 2 * spectrum[1000:].mean()
    (tokens,), _ = drawn(Spec("ids", INT64, ("n", 12)), (1, 12), count=4)
    assert tokens.dtype == np.int64
