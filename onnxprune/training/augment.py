"""Changed samples: shifted, mirrored and mixed images; nothing for other inputs.

Mixing: Zhang et al. 2018, mixup, arXiv 1710.09412, and Yun et al. 2019, CutMix, arXiv 1905.04899.  The original is
asked about the changed samples, so that what it learnt is carried over there as well: Beyer et al. 2022, Knowledge
distillation: a good teacher is patient and consistent, arXiv 2106.05237.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.runtime.classes import as_scores
from onnxprune.runtime.specs import Feed
from onnxprune.runtime.synthetic import Layout

SHIFT = 1 / 8  # of a side, the most that an image is moved by
HARMLESS = 0.9  # share of samples whose class a change has to leave alone, so that it is made

Run = Callable[[Feed], Mapping[str, np.ndarray]]
Mixing = tuple[np.ndarray, float]  # the partner of each sample, and the share that is its own


@dataclass(frozen=True)
class Change:
    """What is done to the images of a batch.

    shift: pixels that an image is moved by at the most, up and down and to the sides.
    mirror: whether left and right change places in half of them.
    mix: whether every image is mixed with another one.
    """

    inputs: tuple[str, ...] = ()
    shift: int = 0
    mirror: bool = False
    mix: bool = False

    def __call__(self, feed: Feed, generator: np.random.Generator) -> tuple[Feed, Mixing | None]:
        """A changed feed; and, where it is mixed, the partner of each sample with the share that is its own."""
        if not self.inputs:
            return feed, None
        count = len(feed[self.inputs[0]])
        moves = generator.integers(-self.shift, self.shift + 1, (count, 2))
        turned = generator.random(count) < 0.5 if self.mirror else np.zeros(count, bool)
        images = {n: _moved(feed[n], moves, turned) for n in self.inputs}
        if not self.mix or count < 2:
            return {**feed, **images}, None
        partner, share = generator.permutation(count), float(generator.random())
        if generator.random() < 0.5:
            blended = {n: (share * a + (1 - share) * a[partner]).astype(a.dtype) for n, a in images.items()}
            return {**feed, **blended}, (partner, share)
        place = generator.random(2)
        pasted = {n: _pasted(a, a[partner], share, place) for n, a in images.items()}
        return {**feed, **{n: a for n, (a, _) in pasted.items()}}, (partner, pasted[self.inputs[0]][1])

    @property
    def words(self) -> str:
        said = [f"shifted by up to {self.shift} pixels"] * bool(self.shift) + ["mirrored"] * self.mirror
        return ", ".join([*said, *(["mixed"] * self.mix)]) or "as they are"


def change_of(feeds: Sequence[Feed], output: str | None, run: Run) -> Change:
    """What can be done to samples without harm: the class that the original gives tells.

    Args:
        feeds: some batches.
        output: of class scores; None where there is none, and nothing is changed.
        run: the original.
    """
    images = tuple(sorted(n for n, a in feeds[0].items() if a.dtype.kind == "f" and Layout.of(a.shape)))
    if output is None or not images or len(images) < len(feeds[0]):
        return Change()
    given = [_classes(run(feed), output) for feed in feeds]
    layout = Layout.of(feeds[0][images[0]].shape)
    assert layout is not None
    side = min(feeds[0][images[0]].shape[layout.rows], feeds[0][images[0]].shape[layout.columns])

    def harmless(change: Change) -> bool:
        generator = np.random.default_rng(0)
        same = [_classes(run(change(f, generator)[0]), output) == c for f, c in zip(feeds, given, strict=True)]
        return bool(np.concatenate(same).mean() >= HARMLESS)

    shift = round(side * SHIFT)
    while shift and not harmless(Change(images, shift=shift)):
        shift //= 2
    mirror = harmless(replace(Change(images), mirror=True))
    return Change(images, shift, mirror, mix=True)


def _classes(outputs: Mapping[str, np.ndarray], output: str) -> np.ndarray:
    scores = as_scores(outputs[output])
    assert scores is not None
    return scores.argmax(axis=1).ravel()


def _moved(images: np.ndarray, moves: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Images moved by (down, right) pixels each and mirrored; what comes in at the edges repeats the last pixel."""
    layout = Layout.of(images.shape)
    assert layout is not None
    last = np.moveaxis(images, (layout.rows, layout.columns), (-2, -1))  # (samples, channels, rows, columns)
    down, right = (np.arange(last.shape[a]) - moves[:, b, None] for a, b in ((-2, 0), (-1, 1)))
    down, right = np.clip(down, 0, last.shape[-2] - 1), np.clip(right, 0, last.shape[-1] - 1)
    right[turned] = right[turned, ::-1]
    moved = last[np.arange(len(last))[:, None, None], :, down[:, :, None], right[:, None, :]]
    return np.ascontiguousarray(np.moveaxis(moved, (1, 2, 3), (layout.rows, layout.columns, layout.channel)))


def _pasted(images: np.ndarray, others: np.ndarray, share: float, place: np.ndarray) -> tuple[np.ndarray, float]:
    """A rectangle of the other image in each, and the share of the area that is its own."""
    layout = Layout.of(images.shape)
    assert layout is not None
    spans = []
    for axis, at in ((layout.rows, place[0]), (layout.columns, place[1])):
        size = images.shape[axis]
        length = round(size * math.sqrt(1 - share))
        start = int(at * (size - length + 1))
        spans.append((axis, slice(start, start + length), length / size))
    index = [slice(None)] * images.ndim
    for axis, span, _ in spans:
        index[axis] = span
    pasted = images.copy()
    pasted[tuple(index)] = others[tuple(index)]
    return pasted, 1 - spans[0][2] * spans[1][2]
